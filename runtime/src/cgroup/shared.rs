//! v2: the cgroup that the tests run in. Cgroups below it get controllers only while it holds no process itself, so that
//! those of the test run have to move to a leaf. Several test binaries may be at it at once: they take turns, and the last
//! one to leave puts everything back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;
use std::{iter, process, thread};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{Controller, Trouble, write};
use crate::host::census::parent_of;

/// The cgroup that the processes of the test run move to.
pub(super) const LEAF: &str = "belljar.leaf";

const CONTROL: &str = "cgroup.subtree_control";
const PROCS: &str = "cgroup.procs";

/// A cgroup that this process uses with others. While one of them has it, it isn't put back.
pub(super) struct Shared {
    users: Flock<File>,
}

impl Shared {
    pub(super) fn enter(parent: &Path) -> Result<Self, Trouble> {
        let _turn = turn(parent)?;
        Ok(Self { users: lock(parent, FlockArg::LockShared)? })
    }

    /// Has cgroups below `parent` get this controller.
    pub(super) fn enable(&self, parent: &Path, controller: Controller) -> Result<(), Trouble> {
        let _turn = turn(parent)?;
        if has(parent, controller) {
            return Ok(());
        }
        // The kernel refuses some controllers while there are processes; with the others, it lets them be the only ones
        // that there can ever be.
        make_room(parent)?;
        for _ in 0..1000 {
            match turn_on(parent, controller) {
                // A process was forked meanwhile, or the kernel needs a moment to see that the last one has moved.
                Err(Trouble::Refused { errno: Errno::EBUSY, .. }) => thread::sleep(Duration::from_millis(1)),
                result => return result,
            }
            make_room(parent)?;
        }
        turn_on(parent, controller)
    }

    /// Puts everything back, if nobody else uses it.
    pub(super) fn leave(self, parent: &Path) {
        let Ok(_turn) = turn(parent) else { return };
        drop(self.users);
        if lock(parent, FlockArg::LockExclusiveNonblock).is_err() {
            return;
        }
        let leaf = parent.join(LEAF);
        for controller in [Controller::Pids, Controller::Memory, Controller::Cpu] {
            if leaf.exists() && has(parent, controller) {
                let _ = write(&parent.join(CONTROL), &format!("-{}", controller.name()));
            }
        }
        let _ = move_all(&leaf, parent);
        let _ = fs::remove_dir(leaf);
    }
}

/// Waits for this process's turn to change `parent`.
fn turn(parent: &Path) -> Result<Flock<File>, Trouble> {
    lock(&parent.join(CONTROL), FlockArg::LockExclusive)
}

fn lock(path: &Path, kind: FlockArg) -> Result<Flock<File>, Trouble> {
    let file = File::open(path).map_err(|error| Trouble::new(path, &error))?;
    Flock::lock(file, kind).map_err(|(_, errno)| Trouble::Refused { path: path.to_owned(), errno })
}

/// Whether cgroups below `directory` get this controller.
fn has(directory: &Path, controller: Controller) -> bool {
    let enabled = fs::read_to_string(directory.join(CONTROL)).unwrap_or_default();
    enabled.split_whitespace().any(|name| name == controller.name())
}

/// Has cgroups below `directory` get this controller, if the kernel lets it.
pub(super) fn turn_on(directory: &Path, controller: Controller) -> Result<(), Trouble> {
    write(&directory.join(CONTROL), &format!("+{}", controller.name()))
}

/// Moves the processes in `parent` to the leaf, if there are any, and all of them are of this test run.
fn make_room(parent: &Path) -> Result<(), Trouble> {
    // The root cgroup, which has no type, may have both. Whoever emptied it would move the whole machine.
    if !parent.join("cgroup.type").exists() || processes(parent)?.is_empty() {
        return Ok(());
    }
    // What is about to end, such as the zygote of a test binary that was killed, has lost its place in the family already.
    let mut tries = 0;
    while !are_all_ours(&processes(parent)?) {
        if tries == 100 {
            return Err(Trouble::Foreign(parent.to_owned()));
        }
        tries += 1;
        thread::sleep(Duration::from_millis(1));
    }
    let leaf = parent.join(LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(Trouble::new(&leaf, &error)),
        _ => {}
    }
    move_all(parent, &leaf)
}

/// Moves all processes, and those that they fork meanwhile.
fn move_all(from: &Path, to: &Path) -> Result<(), Trouble> {
    let mut moved = Vec::new();
    loop {
        let left = processes(from)?;
        // What is still there after it was moved, such as a process whose main thread has ended alone, never goes.
        if left.is_empty() || left == moved {
            return Ok(());
        }
        // 0 stands for one that this pid namespace does not know, and would be taken for this process.
        for pid in left.iter().filter(|pid| **pid != 0) {
            match write(&to.join(PROCS), &pid.to_string()) {
                // It has ended.
                Ok(()) | Err(Trouble::Refused { errno: Errno::ESRCH, .. }) => {}
                result => return result,
            }
        }
        moved = left;
    }
}

/// The processes in a cgroup. One that this pid namespace does not know is 0.
fn processes(directory: &Path) -> Result<Vec<u32>, Trouble> {
    let file = directory.join(PROCS);
    let text = fs::read_to_string(&file).map_err(|error| Trouble::new(&file, &error))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Whether all these processes are this one, its ancestors among them, or descend from the oldest of those.
fn are_all_ours(pids: &[u32]) -> bool {
    let parents: BTreeMap<u32, u32> = pids.iter().filter_map(|pid| Some((*pid, parent_of(*pid)?))).collect();
    let ancestors = |pid| iter::successors(Some(pid), |pid| parent_of(*pid)).take_while(|pid| *pid != 0);
    let Some(oldest) = ancestors(process::id()).filter(|pid| parents.contains_key(pid)).last() else {
        // This process is elsewhere already.
        return pids.is_empty();
    };
    // A process that has ended is no trouble.
    pids.iter().all(|pid| *pid != 0 && (!parents.contains_key(pid) || ancestors(*pid).any(|pid| pid == oldest)))
}
