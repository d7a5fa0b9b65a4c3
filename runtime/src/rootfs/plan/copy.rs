//! Plans a root that is a copy of a tree of the host: overlays, whose changes go to a tmpfs.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::base::Base;
use super::builder::{Builder, Planned};
use super::host::Host;
use super::host_files::{HostFiles, may_wait};
use super::system::LINKS;
use super::wanted::{Wanted, as_wanted, profiles, tested, writable};
use crate::collect::{CollectVec as _, map_both};
use crate::frame::{Refusal, Step};
use crate::proc::{Mount, text_of};
use crate::rootfs::build::{COPY, Operation};
use crate::rootfs::context::RunContext;
use crate::rootfs::paths::{HostPath, InsidePath, c_string};
use crate::rootfs::unpacked::Unpacked;
use crate::sorted::{Set, sort};
use crate::spec::{Ids, Spec};

/// Directories that belong to root in every system. In a copy of a tree whose root is somebody else, root owns them, and may
/// make, replace and remove what is in them.
const OWNED: [&str; 18] = [
    "/etc",
    "/home",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/spool",
    "/var/tmp",
];

/// Files that root edits in place. In such a copy, root has copies of them.
const OWNED_FILES: [&str; 16] = [
    "/etc/.pwd.lock",
    "/etc/group",
    "/etc/group-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/passwd",
    "/etc/passwd-",
    "/etc/resolv.conf",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/subgid",
    "/etc/subgid-",
    "/etc/subuid",
    "/etc/subuid-",
];

/// What a copy has of its own in place of the tree's.
const KERNEL_DIRECTORIES: [&str; 3] = ["/dev", "/proc", "/sys"];

/// The largest file that is copied while a sandbox is planned, in bytes.
const COPIED_MAX: u64 = 1 << 20;

/// A copy of the tree below `base`, in which what is written goes to a tmpfs.
pub(super) fn copied_root(host: &Host<'_>, spec: &Spec, base: &Path) -> Result<Planned, Refusal> {
    let (context, files) = (host.context, &host.files);
    if !files.follow(base) {
        return Err(Refusal::new(Step::Copy, base, Errno::ETIMEDOUT));
    }
    let mut builder = Builder::new(host, spec, COPY);
    if base == Path::new("/") {
        builder.owned = above_what_is_used(files, context, spec);
    }
    builder.copy(base, Path::new("/"));
    builder.base = Some(Base::Host(base.to_path_buf()));
    if let Some(image) = host.image.filter(|_| spec.ids != Ids::One) {
        builder.give_back(image);
    }
    builder.kernel_directories(spec);
    // Another tree lacks what is tested. The host's has all.
    let tested = if base == Path::new("/") { Vec::new() } else { tested(files, context, spec) };
    let has_room = |wanted: &'_ Wanted| files.follow(&wanted.name) && builder.has_room_for(&wanted.name);
    let writable = writable(files, context, spec).into_iter().filter(has_room).collect_vec();
    builder.wanted(as_wanted(files, tested).into_iter().chain(profiles(files, context)).chain(writable).collect_vec());
    Ok(builder.finish(spec, true))
}

impl Builder<'_> {
    /// Gives a copy what is the sandbox's own in any case.
    pub(super) fn kernel_directories(&mut self, spec: &Spec) {
        for path in KERNEL_DIRECTORIES.into_iter().map(Path::new) {
            let is_laid_over = !self.present.contains(path);
            self.directory(path, 0o755);
            // Device nodes that lie on a disk can't be used in a user namespace. In `/sys`, which may be somebody else's, a whole proc is made.
            if is_laid_over && path != Path::new("/proc") {
                self.mount_tmpfs(path);
            }
            self.covered.insert(path.to_path_buf());
            self.present.insert(path.to_path_buf());
        }
        self.directory(Path::new("/dev/shm"), 0o1777);
        self.links(LINKS.into_iter().filter(|(path, _)| path.starts_with("/dev/")));
        self.devices(spec);
        self.kernel_file_systems(spec.net);
    }

    /// Whether a directory that the copy lacks can be made there: in one of root's.
    pub(super) fn has_room_for(&self, path: &Path) -> bool {
        let lowest = path.ancestors().find_map(|path| Some((path, self.owner_in_base(path)?)));
        lowest.is_some_and(|(path, owner)| {
            owner == 0 || path == Path::new("/") || OWNED.iter().any(|owned| path == Path::new(owned))
        })
    }

    /// Gives the sandbox a copy of `from`, a directory of the host, at `to`.
    ///
    /// The kernel lays a copy over a tree only if nothing is mounted in it: mounts that came from the host can't be looked
    /// under. So a directory with mounts below it becomes one of the tmpfs, and its entries are copied one by one.
    ///
    /// What is mounted is not looked at before its type is known.
    fn copy(&mut self, from: &Path, to: &Path) {
        let mounted = self.host.mounted_at(from).filter(|_| to != Path::new("/"));
        if let Some(mounted) = mounted.filter(|mounted| self.is_avoided(mounted)) {
            if mounted.kind != "autofs" {
                self.mount_point(to, !is_file(from));
                self.bind_if_there(from, to);
                return;
            }
            self.directory(to, 0o755);
            // What is mounted below is known without asking for more.
            self.covered.insert(to.to_path_buf());
            let is_below = |path: &&Path| path.parent() == Some(from);
            let below: Set<PathBuf> = self.host.mounts_below(from).filter(is_below).map(Path::to_path_buf).collect();
            for from in below {
                let to = to.join(from.file_name().unwrap_or_default());
                self.copy(&from, &to);
                self.covered.remove(&to);
                self.shown.insert(to);
            }
            return;
        }
        if self.host.mounts_below(from).next().is_none() {
            self.layer(from, to);
            return;
        }
        self.basis.add(from.to_path_buf());
        self.directory(to, mode_of(from));
        self.chown_like(from, self.inside(to));
        // What this user can't list, it could not see outside either.
        let mut entries: Vec<_> =
            fs::read_dir(from).into_iter().flatten().flatten().map(|entry| entry.path()).collect_vec();
        sort(&mut entries);
        for from in entries {
            let to = to.join(from.file_name().unwrap_or_default());
            if KERNEL_DIRECTORIES.iter().any(|path| to == Path::new(path)) {
                self.directory(&to, 0o755);
                continue;
            }
            if self.host.mounted_at(&from).is_some_and(|mounted| self.is_avoided(mounted)) {
                self.copy(&from, &to);
                continue;
            }
            let Ok(metadata) = fs::symlink_metadata(&from) else { continue };
            if metadata.is_dir() {
                self.copy(&from, &to);
            } else if let Ok(target) = fs::read_link(&from) {
                self.symlink(&to, &target);
            } else if metadata.is_file() {
                self.copy_file(&from, &to);
            }
            // Whoever listens on a socket, or reads a pipe, does so on the host.
        }
    }

    /// Whether nobody is to look into what is mounted there. What the tests lie in, or begin in, is looked into if it responds.
    fn is_avoided(&self, mounted: &Mount) -> bool {
        may_wait(&mounted.kind) && !(self.owned.contains(&mounted.point) && self.host.files.at(&mounted.point))
    }

    /// Gives the sandbox a copy of `from`, a file of the host, at `to`; if it is large, or this user may not read it, the host's file
    /// itself, read-only.
    fn copy_file(&mut self, from: &Path, to: &Path) {
        self.basis.add(from.to_path_buf());
        if let Some(content) = content_of(from, to) {
            self.file_with(to, content, mode_of(from));
            self.chown_like(from, self.inside(to));
            return;
        }
        self.file_with(to, Vec::new(), 0o644);
        self.bind_if_there(from, to);
    }

    /// Gives a copy of `from` to the owner of `from`, if that id exists inside. It also restores the bits of the mode that writing has cleared.
    fn chown_like(&mut self, from: &Path, path: InsidePath) {
        let Ok(metadata) = fs::symlink_metadata(from) else { return };
        self.give_away(path, (metadata.uid(), metadata.gid()), metadata.mode());
    }

    /// Gives `path` to this owner, if that id exists inside, and has it get its mode anew, which is all of `st_mode`.
    pub(super) fn give_away(&mut self, path: InsidePath, (uid, gid): (u32, u32), mode: u32) {
        // The template has the same ids. One that it lacks shows as nobody's.
        let owner = if self.ids.has((uid, gid)) { (uid, gid) } else { (0, 0) };
        let is_file = mode & libc::S_IFMT == libc::S_IFREG;
        if owner != (0, 0) || is_file && mode & 0o7000 != 0 {
            let (owner, mode) = ((owner.0.into(), owner.1.into()), Mode::from_bits_truncate(mode & 0o7777));
            self.operations.push(Operation::Chown { path, owner, mode });
        }
    }

    /// Gives the files of the image to their owners that are root's in its tree.
    fn give_back(&mut self, image: &Unpacked) {
        for (path, owner, mode) in image.owners() {
            self.give_away(self.inside(path), owner, mode);
        }
    }

    /// Lays a layer over `from`, a directory of the host, at `to`.
    fn layer(&mut self, from: &Path, to: &Path) {
        let (upper, work) = self.new_layer(to, mode_of(from));
        let link = |name| InsidePath::new(&upper.with_file_name(name));
        self.operations.push(Operation::Symlink { path: link("from"), target: c_string(from) });
        let at = link("at");
        self.chown_like(from, InsidePath::new(&upper));
        // In an image, root owns what it is to own.
        if self.host.image.is_none() {
            self.own(from, to, &upper);
        }
        if to != Path::new("/") {
            self.directory(to, 0o755);
        }
        let operation = Operation::Copy {
            lower: HostPath::new(from),
            to: self.inside(to),
            options: overlay_options([from], &upper, &work),
            // Some file systems can't lie below, and they are mounted somewhere in the tree.
            or_show: self.host.is_mount_point(from) && to != Path::new("/"),
            if_there: (to != Path::new("/")).then_some(at),
        };
        self.operations.push(operation);
    }

    /// Makes root inside the owner of what root owns in every system, where owner and group on the host are others.
    fn own(&mut self, from: &Path, to: &Path, upper: &Path) {
        let own = (0, 0);
        let place = |path: &Path| {
            let below = path.strip_prefix(to).ok().filter(|below| !below.as_os_str().is_empty())?;
            let original = from.join(below);
            let metadata =
                fs::symlink_metadata(&original).ok().filter(|metadata| (metadata.uid(), metadata.gid()) != own)?;
            Some((original, upper.join(below), metadata))
        };
        let mut made = Set::new();
        made.insert(upper.to_path_buf());
        let mut owned: Set<&Path> = Set::new();
        for path in OWNED {
            owned.insert(Path::new(path));
        }
        for path in &self.owned {
            owned.insert(path);
        }
        for (_, path, metadata) in owned.iter().filter_map(|path| place(path)) {
            if metadata.is_dir() && path.parent().is_some_and(|parent| made.contains(parent)) {
                let mode = Mode::from_bits_truncate(metadata.mode() & 0o7777);
                self.operations.push(Operation::Directory { path: InsidePath::new(&path), mode });
                made.insert(path);
            }
        }
        for (original, path, metadata) in OWNED_FILES.iter().filter_map(|path| place(Path::new(path))) {
            self.basis.add(original.clone());
            let content = if metadata.is_file() { content_of(&original, &original) } else { None };
            let (Some(content), Some(directory), Some(parent)) = (content, original.parent(), path.parent()) else {
                continue;
            };
            if !made.contains(parent) && fs::symlink_metadata(directory).is_ok_and(|metadata| metadata.is_dir()) {
                // Root's already.
                let mode = Mode::from_bits_truncate(mode_of(directory));
                self.operations.push(Operation::Directory { path: InsidePath::new(parent), mode });
                made.insert(parent.to_path_buf());
            }
            if made.contains(parent) {
                let (path, mode) = (InsidePath::new(&path), Mode::from_bits_truncate(metadata.mode() & 0o7777));
                self.operations.push(Operation::File { path, content, mode });
            }
        }
    }
}

/// All directories on the way to those that tests write to. A file can be written in a copy only if all that it lies in belong to
/// somebody who has a number inside, up to the first that root inside owns.
fn above_what_is_used(files: &HostFiles<'_>, context: &RunContext, spec: &Spec) -> Vec<PathBuf> {
    let mut used = tested(files, context, spec);
    used.extend(context.cwd.clone());
    let mut used = used.iter().map(|path| files.canonical(path)).collect_vec();
    used.extend(writable(files, context, spec).into_iter().map(|wanted| wanted.canonical));
    used.iter().flat_map(|path| path.ancestors().map(Path::to_path_buf)).collect_vec()
}

/// The names in `/etc/passwd` or `/etc/group` with passwords that nobody has, as /etc/shadow (8 fields behind the name) or
/// /etc/gshadow (3) write them: an ordinary user may not read those.
fn locked(names: &str, fields: usize) -> Option<Vec<u8>> {
    let text = text_of(names).ok()?;
    let line = |line: &str| Some(format!("{}:*{}\n", line.split_once(':')?.0, ":".repeat(fields - 1)));
    Some(text.lines().filter_map(line).collect_vec().concat().into_bytes())
}

/// Whether something other than a directory is mounted at `path`. No server is asked for that.
fn is_file(path: &Path) -> bool {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    matches!(open(&*c_string(path), flags, Mode::empty()), Err(Errno::ENOTDIR))
}

/// The mode of a file or directory of the host.
fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).map_or(0o755, |metadata| metadata.mode() & 0o7777)
}

/// What a copy of `file` is to hold, which has the name `name` in its system.
fn content_of(file: &Path, name: &Path) -> Option<Vec<u8>> {
    let is_small = fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= COPIED_MAX);
    let content = if is_small { fs::read(file).ok() } else { None };
    let beside = |name: &str| file.with_file_name(name).to_string_lossy().into_owned();
    content.or_else(|| match name.file_name()?.to_str()? {
        "shadow" | "shadow-" => locked(&beside("passwd"), 8),
        "gshadow" | "gshadow-" => locked(&beside("group"), 3),
        // It is always empty, see lckpwdf(3).
        ".pwd.lock" => Some(Vec::new()),
        _ => None,
    })
}

/// The options of an overlay, whose lower directories these are, the uppermost first.
pub(super) fn overlay_options<'p>(lower: impl IntoIterator<Item = &'p Path>, upper: &Path, work: &Path) -> CString {
    let lower = lower.into_iter().map(escaped).collect_vec();
    let [upper, work] = map_both([upper, work], |path| path.as_os_str().as_bytes());
    // Only with `userxattr` are directories marked in a user namespace that hide what lies below; see the kernel's overlayfs.rst.
    let options =
        [b"lowerdir=", &lower.join(&b':')[..], b",upperdir=", upper, b",workdir=", work, b",userxattr"].concat();
    CString::new(options).unwrap_or_default()
}

/// `path` as an option of overlayfs, where a colon separates, and a comma and a backslash have their meanings too.
fn escaped(path: &Path) -> Vec<u8> {
    let escape = |byte: &u8| if b":,\\".contains(byte) { vec![b'\\', *byte] } else { vec![*byte] };
    path.as_os_str().as_bytes().iter().flat_map(escape).collect_vec()
}
