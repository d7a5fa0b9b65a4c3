//! What becomes of tests where something runs out: open files, processes, memory, space for files.
//!
//! A limit is put on a whole run of this binary: of tests that are over at once, and of one that never ends by itself. Whatever the limit, the
//! run ends, each test passes or names what ran out, and none passes that has not run.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use belljar::isolated;
use belljar_tests::{Run, as_runner, must_limit, rounds, run, runners, this_binary};

macro_rules! crowd {
    ($($name:ident)*) => {
        const CROWD: &[&str] = &[$(stringify!($name)),*];

        $(
            #[isolated]
            #[ignore = "run by the others"]
            fn $name() {
                println!("{} ran", stringify!($name));
            }
        )*
    };
}

crowd! {
    crowd_00 crowd_01 crowd_02 crowd_03 crowd_04 crowd_05 crowd_06 crowd_07 crowd_08 crowd_09 crowd_10 crowd_11 crowd_12 crowd_13 crowd_14 crowd_15
    crowd_16 crowd_17 crowd_18 crowd_19 crowd_20 crowd_21 crowd_22 crowd_23 crowd_24 crowd_25 crowd_26 crowd_27 crowd_28 crowd_29 crowd_30 crowd_31
}

#[isolated(timeout = "300ms")]
#[ignore = "run by the others"]
fn crowd_sleeps() {
    // Longer than a run may take.
    thread::sleep(Duration::from_secs(1000));
}

/// Another test of the same process, which takes all descriptors that are left, and gives them back, over and over. It begins first.
#[test]
#[ignore = "run by the others"]
fn a_hoarder() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        let mut files = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        thread::sleep(Duration::from_micros(200));
        drop(files);
        thread::sleep(Duration::from_micros(200));
    }
}

/// The kernel kills a child of it, which it takes no notice of, when its neighbour has all descriptors.
#[isolated(memory = "64MiB")]
#[ignore = "run by an_oom_is_seen_without_descriptors"]
fn loses_a_child() {
    thread::sleep(Duration::from_millis(500));
    let status = Command::new("tail").arg("/dev/zero").status().expect("tail");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
}

#[test]
#[ignore = "run by an_oom_is_seen_without_descriptors"]
fn hoards_later() {
    thread::sleep(Duration::from_millis(200));
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    thread::sleep(Duration::from_secs(2));
}

#[test]
fn an_oom_is_seen_without_descriptors() {
    if must_limit() != Some(true) {
        println!("not tried: this user can't limit memory here");
        return;
    }
    let run = run_limited(None, &["loses_a_child", "hoards_later"], "ulimit -n 64", 2);
    assert!(run.output.contains("test hoards_later ... ok"), "{}", run.output);
    assert!(run.output.contains("test loses_a_child ... FAILED"), "{}", run.output);
    assert!(run.output.contains("killed: out of memory"), "{}", run.output);
}

/// What a test says that fails for want of something: the limit's name, or the error's.
const NAMED: &[&str] = &["RLIMIT_", "limit on open files"];

/// Runs the crowd in a shell that has put these limits on itself.
fn run_limited(runner: Option<&str>, names: &[&str], limit: &str, threads: usize) -> Run {
    let mut command = Command::new("timeout");
    // Not in a process group of its own, and killed by a signal that nobody can catch.
    command.args(["--foreground", "--signal=KILL", "120", "sh", "-c"]);
    command.arg(format!("{limit} && exec \"$@\"")).arg("sh").arg(this_binary().get_program());
    command.args(names).args(["--ignored", "--show-output", &format!("--test-threads={threads}")]);
    for (name, value) in this_binary().get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    run(&mut as_runner(runner, &command))
}

/// What is wrong with a run, if anything is.
fn faults(run: &Run) -> String {
    let mut faults = String::new();
    if run.status.code() == Some(137) {
        faults.push_str("it did not end by itself\n");
    }
    if !run.left.is_empty() {
        let _ = writeln!(faults, "it left {:?}", run.left);
    }
    if run.output.contains("test crowd_sleeps ... ok") {
        faults.push_str("a test passed that had not ended\n");
    }
    for name in CROWD {
        let has_passed = run.output.contains(&format!("test {name} ... ok"));
        if has_passed != run.output.contains(&format!("{name} ran\n")) {
            let _ = writeln!(faults, "{name} passed: {has_passed}");
        }
    }
    let failed = |line: &&str| line.starts_with("test ") && line.ends_with("FAILED");
    for line in run.output.lines().filter(failed) {
        let name = line.split(' ').nth(1).unwrap_or_default();
        let block = run.output.split_once(&format!("---- {name} stdout ----")).map_or("", |(_, rest)| rest);
        let block = block.split("\n----").next().unwrap_or_default();
        let is_late = name == "crowd_sleeps" && block.contains("it still ran after its timeout of 300ms");
        if !is_late && !NAMED.iter().any(|word| block.contains(word)) {
            let _ = writeln!(faults, "{name} names no limit: {block}");
        }
    }
    faults
}

#[track_caller]
fn check(names: &[&str], limit: &str, threads: usize) {
    for runner in runners() {
        let run = run_limited(*runner, names, limit, threads);
        let faults = faults(&run);
        assert!(faults.is_empty(), "{limit}, {threads} threads, as {runner:?}:\n{faults}\nof:\n{}", run.output);
    }
}

#[test]
fn with_few_descriptors_fewer_tests_run_at_once() {
    for (limit, threads) in [(64, 16), (64, 64), (100, 64), (40, 16)] {
        for runner in runners() {
            let run = run_limited(*runner, &["crowd_"], &format!("ulimit -n {limit}"), threads);
            let counts = format!("test result: FAILED. {} passed; 1 failed;", CROWD.len());
            assert!(run.output.contains(&counts), "{limit} for {threads} threads, as {runner:?}: {}", run.output);
            assert_eq!(faults(&run), "");
        }
    }
}

/// The twin is the least limit with which anything can run.
#[test]
fn each_limit_on_descriptors_is_named_or_enough() {
    for limit in (3..=48).step_by((48 / rounds(6)).max(1)) {
        check(&["crowd_"], &format!("ulimit -n {limit}"), 1 + limit % 4);
    }
}

/// Descriptors run out at all moments.
#[test]
fn a_neighbour_may_take_all_descriptors() {
    for _ in 0..rounds(3) {
        check(&["crowd_", "a_hoarder"], "ulimit -n 64", 4);
    }
}
