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

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{AccessFlags, access, chdir, chroot, fchdir, mkdir, pivot_root};

use crate::frame::{Refusal, Step};
use crate::proc::{self, MOUNTINFO, Mount, hides_nothing, mounts_in};
use crate::rootfs::build::{HOST, KERNEL_FLAGS, NEW, PREPARED, SET_ASIDE, may_be_unknown, remount_read_only_with};
use crate::rootfs::left::Left;
use crate::rootfs::paths::c_string;
use crate::sys;

const NONE: Option<&str> = None;

/// What the stage lies over in the host's tree.
const PROC: &CStr = c"/proc";

/// Where a sandbox puts together its `/proc` there, and where it mounts one that stays whole.
const NEW_PROC: &CStr = c"new-proc";
const WHOLE_PROC: &CStr = c"whole-proc";

/// Where the stage has the host's `/sys`, read-only.
const SYSFS: &str = "sys";

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
    pub(crate) left: Vec<OwnedFd>,
    /// Whether sandboxes have networks of their own. Otherwise they have the host's `/sys`.
    pub(crate) net: bool,
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
}

impl Stage {
    /// Makes the stage of sandboxes that have roots of their own, out of what the host has mounted, and goes there.
    pub(crate) fn enter(mounts: &[Mount], parts: StageParts<'_>) -> Result<Self, Refusal> {
        let clone = |path: &&'_ Path| Some((path.to_path_buf(), sys::clone_mounts(&c_string(path)).ok()?));
        let writable: Vec<_> = parts.writable.iter().filter_map(clone).collect();
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
        for (number, tmpfs) in parts.left.iter().enumerate() {
            let attached = attach(tmpfs, &prepared(number));
            attached.map_err(|errno| Refusal::new(Step::Prepared, "", errno))?;
        }
        let left = Left::new(parts.left);
        Ok(Self { root, place: "..", set_aside, unreachable: parts.unreachable_mounts, left })
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
            [NEW_PROC, WHOLE_PROC].iter().try_for_each(|name| mkdir(*name, Mode::from_bits_truncate(0o755)))?;
            sys::attach_mounts(&host, HOST)?;
            Ok((root, working_directory))
        };
        let failed = |errno| Refusal::new(Step::Mount, "/proc", errno);
        let (root, working_directory) = lay().map_err(failed)?;
        attach_proc_sys(parts.proc_sys.as_ref())?;
        fchdir(&working_directory).map_err(failed)?;
        let left = Left::new(Vec::new());
        Ok(Some(Self { root, place: "/proc", set_aside: Vec::new(), unreachable: Vec::new(), left }))
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
        [NEW_PROC, WHOLE_PROC].map(|name| self.path(as_path(name)))
    }

    /// Where inits can mount something new.
    pub(crate) fn new_root(&self) -> PathBuf {
        self.path(as_path(NEW))
    }

    /// The paths that the template can't reach.
    pub(crate) fn unreachable(&self) -> impl Iterator<Item = &Path> {
        self.unreachable.iter().map(|(path, _)| path.as_path())
    }

    /// Whether `path` is a directory below one of those.
    pub(crate) fn has_unreachable_directory(&self, path: &Path) -> bool {
        let found =
            self.unreachable.iter().find_map(|(above, directory)| Some((path.strip_prefix(above).ok()?, directory)));
        found.is_some_and(|(below, directory)| match below.as_os_str().is_empty() {
            // It may be one of those itself.
            true => sys::stat(directory, c"").is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR),
            false => openat(directory, below, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).is_ok(),
        })
    }

    /// What preparations have left.
    pub(crate) fn left(&self) -> &Left {
        &self.left
    }

    /// Where inits find what the preparation of this number has left.
    pub(crate) fn place_of_left(&self, number: usize) -> PathBuf {
        self.path(prepared(number))
    }

    /// Where inits find the host's `/sys`.
    pub(crate) fn sysfs(&self) -> PathBuf {
        self.path(SYSFS)
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
        chdir("/")?;
        let planned = plan();
        fchdir(&self.root)?;
        chroot(".")?;
        Ok(planned)
    }
}

const O_PATH: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Mounts an empty stage at `point`, goes there by the path `there`, and returns it.
fn mount_stage(point: &CStr, there: &CStr) -> nix::Result<OwnedFd> {
    mount(Some("tmpfs"), point, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    chdir(there)?;
    for name in [HOST, SET_ASIDE, PREPARED, NEW] {
        mkdir(name, Mode::from_bits_truncate(0o755))?;
    }
    open(".", O_PATH, Mode::empty())
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
    if SFlag::from_bits_truncate(sys::stat(mounts, c"")?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
        mkdir(place, Mode::from_bits_truncate(0o755))?;
    } else {
        mknod(place, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)?;
    }
    sys::attach_mounts(mounts, &c_string(place))
}

/// Makes what comes from the host private and read-only. Its mount may be any of the host's.
fn make_private_and_read_only(place: &Path, mounts: &[Mount]) -> nix::Result<()> {
    mount(NONE, place, NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let path = c_string(place);
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
    let (host, place) = (as_path(HOST).join("sys"), c_string(Path::new(SYSFS)));
    mkdir(SYSFS, Mode::from_bits_truncate(0o755))?;
    mount(Some(&host), SYSFS, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    set_one_read_only(&place, sysfs.flags)
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
    let private = mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE);
    private.map_err(|errno| Refusal::new(Step::Propagation, "/", errno))?;
    // From now on, nothing new is mounted here.
    let table = fs::read(MOUNTINFO).map_err(|error| Refusal::new(Step::Zygote, MOUNTINFO, sys::errno_of(&error)))?;
    Ok(mounts_in(&table))
}

/// How often the mounts are looked at again, because others may rename directories meanwhile.
const ROUNDS: usize = 100;

/// Makes all mounts read-only, but the proc and the sysfs that the kernel looks for where somebody mounts another.
///
/// A mount is reached by its path alone. One that no path leads to, because another lies over it or a directory above it is closed to
/// this process, is left as it is: it is locked in its place, and no sandbox reaches it either.
fn make_read_only(mounts: &[Mount]) -> Result<(), Refusal> {
    try_to_make_read_only(mounts)?;
    // A rename of a directory moves the mounts below it. So this is repeated until none is writable.
    let mut writable = None;
    for _ in 0..ROUNDS {
        let now = proc::mounts();
        writable = Table::new(&now).writable().map(|mount| mount.point.clone());
        if writable.is_none() {
            return Ok(());
        }
        try_to_make_read_only(&now)?;
    }
    Err(Refusal::new(Step::ReadOnly, writable.unwrap_or_default(), Errno::EINVAL))
}

fn try_to_make_read_only(mounts: &[Mount]) -> Result<(), Refusal> {
    let table = Table::new(mounts);
    let mut pending: Vec<&Mount> = table.root.into_iter().collect();
    while let Some(mount) = pending.pop() {
        if table.is_reached(mount) {
            let path = c_string(&mount.point);
            let set = match (table.has_kept(mount), table.kept.contains(&mount.id)) {
                // With all that lies on it.
                (false, _) => match sys::set_read_only(&path, true) {
                    Err(errno) if may_be_unknown(errno) => set_one_read_only(&path, mount.flags).map(|()| false),
                    set => set.map(|()| true),
                },
                (true, false) => set_one_read_only(&path, mount.flags).map(|()| false),
                (true, true) => Ok(false),
            };
            match set {
                Ok(true) => continue,
                Ok(false) => {}
                // It has gone, or lies elsewhere now: who removes a mount point elsewhere unmounts what lies on it here, see
                // mount_namespaces(7). Or this process can't get there.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => {}
                Err(Errno::EACCES) if is_closed(mount) => {}
                Err(errno) => return Err(Refusal::new(Step::ReadOnly, &mount.point, errno)),
            }
        }
        pending.extend(table.on(mount));
    }
    Ok(())
}

/// Whether nobody gets to a mount by its path: because this process may not, or because its place was removed, as mountinfo tells. A path
/// that leads nowhere for the moment may be another one by now.
fn is_closed(mount: &Mount) -> bool {
    let is_removed = mount.point.as_os_str().as_bytes().ends_with(b"//deleted");
    is_removed || access(&mount.point, AccessFlags::F_OK) == Err(Errno::EACCES)
}

/// Makes the mount at `path` read-only, but not those below it. `flags` are those that it has.
fn set_one_read_only(path: &CStr, flags: MsFlags) -> nix::Result<()> {
    match sys::set_read_only(path, false) {
        Err(errno) if may_be_unknown(errno) => remount_read_only_with(path, flags),
        set => set,
    }
}

/// The file systems of the kernel's own data, and where they belong. See mount_namespaces(7): a process may mount another proc or sysfs only
/// if one is there that is fully visible, and no more restricted than the new one.
const PROC_AND_SYSFS: [(&str, &str); 2] = [("proc", "/proc"), ("sysfs", "/sys")];

/// Mounts, by what they are mounted on.
struct Table<'m> {
    root: Option<&'m Mount>,
    on: BTreeMap<u32, Vec<&'m Mount>>,
    /// What must stay writable, or the kernel would let nobody mount a proc or a sysfs: the host's own, and what no path leads to. If none
    /// of these is whole, as in a container, those elsewhere too, such as in a chroot's tree.
    kept: BTreeSet<u32>,
}

impl<'m> Table<'m> {
    fn new(mounts: &'m [Mount]) -> Self {
        let is_there = |id: u32| mounts.iter().any(|mount| mount.id == id);
        let mut table = Self { root: None, on: BTreeMap::new(), kept: BTreeSet::new() };
        for mount in mounts {
            if mount.id != mount.parent && is_there(mount.parent) {
                table.on.entry(mount.parent).or_default().push(mount);
            } else {
                table.root = Some(mount);
            }
        }
        for (kind, point) in PROC_AND_SYSFS {
            let is_own = |mount: &&&Mount| mount.point == Path::new(point) || !table.is_reached(mount);
            let all: Vec<_> = mounts.iter().filter(|mount| mount.kind == *kind).collect();
            let own: Vec<_> = all.iter().filter(is_own).copied().collect();
            let kept = if own.iter().any(|mount| table.is_whole(mount)) { own } else { all };
            table.kept.extend(kept.into_iter().map(|mount| mount.id));
        }
        table
    }

    /// Whether a proc or a sysfs shows all that there is in one.
    fn is_whole(&self, mount: &Mount) -> bool {
        mount.root == Path::new("/") && self.on(mount).iter().all(|on| hides_nothing(&on.point))
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

    /// Whether its path leads to `mount`.
    fn is_reached(&self, mount: &Mount) -> bool {
        self.reached_by(&mount.point).is_some_and(|reached| reached.id == mount.id)
    }

    /// A mount that should be read-only, and is not.
    fn writable(&self) -> Option<&'m Mount> {
        let is_writable = |mount: &&&Mount| {
            !mount.flags.contains(MsFlags::MS_RDONLY)
                && !self.kept.contains(&mount.id)
                && self.is_reached(mount)
                && !is_closed(mount)
        };
        self.on.values().flatten().chain(&self.root).find(is_writable).copied()
    }

    /// Whether `mount`, or something mounted below it, must stay writable.
    fn has_kept(&self, mount: &Mount) -> bool {
        self.kept.contains(&mount.id) || self.on(mount).iter().any(|mount| self.has_kept(mount))
    }
}

fn as_path(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
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
                      6 1 0:6 / /x rw - tmpfs f rw\n\
                      7 1 0:7 / /proc rw - proc g rw\n\
                      8 1 0:7 / /chroot/proc rw - proc g rw\n";
        let mounts = mounts_in(table);
        let table = Table::new(&mounts);
        let reached = |path: &str| table.reached_by(Path::new(path)).map(|mount| mount.id);
        assert_eq!(reached("/"), Some(1));
        assert_eq!(reached("/dev/null"), Some(2));
        assert_eq!(reached("/dev/pts"), Some(4));
        assert_eq!(reached("/x/proc"), Some(6), "what was mounted before is covered");
        let have_kept = |table: &Table<'_>| {
            mounts.iter().filter(|mount| table.has_kept(mount)).map(|mount| mount.id).collect::<Vec<_>>()
        };
        assert_eq!(have_kept(&table), [1, 5, 7], "what lies elsewhere is read-only");
    }
}
