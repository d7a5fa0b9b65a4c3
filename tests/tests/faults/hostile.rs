//! Bodies that end badly while calls are being decided: verdicts are as without, and nothing is left.

use std::os::unix::process::CommandExt as _;
use std::process::{self, Command};
use std::time::Duration;
use std::{mem, thread};

use belljar::{Fault, isolated};
use belljar_tests::{body, body_command, run_begun, run_body};

use crate::{data, no_fsync};

/// A thread and a program whose calls wait for an hour, and faults on all that is written, sent and read, for good.
fn stuck() {
    let file = data("wal");
    let delay = Fault::syncing().delay(Duration::from_secs(3600)).start().expect("start");
    let more = file.try_clone().expect("dup");
    thread::spawn(move || more.sync_all());
    #[expect(clippy::zombie_processes, reason = "belljar ends it")]
    let _child = Command::new("sync").arg("/data/wal").spawn().expect("sync");
    while delay.calls() < 2 {
        thread::yield_now();
    }
    mem::forget(delay);
    for fault in [Fault::writing(), Fault::reading().path("/data/*"), Fault::opening().path("/data/*")] {
        mem::forget(fault.errno(libc::EIO).start().expect("start"));
    }
}

macro_rules! both {
    ($($name:ident ($($arguments:tt)*) $body:block)*) => {
        mod plain {
            use super::*;
            $(#[body] #[isolated($($arguments)*)] fn $name() $body)*
        }
        mod faulty {
            use super::*;
            $(#[body] #[isolated($($arguments)*)] fn $name() { stuck(); $body })*
        }
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

both! {
    passes() {}
    panics() { panic!("on purpose"); }
    exits() { process::exit(0); }
    exits_badly() { process::exit(7); }
    aborts() { process::abort(); }
    is_killed() { nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("raise"); }
    execs() { panic!("{}", Command::new("/usr/bin/true").exec()); }
    hangs(timeout = "1500ms") { belljar_tests::hang(); }
    returns_from_a_fork() { belljar_tests::fork(); }
}

/// What belljar says of the verdict, without the name.
fn verdict(output: &str, of: &str) -> Vec<String> {
    let of_verdict =
        |line: &&str| line.contains("failed") || line.contains("on purpose") || line.contains("test result");
    let lines = output.lines().filter(of_verdict).filter(|line| !line.starts_with("failures"));
    let mut lines: Vec<_> = lines.map(|line| line.replace(of, "NAME")).collect();
    lines.retain(|line| !line.contains("panicked at") && !line.contains("finished in"));
    lines.dedup();
    lines
}

#[test]
fn verdicts_are_as_without() {
    for name in NAMES {
        let [plain, faulty] = ["plain", "faulty"].map(|kind| format!("hostile::{kind}::{name}"));
        let [run, other] = [&plain, &faulty].map(|name| run_begun(&mut body_command(name)));
        assert_eq!(run.passed(), other.passed(), "{}{}", run.output, other.output);
        assert_eq!(run.failed(), other.failed(), "{}{}", run.output, other.output);
        assert_eq!(
            verdict(&run.output, &plain),
            verdict(&other.output, &faulty),
            "{name}: {}{}",
            run.output,
            other.output
        );
        assert!(run.left.is_empty() && other.left.is_empty(), "{name}");
    }
}

#[body]
#[isolated(memory = "48MiB", unsupported = "skip")]
fn uses_up_its_memory() {
    stuck();
    drop(belljar_tests::allocate(200));
}

#[test]
fn memory_is_used_up() {
    let run = run_body("hostile::uses_up_its_memory");
    let is_skipped = run.passed() && run.output.contains("skipped");
    assert!(is_skipped || run.failed() && run.output.contains("killed: out of memory (limit 48 MiB"), "{}", run.output);
    assert!(run.left.is_empty());
}

/// The test binary is killed while calls wait for it: nothing stays.
#[body]
#[isolated]
fn waits_for_an_answer() {
    let file = data("wal");
    let _fault = no_fsync().delay(Duration::from_secs(3600)).start().expect("start");
    println!("waits");
    let _ = file.sync_all();
}

#[test]
fn a_killed_supervisor_leaves_nothing() {
    let mut command = belljar_tests::this_binary();
    command.args(["--exact", "body", "hostile::waits_for_an_answer", "--nocapture"]);
    let mark = belljar_tests::mark(&mut command);
    let mut child = command.stdout(process::Stdio::piped()).spawn().expect("the binary");
    let out = child.stdout.take().expect("a pipe");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(out));
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("waits"))));
    child.kill().expect("kill");
    child.wait().expect("wait");
    belljar_tests::wait_until(|| belljar_tests::marked(&mark).is_empty());
}
