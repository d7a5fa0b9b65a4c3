//! The host, as plans look at it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::host_files::HostFiles;
use super::wanted::{Wanted, WantedKind, tested};
use crate::collect::CollectVec as _;
use crate::proc::Mount;
use crate::rootfs::context::RunContext;
use crate::rootfs::stage::Stage;
use crate::rootfs::unpacked::Unpacked;
use crate::spec::Spec;

/// The host, as the template sees it, which is root of the user namespace that it is in.
pub(crate) struct Host<'t> {
    pub(crate) context: &'t RunContext,
    /// All that is mounted.
    pub(crate) mounts: &'t [Mount],
    pub(crate) files: HostFiles<'t>,
    /// The stage, if the template has one.
    pub(crate) stage: Option<&'t Stage>,
    /// The image that is the root, if one is.
    pub(crate) image: Option<&'t Unpacked>,
}

impl Host<'_> {
    /// The mount points below `path`.
    pub(super) fn mounts_below(&self, path: &Path) -> impl Iterator<Item = &Path> {
        let points = self.mounts.iter().map(|mount| mount.point.as_path());
        points.filter(move |point| point.starts_with(path) && *point != path)
    }

    /// What is tested and unreachable for the template, to be shown all the same.
    pub(super) fn unreachable(&self) -> Vec<Wanted> {
        let wanted = |path: &Path| Wanted { canonical: path.into(), kind: WantedKind::Shown, name: path.into() };
        let unreachable = self.stage.map(Stage::unreachable).unwrap_or_default();
        unreachable.into_iter().map(wanted).collect_vec()
    }

    /// What is tested and unreachable, and not in the stage either.
    pub(super) fn unreachable_by_all(&self, spec: &Spec) -> Option<PathBuf> {
        let files = &self.files;
        let known = self.stage.map(Stage::unreachable).unwrap_or_default();
        let is_reached = |path: &Path| known.iter().any(|known| path.starts_with(known));
        let is_closed = |path: &PathBuf| {
            let error = fs::metadata(path).err().map(|error| error.kind());
            error == Some(io::ErrorKind::PermissionDenied) && !is_reached(&files.canonical(path))
        };
        tested(files, self.context, spec).into_iter().find(is_closed)
    }

    /// Whether the host has a directory there.
    pub(super) fn has_directory(&self, path: &Path) -> bool {
        self.files.is_directory(path) || self.stage.is_some_and(|stage| stage.has_unreachable_directory(path))
    }

    pub(super) fn is_mount_point(&self, path: &Path) -> bool {
        self.mounted_at(path).is_some()
    }

    /// The topmost mount at `path`.
    pub(super) fn mounted_at(&self, path: &Path) -> Option<&Mount> {
        self.mounts.iter().rfind(|mount| mount.point == path)
    }
}
