//! Bodies that each do one bad thing. [`verdicts`](super) runs them one by one, and knows how each must end.
#![expect(unsafe_code, reason = "bad things are done by hand")]

mod deaths;
mod descriptors;
mod exits;
pub(super) mod processes;

use std::cell::Cell;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, io, process, thread};

use belljar::isolated;
use belljar_tests::{body, hang};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise, sigprocmask};
use nix::sys::socket::MsgFlags;
use nix::sys::stat::{Mode, umask};

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

// ---- Hanging ----

#[body]
#[isolated(timeout = "1s")]
fn hangs() {
    println!("the last words");
    hang();
}

#[body]
#[isolated(timeout = "1s")]
#[should_panic]
fn hangs_although_it_should_panic() {
    hang();
}

#[body]
#[isolated(timeout = "1s")]
fn hangs_with_children() {
    let script = "sleep 1000 & setsid sleep 1001 & wait";
    let _ = Command::new("sh").args(["-c", script]).status();
}

/// The kernel cuts the names of its thread and of its child within a character, and that of its process is no UTF-8.
#[body]
#[isolated(timeout = "1s")]
fn hangsä() {
    fs::write("/proc/self/comm", b"Z\xfcrich").expect("comm");
    let program = "/tmp/fourteen-bytesé";
    symlink(fs::canonicalize("/bin/sleep").expect("sleep"), program).expect("symlink");
    let _ = Command::new(program).arg("1000").status();
}

#[body]
#[isolated(timeout = "1s")]
fn hangs_with_all_signals_blocked() {
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None).expect("sigprocmask");
    hang();
}

/// A socket that is closed only when its data has been read, which nobody does, in place of one for an answer.
#[body]
#[isolated(timeout = "1s")]
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
#[isolated(timeout = "1s")]
fn stops_itself() {
    raise(Signal::SIGSTOP).expect("raise");
}

#[body]
#[isolated(timeout = "1s")]
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
#[isolated(timeout = "1s")]
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
