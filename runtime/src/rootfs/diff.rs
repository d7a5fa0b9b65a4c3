//! A copy of a tree that a sandbox has for a root: finds out what has changed in it.
//!
//! The test binary has a descriptor for the tmpfs that all changes go to, and looks at that from outside: whatever the test does to
//! its view of the system makes no difference, nor does its end. How the tmpfs is laid out,
//! [`build`](super::build) says.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, readlinkat};
use nix::sys::stat::Mode;

use super::left::Left;
use super::merged::{DIRECTORY, Merged, READ, hides_lower, is_whiteout, names_in, open_beneath};
use crate::collect::CollectVec as _;
use crate::frame::changes::Change;
use crate::rootfs::build::{COPY, LAYERS};
use crate::rootfs::paths::c_string;
use crate::sorted::{Map, sort, sort_by};
use crate::sys;

/// At most so many bytes of paths are looked at, all paths together: many times those of a large source tree. Without a limit, a test with
/// deep directories could cost this process any memory and any time: each path has the names of all directories above it.
const PATHS_MAX: usize = 64 << 20;

/// The copy of a sandbox.
#[derive(Debug)]
pub(crate) struct Tree {
    tmpfs: OwnedFd,
    /// What lies below, if the test has started from what preparations have left.
    left: Option<Arc<Left>>,
    /// What was there before the test began: what the set-up has made.
    before: Map<PathBuf, Entry>,
    /// How many bytes of paths may still be looked at.
    room: Cell<usize>,
}

/// A file, directory or the like, as far as a change would show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    kind: libc::mode_t,
    mode: libc::mode_t,
    owner: (u32, u32),
    /// Inode, and time of status change: each change alters them. `None` for directories: their entries are compared one by one.
    version: Option<(u64, i64, i64)>,
    /// Size, and time of modification: the kernel keeps them when it copies a file. `None` for directories.
    content: Option<(i64, i64, i64)>,
    is_whiteout: bool,
}

impl Entry {
    #[expect(clippy::useless_conversion, reason = "on other targets, times have other types")]
    fn of(stat: &libc::stat64) -> Self {
        let kind = stat.st_mode & libc::S_IFMT;
        let is_directory = kind == libc::S_IFDIR;
        Self {
            kind,
            mode: stat.st_mode & !libc::S_IFMT,
            owner: (stat.st_uid, stat.st_gid),
            version: (!is_directory).then_some((stat.st_ino, stat.st_ctime.into(), stat.st_ctime_nsec.into())),
            content: (!is_directory).then_some((stat.st_size, stat.st_mtime.into(), stat.st_mtime_nsec.into())),
            is_whiteout: is_whiteout(stat),
        }
    }

    fn is_directory(&self) -> bool {
        self.kind == libc::S_IFDIR
    }

    /// Whether the other one may be a copy of this.
    fn is_like(&self, other: &Self) -> bool {
        let seen = |entry: &Self| (entry.kind, entry.mode, entry.owner, entry.content);
        seen(self) == seen(other)
    }
}

impl Tree {
    /// Takes note of what there is in `tmpfs`, whose test has started from what is `left`.
    pub(crate) fn new(tmpfs: OwnedFd, left: Option<Arc<Left>>) -> nix::Result<Self> {
        let mut tree = Self { tmpfs, left, before: Map::new(), room: Cell::new(PATHS_MAX) };
        let mut before = tree.walk(Path::new(COPY))?;
        for layer in tree.layers()? {
            before.extend(tree.walk(&layer.join("upper"))?);
        }
        tree.before = Map::of(before);
        Ok(tree)
    }

    /// The tmpfs itself.
    pub(crate) fn tmpfs(&self) -> BorrowedFd<'_> {
        self.tmpfs.as_fd()
    }

    /// What has changed since, in the order of the paths. What this user may not list is left out: below directories of other
    /// users, that is, and below those that the test has made so.
    pub(crate) fn changes(&self) -> io::Result<Vec<Change>> {
        self.room.set(PATHS_MAX);
        let mut changes = self.changes_of_skeleton()?;
        for layer in self.layers()? {
            match self.layer(&layer) {
                // What it was a copy of has gone meanwhile.
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                layer => changes.extend(layer?.changes()?),
            }
        }
        sort_by(&mut changes, |a, b| a.path().cmp(b.path()));
        Ok(changes)
    }

    /// What has changed in directories that are the tmpfs's own.
    fn changes_of_skeleton(&self) -> io::Result<Vec<Change>> {
        let now = Map::of(self.walk(Path::new(COPY))?);
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
        let gone = self.before.keys().filter(|path| path.starts_with(COPY) && now.get(*path).is_none());
        changes.extend(gone.filter(counts).map(|path| Change::Removed(inside(path))));
        Ok(changes)
    }

    fn layer(&self, layer: &Path) -> nix::Result<Layer<'_>> {
        let link = |name: &str| readlinkat(&self.tmpfs, &*c_string(&layer.join(name))).map(PathBuf::from);
        let at = link("at")?;
        let lower = match &self.left {
            None => Merged::new(vec![open(&*c_string(&link("from")?), DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?]),
            Some(left) => {
                let layers = left.layers()?;
                left.merged(layers.iter().find(|layer| layer.at == at).ok_or(Errno::ENOENT)?)?
            }
        };
        Ok(Layer { tree: self, upper: layer.join("upper"), lower, at, changes: Vec::new() })
    }

    /// The directories of the layers, without those for what had gone when the copy was made.
    fn layers(&self) -> nix::Result<Vec<PathBuf>> {
        let layers = names_in(self.open(Path::new(LAYERS), READ))?.into_iter().map(|name| Path::new(LAYERS).join(name));
        Ok(layers.filter(|layer| readlinkat(&self.tmpfs, &*c_string(&layer.join("at"))).is_ok()).collect_vec())
    }

    /// All that there is at `root`, which is a directory, and below, in no order.
    fn walk(&self, root: &Path) -> nix::Result<Vec<(PathBuf, Entry)>> {
        let mut directories = vec![root.to_path_buf()];
        let mut found = vec![(root.to_path_buf(), Entry::of(&sys::stat(&self.open(root, OFlag::O_PATH)?, c"")?))];
        while let Some(directory) = directories.pop() {
            for (name, entry) in self.entries(&directory)? {
                let path = directory.join(name);
                if entry.is_directory() {
                    directories.push(path.clone());
                }
                found.push((path, entry));
            }
        }
        Ok(found)
    }

    /// What there is in a directory of the tmpfs, in the order of the names. Nothing if this user can't list it, or if it has gone meanwhile.
    fn entries(&self, directory: &Path) -> nix::Result<Vec<(PathBuf, Entry)>> {
        let opened = self.open(directory, READ);
        let mut names = match names_in(opened) {
            Err(Errno::EACCES | Errno::ENOENT | Errno::ENOTDIR) => return Ok(Vec::new()),
            names => names?,
        };
        let paths = names.iter().map(|name| directory.as_os_str().len() + name.as_os_str().len()).sum();
        self.room.set(self.room.get().checked_sub(paths).ok_or(Errno::EOVERFLOW)?);
        let directory = self.open(directory, OFlag::O_PATH)?;
        sort(&mut names);
        let entry = |name: PathBuf| {
            let stat = sys::stat(&directory, &c_string(&name)).ok()?;
            Some((name, Entry::of(&stat)))
        };
        Ok(names.into_iter().filter_map(entry).collect_vec())
    }

    fn open(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        open_beneath(&self.tmpfs, path, flags)
    }
}

/// A layer of a copy.
struct Layer<'t> {
    tree: &'t Tree,
    /// What has been written, in the tmpfs.
    upper: PathBuf,
    /// What is copied: of the host, or of what preparations have left.
    lower: Merged,
    /// The path that both have inside.
    at: PathBuf,
    /// What has been found so far.
    changes: Vec<Change>,
}

impl Layer<'_> {
    fn changes(mut self) -> io::Result<Vec<Change>> {
        let root = Entry::of(&sys::stat(&self.tree.open(&self.upper, OFlag::O_PATH)?, c"")?);
        let was = self.tree.before.get(&self.upper).copied();
        if !root.is_like(&was.map_or_else(|| self.lower.stat(Path::new("")).map(|stat| Entry::of(&stat)), Ok)?) {
            self.changes.push(Change::Changed(self.at.clone()));
        }
        // Directories that are in both trees, and whether what is in the lower one is hidden.
        let mut pairs = vec![(PathBuf::new(), false)];
        while let Some((below, hides)) = pairs.pop() {
            let upper = self.upper.join(&below);
            let hides = hides || hides_lower(&self.tree.tmpfs, &upper);
            let lower = self.lower.directory(&below)?;
            let entries = self.tree.entries(&upper)?;
            for (name, entry) in &entries {
                let path = below.join(name);
                let was = lower.stat(name).ok().map(|stat| Entry::of(&stat));
                let before = self.tree.before.get(&upper.join(name)).copied();
                match was {
                    Some(was) if entry.is_directory() && was.is_directory() => {
                        if !entry.is_like(&before.unwrap_or(was)) {
                            self.changes.push(Change::Changed(self.inside(&path)));
                        }
                        pairs.push((path, hides));
                    }
                    _ if before == Some(*entry) => {}
                    None if entry.is_whiteout => {}
                    None => self.add(&path, entry, Change::Created)?,
                    Some(_) if entry.is_whiteout => self.changes.push(Change::Removed(self.inside(&path))),
                    Some(was) if before.is_none() && self.is_same_file(&path, entry, &was) => {}
                    Some(_) => self.add(&path, entry, Change::Changed)?,
                }
            }
            if hides {
                let hidden = lower.names().unwrap_or_default();
                let hidden =
                    hidden.into_iter().filter(|name| entries.binary_search_by(|(known, _)| known.cmp(name)).is_err());
                let removed = hidden.map(|name| Change::Removed(self.inside(&below.join(name)))).collect_vec();
                self.changes.extend(removed);
            }
        }
        Ok(self.changes)
    }

    /// What is at `path` below the layer's root, by its path inside.
    fn inside(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.at.clone() } else { self.at.join(path) }
    }

    /// Adds an entry, and if it is a directory, all below it, which can only be new.
    fn add(&mut self, path: &Path, entry: &Entry, change: fn(PathBuf) -> Change) -> nix::Result<()> {
        self.changes.push(change(self.inside(path)));
        if entry.is_directory() {
            let root = self.upper.join(path);
            for (found, _) in self.tree.walk(&root)? {
                if found != root {
                    let inside = self.inside(found.strip_prefix(&self.upper).unwrap_or(&found));
                    self.changes.push(Change::Created(inside));
                }
            }
        }
        Ok(())
    }

    /// Whether a file is like the one below it: the kernel has copied it because it was opened for writing, or got another name.
    fn is_same_file(&self, path: &Path, entry: &Entry, was: &Entry) -> bool {
        if !entry.is_like(was) {
            return false;
        }
        let upper = self.upper.join(path);
        match entry.kind {
            libc::S_IFREG => {
                let (ours, theirs) = (self.tree.open(&upper, READ), self.lower.open(path, READ));
                let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return false };
                has_same_content(ours.into(), theirs.into()).unwrap_or(false)
            }
            // A link whose target has the same length, and which has the same time: nobody makes another such by accident.
            _ => true,
        }
    }
}

fn has_same_content(a: File, b: File) -> io::Result<bool> {
    let (mut a, mut b) = (BufReader::new(a), BufReader::new(b));
    loop {
        let (ours, theirs) = (a.fill_buf()?, b.fill_buf()?);
        let length = ours.len().min(theirs.len());
        if length == 0 {
            return Ok(ours.len() == theirs.len());
        }
        if ours[..length] != theirs[..length] {
            return Ok(false);
        }
        a.consume(length);
        b.consume(length);
    }
}
