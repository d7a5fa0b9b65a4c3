//! Memory that processes share, and a process beside this one that uses it.

use std::ffi::{CStr, c_void};
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::sys::stat::fstat;

use super::fd::close_from_but;
use super::process::{clone, exit_now, signal};

/// Memory that this process shares with its clones.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: the mapping belongs to this value, wherever that is. Who may use what is in it is up to those who give access.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(length: usize, file: Option<&File>) -> nix::Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (flags, fd) = match file {
            Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
            None => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1),
        };
        // SAFETY: a new mapping disturbs nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), length.get(), access, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let start = NonNull::new(start.cast()).ok_or(Errno::EFAULT)?;
        Ok(Self { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` has mapped it, and nobody borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast::<c_void>(), self.length.get()) };
    }
}

/// Numbers that processes share. They are zero at first, and take memory only where they are used.
#[derive(Debug)]
pub(crate) struct SharedWords(Mapping);

impl SharedWords {
    pub(crate) fn new(count: usize) -> nix::Result<Self> {
        count
            .checked_mul(size_of::<AtomicU64>())
            .ok_or(Errno::ENOMEM)
            .and_then(|size| Mapping::new(size, None))
            .map(Self)
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        let count = self.0.length.get() / size_of::<AtomicU64>();
        // SAFETY: the mapping has so many, is aligned to a page, and zero at first. Whoever has it uses it in this way alone.
        unsafe { slice::from_raw_parts(self.0.start.as_ptr().cast(), count) }
    }
}

/// Bytes that processes share, in memory that a descriptor stands for too. A process that has that can read them in other ways.
#[derive(Debug)]
pub(crate) struct SharedBytes(Mapping);

impl SharedBytes {
    /// `length` bytes, which are zero, and the file that they are.
    pub(crate) fn new(name: &CStr, length: usize) -> nix::Result<(Self, File)> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(name, flags)?);
        // Where files may not become so large, it fails, and is no one's end.
        super::without_size_signal(|| file.set_len(length as u64)).map_err(|error| super::errno::errno_of(&error))?;
        // Whoever touches a mapping that has lost its file, is killed.
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW))?;
        Ok((Self(Mapping::new(length, Some(&file))?), file))
    }

    /// The bytes that another process has made by [`new`](Self::new), if they are so many, and will stay as many.
    pub(crate) fn of(file: &File, length: usize) -> nix::Result<Self> {
        let seals = SealFlag::from_bits_retain(fcntl(file, FcntlArg::F_GET_SEALS)?);
        let is_sealed = seals.contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW);
        let has_length = u64::try_from(fstat(file)?.st_size) == Ok(length as u64);
        if is_sealed && has_length { Mapping::new(length, Some(file)).map(Self) } else { Err(Errno::EINVAL) }
    }

    /// Puts the bytes there. What would lie behind the end is left out.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        let length = bytes.len().min(self.0.length.get().saturating_sub(at));
        if length > 0 {
            // SAFETY: so many bytes lie in the mapping from there on. Nobody has a reference into it, so that what another process writes there at
            // the same time makes the content unknown, and nothing else.
            unsafe { self.0.start.as_ptr().add(at).copy_from_nonoverlapping(bytes.as_ptr(), length) };
        }
    }

    /// Reads a number that [`write`](Self::write) has put there, the lowest byte first. It is zero behind the end.
    pub(crate) fn read_u32(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        if at.checked_add(4).is_some_and(|end| end <= self.0.length.get()) {
            // SAFETY: four bytes lie in the mapping from there on. For the rest, see `write`.
            unsafe { self.0.start.as_ptr().add(at).copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        }
        u32::from_le_bytes(bytes)
    }

    /// Numbers at the beginning, which are used in this way alone.
    pub(crate) fn words(&self, count: usize) -> &[AtomicU64] {
        let count = count.min(self.0.length.get() / size_of::<AtomicU64>());
        // SAFETY: so many lie in the mapping, which is aligned to a page. That `write` leaves them alone is said above.
        unsafe { slice::from_raw_parts(self.0.start.as_ptr().cast(), count) }
    }
}

/// Clones this process into one that has the same parent, and so is no child of this one, and has only the descriptors that are `kept`,
/// in ascending order. It runs `work`, with all signals blocked, and ends. What this returns refers to it, see pidfd_open(2).
///
/// Other threads may hold locks at that moment, and the memory allocator's is one. The clone lacks those threads. So if `work` allocates,
/// prints, or takes another lock, it may wait for ever.
pub(crate) fn clone_beside(kept: &[RawFd], work: impl FnOnce()) -> nix::Result<OwnedFd> {
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    let mut pidfd = -1;
    // SAFETY: there is no CLONE_VM. A lock that another thread holds is never given back in the child, which then waits for it for ever: what
    // the lock guards is not looked at. Nothing else is changed by other threads while it is in use here.
    let child = Errno::result(unsafe { clone(libc::CLONE_PARENT | libc::CLONE_PIDFD, Some(&mut pidfd)) });
    if child == Ok(0) {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: in the clone nobody else uses descriptors, and `work` knows of those that are kept.
            let closed = unsafe { close_from_but(0, kept, None) };
            if closed.is_ok() {
                work();
            }
        }));
        exit_now(i32::from(panicked.is_err()));
    }
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    child?;
    // SAFETY: the kernel has just made the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// Whether the process that `pidfd` refers to has ended.
pub(crate) fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::ZERO) {
            // A signal came, which says nothing of the process.
            Err(Errno::EINTR) => {}
            Ok(ready) => return ready != 0,
            // Who may have no descriptor open may not ask for one either. A process that was waited for takes no signal.
            Err(_) => return signal(pidfd, 0) == Err(Errno::ESRCH),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::thread;

    use nix::sys::signal::{SaFlags, SigAction, SigHandler, Signal, sigaction};
    use nix::unistd::{getpid, gettid};

    use super::*;

    static HANDLED: AtomicU32 = AtomicU32::new(0);

    extern "C" fn handle(_: i32) {
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn a_signal_is_not_the_end() {
        let action = SigAction::new(SigHandler::Handler(handle), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler is async-signal-safe.
        unsafe { sigaction(Signal::SIGUSR2, &action) }.expect("sigaction");
        let this = crate::sys::pidfd_of(getpid()).expect("a pidfd");
        let (id, is_over) = (gettid(), AtomicBool::new(false));
        let is_told = thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // SAFETY: it takes integers.
                    let sent =
                        unsafe { libc::syscall(libc::SYS_tgkill, getpid().as_raw(), id.as_raw(), libc::SIGUSR2) };
                    assert_eq!(sent, 0);
                }
            });
            // Some of them come while it looks.
            let mut is_told = false;
            while !is_told && HANDLED.load(Ordering::Relaxed) < 50_000 {
                is_told = has_ended(this.as_fd());
            }
            is_over.store(true, Ordering::Relaxed);
            is_told
        });
        assert!(!is_told);
    }
}
