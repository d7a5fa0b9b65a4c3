//! What connects a sandbox to the test binary, and what its init is born with.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair};
use nix::sys::stat::fstat;

use crate::cgroup::Joining;
use crate::frame::{Buffer, Frame, RefusalRef};
use crate::rootfs::build;
use crate::spec::Spec;
use crate::sys::{self, Action, Message};

/// What init is born with.
pub(crate) struct InitArgs<'z> {
    pub(crate) spec: &'static Spec,
    pub(crate) plan: &'z build::Plan,
    /// The directory `/proc` of the host.
    pub(crate) proc: BorrowedFd<'z>,
    /// The template's pidfd.
    pub(crate) template: BorrowedFd<'z>,
    /// An eventfd that is set when the template has mapped the ids, if that is for it to do.
    pub(crate) mapped: Option<BorrowedFd<'z>>,
    /// Whether the session keyring that it is born with is one that nobody can use.
    pub(crate) has_no_keyring: bool,
    /// How the test binary took SIGCHLD when all constructors had run, and what it was called.
    pub(crate) sigchld: Action,
    pub(crate) command: &'z CStr,
    pub(crate) channel: &'z Channel,
    pub(crate) joining: &'z Joining,
    /// Whether it was born in its v2 cgroup, and need not join that any more.
    pub(crate) born_in_cgroup: bool,
}

/// The sandbox's ends of what connects it to the test binary.
pub(crate) struct Channel {
    pub(crate) socket: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// The sandbox's end of the frame socket.
pub(crate) struct FrameSocket(pub(super) OwnedFd);

impl FrameSocket {
    pub(crate) fn send(&self, frame: &Frame<'_>) -> nix::Result<()> {
        send(self.0.as_fd(), frame)
    }

    /// Sends a frame with a socket for the answer, and waits for that. `None` if there is nobody to give one. Fails with EMFILE if the test
    /// binary lives and gives no answer: as a rule, it had no room for that socket.
    pub(super) fn ask(&self, frame: &Frame<'_>, answer: &mut [u8]) -> nix::Result<Option<Message>> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let mut buffer = Buffer::new();
        let message = frame.encode(&mut buffer);
        sys::send_in_time(|| sys::send_with_fds(self.0.as_fd(), message, &[theirs.as_raw_fd()]))?;
        drop(theirs);
        let received = sys::receive(ours.as_fd(), answer, MsgFlags::empty())?;
        let is_lost = received.is_none() && !sys::is_hung_up(self.0.as_fd());
        if is_lost { Err(Errno::EMFILE) } else { Ok(received) }
    }
}

/// The frame socket, for handlers. It is set before the body can run, and only then.
pub(super) static SOCKET: OnceLock<FrameSocket> = OnceLock::new();

/// The inode of the frame socket. If the body closes that, its descriptor's number may come to belong to a file of the body's.
pub(super) static INODE: OnceLock<libc::ino_t> = OnceLock::new();

/// Fails if the body has closed the socket.
pub(super) fn check(socket: &FrameSocket) -> nix::Result<()> {
    let inode = fstat(&socket.0)?.st_ino;
    if INODE.get() == Some(&inode) { Ok(()) } else { Err(Errno::EBADF) }
}

/// The frame socket, if this is a sandbox, and the body has not closed it.
pub(super) fn frame_socket() -> Option<&'static FrameSocket> {
    SOCKET.get().filter(|socket| check(socket).is_ok())
}

/// Sends `frame` over a frame socket.
pub(crate) fn send(socket: BorrowedFd<'_>, frame: &Frame<'_>) -> nix::Result<()> {
    let mut buffer = Buffer::new();
    sys::send(socket, frame.encode(&mut buffer))
}

/// Tells which step has failed, and ends this process, and with it the sandbox.
pub(super) fn give_up(socket: BorrowedFd<'_>, refusal: RefusalRef<'_>) -> ! {
    // Where even this fails, the test binary sees init's death, and says that.
    let _ = send(socket, &Frame::Refused(refusal));
    sys::exit_now(1)
}
