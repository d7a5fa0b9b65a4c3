//! The cgroup of one sandbox: how the sandbox joins it, and how it met its limits.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::fcntl::OFlag;

use super::controller::{Controller, NoCgroup};
use super::directory::{Directory, PROCS};
use super::find::Hierarchy;
use super::limits::{PIDS_EVENTS, usage_of};
use super::v1::{Reusable, TASKS, V1Hierarchy};
use crate::collect::CollectVec as _;
use crate::frame::usage::Usage;
use crate::spec::Spec;

/// The cgroup of one sandbox: a directory in each hierarchy that limits it. It is removed soon after this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Cgroup {
    pub(super) directories: Vec<Directory>,
    pub(super) reusable: Option<Reusable>,
}

/// How a sandbox joins its cgroup.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    /// For v1.
    pub(crate) v1: Vec<V1Hierarchy>,
    /// For v2: the directory, to be born in; and its `cgroup.procs`, where that can't be.
    pub(crate) v2: Option<(OwnedFd, OwnedFd)>,
    /// Whether RLIMIT_NPROC stands in for the pids controller.
    pub(crate) process_limit: bool,
    /// Which generation of templates it needs. Those that the zygote made for another one are in another cgroup, or were planned from a
    /// host that has changed since.
    pub(crate) generation: u32,
}

impl Joining {
    /// What the sandbox sees of version 1.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &V1Hierarchy> {
        self.v1.iter().filter(|tree| !tree.mount_point.is_empty())
    }

    /// All descriptors: those of v1, and of v2.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let mut descriptors = self.v1.iter().map(|hierarchy| hierarchy.tasks.as_raw_fd()).collect_vec();
        if let Some((directory, procs)) = &self.v2 {
            descriptors.extend_from_slice(&[directory.as_raw_fd(), procs.as_raw_fd()]);
        }
        descriptors
    }
}

impl Joining {
    /// Has the sandbox join `directory` too, which is one of `hierarchy`.
    pub(super) fn add(&mut self, hierarchy: &Hierarchy, directory: &Directory) -> Result<(), NoCgroup> {
        let file = open_to_join(directory)?;
        if directory.v2 {
            self.v2 = Some((directory.open(".", OFlag::O_DIRECTORY)?.into(), file));
        } else {
            self.v1.extend(V1Hierarchy::mounted(&hierarchy.names, file));
        }
        Ok(())
    }
}

/// The file by which a process with one thread joins.
pub(super) fn open_to_join(directory: &Directory) -> Result<OwnedFd, NoCgroup> {
    directory.open(if directory.v2 { PROCS } else { TASKS }, OFlag::O_WRONLY).map(OwnedFd::from)
}

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

impl Cgroup {
    /// How the limits of `spec` were met. To be read before this is dropped. It takes one descriptor at a time.
    pub(crate) fn events(&self, spec: &Spec) -> Result<Events, NoCgroup> {
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
    pub(crate) fn oom_kills(&self) -> Result<u64, NoCgroup> {
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
