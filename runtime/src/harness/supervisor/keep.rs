//! What a sweep takes for safe: the contents of files at the moment that they are synced. They are copied to a directory of the sandbox's, of which
//! each case of the sweep has another.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::PoisonError;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::caller::Caller;
use super::shared::Shared;
use super::told::Hit;
use crate::faults::{KEPT, kept_name};
use crate::sys::errno_of;
use crate::sys::seccomp::Reply;

/// Larger files are not kept. In bytes.
const SIZE_MAX: u64 = 1 << 30;

/// Keeps what a call is about to sync. If that can't be, and the caller still waits, the sweep is told. The call goes on in any case.
pub(super) fn perform(shared: &Shared, caller: &Caller, _: Hit) -> Option<Reply> {
    // One after the other, so that of two syncs of a file the later one's content stays.
    let _one = shared.keeps.lock().unwrap_or_else(PoisonError::into_inner);
    match keep(shared, caller) {
        // The call fails for the same reason.
        Ok(()) | Err(Errno::EBADF) => {}
        Err(_) if !shared.still_waits(caller) => {}
        Err(_) => shared.board.add_not_kept(),
    }
    None
}

fn keep(shared: &Shared, caller: &Caller) -> nix::Result<()> {
    let file = caller.descriptor(0)?;
    let root = File::open(format!("/proc/{}/root", caller.thread)).map_err(|error| errno_of(&error))?;
    if !shared.still_waits(caller) {
        return Err(Errno::ESRCH);
    }
    if OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?).contains(OFlag::O_PATH) {
        return Err(Errno::EBADF);
    }
    let stat = fstat(&file)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Ok(());
    }
    // The descriptor may be one for writing.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let from = File::open(path).map_err(|error| errno_of(&error))?;
    let meta = from.metadata().map_err(|error| errno_of(&error))?;
    // What is made here is made in the sandbox, whatever links a process of it has put there.
    let directory = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let [first, second] = KEPT;
    let kept = openat(&openat(&root, first, directory, Mode::empty())?, second, directory, Mode::empty())?;
    let name = kept_name(meta.dev(), meta.ino());
    let part = format!("{name}-part");
    let new =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let mut to = File::from(openat(&kept, &*part, new, Mode::S_IRUSR | Mode::S_IWUSR)?);
    let copied = io::copy(&mut from.take(SIZE_MAX + 1), &mut to).map_err(|error| errno_of(&error))?;
    if copied > SIZE_MAX {
        return Err(Errno::EFBIG);
    }
    renameat(&kept, &*part, &kept, &*name)
}
