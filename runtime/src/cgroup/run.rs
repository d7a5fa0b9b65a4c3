//! What one test binary makes: a directory in each hierarchy that it needs, and in it one for each sandbox.

use std::any::Any;
use std::collections::VecDeque;
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{mem, process};

use nix::errno::Errno;

use super::controller::{Controller, NoCgroup};
use super::directory::Directory;
use super::find::{Hierarchy, chosen, hierarchies};
use super::leaf::{self, Parent};
use super::limits::DEFAULT_PIDS;
use super::locked::{make_locked, random_name, remove_in_time, remove_tree, sweep};
use super::of_sandbox::{Cgroup, Joining, open_to_join};
use super::sweeper::Sweeper;
use super::systemd;
use super::v1::{Reusable, V1Hierarchy};
use crate::collect::CollectVec as _;
use crate::proc::{own_kernel, pid_of};
use crate::settings::settings;
use crate::spec::{Ids, Spec};
use crate::sys::{Locked, geteuid, is_of_descriptors};

/// How often it is tried to remove a directory whose sandboxes have ended: for a second in all.
const TRIES: u32 = 13;

pub(super) struct Run {
    hierarchies: Option<Result<Vec<Hierarchy>, NoCgroup>>,
    run_directories: Vec<RunDirectory>,
    /// How many cgroups have been made for sandboxes.
    made: u64,
    /// Directories of sandboxes that are over.
    over: Vec<PathBuf>,
    /// Whether no cgroup could be had for a sandbox without written limits. It is not tried again for each test.
    has_none: bool,
    /// Whether systemd was asked for a scope.
    asked_systemd: bool,
    /// How often the zygote was moved to another cgroup.
    moves: u32,
    sweeper: Option<Sweeper>,
}

static RUN: Mutex<Run> = Mutex::new(Run {
    hierarchies: None,
    run_directories: Vec::new(),
    made: 0,
    over: Vec::new(),
    has_none: false,
    asked_systemd: false,
    moves: 0,
    sweeper: None,
});

pub(super) fn run() -> MutexGuard<'static, Run> {
    RUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has no other thread make or remove cgroups, until what is returned is dropped.
pub(crate) fn hold() -> impl Any {
    run()
}

/// Makes the cgroup of a sandbox, with its limits. Where there can be no cgroup, a sandbox that has written no limits goes without.
///
/// To make one of version 1 takes a fiftieth of the time that an empty test takes. So those of sandboxes that have written no limits
/// are used again there.
pub(crate) fn make(spec: &Spec, zygote: BorrowedFd<'_>) -> Result<(Cgroup, Joining), NoCgroup> {
    let written = Controller::written(spec);
    let mut run = run();
    run.remove_those_that_are_over();
    if written.is_empty() && run.has_none {
        return Ok(run.without_cgroup(spec));
    }
    let made = match run.make(spec, &written) {
        Err(trouble) if !written.is_empty() && run.moves_to_scope(&trouble, zygote) => run.make(spec, &written),
        other => other,
    };
    match made {
        // A shortage of descriptors passes. The caller waits for that.
        Err(trouble) if trouble.errno().is_some_and(is_of_descriptors) => Err(trouble),
        // If BELLJAR_CGROUP is set, no test goes on without a cgroup.
        Err(_) if chosen().is_none() && written.iter().all(|controller| has_stand_in(*controller, spec)) => {
            run.has_none |= written.is_empty();
            Ok(run.without_cgroup(spec))
        }
        made => made.map(|(cgroup, joining)| (cgroup, Joining { generation: run.moves, ..joining })),
    }
}

/// Sees to it that there is a sweeper, if there is something to sweep: `send` hands the zygote its socket. If that fails, or the sweeper
/// can't be made or is killed, the next call sees to it.
pub(crate) fn see_to_sweeper(send: impl FnOnce(BorrowedFd<'_>) -> nix::Result<()>) {
    let mut run = run();
    // What another process has made, of which this one is a fork, is in use when this one ends.
    let is_own = run.run_directories.iter().all(|ours| ours.maker == process::id());
    if run.run_directories.is_empty() || !is_own || run.sweeper.as_ref().is_some_and(Sweeper::lives) {
        return;
    }
    if let Some(sweeper) = run.sweeper.take() {
        let _ = sweeper.end();
    }
    let directories = run.run_directories.iter().map(|ours| (ours.directory.as_path(), ours.hierarchy.v2));
    run.sweeper = Sweeper::start(directories, send).ok();
}

/// Waits until there is the sweeper that was asked for last, but not beyond the `deadline`. The zygote makes it before the next sandbox. If no
/// sandbox could be asked for, nobody else waits.
pub(crate) fn wait_for_sweeper(deadline: Option<Instant>) {
    // Others may need the lock meanwhile.
    let sweeper = run().sweeper.clone();
    if let Some(sweeper) = sweeper {
        sweeper.wait_for_birth(deadline);
    }
}

/// Whether there is something else that keeps a limit of this kind as well.
fn has_stand_in(controller: Controller, spec: &Spec) -> bool {
    controller == Controller::Pids && process_limit_is_exact(spec)
}

/// Whether RLIMIT_NPROC limits this sandbox alone: since Linux 5.14, not for root, and in a sandbox with one id only. See getrlimit(2).
fn process_limit_is_exact(spec: &Spec) -> bool {
    // Only who has the lock of cgroups looks at it, and forks wait for that.
    static COUNTS_BY_SANDBOX: LazyLock<bool> = LazyLock::new(|| own_kernel().is_some_and(|version| version >= (5, 14)));
    spec.ids == Ids::One && !geteuid().is_root() && *COUNTS_BY_SANDBOX
}

/// Removes all that this process has made. To be called when no sandbox is left.
pub(crate) fn clean_up() {
    let (run_directories, sweeper) = {
        let mut run = run();
        (mem::take(&mut run.run_directories), run.sweeper.take())
    };
    if let Some(sweeper) = sweeper {
        let _ = sweeper.end();
    }
    for ours in run_directories {
        remove_in_time(&ours.directory, TRIES);
        if let Some(parent) = ours.parent {
            parent.leave(&ours.hierarchy.parent);
        }
    }
}

impl Run {
    /// Whether this process and the zygote are in a cgroup by now that may be divided, because systemd was asked for one. That is
    /// done once, where a cgroup is not this user's to divide, or ends with a test, and nobody has named another.
    fn moves_to_scope(&mut self, trouble: &NoCgroup, zygote: BorrowedFd<'_>) -> bool {
        let is_others = match trouble {
            NoCgroup::Foreign { .. } | NoCgroup::Ends { .. } => true,
            NoCgroup::Refused { errno, .. } => matches!(errno, Errno::EACCES | Errno::EPERM),
            NoCgroup::Missing(_) => false,
        };
        if !cfg!(feature = "systemd") || !is_others || chosen().is_some() || mem::replace(&mut self.asked_systemd, true)
        {
            return false;
        }
        // systemd may take the new scope for dead, which makes it useless. Then another name is tried.
        let move_to_one = |_| {
            let name = format!("belljar-{}.scope", random_name());
            pid_of(zygote).is_some_and(|zygote| systemd::move_to_scope(&name, [process::id(), zygote]))
        };
        let moved = (0..3).any(move_to_one);
        if moved {
            self.hierarchies = None;
            self.moves += 1;
        }
        moved
    }

    pub(super) fn hierarchies(&mut self) -> Result<Vec<Hierarchy>, NoCgroup> {
        if let Some(known) = &self.hierarchies {
            return known.clone();
        }
        let found = hierarchies();
        if !matches!(&found, Err(trouble) if trouble.errno().is_some_and(is_of_descriptors)) {
            self.hierarchies = Some(found.clone());
        }
        found
    }

    fn make(&mut self, spec: &Spec, written: &[Controller]) -> Result<(Cgroup, Joining), NoCgroup> {
        let found = self.hierarchies()?;
        if found.is_empty() && chosen().is_some() {
            return Err(NoCgroup::Missing(Controller::Pids));
        }
        let offers = |controller: Controller| found.iter().any(|found| found.controllers.contains(&controller));
        if let Some(missing) =
            written.iter().find(|controller| !offers(**controller) && !has_stand_in(**controller, spec))
        {
            return Err(NoCgroup::Missing(*missing));
        }
        let mut cgroup = Cgroup::default();
        match self.make_directories(&mut cgroup, &found, spec, written) {
            Ok(mut joining) => {
                let is_limited = cgroup.directory_of(Controller::Pids).is_some();
                joining.process_limit = !is_limited && process_limit_is_exact(spec);
                Ok((cgroup, joining))
            }
            Err(trouble) => {
                self.take_back(&mut cgroup);
                Err(trouble)
            }
        }
    }

    /// Makes the directories of one cgroup. If it fails, `cgroup` has those that it has made too.
    fn make_directories(
        &mut self,
        cgroup: &mut Cgroup,
        found: &[Hierarchy],
        spec: &Spec,
        written: &[Controller],
    ) -> Result<Joining, NoCgroup> {
        let name = self.next_name();
        let mut joining = Joining::default();
        let is_measured = settings().report.is_some();
        for hierarchy in found {
            let limits = |controller: &Controller| *controller == Controller::Pids || written.contains(controller);
            let tells = |controller: &Controller| {
                is_measured || *controller == Controller::Cpuacct && written.contains(&Controller::Cpu)
            };
            let of_interest = |controller: &&Controller| limits(controller) || tells(controller);
            let wanted = hierarchy.controllers.iter().filter(of_interest).copied().collect_vec();
            if wanted.is_empty() {
                continue;
            }
            let ours = match self.run_directory(hierarchy) {
                // Figures are best effort.
                Err(_) if !wanted.iter().any(limits) => continue,
                ours => ours?,
            };
            if wanted.contains(&Controller::Memory) && written.contains(&Controller::Memory) {
                ours.outlives_its_tests()?;
            }
            if !hierarchy.v2 && written.is_empty() && !is_measured {
                let reusable = match Reusable::next(&mut ours.reusable) {
                    Some(reusable) => reusable,
                    None => Reusable::limit(ours.make(&name, vec![Controller::Pids])?)?,
                };
                let tasks = open_to_join(&reusable.directory);
                cgroup.reusable = Some(reusable);
                joining.v1.push(V1Hierarchy::unseen(tasks?));
                continue;
            }
            let required: Vec<_> =
                written.iter().copied().filter(|controller| !has_stand_in(*controller, spec)).collect_vec();
            let controllers = ours.enable(&wanted, &required, is_measured || !written.is_empty())?;
            cgroup.directories.push(ours.make(&name, controllers)?);
            if let Some(directory) = cgroup.directories.last() {
                directory.limit(spec)?;
                joining.add(hierarchy, directory)?;
            }
        }
        Ok(joining)
    }

    /// A name that no other process gives. The pid is part of it: a fork of the test binary inherits the counter.
    fn next_name(&mut self) -> String {
        self.made += 1;
        format!("{}-{}", process::id(), self.made)
    }

    /// Makes one more directory in this hierarchy, of version 1, for groups of a sandbox that has none there.
    pub(super) fn make_one(&mut self, hierarchy: &Hierarchy) -> Result<Directory, NoCgroup> {
        let name = self.next_name();
        let directory = self.run_directory(hierarchy)?.make(&name, Vec::new())?;
        if hierarchy.controllers.contains(&Controller::Pids) {
            // Processes in its groups leave the cgroup that limits the sandbox's others.
            directory.limit_pids(DEFAULT_PIDS)?;
        }
        Ok(directory)
    }

    /// Our directory in this hierarchy, which is made if there is none.
    pub(super) fn run_directory(&mut self, hierarchy: &Hierarchy) -> Result<&mut RunDirectory, NoCgroup> {
        if let Some(known) = self.run_directories.iter().position(|ours| ours.hierarchy.parent == hierarchy.parent) {
            return Ok(&mut self.run_directories[known]);
        }
        if self.run_directories.is_empty() {
            // Those that are not used too: another run may have used them.
            self.hierarchies()?.iter().for_each(|found| sweep(&found.parent));
        }
        // The parent is locked first, so that no other run undoes it meanwhile.
        let parent = if hierarchy.v2 { Some(Parent::enter(&hierarchy.parent)?) } else { None };
        let (directory, lock) = make_locked(&hierarchy.parent)?;
        if let Some(sweeper) = &self.sweeper {
            sweeper.tell(&directory, hierarchy.v2);
        }
        let hierarchy = hierarchy.clone();
        self.run_directories.push(RunDirectory {
            hierarchy,
            directory,
            maker: process::id(),
            _lock: lock,
            reusable: VecDeque::new(),
            enabled: Vec::new(),
            refused: Vec::new(),
            parent,
            ends: None,
        });
        let last = self.run_directories.len() - 1;
        Ok(&mut self.run_directories[last])
    }

    /// No cgroup, but a limit on processes where there can be one.
    fn without_cgroup(&self, spec: &Spec) -> (Cgroup, Joining) {
        let process_limit = process_limit_is_exact(spec);
        (Cgroup::default(), Joining { process_limit, generation: self.moves, ..Joining::default() })
    }

    /// Takes back a cgroup whose sandbox is over.
    fn take_back(&mut self, cgroup: &mut Cgroup) {
        self.over.extend(cgroup.directories.drain(..).map(|directory| directory.path_of("")));
        let Some(reusable) = cgroup.reusable.take() else { return };
        let path = reusable.directory.path_of("");
        match self.run_directories.iter_mut().find(|ours| path.starts_with(&ours.directory)) {
            Some(ours) if !reusable.has_refused.get() => ours.reusable.push_back(reusable),
            _ => self.over.push(path),
        }
    }

    fn remove_those_that_are_over(&mut self) {
        self.over.retain(|directory| !remove_tree(directory));
    }
}

/// Our directory in one hierarchy.
pub(super) struct RunDirectory {
    hierarchy: Hierarchy,
    directory: PathBuf,
    /// The process that has made it. A fork of that uses it too.
    maker: u32,
    /// Held as long as this process lives, however it ends.
    _lock: Locked,
    /// For v1: cgroups for sandboxes without written limits, which no sandbox has now.
    reusable: VecDeque<Reusable>,
    /// For v2: the controllers that the cgroups in it have.
    enabled: Vec<Controller>,
    /// For v2: those that they can't have, and whether the cgroup above was changed to get them. Not tried again for tests that
    /// have written no limit of theirs.
    refused: Vec<(Controller, bool)>,
    /// For v2: our part in the cgroup below which it lies.
    parent: Option<Parent>,
    /// For v2, once it is known: the unit that systemd ends when a test uses up its memory, and its policy, if it does.
    ends: Option<Option<(String, String)>>,
}

impl RunDirectory {
    /// Makes a cgroup in it.
    fn make(&self, name: &str, controllers: Vec<Controller>) -> Result<Directory, NoCgroup> {
        let path = self.directory.join(name);
        fs::create_dir(&path).map_err(|error| NoCgroup::new(&path, &error))?;
        Ok(Directory::at(path, self.hierarchy.v2, controllers))
    }

    /// Fails if systemd ends this run with a test that uses up its memory.
    fn outlives_its_tests(&mut self) -> Result<(), NoCgroup> {
        if !self.hierarchy.v2 {
            return Ok(());
        }
        match self.ends.get_or_insert_with(|| systemd::unit_that_ends(&self.hierarchy.parent)).clone() {
            None => Ok(()),
            Some((unit, policy)) => Err(NoCgroup::Ends { unit, policy }),
        }
    }

    /// Has cgroups below ours get controllers: those that are `wanted`, as far as possible, and those that are `required`,
    /// or it fails. Returns all that they get. The cgroup above is changed only if it may be: for limits that are written, and
    /// where tests are measured because somebody asked for that.
    fn enable(
        &mut self,
        wanted: &[Controller],
        required: &[Controller],
        may_change: bool,
    ) -> Result<Vec<Controller>, NoCgroup> {
        if !self.hierarchy.v2 {
            return Ok(wanted.to_vec());
        }
        for controller in wanted {
            let is_required = required.contains(controller);
            if self.enabled.contains(controller) || !is_required && self.refused.contains(&(*controller, may_change)) {
                continue;
            }
            match self.enable_one(*controller, may_change) {
                Ok(()) => self.enabled.push(*controller),
                Err(trouble) if is_required => return Err(trouble),
                Err(_) => self.refused.push((*controller, may_change)),
            }
        }
        Ok(self.enabled.clone())
    }

    /// Has cgroups below `own`, which is one of ours, get as many controllers as can be had. Returns which. The processes in it
    /// go to a leaf of it.
    pub(super) fn divide(&mut self, own: &Path) -> Result<Vec<Controller>, NoCgroup> {
        let all = match self.outlives_its_tests() {
            Ok(()) => &[Controller::Pids, Controller::Memory, Controller::Cpu][..],
            Err(_) => &[Controller::Pids, Controller::Cpu],
        };
        self.enable(all, &[], true)?;
        leaf::divide(own, all)
    }

    fn enable_one(&mut self, controller: Controller, may_change: bool) -> Result<(), NoCgroup> {
        if let (Some(parent), true) = (&self.parent, may_change) {
            parent.enable(&self.hierarchy.parent, controller)?;
        }
        leaf::turn_on(&self.directory, controller)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.directories.is_empty() || self.reusable.is_some() {
            run().take_back(self);
        }
    }
}
