//! What a root is a copy of, as plans look at it.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::host_files::HostFiles;
use crate::collect::CollectVec as _;
use crate::rootfs::left::{Left, LeftLayer};
use crate::rootfs::merged::{Merged, READ};

/// The tree that a root is a copy of. Paths in it are absolute.
pub(super) enum Base {
    /// A directory of the host.
    Host(PathBuf),
    /// What preparations have left, by the paths of the layers.
    Left(Vec<(PathBuf, Merged)>),
}

impl Base {
    pub(super) fn of_left(left: &Left, layers: &[LeftLayer]) -> nix::Result<Self> {
        let merged = |layer: &LeftLayer| Ok((layer.at.clone(), left.merged(layer)?));
        layers.iter().map(merged).try_collect_vec().map(Self::Left)
    }

    /// The owner of what is at `path`, if anything is.
    pub(super) fn owner(&self, files: &HostFiles<'_>, path: &Path) -> Option<u32> {
        match self {
            Self::Host(_) => {
                let original = self.original(files, path)?;
                Some(fs::symlink_metadata(original).ok()?.uid())
            }
            Self::Left(_) => self.stat(path).map(|stat| stat.st_uid),
        }
    }

    /// What the link at `path` holds, if one is there.
    pub(super) fn link(&self, files: &HostFiles<'_>, path: &Path) -> Option<PathBuf> {
        match self {
            Self::Host(_) => fs::read_link(self.original(files, path)?).ok(),
            Self::Left(_) => {
                let (merged, below) = self.layer_of(path)?;
                merged.link(below).ok()
            }
        }
    }

    /// What preparations have left at `path`.
    pub(super) fn stat(&self, path: &Path) -> Option<libc::stat64> {
        let (merged, below) = self.layer_of(path)?;
        merged.stat(below).ok()
    }

    /// Whether preparations have left a file at `path` that holds this.
    pub(super) fn holds(&self, path: &Path, content: &[u8]) -> bool {
        let is_one =
            |stat: libc::stat64| stat.st_mode & libc::S_IFMT == libc::S_IFREG && stat.st_size == content.len() as i64;
        let Some((merged, below)) = self.layer_of(path).filter(|_| self.stat(path).is_some_and(is_one)) else {
            return false;
        };
        let mut found = Vec::new();
        let read = merged.open(below, READ).map(|file| File::from(file).read_to_end(&mut found));
        read.is_ok_and(|read| read.is_ok()) && found == content
    }

    /// Where the host has what is at `path`, unless nobody answers there.
    fn original(&self, files: &HostFiles<'_>, path: &Path) -> Option<PathBuf> {
        let Self::Host(base) = self else { return None };
        Some(base.join(path.strip_prefix("/").unwrap_or(path))).filter(|original| files.at(original))
    }

    /// The innermost layer that `path` lies in, and the path in that.
    fn layer_of<'p>(&self, path: &'p Path) -> Option<(&Merged, &'p Path)> {
        let Self::Left(layers) = self else { return None };
        // Those first that others lie in.
        layers.iter().rev().find_map(|(at, merged)| Some((merged, path.strip_prefix(at).ok()?)))
    }
}
