//! Maps one user and one group of a user namespace. See user_namespaces(7).

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::write;

use crate::frame::{OrRefuse as _, RefusalRef, Step};

/// Who the test is if it asks for nobody else.
pub(super) const ROOT: (u32, u32) = (0, 0);

/// Maps one user and one group, by these lines. `proc` is the directory of a procfs that shows this process. See user_namespaces(7).
///
/// An ordinary user may map a group only in a namespace in which nobody may call setgroups(2). The template has given that up for all
/// namespaces below its own.
pub(crate) fn map_ids(proc: BorrowedFd<'_>, [uids, gids]: [&str; 2]) -> Result<(), RefusalRef<'static>> {
    write_own(proc, c"self/uid_map", uids).or_refuse(Step::MapIds, c"/proc/self/uid_map")?;
    write_own(proc, c"self/gid_map", gids).or_refuse(Step::MapIds, c"/proc/self/gid_map")
}

/// Gives up setgroups(2) in this user namespace and in all below. So does root: a test is to find the same, whoever runs it.
pub(crate) fn give_up_setgroups(proc: BorrowedFd<'_>) -> Result<(), RefusalRef<'static>> {
    write_own(proc, c"self/setgroups", "deny").or_refuse(Step::MapIds, c"/proc/self/setgroups")
}

fn write_own(proc: BorrowedFd<'_>, path: &CStr, text: &str) -> nix::Result<()> {
    let file = openat(proc, path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, text.as_bytes()).map(drop)
}
