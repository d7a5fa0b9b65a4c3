//! The hostile table: what belljar says of tests that do one bad thing each.
//!
//! Each row runs a test of [`hostile`] in a process of its own, and says how it must end, what the harness must print,
//! and what it must not. Whatever a test does, nothing may be left when its process is gone. The plain twins at the end
//! do the same without belljar, and show that the rows can fail.

mod hostile;

use std::os::unix::process::ExitStatusExt as _;
use std::panic;
use std::process::Command;

use belljar_tests::{Run, body, describe, lone_body_command, rounds, run_body, this_binary, wait_until};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passes,
    Fails,
}
use Verdict::{Fails, Passes};

belljar_tests::bodies!();

/// Runs the hostile test `name`, and checks how it ends.
fn check(name: &str, verdict: Verdict, words: &[&str], silence: &[&str]) -> Run {
    let run = run_body(name);
    let printed = if run.output.len() < 100_000 { run.output.as_str() } else { "(a lot)" };
    let ended = describe(run.status);
    match verdict {
        Passes => assert!(run.passed(), "{name} did not pass: {ended}\n{printed}"),
        Fails => assert!(run.failed(), "{name} did not fail: {ended}\n{printed}"),
    }
    for word in words {
        assert!(run.output.contains(word), "{name} lacks {word:?}:\n{printed}");
    }
    for word in silence {
        assert!(!run.output.contains(word), "{name} has {word:?}:\n{printed}");
    }
    assert!(run.output.matches(" failed: ").count() <= 1, "{name} fails for several reasons:\n{printed}");
    assert!(run.left.is_empty(), "{name} left processes: {:?}", run.left);
    run
}

/// One test for each row: `name: verdict ["what must be printed"] without ["what must not"]`, of a hostile test in the module that the
/// table is of. With `in time ["words"]`, these must be printed too, if the body came so far before its time was up: on a busy machine
/// it may not, which shows nothing, and is done again.
macro_rules! table {
    (in $module:literal; $($(#[$attribute:meta])? $name:ident: $verdict:ident [$($words:expr),*]
        $(without [$($silence:expr),*])? $(in time [$($late:expr),*])?;)*
    ) => {
        $($(#[$attribute])?
        #[test]
        fn $name() {
            wait_until(|| {
                let name = concat!($module, "::", stringify!($name));
                let run = check(name, $verdict, &[$($words),*], &[$($($silence),*)?]);
                let late: &[&str] = &[$($($late),*)?];
                late.iter().all(|word| run.output.contains(word))
            });
        })*
    };
}

table! {
    in "hostile";
    panics: Fails ["panicked at", "hostile/mod.rs", "on purpose", "thread 'hostile::panics'"] without ["belljar"];
    panics_as_it_should: Passes [];
    panics_as_expected: Passes [];
    panics_at_length_as_expected: Passes [];
    panics_otherwise_than_expected: Fails ["panic did not contain expected string", "\"on purpose\"", "\"by accident\""];
    panics_without_text: Fails ["Box<dyn Any>"] without ["belljar"];
    panics_without_text_as_it_should: Passes [];
    panics_while_panicking: Fails ["on purpose", "again", "killed by SIGABRT"];
    panics_in_a_thread_local: Fails ["too late", "killed by SIGABRT"];
    panics_when_the_payload_is_dropped: Fails ["dropped"] without ["belljar"];

    returns: Passes [] without ["belljar"];
    returns_although_it_should_panic: Fails ["test did not panic as expected"] without ["belljar"];
    returns_ok: Passes [];
    returns_err: Fails ["Error: \"on purpose\"", "the status 1,"];
    returns_success: Passes [];
    returns_failure: Fails ["the status 77,"];
    returns_something_that_terminates: Fails ["the status 3,"];
}

table! {
    in "hostile::exits";
    exits_0: Fails ["called exit(0) before the body returned"];
    exits_1: Fails ["called exit(1) before the body returned"];
    exits_like_one_that_reported: Fails ["called exit(90) before the body returned"];
    exits_like_one_that_could_not_report: Fails ["called exit(91) before the body returned"];
    exits_from_another_thread: Fails ["called exit(0) before the body returned"];
    exits_0_at_once: Fails ["called _exit(0) before the body returned"];
    exits_101_at_once: Fails ["called _exit(101) before the body returned"];
    exits_at_once_like_one_that_reported: Fails ["called _exit(90) before the body returned"];
    exits_0_although_it_should_panic: Fails ["called exit(0)", "test did not panic as expected"];
    exits_1_although_it_should_panic: Fails ["called exit(1)", "test did not panic as expected"];
    exits_0_at_once_although_it_should_panic: Fails ["called _exit(0)", "test did not panic as expected"];
    calls_another_test: Fails ["has called `hostile::returns`", "called exit(101)"] without ["--list"];
    calls_another_test_although_it_should_panic: Fails ["has called `hostile::returns`", "test did not panic as expected"];
    calls_another_test_that_should_panic: Fails ["has called `hostile::panics_as_it_should`"] without ["and goes on"];
    aborts_although_it_should_panic: Fails ["killed by SIGABRT", "test did not panic as expected"];
    exits_after_a_panic_that_was_caught: Fails ["called exit(0)", "test did not panic as expected"];
    dies_in_an_exit_handler: Fails ["the body returned, but then its process was killed by SIGKILL"];
    exits_0_in_an_exit_handler: Fails ["the body returned, but then its process ended with the status 0"];
}

table! {
    in "hostile::deaths";
    aborts: Fails ["was killed by SIGABRT"];
    reads_an_invalid_address: Fails ["was killed by SIGSEGV", "the invalid address 0x1230"] without ["overflow"];
    sends_itself_sigsegv: Fails ["was killed by SIGSEGV"] without ["invalid address", "overflow"];
    kills_itself: Fails ["was killed by SIGKILL", "look for the out-of-memory killer"];
    dies_of_a_real_time_signal: Fails ["was killed by signal 40"];
    kills_its_process_group: Fails ["was killed by SIGKILL"];
    overflows_its_stack: Fails ["stack overflow", "the test's thread"];
    overflows_another_stack: Fails ["SIGSEGV", "Either this was a stack overflow on a thread that the test started"];
    faults_with_the_default_handler: Fails ["SIGSEGV", "Or the body has blocked the signal. Or the body, or a library"];
    dies_after_a_fault_that_was_put_right: Fails ["was killed by SIGKILL"] without ["invalid address"];
    #[cfg(not(target_env = "musl"))]
    ends_its_thread: Fails ["the thread of its body ended", "`SYS_exit`"] without ["panicked at"];
    #[cfg(not(target_env = "musl"))]
    ends_its_thread_although_it_should_panic: Fails ["the thread of its body ended", "test did not panic as expected"];
    #[cfg(not(target_env = "musl"))]
    has_its_thread_killed: Fails ["the thread of its body ended", "a seccomp filter"] without ["panicked at"];
    ends_another_thread: Passes [] without ["belljar"];
    execs: Fails ["ran another program in its place (exec), which ended with the status 0"];
    execs_what_does_not_exist: Passes [];
}

table! {
    in "hostile::descriptors";
    closes_every_descriptor: Fails ["closed the descriptor that leads to the test binary"];
    writes_rubbish_to_every_descriptor: Fails ["rubbish", "wrote 4167 bytes to the descriptor that leads to the test binary"];
    sends_nothing_to_every_descriptor: Fails ["sent a message of no bytes to the descriptor", "left running was killed"];
    writes_a_byte_to_every_descriptor: Fails ["wrote 1 byte to the descriptor that leads to the test binary"];
    reports_the_end_of_its_process: Fails ["wrote 21 bytes to the descriptor that leads to the test binary"];
    reports_a_return_and_panics: Fails ["wrote 7 bytes to the descriptor that leads to the test binary"];
    reports_a_panic_and_returns: Fails ["wrote 7 bytes to the descriptor that leads to the test binary", "did not panic as expected"];
    reports_a_refusal_and_returns: Fails ["wrote 7 bytes to the descriptor that leads to the test binary"] without ["skipped"];
    shuts_every_socket_down: Fails ["closed the descriptor that leads to the test binary, or shut it down"];
    makes_no_descriptor_wait: Passes [];
    writes_rubbish_and_exits_0: Fails ["called exit(0) before the body returned"];
}

table! {
    in "hostile";
    writes_invalid_utf8: Passes ["before \u{fffd}\u{fffd} after \u{fffd}"];
    writes_no_newline: Fails ["half a line\nbelljar: "];
    writes_in_many_ways: Passes [
        "from println\n", "from eprintln\n", "from write to 1\n", "from write to 2\n", "from printf\n",
        "from a child\n", "from a child's stderr\n", "from a thread\n"
    ];
    writes_after_it_returned: Passes ["from a thread that outlived the body\n"];
    leaves_a_thread_running: Passes [];
}

table! {
    in "hostile::processes";
    leaves_a_daemon: Passes ["the daemon runs", "is over, and what it left running was killed:", "`hostile::proces`, "];
    leaves_odd_names: Passes ["what it left running was killed:", "`Z\u{fffd}rich`, ", "`fourteen-bytes\u{fffd}`, "];
    leaves_a_daemon_and_fails: Fails ["on purpose", "what it left running was killed:"];
    leaves_500_orphans: Passes ["what it left running was killed:", "\n  and 490 more"];
    leaves_500_that_have_ended: Passes [];
    drops_a_fork_bomb: Passes ["what it left running was killed:"];
    kills_all_others: Passes [] without ["left running"];
    signals_init: Passes [];
    reboots: Fails ["the init of its sandbox has been ended by reboot(2)"];
    is_no_session_leader: Passes [];
    returns_twice: Passes [];
    panics_in_the_child: Passes ["the child panics"];
    panics_in_the_test: Fails ["the test panics"] without ["belljar", "the child panics"];
    panics_twice: Fails ["the test panics", "the child panics"] without ["belljar"];
    returns_from_a_process_with_the_same_pid: Fails ["it returns", "on purpose"] without ["belljar"];
    exits_at_once_after_a_process_with_the_same_pid: Fails ["called _exit(0)"];
    kills_itself_after_a_process_with_the_same_pid: Fails ["killed by SIGKILL before"];
}

table! {
    in "hostile";
    hangs: Fails ["its timeout of 1s"] in time ["it still ran after", "the last words", "pid 2 `hostile::hangs`, sleeping in "];
    hangs_although_it_should_panic: Fails ["its timeout of 1s", "test did not panic as expected"] in time ["it still ran after"];
    hangs_with_children: Fails ["its timeout of"] in time ["it still ran after", "pid 2 `", "`sleep`, sleeping in "];
    hangsä: Fails ["its timeout of"] in time [
        "it still ran after", "pid 2 `hostile::hangs\u{fffd}`, ", "`fourteen-bytes\u{fffd}`, sleeping in "
    ];
    hangs_with_all_signals_blocked: Fails ["its timeout of"] in time ["it still ran after", "sleeping in "];
    hands_out_what_takes_long_to_close: Fails ["its timeout of"] in time ["it still ran after", "sent"];
    stops_itself: Fails ["its timeout of"] in time ["it still ran after", "stopped"];
    hangs_in_vfork: Fails ["its timeout of"] in time ["it still ran after", "pid 2 `"];
    hangs_in_a_thread_local: Fails ["its timeout of"] in time ["it still ran after", "pid 2 `"];
    ends_long_before_its_timeout: Passes [];

    changes_all_it_can: Passes [];
    finds_all_pristine: Passes [];
}

#[test]
fn panics_are_printed_once() {
    let run = check("hostile::panics_at_length", Fails, &[], &["belljar"]);
    assert_eq!(run.output.matches("panicked at").count(), 1);
    assert_eq!(run.output.matches('x').count() / hostile::MILLION, 1, "the message is whole, and there once");
}

/// The end of a test is never taken for that of another process.
#[test]
fn tests_may_end_with_others() {
    for round in 0..rounds(10) {
        let run = belljar_tests::run(this_binary().args([
            "--exact",
            "--test-threads=3",
            "body",
            "hostile::processes::siblings::*",
        ]));
        assert!(run.output.contains("test result: ok. 20 passed; 0 failed;"), "round {round}: {}", run.output);
    }
}

/// Their numbers are the next that the kernel gives, and whoever looks for the standard streams finds what has them.
#[test]
fn standard_streams_may_be_closed() {
    for closed in ["0<&-", "0<&- 2>&-", "0<&- 1>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"] {
        let this = this_binary();
        for (test, passes) in [("hostile::returns", true), ("hostile::panics", false), ("plain::reads_stdin", true)] {
            let mut command = Command::new("sh");
            let script = format!("exec \"$0\" \"$@\" {closed}");
            command.args(["-c", &script]).arg(this.get_program()).args(["--exact", "body", test]);
            let run = belljar_tests::run(&mut command);
            assert_eq!(run.status.success(), passes, "{closed} {test}: {}", run.output);
            assert!(run.left.is_empty());
        }
    }
}

/// With as much stack as a plain test needs, an isolated one has enough. belljar's side of it needs more than a body that does nothing.
#[test]
fn small_stacks_are_the_bodys() {
    for size in ["0", "1", "4096", "8192", "32768", "65536"] {
        let run = |name: &str| {
            let mut command = this_binary();
            command.env("RUST_MIN_STACK", size).args(["--exact", "body", name, "--show-output"]);
            belljar_tests::run(&mut command)
        };
        // musl's smallest stack has 2 KiB, and libtest alone overflows it. If it no longer does, belljar must not either.
        if cfg!(target_env = "musl") && ["0", "1"].contains(&size) {
            let run = run("plain::changes_a_static");
            assert_eq!(run.status.signal(), Some(libc::SIGABRT), "{size}: {}", run.output);
            continue;
        }
        for name in [
            "plain::changes_a_static",
            "plain::panics_as_it_should",
            "hostile::returns",
            "hostile::panics_as_it_should",
        ] {
            let run = run(name);
            assert!(run.passed(), "{size} {name}: {}", run.output);
        }
        for (name, words) in [
            ("hostile::panics", "on purpose"),
            ("hostile::hangs", "after its timeout"),
            ("hostile::deaths::overflows_its_stack", "stack overflow: the test's thread"),
        ] {
            let run = run(name);
            assert!(run.failed() && run.output.contains(words), "{size} {name}: {}", run.output);
        }
    }
}

#[test]
fn no_output_is_lost() {
    let run = check("hostile::floods_stdout", Passes, &[], &["belljar"]);
    let lines = run.output.lines().filter(|line| line.len() == 1023 && line.bytes().all(|byte| byte == b'x'));
    assert_eq!(lines.count(), hostile::FLOOD / 1024);
}

#[test]
fn a_report_goes_to_no_other_file() {
    check(
        "hostile::descriptors::replaces_every_descriptor",
        Fails,
        &["closed the descriptor that leads to the test binary", "the file is empty"],
        &[],
    );
}

#[test]
fn neighbours_share_nothing() {
    // Both in one test binary, one after the other and then at once.
    for threads in ["--test-threads=1", "--test-threads=2"] {
        let mut command = this_binary();
        command.args(["--exact", threads, "body", "hostile::changes_all_it_can", "hostile::finds_all_pristine"]);
        let run = belljar_tests::run(&mut command);
        assert!(run.output.contains("test result: ok. 2 passed; 0 failed"), "{}", run.output);
    }
}

#[body]
#[belljar::isolated]
fn waits_for_its_end() {
    belljar_tests::hang()
}

/// Whoever ends the test binary ends all tests. They are not to look for somebody else who did.
#[test]
fn tests_that_still_run_when_the_test_binary_exits() {
    for _ in 0..rounds(20) {
        let mut command = this_binary();
        command.args(["--exact", "body", "--nocapture", "--test-threads=2"]);
        let run = belljar_tests::run(command.args(["waits_for_its_end", "plain::exits_while_a_test_runs"]));
        assert_eq!(run.status.code(), Some(7), "{}", run.output);
        assert!(!run.output.contains("killed") && !run.output.contains("gone"), "{}", run.output);
        assert!(!run.output.contains("waits_for_its_end ... ok"), "{}", run.output);
        assert!(run.left.is_empty());
    }
}

/// Under nextest, a process is asked for one test by its name, and its template ends with its sandbox.
#[test]
fn reboots_alone() {
    for _ in 0..rounds(10) {
        let run = belljar_tests::run(&mut lone_body_command("hostile::processes::reboots"));
        let words = "the init of its sandbox has been ended by reboot(2)";
        assert!(run.failed() && run.output.contains(words), "{}", run.output);
        assert!(run.left.is_empty(), "{:?}", run.left);
    }
}

#[body]
#[belljar::isolated]
fn passes_in_a_fork() {}

#[body]
#[belljar::isolated]
fn fails_in_a_fork() {
    panic!("on purpose");
}

/// Forks when sandboxes have been prepared, and runs a test in each.
#[body]
fn runs_tests_in_forks() {
    (0..8).for_each(|_| passes_in_a_fork());
    let run = |body: fn()| match belljar_tests::fork() {
        ForkResult::Child => std::process::exit(panic::catch_unwind(body).is_err().into()),
        ForkResult::Parent { child } => child,
    };
    let children = [passes_in_a_fork, fails_in_a_fork, passes_in_a_fork, fails_in_a_fork, passes_in_a_fork].map(run);
    let failed = children.map(|child| waitpid(child, None).expect("wait") == WaitStatus::Exited(child, 1));
    assert_eq!(failed, [false, true, false, true, false]);
}

#[test]
fn forks_of_the_test_binary_have_verdicts_of_their_own() {
    for _ in 0..rounds(10) {
        let run = run_body("runs_tests_in_forks");
        assert!(run.passed() && run.left.is_empty(), "{}", run.output);
    }
}

/// The same, without belljar.
mod plain {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::{env, process};

    use belljar_tests::body;

    #[body]
    fn reads_stdin() {
        let line = std::io::stdin().lines().next();
        assert!(line.is_none_or(|line| line.is_err()));
    }

    #[body]
    fn exits_0() {
        process::exit(0);
    }

    #[body]
    fn exits_while_a_test_runs() {
        // Its zygote, an init and a test.
        belljar_tests::wait_until(|| belljar_tests::descendants(process::id()).len() >= 3);
        process::exit(7);
    }

    #[body]
    #[expect(clippy::zombie_processes, reason = "that is the point")]
    fn leaves_a_child() {
        process::Command::new("sleep").arg("1000").spawn().expect("spawn");
    }

    #[belljar_tests::body]
    #[should_panic(expected = "on purpose")]
    fn panics_as_it_should() {
        panic!("on purpose");
    }

    static COUNTER: AtomicU32 = AtomicU32::new(0);

    #[body]
    fn changes_a_static() {
        assert_eq!(COUNTER.swap(7, Ordering::Relaxed), 0);
        env::set_current_dir("/").expect("chdir");
    }

    #[body]
    fn finds_a_static_changed() {
        assert_eq!(COUNTER.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn without_belljar_exit_looks_like_a_pass() {
    let run = run_body("plain::exits_0");
    assert!(run.status.success() && !run.passed(), "{}", run.output);
}

#[test]
fn without_belljar_processes_are_left() {
    let run = run_body("plain::leaves_a_child");
    run.kill_left();
    assert!(run.passed(), "{}", run.output);
    assert_eq!(run.left.len(), 1);
}

#[test]
fn without_belljar_neighbours_share_statics() {
    let mut command = this_binary();
    command.args(["--exact", "--test-threads=1", "body", "plain::changes_a_static", "plain::finds_a_static_changed"]);
    let run = belljar_tests::run(&mut command);
    assert!(run.output.contains("1 passed; 1 failed"), "{}", run.output);
}
