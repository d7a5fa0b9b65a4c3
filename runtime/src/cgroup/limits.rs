//! The files by which limits are set, and those that tell how they were met.

use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use super::controller::{Controller, NoCgroup};
use super::directory::Directory;
use super::find::hierarchies;
use crate::frame::usage::Usage;
use crate::proc::text_of;
use crate::spec::Spec;

/// How many processes and threads a test may have that writes no limit.
pub(crate) const DEFAULT_PIDS: u32 = 1024;

/// The file that counts forks that were refused.
pub(super) const PIDS_EVENTS: &str = "pids.events";

/// The time over which CPU time is rationed, in microseconds; the kernel's default.
const CPU_PERIOD: u64 = 100_000;

impl Directory {
    /// Sets the limits of `spec`, or the default ones, for those controllers that there are.
    pub(super) fn limit(&self, spec: &Spec) -> Result<(), NoCgroup> {
        for controller in &self.controllers {
            match controller {
                // Init is one more.
                Controller::Pids => self.limit_pids(spec.pids.unwrap_or(DEFAULT_PIDS) + 1)?,
                Controller::Memory => spec.memory.map_or(Ok(()), |limit| self.limit_memory(limit))?,
                Controller::Cpu => spec.cpu.map_or(Ok(()), |limit| self.limit_cpu(limit))?,
                Controller::Cpuacct => {}
            }
        }
        Ok(())
    }

    /// `limit` in bytes.
    pub(crate) fn limit_memory(&self, limit: u64) -> Result<(), NoCgroup> {
        if !self.v2 {
            return self.limit_memory_v1(limit);
        }
        self.set("memory.max", limit)?;
        self.forbid_swap("memory.swap.max", 0)
    }

    /// Of version 2: when memory is used up, has the kernel kill all that is in here, and not just the largest. For a sandbox, it
    /// is the test binary that sees to that, so that init, which tells who was the largest, survives.
    pub(crate) fn die_as_one(&self) -> Result<(), NoCgroup> {
        if self.v2 { self.set_where_there("memory.oom.group", 1) } else { Ok(()) }
    }

    /// Limits swap too. Otherwise a test exceeds its limit on memory by swapping.
    pub(super) fn forbid_swap(&self, file: &str, value: u64) -> Result<(), NoCgroup> {
        match self.set_where_there(file, value) {
            Ok(()) if has_swap() && self.read(file).is_err() => {
                Err(NoCgroup::Refused { path: self.path_of(file), errno: Errno::ENOENT })
            }
            result => result,
        }
    }

    /// `thousandths` of a core.
    pub(crate) fn limit_cpu(&self, thousandths: u32) -> Result<(), NoCgroup> {
        let quota = u64::from(thousandths) * CPU_PERIOD / 1000;
        match self.v2 {
            true => self.write("cpu.max", &format!("{quota} {CPU_PERIOD}")),
            false => self.limit_cpu_v1(quota, CPU_PERIOD),
        }
    }

    pub(crate) fn limit_pids(&self, limit: u32) -> Result<(), NoCgroup> {
        self.set("pids.max", limit.into())
    }

    /// The share of CPU time beside others of the same parent, where 100 is the usual one.
    pub(crate) fn weigh_cpu(&self, weight: u32) -> Result<(), NoCgroup> {
        match self.v2 {
            true => self.set("cpu.weight", weight.into()),
            false => self.weigh_cpu_v1(weight),
        }
    }

    pub(super) fn set(&self, file: &str, value: u64) -> Result<(), NoCgroup> {
        self.write(file, &value.to_string())
    }

    /// For files that a kernel without swap, say, doesn't have.
    pub(super) fn set_where_there(&self, file: &str, value: u64) -> Result<(), NoCgroup> {
        match self.set(file, value) {
            Err(NoCgroup::Refused { errno: Errno::ENOENT, .. }) => Ok(()),
            result => result,
        }
    }

    /// A file that is one number.
    pub(super) fn number(&self, file: &str) -> Option<u64> {
        self.read(file).ok()?.trim().parse().ok()
    }

    /// The number that follows `name` in a file of names and numbers.
    pub(super) fn find(&self, file: &str, name: &str) -> Option<u64> {
        find_in(&self.read(file).ok()?, name)
    }

    /// The same for what is counted; 0 where it lacks, as on older kernels. What can't be read is not taken for 0.
    pub(super) fn count(&self, file: &str, name: &str) -> Result<u64, NoCgroup> {
        match self.read(file) {
            Err(NoCgroup::Refused { errno: Errno::ENOENT, .. }) => Ok(0),
            read => Ok(find_in(&read?, name).unwrap_or(0)),
        }
    }
}

pub(super) fn find_in(text: &str, name: &str) -> Option<u64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

/// For [`fuzzed`](crate::fuzzed): what the kernel counts.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_counts(bytes: &[u8]) {
    find_in(&String::from_utf8_lossy(bytes), "oom_kill");
}

impl Directory {
    /// How many processes were killed, here or in a cgroup below, because this one's memory was used up. A limit of a cgroup
    /// below, which the test has set, doesn't count.
    pub(super) fn oom_kills(&self) -> Result<u64, NoCgroup> {
        if !self.v2 {
            return self.oom_kills_v1();
        }
        let was_used_up = self.count("memory.events.local", "oom")? > 0;
        if was_used_up { self.count("memory.events", "oom_kill") } else { Ok(0) }
    }
}

/// The cgroup around the test run whose memory was used up at a time: the file with its limit, and the limit. In version 2 the kernel has
/// killed a process for that; version 1 counts such processes where they were, and what is cached uses memory up too.
pub(crate) fn memory_used_up() -> Option<(PathBuf, u64)> {
    let found = hierarchies().ok()?.into_iter().find(|found| found.controllers.contains(&Controller::Memory))?;
    let mut around = found.parent.ancestors().map(|path| Directory::at(path, found.v2, Vec::new()));
    let has = |around: &Directory, file, name| around.count(file, name).is_ok_and(|count| count > 0);
    let (used_up, file) = if found.v2 {
        let is_used_up =
            |around: &Directory| has(around, "memory.events.local", "oom") && has(around, "memory.events", "oom_kill");
        (around.find(is_used_up)?, "memory.max")
    } else {
        (around.find(|around| around.was_used_up().unwrap_or(false))?, "memory.limit_in_bytes")
    };
    Some((used_up.path_of(file), used_up.number(file)?))
}

/// Whether memory can be swapped out on this machine. See proc_swaps(5).
fn has_swap() -> bool {
    // The first line says what the columns are.
    text_of("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1)
}

/// What has been used in a cgroup, which consists of these.
pub(crate) fn usage_of(directories: &[Directory]) -> Usage {
    let mut usage = Usage::default();
    for directory in directories {
        let read = |v2, v1| directory.number(if directory.v2 { v2 } else { v1 });
        if directory.has(Controller::Memory) {
            usage.memory = read("memory.current", "memory.usage_in_bytes");
            usage.memory_peak = read("memory.peak", "memory.max_usage_in_bytes");
        }
        if directory.has(Controller::Pids) {
            usage.pids = directory.number("pids.current");
            usage.pids_peak = directory.number("pids.peak");
        }
        if directory.v2 {
            usage.cpu = directory.find("cpu.stat", "usage_usec").map(Duration::from_micros);
        } else if directory.has(Controller::Cpuacct) {
            usage.cpu = directory.number("cpuacct.usage").map(Duration::from_nanos);
        }
    }
    usage
}
