//! A copy of a tree that a sandbox has for a root: finds out what has changed in it.
//!
//! The test binary has a descriptor for the tmpfs that all changes go to, and looks at that from outside: whatever the test does to
//! its view of the system makes no difference, nor does its end. How the tmpfs is laid out,
//! [`rootfs`](crate::sandbox::rootfs) says.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{FileStat, fstat, fstatat};

use crate::changes::Change;
use crate::sandbox::rootfs::{COPY, LAYERS};
use crate::sys;

/// The copy of a sandbox.
#[derive(Debug)]
pub(crate) struct Tree {
    tmpfs: OwnedFd,
    /// What was there before the test began: what the set-up has made.
    before: BTreeMap<PathBuf, Entry>,
}

/// A file, directory or the like, as far as a change would show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    kind: libc::mode_t,
    mode: libc::mode_t,
    owner: (u32, u32),
    /// What identifies the content; nothing for directories, whose entries stand for themselves.
    content: Option<(libc::ino_t, i64, i64)>,
    is_whiteout: bool,
}

impl Entry {
    fn of(stat: &FileStat) -> Self {
        let kind = stat.st_mode & libc::S_IFMT;
        Self {
            kind,
            mode: stat.st_mode & !libc::S_IFMT,
            owner: (stat.st_uid, stat.st_gid),
            content: (kind != libc::S_IFDIR).then_some((stat.st_ino, stat.st_ctime, stat.st_ctime_nsec)),
            is_whiteout: kind == libc::S_IFCHR && stat.st_rdev == 0,
        }
    }

    fn is_directory(&self) -> bool {
        self.kind == libc::S_IFDIR
    }
}

impl Tree {
    /// Takes note of what there is in `tmpfs`.
    pub(crate) fn new(tmpfs: OwnedFd) -> nix::Result<Self> {
        let mut tree = Self { tmpfs, before: BTreeMap::new() };
        tree.before = tree.walk(Path::new(COPY))?;
        for layer in tree.layers()? {
            tree.before.extend(tree.walk(&layer.join("upper"))?);
        }
        Ok(tree)
    }

    /// What has changed since, in the order of the paths. What this user may not list is left out: below directories of other
    /// users, that is.
    pub(crate) fn changes(&self) -> io::Result<Vec<Change>> {
        let mut changes = self.changes_of_skeleton()?;
        for layer in self.layers()? {
            changes.extend(self.changes_of_layer(&layer)?);
        }
        changes.sort_by(|a, b| a.path().cmp(b.path()));
        Ok(changes)
    }

    /// What has changed in directories that are the tmpfs's own.
    fn changes_of_skeleton(&self) -> io::Result<Vec<Change>> {
        let now = self.walk(Path::new(COPY))?;
        let inside = |path: &Path| Path::new("/").join(path.strip_prefix(COPY).unwrap_or(path));
        // Devices are no part of what was copied.
        let counts = |path: &&PathBuf| !path.starts_with(Path::new(COPY).join("dev"));
        let mut changes = Vec::new();
        for (path, entry) in now.iter().filter(|(path, _)| counts(path)) {
            match self.before.get(path) {
                None => changes.push(Change::Created(inside(path))),
                Some(before) if before != entry => changes.push(Change::Changed(inside(path))),
                Some(_) => {}
            }
        }
        let gone = self.before.keys().filter(|path| path.starts_with(COPY) && !now.contains_key(*path));
        changes.extend(gone.filter(counts).map(|path| Change::Removed(inside(path))));
        Ok(changes)
    }

    fn changes_of_layer(&self, layer: &Path) -> io::Result<Vec<Change>> {
        let link = |name: &str| readlinkat(&self.tmpfs, &layer.join(name)).map(PathBuf::from);
        let (at, from, upper) = (link("at")?, link("from")?, layer.join("upper"));
        let mut changes = Vec::new();
        for (path, entry) in self.walk(&upper)? {
            let before = self.before.get(&path);
            if before == Some(&entry) {
                continue;
            }
            let below = path.strip_prefix(&upper).unwrap_or(&path);
            let is_root = below.as_os_str().is_empty();
            let (inside, original) =
                if is_root { (at.clone(), from.clone()) } else { (at.join(below), from.join(below)) };
            let lower = fs::symlink_metadata(&original).ok();
            let was_directory = lower.as_ref().is_some_and(fs::Metadata::is_dir);
            match (&lower, before) {
                _ if entry.is_whiteout => changes.extend(lower.map(|_| Change::Removed(inside))),
                (None, None) => changes.push(Change::Created(inside)),
                (Some(lower), before) if entry.is_directory() && was_directory => {
                    let unchanged = match before {
                        Some(before) => (before.mode, before.owner),
                        None => (lower.mode() & !libc::S_IFMT, (lower.uid(), lower.gid())),
                    };
                    if unchanged != (entry.mode, entry.owner) {
                        changes.push(Change::Changed(inside.clone()));
                    }
                    changes.extend(
                        self.hidden(&path, &original)?.into_iter().map(|name| Change::Removed(inside.join(name))),
                    );
                }
                _ => changes.push(Change::Changed(inside)),
            }
        }
        Ok(changes)
    }

    /// The entries of `original` that a directory in its place does not show: it was removed, and made again.
    fn hidden(&self, directory: &Path, original: &Path) -> io::Result<Vec<PathBuf>> {
        match self.open(directory) {
            Ok(directory) if sys::hides_lower(directory.as_fd()) => {}
            _ => return Ok(Vec::new()),
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(original).into_iter().flatten().flatten() {
            let name = PathBuf::from(entry.file_name());
            if fstatat(&self.tmpfs, &directory.join(&name), AtFlags::AT_SYMLINK_NOFOLLOW) == Err(Errno::ENOENT) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The directories of the layers.
    fn layers(&self) -> nix::Result<Vec<PathBuf>> {
        let layers = self.names_in(Path::new(LAYERS))?;
        Ok(layers.into_iter().map(|name| Path::new(LAYERS).join(name)).collect())
    }

    /// All that there is at `root` and below.
    fn walk(&self, root: &Path) -> nix::Result<BTreeMap<PathBuf, Entry>> {
        let mut found = BTreeMap::new();
        let mut directories = vec![root.to_path_buf()];
        found.insert(root.to_path_buf(), Entry::of(&fstat(self.open(root)?)?));
        while let Some(directory) = directories.pop() {
            // What can't be listed is somebody else's, or lies too deep for a path.
            for name in self.names_in(&directory).unwrap_or_default() {
                let path = directory.join(name);
                let Ok(stat) = fstatat(&self.tmpfs, &path, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
                let entry = Entry::of(&stat);
                if entry.is_directory() {
                    directories.push(path.clone());
                }
                found.insert(path, entry);
            }
        }
        Ok(found)
    }

    fn names_in(&self, directory: &Path) -> nix::Result<Vec<PathBuf>> {
        let mut directory = Dir::from_fd(self.open(directory)?)?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(PathBuf::from(OsStr::from_bytes(name)));
            }
        }
        Ok(names)
    }

    /// Opens a directory. A test that puts a link in its place leads nobody elsewhere.
    fn open(&self, directory: &Path) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let within = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        openat2(&self.tmpfs, directory, OpenHow::new().flags(flags).resolve(within))
    }
}
