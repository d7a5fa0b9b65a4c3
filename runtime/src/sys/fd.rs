//! Descriptors, and messages that carry them.

use std::ffi::{CStr, c_int};
use std::fs::File;
use std::ops::Deref;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::{Duration, Instant};
use std::{mem, ptr, thread};

#[cfg(feature = "images")]
use nix::NixPath as _;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;
use nix::sys::stat::Mode;

use super::process::SingleThreaded;

/// Sends `bytes` with at most [`FDS_MAX`] `fds` as one message. See unix(7) on SCM_RIGHTS. Unlike nix's, it does not allocate.
pub(crate) fn send_with_fds(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> nix::Result<()> {
    send_with_flags(socket, bytes, fds, 0)
}

/// The same, but if there is no room, it fails with EAGAIN.
pub(crate) fn send_with_fds_now(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> nix::Result<()> {
    send_with_flags(socket, bytes, fds, libc::MSG_DONTWAIT)
}

fn send_with_flags(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd], flags: c_int) -> nix::Result<()> {
    with_message(bytes, fds, |header| {
        // SAFETY: `header` refers to `bytes` and the descriptors, with their lengths, and they outlive the call, which writes to neither.
        Errno::result(unsafe { libc::sendmsg(socket.as_raw_fd(), header, flags | libc::MSG_NOSIGNAL) }).map(drop)
    })
}

/// Has `send` send a message with these bytes and descriptors, again if a signal interrupts it.
pub(super) fn with_message(
    bytes: &[u8],
    fds: &[RawFd],
    send: impl Fn(&libc::msghdr) -> nix::Result<()>,
) -> nix::Result<()> {
    if fds.len() > FDS_MAX {
        return Err(Errno::EINVAL);
    }
    let size = size_of_val(fds) as u32;
    let mut control = Control([0; CONTROL_SIZE]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: `msghdr` is integers and pointers, for which zero is a value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    // SAFETY: CMSG_SPACE computes.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as _;
    // SAFETY: `control` is aligned for a control message, and has room for this one; `fds` are as many as are copied.
    unsafe {
        let rights = libc::CMSG_FIRSTHDR(&raw const header);
        (*rights).cmsg_level = libc::SOL_SOCKET;
        (*rights).cmsg_type = libc::SCM_RIGHTS;
        (*rights).cmsg_len = libc::CMSG_LEN(size) as _;
        ptr::copy_nonoverlapping(fds.as_ptr().cast(), libc::CMSG_DATA(rights), size_of_val(fds));
    }
    loop {
        match send(&header) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// How long poll(2) may wait: up to the `deadline`, or without end. It is rounded up, so that the last millisecond is waited for too.
pub(crate) fn time_left(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now());
    PollTimeout::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)
}

/// Waits until something can be read from `fd`, or, where it is a pidfd, until that process has ended, but not beyond the `deadline`.
/// Returns whether it is so.
pub(crate) fn is_ready_by(fd: BorrowedFd<'_>, deadline: Instant) -> nix::Result<bool> {
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], time_left(Some(deadline))) {
            Err(Errno::EINTR) => {}
            // The kernel has no memory to wait with. It may have some in a moment.
            Err(Errno::ENOMEM) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
            result => return result.map(|ready| ready == 1),
        }
    }
}

/// Whether nobody has the other end of a socket any more.
pub(crate) fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO) == Ok(1)
}

/// Sends `bytes` as one message. It waits for room even if somebody made the socket one that does not wait.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<()> {
    loop {
        match nix::sys::socket::send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => match poll(&mut [PollFd::new(socket, PollFlags::POLLOUT)], PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                result => drop(result?),
            },
            result => return result.map(drop),
        }
    }
}

/// The most descriptors that come with one message.
pub(crate) const FDS_MAX: usize = 9;

/// A message that was received.
pub(crate) struct Message {
    /// How many bytes it had; the part that exceeds the buffer is lost.
    pub(crate) length: usize,
    /// The descriptors that came with it.
    pub(crate) fds: Vec<OwnedFd>,
    /// The process that has sent it, if the socket has SO_PASSCRED: 0 for one that this pid namespace does not know.
    pub(crate) sender: Option<i32>,
}

/// Room for the descriptors and the credentials that come with a message, aligned as cmsg(3) asks for.
#[repr(C, align(8))]
struct Control([u8; CONTROL_SIZE]);

// SAFETY: CMSG_SPACE computes.
const CONTROL_SIZE: usize = unsafe {
    libc::CMSG_SPACE((FDS_MAX * size_of::<RawFd>()) as u32) + libc::CMSG_SPACE(size_of::<libc::ucred>() as u32)
} as usize;

/// Receives one message into `buffer`. `None` if the other side is gone. `flags` may be MSG_DONTWAIT.
///
/// A message of no bytes looks like the other side's end, unless the socket has SO_PASSCRED: then something comes with it. Unlike
/// nix's, it also returns the descriptors of a message that had more of them than this process may have.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], flags: MsgFlags) -> nix::Result<Option<Message>> {
    let flags = (flags | MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_TRUNC).bits();
    let mut has_ended = false;
    loop {
        let mut control = Control([0; CONTROL_SIZE]);
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: `msghdr` is integers and pointers, for which zero is a value.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = CONTROL_SIZE as _;
        // SAFETY: `header` refers to `buffer` and `control`, with their lengths, and they outlive the call.
        let received = Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) });
        let length = match received {
            // ECONNRESET says that the other side left without reading all that we had sent; what it sent itself
            // still comes.
            Err(Errno::EINTR | Errno::ECONNRESET) => continue,
            length => length? as usize,
        };
        let (mut fds, mut sender) = (Vec::new(), None);
        let mut is_message = length > 0;
        // SAFETY: the kernel has filled in `header` and what it refers to, and both are still there.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        while !next.is_null() {
            is_message = true;
            // SAFETY: it is a control message, of the length that it says, in `control`.
            let libc::cmsghdr { cmsg_len, cmsg_level, cmsg_type, .. } = unsafe { next.read() };
            if (cmsg_level, cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                // SAFETY: CMSG_LEN computes, and CMSG_DATA points to what follows the head of the message.
                let (head, data) = unsafe { (libc::CMSG_LEN(0) as usize, libc::CMSG_DATA(next).cast::<RawFd>()) };
                #[expect(clippy::unnecessary_cast, reason = "other C libraries have another type")]
                let length = cmsg_len as usize - head;
                for at in 0..length / size_of::<RawFd>() {
                    // SAFETY: there are so many, and the kernel has just made these descriptors for us.
                    fds.push(unsafe { OwnedFd::from_raw_fd(data.add(at).read_unaligned()) });
                }
            }
            if (cmsg_level, cmsg_type) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) {
                // SAFETY: this kind of message is a `ucred`.
                sender = Some(unsafe { libc::CMSG_DATA(next).cast::<libc::ucred>().read_unaligned() }.pid);
            }
            // SAFETY: `next` is one of the control messages of `header`.
            next = unsafe { libc::CMSG_NXTHDR(&raw const header, next) };
        }
        if is_message || has_ended {
            return Ok(is_message.then_some(Message { length, fds, sender }));
        }
        // The kernel looks for a message first, and then whether the other side has ended. A message that came in between is
        // still there, and after the end no other comes.
        has_ended = true;
    }
}

/// What there is at `path` in a directory, a link itself if it is one; for an empty path, the directory, or whatever file it is. Unlike nix's,
/// it knows large files and file systems on 32-bit targets. See fstatat(2).
pub(crate) fn stat(directory: &OwnedFd, path: &CStr) -> nix::Result<libc::stat64> {
    // SAFETY: `stat64` is integers, for which zero is a value.
    let mut stat: libc::stat64 = unsafe { mem::zeroed() };
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    // SAFETY: the path and the result outlive the call.
    Errno::result(unsafe { libc::fstatat64(directory.as_raw_fd(), path.as_ptr(), &raw mut stat, flags) })?;
    Ok(stat)
}

/// How many characters a line of this terminal has. `None` if it is no terminal, or does not know. See ioctl_tty(2).
pub(crate) fn columns(terminal: BorrowedFd<'_>) -> Option<usize> {
    // SAFETY: `winsize` is integers, for which zero is a value.
    let mut size: libc::winsize = unsafe { mem::zeroed() };
    // SAFETY: the result outlives the call, and is what this request writes.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some(size.ws_col.into())
}

/// Sets an attribute of a file, see xattr(7).
#[cfg(feature = "images")]
pub(crate) fn set_attribute(file: &File, name: &str, value: &[u8]) -> nix::Result<()> {
    let set = |name: &CStr| {
        // SAFETY: the name and the value outlive the call, and the value has this length.
        unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) }
    };
    Errno::result(name.with_nix_path(set)?).map(drop)
}

/// Makes the standard stream `number` another name of `fd`, which stays open in an exec. See dup2(2).
pub(crate) fn redirect(fd: BorrowedFd<'_>, number: RawFd) -> nix::Result<()> {
    debug_assert!((0..=2).contains(&number));
    if fd.as_raw_fd() == number {
        // If the stream was closed, it may be that one already.
        // SAFETY: the command takes an integer.
        return Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: the standard streams are owned by nobody: whoever writes to them finds what is there.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// `fd`, or another name for it, with a number above those of the standard streams: if one of those is closed, its number
/// is the next that the kernel gives.
pub(crate) fn above_standard_streams(fd: OwnedFd) -> nix::Result<OwnedFd> {
    if fd.as_raw_fd() > libc::STDERR_FILENO { Ok(fd) } else { duplicate_above(&fd, libc::STDERR_FILENO + 1) }
}

/// Another name for what `fd` refers to, numbered `lowest` or higher, and closed by exec. See F_DUPFD_CLOEXEC in
/// fcntl(2).
pub(crate) fn duplicate_above(fd: &OwnedFd, lowest: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: the command takes an integer.
    let fd = Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) })?;
    // SAFETY: the kernel has just made the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes all descriptors behind the standard streams, except those that are `kept`, which this sorts. `proc` is a directory `/proc`,
/// if there is another than at that path.
///
/// Whoever owned one of them must not use it any more, as is so in a process that was just cloned and forgets what its
/// parent was doing.
pub(crate) fn close_all_but(_: &SingleThreaded, kept: &mut [RawFd], proc: Option<BorrowedFd<'_>>) -> nix::Result<()> {
    for sorted in 1..kept.len() {
        // Few, and so by insertion.
        for at in (1..=sorted).rev() {
            if kept[at - 1] > kept[at] {
                kept.swap(at - 1, at);
            }
        }
    }
    // SAFETY: that nobody misses what is closed is said above.
    unsafe { close_from_but(libc::STDERR_FILENO + 1, kept, proc) }
}

/// Closes all descriptors from `first` on, except those that are `kept`, in ascending order: by close_range(2), or, where a filter that
/// is older refuses that, one by one. `proc` is as for [`close_all_but`]. Async-signal-safe.
///
/// # Safety
///
/// Nobody who owns one of them may use it any more.
pub(super) unsafe fn close_from_but(first: RawFd, kept: &[RawFd], proc: Option<BorrowedFd<'_>>) -> nix::Result<()> {
    let mut first = first as u32;
    // Set where they are closed one by one.
    let mut end = None;
    for kept in kept.iter().map(|fd| *fd as u32).chain([u32::MAX]) {
        if first < kept {
            // SAFETY: it takes integers; about the descriptors, the caller promises.
            match Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, kept - 1, 0) }) {
                Err(errno @ (Errno::ENOSYS | Errno::EPERM | Errno::EACCES)) => {
                    // The first time, none is closed yet.
                    let known = end.or_else(|| descriptors_end(proc)).ok_or(errno)?;
                    end = Some(known);
                    for fd in first..known.min(kept) {
                        // SAFETY: as above. What is not open needs no closing.
                        unsafe { libc::close(fd as RawFd) };
                    }
                }
                result => drop(result?),
            }
        }
        first = first.max(kept.saturating_add(1));
    }
    Ok(())
}

/// A number that is above those of all descriptors of this process: how many it has room for now, see proc_pid_status(5). The limit
/// on them may be a billion.
fn descriptors_end(proc: Option<BorrowedFd<'_>>) -> Option<u32> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let status = match proc {
        Some(proc) => nix::fcntl::openat(proc, c"self/status", flags, Mode::empty()),
        None => nix::fcntl::open(c"/proc/self/status", flags, Mode::empty()),
    };
    let mut text = [0; 4096];
    let length = nix::unistd::read(&status.ok()?, &mut text).ok()?;
    let mut lines = text.get(..length)?.split(|byte| *byte == b'\n');
    let size = lines.find_map(|line| line.strip_prefix(b"FDSize:"))?;
    std::str::from_utf8(size).ok()?.trim().parse().ok()
}

/// A file that is locked, as of flock(2). Unlike nix's, it is unlocked without a panic where the kernel refuses that: then it is unlocked by
/// being closed.
#[derive(Debug)]
pub(crate) struct Locked(File);

impl Locked {
    /// `operation` is LOCK_SH or LOCK_EX, which wait, perhaps with LOCK_NB, which then fails with EWOULDBLOCK.
    pub(crate) fn new(file: File, operation: c_int) -> Result<Self, (File, Errno)> {
        loop {
            // SAFETY: flock takes integers.
            match Errno::result(unsafe { libc::flock(file.as_raw_fd(), operation) }) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err((file, errno)),
                Ok(_) => return Ok(Self(file)),
            }
        }
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Whoever has been forked meanwhile, and has run no program yet, has it open too.
        // SAFETY: flock takes integers.
        unsafe { libc::flock(self.0.as_raw_fd(), libc::LOCK_UN) };
    }
}

#[cfg(test)]
mod tests {
    use std::hint;
    use std::os::fd::AsFd as _;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Barrier, Mutex, mpsc};
    use std::{fs, thread};

    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use nix::unistd::{getpid, gettid};

    use super::*;

    /// The kernel tells of the end before the message about once in five thousand rounds.
    #[test]
    fn a_message_comes_before_the_end() {
        const ROUNDS: u32 = 40_000;
        let (turn, theirs) = (Barrier::new(2), Mutex::new(None));
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0.. {
                    turn.wait();
                    let Some(theirs) = theirs.lock().expect("lock").take() else { break };
                    (0..round % 400).for_each(|spin| _ = hint::black_box(spin));
                    send(OwnedFd::as_fd(&theirs), b"x").expect("send");
                }
            });
            let lost = (0..ROUNDS).find(|_| {
                let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
                let (ours, other) = pair.expect("socketpair");
                *theirs.lock().expect("lock") = Some(other);
                turn.wait();
                loop {
                    match receive(ours.as_fd(), &mut [0], MsgFlags::MSG_DONTWAIT) {
                        Err(Errno::EAGAIN) => {}
                        received => break received.expect("receive").is_none(),
                    }
                }
            });
            // There is no socket any more.
            turn.wait();
            assert_eq!(lost, None);
        });
    }

    static HANDLED: AtomicU32 = AtomicU32::new(0);

    extern "C" fn handle(_: i32) {
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn a_signal_ends_no_wait_for_a_lock() {
        let path = std::env::temp_dir().join(format!("belljar-{}-lock", std::process::id()));
        let open = || File::options().create(true).append(true).open(&path).expect("open");
        // One that does not have system calls begin again.
        let action = SigAction::new(SigHandler::Handler(handle), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler is async-signal-safe.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("sigaction");
        let first = Locked::new(open(), libc::LOCK_EX).expect("a lock");
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                tell.send(gettid()).expect("send");
                Locked::new(open(), libc::LOCK_EX).is_ok()
            });
            let id = told.recv().expect("receive");
            let stat = format!("/proc/self/task/{id}/stat");
            let is_asleep = || fs::read(&stat).is_ok_and(|stat| crate::sys::contains(&stat, b") S "));
            while !is_asleep() {
                thread::yield_now();
            }
            // SAFETY: it takes integers.
            let sent = unsafe { libc::syscall(libc::SYS_tgkill, getpid().as_raw(), id.as_raw(), libc::SIGUSR1) };
            assert_eq!(sent, 0);
            while HANDLED.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            drop(first);
            assert!(second.join().expect("join"));
        });
        fs::remove_file(path).expect("remove");
    }
}
