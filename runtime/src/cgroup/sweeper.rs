//! The sweeper: a process that removes the cgroups of a test binary that was ended by a signal.
//!
//! The problem: such a signal ends all sandboxes too, and leaves their cgroups, which are empty. belljar can't catch
//! it: its handler would replace those that tests set. So the test binary asks the zygote for a sweeper as soon as it has made its first
//! directory. The sweeper outlives both. If it ends early, the next request for a sandbox has a new one made.
//!
//! 1. The test binary tells it of each directory that it makes, over a socket.
//! 2. If the test binary ends by itself, it removes them itself, and tells the sweeper that there is nothing to do.
//! 3. If it is gone without a word, the sweeper waits until the sandboxes have ended too, and removes the directories.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_name;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, getpid, getppid};

use super::leaf::{Parent, SWEEPER};
use super::locked::remove_in_time;
use crate::collect::CollectVec as _;
use crate::sys::{self, Disposition, SingleThreaded};

/// How often it is tried to remove a directory whose sandboxes are ending: for 13 seconds in all.
const TRIES: u32 = 17;

/// How long the sweeper may take to begin, or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the sweeper sends with its pidfd.
const BORN: &[u8] = b"0";

/// What tells the sweeper that there is nothing to do. Otherwise, a message is the version of a hierarchy and a path.
const NOTHING: &[u8] = b"0";
const V1: u8 = b'1';
const V2: u8 = b'2';

/// The sweeper, as the test binary sees it.
#[derive(Clone)]
pub(super) struct Sweeper(Arc<OwnedFd>);

impl Sweeper {
    /// A sweeper that knows of these directories. `send` hands the zygote its socket.
    pub(super) fn start<'d>(
        directories: impl Iterator<Item = (&'d Path, bool)>,
        send: impl FnOnce(BorrowedFd<'_>) -> nix::Result<()>,
    ) -> nix::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let sweeper = Self(Arc::new(ours));
        directories.for_each(|(directory, v2)| sweeper.tell(directory, v2));
        send(theirs.as_fd())?;
        Ok(sweeper)
    }

    /// Whether it lives, or is about to be made: somebody has the other end.
    pub(super) fn lives(&self) -> bool {
        !sys::is_hung_up(self.0.as_fd())
    }

    /// Waits until it is born, or can't be made any more, but not beyond the `deadline`.
    pub(super) fn wait_for_birth(&self, deadline: Option<Instant>) {
        let patience = Instant::now() + PATIENCE;
        // It tells of it, or the zygote, which makes it, lets go of the other end.
        let _ = sys::is_ready_by(self.0.as_fd(), deadline.map_or(patience, |deadline| deadline.min(patience)));
    }

    /// Tells it of a directory. If there is no sweeper, the next run sweeps.
    pub(super) fn tell(&self, directory: &Path, v2: bool) {
        let version = if v2 { V2 } else { V1 };
        let _ = sys::send(self.0.as_fd(), &[&[version], directory.as_os_str().as_bytes()].concat());
    }

    /// Ends it, before the cgroups are put back: it may be in the leaf.
    pub(super) fn end(self) -> nix::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // It may have ended, and is to be waited for.
        let _ = sys::send(self.0.as_fd(), NOTHING);
        // It has told of its birth. If it was never born, nobody has the other end by now.
        let born = match sys::is_ready_by(self.0.as_fd(), deadline)? {
            false => None,
            true => sys::receive(self.0.as_fd(), &mut [0], MsgFlags::MSG_DONTWAIT)?,
        };
        let Some(pidfd) = born.and_then(|message| message.fds.into_iter().next()) else { return Ok(()) };
        // Somebody may have stopped it.
        if !sys::is_ready_by(pidfd.as_fd(), deadline)? {
            sys::kill(pidfd.as_fd())?;
        }
        sys::wait_pidfd(pidfd.as_fd())
    }
}

/// What the sweeper does from its birth to its end. `owner` is the test binary.
pub(crate) fn sweep_after(owner: Pid, socket: &OwnedFd, proof: &SingleThreaded) -> ! {
    let _ = set_name(SWEEPER);
    // Who ends the test binary may send the same signal to all that it has started.
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        sys::set_disposition(signal, Disposition::Ignore);
    }
    let is_ready = sys::close_all_but(proof, &mut [socket.as_raw_fd()], None)
        .and_then(|()| sys::pidfd_of(getpid()))
        .and_then(|pidfd| sys::send_in_time(|| sys::send_with_fds(socket.as_fd(), BORN, &[pidfd.as_raw_fd()])));
    // If the test binary is gone, it can't be told, and need not be.
    if matches!(is_ready, Ok(()) | Err(Errno::EPIPE)) {
        for (directory, v2) in left_by(owner, socket) {
            remove(&directory, v2);
        }
    }
    sys::exit_now(0)
}

/// Waits until the test binary is gone, and returns what it has left: directories, and whether they are of version 2.
fn left_by(owner: Pid, socket: &OwnedFd) -> Vec<(PathBuf, bool)> {
    let mut left = Vec::new();
    let mut message = [0; libc::PATH_MAX as usize];
    let pidfd = sys::pidfd_of(owner);
    // As long as it is the parent, it is alive, and the descriptor refers to it.
    let mut is_gone = getppid() != owner;
    loop {
        let fds = [Some(socket), pidfd.as_ref().ok()].into_iter().flatten();
        let mut fds = fds.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect_vec();
        if !is_gone && poll(&mut fds, PollTimeout::NONE).is_ok() {
            is_gone = fds.get(1).and_then(PollFd::any).unwrap_or(false);
        }
        loop {
            match sys::receive(socket.as_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
                Ok(Some(received)) => match message.get(..received.length) {
                    Some(NOTHING) => return Vec::new(),
                    Some([version, path @ ..]) => left.push((OsStr::from_bytes(path).into(), *version == V2)),
                    _ => {}
                },
                Err(Errno::EAGAIN) if !is_gone => break,
                // It is gone, or has closed its end, with all that it has forked.
                _ => return left,
            }
        }
    }
}

fn remove(directory: &Path, v2: bool) {
    let Some(parent) = directory.parent() else { return };
    let in_use = if v2 { Parent::enter(parent).ok() } else { None };
    remove_in_time(directory, TRIES);
    if let Some(in_use) = in_use {
        in_use.leave(parent);
    }
}
