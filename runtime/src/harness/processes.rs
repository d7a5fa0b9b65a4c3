//! Lists the processes of a sandbox, from outside, as proc(5) shows them to the test binary.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::spare::look;
use crate::collect::CollectVec as _;
use crate::proc::{self, WIRE, parent_of, pid_of, text_of};
use crate::sys::{self, End};

/// How long a process may take to end that is about to, in milliseconds.
const PATIENCE_MS: u16 = 1000;

/// The process that runs the body, by its id in the sandbox.
const TEST: u32 = 2;

/// A process in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its id in the sandbox.
    pub(crate) pid: u32,
    /// Its name, of at most 15 bytes.
    pub(crate) name: String,
    /// What it does.
    pub(crate) state: &'static str,
    /// The function of the kernel that it waits in, where the kernel tells.
    pub(crate) waits_in: Option<String>,
}

/// All processes below the init that `init` refers to, by their ids in the sandbox.
pub(crate) fn below(init: BorrowedFd<'_>) -> Vec<Process> {
    look(|| pid_of(init).map(descendants).unwrap_or_default())
}

/// The same; or init, if it has made none.
pub(crate) fn below_or_init(init: BorrowedFd<'_>) -> Vec<Process> {
    let below = below(init);
    if below.is_empty() { look(|| pid_of(init).and_then(describe).into_iter().collect_vec()) } else { below }
}

/// The zygote that `zygote` refers to, and the templates, which make sandboxes.
pub(crate) fn makers(zygote: BorrowedFd<'_>) -> Vec<Process> {
    look(|| {
        let Some(zygote) = pid_of(zygote) else { return Vec::new() };
        let mut pids = vec![zygote];
        pids.extend(proc::all().into_iter().filter(|pid| parent_of(*pid) == Some(zygote)));
        pids.into_iter().filter_map(describe).collect_vec()
    })
}

fn descendants(init: u32) -> Vec<Process> {
    // The wire of a laboratory is none of the test's.
    let is_wire = |process: &Process| process.name.as_bytes() == WIRE.to_bytes();
    proc::descendants(init).into_iter().filter_map(describe).filter(|process| !is_wire(process)).collect_vec()
}

/// Kills the process that runs the body, below the init that `init` refers to.
pub(crate) fn kill_test(init: BorrowedFd<'_>) -> nix::Result<()> {
    look(|| {
        let init = pid_of(init).ok_or(Errno::ESRCH)?;
        let is_test = |pid: &u32| parent_of(*pid) == Some(init) && inner_id(*pid) == Some(TEST);
        let test = proc::all().into_iter().find(is_test).ok_or(Errno::ESRCH)?;
        let pidfd = sys::pidfd_of(Pid::from_raw(test as i32))?;
        // If it had ended before the descriptor was made, the number might be another's by now.
        if is_test(&test) { sys::kill(pidfd.as_fd()) } else { Err(Errno::ESRCH) }
    })
}

/// The id of a process in the innermost pid namespace that it is in.
fn inner_id(pid: u32) -> Option<u32> {
    let status = text_of(proc::directory(pid).join("status")).ok()?;
    proc::field_of(&status, "NSpid")?.split_ascii_whitespace().last()?.parse().ok()
}

/// Whether the process that `pidfd` refers to has ended or is about to.
///
/// A process that dies has its children killed before its pidfd says that it is dead, so that a child's death can be
/// seen first. The mark PF_EXITING comes before both.
pub(crate) fn is_dying(pidfd: BorrowedFd<'_>) -> bool {
    const PF_EXITING: u64 = 0x4;
    let flags = look(|| pid_of(pidfd).and_then(|pid| proc::stat(&proc::directory(pid))?.flags()));
    flags.is_none_or(|flags| flags & PF_EXITING != 0)
}

/// How the process has ended that `pidfd` refers to. `None` if it has been waited for, or the kernel doesn't tell.
pub(crate) fn end_of(pidfd: BorrowedFd<'_>) -> Option<End> {
    // It may be about to end.
    let _ = poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], PollTimeout::from(PATIENCE_MS));
    let pid = pid_of(pidfd)?;
    let status = proc::stat(&proc::directory(pid))?.wait_status().filter(|status| *status != 0)?;
    // If it has been waited for, the number might be another's by now.
    pid_of(pidfd).filter(|same| *same == pid)?;
    Some(End::of_wait_status(status))
}

/// Describes a process, unless it has ended.
fn describe(pid: u32) -> Option<Process> {
    let inner = inner_id(pid)?;
    let told = |directory: PathBuf| {
        let stat = proc::stat(&directory)?;
        Some((String::from_utf8_lossy(&stat.name).into_owned(), stat.state()?, directory))
    };
    let process = told(proc::directory(pid))?;
    // The first thread of the test's process only waits for the one that runs the body.
    let thread = proc::threads_of(pid).into_iter().nth(usize::from(inner == TEST));
    let (name, state, directory) = thread.and_then(told).unwrap_or(process);
    let state = match state {
        'Z' | 'X' => return None,
        'R' => "running",
        'S' => "sleeping",
        'D' => "in uninterruptible sleep",
        'T' => "stopped",
        't' => "stopped by a tracer",
        _ => "idle",
    };
    let waits_in = text_of(directory.join("wchan")).ok().filter(|name| !name.is_empty() && name != "0");
    Some(Process { pid: inner, name, state, waits_in })
}
