//! Version 2 only: the cgroup that the tests run in. It can give controllers to cgroups below only while it holds no process. So the processes
//! of the run move to a leaf. Several test binaries may do this at once: they take turns, and the last one to leave puts everything back.

use std::ffi::{CStr, c_int};
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;
use std::{process, thread};

use nix::errno::Errno;

use super::controller::{Controller, NoCgroup};
use super::directory::Directory;
use crate::collect::CollectVec as _;
use crate::proc::{name_of, parent_of};
use crate::sys::Locked;

/// The cgroup that the processes of the test run move to.
pub(super) const LEAF: &str = "belljar.leaf";

const CONTROL: &str = "cgroup.subtree_control";

/// The cgroup above ours, which this process uses with others. While one of them has it, it isn't put back.
pub(super) struct Parent {
    users: Locked,
}

impl Parent {
    pub(super) fn enter(parent: &Path) -> Result<Self, NoCgroup> {
        let _turn = turn(parent)?;
        Ok(Self { users: lock(parent, libc::LOCK_SH)? })
    }

    /// Has cgroups below `parent` get this controller.
    pub(super) fn enable(&self, parent: &Path, controller: Controller) -> Result<(), NoCgroup> {
        let _turn = turn(parent)?;
        if has(parent, controller) {
            return Ok(());
        }
        turn_on_in_empty(parent, controller, || make_room(parent))
    }

    /// Puts everything back, if nobody else uses it.
    pub(super) fn leave(self, parent: &Path) {
        let Ok(_turn) = turn(parent) else { return };
        drop(self.users);
        if lock(parent, libc::LOCK_EX | libc::LOCK_NB).is_err() {
            return;
        }
        let leaf = parent.join(LEAF);
        for controller in [Controller::Pids, Controller::Memory, Controller::Cpu] {
            if leaf.exists() && has(parent, controller) {
                let _ = unified(parent).write(CONTROL, &format!("-{}", controller.name()));
            }
        }
        let _ = move_all(&leaf, parent, &mut |_| Ok(true));
        let _ = fs::remove_dir(leaf);
    }
}

fn unified(path: &Path) -> Directory {
    Directory::at(path, true, Vec::new())
}

/// Waits for this process's turn to change `parent`.
fn turn(parent: &Path) -> Result<Locked, NoCgroup> {
    lock(&parent.join(CONTROL), libc::LOCK_EX)
}

fn lock(path: &Path, operation: c_int) -> Result<Locked, NoCgroup> {
    let file = File::open(path).map_err(|error| NoCgroup::new(path, &error))?;
    Locked::new(file, operation).map_err(|(_, errno)| NoCgroup::Refused { path: path.to_owned(), errno })
}

/// Whether cgroups below `directory` get this controller.
fn has(directory: &Path, controller: Controller) -> bool {
    let enabled = unified(directory).read(CONTROL).unwrap_or_default();
    enabled.split_whitespace().any(|name| name == controller.name())
}

/// Has cgroups below `directory` get this controller, if the kernel lets it.
pub(super) fn turn_on(directory: &Path, controller: Controller) -> Result<(), NoCgroup> {
    unified(directory).write(CONTROL, &format!("+{}", controller.name()))
}

/// Has cgroups below `directory` get this controller, when `make_room` has moved its processes elsewhere.
fn turn_on_in_empty(
    directory: &Path,
    controller: Controller,
    make_room: impl Fn() -> Result<(), NoCgroup>,
) -> Result<(), NoCgroup> {
    // While there are processes in it, the kernel refuses some controllers. It accepts others, and then never again the former.
    make_room()?;
    for _ in 0..1000 {
        match turn_on(directory, controller) {
            // A process was forked meanwhile, or the kernel needs a moment to see that the last one has moved.
            Err(NoCgroup::Refused { errno: Errno::EBUSY, .. }) => thread::sleep(Duration::from_millis(1)),
            result => return result,
        }
        make_room()?;
    }
    turn_on(directory, controller)
}

/// Has cgroups below that of a sandbox get those of these controllers that it has, and returns which. Its processes move to a leaf.
pub(super) fn divide(own: &Path, wanted: &[Controller]) -> Result<Vec<Controller>, NoCgroup> {
    let mut controllers = Controller::among(unified(own).read("cgroup.controllers")?.split_whitespace());
    controllers.retain(|controller| wanted.contains(controller));
    let leaf = own.join(LEAF);
    let make_room = || {
        make_leaf(&leaf)?;
        move_all(own, &leaf, &mut |_| Ok(true))
    };
    for controller in &controllers {
        if !has(own, *controller) {
            turn_on_in_empty(own, *controller, make_room)?;
        }
    }
    Ok(controllers)
}

fn make_leaf(leaf: &Path) -> Result<(), NoCgroup> {
    match fs::create_dir(leaf) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(NoCgroup::new(leaf, &error)),
        _ => Ok(()),
    }
}

/// Moves the processes in `parent` to the leaf, if there are any, and all of them are of this test run.
fn make_room(parent: &Path) -> Result<(), NoCgroup> {
    // The root cgroup, which has no type, may have both. Whoever emptied it would move the whole machine.
    if !parent.join("cgroup.type").exists() || unified(parent).processes()?.is_empty() {
        return Ok(());
    }
    let leaf = parent.join(LEAF);
    let mut tries = 0;
    let mut oldest = None;
    let moved = move_all(parent, &leaf, &mut |pids| {
        // The oldest ancestor is looked for before this process has moved itself.
        oldest = oldest.or_else(|| oldest_ancestor(pids));
        // A process that is about to end, such as the zygote of a test binary that was killed, may have lost its parent already.
        let strangers = strangers(pids, oldest);
        if strangers.is_empty() {
            return make_leaf(&leaf).map(|()| true);
        }
        if tries == 100 {
            let names = strangers.iter().filter_map(|pid| name_of(*pid)).collect_vec();
            return Err(NoCgroup::Foreign { path: parent.to_owned(), names });
        }
        tries += 1;
        thread::sleep(Duration::from_millis(1));
        Ok(false)
    });
    if moved.is_err() {
        // A leaf would say that the controllers are ours to put back. Others may have had them before, as in a threaded cgroup.
        let _ = fs::remove_dir(&leaf);
    }
    moved
}

/// Moves all processes, and those that they fork meanwhile: each time those that were listed, if they `may_move`. Otherwise it
/// looks again.
fn move_all(
    from: &Path,
    to: &Path,
    may_move: &mut dyn FnMut(&[u32]) -> Result<bool, NoCgroup>,
) -> Result<(), NoCgroup> {
    let (from, to) = (unified(from), unified(to));
    let mut moved = Vec::new();
    loop {
        let left = from.processes()?;
        // What is still there after it was moved, such as a process whose main thread has ended alone, never goes.
        if left.is_empty() || left == moved {
            return Ok(());
        }
        if !may_move(&left)? {
            continue;
        }
        // 0 stands for one that this pid namespace does not know, and would be taken for this process.
        for pid in left.iter().filter(|pid| **pid != 0) {
            match to.add(*pid) {
                // It has ended.
                Ok(()) | Err(NoCgroup::Refused { errno: Errno::ESRCH, .. }) => {}
                result => return result,
            }
        }
        moved = left;
    }
}

/// The oldest among these processes that is this one, or its parent, and so on.
fn oldest_ancestor(pids: &[u32]) -> Option<u32> {
    let (mut oldest, mut next) = (None, Some(process::id()));
    while let Some(pid) = next.filter(|pid| *pid != 0) {
        if pids.contains(&pid) {
            oldest = next;
        }
        next = parent_of(pid);
    }
    oldest
}

/// Whether `pid` is `ancestor`, or its parent is, and so on.
fn descends(pid: u32, ancestor: u32) -> bool {
    let mut next = Some(pid);
    while let Some(pid) = next.filter(|pid| *pid != 0) {
        if pid == ancestor {
            return true;
        }
        next = parent_of(pid);
    }
    false
}

/// What a sweeper is called.
pub(super) const SWEEPER: &CStr = c"belljar-sweeper";

/// Those of these processes that do not descend from the `oldest` of the test run that was found among them. All are strangers
/// if there is none.
fn strangers(pids: &[u32], oldest: Option<u32>) -> Vec<u32> {
    let is_ours = |pid: u32| oldest.is_some_and(|oldest| descends(pid, oldest));
    // A process that has ended is no trouble.
    let has_ended = |pid: u32| pid != 0 && parent_of(pid).is_none();
    // That of a test binary which was killed waits for its turn, and ends.
    let is_sweeper = |pid: u32| name_of(pid).is_some_and(|name| name.as_bytes() == SWEEPER.to_bytes());
    pids.iter().copied().filter(|pid| !is_ours(*pid) && !has_ended(*pid) && !is_sweeper(*pid)).collect_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::{MOUNTINFO, mounts_in, own_cgroup_v2};
    use crate::sys::geteuid;

    /// This process goes to a threaded cgroup, and back.
    #[test]
    fn a_threaded_cgroup_gets_no_leaf() {
        let mounts = mounts_in(&fs::read(MOUNTINFO).expect("mountinfo"));
        let root = mounts.iter().find(|mount| mount.kind == "cgroup2" && geteuid().is_root());
        let own = root.zip(own_cgroup_v2()).and_then(|(root, own)| Some(root.point.join(own.strip_prefix("/").ok()?)));
        let parent = own.as_ref().map(|own| own.join(format!("belljar-threaded-{}", process::id())));
        let Some((own, parent)) = own.zip(parent).filter(|(_, parent)| fs::create_dir(parent).is_ok()) else {
            println!("not tried: this user may make no cgroup of version 2 here");
            return;
        };
        let thread = parent.join("thread");
        let is_threaded = fs::create_dir(&thread).and_then(|()| fs::write(thread.join("cgroup.type"), "threaded"));
        let moved = unified(&parent).add(process::id());
        let made = make_room(&parent);
        let has_leaf = parent.join(LEAF).exists();
        // Whatever came of it, all is put back first.
        let moved_back = unified(&own).add(process::id());
        let removed = [parent.join(LEAF), thread, parent].map(fs::remove_dir);
        is_threaded.expect("a threaded cgroup");
        moved.and(moved_back).expect("move");
        assert!(removed[1].is_ok() && removed[2].is_ok(), "{removed:?}");
        assert!(matches!(made, Err(NoCgroup::Refused { errno: Errno::EOPNOTSUPP, .. })), "{made:?}");
        assert!(!has_leaf);
    }
}
