//! Directories that lie one over another, looked at as overlayfs shows them: see the kernel's overlayfs.rst. All goes by descriptors, so
//! that it makes no difference where they are mounted. No link in them leads anybody elsewhere.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};

use crate::collect::CollectVec as _;
use crate::rootfs::paths::c_string;
use crate::sorted::Set;
use crate::sys;

/// To read a file, and to wait for nobody: a test may put a pipe in its place.
pub(super) const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_LARGEFILE);

pub(super) const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);

/// One directory, or several of which each lies over the next.
#[derive(Debug)]
pub(super) struct Merged(Vec<OwnedFd>);

impl Merged {
    /// The uppermost directory comes first.
    pub(super) fn new(layers: Vec<OwnedFd>) -> Self {
        Self(layers)
    }

    /// What is at `path`, a link itself if it is one; for an empty path, this directory.
    pub(super) fn stat(&self, path: &Path) -> nix::Result<libc::stat64> {
        let (layer, path) = self.find(path)?;
        sys::stat(&layer, &c_string(&path))
    }

    pub(super) fn open(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let (layer, path) = self.find(path)?;
        open_beneath(&layer, &path, flags)
    }

    /// What the link at `path` holds.
    pub(super) fn link(&self, path: &Path) -> nix::Result<PathBuf> {
        let (layer, path) = self.find(path)?;
        readlinkat(&layer, &*c_string(&path)).map(PathBuf::from)
    }

    /// The directory at `path`.
    pub(super) fn directory(&self, path: &Path) -> nix::Result<Self> {
        // Of one alone, nothing is hidden.
        if let [layer] = &self.0[..] {
            return Ok(Self(vec![open_beneath(layer, path, DIRECTORY)?]));
        }
        let mut layers = self.0.iter().map(clone).try_collect_vec()?;
        for name in path {
            let mut below = Vec::new();
            for layer in &layers {
                match sys::stat(layer, &c_string(Path::new(name))) {
                    Err(Errno::ENOENT) => continue,
                    Err(errno) => return Err(errno),
                    Ok(stat) if stat.st_mode & libc::S_IFMT != libc::S_IFDIR => break,
                    Ok(_) => below.push(open_beneath(layer, Path::new(name), DIRECTORY)?),
                }
                if hides_lower(layer, Path::new(name)) {
                    break;
                }
            }
            if below.is_empty() {
                return Err(Errno::ENOENT);
            }
            layers = below;
        }
        Ok(Self(layers))
    }

    /// The names in this directory.
    pub(super) fn names(&self) -> nix::Result<Vec<PathBuf>> {
        let mut seen = Set::new();
        let mut shown = Vec::new();
        for layer in &self.0 {
            for name in names_in(open_beneath(layer, Path::new(""), READ))? {
                let is_there = || sys::stat(layer, &c_string(&name)).is_ok_and(|stat| !is_whiteout(&stat));
                if !seen.contains(&name) && is_there() {
                    shown.push(name.clone());
                }
                seen.insert(name);
            }
        }
        Ok(shown)
    }

    /// The layer that shows what is at `path`, and the path there.
    fn find(&self, path: &Path) -> nix::Result<(OwnedFd, PathBuf)> {
        let name = path.file_name().map(PathBuf::from).unwrap_or_default();
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        let above = above.map(|above| self.directory(above)).transpose()?;
        for layer in &above.as_ref().unwrap_or(self).0 {
            match sys::stat(layer, &c_string(&name)) {
                Err(Errno::ENOENT) => {}
                Ok(stat) if is_whiteout(&stat) => break,
                found => return found.and_then(|_| Ok((clone(layer)?, name))),
            }
        }
        Err(Errno::ENOENT)
    }
}

fn clone(fd: &OwnedFd) -> nix::Result<OwnedFd> {
    fd.try_clone().map_err(|error| sys::errno_of(&error))
}

/// Whether this stands for something that was removed: the device 0/0.
pub(super) fn is_whiteout(stat: &libc::stat64) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == 0
}

/// Whether a directory does not show what is in those below it: that was removed, and this one made in its place.
pub(super) fn hides_lower(root: &OwnedFd, directory: &Path) -> bool {
    open_beneath(root, directory, READ).is_ok_and(|directory| sys::hides_lower(directory.as_fd()))
}

/// The names in a directory.
pub(super) fn names_in(directory: nix::Result<OwnedFd>) -> nix::Result<Vec<PathBuf>> {
    let mut directory = Dir::from_fd(directory?)?;
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

/// How many names of a path are followed at once: one has up to 255 bytes, and a path that the kernel takes up to 4095.
const NAMES_AT_ONCE: usize = 15;

/// Opens what lies below a directory, however deep; for an empty path, that itself. A test that puts a link in the place of a
/// directory leads nobody elsewhere.
pub(super) fn open_beneath(root: &OwnedFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let open = |directory: &OwnedFd, path: &Path, flags: OFlag| {
        let within = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        openat2(directory, &*c_string(path), OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(within))
    };
    let names = path.iter().collect_vec();
    if names.is_empty() && flags.contains(OFlag::O_PATH) {
        // To look it up takes the right to search it.
        return clone(root);
    }
    let mut pieces: Vec<PathBuf> = names.chunks(NAMES_AT_ONCE).map(|names| names.iter().collect()).collect_vec();
    let last = pieces.pop().unwrap_or_else(|| PathBuf::from("."));
    let mut above = None;
    for piece in pieces {
        above = Some(open(above.as_ref().unwrap_or(root), &piece, DIRECTORY)?);
    }
    open(above.as_ref().unwrap_or(root), &last, flags)
}
