//! A cgroup as a directory in each hierarchy, and how a sandbox joins it.

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::controller::{Controller, Trouble};
use crate::proc::text_in;

/// The cgroup of one sandbox: a directory in each hierarchy that limits it. It is removed soon after this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Cgroup {
    pub(super) directories: Vec<Directory>,
    pub(super) reusable: Option<Reusable>,
}

/// A cgroup of version 1 that limits processes to the default number, and one sandbox has after the other: to make it takes longer
/// than to join it.
#[derive(Debug)]
pub(super) struct Reusable {
    pub(super) directory: Directory,
    /// The file that counts forks that were refused. It is looked at after each test.
    pub(super) events: File,
    /// The process that has made it. Its forks must not take it for theirs.
    pub(super) owner: u32,
    /// Whether forks have been refused. The kernel goes on counting, so that no other sandbox can have it.
    pub(super) has_refused: Cell<bool>,
}

/// A cgroup in one hierarchy.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(super) v2: bool,
    pub(super) location: Location,
    /// Those of our controllers that work in it.
    pub(super) controllers: Vec<Controller>,
}

/// How its files are reached.
#[derive(Debug)]
pub(super) enum Location {
    /// From the test binary.
    Path(PathBuf),
    /// From inside a sandbox, which may have no path to it.
    Open(OwnedFd),
}

/// The file that lists the processes, and by which they are added.
const PROCS: &str = "cgroup.procs";

/// The same for threads, in version 1. A process that has one joins by it without keeping all others on the machine from forking.
const TASKS: &str = "tasks";

impl Directory {
    pub(super) fn at(path: impl Into<PathBuf>, v2: bool, controllers: Vec<Controller>) -> Self {
        Self { v2, location: Location::Path(path.into()), controllers }
    }

    pub(super) fn open(&self, file: &str, flags: OFlag) -> Result<File, Trouble> {
        let flags = flags | OFlag::O_CLOEXEC;
        let opened = match &self.location {
            Location::Path(path) => open(&path.join(file), flags, Mode::empty()),
            Location::Open(directory) => openat(directory, file, flags, Mode::empty()),
        };
        opened.map(File::from).map_err(|errno| Trouble::Refused { path: self.path_of(file), errno })
    }

    /// What to call a file of it.
    pub(super) fn path_of(&self, file: &str) -> PathBuf {
        match &self.location {
            Location::Path(path) => path.join(file),
            Location::Open(_) => file.into(),
        }
    }

    /// Writes to a file of it. The kernel takes each write(2) as a whole.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), Trouble> {
        let mut open = self.open(file, OFlag::O_WRONLY)?;
        open.write_all(value.as_bytes()).map_err(|error| Trouble::new(&self.path_of(file), &error))
    }

    pub(super) fn read(&self, file: &str) -> Result<String, Trouble> {
        text_in(self.open(file, OFlag::O_RDONLY)?).map_err(|error| Trouble::new(&self.path_of(file), &error))
    }

    pub(crate) fn open_procs(&self) -> Result<OwnedFd, Trouble> {
        self.open(PROCS, OFlag::O_WRONLY).map(OwnedFd::from)
    }

    /// The file by which a process with one thread joins.
    pub(super) fn open_to_join(&self) -> Result<OwnedFd, Trouble> {
        self.open(if self.v2 { PROCS } else { TASKS }, OFlag::O_WRONLY).map(OwnedFd::from)
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
    /// Where it is mounted below the root: in [`CGROUPS`], by its controllers. Empty if it is not.
    pub(crate) mount_point: CString,
    /// The file `tasks`, to be written to.
    pub(crate) tasks: OwnedFd,
}

/// Where hierarchies are mounted, below the root.
pub(super) const CGROUPS: &str = "sys/fs/cgroup/";

impl Tree {
    /// Its controllers, as mount(2) takes them; see cgroups(7).
    pub(crate) fn controllers(&self) -> &CStr {
        let path = self.mount_point.as_bytes_with_nul();
        path.get(CGROUPS.len()..).and_then(|names| CStr::from_bytes_with_nul(names).ok()).unwrap_or_default()
    }
}

impl Joining {
    /// What the sandbox sees of version 1.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &Tree> {
        self.trees.iter().filter(|tree| !tree.mount_point.is_empty())
    }

    /// All descriptors: those of v1, and of v2.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let unified = self.unified.iter().flat_map(|(directory, procs)| [directory.as_fd(), procs.as_fd()]);
        self.trees.iter().map(|tree| tree.tasks.as_fd()).chain(unified)
    }
}
