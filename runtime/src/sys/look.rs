//! Looking at a file system that may never answer.

use std::ffi::{CStr, c_int};
use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::prctl::{set_name, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::sys::stat::lstat;
use nix::sys::statfs::statfs;
use nix::unistd::{Pid, getpid, getppid};

use super::fd::close_from_but;
use super::process::{clone, exit_now};

/// What a process is called that [`look_in_child`] makes.
pub(crate) const LOOKER: &CStr = c"belljar-look";

/// Has a child look at `path`, which lies on what is mounted at `point`. It ends when whoever serves the file system there has answered; until
/// then, perhaps not even SIGKILL ends it. It has nothing of this process open. It sends no signal at its end: a wait(2) of somebody else's code doesn't find it.
pub(crate) fn look_in_child(point: &CStr, path: &CStr) -> nix::Result<(Pid, OwnedFd)> {
    let (mut pidfd, parent): (c_int, _) = (-1, getpid());
    // SAFETY: the child makes system calls, and ends.
    match Errno::result(unsafe { clone(libc::CLONE_PIDFD, Some(&mut pidfd)) })? {
        0 => {
            let _ = set_pdeathsig(Signal::SIGKILL);
            if getppid() != parent {
                exit_now(0);
            }
            let _ = set_name(LOOKER);
            // SAFETY: nobody uses a descriptor in this process any more.
            let _ = unsafe { close_from_but(0, &[], None) };
            // All else the kernel may have in a cache.
            let _ = statfs(point);
            let _ = lstat(path);
            exit_now(0)
        }
        // SAFETY: the kernel has just made the descriptor.
        child => Ok((Pid::from_raw(child as libc::pid_t), unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}
