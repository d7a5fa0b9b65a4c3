//! Where a host is: its namespaces, and the way into them.

use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::chdir;

use crate::collect::CollectVec as _;
use crate::ns::{self, Kind, Namespace};
use crate::sys;
use crate::text;

/// The kinds of namespaces that a host has for itself, in the order in which they are entered.
const KINDS: [Kind; 3] = [Kind::Net, Kind::Uts, Kind::Mount];

/// The namespaces of a host.
#[derive(Debug)]
pub(super) struct HostNamespaces {
    namespaces: [Namespace; 3],
}

impl HostNamespaces {
    /// The one that this thread is at.
    pub(super) fn current() -> Result<Self, ns::Error> {
        let [net, uts, mount] = KINDS.map(Namespace::current);
        Ok(Self { namespaces: [net?, uts?, mount?] })
    }

    /// New ones, which this thread enters. Its root and its working directory are its own from now on.
    pub(super) fn enter_new() -> nix::Result<()> {
        let new = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS;
        unshare(new | CloneFlags::CLONE_FS)
    }

    pub(super) fn namespaces(&self) -> &[Namespace] {
        &self.namespaces
    }

    /// Moves this thread there. It stays in its working directory, if that is there too, or else it is at the root.
    pub(super) fn enter(&self) -> nix::Result<()> {
        // Where it is unlinked, or was never in this root, it has no name.
        let directory = nix::unistd::getcwd().ok();
        // Root and working directory are the thread's own from now on.
        unshare(CloneFlags::CLONE_FS)?;
        for namespace in &self.namespaces {
            setns(namespace, CloneFlags::empty())?;
        }
        if let Some(directory) = directory.filter(|directory| directory.is_absolute()) {
            let _ = chdir(&directory);
        }
        Ok(())
    }

    /// Has `command` run there.
    pub(super) fn have_run(&self, command: &mut Command) -> io::Result<()> {
        let copies = self.namespaces.iter().map(|namespace| namespace.as_fd().try_clone_to_owned());
        sys::enter_before_exec(command, copies.try_collect_vec()?);
        Ok(())
    }
}

/// Why nothing can be done at a place, to the end of the sentence, and what to do about it: the kernel's error in the same words with every C
/// library, or what others say.
pub(super) fn why(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) => format!("{}.", text::error_with_limit(errno)),
        // Those of namespaces are whole sentences.
        None => error.to_string().trim_start_matches("belljar: ").to_owned(),
    }
}

/// Where a thread was, so that it can go back.
#[derive(Debug)]
pub(super) struct Back {
    place: HostNamespaces,
    directory: PathBuf,
}

impl Back {
    pub(super) fn here() -> io::Result<Self> {
        Ok(Self { place: HostNamespaces::current()?, directory: nix::unistd::getcwd()? })
    }

    /// Moves this thread back.
    pub(super) fn go(&self) -> nix::Result<()> {
        self.place.enter()?;
        chdir(&self.directory)
    }
}
