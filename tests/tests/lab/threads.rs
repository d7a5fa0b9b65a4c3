//! Threads on hosts that nobody waits for, and what becomes of them when the body is over.

use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use belljar::isolated;
use belljar::net::Lab;
use belljar_tests::{body, run_body, wait_until};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[body]
#[isolated]
fn a_spawned_thread_panics() {
    let mut lab = Lab::new();
    let server = lab.host("server");
    let _net = lab.up().expect("up");
    server.spawn(|| panic!("no request"));
}

#[body]
#[isolated]
fn a_spawned_thread_panics_and_is_joined() {
    let mut lab = Lab::new();
    let server = lab.host("server");
    let _net = lab.up().expect("up");
    assert!(server.spawn(|| panic!("no request")).join().is_err());
}

#[body]
#[isolated]
fn a_spawned_thread_works_when_the_body_is_over() {
    let mut lab = Lab::new();
    let server = lab.host("server");
    let _net = lab.up().expect("up");
    let (begin, begun) = mpsc::channel();
    server.spawn(move || {
        begin.send(()).expect("send");
        // Some work, which ends.
        for _ in 0..200 {
            fs::read("/proc/thread-self/net/dev").expect("read");
        }
        panic!("at the end");
    });
    begun.recv().expect("receive");
}

/// Some backtraces take as long.
#[body]
#[isolated]
fn a_spawned_thread_takes_its_time() {
    let mut lab = Lab::new();
    let server = lab.host("server");
    let _net = lab.up().expect("up");
    server.spawn(|| {
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) {
            std::hint::spin_loop();
        }
        panic!("at last");
    });
}

thread_local! {
    /// It is dropped when the body is over: whoever listens then finds nobody.
    static BODY: Cell<Option<mpsc::Sender<()>>> = const { Cell::new(None) };
}

#[body]
#[isolated]
fn a_spawned_thread_finds_no_descriptor() {
    let mut lab = Lab::new();
    let server = lab.host("server");
    let _net = lab.up().expect("up");
    let (tell, body_ends) = mpsc::channel();
    BODY.set(Some(tell));
    server.spawn(move || {
        let _ = body_ends.recv();
        panic!("at last");
    });
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("setrlimit");
}

fn leave_a_busy_thread() {
    let mut lab = Lab::new();
    let server = lab.host("server");
    let _net = lab.up().expect("up");
    server.spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
}

#[body]
#[isolated]
fn a_spawned_thread_stays_busy() {
    leave_a_busy_thread();
}

#[body]
#[isolated]
#[should_panic]
fn a_spawned_thread_stays_busy_where_a_panic_is_expected() {
    leave_a_busy_thread();
    panic!("the body");
}

/// As if nobody read the words of its panic.
#[body]
#[isolated]
fn a_spawned_thread_waits_for_a_reader() {
    let mut lab = Lab::new();
    let server = lab.host("server");
    let _net = lab.up().expect("up");
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    std::mem::forget(reader);
    let mut writer = fs::File::from(writer);
    let other = writer.try_clone().expect("dup");
    server.spawn(move || {
        loop {
            writer.write_all(&[7; 4096]).expect("write");
        }
    });
    wait_until(|| poll(&mut [PollFd::new(other.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO) == Ok(0));
}

#[test]
fn a_thread_that_stays_busy_fails_the_test() {
    let tests = [
        "threads::a_spawned_thread_stays_busy",
        "threads::a_spawned_thread_stays_busy_where_a_panic_is_expected",
        "threads::a_spawned_thread_waits_for_a_reader",
    ];
    // Each takes ten seconds: all at once.
    let runs = thread::scope(|scope| {
        tests.map(|test| scope.spawn(move || run_body(test))).map(|run| run.join().expect("a run"))
    });
    for (test, run) in tests.iter().zip(runs) {
        assert!(run.failed(), "{test}: {}", run.output);
        let told = "a thread on the host `server` was still busy 10 s after the body's end: join it";
        assert!(run.output.contains(told), "{test}: {}", run.output);
    }
}

// ---- Panics of the body and of a host ----

macro_rules! panics {
    ($($name:ident($($expected:literal)?) { $host:literal, $body:literal })*) => {
        $(#[body]
        #[isolated]
        $(#[should_panic(expected = $expected)])?
        fn $name() {
            let mut lab = Lab::new();
            let server = lab.host("server");
            let _net = lab.up().expect("up");
            let _ = server.spawn(|| panic!($host)).join();
            panic!($body);
        })*
    };
}

panics! {
    both_panic_and_one_is_expected("of the body") { "of the host", "of the body" }
    both_panic_and_both_are_expected("one of two") { "one of two", "one of two" }
    both_panic_and_none_is_expected() { "of the host", "of the body" }
}

#[test]
fn an_expected_panic_hides_no_other() {
    for (test, passes) in [
        ("threads::both_panic_and_one_is_expected", false),
        ("threads::both_panic_and_both_are_expected", true),
        ("threads::both_panic_and_none_is_expected", false),
    ] {
        let run = run_body(test);
        assert_eq!(run.passed(), passes, "{test}: {}", run.output);
        let told = "failed: a thread on the host `server` panicked: of the host\n";
        assert_eq!(run.output.contains(told), !passes, "{test}: {}", run.output);
    }
}

#[body]
#[isolated(timeout = "60s")]
fn a_spawned_server_waits_for_its_next_client() {
    let mut lab = Lab::new();
    let (server, client) = (lab.host("server"), lab.host("client"));
    let _net = lab.up().expect("up");
    let listener = server.run(|| TcpListener::bind("[::]:80")).expect("bind");
    server.spawn(move || {
        for stream in listener.incoming() {
            drop(stream.expect("a client"));
        }
    });
    client.run(|| TcpStream::connect("server:80")).expect("connect");
}

#[test]
fn a_panic_of_a_spawned_thread_fails_the_test_and_names_the_host() {
    for (test, text) in [
        ("threads::a_spawned_thread_panics", "no request"),
        ("threads::a_spawned_thread_panics_and_is_joined", "no request"),
        ("threads::a_spawned_thread_works_when_the_body_is_over", "at the end"),
        ("threads::a_spawned_thread_takes_its_time", "at last"),
        ("threads::a_spawned_thread_finds_no_descriptor", "at last"),
    ] {
        let run = run_body(test);
        assert!(run.failed(), "{test}: {}", run.output);
        let told = format!("failed: a thread on the host `server` panicked: {text}\n");
        assert!(run.output.contains(&told), "{test}: {}", run.output);
    }
    let run = run_body("threads::a_spawned_server_waits_for_its_next_client");
    assert!(run.passed(), "{}", run.output);
    assert!(run.left.is_empty());
}
