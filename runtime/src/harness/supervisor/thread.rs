//! The thread that decides.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use libc::seccomp_notif;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::caller::{Caller, Known};
use super::shared::Shared;
use super::told::{Blind, Hit, Report, Told};
use super::{keep, short};
use crate::collect::CollectVec as _;
use crate::faults::board::{Board, Entry};
use crate::faults::calls::IO_URING;
use crate::faults::definition::{Definition, Effect, Position};
use crate::faults::filter::ARCHITECTURE;
use crate::harness::replies::discard;
use crate::sorted::sort;
use crate::sys::seccomp::Reply;
use crate::sys::{self, seccomp, spawn};

/// How many supervisors one sandbox may have: a process that the body forks before its first fault may have its own.
pub(in crate::harness) const SUPERVISORS_MAX: usize = 8;

/// How many threads' positions are remembered.
const THREADS_MAX: usize = 1 << 16;

/// For how long there may be no thread for a supervisor: other tests give processes back when they end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A supervisor. When it is dropped, the thread ends.
pub(in crate::harness) struct Supervisor {
    shared: Arc<Shared>,
    /// Since when it has no thread, if it has none.
    waits_since: Option<Instant>,
}

impl Supervisor {
    /// Is to answer the calls that come by `listener`, as is said in `memory`. Nobody answers before [`start`](Self::start).
    pub(in crate::harness) fn new(listener: OwnedFd, memory: OwnedFd, has_trace: bool) -> nix::Result<Self> {
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd()));
        let memory = File::from(memory);
        let board = Board::of(&memory);
        // Memory is closed at once, and leaves its place to what is made next.
        if board.is_ok() {
            drop(memory)
        } else {
            discard(memory.into())
        }
        if link.is_ok_and(|link| link.as_os_str() != "anon_inode:seccomp notify") {
            discard(listener);
            return Err(Errno::EINVAL);
        }
        let shared = Arc::new(Shared::new(listener, board?, Told::new(has_trace))?);
        Ok(Self { shared, waits_since: Some(Instant::now()) })
    }

    /// Starts the thread, unless it has one. If there can be none now, that is to be tried again. Fails if it was tried for long enough.
    pub(in crate::harness) fn start(&mut self) -> nix::Result<()> {
        let Some(since) = self.waits_since else { return Ok(()) };
        let theirs = Arc::clone(&self.shared);
        let run = move || Thread::new(theirs).run();
        match spawn(thread::Builder::new().name("belljar-faults".to_owned()), Box::new(run)) {
            Ok(_) => self.waits_since = None,
            Err(error) if sys::errno_of(&error) == Errno::EAGAIN && since.elapsed() < PATIENCE => {}
            Err(error) => return Err(sys::errno_of(&error)),
        }
        Ok(())
    }

    /// Whether it has no thread yet.
    pub(in crate::harness) fn waits(&self) -> bool {
        self.waits_since.is_some()
    }

    /// What has become known until now.
    pub(in crate::harness) fn report(&self) -> Report {
        self.shared.told.report()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.shared.over.write(1);
    }
}

/// A call that is answered later.
struct Delayed {
    due: Instant,
    caller: Caller,
    hit: Hit,
}

struct Thread {
    shared: Arc<Shared>,
    /// The faults that are active, in the order of their starts.
    faults: Vec<(Entry, Option<Definition>)>,
    /// How many calls of a thread a fault has seen.
    positions: HashMap<(u64, u32), u64>,
    delayed: Vec<Delayed>,
    known: Known,
}

impl Thread {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, faults: Vec::new(), positions: HashMap::new(), delayed: Vec::new(), known: Known::new() }
    }

    fn run(mut self) {
        seccomp::block_signals();
        let shared = Arc::clone(&self.shared);
        seccomp::wake_in_turn(shared.listener.as_fd());
        loop {
            let mut fds = [shared.listener.as_fd(), shared.looked.as_fd(), shared.over.as_fd()]
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            if let Err(errno) = poll(&mut fds, self.patience()) {
                Self::rest(errno);
                continue;
            }
            let [calls, looked, over] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR));
            if !over.is_empty() {
                return;
            }
            self.answer_delayed();
            if !looked.is_empty() {
                self.look_at_faults();
                shared.take_resolved_calls().into_iter().for_each(|(caller, arch)| self.answer(caller, arch));
            }
            if calls.contains(PollFlags::POLLIN) {
                match seccomp::next_call(shared.listener.as_fd()) {
                    Ok(call) => self.decide(&call),
                    // It was interrupted.
                    Err(Errno::ENOENT) => {}
                    Err(errno) => Self::rest(errno),
                }
            } else if !calls.is_empty() {
                // No process is left.
                return;
            }
        }
    }

    /// What fails for a lack of memory may succeed later. Callers wait for as long: were this thread to end, they would wait for ever.
    fn rest(errno: Errno) {
        if errno != Errno::EINTR {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Until when the next call is to be waited for.
    fn patience(&self) -> PollTimeout {
        let next = self.delayed.iter().map(|delayed| delayed.due).min();
        // A little late is better than too early: poll(2) counts in milliseconds.
        let wait = next.map(|due| due.saturating_duration_since(Instant::now()) + Duration::from_micros(999));
        wait.map_or(PollTimeout::NONE, |wait| PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX))
    }

    fn answer_delayed(&mut self) {
        if self.delayed.is_empty() {
            return;
        }
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut self.delayed).into_iter().partition(|delayed| delayed.due <= now);
        self.delayed = rest;
        for Delayed { caller, hit, .. } in due {
            self.happen(caller, hit);
        }
    }

    /// Looks which faults are active now.
    fn look_at_faults(&mut self) {
        let board = &self.shared.board;
        let mut active = board.active().collect_vec();
        sort(&mut active);
        if !active.iter().eq(self.faults.iter().map(|(entry, _)| entry)) {
            self.faults = active.into_iter().map(|entry| (entry, board.definition(entry))).collect_vec();
            let is_active = |number| self.faults.iter().any(|(entry, _)| entry.number == number);
            self.positions.retain(|(number, _), _| is_active(*number));
        }
    }

    /// Answers a call, now or later.
    fn decide(&mut self, call: &seccomp_notif) {
        let caller = Caller::new(call, &mut self.known);
        self.look_at_faults();
        let is_of_fault =
            |(_, one): &(_, Option<Definition>)| one.as_ref().is_some_and(|one| one.calls.has(caller.number));
        // Of other programs' calls, nothing is read.
        let is_read = call.data.arch == ARCHITECTURE && self.faults.iter().any(is_of_fault);
        if is_read && !caller.is_at_hand() {
            look_beside(&self.shared, caller, call.data.arch);
        } else {
            self.answer(caller, call.data.arch);
        }
    }

    /// Answers a call of which it can be told at once what it names.
    fn answer(&mut self, caller: Caller, arch: u32) {
        let shared = Arc::clone(&self.shared);
        let Some(hit) = self.find_hit(&caller, arch) else {
            shared.reply(&caller, Reply::GoOn);
            return;
        };
        if matches!(hit.effect, Effect::Short(_) | Effect::Keep) {
            // It is not known yet whether there is enough to be short of, or whether it can be kept.
        } else {
            shared.hit(&caller, &hit);
        }
        match Instant::now().checked_add(Duration::from_nanos(hit.delay)) {
            Some(due) if hit.delay > 0 => self.delayed.push(Delayed { due, caller, hit }),
            _ => self.happen(caller, hit),
        }
    }

    /// What happens to a call. Counts it for all faults that it is of.
    fn find_hit(&mut self, caller: &Caller, arch: u32) -> Option<Hit> {
        if self.faults.is_empty() {
            return None;
        }
        let told = &self.shared.told;
        if arch != ARCHITECTURE {
            told.blind(Blind::OtherPrograms);
            return None;
        }
        if caller.call == Some(IO_URING) {
            told.blind(Blind::IoUring);
        }
        let is_of_call = |definition: &&Definition| definition.calls.has(caller.number);
        let of_call = self.faults.iter().filter_map(|(entry, one)| Some((*entry, one.as_ref().filter(is_of_call)?)));
        let mut matching = Vec::new();
        for (entry, definition) in of_call {
            match caller.is_meant(definition) {
                Ok(true) => matching.push((entry, definition)),
                Ok(false) => {}
                Err(_) if self.shared.still_waits(caller) => told.blind(Blind::NotReadable),
                Err(_) => {}
            }
        }
        if matching.is_empty() {
            return None;
        }
        match caller.is_ours(self.shared.board.ours()) {
            Ok(false) if self.shared.still_waits(caller) => {}
            Ok(_) => return None,
            Err(errno) => {
                self.shared.miss(caller, errno);
                return None;
            }
        }
        let mut found = None;
        for (entry, definition) in matching {
            if self.positions.len() >= THREADS_MAX {
                // Of those that have ended, none is asked for again.
                self.positions.retain(|(_, thread), _| fs::exists(format!("/proc/{thread}")).unwrap_or(true));
            }
            if self.positions.len() >= THREADS_MAX {
                self.positions.clear();
            }
            let of_thread = self.positions.entry((entry.number, caller.thread)).or_default();
            *of_thread += 1;
            let Some(of_all) = self.shared.board.add_call(entry) else { continue };
            let position = Position { of_all, of_thread: *of_thread };
            if found.is_none() && definition.when.happens(position) {
                found = Some(Hit { entry, effect: definition.effect, delay: definition.delay, position });
            }
        }
        found
    }

    /// Has the fault happen to a call that waits.
    fn happen(&self, caller: Caller, hit: Hit) {
        let shared = &self.shared;
        let reply = match hit.effect {
            Effect::GoOn => Reply::GoOn,
            Effect::Errno(errno) => Reply::Fails(errno),
            Effect::Returns(value) => Reply::Returns(value),
            Effect::Short(_) => return beside(shared, caller, hit, short::perform),
            Effect::Keep => return beside(shared, caller, hit, keep::perform),
            Effect::Signal(signal) => return self.signal(&caller, signal),
        };
        shared.reply(&caller, reply);
    }

    /// Sends a signal to the caller, and has it go on.
    fn signal(&self, caller: &Caller, signal: i32) {
        let process = caller.process();
        if let Err(errno) = process {
            self.shared.miss(caller, errno);
        }
        // That is the caller's, if it still waits.
        let process = process.ok().filter(|_| self.shared.still_waits(caller));
        let send = || {
            if let Some(process) = process {
                let _ = seccomp::signal_thread(process, caller.thread, signal);
            }
        };
        if signal == libc::SIGKILL {
            send();
            self.shared.reply(caller, Reply::Fails(libc::EINTR));
        } else if self.shared.board.waits_killable() {
            send();
            self.shared.reply(caller, Reply::GoOn);
        } else {
            // A signal would have the call come again.
            self.shared.reply(caller, Reply::GoOn);
            send();
        }
    }
}

/// Has a thread of its own find out what a call names, and then hand it back.
fn look_beside(shared: &Arc<Shared>, caller: Caller, arch: u32) {
    let theirs = Arc::clone(shared);
    let id = caller.id;
    let work = move || {
        seccomp::block_signals();
        caller.look();
        theirs.hand_back(caller, arch);
    };
    if let Err(error) = spawn(thread::Builder::new().name("belljar-faults".to_owned()), Box::new(work)) {
        if seccomp::still_waits(shared.listener.as_fd(), id) {
            shared.told.miss(sys::errno_of(&error));
        }
        let _ = seccomp::reply(shared.listener.as_fd(), id, Reply::GoOn);
    }
}

/// Has a call answered by a thread of its own, since files of the sandbox may take as long as they like. `perform` returns `None` if the call goes on.
fn beside(shared: &Arc<Shared>, caller: Caller, hit: Hit, perform: fn(&Shared, &Caller, Hit) -> Option<Reply>) {
    let theirs = Arc::clone(shared);
    let (id, is_kept) = (caller.id, matches!(hit.effect, Effect::Keep));
    let work = move || {
        seccomp::block_signals();
        let reply = perform(&theirs, &caller, hit).unwrap_or(Reply::GoOn);
        theirs.reply(&caller, reply);
    };
    if let Err(error) = spawn(thread::Builder::new().name("belljar-faults".to_owned()), Box::new(work)) {
        match seccomp::still_waits(shared.listener.as_fd(), id) {
            true if is_kept => shared.board.add_not_kept(),
            true => shared.told.miss(sys::errno_of(&error)),
            false => {}
        }
        let _ = seccomp::reply(shared.listener.as_fd(), id, Reply::GoOn);
    }
}
