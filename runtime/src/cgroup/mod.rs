//! Cgroups: one for each sandbox, with its limits; what they tell of a test's end; and their removal. See cgroups(7).
//!
//! All of it happens in the test binary, which hands a sandbox the descriptors by which it joins. Below the cgroup that the
//! tests run in, each test binary makes a directory of its own in every hierarchy it needs, and locks it: what is not
//! locked belongs to nobody any more, and is swept by the next test binary that comes by.
//!
//! Limits that a test writes are promises, and what keeps them from being made is [`Trouble`]. The others are best effort.

mod find;
mod limits;
mod run;
mod shared;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::spec::Spec;
pub(crate) use find::chosen;
pub(crate) use limits::{DEFAULT_PIDS, Events};
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
    /// Those among `names`, always in the same order.
    fn among(names: &[&str]) -> Vec<Self> {
        let mut all = vec![Self::Pids, Self::Memory, Self::Cpu, Self::Cpuacct];
        all.retain(|controller| names.contains(&controller.name()));
        all
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
    /// The cgroup has processes that are not of this test run, and so can't get controllers for cgroups below it.
    Foreign(PathBuf),
    /// The kernel refused.
    Refused { path: PathBuf, errno: Errno },
}

impl Trouble {
    fn new(path: &Path, error: &io::Error) -> Self {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        Self::Refused { path: path.to_owned(), errno }
    }
}

/// The cgroup of one sandbox: a directory in each hierarchy that limits it. It is removed soon after this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Cgroup {
    directories: Vec<Directory>,
}

#[derive(Debug)]
struct Directory {
    v2: bool,
    path: PathBuf,
    /// Those of our controllers that work in it.
    controllers: Vec<Controller>,
}

/// How a sandbox joins its cgroup.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    /// For v1: the files `cgroup.procs`, to be written to.
    pub(crate) procs: Vec<OwnedFd>,
    /// For v2: the directory, to be born in; and its `cgroup.procs`, where that can't be.
    pub(crate) unified: Option<(OwnedFd, OwnedFd)>,
    /// Whether RLIMIT_NPROC stands in for the pids controller.
    pub(crate) process_limit: bool,
}

impl Joining {
    /// All descriptors, those of v2 last.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let unified = self.unified.iter().flat_map(|(directory, procs)| [directory.as_fd(), procs.as_fd()]);
        self.procs.iter().map(|fd| fd.as_fd()).chain(unified)
    }
}

fn open_to_write(path: &Path) -> Result<File, Trouble> {
    File::options().write(true).open(path).map_err(|error| Trouble::new(path, &error))
}

/// Writes to a file of a cgroup. The kernel takes each write(2) as a whole.
fn write(path: &Path, value: &str) -> Result<(), Trouble> {
    io::Write::write_all(&mut open_to_write(path)?, value.as_bytes()).map_err(|error| Trouble::new(path, &error))
}
