//! Namespaces: the ioctls of ioctl_ns(2), and processes that keep a namespace alive.

use std::ffi::c_int;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::Pid;

use super::fd::close_from_but;
use super::process::{clone, clone3, exit_now, is_marked_process, kill, pidfd_of, wait_pidfd};
use super::spawn;

/// The kind of a namespace, as a flag CLONE_NEW*: NS_GET_NSTYPE in ioctl_ns(2). ENOTTY if the file is none.
pub(crate) fn kind(namespace: BorrowedFd<'_>) -> nix::Result<c_int> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: this ioctl takes no argument.
    Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) })
}

/// The namespace above: NS_GET_PARENT.
pub(crate) fn parent(namespace: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    related(namespace, 0xb702)
}

/// The user namespace that owns a namespace: NS_GET_USERNS.
pub(crate) fn owner(namespace: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    related(namespace, 0xb701)
}

fn related(namespace: BorrowedFd<'_>, request: libc::Ioctl) -> nix::Result<OwnedFd> {
    // SAFETY: both requests that are made take no argument.
    let fd = Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), request) })?;
    // SAFETY: the kernel has just made the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The user who has made a user namespace: NS_GET_OWNER_UID.
pub(crate) fn owner_uid(namespace: BorrowedFd<'_>) -> nix::Result<libc::uid_t> {
    const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
    let mut uid: libc::uid_t = 0;
    // SAFETY: this ioctl writes a `uid_t`, which outlives the call.
    Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) })?;
    Ok(uid)
}

/// What identifies the pid namespace of this process, whatever `/proc` it has. `None` before Linux 6.11. See
/// PIDFD_GET_PID_NAMESPACE in the kernel's `pidfd.h`, and ioctl_ns(2).
pub(crate) fn own_pid_namespace() -> nix::Result<Option<libc::ino_t>> {
    let known = |result| match result {
        Err(errno @ (Errno::EMFILE | Errno::ENFILE)) => Err(errno),
        // The kernel, or a filter, knows no such call.
        Err(_) => Ok(None),
        Ok(value) => Ok(Some(value)),
    };
    let Some(own) = known(pidfd_of(Pid::this()))? else { return Ok(None) };
    // SAFETY: this ioctl takes no argument.
    let fd = Errno::result(unsafe { libc::ioctl(own.as_raw_fd(), libc::PIDFD_GET_PID_NAMESPACE, 0) });
    // SAFETY: the kernel has just made the descriptor.
    let Some(namespace) = known(fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))? else { return Ok(None) };
    Ok(Some(fstat(&namespace)?.st_ino))
}

/// A process that is in other namespaces and does nothing. It ends with whoever has started it, or when this is dropped.
pub(crate) struct Keeper {
    pid: Pid,
    pidfd: OwnedFd,
    /// Whether it is the first of a pid namespace.
    is_init: bool,
    /// Whose it is, and whether that one is marked. A fork of that process must leave it alone.
    owner: (Pid, bool),
}

impl Keeper {
    /// Starts one in new namespaces, `flags` being a set of CLONE_NEW*, or in the namespace `entered`. This process may have threads:
    /// the new one makes system calls and nothing else.
    pub(crate) fn start(flags: c_int, entered: Option<BorrowedFd<'_>>) -> nix::Result<Self> {
        let starter = pidfd_of(Pid::this())?;
        let (told, tell) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let mut pidfd: c_int = -1;
        let new = (flags as u32 | libc::CLONE_PIDFD as u32).into();
        // SAFETY: locks that other threads hold stay locked for ever in the child. It takes none, since `keep` makes system calls only, and
        // never returns.
        let mut cloned = Errno::result(unsafe { clone3(new, Some(&mut pidfd), 0, 0) });
        // A filter may know but the older call, which can do all but time namespaces: these, the new process enters by itself.
        let mut unshared = 0;
        if cloned.is_err() {
            unshared = flags & libc::CLONE_NEWTIME;
            // SAFETY: as above.
            cloned = Errno::result(unsafe { clone((flags & !unshared) | libc::CLONE_PIDFD, Some(&mut pidfd)) });
        }
        let pid = match cloned? {
            0 => keep(starter.as_fd(), tell.as_fd(), unshared, entered),
            pid => Pid::from_raw(pid as libc::pid_t),
        };
        // SAFETY: the kernel has just made the descriptor.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let keeper = Self { pid, pidfd, is_init: flags & libc::CLONE_NEWPID != 0, owner: own() };
        drop(tell);
        let mut errno = [0; size_of::<c_int>()];
        let length = read_whole(&told, &mut errno)?;
        // It has let go of all descriptors when it closes this one.
        match read_whole(&told, &mut [0]) {
            Ok(0) if length == errno.len() => {}
            _ => return Err(Errno::ESRCH),
        }
        match c_int::from_ne_bytes(errno) {
            0 => Ok(keeper),
            errno => Err(Errno::from_raw(errno)),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }
}

/// This process. In a pid namespace of its own, a fork may have the same number.
fn own() -> (Pid, bool) {
    (Pid::this(), is_marked_process())
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.owner != own() || kill(self.pidfd.as_fd()).is_err() {
            return;
        }
        if !self.is_init {
            let _ = wait_pidfd(self.pidfd.as_fd());
        } else if let Ok(pidfd) = self.pidfd.try_clone() {
            // It ends after all others in its pid namespace, and those that are children of this process wait to be waited for.
            // Where there can be no thread, it stays a zombie.
            let _ = spawn(thread::Builder::new(), Box::new(move || _ = wait_pidfd(pidfd.as_fd())));
        }
    }
}

/// Reads until there is nothing more, or the buffer is full.
fn read_whole(file: &OwnedFd, buffer: &mut [u8]) -> nix::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match nix::unistd::read(file, &mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(length)
}

/// What a keeper does: it enters new namespaces, or one that is there, tells how that went, and waits for its starter's end. It makes
/// system calls and nothing else.
fn keep(starter: BorrowedFd<'_>, tell: BorrowedFd<'_>, unshared: c_int, entered: Option<BorrowedFd<'_>>) -> ! {
    let enter = || {
        // SAFETY: setns takes integers.
        let set = |file: BorrowedFd<'_>| Errno::result(unsafe { libc::setns(file.as_raw_fd(), 0) });
        if unshared != 0 {
            // SAFETY: unshare takes an integer.
            Errno::result(unsafe { libc::unshare(unshared) })?;
            // Until now, only what it forks would be there.
            set(open(c"/proc/self/ns/time_for_children", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?.as_fd())?;
        }
        entered.map_or(Ok(0), set)
    };
    let result = enter();
    let (starter, tell) = (starter.as_raw_fd(), tell.as_raw_fd());
    // SAFETY: the owners of what is closed are copies of the starter's, which nobody uses or drops here: this process ends by _exit.
    let closed = unsafe { close_from_but(0, &[starter.min(tell), starter.max(tell)], None) };
    let errno = result.and(closed).err().map_or(0, |errno| errno as c_int).to_ne_bytes();
    // SAFETY: `errno` and `fds` outlive the calls that read and write them.
    unsafe {
        libc::write(tell, errno.as_ptr().cast(), errno.len());
        libc::close(tell);
        let mut fds = [libc::pollfd { fd: starter, events: libc::POLLIN, revents: 0 }];
        while libc::poll(fds.as_mut_ptr(), 1, -1) < 0 {}
    }
    exit_now(0)
}
