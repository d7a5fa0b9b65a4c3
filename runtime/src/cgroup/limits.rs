//! The files by which limits are set, and those that tell how they were met.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use super::controller::{Controller, Trouble};
use super::directory::{Cgroup, Directory, Location, Reusable};
use super::find::hierarchies;
use crate::frame::usage::Usage;
use crate::proc::text_of;
use crate::spec::Spec;
use crate::sys::page_size;

/// How many processes and threads a test may have that writes no limit.
pub(crate) const DEFAULT_PIDS: u32 = 1024;

/// The file that counts forks that were refused.
pub(super) const PIDS_EVENTS: &str = "pids.events";

/// The time over which CPU time is rationed, in microseconds; the kernel's default.
const CPU_PERIOD: u64 = 100_000;

/// How many pages the kernel counts at once, in version 1, while there is room: MEMCG_CHARGE_BATCH.
const BATCH: u64 = 64;

/// How a test met its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Events {
    /// How many processes the kernel killed because the memory was used up.
    pub(crate) oom_kills: u64,
    /// The most memory that was used at a time, in bytes, where the kernel tells.
    pub(crate) memory_peak: Option<u64>,
    /// How many times a process or thread could not be made.
    pub(crate) forks_refused: u64,
    /// Whether that was for the limit of a cgroup above, which it shares with others.
    pub(crate) for_shared_limit: bool,
}

impl Directory {
    /// Sets the limits of `spec`, or the default ones, for those controllers that there are.
    pub(super) fn limit(&self, spec: &Spec) -> Result<(), Trouble> {
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
    pub(crate) fn limit_memory(&self, limit: u64) -> Result<(), Trouble> {
        if self.v2 {
            self.set("memory.max", limit)?;
            self.forbid_swap("memory.swap.max", 0)
        } else {
            // Before Linux 5.11, cgroups below are not counted otherwise.
            self.set_where_there("memory.use_hierarchy", 1)?;
            // The limit without swap can't exceed the one with swap: then that one is set first.
            let raised = match self.set("memory.limit_in_bytes", limit) {
                Err(Trouble::Refused { errno: Errno::EINVAL, .. }) => true,
                result => result.map(|()| false)?,
            };
            self.forbid_swap("memory.memsw.limit_in_bytes", limit)?;
            if raised { self.set("memory.limit_in_bytes", limit) } else { Ok(()) }
        }
    }

    /// Of version 2: when memory is used up, has the kernel kill all that is in here, and not just the largest. For a sandbox, it
    /// is the test binary that sees to that, so that init, which tells who was the largest, survives.
    pub(crate) fn die_as_one(&self) -> Result<(), Trouble> {
        if self.v2 { self.set_where_there("memory.oom.group", 1) } else { Ok(()) }
    }

    /// Limits swap too. Otherwise a test exceeds its limit on memory by swapping.
    fn forbid_swap(&self, file: &str, value: u64) -> Result<(), Trouble> {
        match self.set_where_there(file, value) {
            Ok(()) if has_swap() && self.read(file).is_err() => {
                Err(Trouble::Refused { path: self.path_of(file), errno: Errno::ENOENT })
            }
            result => result,
        }
    }

    /// `thousandths` of a core.
    pub(crate) fn limit_cpu(&self, thousandths: u32) -> Result<(), Trouble> {
        let quota = u64::from(thousandths) * CPU_PERIOD / 1000;
        if self.v2 {
            self.write("cpu.max", &format!("{quota} {CPU_PERIOD}"))
        } else {
            self.set("cpu.cfs_period_us", CPU_PERIOD)?;
            match self.set("cpu.cfs_quota_us", quota) {
                // A cgroup above has less. That holds here as well, if there is no other.
                Err(Trouble::Refused { errno: Errno::EINVAL, .. }) => self.write("cpu.cfs_quota_us", "-1"),
                result => result,
            }
        }
    }

    pub(crate) fn limit_pids(&self, limit: u32) -> Result<(), Trouble> {
        self.set("pids.max", limit.into())
    }

    /// The share of CPU time beside others of the same parent, where 100 is the usual one.
    pub(crate) fn weigh_cpu(&self, weight: u32) -> Result<(), Trouble> {
        match self.v2 {
            true => self.set("cpu.weight", weight.into()),
            false => self.set("cpu.shares", u64::from(weight) * 1024 / 100),
        }
    }

    fn set(&self, file: &str, value: u64) -> Result<(), Trouble> {
        self.write(file, &value.to_string())
    }

    /// For files that a kernel without swap, say, doesn't have.
    fn set_where_there(&self, file: &str, value: u64) -> Result<(), Trouble> {
        match self.set(file, value) {
            Err(Trouble::Refused { errno: Errno::ENOENT, .. }) => Ok(()),
            result => result,
        }
    }

    /// A file that is one number.
    fn number(&self, file: &str) -> Option<u64> {
        self.read(file).ok()?.trim().parse().ok()
    }

    /// The number that follows `name` in a file of names and numbers.
    fn find(&self, file: &str, name: &str) -> Option<u64> {
        find_in(&self.read(file).ok()?, name)
    }

    /// The same for what is counted; 0 where it lacks, as on older kernels. What can't be read is not taken for 0.
    fn count(&self, file: &str, name: &str) -> Result<u64, Trouble> {
        match self.read(file) {
            Err(Trouble::Refused { errno: Errno::ENOENT, .. }) => Ok(0),
            read => Ok(find_in(&read?, name).unwrap_or(0)),
        }
    }
}

fn find_in(text: &str, name: &str) -> Option<u64> {
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
    fn oom_kills(&self) -> Result<u64, Trouble> {
        if self.v2 {
            let was_used_up = self.count("memory.events.local", "oom")? > 0;
            return if was_used_up { self.count("memory.events", "oom_kill") } else { Ok(0) };
        }
        // Version 1 counts a kill in the cgroup of the process, whichever limit was met: this one, or one above. Not all kernels count how
        // often a limit was met. But nothing is killed before the last page is used up: so that is asked.
        if !self.was_used_up()? {
            return Ok(0);
        }
        let own = self.count("memory.oom_control", "oom_kill")?;
        let Location::Path(path) = &self.location else { return Ok(own) };
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let groups: Vec<_> = groups.map(|entry| entry.path()).collect();
        let groups = groups.into_iter().map(|path| Self::at(path, false, Vec::new()));
        let kills =
            |group: Self| if group.was_used_up()? { Ok(0) } else { group.count("memory.oom_control", "oom_kill") };
        groups.map(kills).try_fold(own, |all, kills| Ok(all + kills?))
    }

    /// Of version 1: whether all memory that it may have was in use at a time, without what is swapped out or with it.
    fn was_used_up(&self) -> Result<bool, Trouble> {
        let figure = |file| match self.read(file) {
            // Only kernels that count what is swapped out have it.
            Err(Trouble::Refused { errno: Errno::ENOENT, .. }) => Ok(None),
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

impl Reusable {
    fn forks_refused(&self) -> u64 {
        let mut text = [0; 64];
        let length = self.events.read_at(&mut text, 0).unwrap_or_default();
        let refused = std::str::from_utf8(&text[..length]).ok().and_then(|text| find_in(text, "max"));
        self.has_refused.set(refused != Some(0));
        refused.unwrap_or_default()
    }
}

impl Cgroup {
    /// How the limits of `spec` were met. To be read before this is dropped. It takes one descriptor at a time.
    pub(crate) fn events(&self, spec: &Spec) -> Result<Events, Trouble> {
        let mut events = Events::default();
        if let Some(reusable) = &self.reusable {
            events.forks_refused = reusable.forks_refused();
        } else if let Some(directory) = self.directory_of(Controller::Pids) {
            // Refused by this limit, and by none of a cgroup above or below. Older kernels have one file for all.
            let local = directory.v2.then(|| directory.find("pids.events.local", "max")).flatten();
            events.forks_refused = local.map_or_else(|| directory.count(PIDS_EVENTS, "max"), Ok).unwrap_or_default();
        }
        if let (Some(directory), 1..) = (self.directory_of(Controller::Pids), events.forks_refused) {
            // Some kernels count here what was refused above.
            let most = directory.number("pids.peak").zip(directory.number("pids.max"));
            events.for_shared_limit = most.is_some_and(|(peak, limit)| peak < limit);
        }
        if let (Some(directory), true) = (self.directory_of(Controller::Memory), spec.memory.is_some()) {
            events.oom_kills = directory.oom_kills()?;
            events.memory_peak =
                directory.number(if directory.v2 { "memory.peak" } else { "memory.max_usage_in_bytes" });
        }
        Ok(events)
    }

    /// How many processes were killed because the memory that they may have together was used up. It takes one descriptor at a time.
    pub(crate) fn oom_kills(&self) -> Result<u64, Trouble> {
        self.directory_of(Controller::Memory).map_or(Ok(0), Directory::oom_kills)
    }

    pub(super) fn directory_of(&self, controller: Controller) -> Option<&Directory> {
        let reusable = self.reusable.iter().map(|reusable| &reusable.directory);
        self.directories.iter().chain(reusable).find(|directory| directory.has(controller))
    }

    /// What has been used. To be read before this is dropped.
    ///
    /// If all figures are 0, the sandbox was killed before it joined the cgroup, and what it used is not known.
    pub(crate) fn usage(&self) -> Usage {
        let known = |figure: &u64| *figure > 0;
        let Usage { memory, memory_peak, cpu, pids, pids_peak } = usage_of(&self.directories);
        Usage {
            memory: memory.filter(known),
            memory_peak: memory_peak.filter(known),
            cpu: cpu.filter(|cpu| !cpu.is_zero()),
            pids: pids.filter(known),
            pids_peak: pids_peak.filter(known),
        }
    }
}
