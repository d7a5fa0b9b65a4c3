//! The mount table that inits begin with. A template makes it once.
//!
//! Its root is the stage, a tmpfs. See [`rootfs`](crate::sandbox::rootfs) for what is in it.
//!
//! 1. The host's mounts become private: what is mounted later, here or there, does not show up on the other side.
//! 2. What tests are given to write is set aside.
//! 3. The host's mounts become read-only, but those of proc and sysfs: the kernel lets nobody mount a new one that may do more than those
//!    that are there.
//! 4. The stage becomes the root, with the host's tree below it.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, mknod};
use nix::unistd::{AccessFlags, access, chdir, chroot, fchdir, mkdir, pivot_root};

use super::template::Failure;
use crate::proc::{MOUNTINFO, Mount, mounts_in};
use crate::report::Step;
use crate::sandbox::rootfs::{GIVEN, HOST, NEW, may_be_unknown, remount_read_only_with};
use crate::sys;

const NONE: Option<&str> = None;

/// The stage of a template.
pub(super) struct Stage {
    root: OwnedFd,
    /// The paths of the host that tests may write to. Each is in [`GIVEN`], by its number.
    given: Vec<PathBuf>,
}

impl Stage {
    /// Makes the stage, and goes there. Paths that can't be given are left out. Returns what the host has mounted, too.
    pub(super) fn enter<'p>(paths: impl Iterator<Item = &'p PathBuf>) -> Result<(Self, Vec<Mount>), Failure> {
        let mounts = keep_host()?;
        let set_aside = |path: &'p PathBuf| Some((path, sys::clone_mounts(&c_string(path)).ok()?));
        let set_aside: Vec<_> = paths.filter_map(set_aside).collect();
        make_read_only(&mounts)?;
        let directory = Mode::from_bits_truncate(0o755);
        let root = || {
            mount(Some("tmpfs"), "/", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
            // At the root, `..` stays where it is, and then follows what is mounted there.
            chdir("/..")?;
            for name in [HOST, GIVEN, NEW] {
                mkdir(name, directory)?;
            }
            open(".", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        };
        let root = root().map_err(|errno| Failure::new(Step::Root, "/", errno))?;
        pivot_root(c".", HOST).map_err(|errno| Failure::new(Step::Pivot, "/", errno))?;
        let mut stage = Self { root, given: Vec::new() };
        for (path, mounts) in set_aside {
            stage.give(path, &mounts).map_err(|errno| Failure::new(Step::Bind, path, errno))?;
        }
        Ok((stage, mounts))
    }

    /// Mounts what is to be given as `path` below [`GIVEN`].
    fn give(&mut self, path: &Path, mounts: &OwnedFd) -> nix::Result<()> {
        let place = given_as(self.given.len());
        if SFlag::from_bits_truncate(fstat(mounts)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
            mkdir(&place, Mode::from_bits_truncate(0o755))?;
        } else {
            mknod(&place, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)?;
        }
        sys::attach_mounts(mounts, &c_string(&place))?;
        self.given.push(path.to_path_buf());
        Ok(())
    }

    /// Where the stage has `path`, if tests may write to it: relative to a new root.
    pub(super) fn given(&self, path: &Path) -> Option<PathBuf> {
        let number = self.given.iter().position(|given| given == path)?;
        Some(Path::new("..").join(given_as(number)))
    }

    /// Runs `plan` with the host's tree as the root directory, so that paths lead where they lead on the host.
    pub(super) fn on_host<T>(&self, plan: impl FnOnce() -> T) -> nix::Result<T> {
        chroot(HOST)?;
        chdir("/")?;
        let planned = plan();
        fchdir(&self.root)?;
        chroot(".")?;
        Ok(planned)
    }
}

/// Where the stage has what it gives by this number.
fn given_as(number: usize) -> PathBuf {
    Path::new(OsStr::from_bytes(GIVEN.to_bytes())).join(number.to_string())
}

/// Makes the mounts of the host private, and returns them.
pub(super) fn keep_host() -> Result<Vec<Mount>, Failure> {
    let table = fs::read(MOUNTINFO).map_err(|error| Failure::new(Step::Zygote, MOUNTINFO, sys::errno_of(&error)))?;
    let private = mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE);
    private.map_err(|errno| Failure::new(Step::Propagation, "/", errno))?;
    Ok(mounts_in(&table))
}

/// Makes all mounts read-only, but those of proc and sysfs.
///
/// A mount is reached by its path alone. One that no path leads to, because another lies over it or a directory above it is closed to
/// this process, is left as it is: it is locked in its place, and no sandbox reaches it either.
fn make_read_only(mounts: &[Mount]) -> Result<(), Failure> {
    let table = Table::new(mounts);
    let mut pending: Vec<&Mount> = table.root.into_iter().collect();
    while let Some(mount) = pending.pop() {
        let is_reached = table.reached_by(&mount.point).is_some_and(|reached| reached.id == mount.id);
        if is_reached && !table.has_kernels(mount) && set_read_only(mount, true)? {
            continue;
        }
        if is_reached && !is_kernels(mount) {
            set_read_only(mount, false)?;
        }
        pending.extend(table.on(mount));
    }
    Ok(())
}

/// Makes a mount read-only, and, if `recursive`, all below it. Returns false if the kernel or a filter knows no way to do it recursively.
fn set_read_only(mount: &Mount, recursive: bool) -> Result<bool, Failure> {
    let path = c_string(&mount.point);
    let set = match sys::set_read_only(&path, recursive) {
        Err(errno) if may_be_unknown(errno) && recursive => return Ok(false),
        Err(errno) if may_be_unknown(errno) => remount_read_only_with(&path, mount.flags),
        result => result,
    };
    match set {
        Ok(()) => Ok(true),
        // This process can't get there, or the place is gone.
        Err(Errno::EACCES | Errno::ENOENT | Errno::ENOTDIR) if access(path.as_c_str(), AccessFlags::F_OK).is_err() => {
            Ok(true)
        }
        Err(errno) => Err(Failure::new(Step::ReadOnly, &mount.point, errno)),
    }
}

/// Whether a mount shows the kernel's own data.
fn is_kernels(mount: &Mount) -> bool {
    mount.kind == "proc" || mount.kind == "sysfs"
}

/// Mounts, by what they are mounted on.
struct Table<'m> {
    root: Option<&'m Mount>,
    on: BTreeMap<u32, Vec<&'m Mount>>,
}

impl<'m> Table<'m> {
    fn new(mounts: &'m [Mount]) -> Self {
        let is_there = |id: u32| mounts.iter().any(|mount| mount.id == id);
        let mut table = Self { root: None, on: BTreeMap::new() };
        for mount in mounts {
            if mount.id != mount.parent && is_there(mount.parent) {
                table.on.entry(mount.parent).or_default().push(mount);
            } else {
                table.root = Some(mount);
            }
        }
        table
    }

    /// What is mounted on `mount`.
    fn on(&self, mount: &Mount) -> &[&'m Mount] {
        self.on.get(&mount.id).map(Vec::as_slice).unwrap_or_default()
    }

    /// The mount that `path` leads to, if that is its root or lies below.
    fn reached_by(&self, path: &Path) -> Option<&'m Mount> {
        let mut reached = self.root?;
        let mut prefixes: Vec<_> = path.ancestors().collect();
        while let Some(prefix) = prefixes.pop() {
            // Several may lie over each other.
            while let Some(next) = self.on(reached).iter().find(|mount| mount.point == prefix) {
                reached = next;
            }
        }
        Some(reached)
    }

    /// Whether `mount`, or what is mounted below it, shows the kernel's own data.
    fn has_kernels(&self, mount: &Mount) -> bool {
        is_kernels(mount) || self.on(mount).iter().any(|mount| self.has_kernels(mount))
    }
}

/// `path` for the kernel. Paths of the system hold no NUL, nor do those of the environment and of the attribute.
fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_what_lies_on_top() {
        let table = b"1 0 0:1 / / rw - ext4 a rw\n\
                      2 1 0:2 / /dev rw - tmpfs b rw\n\
                      3 2 0:3 / /dev/pts rw - devpts c rw\n\
                      4 3 0:4 / /dev/pts rw - devpts d rw\n\
                      5 1 0:5 / /x/proc rw - proc e rw\n\
                      6 1 0:6 / /x rw - tmpfs f rw\n";
        let mounts = mounts_in(table);
        let table = Table::new(&mounts);
        let reached = |path: &str| table.reached_by(Path::new(path)).map(|mount| mount.id);
        assert_eq!(reached("/"), Some(1));
        assert_eq!(reached("/dev/null"), Some(2));
        assert_eq!(reached("/dev/pts"), Some(4));
        assert_eq!(reached("/x/proc"), Some(6), "what was mounted before is covered");
        let have_kernels = mounts.iter().filter(|mount| table.has_kernels(mount)).map(|mount| mount.id);
        assert_eq!(have_kernels.collect::<Vec<_>>(), [1, 5]);
    }
}
