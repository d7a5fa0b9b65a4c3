//! Most of what only version 1 of cgroups has, see cgroups(7). Without version 1, this file could go, and with it all that names it. Other files
//! that ask which version there is would get shorter: the end of ARCHITECTURE.md lists them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::process;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::controller::NoCgroup;
use super::directory::{Directory, Location};
use super::limits::{DEFAULT_PIDS, PIDS_EVENTS, find_in};
use super::locked::{directories_in, remove_tree};
use crate::sys::page_size;

/// The file that lists the threads. A process with one thread joins by this file: that blocks no fork elsewhere on the machine.
pub(super) const TASKS: &str = "tasks";

/// How many pages the kernel counts at once, while there is room: MEMCG_CHARGE_BATCH.
const BATCH: u64 = 64;

/// How a sandbox joins a hierarchy, and sees it.
#[derive(Debug)]
pub(crate) struct V1Hierarchy {
    /// Where it is mounted below the root: in [`CGROUPS`], by its controllers. Empty if it is not.
    pub(crate) mount_point: CString,
    /// The file `tasks`, to be written to.
    pub(crate) tasks: OwnedFd,
}

/// Where hierarchies are mounted, below the root.
const CGROUPS: &str = "sys/fs/cgroup/";

impl V1Hierarchy {
    /// One that sandboxes with roots of their own have mounted. `names` are its controllers as the kernel writes them: without a zero.
    pub(super) fn mounted(names: &str, tasks: OwnedFd) -> Option<Self> {
        Some(Self { mount_point: CString::new(format!("{CGROUPS}{names}")).ok()?, tasks })
    }

    /// One that they don't see.
    pub(super) fn unseen(tasks: OwnedFd) -> Self {
        Self { mount_point: CString::default(), tasks }
    }

    /// Its controllers, as mount(2) takes them; see cgroups(7).
    pub(crate) fn controllers(&self) -> &CStr {
        let path = self.mount_point.as_bytes_with_nul();
        path.get(CGROUPS.len()..).and_then(|names| CStr::from_bytes_with_nul(names).ok()).unwrap_or_default()
    }
}

/// A cgroup with the default limit on processes. One sandbox after the other uses it: to make one takes longer than to join it.
#[derive(Debug)]
pub(super) struct Reusable {
    pub(super) directory: Directory,
    /// The file that counts forks that were refused. It is looked at after each test.
    events: File,
    /// The process that has made it. Its forks must not take it for theirs.
    owner: u32,
    /// Whether forks have been refused. The kernel goes on counting, so that no other sandbox can have it.
    pub(super) has_refused: Cell<bool>,
}

impl Reusable {
    /// One that this process has made.
    pub(super) fn next(unused: &mut VecDeque<Self>) -> Option<Self> {
        let owner = process::id();
        // Of the longest ago: in the others, the kernel may still count an init that has ended.
        while let Some(reusable) = unused.pop_front() {
            if reusable.owner == owner {
                return Some(reusable);
            }
        }
        None
    }

    /// Sets the limit of a new one.
    pub(super) fn limit(directory: Directory) -> Result<Self, NoCgroup> {
        // Init is one more.
        let made = directory.limit_pids(DEFAULT_PIDS + 1).and_then(|()| directory.open(PIDS_EVENTS, OFlag::O_RDONLY));
        match made {
            Ok(events) => Ok(Self { directory, events, owner: process::id(), has_refused: Cell::new(false) }),
            Err(trouble) => {
                remove_tree(&directory.path_of(""));
                Err(trouble)
            }
        }
    }

    /// How many forks were refused since it was made. The test that has it now is the first with any.
    pub(super) fn forks_refused(&self) -> u64 {
        let mut text = [0; 64];
        let length = self.events.read_at(&mut text, 0).unwrap_or_default();
        let refused = std::str::from_utf8(&text[..length]).ok().and_then(|text| find_in(text, "max"));
        self.has_refused.set(refused != Some(0));
        refused.unwrap_or_default()
    }
}

impl Directory {
    pub(super) fn limit_memory_v1(&self, limit: u64) -> Result<(), NoCgroup> {
        // Before Linux 5.11, cgroups below are not counted otherwise.
        self.set_where_there("memory.use_hierarchy", 1)?;
        // The limit without swap can't exceed the one with swap: then that one is set first.
        let raised = match self.set("memory.limit_in_bytes", limit) {
            Err(NoCgroup::Refused { errno: Errno::EINVAL, .. }) => true,
            result => result.map(|()| false)?,
        };
        self.forbid_swap("memory.memsw.limit_in_bytes", limit)?;
        if raised { self.set("memory.limit_in_bytes", limit) } else { Ok(()) }
    }

    /// Both in microseconds.
    pub(super) fn limit_cpu_v1(&self, quota: u64, period: u64) -> Result<(), NoCgroup> {
        self.set("cpu.cfs_period_us", period)?;
        match self.set("cpu.cfs_quota_us", quota) {
            // A cgroup above has less. That holds here as well, if there is no other.
            Err(NoCgroup::Refused { errno: Errno::EINVAL, .. }) => self.write("cpu.cfs_quota_us", "-1"),
            result => result,
        }
    }

    pub(super) fn weigh_cpu_v1(&self, weight: u32) -> Result<(), NoCgroup> {
        self.set("cpu.shares", u64::from(weight) * 1024 / 100)
    }

    pub(super) fn oom_kills_v1(&self) -> Result<u64, NoCgroup> {
        // The kernel counts a kill in the cgroup of the process, whichever limit was met: this one, or one above. Not all kernels count how
        // often a limit was met. But nothing is killed before the last page is used up: so that is asked.
        if !self.was_used_up()? {
            return Ok(0);
        }
        let mut kills = self.count("memory.oom_control", "oom_kill")?;
        let Location::Path(path) = &self.location else { return Ok(kills) };
        for below in directories_in(path) {
            let group = Self::at(below, false, Vec::new());
            if !group.was_used_up()? {
                kills += group.count("memory.oom_control", "oom_kill")?;
            }
        }
        Ok(kills)
    }

    /// Whether all memory that it may have was in use at a time, without what is swapped out or with it.
    pub(super) fn was_used_up(&self) -> Result<bool, NoCgroup> {
        let figure = |file| match self.read(file) {
            // Only kernels that count what is swapped out have it.
            Err(NoCgroup::Refused { errno: Errno::ENOENT, .. }) => Ok(None),
            read => Ok(read?.trim().parse::<u64>().ok()),
        };
        let is_reached = |limit, peak| {
            let (limit, peak) = (figure(limit)?, figure(peak)?);
            let batch = BATCH * page_size();
            Ok(limit.zip(peak).is_some_and(|(limit, peak)| peak.saturating_add(batch) > limit))
        };
        Ok(is_reached("memory.limit_in_bytes", "memory.max_usage_in_bytes")?
            || is_reached("memory.memsw.limit_in_bytes", "memory.memsw.max_usage_in_bytes")?)
    }
}
