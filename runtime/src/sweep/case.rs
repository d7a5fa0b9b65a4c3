//! One case of a sweep, in three processes: one that has the state, one that runs the body, one that checks what that has left.
//!
//! They are forks, one in the other. So a case finds the memory of the test as it was, and changes nothing of it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::{get_name, set_child_subreaper, set_name};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::state::{State, Synced};
use super::swept::Ended;
use crate::faults::{Fault, PRINTED_NAME};
use crate::proc;
use crate::sys::fork_one_of_two;
use crate::sys::shared::SharedWords;
use crate::sys::{self, End};

/// At most so many bytes of what a case has printed are shown, the last ones.
const SHOWN: u64 = 16384;

/// What is the same for all cases of a sweep.
pub(super) struct Setting<'s> {
    pub(super) directories: &'s [PathBuf],
    pub(super) cuts_power: bool,
    pub(super) timeout: Duration,
    /// Runs the body, and says whether it returned without an error.
    pub(super) body: &'s dyn Fn() -> bool,
    pub(super) check: &'s dyn Fn(Ended),
}

/// What became of a case.
#[derive(Debug)]
pub(super) struct Case {
    /// How many calls were made that the fault is for.
    pub(super) calls: u64,
    /// How many of them it happened to.
    pub(super) hits: u64,
    /// How the body ended, or what is wrong.
    pub(super) end: Result<Ended, Found>,
    /// The end of what was printed.
    pub(super) output: String,
}

/// What is wrong with a case: whose end, and how that was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Found {
    Body(Bad),
    /// After the body had ended in this way.
    Check(Ended, Bad),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bad {
    Panicked,
    Hung,
    Died(End),
}

/// How a process of a case ended.
enum CaseEnd {
    Returned(bool),
    Bad(Bad),
}

/// What the processes of a case write down for each other. A process that has written nothing has not come to its end.
struct Notes(SharedWords);

/// The places of notes.
const BODY: usize = 0;
const CHECK: usize = 1;
/// How many calls the fault happened to.
const HITS: usize = 2;
const IS_OVER: usize = 3;
const ENDED: usize = 4;
/// Whose end is bad, how, and with which status or signal.
const WHOSE: usize = 5;
const BAD: usize = 6;
const STATUS: usize = 7;
const CALLS: usize = 8;
/// Whether the faults are there.
const BEGUN: usize = 9;
const COUNT: usize = 10;

/// What is noted of how a process has ended.
const RETURNED: u64 = 1;
const FAILED: u64 = 2;
const PANICKED: u64 = 3;
const KILLED: u64 = 4;
const HUNG: u64 = 5;
const DIED: u64 = 6;

/// Whose bad end is noted.
const OF_BODY: u64 = 1;
const OF_CHECK: u64 = 2;

impl Notes {
    fn at(&self, place: usize) -> Option<&AtomicU64> {
        self.0.words().get(place)
    }

    fn set(&self, place: usize, value: u64) {
        if let Some(word) = self.at(place) {
            word.store(value, Release);
        }
    }

    fn get(&self, place: usize) -> u64 {
        self.at(place).map_or(0, |word| word.load(Acquire))
    }
}

/// Runs a case, in which this fault happens.
pub(super) fn run(setting: &Setting<'_>, fault: Fault) -> io::Result<Case> {
    io::stdout().flush()?;
    let notes = Notes(SharedWords::new(COUNT)?);
    let output = File::from(memfd_create(PRINTED_NAME, MFdFlags::MFD_CLOEXEC)?);
    let run = Run { setting, notes: &notes, output: &output, name: get_name()? };
    let case = fork_one_of_two(|| {
        let _ = set_name(c"belljar-sweep");
        if let Err(error) = run.run_case(fault) {
            let _ = (&output).write_all(error.to_string().as_bytes());
        }
    });
    sys::wait_pid(case.map_err(in_words)?)?;
    let output = end_of(output)?;
    let end = Some(()).filter(|()| notes.get(IS_OVER) != 0).and_then(|()| notes.end());
    let Some(end) = end else {
        return Err(io::Error::other(if output.is_empty() { "a process of it was killed".to_owned() } else { output }));
    };
    Ok(Case { calls: notes.get(CALLS), hits: notes.get(HITS), end, output })
}

/// Why there is no fork.
fn in_words(errno: Errno) -> io::Error {
    match errno {
        Errno::EDEADLK => io::Error::other("the test has threads besides its own: end them before the sweep"),
        errno => errno.into(),
    }
}

/// A case, in any of its processes.
struct Run<'r> {
    setting: &'r Setting<'r>,
    notes: &'r Notes,
    /// What is printed goes there.
    output: &'r File,
    /// The name of the test's thread.
    name: CString,
}

impl Run<'_> {
    /// What the process does that has the state.
    fn run_case(&self, fault: Fault) -> io::Result<()> {
        let Self { setting, notes, .. } = *self;
        // What the body leaves becomes a child of this process.
        set_child_subreaper(true)?;
        let kills = fault.kills();
        let state = State::copy(setting.directories)?;
        let synced = if setting.cuts_power { Some(Synced::new()?) } else { None };
        let body = self.begin(BODY, setting.body)?;
        let started = fault.start().map_err(io::Error::other).and_then(|fault| {
            // Later than the fault: a call that fails syncs nothing.
            let keeps = synced.as_ref().map(Synced::start).transpose().map_err(io::Error::other)?;
            Ok((fault, keeps))
        });
        let (fault, keeps) = match started {
            Ok(started) => started,
            Err(error) => {
                end_children()?;
                return Err(error);
            }
        };
        let not_kept = fault.not_kept();
        // From here until the faults are over, this process waits, and makes no other call.
        notes.set(BEGUN, 1);
        let outcome = body.wait(setting.timeout);
        let (calls, hits, not_kept) = (fault.calls(), fault.hits(), fault.not_kept() - not_kept);
        // The body may have started some of its own.
        fault.end_later();
        drop((keeps, fault));
        notes.set(CALLS, calls);
        notes.set(HITS, hits);
        end_children()?;
        let ended = match self.outcome(BODY, outcome?) {
            CaseEnd::Returned(true) => Ended::Returned,
            CaseEnd::Returned(false) => Ended::Failed,
            CaseEnd::Bad(Bad::Died(End::Killed { signal: libc::SIGKILL, .. })) if kills && hits > 0 => Ended::Killed,
            CaseEnd::Bad(bad) => {
                notes.note_bad(OF_BODY, bad);
                return Ok(());
            }
        };
        if not_kept > 0 {
            return Err(io::Error::other("what was synced could not be kept"));
        }
        notes.set_ended(ended);
        if let Some(synced) = &synced {
            state.cut_power(synced)?;
        }
        let check = || {
            (setting.check)(ended);
            true
        };
        let end = self.begin(CHECK, &check)?.wait(setting.timeout)?;
        if let CaseEnd::Bad(bad) = self.outcome(CHECK, end) {
            notes.note_bad(OF_CHECK, bad);
        }
        end_children()?;
        notes.set(IS_OVER, 1);
        Ok(())
    }

    /// Forks a process that does `work` when the faults are there.
    fn begin(&self, place: usize, work: &dyn Fn() -> bool) -> io::Result<Child> {
        let pid = fork_one_of_two(|| {
            let _ = set_name(&self.name);
            let streams = [libc::STDOUT_FILENO, libc::STDERR_FILENO];
            if streams.iter().all(|stream| sys::redirect(self.output.as_fd(), *stream).is_ok()) {
                // No fault is for this call.
                while self.notes.get(BEGUN) == 0 {
                    thread::yield_now();
                }
                let ended = catch_unwind(AssertUnwindSafe(work));
                let _ = io::stdout().flush();
                self.notes.set(place, ended.map_or(PANICKED, |succeeds| if succeeds { RETURNED } else { FAILED }));
            }
        })?;
        Ok(Child { pid, pidfd: sys::pidfd_of(pid)? })
    }

    /// How the work of a process came out that has ended in this way, or, with `None`, was not over in time.
    fn outcome(&self, place: usize, end: Option<End>) -> CaseEnd {
        match (self.notes.get(place), end) {
            (_, None) => CaseEnd::Bad(Bad::Hung),
            (RETURNED, _) => CaseEnd::Returned(true),
            (FAILED, _) => CaseEnd::Returned(false),
            (PANICKED, _) => CaseEnd::Bad(Bad::Panicked),
            (_, Some(end)) => CaseEnd::Bad(Bad::Died(end)),
        }
    }
}

impl Notes {
    fn note_bad(&self, whose: u64, bad: Bad) {
        let (kind, status) = match bad {
            Bad::Panicked => (PANICKED, 0),
            Bad::Hung => (HUNG, 0),
            Bad::Died(end) => (DIED, end.wait_status()),
        };
        self.set(WHOSE, whose);
        self.set(BAD, kind);
        self.set(STATUS, status as u64);
        self.set(IS_OVER, 1);
    }

    /// How the body ended, or what is wrong. `None` if that was not noted.
    fn end(&self) -> Option<Result<Ended, Found>> {
        let bad = match self.get(BAD) {
            PANICKED => Bad::Panicked,
            HUNG => Bad::Hung,
            _ => Bad::Died(End::of_wait_status(self.get(STATUS) as i32)),
        };
        match self.get(WHOSE) {
            OF_BODY => Some(Err(Found::Body(bad))),
            OF_CHECK => Some(Err(Found::Check(self.ended()?, bad))),
            _ => self.ended().map(Ok),
        }
    }

    fn set_ended(&self, ended: Ended) {
        let number = match ended {
            Ended::Returned => RETURNED,
            Ended::Failed => FAILED,
            Ended::Killed => KILLED,
        };
        self.set(ENDED, number);
    }

    fn ended(&self) -> Option<Ended> {
        match self.get(ENDED) {
            RETURNED => Some(Ended::Returned),
            FAILED => Some(Ended::Failed),
            KILLED => Some(Ended::Killed),
            _ => None,
        }
    }
}

struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Child {
    /// Waits for its end. `None` if it took too long, and was killed.
    fn wait(self, timeout: Duration) -> io::Result<Option<End>> {
        let deadline = Instant::now().checked_add(timeout);
        let is_late = loop {
            match poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], sys::time_left(deadline)) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(0) if deadline.is_some_and(|deadline| deadline > Instant::now()) => {}
                Ok(ready) => break ready == 0,
            }
        };
        if is_late {
            sys::kill(self.pidfd.as_fd())?;
        }
        let waited = sys::wait_pid(self.pid)?;
        Ok(waited.map(|waited| waited.end).filter(|_| !is_late))
    }
}

/// Ends what the body, or the check, has left.
fn end_children() -> io::Result<()> {
    let this = nix::unistd::getpid();
    loop {
        for pid in proc::all() {
            if proc::parent_of(pid) == Some(this.as_raw() as u32) {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
        }
        match sys::wait_any(0) {
            Ok(_) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The last part of a file, as text.
fn end_of(mut file: File) -> io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(SHOWN)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
