//! The directories that test binaries make among cgroups: each is locked as long as its test binary lives, so that others know what to sweep.

use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{io, process, thread};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::controller::NoCgroup;
use crate::sys::Locked;

/// What the names of our directories begin with.
const PREFIX: &str = "belljar-run-";

/// How many digits chosen at random follow: a number made of a pid would come again.
const RANDOM: usize = 16;

pub(super) fn random_name() -> String {
    // Each `RandomState` has other keys, chosen at random.
    let random = RandomState::new().hash_one(process::id());
    format!("{random:0RANDOM$x}")
}

/// Makes a directory of a new name, and locks it.
pub(super) fn make_locked(parent: &Path) -> Result<(PathBuf, Locked), NoCgroup> {
    loop {
        let directory = parent.join(format!("{PREFIX}{}", random_name()));
        fs::create_dir(&directory).map_err(|error| NoCgroup::new(parent, &error))?;
        // Until it is locked, it may be swept.
        match lock(&directory) {
            Ok(Some(lock)) => return Ok((directory, lock)),
            Ok(None) => {}
            Err(trouble) => {
                remove_tree(&directory);
                return Err(trouble);
            }
        }
    }
}

/// Locks a directory. `None` if somebody else has locked it, or it is gone.
fn lock(directory: &Path) -> Result<Option<Locked>, NoCgroup> {
    let gone_or = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(None),
        _ => Err(NoCgroup::new(directory, &error)),
    };
    let lock = match File::open(directory).map(|file| Locked::new(file, libc::LOCK_EX | libc::LOCK_NB)) {
        Err(error) => return gone_or(error),
        Ok(Err((_, Errno::EWOULDBLOCK))) => return Ok(None),
        Ok(Err((_, errno))) => return Err(NoCgroup::Refused { path: directory.to_owned(), errno }),
        Ok(Ok(lock)) => lock,
    };
    match fs::metadata(directory).and_then(|there| Ok(there.ino() == lock.metadata()?.ino())) {
        Ok(is_there) => Ok(is_there.then_some(lock)),
        Err(error) => gone_or(error),
    }
}

/// Removes what test binaries have left in `parent` that were killed. Where this user may make nothing, it can have left nothing.
pub(super) fn sweep(parent: &Path) {
    if access(parent, AccessFlags::W_OK).is_err() {
        return;
    }
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.strip_prefix(PREFIX).is_some_and(|random| random.len() == RANDOM));
        if is_ours {
            if let Ok(Some(_lock)) = lock(&entry.path()) {
                remove_tree(&entry.path());
            }
        }
    }
}

/// Removes a cgroup and all below it. Returns whether it is gone; one with a process in it stays. It takes one descriptor at a time.
pub(super) fn remove_tree(directory: &Path) -> bool {
    for below in directories_in(directory) {
        remove_tree(&below);
    }
    match fs::remove_dir(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// The directories in this one; none where it can't be read.
pub(super) fn directories_in(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return found };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    found
}

/// Removes a directory of ours. The kernel may not be done with the last process. So this tries so often, and each time waits twice as long as
/// before.
pub(super) fn remove_in_time(directory: &Path, tries: u32) {
    for doubled in 0..tries {
        if remove_tree(directory) {
            return;
        }
        thread::sleep(Duration::from_micros(100 << doubled));
    }
}
