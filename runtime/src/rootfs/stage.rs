//! The mount table that inits begin with. A template makes it once.
//!
//! Sandboxes with roots of their own begin in a tmpfs, the stage. See [`build`](super::build) for what is in it.
//!
//! 1. The host's mounts become private: what is mounted later, here or there, does not show up on the other side.
//! 2. What tests may write to is set aside.
//! 3. The host's mounts become read-only, but for proc and sysfs: otherwise the kernel would allow only read-only new ones.
//! 4. The stage becomes the root, with the host's tree below it.
//!
//! Sandboxes without a root of their own begin in the host's tree as it is. If they need a stage, it is mounted over `/proc`, with the host's
//! `/proc` in it, because each sandbox mounts its own `/proc` there anyway.

use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{chdir, chroot, fchdir, pivot_root};

use crate::collect::{CollectVec as _, map_both};
use crate::frame::{Refusal, Step};
use crate::proc::{MOUNTINFO, Mount, bytes_of, mounts_in};
use crate::rootfs::build::{
    HOST, KERNEL_FLAGS, NEW, PREPARED, ROOT, SET_ASIDE, may_be_unknown, remount_read_only_with,
};
use crate::rootfs::left::Left;
use crate::rootfs::paths::c_string;
use crate::rootfs::read_only::{make_read_only, set_one_read_only};
use crate::sys::{self, mkdir, mount};

const NONE: Option<&CStr> = None;

/// What the stage lies over in the host's tree.
const PROC: &CStr = c"/proc";

/// Where a sandbox puts together its `/proc` there, and where it mounts one that stays whole.
const NEW_PROC: &CStr = c"new-proc";
const WHOLE_PROC: &CStr = c"whole-proc";

/// Where the stage has the host's `/sys`, read-only.
const SYSFS: &CStr = c"sys";

/// Where the stage has what is to be `/proc/sys`.
const PROC_SYS: &str = "settings";

/// What a stage is to hold.
pub(crate) struct StageParts<'k> {
    /// The paths of the host that tests may write to. Those that can't be cloned are left out.
    pub(crate) writable: Vec<&'k Path>,
    /// Paths that the template can't reach, with what the host has mounted there.
    pub(crate) unreachable_mounts: Vec<(PathBuf, OwnedFd)>,
    /// What is to be `/proc/sys`, if that is not the kernel's own directory.
    pub(crate) proc_sys: Option<OwnedFd>,
    /// What preparations have left, the last one first.
    pub(crate) left: Vec<LeftRoot>,
    /// The directory of the host that is to be the root, in place of a tmpfs.
    pub(crate) root: Option<&'k Path>,
    /// Whether sandboxes have networks of their own. Otherwise they have the host's `/sys`.
    pub(crate) net: bool,
}

/// A root that a preparation has left.
pub(crate) enum LeftRoot {
    /// A tmpfs that is attached nowhere.
    Detached(OwnedFd),
    /// A directory of the host.
    Directory(PathBuf),
}

impl LeftRoot {
    pub(crate) fn descriptor(&self) -> Option<&OwnedFd> {
        match self {
            Self::Detached(tmpfs) => Some(tmpfs),
            Self::Directory(_) => None,
        }
    }

    /// What can be attached in the stage. Mounts of the host can still be copied.
    fn detach(self) -> nix::Result<OwnedFd> {
        match self {
            Self::Detached(tmpfs) => Ok(tmpfs),
            Self::Directory(path) => sys::clone_mounts(&c_string(&path)),
        }
    }
}

/// The stage of a template.
pub(crate) struct Stage {
    /// The stage itself.
    root: OwnedFd,
    /// Where inits find it.
    place: &'static str,
    /// The paths of the host that the stage has by themselves, each in [`SET_ASIDE`] by its number: those that tests may write to, and those
    /// that are unreachable.
    set_aside: Vec<PathBuf>,
    /// Those that are unreachable, with what the host has mounted there.
    unreachable: Vec<(PathBuf, OwnedFd)>,
    /// What preparations have left, each in [`PREPARED`] by its number.
    left: Left,
    /// Whether a directory of the host is to be the root: [`ROOT`].
    has_root: bool,
}

impl Stage {
    /// Makes the stage of sandboxes that have roots of their own, out of what the host has mounted, and goes there.
    pub(crate) fn enter(mounts: &[Mount], parts: StageParts<'_>) -> Result<Self, Refusal> {
        let clone = |path: &&'_ Path| Some((path.to_path_buf(), sys::clone_mounts(&c_string(path)).ok()?));
        let writable = parts.writable.iter().filter_map(clone).collect_vec();
        let failed = |errno| Refusal::new(Step::Prepared, "", errno);
        let left = parts.left.into_iter().map(LeftRoot::detach).try_collect_vec().map_err(failed)?;
        let own = parts.root.map(|path| sys::clone_mounts(&c_string(path)));
        let own =
            own.transpose().map_err(|errno| Refusal::new(Step::Root, parts.root.unwrap_or(Path::new("/")), errno))?;
        make_read_only(mounts)?;
        // At the root, `..` stays where it is, and then follows what is mounted there.
        let root = mount_stage(c"/", c"/..").map_err(|errno| Refusal::new(Step::Root, "/", errno))?;
        pivot_root(c".", HOST).map_err(|errno| Refusal::new(Step::Pivot, "/", errno))?;
        let mut set_aside = Vec::new();
        for (path, mounts) in writable {
            let attached = attach(&mounts, &numbered(set_aside.len()));
            attached.map_err(|errno| Refusal::new(Step::Bind, &path, errno))?;
            set_aside.push(path);
        }
        for (path, mounts_below) in &parts.unreachable_mounts {
            let place = numbered(set_aside.len());
            let attached = attach(mounts_below, &place).and_then(|()| make_private_and_read_only(&place, mounts));
            attached.map_err(|errno| Refusal::new(Step::Bind, path, errno))?;
            set_aside.push(path.clone());
        }
        if let (Some(sysfs), false) = (mounts.iter().rfind(|mount| mount.point == Path::new("/sys")), parts.net) {
            show_sysfs(sysfs).map_err(|errno| Refusal::new(Step::Bind, "/sys", errno))?;
        }
        attach_proc_sys(parts.proc_sys.as_ref())?;
        if !left.is_empty() {
            mkdir(PREPARED, Mode::from_bits_truncate(0o755)).map_err(failed)?;
        }
        for (number, tmpfs) in left.iter().enumerate() {
            attach(tmpfs, &prepared(number)).map_err(failed)?;
        }
        if let Some(own) = &own {
            attach(own, as_path(ROOT)).map_err(|errno| Refusal::new(Step::Root, "/", errno))?;
        }
        let (left, has_root) = (Left::new(left), own.is_some());
        Ok(Self { root, place: "..", set_aside, unreachable: parts.unreachable_mounts, left, has_root })
    }

    /// Makes the stage of sandboxes that have the host's tree, if they need one.
    pub(crate) fn lay_over_proc(parts: &StageParts<'_>) -> Result<Option<Self>, Refusal> {
        if !parts.net && parts.proc_sys.is_none() {
            return Ok(None);
        }
        let lay = || {
            let host = sys::clone_mounts(PROC)?;
            let working_directory = open(c".", O_PATH, Mode::empty())?;
            let root = mount_stage(PROC, PROC)?;
            [NEW_PROC, WHOLE_PROC].iter().try_for_each(|name| mkdir(name, Mode::from_bits_truncate(0o755)))?;
            sys::attach_mounts(&host, HOST)?;
            Ok((root, working_directory))
        };
        let failed = |errno| Refusal::new(Step::Mount, "/proc", errno);
        let (root, working_directory) = lay().map_err(failed)?;
        attach_proc_sys(parts.proc_sys.as_ref())?;
        fchdir(&working_directory).map_err(failed)?;
        let left = Left::new(Vec::new());
        Ok(Some(Self { root, place: "/proc", set_aside: Vec::new(), unreachable: Vec::new(), left, has_root: false }))
    }

    /// Where inits find what the stage has by this name.
    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        Path::new(self.place).join(name)
    }

    /// Where inits find what the host has at `path`, if the stage has it by itself.
    pub(crate) fn place_of(&self, path: &Path) -> Option<PathBuf> {
        self.set_aside.iter().position(|known| known == path).map(|number| self.path(numbered(number)))
    }

    /// Where the host's `/proc` is while sandboxes are planned.
    pub(crate) fn host_proc(&self) -> PathBuf {
        if self.is_root() { "/proc".into() } else { self.path(as_path(HOST)) }
    }

    /// Whether it is the root of the mount table. Otherwise it lies over `/proc`.
    fn is_root(&self) -> bool {
        self.place == ".."
    }

    /// Where inits that have the host's tree put together their `/proc`, and where they mount one that stays whole.
    pub(crate) fn procs(&self) -> [PathBuf; 2] {
        map_both([NEW_PROC, WHOLE_PROC], |name| self.path(as_path(name)))
    }

    /// Where inits can mount something new.
    pub(crate) fn new_root(&self) -> PathBuf {
        self.path(as_path(NEW))
    }

    /// The paths that the template can't reach.
    pub(crate) fn unreachable(&self) -> Vec<&Path> {
        self.unreachable.iter().map(|(path, _)| path.as_path()).collect_vec()
    }

    /// Whether `path` is a directory below one of those.
    pub(crate) fn has_unreachable_directory(&self, path: &Path) -> bool {
        let found =
            self.unreachable.iter().find_map(|(above, directory)| Some((path.strip_prefix(above).ok()?, directory)));
        found.is_some_and(|(below, directory)| match below.as_os_str().is_empty() {
            // It may be one of those itself.
            true => sys::stat(directory, c"").is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR),
            false => openat(directory, &*c_string(below), OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).is_ok(),
        })
    }

    /// What preparations have left.
    pub(crate) fn left(&self) -> &Left {
        &self.left
    }

    /// Whether it has a directory that is to be the root, in place of a tmpfs.
    pub(crate) fn has_root(&self) -> bool {
        self.has_root
    }

    /// Where inits find what the preparation of this number has left.
    pub(crate) fn place_of_left(&self, number: usize) -> PathBuf {
        self.path(prepared(number))
    }

    /// Where inits find the host's `/sys`.
    pub(crate) fn sysfs(&self) -> PathBuf {
        self.path(as_path(SYSFS))
    }

    /// Where inits find what is to be `/proc/sys`.
    pub(crate) fn proc_sys(&self) -> PathBuf {
        self.path(PROC_SYS)
    }

    /// Runs `plan` with the host's tree as the root directory, so that paths lead where they lead on the host.
    pub(crate) fn on_host<T>(&self, plan: impl FnOnce() -> T) -> nix::Result<T> {
        if !self.is_root() {
            return Ok(plan());
        }
        chroot(HOST)?;
        chdir(c"/")?;
        let planned = plan();
        fchdir(&self.root)?;
        chroot(c".")?;
        Ok(planned)
    }
}

const O_PATH: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Mounts an empty stage at `point`, goes there by the path `there`, and returns it.
fn mount_stage(point: &CStr, there: &CStr) -> nix::Result<OwnedFd> {
    mount(Some(c"tmpfs"), point, Some(c"tmpfs"), MsFlags::empty(), Some(c"mode=755"))?;
    chdir(there)?;
    for name in [HOST, SET_ASIDE, NEW] {
        mkdir(name, Mode::from_bits_truncate(0o755))?;
    }
    open(c".", O_PATH, Mode::empty())
}

/// Where the stage has what was set aside under this number.
fn numbered(number: usize) -> PathBuf {
    as_path(SET_ASIDE).join(number.to_string())
}

/// Where the stage has what the preparation of this number has left.
fn prepared(number: usize) -> PathBuf {
    as_path(PREPARED).join(number.to_string())
}

/// Attaches mounts at a new place.
fn attach(mounts: &OwnedFd, place: &Path) -> nix::Result<()> {
    let place = c_string(place);
    if SFlag::from_bits_truncate(sys::stat(mounts, c"")?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
        mkdir(&place, Mode::from_bits_truncate(0o755))?;
    } else {
        mknod(&*place, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)?;
    }
    sys::attach_mounts(mounts, &place)
}

/// Makes what comes from the host private and read-only. Its mount may be any of the host's.
fn make_private_and_read_only(place: &Path, mounts: &[Mount]) -> nix::Result<()> {
    let path = c_string(place);
    mount(NONE, &path, NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    match sys::set_read_only(&path, true) {
        Err(errno) if may_be_unknown(errno) => {
            // What may be locked is repeated.
            let flags = mounts.iter().map(|mount| mount.flags).fold(MsFlags::empty(), MsFlags::union);
            remount_read_only_with(&path, flags)
        }
        result => result,
    }
}

/// Shows the host's `/sys` in the stage, read-only. What is mounted below it is so already.
fn show_sysfs(sysfs: &Mount) -> nix::Result<()> {
    mkdir(SYSFS, Mode::from_bits_truncate(0o755))?;
    mount(Some(&c_string(&as_path(HOST).join("sys"))), SYSFS, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    set_one_read_only(SYSFS, sysfs.flags)
}

/// Attaches what is to be `/proc/sys` in the stage, if there is something.
fn attach_proc_sys(proc_sys: Option<&OwnedFd>) -> Result<(), Refusal> {
    let Some(proc_sys) = proc_sys else { return Ok(()) };
    let attached = attach(proc_sys, Path::new(PROC_SYS));
    let attached = attached.and_then(|()| set_one_read_only(&c_string(Path::new(PROC_SYS)), KERNEL_FLAGS));
    attached.map_err(|errno| Refusal::new(Step::Mount, "/proc/sys", errno))
}

/// Makes the mounts of the host private, and returns them.
pub(crate) fn make_mounts_private() -> Result<Vec<Mount>, Refusal> {
    let private = mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE);
    private.map_err(|errno| Refusal::new(Step::Propagation, "/", errno))?;
    // From now on, nothing new is mounted here.
    let table = bytes_of(MOUNTINFO).map_err(|error| Refusal::new(Step::Zygote, MOUNTINFO, sys::errno_of(&error)))?;
    Ok(mounts_in(&table))
}

fn as_path(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}
