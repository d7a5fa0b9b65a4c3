//! What `memory`, `pids` and `cpu` promise, what is said when a test meets its limit, and that no cgroup is left.
//!
//! Where a host can't limit, as without cgroups or for ordinary users with cgroups of version 1, the same rows show that a
//! written limit fails the test, and says why. `BELLJAR_TESTS_LIMITS` (`yes` or `no`) says which must be the case; by
//! default root can limit, and others may or may not.

mod cgroups;
mod memory;
mod parent;
mod processes;
mod swept;

use std::fs::{self, File};
use std::time::{Duration, Instant};
use std::{hint, panic, process};

use belljar::isolated;
use belljar_tests::{MIB, Run, allocate, body, fork, must_limit, run_body};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;

use processes::{end, spawn_up_to};

belljar_tests::bodies!();

/// Whether this run shows that the host can limit. If it can't, the page must say so, and that must be expected.
fn is_limited(run: &Run) -> bool {
    let refused = run.output.contains("did not run: this host does not let its sandbox be set up");
    assert!(must_limit().is_none_or(|expected| expected != refused), "{}", run.output);
    if refused {
        assert!(run.failed(), "{}", run.output);
        assert!(run.output.contains("make a cgroup with the limits of the test"), "{}", run.output);
        assert!(!run.output.contains("cause:  unknown"), "{}", run.output);
    }
    !refused
}

#[body]
#[isolated(memory = "64MiB", pids = 32, cpu = 0.5)]
fn has_all_limits() {}

// ---- What is left ----

/// Nobody reads what those say that are left, so that nobody may wait for it to be read.
#[body]
#[isolated(memory = "64MiB", timeout = "1m")]
fn leaves_talkers() {
    for _ in 0..4 {
        if let ForkResult::Child = fork() {
            let exiting = b"\xbeJar\x04";
            loop {
                #[expect(unsafe_code, reason = "that is the point")]
                // SAFETY: the bytes outlive the call.
                unsafe {
                    libc::send(255, exiting.as_ptr().cast(), exiting.len(), 0);
                }
            }
        }
    }
}

#[test]
fn what_is_left_keeps_nobody_waiting() {
    for _ in 0..10 {
        let run = run_body("leaves_talkers");
        if is_limited(&run) {
            assert!(run.left.is_empty() && !run.output.contains("timeout"), "{}", run.output);
        }
    }
}

// ---- CPU time ----

/// The CPU time that this process has taken.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage");
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000))
        .sum()
}

/// Works for a while, on two threads. Whatever else the machine does makes the share smaller.
#[body]
#[isolated(cpu = 0.2)]
fn burns_cpu_time() {
    let (start, cpu_before) = (Instant::now(), cpu_time());
    let burn = || {
        while start.elapsed() < Duration::from_secs(2) {
            hint::black_box(0);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(burn);
        burn();
    });
    let (wall, cpu) = (start.elapsed(), cpu_time() - cpu_before);
    println!("{cpu:?} of {wall:?}");
    // One period's share may be used up at once at the start.
    assert!(cpu < wall.mul_f64(0.2 * 1.1) + Duration::from_millis(20), "{cpu:?} of {wall:?}");
}

#[test]
fn cpu_time_is_rationed() {
    let run = run_body("burns_cpu_time");
    if is_limited(&run) {
        assert!(run.passed(), "{}", run.output);
    }
}

// ---- What a sandbox has used ----

/// Whether figures are to be expected: for a test that has written all limits, wherever it runs.
fn figures() -> belljar::Usage {
    let usage = belljar::usage();
    assert!(usage.memory.is_some() && usage.pids.is_some() && usage.cpu.is_some(), "{usage:?}");
    usage
}

#[body]
#[isolated(memory = "256MiB", pids = 32, cpu = 2)]
fn looks_at_its_usage() {
    let close =
        |actual: Option<u64>, expected: u64| actual.is_some_and(|actual| actual.abs_diff(expected) < expected / 10);
    let before = figures();
    let memory = allocate(100);
    let during = figures();
    drop(memory);
    let after = figures();
    let grown = during.memory.zip(before.memory).map(|(during, before)| during - before);
    assert!(close(grown, 100 * MIB as u64), "{before:?} {during:?}");
    assert!(after.memory < Some(50 * MIB as u64), "{after:?}");
    // Known since Linux 5.19, and in version 1.
    assert!(after.memory_peak.is_none_or(|peak| Some(peak) >= during.memory), "{during:?} {after:?}");

    // Init, and two threads of the test.
    assert_eq!(before.pids, Some(3));
    end(spawn_up_to(5));
    let children = spawn_up_to(5);
    assert_eq!(belljar::usage().pids, Some(8));
    end(children);
    assert!(belljar::usage().pids_peak.is_none_or(|peak| peak == 8), "{:?}", belljar::usage());

    let (before, own_before) = (figures().cpu, cpu_time());
    while cpu_time() - own_before < Duration::from_millis(200) {
        hint::black_box(0);
    }
    let spent = figures().cpu.zip(before).map(|(after, before)| after - before);
    assert!(spent.is_some_and(|spent| spent >= Duration::from_millis(180)), "{spent:?}");

    // A thread may ask, and a fork.
    let known = || belljar::usage().pids.is_some();
    assert!(std::thread::scope(|scope| scope.spawn(known).join().expect("join")));
    match fork() {
        ForkResult::Child => process::exit(i32::from(!known())),
        ForkResult::Parent { child } => {
            let end = waitpid(child, None).expect("waitpid");
            assert_eq!(end, WaitStatus::Exited(child, 0));
        }
    }
}

/// The descriptor by which it would ask belongs to a file of the test's by now.
#[body]
#[isolated(pids = 32)]
fn asks_with_its_report_closed() {
    let file = File::create_new("/tmp/file").expect("create");
    for number in 3..4096 {
        if fs::read_link(format!("/proc/self/fd/{number}"))
            .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
        {
            #[expect(unsafe_code, reason = "nix has no dup2 to a bare number")]
            // SAFETY: the number stays what it is, another name of an open descriptor.
            unsafe {
                libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&file), number)
            };
        }
    }
    assert_eq!(belljar::usage(), belljar::Usage::default());
    assert_eq!(fs::metadata("/tmp/file").expect("metadata").len(), 0);
    println!("asked in vain");
}

#[test]
fn usage_is_told() {
    let run = run_body("looks_at_its_usage");
    if is_limited(&run) {
        assert!(run.passed(), "{}", run.output);
    }
    let run = run_body("asks_with_its_report_closed");
    // Belljar fails it for what it has done to its report.
    assert!(run.output.contains("asked in vain") || !is_limited(&run), "{}", run.output);
}

/// What is not known is not told: not as 0 either.
#[test]
fn outside_of_sandboxes_no_usage_is_known() {
    assert_eq!(belljar::usage(), belljar::Usage::default());
    assert_eq!(belljar::Usage::default().pids, None);
}

// ---- Forks of the test binary ----

#[body]
#[isolated(memory = "512MiB", pids = 100)]
fn has_limits_in_a_fork() {}

#[body]
fn runs_tests_with_limits_in_forks() {
    has_limits_in_a_fork();
    let run = |_| match fork() {
        ForkResult::Child => {
            let failed = (0..5).any(|_| panic::catch_unwind(has_limits_in_a_fork).is_err());
            process::exit(failed.into())
        }
        ForkResult::Parent { child } => child,
    };
    let children = [(), (), ()].map(run);
    let ends = children.map(|child| waitpid(child, None).expect("wait") == WaitStatus::Exited(child, 0));
    assert_eq!(ends, [true; 3]);
}

#[test]
fn forks_of_the_test_binary_have_cgroups_of_their_own() {
    let run = run_body("runs_tests_with_limits_in_forks");
    assert!(!is_limited(&run) || run.passed(), "{}", run.output);
}
