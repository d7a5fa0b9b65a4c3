//! Tests that the harness has twice, because an attribute above `#[isolated]` has made one where that can't see it. The body runs
//! once, and both have its verdict. Those below pass here too, and the harness's last words are about them.

use std::{env, fs};

use belljar::isolated;
use belljar_tests::{MARK, Run, run, this_binary};
use nix::unistd::{Pid, getppid};

/// What the bodies below write.
const RAN: &str = "the body ran";

/// What is said at the end of the run, and about each of the calls.
const LISTED: &str = "1 test is listed twice. It was run once";
const REPEATED: &str = "is listed twice, and was run once";

macro_rules! made {
    ($(#[$meta:meta])* $name:ident $body:expr) => {
        $(#[$meta])*
        #[isolated]
        fn $name() {
            assert_eq!(getppid(), Pid::from_raw(1));
            println!("{RAN}");
            $body
        }
    };
}

made!(
    #[test]
    victim {}
);
// It fails where another test has started it.
made!(#[test] victim_that_fails assert!(env::var_os(MARK).is_none(), "on purpose"));
made!(#[test] #[should_panic(expected = "purpose")] victim_that_panics panic!("on purpose"));
made!(
    #[test]
    r#union {}
);
made!(
    #[test]
    r#match {}
);
made!(victim_that_is_there_once {});

#[test]
fn caller() {
    victim();
    victim();
    victim_that_is_there_once();
    victim_that_is_there_once();
}

/// Runs the tests of this name; `count` are expected.
fn run_victims(name: &str, threads: &str, count: usize) -> Run {
    let mut command = this_binary();
    let run = run(command.args(["--show-output", "--test-threads", threads, "--exact", name]));
    assert!(run.output.contains(&format!("running {count} test")), "{}", run.output);
    run
}

#[test]
fn a_test_that_is_there_twice_is_run_once() {
    for threads in ["1", "2"] {
        for (victim, verdict) in [
            ("victim", "ok. 2 passed; 0 failed"),
            ("union", "ok. 2 passed; 0 failed"),
            ("r#match", "ok. 2 passed; 0 failed"),
            ("victim_that_fails", "FAILED. 0 passed; 2 failed"),
            ("victim_that_panics", "ok. 2 passed; 0 failed"),
        ] {
            let Run { output, .. } = run_victims(victim, threads, 2);
            assert!(output.contains(verdict), "{output}");
            assert_eq!(output.matches(RAN).count(), 1, "{output}");
            assert_eq!(output.matches(REPEATED).count(), 1, "{output}");
            assert!(output.contains(&format!("{LISTED}:\n  {victim}\n")), "{output}");
        }
    }
}

#[test]
fn what_it_has_cost_is_told_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let report = directory.path().join("report");
    let mut command = this_binary();
    command.env("BELLJAR_REPORT", format!("json:{}", report.display()));
    let run = run(command.args(["--exact", "victim", "--show-output"]));
    assert!(run.output.contains("2 passed"), "{}", run.output);
    let report = fs::read_to_string(report).expect("a report");
    assert_eq!(report.lines().count(), 1, "{report}");
}

/// The twin.
#[test]
fn nothing_is_said_of_a_test_that_is_there_once() {
    let run = run_victims("victim_that_is_there_once", "2", 1);
    assert!(run.passed() && run.output.matches(RAN).count() == 1, "{}", run.output);
    assert!(!run.output.contains("twice"), "{}", run.output);
}

#[test]
fn each_call_of_others_is_run() {
    for threads in ["1", "2"] {
        let run = run_victims("caller", threads, 1);
        assert!(run.passed() && run.output.matches(RAN).count() == 4, "{}", run.output);
        assert!(!run.output.contains("twice"), "{}", run.output);
    }
}
