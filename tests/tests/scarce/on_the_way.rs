//! Descriptors of this user that are on their way through sockets. The kernel counts those of all of its processes together.

use std::fs::{self, File};
use std::io::{IoSlice, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{process, thread};

use belljar::net::Lab;
use belljar::{Change, Fault, Group, Spec, isolated, prepared};
use belljar_tests::supervisor::{Answer, Calls, run_supervised};
use belljar_tests::{Run, body, body_command, this_binary};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::geteuid;

use super::{meeting_place, run_limited};

/// When it has met its neighbour, it hands the test binary what answers its calls.
#[body]
#[isolated(mount, uts)]
fn meets_a_fault() {
    let _neighbour = meet();
    let fault = Fault::new("fsync").errno(libc::EIO).start().expect("a fault");
    let failed = File::create("/tmp/file").and_then(|file| file.sync_all());
    assert_eq!(failed.expect_err("a fault").raw_os_error(), Some(libc::EIO));
    assert_eq!(fault.hits(), 1);
}

/// Waits until the neighbour is there and has what is scarce.
pub(super) fn meet() -> UnixStream {
    loop {
        let met = UnixStream::connect_addr(&meeting_place()).and_then(|mut it| it.read_exact(&mut [0]).map(|()| it));
        match met {
            Ok(neighbour) => return neighbour,
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Meets its neighbour, and has what it takes for this time, or until the neighbour ends.
pub(super) fn hold<T>(time: Option<Duration>, take: impl FnOnce() -> T) {
    let listener = UnixListener::bind_addr(&meeting_place()).expect("listen");
    let (mut neighbour, _) = listener.accept().expect("the neighbour's sandbox");
    let taken = take();
    neighbour.write_all(&[0]).expect("write");
    neighbour.set_read_timeout(time).expect("a timeout");
    let _ = neighbour.read(&mut [0]);
    drop(taken);
}

/// Has more descriptors on their way than a process may have.
fn send_many() -> (UnixStream, UnixStream) {
    let (from, to) = UnixStream::pair().expect("a pair");
    let fds = [from.as_raw_fd(); 100];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(from.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).expect("send");
    (from, to)
}

#[body]
fn has_some_on_their_way() {
    hold(Some(Duration::from_millis(200)), send_many);
}

#[body]
fn has_some_on_their_way_for_long() {
    hold(None, send_many);
}

/// What a run with this limit says in which a test that meets a fault has a neighbour. It is a user's who has nothing else. `number` tells the users
/// of this file's tests apart.
pub(super) fn run_beside(neighbour: &str, limit: &str, number: u32) -> Option<String> {
    if !geteuid().is_root() {
        println!("not tried: this takes root, who can be other users");
        return None;
    }
    let user = 60_000 + process::id() % 1000 * 4 + number;
    let runner = format!("setpriv --reuid={user} --regid={user} --clear-groups");
    Some(run_limited(Some(&runner), &["body", "on_the_way::meets_a_fault", neighbour], limit, 2).output)
}

#[test]
fn a_fault_waits_for_descriptors_that_are_on_their_way() {
    let Some(output) = run_beside("on_the_way::has_some_on_their_way", "ulimit -n 64", 0) else { return };
    assert!(output.contains("2 passed; 0 failed;"), "{output}");
}

#[test]
fn descriptors_that_stay_on_their_way_are_named() {
    let Some(output) = run_beside("on_the_way::has_some_on_their_way_for_long", "ulimit -n 64", 1) else { return };
    assert!(output.contains("test on_the_way::meets_a_fault ... FAILED"), "{output}");
    assert!(output.contains("ETOOMANYREFS (Too many references: cannot splice). It may be that a process may not have so many files open: RLIMIT_NOFILE is 64."), "{output}");
    assert!(!output.contains("the body closed"), "{output}");
}

#[prepared]
fn leaves_a_root() {}

#[isolated(from = leaves_a_root)]
fn starts_from_it() {}

#[test]
fn takes_bytes() {
    static SPEC: Spec = belljar::spec!();
    let output = belljar::run(&SPEC, b"input", |input| Ok::<_, String>(input.repeat(2)));
    assert_eq!(output.unwrap_or_else(|failure| panic!("{failure}")), b"inputinput");
}

#[isolated(root = "overlay")]
fn asks_for_all() {
    fs::write("/etc/asked", "").expect("write");
    assert_eq!(belljar::changes().expect("changes"), [Change::Created("/etc/asked".into())]);
    assert_ne!(belljar::whereabouts().expect("a sandbox").init, None);
    match Group::new("group") {
        Ok(group) => assert!(group.pids().expect("its processes").is_empty()),
        // Not every user can have one.
        Err(error) => assert!(!error.to_string().contains("splice"), "{error}"),
    }
}

#[body]
#[isolated]
fn has_hosts() {
    let mut lab = Lab::new();
    let (one, other) = (lab.host("one"), lab.host("other"));
    let _net = lab.up().expect("hosts");
    other.run(|| UdpSocket::bind("[::]:80")).expect("bind");
    one.run(|| UdpSocket::bind("[::]:0")?.send_to(b"x", "other:80")).expect("send");
    panic!("at its end");
}

/// Runs a test while one of the messages that carry descriptors fails, counted over all of its processes. Returns how many were sent.
fn run_refusing(mut command: Command, name: &str, refused: usize) -> (Run, usize) {
    command.arg("--test-threads=1");
    let mut sent = 0;
    let run = run_supervised(command, name, Calls::These(&[libc::SYS_clone, libc::SYS_sendmsg]), |asked| {
        sent += usize::from(asked.number == libc::SYS_sendmsg);
        let fails = asked.number == libc::SYS_sendmsg && sent == refused;
        if fails { Answer::Fails(Errno::ETOOMANYREFS) } else { Answer::Made }
    });
    (run.unwrap_or_else(|error| panic!("{name}, {refused}: {error}")), sent)
}

/// Whichever message is refused once, the test ends as if it had not been.
#[test]
fn each_message_with_descriptors_is_sent_anew() {
    let passed = |output: &str| output.contains("test result: ok. 1 passed;");
    for (name, least) in [("starts_from_it", 8), ("takes_bytes", 4), ("asks_for_all", 6)] {
        each_is_sent_anew(named, name, least, passed);
    }
    // This one fails, which shows whether its packets came.
    each_is_sent_anew(body_command, "has_hosts", 4, |output| output.contains(".pcapng"));
}

fn named(name: &str) -> Command {
    let mut command = this_binary();
    command.args(["--exact", name]);
    command
}

/// What a preparation leaves lies on the disk then, where an attempt finds what the one before it has begun.
#[test]
fn each_message_is_sent_anew_in_a_run_of_nextest() {
    let count = AtomicUsize::new(0);
    let shared = |name: &str| {
        let mut command = named(name);
        let run = format!("{}-{}", process::id(), count.fetch_add(1, Ordering::Relaxed));
        command.env("NEXTEST_RUN_ID", run);
        command
    };
    let name = "on_the_way::starts_from_it";
    let is_alone = |output: &str| output.contains("each test runs its preparations itself");
    if is_alone(&run_refusing(shared(name), name, 0).0.output) {
        println!("not tried: this user can't write to the target directory, or there can be no overlay above it");
        return;
    }
    let passed = |output: &str| output.contains("test result: ok. 1 passed;") && !is_alone(output);
    each_is_sent_anew(shared, "starts_from_it", 8, passed);
}

fn each_is_sent_anew(command: impl Fn(&str) -> Command, name: &str, least: usize, is_right: impl Fn(&str) -> bool) {
    let name = format!("on_the_way::{name}");
    let (_, all) = run_refusing(command(&name), &name, 0);
    let mut met = 0;
    for refused in 1..=all {
        let (run, sent) = run_refusing(command(&name), &name, refused);
        assert!(is_right(&run.output), "{name}, {refused}: {}", run.output);
        // Sandboxes that are made ahead take more or fewer messages, so that the last may not be sent.
        met += usize::from(sent >= refused);
    }
    assert!(met >= least, "{name}: {met} of {all}");
}
