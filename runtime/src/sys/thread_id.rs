//! The id of a thread, where musl keeps it: in a block of the thread's own.
//!
//! musl's raise(3), and so abort(3), goes by it. Its fork(3) puts the new one there. After a clone(2) it still is that of the parent: an abort in
//! the zygote would end the test binary. So a clone finds out whether raise(3) goes by that place, and puts its own id there. For its own
//! clones, the kernel does, at no cost. glibc asks the kernel.

use std::ptr;
#[cfg(target_env = "musl")]
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

#[cfg(target_env = "musl")]
use nix::errno::Errno;

/// What a clone must know of its parent.
#[derive(Clone, Copy)]
pub(super) struct BeforeClone {
    /// Where the kernel is to put the clone's id, by CLONE_CHILD_SETTID. Null if that place is not known.
    pub(super) place: *mut libc::pid_t,
    /// The id that is there otherwise.
    #[cfg(target_env = "musl")]
    stale: libc::pid_t,
}

#[cfg(not(target_env = "musl"))]
impl BeforeClone {
    pub(super) fn look() -> Self {
        Self { place: ptr::null_mut() }
    }

    pub(super) fn renew(self) {}
}

/// Whether a raise(3) was seen to go by the place. Clones know it from their parents.
#[cfg(target_env = "musl")]
static IS_KNOWN: AtomicBool = AtomicBool::new(false);

#[cfg(target_env = "musl")]
impl BeforeClone {
    /// To be called before a clone.
    pub(super) fn look() -> Self {
        match IS_KNOWN.load(Ordering::Relaxed) {
            true => Self { place: place(), stale: 0 },
            false => Self { place: ptr::null_mut(), stale: own() },
        }
    }

    /// To be called in the clone, which has one thread. If the place was not known, it makes some system calls, and nothing else.
    pub(super) fn renew(self) {
        if !self.place.is_null() {
            return;
        }
        // SAFETY: a block has some dozens of words. This one is aligned, and only this thread and its C library use it.
        let id = unsafe { AtomicI32::from_ptr(place()) };
        // In a musl that has something else there, nothing is touched.
        if id.load(Ordering::Relaxed) != self.stale {
            return;
        }
        // There is no thread -1, and no signal 0.
        id.store(-1, Ordering::Relaxed);
        // SAFETY: raise has no preconditions.
        let is_id = unsafe { libc::raise(0) } == -1 && Errno::last() == Errno::EINVAL;
        id.store(if is_id { own() } else { self.stale }, Ordering::Relaxed);
        IS_KNOWN.store(is_id, Ordering::Relaxed);
    }
}

/// Where musl has the id of this thread.
#[cfg(target_env = "musl")]
fn place() -> *mut libc::pid_t {
    /// How many words lie before the id, in the `struct pthread` of musl's `pthread_impl.h`. Where a thread's own data lies above the block,
    /// two of them are at its end.
    const WORDS: usize =
        if cfg!(any(target_arch = "x86_64", target_arch = "x86", target_arch = "s390x")) { 6 } else { 4 };
    // SAFETY: it takes nothing, and what it returns is the address of this thread's block.
    let block = unsafe { libc::pthread_self() } as *mut usize;
    block.wrapping_add(WORDS).cast()
}

/// This thread's id, in the kernel's own words.
#[cfg(target_env = "musl")]
fn own() -> libc::pid_t {
    // SAFETY: gettid takes nothing, and never fails.
    (unsafe { libc::syscall(libc::SYS_gettid) }) as libc::pid_t
}
