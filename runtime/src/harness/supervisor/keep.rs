//! What a sweep takes for safe: the contents of files at the moment that they are synced. They are copied to a directory of the sandbox's, of which
//! each case of the sweep has another.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::caller::Caller;
use super::shared::Shared;
use super::told::Hit;
use crate::faults::{KEPT, kept_name};
use crate::sys;
use crate::sys::seccomp::{self, Reply};

/// The most bytes that a file has which is kept.
const SIZE_MAX: u64 = 1 << 30;

/// Keeps what a call is about to sync. If that can't be, the call is no hit. It goes on in any case.
pub(super) fn perform(shared: &Shared, caller: &Caller, hit: Hit) -> Option<Reply> {
    if keep(shared, caller).is_ok() {
        shared.board.add_hit(hit.entry);
    }
    None
}

fn keep(shared: &Shared, caller: &Caller) -> io::Result<()> {
    let gone = || io::Error::from_raw_os_error(libc::ESRCH);
    let process = caller.process().and_then(|process| i32::try_from(process).ok()).ok_or_else(gone)?;
    let file = seccomp::descriptor_of(sys::pidfd_of(Pid::from_raw(process))?.as_fd(), caller.argument(0) as i32)?;
    let root = File::open(format!("/proc/{}/root", caller.thread))?;
    if !shared.still_waits(caller) {
        return Err(gone());
    }
    let file = File::from(file);
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(());
    }
    if meta.len() > SIZE_MAX {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    // The descriptor may be one for writing.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut from = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    // What is made here is made in the sandbox, whatever links a process of it has put there.
    let directory = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let kept = openat(&root, &KEPT.to_string_lossy()[1..], directory, Mode::empty())?;
    let name = kept_name(meta.dev(), meta.ino());
    let new =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let part = format!("{name}-{}", caller.id);
    let mut to = File::from(openat(&kept, &*part, new, Mode::S_IRUSR | Mode::S_IWUSR)?);
    io::copy(&mut from, &mut to)?;
    renameat(&kept, &*part, &kept, &*name)?;
    Ok(())
}
