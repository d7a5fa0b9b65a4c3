//! Bodies whose process, or a thread of it, dies or becomes another.

use std::ffi::{c_int, c_void};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::{hint, io, process, thread};

use belljar::isolated;
use belljar_tests::{body, hang};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::{Pid, getppid};

#[body]
#[isolated]
fn aborts() {
    process::abort();
}

pub(crate) fn read_an_invalid_address() {
    // SAFETY: none. This is meant to fault.
    let value = unsafe { hint::black_box(std::ptr::without_provenance::<u64>(0x1230)).read_volatile() };
    assert_ne!(value, 1);
}

#[body]
#[isolated]
fn reads_an_invalid_address() {
    read_an_invalid_address();
}

#[body]
#[isolated]
fn sends_itself_sigsegv() {
    raise(Signal::SIGSEGV).expect("raise");
}

#[body]
#[isolated]
fn kills_itself() {
    raise(Signal::SIGKILL).expect("raise");
}

#[body]
#[isolated]
fn dies_of_a_real_time_signal() {
    // SAFETY: raise has no preconditions.
    unsafe { libc::raise(40) };
}

#[body]
#[isolated]
fn kills_its_process_group() {
    kill(Pid::from_raw(0), Signal::SIGKILL).expect("kill");
    hang();
}

fn recurse(depth: u64) -> u64 {
    let page = hint::black_box([depth; 512]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + page[depth as usize % 512] }
}

#[body]
#[isolated]
fn overflows_its_stack() {
    hint::black_box(recurse(0));
}

#[body]
#[isolated]
fn overflows_another_stack() {
    let _ = thread::spawn(|| hint::black_box(recurse(0))).join();
}

#[body]
#[isolated]
fn faults_with_the_default_handler() {
    // SAFETY: the default is no code of ours.
    unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
    read_an_invalid_address();
}

/// The handler that was there, and a page that can't be used.
static BEFORE: AtomicUsize = AtomicUsize::new(0);
static PAGE: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
const PAGE_SIZE: usize = 4096;

/// What a library does that takes the signal for its own purposes: it asks the other handler, and puts right what was wrong.
extern "C" fn put_right(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
    // SAFETY: the kernel has had it as a handler of this kind.
    let before = unsafe { std::mem::transmute::<usize, Handler>(BEFORE.load(Ordering::Relaxed)) };
    before(signal, info, context);
    let page = PAGE.load(Ordering::Relaxed).cast();
    // SAFETY: it is a page of this test's.
    unsafe { libc::mprotect(page, PAGE_SIZE, libc::PROT_READ | libc::PROT_WRITE) };
}

#[body]
#[isolated]
fn dies_after_a_fault_that_was_put_right() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping disturbs nothing; actions are integers and pointers, for which zero is a value; the handler is one.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), PAGE_SIZE, libc::PROT_NONE, flags, -1, 0);
        PAGE.store(page.cast(), Ordering::Relaxed);
        let mut before: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGSEGV, std::ptr::null(), &raw mut before);
        BEFORE.store(before.sa_sigaction, Ordering::Relaxed);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = put_right as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut());
        PAGE.load(Ordering::Relaxed).write_volatile(1);
    }
    raise(Signal::SIGKILL).expect("raise");
}

// ---- Ending a thread ----

/// No destructor runs.
fn end_this_thread() {
    // SAFETY: exit takes an integer, and what the thread owns is lost.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

#[body]
#[isolated]
fn ends_its_thread() {
    end_this_thread();
}

#[body]
#[isolated]
#[should_panic]
fn ends_its_thread_although_it_should_panic() {
    end_this_thread();
}

/// A filter kills the thread that asks for its parent.
#[body]
#[isolated]
fn has_its_thread_killed() {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let is_call = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter { jf: 1, ..statement(is_call, libc::SYS_getppid as u32) },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_THREAD),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program outlives the call.
    let set = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
    getppid();
}

/// That of another one is no matter.
#[body]
#[isolated]
fn ends_another_thread() {
    std::mem::forget(thread::spawn(end_this_thread));
}

#[body]
#[isolated]
fn execs() {
    panic!("{}", Command::new("/bin/true").exec());
}

#[body]
#[isolated]
fn execs_what_does_not_exist() {
    let error = Command::new("/nonexistent").exec();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
