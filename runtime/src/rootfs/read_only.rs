//! Makes the host's mounts read-only in a template, but for the proc and the sysfs that must stay as they are.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::unistd::{AccessFlags, access};

use super::build::{may_be_unknown, remount_read_only_with};
use super::paths::c_string;
use crate::collect::CollectVec as _;
use crate::frame::{Refusal, Step};
use crate::proc::{self, Mount, hides_nothing};
use crate::sorted::{Map, Set};
use crate::sys;

/// How often the mounts are looked at again, because others may rename directories meanwhile.
const ROUNDS: usize = 100;

/// Makes all mounts read-only, but the proc and the sysfs that the kernel looks for where somebody mounts another.
///
/// A mount is reached by its path alone. One that no path leads to, because another lies over it or a directory above it is closed to
/// this process, is left as it is: it is locked in its place, and no sandbox reaches it either.
pub(super) fn make_read_only(mounts: &[Mount]) -> Result<(), Refusal> {
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
    let mut pending: Vec<&Mount> = table.root.into_iter().collect_vec();
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
    is_removed || access(&*c_string(&mount.point), AccessFlags::F_OK) == Err(Errno::EACCES)
}

/// Makes the mount at `path` read-only, but not those below it. `flags` are those that it has.
pub(super) fn set_one_read_only(path: &CStr, flags: MsFlags) -> nix::Result<()> {
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
    on: Map<u32, Vec<&'m Mount>>,
    /// What must stay writable, or the kernel would let nobody mount a proc or a sysfs: the host's own, and what no path leads to. If none
    /// of these is whole, as in a container, those elsewhere too, such as in a chroot's tree.
    kept: Set<u32>,
}

impl<'m> Table<'m> {
    fn new(mounts: &'m [Mount]) -> Self {
        let is_there = |id: u32| mounts.iter().any(|mount| mount.id == id);
        let mut table = Self { root: None, on: Map::new(), kept: Set::new() };
        for mount in mounts {
            if mount.id != mount.parent && is_there(mount.parent) {
                table.on.get_or_insert_with(mount.parent, Vec::new).push(mount);
            } else {
                table.root = Some(mount);
            }
        }
        for (kind, point) in PROC_AND_SYSFS {
            let is_own = |mount: &&&Mount| mount.point == Path::new(point) || !table.is_reached(mount);
            let all = mounts.iter().filter(|mount| mount.kind == *kind).collect_vec();
            let own = all.iter().filter(is_own).copied().collect_vec();
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
        let mut prefixes = path.ancestors().collect_vec();
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
        let mounts = proc::mounts_in(table);
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
