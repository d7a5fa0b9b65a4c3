//! What a plan was made from, so that it is made anew when that has changed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// For how long a file may change again without showing it: times are those of the kernel's last clock tick, and some file systems have
/// whole seconds.
const TICK: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(2);

/// The directories that a plan has listed, and the files that it has a copy of, each as it was before.
#[derive(Default)]
pub(crate) struct Basis(Vec<(PathBuf, Option<Version>)>);

/// What differs after each change: of the entries of a directory, or of a file.
#[derive(PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Basis {
    /// Notices how `path` is, which is about to be looked at.
    pub(crate) fn add(&mut self, path: PathBuf) {
        let version = Version::of(&path).filter(Version::is_settled);
        self.0.push((path, version));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all is as it was.
    pub(crate) fn holds(&self) -> bool {
        self.0.iter().all(|(path, version)| version.is_some() && Version::of(path) == *version)
    }
}

impl Version {
    fn of(path: &PathBuf) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Some(Self { device: metadata.dev(), inode: metadata.ino(), changed })
    }

    fn is_settled(&self) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let parts = u64::try_from(seconds).ok().zip(u32::try_from(nanoseconds).ok());
        let changed = parts.and_then(|(seconds, nanos)| UNIX_EPOCH.checked_add(Duration::new(seconds, nanos)));
        let enough = if nanoseconds == 0 { SECOND } else { TICK };
        changed.is_some_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|age| age > enough))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_just_changed_may_change_again() {
        let file = std::env::temp_dir().join(format!("belljar-{}-basis", std::process::id()));
        fs::write(&file, "first").expect("write");
        let basis = || {
            let mut basis = Basis::default();
            basis.add(file.clone());
            basis
        };
        assert!(!basis().holds());
        let settled = loop {
            let basis = basis();
            if basis.holds() {
                break basis;
            }
        };
        fs::write(&file, "second").expect("write");
        assert!(!settled.holds());
        fs::remove_file(&file).expect("remove");
        assert!(!settled.holds());
    }
}
