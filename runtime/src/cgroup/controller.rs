//! What cgroups can limit, and why a host may not allow it.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::collect::CollectVec as _;
use crate::spec::Spec;
use crate::sys::errno_of;
use crate::text::{error, plain};

/// What can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    Pids,
    Memory,
    Cpu,
    /// Of version 1. In version 2 every cgroup tells its CPU time.
    Cpuacct,
}

impl Controller {
    pub(super) const ALL: [Self; 4] = [Self::Pids, Self::Memory, Self::Cpu, Self::Cpuacct];

    /// Those among `names`, always in the same order.
    pub(super) fn among<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Vec<Self> {
        Self::ALL.into_iter().filter(|controller| names.clone().any(|name| name == controller.name())).collect_vec()
    }

    /// What the kernel calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pids => "pids",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
        }
    }

    /// Those that a test has written a limit for.
    pub(super) fn written(spec: &Spec) -> Vec<Self> {
        let Spec { pids, memory, cpu, .. } = spec;
        let written = [(Self::Pids, pids.is_some()), (Self::Memory, memory.is_some()), (Self::Cpu, cpu.is_some())];
        written.into_iter().filter_map(|(controller, written)| written.then_some(controller)).collect_vec()
    }
}

/// Why there can be no cgroup with the limits that a test has written.
#[derive(Clone, Debug)]
pub(crate) enum NoCgroup {
    /// No hierarchy, or no cgroup that could be reached, has the controller.
    Missing(Controller),
    /// The cgroup has processes that are not of this test run, and so can't get controllers for cgroups below it. The names of
    /// those that this process can see.
    Foreign { path: PathBuf, names: Vec<String> },
    /// systemd would end the unit that the tests run in, and this run in it, when the kernel kills a test whose memory is used up. `policy`
    /// is the unit's `OOMPolicy`.
    Ends { unit: String, policy: String },
    /// The kernel refused.
    Refused { path: PathBuf, errno: Errno },
}

impl NoCgroup {
    /// What the kernel said, if it was that.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Missing(_) | Self::Foreign { .. } | Self::Ends { .. } => None,
        }
    }

    pub(super) fn new(path: &Path, error: &io::Error) -> Self {
        Self::Refused { path: path.to_owned(), errno: errno_of(error) }
    }
}

/// How many processes are named.
const NAMED: usize = 10;

impl Display for NoCgroup {
    /// What is the matter, but for where.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(controller) => {
                write!(f, "no hierarchy that could be reached has the controller `{}`", controller.name())
            }
            Self::Foreign { names, .. } => {
                let listed = names.iter().take(NAMED).map(|name| format!("`{}`", plain(name))).collect_vec();
                let listed = if listed.is_empty() { String::new() } else { format!(" ({})", listed.join(", ")) };
                write!(f, "it holds processes that are not of this test run{listed}, and so can't be divided")
            }
            Self::Ends { unit, .. } => {
                write!(
                    f,
                    "a test that is killed when its memory is used up would end `{}`, and the run in it",
                    plain(unit)
                )
            }
            Self::Refused { errno, .. } => f.write_str(&error(*errno)),
        }
    }
}
