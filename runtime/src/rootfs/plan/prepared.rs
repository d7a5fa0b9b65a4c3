//! Plans the root of a test that starts from what a preparation has left.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::base::Base;
use super::builder::{Builder, Planned};
use super::copy::overlay_options;
use super::host::Host;
use super::system::SYSTEM;
use super::wanted::{Wanted, WantedKind, as_wanted, profiles, shown, tested, writable};
use crate::collect::CollectVec as _;
use crate::frame::{Refusal, Step};
use crate::rootfs::build::{COPY, Operation};
use crate::rootfs::left::LeftLayer;
use crate::rootfs::paths::{HostPath, InsidePath};
use crate::rootfs::stage::Stage;
use crate::spec::{Preparation, Root, Spec};

/// A copy of what the preparations have left that are in the `stage`. What was mounted in their sandboxes is mounted again, in the places
/// that they have left for it. All else is as they left it: no file and no directory is made that they may have removed.
pub(super) fn prepared_root(host: &Host<'_>, stage: &Stage, spec: &Spec) -> Result<Planned, Refusal> {
    let (context, files) = (host.context, &host.files);
    let failed = |errno| Refusal::new(Step::Prepared, "", errno);
    let layers = stage.left().layers().map_err(failed)?;
    if let Some(silent) = layers.iter().filter_map(|layer| layer.from.as_ref()).find(|from| !files.follow(from)) {
        return Err(Refusal::new(Step::Copy, silent, Errno::ETIMEDOUT));
    }
    // The rest may be hidden below it, and a root of preparations' files alone is another one.
    let root = layers.iter().find(|layer| layer.at == Path::new("/")).and_then(|layer| layer.from.as_ref());
    if let Some(gone) = root.filter(|from| !files.is_directory(from)) {
        return Err(Refusal::new(Step::Copy, gone, Errno::ENOENT));
    }
    let mut builder = Builder::new(host, spec, COPY);
    builder.base = Some(Base::of_left(stage.left(), &layers).map_err(failed)?);
    // What lies in what is shown can only be laid over that.
    let is_in_root = |layer: &LeftLayer| layer.from.is_some() || layer.at == Path::new("/");
    let (in_root, in_shown): (Vec<_>, Vec<_>) = layers.into_iter().partition(is_in_root);
    in_root.iter().for_each(|layer| builder.lay_over_left(layer));
    if let (Root::Tmpfs, Some(Preparation(preparation))) = (spec.root, spec.from) {
        builder.etc_of_test(&preparation.spec, spec);
    }
    builder.kernel_directories(spec);
    let mut wanted: Vec<_> = match spec.root {
        Root::Overlay => Vec::new(),
        Root::Directory(_) | Root::Image(_) => as_wanted(files, tested(files, context, spec)),
        Root::Tmpfs => {
            for path in SYSTEM {
                builder.system_directory(Path::new(path));
            }
            builder.etc_of_host();
            let mut shown = shown(files, context, spec);
            shown.extend(host.unreachable());
            shown
        }
    };
    let has_room = |wanted: &'_ Wanted| {
        spec.root == Root::Tmpfs || files.follow(&wanted.name) && builder.has_room_for(&wanted.name)
    };
    wanted.extend(profiles(files, context));
    wanted.extend(writable(files, context, spec).into_iter().filter(has_room));
    wanted.extend(in_shown.into_iter().map(|layer| {
        let (canonical, name) = (layer.at.clone(), layer.at.clone());
        Wanted { canonical, name, kind: WantedKind::Left(layer) }
    }));
    builder.wanted(wanted);
    Ok(builder.finish(spec, true))
}

impl Builder<'_> {
    /// Lays a layer over one that preparations have left.
    pub(super) fn lay_over_left(&mut self, layer: &LeftLayer) {
        let LeftLayer { at, parts, from } = layer;
        let Some(stage) = self.host.stage else { return };
        let lower: Vec<PathBuf> =
            parts.iter().map(|(number, path)| stage.place_of_left(*number).join(path)).collect_vec();
        let from = from.as_deref().filter(|from| self.host.files.is_directory(from));
        let was_copied = layer.from.is_some();
        let is_empty = was_copied && stage.left().is_empty(layer);
        if is_empty && from.is_none() {
            // What it was a copy of has gone.
            return;
        }
        let stat = self.base.as_ref().and_then(|base| base.stat(at));
        let mode = stat.map_or(0o755, |stat| stat.st_mode & 0o7777);
        let (upper, work) = self.new_layer(at, mode);
        if let Some(stat) = stat {
            self.give_away(InsidePath::new(&upper), (stat.st_uid, stat.st_gid), stat.st_mode);
        }
        let options = overlay_options(lower.iter().map(PathBuf::as_path).chain(from), &upper, &work);
        if at != Path::new("/") {
            self.mount_point(at, true);
        }
        let operation = Operation::Copy {
            lower: HostPath::new(from.unwrap_or(Path::new("/"))),
            to: self.inside(at),
            options,
            or_show: is_empty && from.is_some_and(|from| self.host.is_mount_point(from)) && at != Path::new("/"),
            if_there: (is_empty && at != Path::new("/")).then(|| InsidePath::new(&upper.with_file_name("at"))),
        };
        self.operations.push(operation);
        if !was_copied && at != Path::new("/") {
            self.covered.insert(at.clone());
            self.present.insert(at.clone());
        }
    }
}
