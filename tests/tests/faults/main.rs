//! System calls that fail on demand.

mod attacked;
mod effects;
mod hostile;
mod memory;
mod scarce;
mod short;
mod told;
mod when;
mod whose;

use std::fs::{self, File};
use std::io;

use belljar::Fault;

belljar_tests::bodies!();

/// A new file in `/data`.
fn data(name: &str) -> File {
    fs::create_dir_all("/data").expect("a directory");
    File::create(format!("/data/{name}")).expect("a file")
}

/// The error number of what has failed.
fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// A fault that makes fsync(2) fail.
fn no_fsync() -> Fault {
    Fault::new("fsync").errno(libc::EIO)
}
