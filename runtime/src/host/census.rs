//! Lists the processes of a sandbox, from outside, as proc(5) shows them to the test binary.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::sys;

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
    let Some(init) = pid_of(init) else { return Vec::new() };
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in numbers_in(Path::new("/proc")) {
        if let Some(stat) = Stat::read(&Path::new("/proc").join(pid.to_string())) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut pending = vec![init];
    while let Some(parent) = pending.pop() {
        let below = children.remove(&parent).unwrap_or_default();
        found.extend(below.iter().copied());
        pending.extend(below);
    }
    let mut processes: Vec<_> = found.into_iter().filter_map(describe).collect();
    processes.sort_by_key(|process| process.pid);
    processes
}

/// Kills the process that runs the body, below the init that `init` refers to.
pub(crate) fn kill_test(init: BorrowedFd<'_>) -> nix::Result<()> {
    let init = pid_of(init).ok_or(Errno::ESRCH)?;
    let is_test = |pid: &u32| parent_of(*pid) == Some(init) && inner_id(*pid) == Some(TEST);
    let test = numbers_in(Path::new("/proc")).into_iter().find(is_test).ok_or(Errno::ESRCH)?;
    let pidfd = sys::pidfd_of(Pid::from_raw(test as i32))?;
    // If it had ended before the descriptor was made, the number might be another's by now.
    if is_test(&test) { sys::kill(pidfd.as_fd()) } else { Err(Errno::ESRCH) }
}

/// The id of a process in the innermost pid namespace that it is in.
fn inner_id(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

/// Whether the process that `pidfd` refers to has ended or is about to.
///
/// A process that dies has its children killed before its pidfd says that it is dead, so that a child's death can be
/// seen first. The mark PF_EXITING comes before both.
pub(crate) fn is_dying(pidfd: BorrowedFd<'_>) -> bool {
    const PF_EXITING: u64 = 0x4;
    let stat = pid_of(pidfd).and_then(|pid| Stat::read(&Path::new("/proc").join(pid.to_string())));
    stat.is_none_or(|stat| stat.flags & PF_EXITING != 0)
}

/// The process that made this one, or that took it over. 0 for one from elsewhere. `None` if it has ended.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    Stat::read(&Path::new("/proc").join(pid.to_string())).map(|stat| stat.parent)
}

/// The name of a process. `None` if it has ended.
pub(crate) fn name_of(pid: u32) -> Option<String> {
    Stat::read(&Path::new("/proc").join(pid.to_string())).map(|stat| stat.name)
}

/// Whether no thread of a process can run before it gets a signal: those that are stopped, and those in an uninterruptible
/// system call, which will see first that they are to stop. `None` if it has ended, or can't be seen.
pub(crate) fn is_stopped(pid: u32) -> Option<bool> {
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    Stat::read(&tasks.join(pid.to_string()))?;
    let threads = numbers_in(&tasks).into_iter().filter_map(|tid| Stat::read(&tasks.join(tid.to_string())));
    Some(threads.into_iter().all(|thread| matches!(thread.state, 'T' | 't' | 'D' | 'Z' | 'X')))
}

/// The process that a pidfd refers to; see pidfd_open(2) on fdinfo. `None` if it is gone.
pub(crate) fn pid_of(pidfd: BorrowedFd<'_>) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

/// Describes a process, unless it has ended.
fn describe(pid: u32) -> Option<Process> {
    let directory = Path::new("/proc").join(pid.to_string());
    let inner = inner_id(pid)?;
    let process = Stat::read(&directory)?;
    // The first thread of the test's process only waits for the one that runs the body.
    let threads = numbers_in(&directory.join("task")).into_iter().skip(usize::from(inner == TEST));
    let thread = threads.map(|tid| directory.join("task").join(tid.to_string())).next();
    let telling = thread.and_then(|thread| Some((Stat::read(&thread)?, thread)));
    let (stat, directory) = telling.unwrap_or((process, directory));
    let state = match stat.state {
        'Z' | 'X' => return None,
        'R' => "running",
        'S' => "sleeping",
        'D' => "in uninterruptible sleep",
        'T' => "stopped",
        't' => "stopped by a tracer",
        _ => "idle",
    };
    let waits_in = fs::read_to_string(directory.join("wchan")).ok().filter(|name| !name.is_empty() && name != "0");
    Some(Process { pid: inner, name: stat.name, state, waits_in })
}

/// A part of proc_pid_stat(5).
struct Stat {
    name: String,
    state: char,
    parent: u32,
    flags: u64,
}

impl Stat {
    fn read(directory: &Path) -> Option<Self> {
        let bytes = fs::read(directory.join("stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// The name stands in parentheses and may hold anything, parentheses too.
    fn parse(text: &str) -> Option<Self> {
        let (head, fields) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), state, parent, flags: fields.nth(4)?.parse().ok()? })
    }
}

/// The entries of a directory that are numbers, in order.
fn numbers_in(directory: &Path) -> BTreeSet<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let stat = Stat::parse("12 (a) (b) S 7 12 12 0 -1 64 0").expect("a stat line");
        assert_eq!((stat.name.as_str(), stat.state, stat.parent, stat.flags), ("a) (b", 'S', 7, 64));
        assert!(Stat::parse("").is_none());
        assert!(Stat::parse("12 (a) S").is_none());
    }
}
