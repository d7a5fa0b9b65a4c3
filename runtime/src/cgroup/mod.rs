//! Cgroups: one for each sandbox, with its limits; what they tell of a test's end; and their removal. See cgroups(7).
//!
//! It happens in the test binary, which hands a sandbox the descriptors by which it joins, and those of its [`groups`]. Below
//! the cgroup that the tests run in, each test binary makes a directory of its own in every hierarchy it needs, and locks it:
//! what is not locked belongs to nobody any more, and is swept by the next test binary that comes by.
//!
//! Limits that a test writes are promises, and what keeps them from being made is [`Trouble`]. The others are best effort.

mod find;
pub(crate) mod groups;
mod limits;
mod run;
mod shared;
mod systemd;

use std::ffi::{CStr, CString};
use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::proc::text_in;
use crate::spec::Spec;
use crate::sys::errno_of;
use crate::text::error;
pub(crate) use find::{chosen, limits_on_processes};
pub(crate) use groups::{Handed, NoGroup};
pub(crate) use limits::{DEFAULT_PIDS, Events, usage_of};
pub(crate) use run::{clean_up, make};

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
    const ALL: [Self; 4] = [Self::Pids, Self::Memory, Self::Cpu, Self::Cpuacct];

    /// Those among `names`, always in the same order.
    fn among<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Vec<Self> {
        Self::ALL.into_iter().filter(|controller| names.clone().any(|name| name == controller.name())).collect()
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
    fn written(spec: &Spec) -> Vec<Self> {
        let Spec { pids, memory, cpu, .. } = spec;
        let written = [(Self::Pids, pids.is_some()), (Self::Memory, memory.is_some()), (Self::Cpu, cpu.is_some())];
        written.into_iter().filter_map(|(controller, written)| written.then_some(controller)).collect()
    }
}

/// Why there can be no cgroup with the limits that a test has written.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// No hierarchy, or no cgroup that could be reached, has the controller.
    Missing(Controller),
    /// The cgroup has processes that are not of this test run, and so can't get controllers for cgroups below it. The names of
    /// those that this process can see.
    Foreign { path: PathBuf, names: Vec<String> },
    /// The kernel refused.
    Refused { path: PathBuf, errno: Errno },
}

impl Trouble {
    /// What the kernel said, if it was that.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Missing(_) | Self::Foreign { .. } => None,
        }
    }

    fn new(path: &Path, error: &io::Error) -> Self {
        Self::Refused { path: path.to_owned(), errno: errno_of(error) }
    }
}

/// How many processes are named.
const NAMED: usize = 10;

impl Display for Trouble {
    /// What is the matter, but for where.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(controller) => {
                write!(f, "no hierarchy that could be reached has the controller `{}`", controller.name())
            }
            Self::Foreign { names, .. } => {
                let listed: Vec<_> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
                let listed = if listed.is_empty() { String::new() } else { format!(" ({})", listed.join(", ")) };
                write!(f, "it holds processes that are not of this test run{listed}, and so can't be divided")
            }
            Self::Refused { errno, .. } => f.write_str(&error(*errno)),
        }
    }
}

/// The cgroup of one sandbox: a directory in each hierarchy that limits it. It is removed soon after this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Cgroup {
    directories: Vec<Directory>,
}

/// A cgroup in one hierarchy.
#[derive(Debug)]
pub(crate) struct Directory {
    v2: bool,
    location: Location,
    /// Those of our controllers that work in it.
    controllers: Vec<Controller>,
}

/// How its files are reached.
#[derive(Debug)]
enum Location {
    /// From the test binary.
    Path(PathBuf),
    /// From inside a sandbox, which may have no path to it.
    Open(OwnedFd),
}

/// The file that lists the processes, and by which they are added.
const PROCS: &str = "cgroup.procs";

impl Directory {
    fn at(path: impl Into<PathBuf>, v2: bool, controllers: Vec<Controller>) -> Self {
        Self { v2, location: Location::Path(path.into()), controllers }
    }

    fn open(&self, file: &str, flags: OFlag) -> Result<File, Trouble> {
        let flags = flags | OFlag::O_CLOEXEC;
        let opened = match &self.location {
            Location::Path(path) => open(&path.join(file), flags, Mode::empty()),
            Location::Open(directory) => openat(directory, file, flags, Mode::empty()),
        };
        opened.map(File::from).map_err(|errno| Trouble::Refused { path: self.path_of(file), errno })
    }

    /// What to call a file of it.
    fn path_of(&self, file: &str) -> PathBuf {
        match &self.location {
            Location::Path(path) => path.join(file),
            Location::Open(_) => file.into(),
        }
    }

    /// Writes to a file of it. The kernel takes each write(2) as a whole.
    fn write(&self, file: &str, value: &str) -> Result<(), Trouble> {
        let mut open = self.open(file, OFlag::O_WRONLY)?;
        open.write_all(value.as_bytes()).map_err(|error| Trouble::new(&self.path_of(file), &error))
    }

    fn read(&self, file: &str) -> Result<String, Trouble> {
        text_in(self.open(file, OFlag::O_RDONLY)?).map_err(|error| Trouble::new(&self.path_of(file), &error))
    }

    pub(crate) fn open_procs(&self) -> Result<OwnedFd, Trouble> {
        self.open(PROCS, OFlag::O_WRONLY).map(OwnedFd::from)
    }

    pub(crate) fn add(&self, pid: u32) -> Result<(), Trouble> {
        self.write(PROCS, &pid.to_string())
    }

    /// The processes in it. One that this pid namespace does not know is 0.
    pub(crate) fn processes(&self) -> Result<Vec<u32>, Trouble> {
        Ok(self.read(PROCS)?.lines().filter_map(|line| line.parse().ok()).collect())
    }

    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }
}

/// How a sandbox joins its cgroup.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    /// For v1.
    pub(crate) trees: Vec<Tree>,
    /// For v2: the directory, to be born in; and its `cgroup.procs`, where that can't be.
    pub(crate) unified: Option<(OwnedFd, OwnedFd)>,
    /// Whether RLIMIT_NPROC stands in for the pids controller.
    pub(crate) process_limit: bool,
    /// How often the zygote has been moved to another cgroup. What it has forked before is still elsewhere.
    pub(crate) moves: u32,
}

/// How a sandbox joins a hierarchy of version 1, and sees it.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Where it is mounted below the root: in [`CGROUPS`], by its controllers.
    pub(crate) mount_point: CString,
    /// The file `cgroup.procs`, to be written to.
    pub(crate) procs: OwnedFd,
}

/// Where hierarchies are mounted, below the root.
const CGROUPS: &str = "sys/fs/cgroup/";

impl Tree {
    /// Its controllers, as mount(2) takes them; see cgroups(7).
    pub(crate) fn controllers(&self) -> &CStr {
        let path = self.mount_point.as_bytes_with_nul();
        path.get(CGROUPS.len()..).and_then(|names| CStr::from_bytes_with_nul(names).ok()).unwrap_or_default()
    }
}

impl Joining {
    /// All descriptors, those of v2 last.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let unified = self.unified.iter().flat_map(|(directory, procs)| [directory.as_fd(), procs.as_fd()]);
        self.trees.iter().map(|tree| tree.procs.as_fd()).chain(unified)
    }
}
