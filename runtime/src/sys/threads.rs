//! Forks of a process that has other threads, which constructors have started. A fork lacks these threads, and what they would have given
//! back: locks.
//!
//! The C library sees to its own locks when it forks, and allocators to theirs, by pthread_atfork(3). Nobody sees to those of the standard
//! library: a body would wait for ever to print, or to look at its environment. So after the fork,
//! a clone tries each lock. If a lock is taken, the clone ends, and belljar forks again.

use std::ffi::c_int;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};
use std::{env, io, mem, panic, ptr, thread};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair};
use nix::unistd::ForkResult;

use super::fd::{receive, send, time_left};
use super::process::{Cloned, End, SingleThreaded, clone, exit_now, kill, pidfd_of, wait_any, wait_pid};

/// How many forks are tried while all other threads sleep. One that has a lock then has it for good.
const FORKS: u32 = 200;

/// How long forks are tried while others run. One that has a lock may have to wait for a processor.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has `before` run before each fork(2) of this process, then `after` in this process and `after_in_fork` in the fork. All run on the thread that
/// forks. See pthread_atfork(3).
pub(crate) fn at_fork(
    before: extern "C" fn(),
    after: extern "C" fn(),
    after_in_fork: extern "C" fn(),
) -> nix::Result<()> {
    // SAFETY: plain function pointers are all that it asks for.
    match unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after_in_fork)) } {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    }
}

/// Forks the zygote from a process that may have other threads. Unlike one that [`clone_zygote`](super::clone_zygote) makes, `wait` finds
/// it. `others_run` says whether another thread of this process does not sleep. Fails with EDEADLK if a lock is taken in each fork.
///
/// # Safety
///
/// Of locks that other threads may have held, the child must use those of the C library, of allocators, and of the standard library only.
pub(crate) unsafe fn fork_zygote(others_run: impl Fn() -> bool) -> nix::Result<Cloned<OwnedFd>> {
    let (begun, mut forks) = (Instant::now(), 0);
    while forks < FORKS && begun.elapsed() < PATIENCE {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: the caller promises it.
        let child = match unsafe { nix::unistd::fork() }? {
            ForkResult::Child => {
                let proof = SingleThreaded(());
                let errno = match locks_are_free(&proof) {
                    Ok(true) => 0,
                    Ok(false) => exit_now(1),
                    Err(errno) => errno as c_int,
                };
                let told = send(theirs.as_fd(), &errno.to_ne_bytes());
                if errno == 0 && told.is_ok() {
                    return Ok(Cloned::Child(proof));
                }
                exit_now(1)
            }
            ForkResult::Parent { child } => child,
        };
        let pidfd = pidfd_of(child);
        drop(theirs);
        let mut errno = [0; size_of::<c_int>()];
        let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
        if matches!(poll(&mut fds, time_left(Some(begun + PATIENCE))), Ok(0)) {
            // It spins for a lock that no futex has.
            let _ = pidfd.as_ref().map(|pidfd| kill(pidfd.as_fd()));
        }
        match receive(ours.as_fd(), &mut errno, MsgFlags::empty())? {
            Some(_) if errno == [0; 4] => return pidfd.map(Cloned::Parent),
            told => {
                // Where SIGCHLD is ignored, nothing is left of it.
                let _ = wait_pid(child);
                if told.is_some() {
                    return Err(Errno::from_raw(c_int::from_ne_bytes(errno)));
                }
                if others_run() {
                    thread::sleep(Duration::from_millis(1));
                } else {
                    forks += 1;
                }
            }
        }
    }
    Err(Errno::EDEADLK)
}

/// Whether no other thread has taken a lock of the standard library with it that a body may need.
fn locks_are_free(_: &SingleThreaded) -> nix::Result<bool> {
    // With no signal at its end, it is there to be waited for even where SIGCHLD is ignored.
    // SAFETY: the proof says that there is one thread.
    match Errno::result(unsafe { clone(0, None) })? {
        0 => {
            // Without a filter, nothing can be found out.
            if end_rather_than_wait().is_ok() {
                take_locks();
            }
            exit_now(0)
        }
        _ => Ok(wait_any(0)?.is_some_and(|waited| waited.end == End::Exited(0))),
    }
}

/// Takes the locks of the standard library that bodies take most, and gives them back.
fn take_locks() {
    // SAFETY: there is one thread, and this process ends soon.
    unsafe { env::remove_var("BELLJAR") };
    drop(io::stdout().lock());
    drop(io::stderr().lock());
    // What it owns is not this process's to give up.
    mem::forget(panic::take_hook());
}

/// Ends this process with a status other than 0 when it is about to wait for a lock. See futex(2) and seccomp(2).
fn end_rather_than_wait() -> nix::Result<()> {
    /// `SYS_futex_time64`, which only 32-bit targets have.
    const FUTEX_TIME64: u32 = 422;
    extern "C" fn end(_: c_int) {
        exit_now(1)
    }
    let instruction = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let is = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, mem::offset_of!(libc::seccomp_data, nr) as u32),
        instruction(is, 2, 0, libc::SYS_futex as u32),
        instruction(is, 1, 0, FUTEX_TIME64),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_TRAP),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    set_no_new_privs()?;
    // SAFETY: `sigaction` is integers and pointers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = end as *const () as usize;
    // SAFETY: `end` has the signature that is asked for without SA_SIGINFO, and is async-signal-safe.
    Errno::result(unsafe { libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut()) })?;
    // SAFETY: the filter outlives the call.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }).map(drop)
}
