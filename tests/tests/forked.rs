//! Plain tests that fork the test binary while other threads run isolated tests. A lock that another thread holds would stay locked in the fork.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::panic::catch_unwind;
use std::process::{self, Command, exit};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use belljar::{isolated, prepared};
use belljar_tests::{as_runner, body, descendants, rounds, run, runners, this_binary, wait_until};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, alarm};

belljar_tests::bodies!();

/// How many threads run isolated tests.
const THREADS: usize = 8;

/// How long a fork may take before it is ended, in seconds. One that waits for a lock would take for ever.
const PATIENCE: u32 = 100;

#[body]
#[isolated]
fn passes() {}

/// Forks this process while all its other threads work. The fork does `work`, and ends. Returns its pid.
fn in_fork(work: fn()) -> Pid {
    #[expect(unsafe_code, reason = "plain tests fork so")]
    // SAFETY: the C library sees to its own locks. Another that stays locked makes the fork wait, and touches no memory.
    match unsafe { nix::unistd::fork() }.expect("fork") {
        ForkResult::Child => {
            alarm::set(PATIENCE);
            let failed = catch_unwind(work).is_err();
            exit(failed.into())
        }
        ForkResult::Parent { child } => child,
    }
}

fn end_of(child: Pid) -> WaitStatus {
    waitpid(child, None).expect("wait")
}

/// Sets a flag when it is dropped.
struct Sets<'f>(&'f AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Forks while other threads run isolated tests.
fn fork_beside(test: fn(), work: fn()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = Sets(&is_over);
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    test();
                }
            });
        }
        let ends: Vec<_> = (0..rounds(25)).map(|_| end_of(in_fork(work))).filter(|end| !is_success(*end)).collect();
        assert!(ends.is_empty(), "{ends:?}");
    });
}

fn is_success(end: WaitStatus) -> bool {
    matches!(end, WaitStatus::Exited(_, 0))
}

#[body]
fn forks_that_exit() {
    fork_beside(passes, || {});
}

#[body]
fn forks_that_run_a_test() {
    fork_beside(passes, passes);
}

/// It takes so long that this process is forked meanwhile.
#[prepared]
fn slow() {
    thread::sleep(Duration::from_secs(2));
}

#[body]
#[isolated(from = slow)]
fn starts_from_it() {}

#[body]
fn forks_while_a_preparation_runs() {
    thread::scope(|scope| {
        scope.spawn(starts_from_it);
        let is_init = |pid: &u32| fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"belljar-init\n");
        wait_until(|| descendants(process::id()).iter().any(is_init));
        let end = end_of(in_fork(starts_from_it));
        assert!(is_success(end), "{end:?}");
    });
}

static FORKS: AtomicBool = AtomicBool::new(false);

/// Called before what belljar does: it has registered that earlier.
extern "C" fn before_belljar() {
    FORKS.store(true, Ordering::Relaxed);
    // Until the other thread waits for the environment.
    thread::sleep(Duration::from_millis(100));
}

/// The standard library keeps others from changing the environment while it forks. The program has no test that has run before.
#[body]
fn forks_while_the_environment_changes() {
    #[expect(unsafe_code, reason = "plain tests fork so")]
    // SAFETY: the function does nothing that is not for such a moment.
    let errno = unsafe { libc::pthread_atfork(Some(before_belljar), None, None) };
    assert_eq!(errno, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            wait_until(|| FORKS.load(Ordering::Relaxed));
            #[expect(unsafe_code, reason = "plain tests change it so")]
            // SAFETY: nobody reads it but by the standard library.
            unsafe {
                env::set_var("BELLJAR_FORKED", "1");
            }
        });
        let mut command = Command::new("true");
        #[expect(unsafe_code, reason = "it is not started by posix_spawn(3) then")]
        // SAFETY: nothing is done.
        unsafe {
            command.pre_exec(|| Ok(()));
        }
        alarm::set(PATIENCE);
        assert!(command.status().expect("true").success());
        alarm::cancel();
    });
}

#[test]
fn forks_end_beside_tests() {
    for runner in runners() {
        for body in [
            "forks_that_exit",
            "forks_that_run_a_test",
            "forks_while_a_preparation_runs",
            "forks_while_the_environment_changes",
        ] {
            let trace = tempfile::NamedTempFile::new().expect("a file");
            fs::set_permissions(trace.path(), fs::Permissions::from_mode(0o666)).expect("chmod");
            let mut command = this_binary();
            command.args(["--exact", "body", body, "--show-output"]);
            command.env("BELLJAR_REPORT", "-").env("BELLJAR_TRACE", trace.path());
            let run = run(&mut as_runner(*runner, &command));
            assert!(run.passed() && run.left.is_empty(), "{runner:?}, {body}: {}", run.output);
        }
    }
}
