//! Signals: what becomes of them, and what a crash was.

use std::ffi::{c_int, c_void};
use std::mem;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::collect::map_both;

/// Why the test's process got SIGSEGV or SIGBUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Somebody sent the signal.
    Sent,
    /// An instruction used a bad address. The kernel doesn't know each of them.
    Access { address: Option<u64> },
    /// The body's thread used up its stack.
    StackOverflow,
}

/// How a process takes a signal it has no handler for.
#[derive(Clone, Copy)]
pub(crate) enum Disposition {
    Default,
    Ignore,
}

/// How a process takes a signal: one of the dispositions, or a handler. See sigaction(2).
#[derive(Clone, Copy)]
pub(crate) struct Action(libc::sigaction);

/// Sets how this process takes `signal`, and returns how it did before.
pub(crate) fn set_disposition(signal: c_int, disposition: Disposition) -> Action {
    // SAFETY: `sigaction` is integers and pointers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = match disposition {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignore => libc::SIG_IGN,
    };
    set_action(signal, Action(action))
}

/// The same with an action that was returned.
pub(crate) fn set_action(signal: c_int, action: Action) -> Action {
    let mut before = action;
    // SAFETY: both outlive the call; a handler is one that this process had, or that from which it was forked.
    let _ = unsafe { libc::sigaction(signal, &raw const action.0, &raw mut before.0) };
    before
}

/// Does what may make a file larger than RLIMIT_FSIZE allows. That gets EFBIG then, and this process no SIGXFSZ. See getrlimit(2).
pub(crate) fn without_size_signal<T>(write: impl FnOnce() -> T) -> T {
    let signal = SigSet::from(Signal::SIGXFSZ);
    let Ok(before) = signal.thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return write() };
    let result = write();
    if !before.contains(Signal::SIGXFSZ) {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set and the time outlive the call.
        while unsafe { libc::sigtimedwait(signal.as_ref(), ptr::null_mut(), &raw const at_once) } == -1
            && Errno::last() == Errno::EINTR
        {}
    }
    let _ = before.thread_set_mask();
    result
}

/// Told why the process gets SIGSEGV or SIGBUS, before it dies of it. It must be async-signal-safe.
pub(crate) type CrashHook = fn(Crash);

static CRASH_HOOK: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static GUARD: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// Has `hook` called on SIGSEGV and SIGBUS. The process still dies of the signal, and of nothing else.
///
/// Where a thread without a signal stack has overflowed its stack, the kernel can't call anything, and the process dies
/// with the hook unheard. Rust's own handler, which gives each thread such a stack, is installed by the `main` of the
/// test binary, which never runs here.
pub(crate) fn on_crash(hook: CrashHook) -> nix::Result<()> {
    CRASH_HOOK.store(hook as *mut c_void, Ordering::Release);
    // SAFETY: `sigaction` is integers and pointers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handle_crash as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        let mut before = action;
        // SAFETY: `handle_crash` has the signature that SA_SIGINFO asks for, and is async-signal-safe.
        Errno::result(unsafe { libc::sigaction(signal, &raw const action, &raw mut before) })?;
        if before.sa_sigaction != libc::SIG_DFL {
            // A constructor has set it, such as AddressSanitizer's, and it stays, as the standard library leaves it in `main`.
            set_action(signal, Action(before));
        }
    }
    Ok(())
}

extern "C" fn handle_crash(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let errno = Errno::last_raw();
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo, whose address is set for these signals.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    let [start, end] = map_both([0, 1], |index| GUARD[index].load(Ordering::Acquire));
    let crash = match code {
        ..=0 => Crash::Sent,
        libc::SI_KERNEL => Crash::Access { address: None },
        _ if (start..end).contains(&address) => Crash::StackOverflow,
        _ => Crash::Access { address: Some(address as u64) },
    };
    let hook = CRASH_HOOK.load(Ordering::Acquire);
    // SAFETY: only `on_crash` stores here, and before it installs this handler.
    let hook = unsafe { mem::transmute::<*mut c_void, CrashHook>(hook) };
    hook(crash);
    if crash == Crash::Sent {
        // No instruction will fault again. SA_RESETHAND has put the default back, and the signal stays blocked until
        // this handler returns.
        // SAFETY: raise has no preconditions.
        unsafe { libc::raise(signal) };
    }
    Errno::set_raw(errno);
}

/// Gives this thread a signal stack, and tells [`on_crash`] where its stack ends.
pub(crate) fn install_signal_stack() -> nix::Result<()> {
    let guard = stack_guard()?;
    GUARD[0].store(guard.start, Ordering::Release);
    GUARD[1].store(guard.end, Ordering::Release);
    let mut present = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: `present` outlives the call.
    Errno::result(unsafe { libc::sigaltstack(ptr::null(), &raw mut present) })?;
    if present.ss_flags & libc::SS_DISABLE == 0 {
        // AddressSanitizer has given it one, which it will unmap.
        return Ok(());
    }
    let stack = libc::stack_t { ss_sp: (&raw mut SIGNAL_STACK).cast(), ss_flags: 0, ss_size: SIGNAL_STACK_SIZE };
    // SAFETY: the memory is there for good, and a process has one thread that runs a body.
    Errno::result(unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) }).map(drop)
}

/// Enough for the registers of any processor, and for a frame that is put together on it.
const SIGNAL_STACK_SIZE: usize = 64 * 1024;
static mut SIGNAL_STACK: [u8; SIGNAL_STACK_SIZE] = [0; SIGNAL_STACK_SIZE];

/// The addresses at the end of this thread's stack that fault when it overflows.
fn stack_guard() -> nix::Result<Range<usize>> {
    let check = |result: c_int| if result == 0 { Ok(()) } else { Err(Errno::from_raw(result)) };
    let mut attributes = mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: pthread_getattr_np initialises the attributes of a thread that exists.
    check(unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) })?;
    let (mut lowest, mut stack_size, mut guard_size) = (ptr::null_mut(), 0, 0);
    // SAFETY: the attributes are initialised, and the results outlive the calls.
    let results = unsafe {
        [
            libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut stack_size),
            libc::pthread_attr_getguardsize(attributes.as_ptr(), &raw mut guard_size),
            libc::pthread_attr_destroy(attributes.as_mut_ptr()),
        ]
    };
    results.into_iter().try_for_each(check)?;
    // C libraries differ in whether the guard lies below the stack or at its bottom.
    Ok(lowest.addr().saturating_sub(guard_size)..lowest.addr() + guard_size)
}
