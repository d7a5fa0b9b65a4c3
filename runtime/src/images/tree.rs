//! The directory that an image is unpacked to. Links in it lead to what is in it, as they do when it is the root: no path of an image names a
//! file outside.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use crate::rootfs::left::remove;
use crate::sys;

/// How many links lead on to a file. It is as in the kernel's own lookup, see path_resolution(7).
const LINKS_MAX: usize = 40;

const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// While a tree is filled, its owner may write to all directories.
const FILLED: Mode = Mode::S_IRWXU;

/// The tree.
pub(super) struct Tree {
    root: OwnedFd,
}

/// A name in a directory of the tree, whether there is something of that name or not.
pub(super) struct Resolved {
    directory: OwnedFd,
    name: OsString,
    /// Its path in the tree, with no links left in it.
    pub(super) path: PathBuf,
}

/// The names in `path`. `.` is left out; an absolute path and `..` are refused.
pub(super) fn names_in(path: &Path) -> io::Result<Vec<&OsStr>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err(io::Error::other("the path is absolute")),
            Component::ParentDir => return Err(io::Error::other("the path has `..` in it")),
        }
    }
    Ok(names)
}

impl Tree {
    pub(super) fn open(directory: &Path) -> nix::Result<Self> {
        Ok(Self { root: open(directory, DIRECTORY, Mode::empty())? })
    }

    fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What `path` leads to, which is relative. Directories on the way that are missing are made if `makes` says so.
    pub(super) fn resolve(&self, path: &Path, makes: bool) -> io::Result<Resolved> {
        let names = names_in(path)?;
        let Some((name, above)) = names.split_last() else {
            let directory = self.root().try_clone_to_owned()?;
            return Ok(Resolved { directory, name: ".".into(), path: PathBuf::new() });
        };
        let mut way = Walk { tree: self, below: Vec::new() };
        way.follow(above.iter().map(OsString::from).collect(), makes)?;
        let path = way.below.iter().map(|(name, _)| name.as_os_str()).chain([*name]).collect();
        Ok(Resolved { directory: way.end()?, name: name.into(), path })
    }

    /// Opens what `path` leads to, for reading. Links lead as they do when this is the root.
    pub(super) fn file(&self, path: &Path) -> nix::Result<File> {
        self.open_in(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map(File::from)
    }

    /// The same with these flags.
    pub(super) fn open_in(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        openat2(&self.root, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve))
    }
}

/// A walk from the root of a tree: the directories that it has led through, with their names.
struct Walk<'t> {
    tree: &'t Tree,
    below: Vec<(OsString, OwnedFd)>,
}

impl Walk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        self.below.last().map_or(self.tree.root(), |(_, directory)| directory.as_fd())
    }

    fn end(mut self) -> io::Result<OwnedFd> {
        match self.below.pop() {
            Some((_, directory)) => Ok(directory),
            None => self.tree.root().try_clone_to_owned(),
        }
    }

    /// Goes on by these names. An absolute link leads on from the root of the tree. No link may lead out by `..`.
    fn follow(&mut self, mut names: VecDeque<OsString>, makes: bool) -> io::Result<()> {
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if name == ".." {
                self.below.pop().ok_or_else(|| io::Error::other("a link on the way leads out of the image"))?;
                continue;
            }
            let mut opened = openat(self.here(), &*name, DIRECTORY, Mode::empty());
            if makes && opened.as_ref().is_err_and(|errno| *errno == Errno::ENOENT) {
                mkdirat(self.here(), &*name, FILLED)?;
                let mode = Mode::from_bits_truncate(0o755);
                fchmodat(self.here(), &*name, mode, FchmodatFlags::FollowSymlink)?;
                opened = openat(self.here(), &*name, DIRECTORY, Mode::empty());
            }
            match opened {
                Ok(directory) => self.below.push((name, directory)),
                // Either means: a link, or no directory.
                Err(Errno::ELOOP | Errno::ENOTDIR) => {
                    let target = match readlinkat(self.here(), &*name) {
                        Err(Errno::EINVAL) => return Err(Errno::ENOTDIR.into()),
                        target => PathBuf::from(target?),
                    };
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::ELOOP.into());
                    }
                    for component in target.components().rev() {
                        match component {
                            Component::RootDir | Component::Prefix(_) => self.below.clear(),
                            Component::CurDir => {}
                            Component::ParentDir => names.push_front("..".into()),
                            Component::Normal(name) => names.push_front(name.into()),
                        }
                    }
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

impl Resolved {
    pub(super) fn is_root(&self) -> bool {
        self.path.as_os_str().is_empty()
    }

    fn at(&self) -> (&OwnedFd, &OsStr) {
        (&self.directory, &self.name)
    }

    /// What is there. `None` if nothing is.
    pub(super) fn stat(&self) -> nix::Result<Option<libc::stat64>> {
        let name = CString::new(self.name.as_bytes()).map_err(|_| Errno::EINVAL)?;
        match sys::stat(&self.directory, &name) {
            Err(Errno::ENOENT) => Ok(None),
            stat => stat.map(Some),
        }
    }

    pub(super) fn is_directory(&self) -> nix::Result<bool> {
        Ok(self.stat()?.is_some_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR))
    }

    /// Removes what is there, with all that is in it.
    pub(super) fn clear(&self) -> nix::Result<()> {
        let (directory, name) = self.at();
        match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR | Errno::EPERM) => {
                remove(directory, Path::new(name));
                if self.stat()?.is_some() { Err(Errno::ENOTEMPTY) } else { Ok(()) }
            }
            removed => removed,
        }
    }

    pub(super) fn make_directory(&self) -> nix::Result<()> {
        let (directory, name) = self.at();
        mkdirat(directory, name, FILLED)
    }

    pub(super) fn make_file(&self) -> nix::Result<File> {
        let (directory, name) = self.at();
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
    }

    pub(super) fn make_link(&self, target: &Path) -> nix::Result<()> {
        let (directory, name) = self.at();
        symlinkat(target, directory, name)
    }

    pub(super) fn make_fifo(&self) -> nix::Result<()> {
        let (directory, name) = self.at();
        mknodat(directory, name, SFlag::S_IFIFO, Mode::S_IRUSR | Mode::S_IWUSR, 0)
    }

    /// Gives the file at `other` this name too.
    pub(super) fn make_hard_link(&self, other: &Self) -> nix::Result<()> {
        let (directory, name) = self.at();
        linkat(&other.directory, &*other.name, directory, name, AtFlags::empty())
    }

    pub(super) fn set_owner(&self, (uid, gid): (u32, u32)) -> nix::Result<()> {
        let (directory, name) = self.at();
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fchownat(directory, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Sets the mode of what is here, which must not be a link.
    pub(super) fn set_mode(&self, mode: u32) -> nix::Result<()> {
        let (directory, name) = self.at();
        fchmodat(directory, name, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink)
    }

    /// When it was changed, in seconds since 1970.
    pub(super) fn set_time(&self, modified: i64) -> nix::Result<()> {
        let (directory, name) = self.at();
        let time = TimeSpec::new(modified as _, 0);
        utimensat(directory, name, &time, &time, UtimensatFlags::NoFollowSymlink)
    }

    pub(super) fn open_directory(&self) -> nix::Result<File> {
        let (directory, name) = self.at();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(directory, name, flags, Mode::empty()).map(File::from)
    }

    /// The names in this directory.
    pub(super) fn names(&self) -> nix::Result<Vec<OsString>> {
        let mut names = Vec::new();
        sys::entries(&self.open_directory()?.into(), |name| {
            names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
            Ok(())
        })?;
        Ok(names)
    }
}
