//! What preparations have left: the tmpfs of each, in the layout that [`build`](super::build) describes. The test binary looks at them to
//! tell what a test has changed, and the template to plan the root of a test that starts from them.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::build::{COPY, LAYERS};
use super::merged::{DIRECTORY, Merged, READ, names_in, open_beneath};
use crate::collect::CollectVec as _;
use crate::rootfs::paths::c_string;
use crate::sorted::sort_by;
use crate::sys;

/// The tmpfs of a preparation, that of the one which it started from, and so on. If they are for all processes of a run, they are directories of
/// the host.
#[derive(Debug)]
pub(crate) struct Left {
    /// The last comes first.
    roots: Vec<OwnedFd>,
    is_shared: bool,
}

/// A part of a root that preparations have left: the whole, or a directory that is a mount of its own.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeftLayer {
    /// The path that it has inside.
    pub(crate) at: PathBuf,
    /// Where it lies: the number of a preparation, the last being 0, and the path in its tmpfs. The uppermost comes first.
    pub(crate) parts: Vec<(usize, PathBuf)>,
    /// The directory of the host that it is a copy of, if it is one.
    pub(crate) from: Option<PathBuf>,
}

/// Removes `name` in a directory, and if that is a directory itself, all that is in it. It follows no link, whoever changes the tree meanwhile.
/// Directories may be closed to their owner. What this user can't remove stays.
pub(crate) fn remove(parent: &OwnedFd, name: &Path) {
    // The directories that lead to what is removed, each with its name and the names in it that are left. A tree may be too deep for a stack.
    let mut above: Vec<(OwnedFd, PathBuf, Vec<PathBuf>)> = Vec::new();
    let mut next = Some(name.to_path_buf());
    loop {
        let here = above.last().map_or(parent, |(directory, ..)| directory);
        if let Some(name) = next.take() {
            match open_to_remove(here, &name) {
                Some((directory, names)) => above.push((directory, name, names)),
                None => _ = unlinkat(here, &*c_string(&name), UnlinkatFlags::NoRemoveDir),
            }
        }
        next = match above.last_mut() {
            None => return,
            Some((.., names)) => names.pop(),
        };
        if next.is_none() {
            let Some((_, name, _)) = above.pop() else { return };
            let here = above.last().map_or(parent, |(directory, ..)| directory);
            let _ = unlinkat(here, &*c_string(&name), UnlinkatFlags::RemoveDir);
        }
    }
}

/// The directory `name`, which its owner may write to from now on, and the names in it. `None` if it is none.
fn open_to_remove(parent: &OwnedFd, name: &Path) -> Option<(OwnedFd, Vec<PathBuf>)> {
    let directory =
        openat(parent, &*c_string(name), DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    // By its descriptor, which can't be another one by now.
    let own = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let _ = fchmodat(AT_FDCWD, &*c_string(Path::new(&own)), Mode::S_IRWXU, FchmodatFlags::FollowSymlink);
    let names = names_in(open_beneath(&directory, Path::new(""), READ)).unwrap_or_default();
    Some((directory, names))
}

impl Left {
    /// By the tmpfs of each preparation, the last first.
    pub(crate) fn new(preparations: Vec<OwnedFd>) -> Self {
        Self { roots: preparations, is_shared: false }
    }

    /// By the tmpfs of the last preparation, and what had been left when it began.
    pub(crate) fn over(tmpfs: BorrowedFd<'_>, left: Option<&Self>) -> nix::Result<Self> {
        let below = left.into_iter().flat_map(|left| &left.roots).map(OwnedFd::as_fd);
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|error| sys::errno_of(&error));
        [tmpfs].into_iter().chain(below).map(own).try_collect_vec().map(Self::new)
    }

    /// By the directory in which the last preparation has left its root for all processes of a run, and what had been left when it began.
    pub(crate) fn shared(directory: &Path, left: Option<&Self>) -> nix::Result<Self> {
        let root = open(&*c_string(directory), DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { is_shared: true, ..Self::over(root.as_fd(), left)? })
    }

    /// Whether the other processes of the run start from the same.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// All layers, those first that others lie in.
    pub(crate) fn layers(&self) -> nix::Result<Vec<LeftLayer>> {
        let mut layers: Vec<LeftLayer> = Vec::new();
        for (number, tmpfs) in self.roots.iter().enumerate().rev() {
            let mut found = vec![];
            for name in names_in(open_beneath(tmpfs, Path::new(LAYERS), READ))? {
                let layer = Path::new(LAYERS).join(name);
                let link = |name: &str| readlinkat(tmpfs, &*c_string(&layer.join(name))).map(PathBuf::from);
                // What it was a copy of may have gone when the copy was made.
                if let Ok(at) = link("at") {
                    found.push((at, layer.join("upper"), link("from").ok()));
                }
            }
            let root = Path::new("/");
            if !found.iter().any(|(at, ..)| at == root) {
                found.push((root.into(), COPY.into(), None));
            }
            for (at, path, from) in found {
                match layers.iter_mut().find(|layer| layer.at == at) {
                    Some(layer) => layer.parts.insert(0, (number, path)),
                    None => layers.push(LeftLayer { at, parts: vec![(number, path)], from }),
                }
            }
        }
        sort_by(&mut layers, |a, b| a.at.cmp(&b.at));
        Ok(layers)
    }

    /// What `layer` shows, together with the host's directory that it is a copy of, as far as that is there.
    pub(super) fn merged(&self, layer: &LeftLayer) -> nix::Result<Merged> {
        let part = |(number, path): &(usize, PathBuf)| {
            open_beneath(self.roots.get(*number).ok_or(Errno::ENOENT)?, path, DIRECTORY)
        };
        let mut directories = layer.parts.iter().map(part).try_collect_vec()?;
        match layer.from.as_ref().map(|from| open(&*c_string(from), DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())) {
            Some(Err(Errno::ENOENT | Errno::ENOTDIR)) | None => {}
            Some(from) => directories.push(from?),
        }
        Ok(Merged::new(directories))
    }

    /// Whether preparations have written nothing to `layer`.
    pub(super) fn is_empty(&self, layer: &LeftLayer) -> bool {
        layer.parts.iter().all(|(number, path)| {
            let tmpfs = self.roots.get(*number);
            tmpfs.is_some_and(|tmpfs| names_in(open_beneath(tmpfs, path, READ)).is_ok_and(|names| names.is_empty()))
        })
    }
}
