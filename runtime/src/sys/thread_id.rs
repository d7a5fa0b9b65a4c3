//! The id of a thread, where musl keeps it: in a block of the thread's own.
//!
//! musl's raise(3), and so abort(3), goes by it. Its fork(3) puts the new one there. After a clone(2) it still is that of the parent: an abort in
//! the zygote would end the test binary. So the clone puts its own id there. glibc asks the kernel.

/// What a clone must know of its parent.
#[derive(Clone, Copy)]
pub(super) struct Stale(#[cfg(target_env = "musl")] libc::pid_t);

/// To be called before a clone.
pub(super) fn before_clone() -> Stale {
    Stale(
        #[cfg(target_env = "musl")]
        own(),
    )
}

/// To be called in the clone, which has one thread. It makes system calls and nothing else.
#[cfg(target_env = "musl")]
pub(super) fn renew(Stale(stale): Stale) {
    use std::sync::atomic::{AtomicI32, Ordering};

    use nix::errno::Errno;

    /// How many words lie before the id, in the `struct pthread` of musl's `pthread_impl.h`. With the thread's own data above the block, three
    /// of them are at its end.
    const WORDS: usize = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) { 6 } else { 4 };
    // SAFETY: it takes nothing, and what it returns is the address of this thread's block.
    let block = unsafe { libc::pthread_self() } as *const usize;
    // SAFETY: a block has some dozens of words. It is aligned, and only this thread and its C library use it.
    let id = unsafe { &*block.add(WORDS).cast::<AtomicI32>() };
    // In a musl that has something else there, nothing is touched.
    if id.load(Ordering::Relaxed) != stale {
        return;
    }
    // Whether raise(3) goes by it: there is no thread -1, and no signal 0.
    id.store(-1, Ordering::Relaxed);
    // SAFETY: raise has no preconditions.
    let is_id = unsafe { libc::raise(0) } == -1 && Errno::last() == Errno::EINVAL;
    id.store(if is_id { own() } else { stale }, Ordering::Relaxed);
}

#[cfg(not(target_env = "musl"))]
pub(super) fn renew(Stale(): Stale) {}

/// This thread's id, in the kernel's own words.
#[cfg(target_env = "musl")]
fn own() -> libc::pid_t {
    // SAFETY: gettid takes nothing, and never fails.
    (unsafe { libc::syscall(libc::SYS_gettid) }) as libc::pid_t
}
