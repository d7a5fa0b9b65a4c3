//! The zygote: a fork of the test binary from before `main`, from which all sandboxes come.
//!
//! It has one thread and has run no test. So it may do what a test's thread can't: fork without inheriting a lock that
//! another thread holds, and enter a user namespace. What it forks finds all statics as they were at the start, and
//! needs no exec: a test's `fn` pointer is as good there as here.
//!
//! 1. belljar's constructor first runs the constructors that come after it. Then it forks the zygote.
//! 2. It waits for requests, and hands each to a [template]: a fork of its own that is in a user namespace and a mount namespace, in
//!    which the host is read-only. There is one for each kind of sandbox, made when the first is asked for.
//! 3. The template clones init, and goes on; neither ever waits for a test.
//! 4. When the test binary is gone, or asks for nothing any more, the zygote ends, and all templates and sandboxes with it.
//!
//! This file is the test binary's side. The [server] is the zygote.
#![expect(unsafe_code, reason = "the fork itself")]

pub(crate) mod ids;
mod keeper;
pub(crate) mod request;
mod server;
mod template;

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, process};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use nix::unistd::{Pid, getpid};

use crate::cgroup::Joining;
use crate::collect::CollectVec as _;
use crate::proc::{self, name_in, pid_of, stat, threads_of};
use crate::sandbox::Channel;
use crate::spec::{Spec, Test};
use crate::sys::{self, Cloned};
#[cfg(feature = "images")]
use request::encode_image;
use request::{Request, SWEEPER, encode_root_at};

/// The zygote, as the test binary sees it.
#[derive(Debug)]
pub(crate) struct Zygote {
    requests: OwnedFd,
    pidfd: OwnedFd,
}

static ZYGOTE: OnceLock<nix::Result<Zygote>> = OnceLock::new();

/// How long the zygote may take to end. It kills what there is, and waits for that.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often sandboxes were planned anew because the host was no longer what they were planned from.
static OUTDATED: AtomicU32 = AtomicU32::new(0);

/// Set when this process begins to end.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Forks the zygote. `leave` is called when this process exits. `for_one`: this process is likely to run one test, and no
/// more. Returns whether there is a zygote; if there is none, each test says why.
pub(crate) fn start(leave: extern "C" fn(), for_one: bool) -> bool {
    // Nobody else sets it: constructors run once.
    let _ = ZYGOTE.set(fork(leave, for_one));
    matches!(ZYGOTE.get(), Some(Ok(_)))
}

/// What stands in the way of a zygote, if it can't even be forked.
pub(crate) fn fail(errno: Errno) {
    let _ = ZYGOTE.set(Err(errno));
}

fn fork(leave: extern "C" fn(), for_one: bool) -> nix::Result<Zygote> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let (ours, theirs) = (sys::above_standard_streams(ours)?, sys::above_standard_streams(theirs)?);
    let owner = getpid();
    // It alone is the zygote's owner. A fork of it must leave the zygote alone.
    sys::mark_process()?;
    let cloned = if is_single_threaded() {
        // SAFETY: there is one thread, and it is here.
        unsafe { sys::clone_zygote() }
    } else {
        let _ = BESIDE_FORK.set(other_threads().iter().filter_map(|thread| name_in(thread)).collect_vec());
        // SAFETY: the zygote uses no locks but those of the C library, of the allocator, and of the standard library.
        unsafe { sys::threads::fork_zygote(others_run) }
    };
    match cloned? {
        Cloned::Parent(pidfd) => {
            sys::at_exit(leave)?;
            Ok(Zygote { requests: ours, pidfd: sys::above_standard_streams(pidfd)? })
        }
        Cloned::Child(proof) => {
            drop(ours);
            server::serve(theirs, owner, for_one, &proof)
        }
    }
}

/// The threads of this process besides the first, which this is.
fn other_threads() -> Vec<PathBuf> {
    threads_of(process::id()).into_iter().skip(1).collect_vec()
}

/// Whether one of them does not sleep.
fn others_run() -> bool {
    other_threads().iter().any(|other| stat(other).and_then(|stat| stat.state()).is_some_and(|state| state != 'S'))
}

/// The names of the other threads that this process had when it was to fork the zygote.
static BESIDE_FORK: OnceLock<Vec<String>> = OnceLock::new();

/// The names of the threads that constructors had started, which sandboxes lack, or because of which there is no zygote.
pub(crate) fn threads_lost_in_fork() -> &'static [String] {
    BESIDE_FORK.get().map_or(&[], Vec::as_slice)
}

/// Whether constructors have started no threads. A process's directory of threads has one link for each, and two for itself.
fn is_single_threaded() -> bool {
    fs::metadata("/proc/self/task").is_ok_and(|threads| threads.nlink() == 3)
}

/// Lets the zygote end, and waits until it has, so that nothing is left when the test binary is gone. Returns whether this process had
/// one of its own.
pub(crate) fn end() -> bool {
    let Some(Ok(zygote)) = ZYGOTE.get().filter(|zygote| zygote.as_ref().is_ok_and(Zygote::is_own)) else {
        return false;
    };
    ENDING.store(true, Ordering::Release);
    let _ = shutdown(zygote.requests.as_raw_fd(), Shutdown::Both);
    // Somebody may have stopped it.
    let _ = sys::resume(zygote.pidfd.as_fd());
    // One that waits for a template that somebody has stopped is killed, and with it all templates.
    if sys::is_ready_by(zygote.as_fd(), Instant::now() + PATIENCE) != Ok(true) {
        kill(zygote);
    }
    let _ = sys::wait_pidfd(zygote.pidfd.as_fd());
    true
}

/// Kills the zygote, and waits until what is below it has ended too. Each of these dies with its parent, but not at the same moment.
fn kill(zygote: &Zygote) {
    let below = pid_of(zygote.as_fd()).map(proc::descendants).unwrap_or_default();
    let below = below.into_iter().filter_map(|pid| sys::pidfd_of(Pid::from_raw(pid as libc::pid_t)).ok()).collect_vec();
    let _ = sys::kill(zygote.as_fd());
    let deadline = Instant::now() + PATIENCE;
    for process in &below {
        let _ = sys::is_ready_by(process.as_fd(), deadline);
    }
}

/// Whether this process has begun to end, and so to end the zygote and all sandboxes.
pub(crate) fn is_ending() -> bool {
    ENDING.load(Ordering::Acquire)
}

/// Has the zygote plan all sandboxes to come anew.
pub(crate) fn plan_anew() {
    OUTDATED.fetch_add(1, Ordering::Relaxed);
}

/// The zygote of this test binary. `None` if it was started with arguments that say to run no test.
pub(crate) fn zygote() -> Option<&'static nix::Result<Zygote>> {
    ZYGOTE.get()
}

impl Zygote {
    /// Whether this process has started it, and was not forked by one that has.
    pub(crate) fn is_own(&self) -> bool {
        sys::is_marked_process()
    }

    /// Asks for a sweeper, which is to have this socket. Fails if a zygote that is stopped has no room for that.
    pub(crate) fn request_sweeper(&self, socket: BorrowedFd<'_>) -> nix::Result<()> {
        sys::send_with_fds_now(self.requests.as_fd(), &[SWEEPER], &[socket.as_raw_fd()])
    }

    /// Asks for a sandbox, which is to have these ends of the channel, and to join its cgroup. A zygote that is stopped may have no room for
    /// one more request: this fails with ETIMEDOUT if there is none before the `deadline`.
    pub(crate) fn request(
        &self,
        spec: &'static Spec,
        channel: Channel,
        joining: Joining,
        deadline: Option<Instant>,
    ) -> nix::Result<()> {
        let generation = joining.generation.wrapping_add(OUTDATED.load(Ordering::Relaxed));
        let request = Request { spec, channel, joining: Joining { generation, ..joining } };
        self.send(&request.encode(), &request.descriptors(), deadline)
    }

    /// Has the zygote keep what `preparation` has left, the root that is mounted in `tmpfs`, for tests that start from it.
    pub(crate) fn keep(&self, preparation: &'static Test, tmpfs: BorrowedFd<'_>) -> nix::Result<()> {
        let message = encode_root_at(preparation, None);
        sys::send_in_time(|| self.send(&message, &[tmpfs.as_raw_fd()], None))
    }

    /// Tells the zygote that the root of `preparation` lies in this directory, or is to be made there.
    pub(crate) fn place(&self, preparation: &'static Test, directory: &Path) -> nix::Result<()> {
        self.send(&encode_root_at(preparation, Some(directory)), &[], None)
    }

    /// Has the zygote forget where the root of `preparation` was to be.
    pub(crate) fn forget_place(&self, preparation: &'static Test) -> nix::Result<()> {
        self.place(preparation, Path::new(""))
    }

    /// Tells the zygote that the image which `spec` asks for has been unpacked to this directory.
    #[cfg(feature = "images")]
    pub(crate) fn image(&self, spec: &'static Spec, directory: &Path) -> nix::Result<()> {
        self.send(&encode_image(spec, directory), &[], None)
    }

    fn send(&self, message: &[u8], descriptors: &[RawFd], deadline: Option<Instant>) -> nix::Result<()> {
        loop {
            match sys::send_with_fds_now(self.requests.as_fd(), message, descriptors) {
                Err(Errno::EAGAIN) => {}
                sent => return sent,
            }
            let mut fds = [PollFd::new(self.requests.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut fds, sys::time_left(deadline)) {
                Ok(0) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => return Err(Errno::ETIMEDOUT),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for Zygote {
    /// The zygote's pidfd.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
