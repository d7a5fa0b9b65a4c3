//! A body that takes bytes and returns bytes. Both lie in memory that the test binary has made, so that neither side waits for the other.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::words;
use crate::frame::address::Function;
use crate::sys;

/// The status of a body that has returned an error. The text of that is in the place of the output.
const IS_ERROR: u8 = 1;

/// A body that is to be called.
pub(super) struct Call {
    function: Function,
    input: File,
    /// The body may close it, and this must not close what then has its number.
    output: ManuallyDrop<File>,
}

impl Call {
    /// `None` if one of the descriptors got lost.
    pub(super) fn new(function: Function, descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut files = descriptors.into_iter().map(File::from);
        let (input, output) = (files.next()?, files.next()?);
        Some(Self { function, input, output: ManuallyDrop::new(output) })
    }

    /// Calls the body, and hands over what it returns. Panics if that can't be had.
    pub(super) fn run(self) -> u8 {
        let Self { function, input, output } = self;
        assert!(function.is_here(), "{}", words::no_function());
        let bytes = read(&input).unwrap_or_else(|error| panic!("{}", words::no_input(&error)));
        drop(input);
        let place = id(&output);
        let (status, returned) = match function.call(&bytes) {
            Ok(returned) => (0, returned),
            Err(text) => (IS_ERROR, text.into_bytes()),
        };
        // In a child that the body forked, and that returned from it as well, nothing is handed over.
        if sys::is_marked_process() {
            let is_there = place.is_ok() && id(&output) == place;
            let written = if is_there { write(&output, &returned) } else { Err(Errno::EBADF.into()) };
            written.unwrap_or_else(|error| panic!("{}", words::no_output(returned.len(), &error)));
        }
        status
    }
}

fn read(input: &File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(input.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length)?;
    bytes.resize(length, 0);
    input.read_exact_at(&mut bytes, 0).map(|()| bytes)
}

fn write(output: &File, bytes: &[u8]) -> io::Result<()> {
    sys::without_size_signal(|| output.write_all_at(bytes, 0))
}

/// Which file this is.
fn id(file: &File) -> nix::Result<(libc::dev_t, libc::ino_t)> {
    fstat(file).map(|stat| (stat.st_dev, stat.st_ino))
}
