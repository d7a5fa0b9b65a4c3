//! The limits that a process or its user may have reached.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::cause::Cause;
use super::host_state::HostState;
use crate::cgroup;
use crate::proc;
use crate::rootfs::context::all_ids_are_real;
use crate::sys::End;

/// How many processes may have ended between a refusal and its explanation.
const SPARE: u64 = 8;

/// The limit that this process has on a resource, if there is one. See getrlimit(2).
#[expect(clippy::useless_conversion, reason = "on other targets it has another type")]
pub(super) fn limit_on(resource: Resource) -> Option<u64> {
    getrlimit(resource).ok().map(|(soft, _)| soft).filter(|soft| *soft != RLIM_INFINITY).map(u64::from)
}

/// The limit on processes and threads that is reached. If none is, others have ended meanwhile: then it is that of the user.
pub(super) fn too_many_processes(around: &HostState) -> Option<Cause> {
    let of_user = || {
        // To real root, the limit does not apply.
        let applies = around.uid != 0 || !all_ids_are_real();
        let limit = limit_on(Resource::RLIMIT_NPROC).filter(|_| applies);
        limit.map(|limit| Cause::too_many_processes(limit, threads_of_user(around.uid)))
    };
    reached_limit_on_processes(around).or_else(of_user)
}

/// The limit on processes and threads that is reached, if one is.
pub(super) fn reached_limit_on_processes(around: &HostState) -> Option<Cause> {
    let of_cgroup = cgroup::limits_on_processes().into_iter().find(|(_, limit, count)| *count + SPARE >= *limit);
    if let Some((file, limit, count)) = of_cgroup {
        return Some(Cause::too_many_in_cgroup(&file, limit, count, around));
    }
    let (limit, count) = (limit_on(Resource::RLIMIT_NPROC)?, threads_of_user(around.uid));
    (count + SPARE >= limit).then(|| Cause::too_many_processes(limit, count))
}

/// How many processes and threads a user has now.
fn threads_of_user(uid: u32) -> u64 {
    let directories = proc::all().into_iter().map(proc::directory);
    let is_theirs = |directory: &PathBuf| fs::metadata(directory).is_ok_and(|metadata| metadata.uid() == uid);
    let threads = |directory: PathBuf| fs::metadata(directory.join("task")).map_or(0, |task| task.nlink() - 2);
    directories.filter(is_theirs).map(threads).sum()
}

/// The limit that this process has on its memory, if there is one.
pub(super) fn too_little_memory() -> Option<Cause> {
    let limits = [(Resource::RLIMIT_AS, "RLIMIT_AS", "ulimit -v"), (Resource::RLIMIT_DATA, "RLIMIT_DATA", "ulimit -d")];
    let limits = limits.into_iter().filter_map(|(resource, name, command)| Some((limit_on(resource)?, name, command)));
    limits.min().map(|(limit, name, command)| Cause::too_little_memory(name, limit, command))
}

/// The limit by which this process, or all in its cgroup, get no more memory. A cgroup that is full has the kernel kill a process, but for what
/// takes many pages at once, such as a network, the kernel refuses the call.
pub(crate) fn no_more_memory() -> Option<Cause> {
    too_little_memory().or_else(memory_used_up)
}

/// The cgroup around the run that has used up its memory, if one has.
fn memory_used_up() -> Option<Cause> {
    let (file, limit) = cgroup::memory_used_up()?;
    Some(Cause::memory_used_up(&file, limit, &HostState::look()))
}

/// The limit that may be why a call of this process has failed for want of something.
pub(crate) fn lack(errno: Errno) -> Option<Cause> {
    match errno {
        Errno::EMFILE | Errno::ETOOMANYREFS => limit_on(Resource::RLIMIT_NOFILE).map(Cause::too_many_descriptors),
        // pthread_create(3) tells by it of memory too.
        Errno::EAGAIN => {
            let around = HostState::look();
            reached_limit_on_processes(&around).or_else(no_more_memory).or_else(|| too_many_processes(&around))
        }
        Errno::ENOMEM | Errno::ENOBUFS => no_more_memory(),
        Errno::EFBIG => limit_on(Resource::RLIMIT_FSIZE).map(Cause::file_too_large),
        _ => None,
    }
}

/// The limit that may have ended a process of the sandbox, or of those that make sandboxes. `end` is how it ended, if that is known.
pub(crate) fn death(end: Option<End>) -> Option<Cause> {
    let signal = match end {
        Some(End::Exited(_)) => return None,
        Some(End::Killed { signal, .. }) => Some(signal),
        None => None,
    };
    let fitting = |signal| match signal {
        libc::SIGKILL => memory_used_up(),
        // So a program ends that gets no memory, or whose thread can't have any.
        libc::SIGABRT => too_little_memory(),
        libc::SIGSEGV => limit_on(Resource::RLIMIT_STACK).filter(|limit| *limit < USUAL_STACK).map(Cause::small_stack),
        libc::SIGXFSZ => limit_on(Resource::RLIMIT_FSIZE).map(Cause::file_too_large),
        _ => None,
    };
    match signal {
        Some(signal) => fitting(signal),
        None => [libc::SIGKILL, libc::SIGABRT, libc::SIGSEGV, libc::SIGXFSZ].iter().find_map(|signal| fitting(*signal)),
    }
}

/// The limit on stacks that systems have: 8 MiB.
const USUAL_STACK: u64 = 8 << 20;
