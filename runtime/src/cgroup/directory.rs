//! A cgroup in one hierarchy: a directory.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::controller::{Controller, NoCgroup};
use crate::collect::CollectVec as _;
use crate::proc::text_in;

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
pub(super) const PROCS: &str = "cgroup.procs";

impl Directory {
    pub(super) fn at(path: impl Into<PathBuf>, v2: bool, controllers: Vec<Controller>) -> Self {
        Self { v2, location: Location::Path(path.into()), controllers }
    }

    pub(super) fn open(&self, file: &str, flags: OFlag) -> Result<File, NoCgroup> {
        let flags = flags | OFlag::O_CLOEXEC;
        let opened = match &self.location {
            Location::Path(path) => open(&path.join(file), flags, Mode::empty()),
            Location::Open(directory) => openat(directory, file, flags, Mode::empty()),
        };
        opened.map(File::from).map_err(|errno| NoCgroup::Refused { path: self.path_of(file), errno })
    }

    /// What to call a file of it.
    pub(super) fn path_of(&self, file: &str) -> PathBuf {
        match &self.location {
            Location::Path(path) => path.join(file),
            Location::Open(_) => file.into(),
        }
    }

    /// Writes to a file of it. The kernel takes each write(2) as a whole.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), NoCgroup> {
        let mut open = self.open(file, OFlag::O_WRONLY)?;
        open.write_all(value.as_bytes()).map_err(|error| NoCgroup::new(&self.path_of(file), &error))
    }

    pub(super) fn read(&self, file: &str) -> Result<String, NoCgroup> {
        text_in(self.open(file, OFlag::O_RDONLY)?).map_err(|error| NoCgroup::new(&self.path_of(file), &error))
    }

    pub(crate) fn open_procs(&self) -> Result<OwnedFd, NoCgroup> {
        self.open(PROCS, OFlag::O_WRONLY).map(OwnedFd::from)
    }

    pub(crate) fn add(&self, pid: u32) -> Result<(), NoCgroup> {
        self.write(PROCS, &pid.to_string())
    }

    /// The processes in it. One that this pid namespace does not know is 0.
    pub(crate) fn processes(&self) -> Result<Vec<u32>, NoCgroup> {
        Ok(self.read(PROCS)?.lines().filter_map(|line| line.parse().ok()).collect_vec())
    }

    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }
}
