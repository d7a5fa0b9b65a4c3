//! Which directories are closed to root of a sandbox.
//!
//! Outside, root of a sandbox is the user who runs the tests. Real root may enter every directory. In a user namespace, root may do so only for
//! owners that have an id there. In most sandboxes, only root has one.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::collect::CollectVec as _;
use crate::rootfs::paths::c_string;
use crate::spec::Ids;
use crate::sys::geteuid;

/// The first directory above `path` that is closed to root of a sandbox with these ids, if one is.
pub(crate) fn closed_above(path: &Path, ids: Ids) -> Option<(PathBuf, Metadata)> {
    let mut above = path.ancestors().skip(1).collect_vec();
    above.reverse();
    above.into_iter().find_map(|directory| {
        let metadata = fs::metadata(directory).ok()?;
        let is_open = match ids {
            Ids::One if geteuid().is_root() => lone_root_may_enter(&metadata),
            _ => access(&*c_string(directory), AccessFlags::X_OK).is_ok(),
        };
        (!is_open).then(|| (directory.to_path_buf(), metadata))
    })
}

/// Whether root may enter a directory without root's powers.
fn lone_root_may_enter(directory: &Metadata) -> bool {
    let bit = match (directory.uid(), directory.gid()) {
        (0, _) => 0o100,
        (_, 0) => 0o010,
        _ => 0o001,
    };
    directory.mode() & bit != 0
}
