//! The files by which limits are set, and those that tell how they were met.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::{Cgroup, Controller, Directory, Trouble, write};
use crate::spec::Spec;
use crate::usage::Usage;

/// How many processes and threads a test may have that writes no limit.
pub(crate) const DEFAULT_PIDS: u32 = 1024;

/// The time over which CPU time is rationed, in microseconds; the kernel's default.
const CPU_PERIOD: u64 = 100_000;

/// How a test met its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Events {
    /// How many processes the kernel killed because the memory was used up.
    pub(crate) oom_kills: u64,
    /// The most memory that was used at a time, in bytes, where the kernel tells.
    pub(crate) memory_peak: Option<u64>,
    /// How many times a process or thread could not be made.
    pub(crate) forks_refused: u64,
}

impl Directory {
    /// Sets the limits of `spec`, or the default ones, for those controllers that there are.
    pub(super) fn limit(&self, spec: &Spec) -> Result<(), Trouble> {
        for controller in &self.controllers {
            match controller {
                // Init is one more.
                Controller::Pids => self.set("pids.max", u64::from(spec.pids.unwrap_or(DEFAULT_PIDS)) + 1)?,
                Controller::Memory => self.limit_memory(spec.memory)?,
                Controller::Cpu => self.limit_cpu(spec.cpu)?,
                Controller::Cpuacct => {}
            }
        }
        Ok(())
    }

    fn limit_memory(&self, limit: Option<u64>) -> Result<(), Trouble> {
        let Some(limit) = limit else { return Ok(()) };
        if self.v2 {
            self.set("memory.max", limit)?;
            self.set_where_there("memory.swap.max", 0)?;
            // All die together: a test whose child alone is gone may wait for it for ever.
            self.set_where_there("memory.oom.group", 1)
        } else {
            self.set("memory.limit_in_bytes", limit)?;
            self.set_where_there("memory.memsw.limit_in_bytes", limit)
        }
    }

    fn limit_cpu(&self, thousandths: Option<u32>) -> Result<(), Trouble> {
        let Some(thousandths) = thousandths else { return Ok(()) };
        let quota = u64::from(thousandths) * CPU_PERIOD / 1000;
        if self.v2 {
            write(&self.path.join("cpu.max"), &format!("{quota} {CPU_PERIOD}"))
        } else {
            self.set("cpu.cfs_period_us", CPU_PERIOD)?;
            self.set("cpu.cfs_quota_us", quota)
        }
    }

    fn set(&self, file: &str, value: u64) -> Result<(), Trouble> {
        write(&self.path.join(file), &value.to_string())
    }

    /// For files that a kernel without swap, say, doesn't have.
    fn set_where_there(&self, file: &str, value: u64) -> Result<(), Trouble> {
        match self.set(file, value) {
            Err(Trouble::Refused { errno: Errno::ENOENT, .. }) => Ok(()),
            result => result,
        }
    }

    fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    /// A file that is one number.
    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.path.join(file)).ok()?.trim().parse().ok()
    }
}

impl Cgroup {
    /// How the limits of `spec` were met. To be read before this is dropped.
    pub(crate) fn events(&self, spec: &Spec) -> Events {
        let mut events = Events::default();
        if let Some(directory) = self.directories.iter().find(|directory| directory.has(Controller::Pids)) {
            // Refused by this limit, and by none of a cgroup above or below. Older kernels have one file for all.
            let local = directory.path.join("pids.events.local");
            let counts = if local.exists() { local } else { directory.path.join("pids.events") };
            events.forks_refused = count(&counts, "max");
        }
        let memory = self.directories.iter().find(|directory| directory.has(Controller::Memory));
        if let (Some(directory), true) = (memory, spec.memory.is_some()) {
            let (counts, peak) = match directory.v2 {
                true => ("memory.events", "memory.peak"),
                false => ("memory.oom_control", "memory.max_usage_in_bytes"),
            };
            // Nor does a limit of a cgroup that the test has made below count.
            if !directory.v2 || count(&directory.path.join("memory.events.local"), "oom") > 0 {
                events.oom_kills = count(&directory.path.join(counts), "oom_kill");
            }
            events.memory_peak = directory.number(peak);
        }
        events
    }

    /// What has been used. To be read before this is dropped.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for directory in &self.directories {
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
                usage.cpu = find(&directory.path.join("cpu.stat"), "usage_usec").map(Duration::from_micros);
            } else if directory.has(Controller::Cpuacct) {
                usage.cpu = directory.number("cpuacct.usage").map(Duration::from_nanos);
            }
        }
        usage
    }
}

/// The number that follows `name` in a file of names and numbers.
fn find(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

/// The same for what is counted; 0 where it lacks, as on older kernels.
fn count(path: &Path, name: &str) -> u64 {
    find(path, name).unwrap_or(0)
}
