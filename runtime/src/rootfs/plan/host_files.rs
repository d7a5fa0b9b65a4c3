//! Which file systems answer, of those that may keep whoever looks at them waiting.
//!
//! What another machine or another process serves may never answer again, and then not even SIGKILL may end the wait. So a child looks first.
//! If a file system does not answer in time, belljar leaves it out. A test that names it fails.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use crate::proc::{self, Mount, directory, stat};
use crate::rootfs::paths::{LINKS_MAX, c_string, names_reversed};
use crate::sorted::Map;
use crate::sys;

/// How long a file system may take for its first answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same, where nothing can be done without it.
const LONG_PATIENCE: Duration = Duration::from_secs(5);

/// Which file systems answer, of those that may keep others waiting, by their mount points.
#[derive(Default)]
pub(crate) struct Responding(RefCell<Map<PathBuf, bool>>);

/// The files of the host, looked at only where their file system responds.
pub(crate) struct HostFiles<'t> {
    mounts: &'t [Mount],
    responding: &'t Responding,
    /// Where the test binary lies, which has been read.
    target: Option<&'t Path>,
    /// Whether one of the mounts may keep whoever looks at it waiting.
    some_are_served: bool,
    /// Where paths lead: a plan asks for most of them several times.
    canonical: RefCell<Vec<(PathBuf, PathBuf)>>,
}

impl<'t> HostFiles<'t> {
    /// To be used for one plan: it remembers where paths lead.
    pub(crate) fn new(mounts: &'t [Mount], responding: &'t Responding, target: Option<&'t Path>) -> Self {
        let some_are_served = mounts.iter().any(|mount| is_served(&mount.kind));
        Self { mounts, responding, target, some_are_served, canonical: RefCell::default() }
    }

    /// Whether whoever follows `path` is told where it leads, or that it leads nowhere.
    pub(crate) fn follow(&self, path: &Path) -> bool {
        if !self.some_are_served {
            return true;
        }
        let (mut physical, mut rest, mut links) = (PathBuf::from("/"), names_reversed(path), 0);
        while let Some(name) = rest.pop() {
            if name == ".." {
                physical.pop();
                continue;
            }
            physical.push(name);
            if !self.at(&physical) {
                return false;
            }
            let Some(target) = fs::read_link(&physical).ok().filter(|_| links < LINKS_MAX) else { continue };
            links += 1;
            physical.pop();
            if target.is_absolute() {
                physical = PathBuf::from("/");
            }
            rest.extend(names_reversed(&target));
        }
        true
    }

    /// Whether the file system that has `path` responds. No links may be in that.
    pub(crate) fn at(&self, path: &Path) -> bool {
        if !self.some_are_served {
            return true;
        }
        let Some(mount) = self.mount_of(path).filter(|mount| is_served(&mount.kind)) else { return true };
        if mount.kind == "autofs" {
            return is_passed(mount, path);
        }
        let known = self.responding.0.borrow().get(&mount.point).copied();
        known.unwrap_or_else(|| {
            let is_own = || self.target.and_then(|target| self.mount_of(target)).is_some_and(|own| own.id == mount.id);
            // If no child can be made to look, it is taken to respond.
            let responds =
                mount.point == Path::new("/") || is_own() || ask(&mount.point, path, PATIENCE) != Err(Errno::ETIMEDOUT);
            self.responding.0.borrow_mut().insert(mount.point.clone(), responds);
            responds
        })
    }

    /// What `path` lies on.
    fn mount_of(&self, path: &Path) -> Option<&Mount> {
        let around = self.mounts.iter().filter(|mount| path.starts_with(&mount.point));
        // Of several at one point, the last lies on top.
        around.max_by_key(|mount| mount.point.components().count())
    }

    /// The same as [`Path::canonicalize`], or the path as it stands, if that leads to nothing, or its file system does not respond.
    pub(crate) fn canonical(&self, path: &Path) -> PathBuf {
        // Bytes are compared, which takes less time than to compare names.
        let known = |(known, _): &&(PathBuf, PathBuf)| known.as_os_str() == path.as_os_str();
        if let Some((_, canonical)) = self.canonical.borrow().iter().find(known) {
            return canonical.clone();
        }
        let canonical = self.follow(path).then(|| path.canonicalize().ok()).flatten();
        let canonical = canonical.unwrap_or_else(|| path.to_path_buf());
        self.canonical.borrow_mut().push((path.to_path_buf(), canonical.clone()));
        canonical
    }

    /// Whether a directory is there.
    pub(crate) fn is_directory(&self, path: &Path) -> bool {
        self.follow(path) && path.is_dir()
    }
}

/// Fails with ETIMEDOUT if whoever opens `path` may wait for ever. Something may be mounted for this.
pub(crate) fn check_answer(path: &Path) -> nix::Result<()> {
    let is_asked = proc::mounts().iter().any(|mount| is_served(&mount.kind));
    let look = || {
        ask(path.parent().unwrap_or(path), path, LONG_PATIENCE)?;
        // If it is a link, statfs(2) follows it, as whoever opens it does.
        ask(path, path, LONG_PATIENCE)
    };
    match is_asked.then(look) {
        Some(Err(Errno::ETIMEDOUT)) => Err(Errno::ETIMEDOUT),
        // If no child can be made to look, it is taken to answer.
        _ => Ok(()),
    }
}

/// Has a child look at `path`, which lies on what is mounted at `point`. Fails if that takes too long.
fn ask(point: &Path, path: &Path, patience: Duration) -> nix::Result<()> {
    let (child, pidfd) = sys::look_in_child(&c_string(point), &c_string(path))?;
    let mut deadline = Instant::now() + patience;
    let state = || u32::try_from(child.as_raw()).ok().and_then(|pid| stat(&directory(pid))?.state());
    loop {
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], sys::time_left(Some(deadline))) {
            Err(Errno::EINTR) => {}
            // It waits for nobody but a processor.
            Ok(0) if state() == Some('R') => deadline = Instant::now() + patience,
            Ok(0) => {
                let _ = sys::kill(pidfd.as_fd());
                return Err(Errno::ETIMEDOUT);
            }
            result => return result.and_then(|_| sys::wait_pidfd(pidfd.as_fd())),
        }
    }
}

/// Whether whoever looks at `path`, which lies on this autofs, mounts nothing: at the directory of an indirect map, such as `/home`, whose entries
/// are mounted one by one. See autofs(8).
fn is_passed(mount: &Mount, path: &Path) -> bool {
    path == mount.point && mount.options.as_bytes().split(|byte| *byte == b',').any(|option| option == b"indirect")
}

/// Whether a file system may keep whoever looks at it waiting for another process, another machine or a device that is not there; or is the
/// kernel's own, in which reading can wait too. In a copy, such mounts are the host's, read-only. An automount point is an empty directory.
pub(crate) fn may_wait(kind: &OsStr) -> bool {
    const OF_KERNEL: &[&str] = &[
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "mqueue",
        "proc",
        "pstore",
        "securityfs",
        "sysfs",
        "tracefs",
    ];
    is_served(kind) || OF_KERNEL.iter().any(|known| kind == *known)
}

/// The same, but for the kernel's own. Bytes are compared, which takes less time in debug builds.
fn is_served(kind: &OsStr) -> bool {
    let kind = kind.as_bytes();
    matches!(
        kind,
        b"9p"
            | b"afs"
            | b"autofs"
            | b"ceph"
            | b"cifs"
            | b"fuse"
            | b"fuseblk"
            | b"gfs2"
            | b"lustre"
            | b"nfs"
            | b"nfs4"
            | b"ocfs2"
            | b"smb3"
            | b"vboxsf"
            | b"virtiofs"
    ) || kind.starts_with(b"fuse.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mounts_in;

    #[test]
    fn what_others_serve_is_known() {
        let served = |kind: &str| is_served(OsStr::new(kind));
        assert!(served("nfs4") && served("fuse") && served("fuse.sshfs") && served("9p"));
        assert!(!served("ext4") && !served("fusectl") && !served("nf") && !served("overlay"));
    }

    #[test]
    fn the_directory_of_an_indirect_map_is_passed() {
        let lines = b"30 20 0:30 / /home rw - autofs auto.home rw,fd=5,pgrp=1,timeout=300,indirect,pipe_ino=7\n\
                      31 20 0:31 / /srv rw - autofs auto.srv rw,fd=6,pgrp=1,timeout=300,direct,pipe_ino=8\n";
        let mounts = mounts_in(lines);
        let passed = |number: usize, path: &str| is_passed(&mounts[number], Path::new(path));
        assert!(passed(0, "/home") && !passed(0, "/home/ann") && !passed(1, "/srv"));
    }
}
