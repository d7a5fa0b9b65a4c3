//! The packets of laboratories whose tests fail: each becomes a file in the target directory.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::{env, thread};

use nix::fcntl::{FcntlArg, fcntl};

use super::evidence::Evidence;
use super::words;
use crate::net;
use crate::rootfs::context::target_of;
use crate::spec::Test;

/// The directory of all captures, below the target directory.
const CAPTURES: &str = "belljar-captures";

/// Of how many laboratories a test's packets are kept.
pub(super) const CAPTURES_MAX: usize = 8;

/// What came from a body, if it is memory, which answers at once.
pub(super) fn taken(memory: OwnedFd) -> Option<File> {
    match fcntl(&memory, FcntlArg::F_GET_SEALS) {
        Ok(_) => Some(memory.into()),
        Err(_) => {
            super::replies::discard(memory);
            None
        }
    }
}

/// Writes what `test` has sent and received, and returns what is to be said of that.
pub(super) fn write(test: &Test, evidence: &Evidence) -> Vec<String> {
    let write = |(number, memory): (usize, &File)| {
        let path = path_of(test, number);
        let written =
            path.as_deref().map_or_else(|| Err(io::ErrorKind::NotFound.into()), |path| write_to(path, memory));
        let path = path.unwrap_or_else(|| CAPTURES.into());
        match written {
            Ok(()) => words::captured(test.short_name(), &path),
            Err(error) => words::not_captured(test.short_name(), &path, &error),
        }
    };
    evidence.captures.iter().enumerate().map(write).collect()
}

/// Where the packets of a test's laboratory of this number go: into a file that its next run writes anew.
fn path_of(test: &Test, number: usize) -> Option<PathBuf> {
    let binary = env::current_exe().ok()?;
    let is_plain = |char: char| char.is_alphanumeric() || matches!(char, '_' | '-');
    let name: String = test
        .name
        .replace("::", ".")
        .chars()
        .map(|char| if is_plain(char) || char == '.' { char } else { '_' })
        .collect();
    let number = if number == 0 { String::new() } else { format!("-{}", number + 1) };
    Some(target_of(&binary)?.join(CAPTURES).join(format!("{name}{number}.pcapng")))
}

/// Writes a whole file, or none: another run may write the same one.
fn write_to(path: &Path, memory: &File) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::NotFound)?;
    fs::create_dir_all(directory)?;
    let unfinished = path.with_extension(format!("{}-{:?}", std::process::id(), thread::current().id()));
    let write = || {
        let mut out = BufWriter::new(File::create(&unfinished)?);
        net::write_capture(memory, &mut out)?;
        out.flush()?;
        fs::rename(&unfinished, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}
