//! What is said of faults.

use belljar::{Fault, isolated};
use belljar_tests::{body, run_body};
use insta::assert_snapshot;

use crate::{data, no_fsync};

fn refused(fault: Fault) -> String {
    fault.start().expect_err("it can't be").to_string()
}

#[test]
fn what_cannot_be() {
    let said = [
        Fault::new("fsink").errno(5),
        Fault::new("take_photo").errno(5),
        Fault::new("fsync"),
        Fault::new("fsync").errno(0),
        Fault::new("fsync").signal(65),
        Fault::new("fsync").errno(5).nth(0),
        Fault::new("fsync").errno(5).seeded(7, 1.5),
        Fault::new("read").short(0),
        Fault::new("fsync").short(3),
        Fault::new("sendmsg").short(3),
        Fault::new("splice").short(3),
        Fault::new("getpid").returns(1).path("/data"),
        Fault::new("fsync").errno(5).port(80),
        Fault::new("connect").errno(5).address("localhost"),
        Fault::new("fsync").errno(5).path("a\0b"),
        Fault::new("fsync").errno(5).path("a".repeat(1025)),
    ];
    let said: Vec<_> = said.into_iter().map(refused).collect();
    assert_snapshot!(said.join("\n"), @"
    belljar: there is no system call `fsink`: did you mean `fsync`?
    belljar: there is no system call `take_photo`. See syscalls(2).
    belljar: the fault on `fsync` does nothing: add `.errno(libc::EIO)`, `.short(3)`, `.delay(Duration)`, `.kill()`, `.signal(..)` or `.returns(..)`.
    belljar: 0 is no error: expected a constant such as `libc::EIO`, 1 to 4095.
    belljar: 65 is no signal: expected a constant such as `libc::SIGTERM`, 1 to 64.
    belljar: `.nth(0)` means no call: calls are counted from 1.
    belljar: 1.5 is no probability: expected 0.0 to 1.0.
    belljar: `.short(0)` would do nothing: write `.returns(0)`.
    belljar: `fsync` can't be short: expected read, write, or one of their kind, such as pread64, writev, recvfrom, sendto, sendfile and copy_file_range.
    belljar: `sendmsg` can't be short: expected read, write, or one of their kind, such as pread64, writev, recvfrom, sendto, sendfile and copy_file_range.
    belljar: `splice` can't be short: expected read, write, or one of their kind, such as pread64, writev, recvfrom, sendto, sendfile and copy_file_range.
    belljar: `getpid` has no path, so that the fault can't have one.
    belljar: `fsync` has no address, so that the fault can't have a port or an address: expected connect, bind, sendto or sendmsg.
    belljar: `localhost` is no address: expected one such as `10.0.0.1` or `fd00::1`.
    belljar: a path can't have a NUL.
    belljar: a path of 1025 bytes is too long: expected up to 1024.
    ");
}

#[isolated]
fn what_cannot_be_any_more() {
    let _first = no_fsync().start().expect("start");
    let told = refused(Fault::new("futex").errno(libc::EINTR));
    assert!(told.contains("`futex` is not watched") && told.contains("before all others"), "{told}");
    let all: Vec<_> = (1..64).map(|_| no_fsync().start().expect("start")).collect();
    let told = refused(no_fsync());
    assert!(told.contains("there are 64 faults already"), "{told}");
    drop(all);
    assert!(no_fsync().start().is_ok(), "there is room again");
}

/// The twin: the first fault of a test may be for any call.
#[isolated]
fn the_first_may_be_for_any_call() {
    let fault = Fault::new("sched_yield").errno(libc::EINTR).start().expect("start");
    assert_eq!(nix::sched::sched_yield(), Err(nix::errno::Errno::EINTR));
    assert_eq!(fault.hits(), 1);
}

#[test]
fn outside() {
    assert_snapshot!(refused(no_fsync()), @"belljar: no fault can be started here: this is no sandbox, or it has closed the descriptor that leads to the test binary. Write `#[isolated]` above the test.");
}

#[body]
#[isolated]
fn fails_at_a_fault() {
    let wal = data("wal");
    let _fault = no_fsync().nth(2).start().expect("start");
    wal.sync_all().expect("the first");
    wal.sync_all().expect("the second");
}

#[test]
fn a_failure_lists_them() {
    let run = run_body("told::fails_at_a_fault");
    assert!(run.failed(), "{}", run.output);
    let told = "fsync(/data/wal) → EIO, the fault's 2nd call, by `told::fails_at_`, pid 2";
    assert!(run.output.contains(told), "{}", run.output);
}

#[body]
#[isolated]
fn fails_at_the_call_of_another() {
    let wal = data("wal");
    let fault = no_fsync().after(1).start().expect("start");
    wal.sync_all().expect("the first");
    std::process::Command::new("sync").arg("/data/wal").status().expect("sync");
    assert_eq!(fault.hits(), 0);
}

/// The number is that of the fault, whose calls two processes make here.
#[test]
fn a_failure_counts_the_calls_of_all() {
    let run = run_body("told::fails_at_the_call_of_another");
    let told = "fsync(/data/wal) → EIO, the fault's 2nd call, by `sync`, pid 4";
    assert!(run.failed() && run.output.contains(told), "{}", run.output);
}

#[body]
#[isolated]
fn names_another_call() {
    let fault = Fault::new("fdatasync").errno(libc::EIO).start().expect("start");
    data("wal").sync_all().expect("this is fsync");
    assert_eq!(fault.hits(), 1);
}

/// Whoever names a call that is never made learns which it may be.
#[test]
fn a_fault_without_calls_is_told() {
    let run = run_body("told::names_another_call");
    let told = "belljar: Fault::new(\"fdatasync\").errno(libc::EIO) has seen no call that it is for. Rust's `File::sync_all` is `fsync`";
    assert!(run.failed() && run.output.contains(told), "{}", run.output);
}

/// The twin of a failure: of a test that passes, nothing is said.
#[body]
#[isolated]
fn passes_with_a_fault() {
    let _fault = no_fsync().start().expect("start");
    data("wal").sync_all().expect_err("as asked");
}

#[test]
fn a_pass_says_nothing() {
    let run = run_body("told::passes_with_a_fault");
    assert!(run.passed() && !run.output.contains("fault that"), "{}", run.output);
}

#[test]
fn a_trace_has_them() {
    let path = std::env::temp_dir().join(format!("belljar-faults-{}.json", std::process::id()));
    let mut command = belljar_tests::this_binary();
    command.args(["--exact", "body", "told::passes_with_a_fault"]).env("BELLJAR_TRACE", &path);
    let run = belljar_tests::run(&mut command);
    let trace = std::fs::read_to_string(&path).expect("a trace");
    std::fs::remove_file(&path).expect("remove");
    let events: Vec<serde_json::Value> = serde_json::from_str(&trace).expect("JSON");
    let instants: Vec<_> = events.iter().filter(|event| event["ph"] == "i").collect();
    assert!(run.passed() && instants.len() == 1, "{trace}");
    assert!(instants[0]["name"].as_str().is_some_and(|name| name.starts_with("fsync(/data/wal) → EIO")), "{trace}");
}

/// The text of a fault is what makes the same one.
#[test]
fn faults_are_written_as_in_a_test() {
    let fault = Fault::writing().errno(libc::ENOSPC).path("/data/*").nth(2);
    assert_eq!(fault.to_string(), r#"Fault::writing().errno(libc::ENOSPC).path("/data/*").nth(2)"#);
    let fault = Fault::new("connect").delay(std::time::Duration::from_millis(2)).port(80).seeded(7, 0.25);
    assert_eq!(
        fault.to_string(),
        r#"Fault::new("connect").delay(Duration::from_nanos(2000000)).port(80).seeded(7, 0.25)"#
    );
}
