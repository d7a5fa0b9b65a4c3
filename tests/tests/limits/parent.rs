//! Cgroups for the test binaries that tests start.

use std::fs::{self};
use std::path::{Path, PathBuf};
use std::process;
use std::process::Command;

use belljar_tests::must_limit;
use nix::unistd::geteuid;

/// A cgroup below the root, or one at the same path in each hierarchy of version 1, for test binaries to use. Removed at the
/// end.
pub(crate) struct Parent {
    pub(crate) path: String,
    pub(crate) directories: Vec<PathBuf>,
}

impl Parent {
    /// `None` where this user can make none, or should not, as on somebody's machine with cgroups of version 2.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        if !geteuid().is_root() || is_v2 && must_limit() != Some(true) {
            println!("not tried: this user can make no cgroup");
            return None;
        }
        let path = format!("/belljar-tests-{}-{name}", process::id());
        let roots = if is_v2 { vec![""] } else { vec!["/pids", "/memory", "/cpu"] };
        let roots = roots.into_iter().map(|root| format!("/sys/fs/cgroup{root}"));
        let roots = roots.filter(|root| Path::new(root).join("cgroup.procs").exists());
        let directories: Vec<_> = roots.map(|root| PathBuf::from(format!("{root}{path}"))).collect();
        directories.iter().for_each(|directory| fs::create_dir(directory).expect("create_dir"));
        (!directories.is_empty()).then_some(Self { path, directories })
    }

    pub(crate) fn below(&self) -> Vec<PathBuf> {
        self.directories.iter().flat_map(|directory| below(directory)).collect()
    }

    pub(crate) fn use_it(&self, command: &mut Command) {
        command.env("BELLJAR_CGROUP", &self.path);
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for directory in self.below().iter().chain(&self.directories) {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// All cgroups below this one, the deepest first. Some may be removed meanwhile: there is nothing below those.
pub(crate) fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path()));
            found.push(entry.path());
        }
    }
    found
}
