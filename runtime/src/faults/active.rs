//! Faults that were started, in a process of the body's.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

use super::board::{Board, Entry};
use super::calls::Calls;
use super::definition::Definition;
use super::error::ErrorKind;
use super::filter;
use crate::frame::{Buffer, Frame};
use crate::sys::{self, ON_THE_WAY, ON_THE_WAY_PAUSE, seccomp};

/// The way to the test binary, with its inode, if this is a sandbox.
type ToSupervisor = fn() -> Option<(BorrowedFd<'static>, libc::ino_t)>;

static TO_SUPERVISOR: OnceLock<ToSupervisor> = OnceLock::new();

/// Tells that this is a sandbox, before the body runs.
pub(crate) fn set_inside(way: ToSupervisor) {
    let _ = TO_SUPERVISOR.set(way);
}

/// What there is once calls are watched. Forks have it too.
struct Watch {
    board: Board,
    watched: Calls,
    cookie: seccomp::Cookie,
}

static WATCH: OnceLock<Watch> = OnceLock::new();

/// Starts watching, unless that is so already.
fn watch(calls: Calls) -> Result<&'static Watch, ErrorKind> {
    static BEGINS: Mutex<()> = Mutex::new(());
    let way = TO_SUPERVISOR.get().ok_or(ErrorKind::NoSandbox)?;
    let _one = BEGINS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(watch) = WATCH.get() {
        return Ok(watch);
    }
    let (socket, inode) = way().ok_or(ErrorKind::NoSandbox)?;
    let (board, memory) =
        Board::new([wide(inode), pipe(&io::stdout()), pipe(&io::stderr())]).map_err(ErrorKind::Board)?;
    let random = u128::from_ne_bytes(sys::random().map_err(ErrorKind::Board)?);
    // Where a call lacks the sixth argument, its register may hold any small number. So the cookie is large.
    let cookie = random as u64 | 1 << 63;
    let watched = calls.watched_with();
    let mut program = filter::build(watched, cookie);
    let mut buffer = Buffer::new();
    let frame = Frame::Faults.encode(&mut buffer);
    // Until the listener is handed over, nobody answers: a watched call of this thread would wait for ever. So it allocates nothing.
    let (listener, is_killable) = seccomp::install_filter(&mut program).map_err(ErrorKind::Filter)?;
    board.set_waits_killable(is_killable);
    let told = hand_over(socket, frame, &[listener.as_raw_fd(), memory.as_fd().as_raw_fd()], cookie);
    if let Err(errno) = told {
        let _ = seccomp::send_past(socket, Frame::Unanswered(errno).encode(&mut buffer), &[], cookie);
    }
    seccomp::close_past(listener, cookie);
    told.map_err(ErrorKind::HandOver)?;
    Ok(WATCH.get_or_init(|| Watch { board, watched, cookie }))
}

/// Sends `frame` with `fds`. While too many descriptors of this user are on their way, it tries again, for [`ON_THE_WAY`].
fn hand_over(socket: BorrowedFd<'_>, frame: &[u8], fds: &[RawFd], cookie: seccomp::Cookie) -> nix::Result<()> {
    let mut waited = Duration::ZERO;
    loop {
        match seccomp::send_past(socket, frame, fds, cookie) {
            Err(Errno::ETOOMANYREFS) if waited < ON_THE_WAY => seccomp::sleep_past(ON_THE_WAY_PAUSE, cookie),
            result => return result,
        }
        waited += ON_THE_WAY_PAUSE;
    }
}

/// How a fault is written and spoken of.
pub(super) struct Words {
    pub(super) name: String,
    /// As it is written in a test.
    pub(super) written: String,
    /// What is to be known of the call, if it is of one and of no kind.
    pub(super) advice: Option<&'static str>,
}

/// The same number: inodes have 32 bits on some machines.
fn wide(inode: impl Into<u64>) -> u64 {
    inode.into()
}

/// The inode of a pipe, which a test's output is unless the body has changed that.
fn pipe(file: &impl AsFd) -> u64 {
    let stat =
        fstat(file).ok().filter(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO);
    stat.map_or(0, |stat| wide(stat.st_ino))
}

pub(super) fn start(definition: &Definition, words: Words) -> Result<ActiveFault, ErrorKind> {
    let watch = watch(definition.calls)?;
    // Of a kind, one is enough.
    let mut numbers = definition.calls.numbers();
    if !numbers.any(|number| watch.watched.has(number)) {
        return Err(ErrorKind::NotWatched(words.name));
    }
    let process = process(watch.cookie);
    let entry = watch.board.start(definition).ok_or(ErrorKind::TooMany)?;
    Ok(ActiveFault { words, watch, entry, process })
}

/// What tells this process from those that it forks.
fn process(cookie: seccomp::Cookie) -> (Result<i32, Errno>, bool) {
    (seccomp::own_pid(cookie), sys::is_marked_process())
}

/// A [`Fault`](crate::Fault) that was started. When it is dropped, calls go through again. What is on its way then, such as a call that is delayed, is not
/// called back.
///
/// It may be sent to other threads. In a process that the body forks, the copy counts the same, and does nothing when it is dropped.
#[must_use = "calls go through again when this is dropped"]
pub struct ActiveFault {
    words: Words,
    watch: &'static Watch,
    entry: Entry,
    process: (Result<i32, Errno>, bool),
}

impl Debug for ActiveFault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} calls", self.words.written, self.hits(), self.calls())
    }
}

impl ActiveFault {
    /// To how many calls it has happened.
    pub fn hits(&self) -> u64 {
        self.watch.board.hits(self.entry)
    }

    /// Ends all faults that were started later.
    pub(crate) fn end_later(&self) {
        self.watch.board.end_later(self.entry);
    }

    /// How often a sweep could not keep what was synced, until now.
    pub(crate) fn not_kept(&self) -> u64 {
        self.watch.board.not_kept()
    }

    /// How many calls it has seen that it is for, those included that went through.
    pub fn calls(&self) -> u64 {
        self.watch.board.calls(self.entry)
    }
}

impl Drop for ActiveFault {
    fn drop(&mut self) {
        if process(self.watch.cookie) != self.process {
            return;
        }
        // Afterwards, the place may be another fault's.
        let calls = self.calls();
        self.watch.board.end(self.entry);
        if thread::panicking() && calls == 0 {
            let advice = self.words.advice.map(|advice| format!(" {advice}")).unwrap_or_default();
            eprintln!("belljar: {} has seen no call that it is for.{advice}", self.words.written);
        }
    }
}
