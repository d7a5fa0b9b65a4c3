//! Puts a plan together, operation by operation.

use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use nix::sys::stat::Mode;

use super::base::Base;
use super::basis::Basis;
use super::host::Host;
use super::wanted::{Wanted, WantedKind};
use crate::collect::{CollectVec as _, map_both};
use crate::rootfs::build::{Access, KERNEL_FLAGS, LAYERS, NewRoot, Operation, Plan};
use crate::rootfs::paths::{HostPath, InsidePath, LINKS_MAX, Source, c_string, names_reversed};
use crate::rootfs::stage::Stage;
use crate::sorted::{Map, Set, sort};
use crate::spec::{Bind, Ids, Spec};

/// A plan, and what it holds for.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) basis: Basis,
}

/// Collects operations, and knows what the tree looks like after them.
pub(super) struct Builder<'f> {
    pub(super) host: &'f Host<'f>,
    /// What the paths of the sandbox begin with, in place of `/`: see [`build`](crate::rootfs::build).
    pub(super) prefix: &'static str,
    /// The options of each tmpfs.
    pub(super) tmpfs: CString,
    /// Which users and groups there are inside.
    pub(super) ids: Ids,
    pub(super) operations: Vec<Operation>,
    /// Directories, files and links that are there.
    pub(super) present: Set<PathBuf>,
    /// The links among them, and what they hold.
    pub(super) links: Map<PathBuf, PathBuf>,
    /// Paths of the host that are shown.
    pub(super) shown: Set<PathBuf>,
    /// Private directories in what is shown, or in the tree that is copied.
    pub(super) covered: Set<PathBuf>,
    /// What has been copied.
    pub(super) base: Option<Base>,
    /// Whether tests will start from what is written.
    is_preparation: bool,
    /// How many layers the copy has.
    pub(super) layers: usize,
    /// Directories that root inside is to own in the copy, besides those that it has in every system.
    pub(super) owned: Vec<PathBuf>,
    pub(super) basis: Basis,
}

impl<'f> Builder<'f> {
    pub(super) fn new(host: &'f Host<'f>, spec: &Spec, prefix: &'static str) -> Self {
        let size = spec.tmpfs.map_or(String::new(), |bytes| format!(",size={bytes}"));
        let tmpfs = c_string(format!("mode=755{size}").as_ref());
        let present = Set::from([PathBuf::from("/")]);
        let (links, shown, covered) = (Map::new(), Set::new(), Set::new());
        let (operations, base, layers, owned) = (Vec::new(), None, 0, Vec::new());
        let (ids, basis, is_preparation) = (spec.ids, Basis::default(), spec.is_preparation);
        Self {
            host,
            prefix,
            tmpfs,
            ids,
            operations,
            present,
            links,
            shown,
            covered,
            base,
            is_preparation,
            layers,
            owned,
            basis,
        }
    }

    /// `path` as operations name it, which are about the sandbox.
    pub(super) fn inside(&self, path: &Path) -> InsidePath {
        let relative = path.strip_prefix("/").unwrap_or(path);
        InsidePath::new(&Path::new(self.prefix).join(relative))
    }

    /// Whether `path` lies in a directory of the host that is shown, or is one.
    pub(super) fn is_shown(&self, path: &Path) -> bool {
        let covered_or_shown = |path: &&Path| self.covered.contains(*path) || self.shown.contains(*path);
        path.ancestors().find(covered_or_shown).is_some_and(|path| !self.covered.contains(path))
    }

    /// Where `path` leads in the sandbox, with no links and no `..` left in it. The links of the host that it leads through
    /// are made, so that it is known by the same names.
    ///
    /// Operations need such paths: until the new root is the root, an absolute link leads to the host's tree.
    pub(super) fn physical(&mut self, path: &Path) -> PathBuf {
        let mut physical = PathBuf::from("/");
        let mut rest: Vec<OsString> = names_reversed(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                // By its name it is to be reached through this one.
                self.directory(&physical, 0o755);
                physical.pop();
                continue;
            }
            physical.push(name);
            let known = self.links.get(&physical).cloned();
            let of_tree = || match &self.base {
                _ if self.present.contains(&physical) => None,
                Some(base) if !self.is_shown(&physical) => {
                    if self.is_covered(&physical) {
                        None
                    } else {
                        base.link(&self.host.files, &physical)
                    }
                }
                _ => self.host.files.at(&physical).then(|| fs::read_link(&physical).ok()).flatten(),
            };
            let Some(target) = known.or_else(of_tree).filter(|_| links < LINKS_MAX) else { continue };
            links += 1;
            self.symlink(&physical, &target);
            physical.pop();
            if target.is_absolute() {
                physical = PathBuf::from("/");
            }
            rest.extend(names_reversed(&target));
        }
        physical
    }

    /// Makes a directory and those above it, unless they are there.
    pub(super) fn directory(&mut self, path: &Path, mode: u32) {
        if self.is_there(path) {
            return;
        }
        if let Some(parent) = path.parent() {
            self.directory(parent, 0o755);
        }
        let mode = Mode::from_bits_truncate(mode);
        self.operations.push(Operation::Directory { path: self.inside(path), mode });
        self.present.insert(path.to_path_buf());
    }

    /// Makes a link, unless it is there.
    pub(super) fn symlink(&mut self, path: &Path, target: &Path) {
        if self.is_there(path) {
            return;
        }
        if let Some(parent) = path.parent() {
            self.directory(parent, 0o755);
        }
        let (link, content) = (self.inside(path), c_string(target));
        self.operations.push(Operation::Symlink { path: link, target: content });
        self.present.insert(path.to_path_buf());
        self.links.insert(path.to_path_buf(), target.to_path_buf());
    }

    pub(super) fn links(&mut self, links: impl IntoIterator<Item = (&'static str, &'static str)>) {
        for (path, target) in links {
            self.symlink(Path::new(path), Path::new(target));
        }
    }

    pub(super) fn file(&mut self, path: &str, content: Vec<u8>) {
        self.file_with(Path::new(path), content, 0o644);
    }

    pub(super) fn file_with(&mut self, path: &Path, content: Vec<u8>, mode: u32) {
        let mode = Mode::from_bits_truncate(mode);
        self.operations.push(Operation::File { path: self.inside(path), content, mode });
        self.present.insert(path.to_path_buf());
    }

    /// The owner of what is copied to `path`, if anything is.
    pub(super) fn owner_in_base(&self, path: &Path) -> Option<u32> {
        let base = self.base.as_ref().filter(|_| !self.is_covered(path))?;
        base.owner(&self.host.files, path)
    }

    fn is_covered(&self, path: &Path) -> bool {
        path.ancestors().any(|path| self.covered.contains(path))
    }

    /// Makes what is wanted, the outermost first: what is shown may lie in what is private, and the other way round.
    pub(super) fn wanted(&mut self, mut wanted: Vec<Wanted>) {
        sort(&mut wanted);
        for Wanted { name, kind, .. } in wanted {
            let path = self.physical(&name);
            match kind {
                WantedKind::Shown => self.show(&path),
                WantedKind::Profiles => self.profiles(&path),
                WantedKind::Left(layer) => self.lay_over_left(&layer),
                WantedKind::Writable(mode) => self.writable(&path, mode),
            }
        }
    }

    /// Shows what the test asks for by name, and goes where it begins.
    pub(super) fn finish(mut self, spec: &Spec, is_copy: bool) -> Planned {
        self.binds(spec);
        let of_image = spec.working_directory.map(|path| self.physical(Path::new(path)));
        let of_host = || self.host.context.cwd.clone().unwrap_or_else(|| PathBuf::from("/"));
        let working_directory = of_image.unwrap_or_else(of_host);
        self.directory(&working_directory, 0o755);
        let working_directory = Some(c_string(&working_directory));
        let has_directory = spec.is_preparation && self.host.stage.is_some_and(Stage::has_root);
        let root = Some(if has_directory { NewRoot::Directory } else { NewRoot::Tmpfs(self.tmpfs) });
        let plan = Plan { root, is_copy, operations: self.operations, working_directory };
        Planned { plan, basis: self.basis }
    }

    /// Mounts a file system of the kernel's: no devices, no programs.
    pub(super) fn mount(&mut self, kind: &'static CStr, path: &Path) {
        self.mount_keeping(kind, path, None);
    }

    /// Mounts a file system of the kernel's, and puts back what is mounted at `kept`, which lies below it.
    pub(super) fn mount_keeping(&mut self, kind: &'static CStr, path: &Path, kept: Option<&Path>) {
        let kept = kept.map(|path| self.inside(path));
        let path = self.inside(path);
        self.operations.push(Operation::Mount { kind, path, flags: KERNEL_FLAGS, options: None, kept });
    }

    /// Shows what the sandbox has at `from` at `to`, too.
    pub(super) fn bind_inside(&mut self, from: &Path, to: &Path, access: Access) {
        let (from, to) = (Source::Inside(self.inside(from)), self.inside(to));
        self.operations.push(Operation::Bind { from, to, access, if_there: false });
    }

    pub(super) fn move_to(&mut self, from: &Path, to: &Path) {
        let [from, to] = map_both([from, to], |path| self.inside(path));
        self.operations.push(Operation::Move { from, to });
    }

    /// Shows a directory of the system. Where the host has a link, such as `/bin` to `usr/bin`, so has the sandbox.
    pub(super) fn system_directory(&mut self, path: &Path) {
        match fs::read_link(path) {
            Ok(target) => self.symlink(path, &target),
            Err(_) if self.host.files.is_directory(path) => self.show(path),
            Err(_) => {}
        }
    }

    /// Shows a directory or a file of the host, read-only and at its own path.
    pub(super) fn show(&mut self, path: &Path) {
        if self.is_shown(path) {
            self.shown.insert(path.to_path_buf());
            return;
        }
        if self.present.iter().any(|present| present.starts_with(path)) {
            return;
        }
        self.mount_point(path, self.host.has_directory(path));
        let stage = self.host.stage.filter(|stage| stage.unreachable().contains(&path));
        let from = stage.and_then(|stage| stage.place_of(path));
        self.bind_if_there(from.as_deref().unwrap_or(path), path);
        self.shown.insert(path.to_path_buf());
    }

    /// Shows what is at `from`, on the host or in the stage, at `to`. If it is not to be written to, it is mounted read-only there.
    pub(super) fn bind(&mut self, from: &Path, to: &Path) {
        let (from, to) = (Source::Host(HostPath::new(from)), self.inside(to));
        self.operations.push(Operation::Bind { from, to, access: Access::AsIs, if_there: false });
    }

    /// The same, for what nobody asks for by name: it may have gone when the sandbox is made.
    pub(super) fn bind_if_there(&mut self, from: &Path, to: &Path) {
        let (from, to) = (Source::Host(HostPath::new(from)), self.inside(to));
        self.operations.push(Operation::Bind { from, to, access: Access::AsIs, if_there: true });
    }

    /// Makes a directory of the host's writable, but not the directories in it.
    pub(super) fn profiles(&mut self, path: &Path) {
        self.mount_point(path, true);
        let mut directories: Vec<_> =
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect_vec();
        directories.retain(|path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()));
        sort(&mut directories);
        let Some(place) = self.host.stage.and_then(|stage| stage.place_of(path)) else { return };
        self.bind(&place, path);
        for path in directories {
            self.bind_if_there(&path, &path);
        }
        self.shown.insert(path.to_path_buf());
    }

    /// Covers a directory with a private one, where it would otherwise be the host's.
    pub(super) fn writable(&mut self, path: &Path, mode: u32) {
        if !self.is_shown(path) {
            self.directory(path, mode);
        } else if self.host.files.is_directory(path)
            && !self.shown.contains(path)
            && !self.host.context.tools.iter().any(|tools| tools == path)
        {
            if self.is_preparation {
                let (upper, _) = self.new_layer(path, mode);
                self.bind_inside_tmpfs(&upper, path);
            } else {
                self.mount_tmpfs(path);
            }
            self.covered.insert(path.to_path_buf());
            self.present.insert(path.to_path_buf());
        }
    }

    /// Begins a layer that is to be at the path `at`, and returns its directories `upper` and `work`.
    pub(super) fn new_layer(&mut self, at: &Path, mode: u32) -> (PathBuf, PathBuf) {
        let layer = Path::new(LAYERS).join(self.layers.to_string());
        self.layers += 1;
        let [upper, work] = map_both(["upper", "work"], |name| layer.join(name));
        for (path, mode) in [(&layer, 0o755), (&upper, mode), (&work, 0o700)] {
            let mode = Mode::from_bits_truncate(mode);
            self.operations.push(Operation::Directory { path: InsidePath::new(path), mode });
        }
        let (path, target) = (InsidePath::new(&layer.join("at")), c_string(at));
        self.operations.push(Operation::Symlink { path, target });
        (upper, work)
    }

    /// Shows a directory of the tmpfs that the root lies in.
    fn bind_inside_tmpfs(&mut self, from: &Path, to: &Path) {
        let (from, to) = (Source::Inside(InsidePath::new(from)), self.inside(to));
        self.operations.push(Operation::Bind { from, to, access: Access::AsIs, if_there: false });
    }

    pub(super) fn mount_tmpfs(&mut self, path: &Path) {
        let (path, options) = (self.inside(path), Some(self.tmpfs.clone()));
        self.operations.push(Operation::Mount { kind: c"tmpfs", path, flags: MsFlags::empty(), options, kept: None });
    }

    /// Shows what the test asks for by name, over all else.
    pub(super) fn binds(&mut self, spec: &Spec) {
        for Bind { from, to, writable } in spec.binds {
            let [from, to] = map_both([from, to], |path| self.host.context.absolute(spec, path));
            // The host's tree is as it is.
            let to = if spec.mount { self.physical(&to) } else { to };
            if spec.mount {
                // What is missing is told of later.
                self.mount_point(&to, from.is_dir() || !from.exists());
            }
            let place = self.host.stage.filter(|_| *writable).and_then(|stage| stage.place_of(&from));
            let access = if spec.mount || *writable { Access::AsIs } else { self.read_only(&from, &to) };
            // Where the package lies elsewhere than when it was compiled, `..` may lead to the root. No mount is made there.
            let inside = if to == Path::new("/") { InsidePath::new(Path::new("")) } else { self.inside(&to) };
            let from = Source::Host(HostPath::new(place.as_ref().unwrap_or(&from)));
            self.operations.push(Operation::Bind { from, to: inside, access, if_there: false });
            self.covered.remove(&to);
            self.shown.insert(to);
        }
    }

    /// A read-only view at `to` of what the host has at `from`, in the host's tree.
    pub(super) fn read_only(&self, from: &Path, to: &Path) -> Access {
        let from = self.host.files.canonical(from);
        let inside = |mount: &Path| Some(self.inside(&to.join(mount.strip_prefix(&from).ok()?)));
        Access::ReadOnly { below: self.host.mounts_below(&from).filter_map(inside).collect_vec() }
    }

    /// Makes a directory or an empty file to mount something on, unless it is there. In what is shown, nothing can be made.
    pub(super) fn mount_point(&mut self, path: &Path, is_directory: bool) {
        if is_directory {
            self.directory(path, 0o755);
        } else if let (Some(parent), Some(name), false) = (path.parent(), path.to_str(), self.is_there(path)) {
            self.directory(parent, 0o755);
            self.file(name, Vec::new());
        }
    }

    pub(super) fn is_there(&self, path: &Path) -> bool {
        self.present.contains(path) || self.is_shown(path) || self.owner_in_base(path).is_some()
    }
}

pub(super) fn read_only() -> Access {
    Access::ReadOnly { below: Vec::new() }
}
