//! Bodies that each do one bad thing. [`verdicts`](super) runs them one by one, and knows how each must end.
#![expect(unsafe_code, reason = "bad things are done by hand")]

use std::cell::Cell;
use std::ffi::{OsStr, c_int, c_void};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::{env, fs, hint, io, process, thread};

use belljar::isolated;
use belljar_tests::{body, fork, hang};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, raise, sigprocmask};
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{wait, waitpid};
use nix::unistd::{ForkResult, Pid, getpgrp, getpid, getppid, getsid, pipe, read, setsid};

/// Whoever asks for it gets a message of a million letters.
pub(super) const MILLION: usize = 1024 * 1024;

/// As many bytes as the harness gets from `floods_stdout`.
pub(super) const FLOOD: usize = 100 * 1024 * 1024;

// ---- Panics ----

#[body]
#[isolated]
fn panics() {
    panic!("on purpose");
}

#[body]
#[isolated]
fn panics_at_length() {
    panic!("{}", "x".repeat(MILLION));
}

#[body]
#[isolated]
#[should_panic]
fn panics_as_it_should() {
    panic!("on purpose");
}

#[body]
#[isolated]
#[should_panic(expected = "on purp")]
fn panics_as_expected() {
    panic!("on purpose");
}

#[body]
#[isolated]
#[should_panic(expected = "xy")]
fn panics_at_length_as_expected() {
    panic!("{}y", "x".repeat(MILLION));
}

#[body]
#[isolated]
#[should_panic(expected = "by accident")]
fn panics_otherwise_than_expected() {
    panic!("on purpose");
}

#[body]
#[isolated]
fn panics_without_text() {
    std::panic::panic_any(7_u32);
}

#[body]
#[isolated]
#[should_panic]
fn panics_without_text_as_it_should() {
    std::panic::panic_any(7_u32);
}

#[body]
#[isolated]
fn panics_while_panicking() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("again");
        }
    }
    let _bomb = Bomb;
    panic!("on purpose");
}

/// Panics when its thread ends.
struct Late(Cell<bool>);

impl Drop for Late {
    fn drop(&mut self) {
        assert!(!self.0.get(), "too late");
    }
}

thread_local! {
    static LATE: Late = const { Late(Cell::new(false)) };
}

#[body]
#[isolated]
fn panics_in_a_thread_local() {
    LATE.with(|late| late.0.set(true));
}

#[body]
#[isolated]
fn panics_when_the_payload_is_dropped() {
    struct Payload;
    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    std::panic::panic_any(Payload);
}

// ---- Returning ----

#[body]
#[isolated]
fn returns() {}

#[body]
#[isolated]
#[should_panic]
fn returns_although_it_should_panic() {}

#[body]
#[isolated]
fn returns_ok() -> Result<(), String> {
    Ok(())
}

#[body]
#[isolated]
fn returns_err() -> Result<(), String> {
    Err("on purpose".to_owned())
}

#[body]
#[isolated]
fn returns_success() -> ExitCode {
    ExitCode::SUCCESS
}

#[body]
#[isolated]
fn returns_failure() -> ExitCode {
    ExitCode::from(77)
}

#[body]
#[isolated]
fn returns_something_that_terminates() -> impl process::Termination {
    ExitCode::from(3)
}

// ---- Ending by itself ----

#[body]
#[isolated]
fn exits_0() {
    process::exit(0);
}

#[body]
#[isolated]
fn exits_1() {
    process::exit(1);
}

#[body]
#[isolated]
fn exits_like_one_that_reported() {
    process::exit(90);
}

#[body]
#[isolated]
fn exits_like_one_that_could_not_report() {
    process::exit(91);
}

#[body]
#[isolated]
fn exits_from_another_thread() {
    thread::spawn(|| process::exit(0));
    hang();
}

#[body]
#[isolated]
fn exits_0_at_once() {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(0) };
}

#[body]
#[isolated]
fn exits_101_at_once() {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(101) };
}

#[body]
#[isolated]
fn exits_at_once_like_one_that_reported() {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(90) };
}

#[body]
#[isolated]
#[should_panic]
fn exits_0_although_it_should_panic() {
    process::exit(0);
}

#[body]
#[isolated]
fn calls_another_test() {
    returns();
}

#[body]
#[isolated]
#[should_panic]
fn calls_another_test_although_it_should_panic() {
    returns();
}

#[body]
#[isolated]
fn calls_another_test_that_should_panic() {
    panics_as_it_should();
    println!("and goes on");
}

#[body]
#[isolated]
#[should_panic]
fn exits_1_although_it_should_panic() {
    process::exit(1);
}

#[body]
#[isolated]
#[should_panic]
fn exits_0_at_once_although_it_should_panic() {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(0) };
}

#[body]
#[isolated]
#[should_panic]
fn aborts_although_it_should_panic() {
    process::abort();
}

#[body]
#[isolated]
#[should_panic(expected = "on purpose")]
fn exits_after_a_panic_that_was_caught() {
    let _ = std::panic::catch_unwind(|| panic!("on purpose"));
    process::exit(0);
}

extern "C" fn kill_this_process() {
    let _ = raise(Signal::SIGKILL);
}

#[body]
#[isolated]
fn dies_in_an_exit_handler() {
    // SAFETY: a function pointer is all that atexit asks for.
    unsafe { libc::atexit(kill_this_process) };
}

extern "C" fn exit_this_process() {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(0) };
}

#[body]
#[isolated]
fn exits_0_in_an_exit_handler() {
    // SAFETY: a function pointer is all that atexit asks for.
    unsafe { libc::atexit(exit_this_process) };
}

// ---- Dying ----

#[body]
#[isolated]
fn aborts() {
    process::abort();
}

fn read_an_invalid_address() {
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

// ---- Descriptors ----

#[body]
#[isolated]
fn closes_every_descriptor() {
    for fd in 0..4096 {
        // SAFETY: none; that is the point.
        unsafe { libc::close(fd) };
    }
}

#[body]
#[isolated]
fn replaces_every_descriptor() {
    let file = File::options().write(true).create_new(true).open("/tmp/victim").expect("open");
    for fd in 3..4096 {
        // SAFETY: none; that is the point.
        unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&file), fd) };
    }
    // The file has the number of the descriptor that leads to the test binary now. Nothing may be written to it.
    extern "C" fn look() {
        let text = fs::read_to_string("/tmp/victim").unwrap_or_default();
        let verdict = if text.is_empty() { "the file is empty\n" } else { "the file was written to\n" };
        let _ = io::stdout().write_all(verdict.as_bytes());
    }
    // SAFETY: a function pointer is all that atexit asks for.
    unsafe { libc::atexit(look) };
    std::mem::forget(file);
}

fn write_rubbish() {
    for fd in 0..4096 {
        for rubbish in [&b"rubbish"[..], &[0; 4096], &[0xff; 64]] {
            // SAFETY: the buffer is valid. That the descriptors are others' is the point.
            unsafe { libc::write(fd, rubbish.as_ptr().cast(), rubbish.len()) };
        }
    }
}

#[body]
#[isolated]
fn writes_rubbish_to_every_descriptor() {
    write_rubbish();
}

#[body]
#[isolated]
fn writes_rubbish_and_exits_0() {
    write_rubbish();
    process::exit(0);
}

/// A message of no bytes looks to its reader like the end of all messages.
#[body]
#[isolated]
fn sends_nothing_to_every_descriptor() {
    for number in 3..1024 {
        let _ = send(number, b"", MsgFlags::empty());
    }
    if let ForkResult::Child = fork() {
        hang();
    }
}

/// Writes reports, as belljar's own processes do.
fn report(frames: &[&[u8]]) {
    for number in 3..1024 {
        for frame in frames {
            let _ = send(number, &[b"\xbeJar", *frame].concat(), MsgFlags::empty());
        }
    }
}

/// That the body has returned, and that it has panicked with something that is no text.
const RETURNED: &[u8] = &[3, 0, 0];
const PANICKED: &[u8] = &[3, 1, 0];

#[body]
#[isolated]
fn reports_the_end_of_its_process() {
    let ended = [&[6, 0, 0, 0, 0], &90_i32.to_ne_bytes()[..], &[0; 8]].concat();
    report(&[RETURNED, &ended]);
    process::exit(3);
}

#[body]
#[isolated]
fn reports_a_return_and_panics() {
    report(&[RETURNED]);
    panic!("on purpose");
}

#[body]
#[isolated]
#[should_panic]
fn reports_a_panic_and_returns() {
    report(&[PANICKED]);
}

#[body]
#[isolated(unsupported = "skip")]
fn reports_a_refusal_and_returns() {
    // Of new namespaces, with EPERM.
    report(&[&[&[1, 12], &1_i32.to_ne_bytes()[..], &[0; 2]].concat()]);
}

#[body]
#[isolated]
fn writes_a_byte_to_every_descriptor() {
    for number in 3..1024 {
        let _ = send(number, b"x", MsgFlags::empty());
    }
}

#[body]
#[isolated]
fn shuts_every_socket_down() {
    for number in 3..1024 {
        let _ = shutdown(number, Shutdown::Both);
    }
    hang();
}

#[body]
#[isolated]
#[should_panic(expected = "the end")]
fn makes_no_descriptor_wait() {
    for number in 0..1024 {
        // SAFETY: the command takes an integer; whoever uses the descriptor finds out.
        let _ = unsafe { libc::fcntl(number, libc::F_SETFL, libc::O_NONBLOCK) };
    }
    panic!("{}, the end", "x".repeat(MILLION));
}

// ---- Output ----

#[body]
#[isolated]
fn floods_stdout() {
    let line = [b'x'; 1023];
    let mut stdout = io::stdout().lock();
    for _ in 0..FLOOD / 1024 {
        stdout.write_all(&line).expect("write");
        stdout.write_all(b"\n").expect("write");
    }
}

#[body]
#[isolated]
fn writes_invalid_utf8() {
    io::stdout().write_all(b"before \xff\xfe after \xe2\x82").expect("write");
}

#[body]
#[isolated]
fn writes_no_newline() {
    print!("half a line");
    process::exit(0);
}

#[body]
#[isolated]
fn writes_in_many_ways() {
    println!("from println");
    eprintln!("from eprintln");
    for fd in [1, 2] {
        let text = format!("from write to {fd}\n");
        // SAFETY: the text outlives the call.
        unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
    }
    // SAFETY: the format has no arguments.
    unsafe { libc::printf(c"from printf\n".as_ptr()) };
    let script = "echo from a child; echo from a child\\'s stderr >&2";
    assert!(Command::new("sh").args(["-c", script]).status().expect("sh").success());
    thread::spawn(|| println!("from a thread")).join().expect("join");
}

/// Holds the process until a thread has written, which it does after the body has returned.
struct Waits(Cell<Option<thread::JoinHandle<()>>>);

impl Drop for Waits {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            thread.thread().unpark();
            thread.join().expect("join");
        }
    }
}

thread_local! {
    static WAITS: Waits = const { Waits(Cell::new(None)) };
}

#[body]
#[isolated]
fn writes_after_it_returned() {
    let thread = thread::spawn(|| {
        thread::park();
        println!("from a thread that outlived the body");
    });
    WAITS.with(|waits| waits.0.set(Some(thread)));
}

#[body]
#[isolated]
fn leaves_a_thread_running() {
    thread::spawn(|| hang());
}

// ---- Processes ----

/// Starts a daemon as daemon(7) tells, which holds stdout, and waits until it runs.
fn start_daemon() {
    let (reader, writer) = pipe().expect("pipe");
    let (mut reader, mut writer) = (File::from(reader), File::from(writer));
    if let ForkResult::Parent { child } = fork() {
        waitpid(child, None).expect("waitpid");
        reader.read_exact(&mut [0]).expect("the daemon runs");
        return;
    }
    setsid().expect("setsid");
    if let ForkResult::Child = fork() {
        println!("the daemon runs");
        writer.write_all(&[1]).expect("write");
        hang();
    }
    process::exit(0);
}

#[body]
#[isolated]
fn leaves_a_daemon() {
    start_daemon();
}

/// A name that is no UTF-8, and one that the kernel cuts within a character, after 15 bytes.
#[body]
#[isolated]
#[expect(clippy::zombie_processes, reason = "they are to be left")]
fn leaves_odd_names() {
    for name in [&b"Z\xfcrich"[..], "fourteen-bytes\u{e9}".as_bytes()] {
        let program = Path::new("/tmp").join(OsStr::from_bytes(name));
        symlink(fs::canonicalize("/bin/sleep").expect("sleep"), &program).expect("symlink");
        Command::new(program).arg("1000").spawn().expect("spawn");
    }
}

#[body]
#[isolated]
fn leaves_a_daemon_and_fails() {
    start_daemon();
    panic!("on purpose");
}

/// Siblings of the test, which init reaps when they end: with the test, as many as can be at that moment.
fn end_with_siblings() {
    let (reader, writer) = pipe().expect("pipe");
    for _ in 0..50 {
        let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
        // SAFETY: without CLONE_VM the child has a copy of the address space, and goes on with the stack it has.
        if unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } == 0 {
            drop(writer);
            let _ = read(&reader, &mut [0]);
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(0) }
        }
    }
}

macro_rules! siblings {
    ($($name:ident)*) => {
        $(#[body]
        #[isolated(uts)]
        fn $name() {
            super::end_with_siblings();
        })*
    };
}

mod siblings {
    use belljar::isolated;
    use belljar_tests::body;
    siblings!(a b c d e f g h i j k l m n o p q r s t);
}

#[body]
#[isolated]
fn leaves_500_orphans() {
    for _ in 0..500 {
        if let ForkResult::Child = fork() {
            hang();
        }
    }
}

#[body]
#[isolated]
fn leaves_500_that_have_ended() {
    for _ in 0..500 {
        if let ForkResult::Child = fork() {
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(0) };
        }
    }
}

#[body]
#[isolated]
fn drops_a_fork_bomb() {
    // Real root is exempt from the limit, so that the bomb has a fuse of its own.
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NPROC, 100.min(hard), hard).expect("setrlimit");
    for _ in 0..8 {
        // SAFETY: as in `fork`; the children only fork and hang.
        let _ = unsafe { nix::unistd::fork() };
    }
    if getpid() != Pid::from_raw(2) {
        hang();
    }
}

#[body]
#[isolated]
fn kills_all_others() {
    let mut child = Command::new("sleep").arg("1000").spawn().expect("spawn");
    kill(Pid::from_raw(-1), Signal::SIGKILL).expect("kill");
    assert!(!child.wait().expect("wait").success());
}

#[body]
#[isolated]
fn signals_init() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGSEGV] {
        kill(getppid(), signal).expect("kill");
    }
    assert_eq!(getppid(), Pid::from_raw(1));
}

#[body]
#[isolated]
fn reboots() {
    // Outside a pid namespace it would be the machine.
    assert_eq!(getppid(), Pid::from_raw(1));
    // SAFETY: it takes a number.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    hang();
}

#[body]
#[isolated]
fn is_no_session_leader() {
    assert_eq!(getpid(), Pid::from_raw(2));
    assert_eq!(getpgrp(), getpid());
    assert_eq!(getsid(None).expect("getsid"), Pid::from_raw(1));
}

/// Both processes return from the body; only the test's own has a say.
fn return_twice(test_panics: bool, child_panics: bool) {
    match fork() {
        ForkResult::Parent { child } => {
            waitpid(child, None).expect("waitpid");
            assert!(!test_panics, "the test panics");
        }
        ForkResult::Child => assert!(!child_panics, "the child panics"),
    }
}

#[body]
#[isolated]
fn returns_twice() {
    return_twice(false, false);
}

#[body]
#[isolated]
fn panics_in_the_child() {
    return_twice(false, true);
}

#[body]
#[isolated]
fn panics_in_the_test() {
    return_twice(true, false);
}

#[body]
#[isolated]
fn panics_twice() {
    return_twice(true, true);
}

/// Runs `act` in a process that has the test's pid, in a pid namespace of its own. Returns in both, and whether this is
/// the other.
fn in_a_process_with_the_same_pid(act: fn()) -> bool {
    let ForkResult::Child = fork() else {
        wait().expect("wait");
        return false;
    };
    unshare(CloneFlags::CLONE_NEWPID).expect("unshare");
    for _ in 0..2 {
        let ForkResult::Child = fork() else {
            wait().expect("wait");
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(0) };
        };
    }
    assert_eq!(getpid(), Pid::from_raw(2));
    act();
    true
}

#[body]
#[isolated]
fn returns_from_a_process_with_the_same_pid() {
    let is_other = in_a_process_with_the_same_pid(|| println!("it returns"));
    assert!(is_other, "on purpose");
}

#[body]
#[isolated]
fn exits_at_once_after_a_process_with_the_same_pid() {
    in_a_process_with_the_same_pid(|| process::exit(0));
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(0) };
}

#[body]
#[isolated]
fn kills_itself_after_a_process_with_the_same_pid() {
    in_a_process_with_the_same_pid(read_an_invalid_address);
    raise(Signal::SIGKILL).expect("raise");
}

// ---- Hanging ----

#[body]
#[isolated(timeout = "200ms")]
fn hangs() {
    println!("the last words");
    hang();
}

#[body]
#[isolated(timeout = "200ms")]
#[should_panic]
fn hangs_although_it_should_panic() {
    hang();
}

#[body]
#[isolated(timeout = "200ms")]
fn hangs_with_children() {
    let script = "sleep 1000 & setsid sleep 1001 & wait";
    let _ = Command::new("sh").args(["-c", script]).status();
}

#[body]
#[isolated(timeout = "200ms")]
fn hangs_with_all_signals_blocked() {
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None).expect("sigprocmask");
    hang();
}

/// A socket that is closed only when its data has been read, which nobody does, in place of one for an answer.
#[body]
#[isolated(timeout = "200ms")]
fn hands_out_what_takes_long_to_close() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let mut client = std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let _server = listener.accept().expect("accept");
    client.set_nonblocking(true).expect("set_nonblocking");
    while client.write(&[0; 65536]).is_ok() {}
    let linger = libc::linger { l_onoff: 1, l_linger: 1000 };
    nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::Linger, &linger).expect("setsockopt");
    let fds = [std::os::fd::AsRawFd::as_raw_fd(&client)];
    let rights = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
    let asks_for_usage = [io::IoSlice::new(b"\xbeJar\x07")];
    nix::sys::socket::sendmsg::<()>(255, &asks_for_usage, &rights, MsgFlags::empty(), None).expect("sendmsg");
    println!("sent");
    // The last to close it waits.
    drop(client);
    hang();
}

#[body]
#[isolated(timeout = "200ms")]
fn stops_itself() {
    raise(Signal::SIGSTOP).expect("raise");
}

#[body]
#[isolated(timeout = "200ms")]
fn hangs_in_vfork() {
    let flags = std::ffi::c_long::from(libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD);
    // The flags and the stack are the other way round there.
    let [first, second] = if cfg!(target_arch = "s390x") { [0, flags] } else { [flags, 0] };
    // SAFETY: the child has the parent's memory, and only waits.
    if unsafe { libc::syscall(libc::SYS_clone, first, second, 0, 0, 0) } == 0 {
        loop {
            // SAFETY: pause has no preconditions.
            unsafe { libc::pause() };
        }
    }
}

#[body]
#[isolated(timeout = "200ms")]
fn hangs_in_a_thread_local() {
    struct Hangs;
    impl Drop for Hangs {
        fn drop(&mut self) {
            hang();
        }
    }
    thread_local!(static HANGS: Hangs = const { Hangs });
    HANGS.with(|_| {});
}

#[body]
#[isolated(timeout = "1h")]
fn ends_long_before_its_timeout() {}

// ---- Neighbours ----

static COUNTER: AtomicU32 = AtomicU32::new(0);

#[body]
#[isolated]
fn changes_all_it_can() {
    assert_pristine();
    COUNTER.store(7, Ordering::Relaxed);
    env::set_current_dir("/proc").expect("chdir");
    umask(Mode::from_bits_truncate(0o777));
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None).expect("sigprocmask");
    setrlimit(Resource::RLIMIT_NOFILE, 16, 16).expect("setrlimit");
    // SAFETY: no other thread reads the environment.
    unsafe { env::set_var("BELLJAR_TESTS_NEIGHBOUR", "1") };
    // SAFETY: ignoring a signal runs no code.
    unsafe { nix::sys::signal::signal(Signal::SIGUSR1, nix::sys::signal::SigHandler::SigIgn) }.expect("signal");
}

#[body]
#[isolated]
fn finds_all_pristine() {
    assert_pristine();
}

fn assert_pristine() {
    assert_eq!(COUNTER.load(Ordering::Relaxed), 0);
    assert_ne!(env::current_dir().expect("cwd"), Path::new("/proc"));
    let mask = umask(Mode::empty());
    umask(mask);
    assert_ne!(mask, Mode::from_bits_truncate(0o777));
    let mut blocked = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, None, Some(&mut blocked)).expect("sigprocmask");
    assert_eq!(blocked, SigSet::empty());
    assert!(getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit").0 > 16);
    assert!(env::var_os("BELLJAR_TESTS_NEIGHBOUR").is_none());
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("SigIgn").trim();
    let ignored = u64::from_str_radix(ignored, 16).expect("a number");
    let is_ignored = |signal: Signal| ignored & (1 << (signal as u32 - 1)) != 0;
    assert!(!is_ignored(Signal::SIGUSR1));
    assert!(is_ignored(Signal::SIGPIPE), "it is in every Rust program");
}
