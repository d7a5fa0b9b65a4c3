//! What becomes of tests that the host can't run: they fail, unless somebody asks for them to be skipped.
//!
//! Within a sandbox nobody is real root, so that there `user = "host"` can't be had, whoever runs this.

use std::process::Command;

use belljar::isolated;
use belljar_tests::{Run, body, run, this_binary};

belljar_tests::bodies!();

/// What the bodies below write.
const RAN: &str = "the body ran";

#[body]
#[isolated(user = "host")]
fn victim() {
    println!("{RAN}");
}

#[body]
#[isolated(user = "host")]
fn victim_two() {
    println!("{RAN}");
}

#[body]
#[isolated(user = "host", unsupported = "skip")]
fn victim_that_may_be_skipped() {
    println!("{RAN}");
}

#[body]
#[isolated(user = "host", unsupported = "fail")]
#[should_panic(expected = "the body \"ran\"")]
fn victim_that_should_panic() {
    panic!("{RAN}");
}

#[body]
#[isolated(user = "host", unsupported = "skip")]
#[should_panic]
fn victim_that_should_panic_somehow() {
    panic!("{RAN}");
}

#[body]
#[isolated(bind = ["/nonexistent/path"], unsupported = "skip")]
fn victim_of_a_mistake() {
    println!("{RAN}");
}

#[body]
#[isolated(unsupported = "skip")]
fn runs_everywhere() {
    println!("{RAN}");
}

/// Runs one of those, with what the environment says.
fn run_with(test: &str, environment: &[(&str, &str)]) -> Run {
    let mut command = this_binary();
    command.args(["--exact", "body", test, "--show-output"]).env_remove("CI").env_remove("BELLJAR_UNSUPPORTED");
    let run = run(command.envs(environment.iter().copied()));
    assert!(run.left.is_empty(), "{}", run.output);
    run
}

fn is_skipped(test: &str, environment: &[(&str, &str)]) {
    let run = run_with(test, environment);
    assert!(run.passed() && !run.output.contains(RAN), "{test} {environment:?}: {}", run.output);
    for text in [
        format!("belljar: skipped: `{test}`: could not do without a user namespace: EPERM"),
        "sudo -E cargo test".to_owned(),
        format!("belljar: skipped 1 test that this host can't run\n  {test}: could not do without a user namespace"),
    ] {
        assert!(run.output.contains(&text), "{test} lacks {text:?}: {}", run.output);
    }
}

fn fails(test: &str, environment: &[(&str, &str)]) -> String {
    let run = run_with(test, environment);
    assert!(run.failed() && !run.output.contains(RAN), "{test} {environment:?}: {}", run.output);
    assert!(!run.output.contains("skipped:"), "{test} {environment:?}: {}", run.output);
    run.output
}

const SKIP: (&str, &str) = ("BELLJAR_UNSUPPORTED", "skip");
const FAIL: (&str, &str) = ("BELLJAR_UNSUPPORTED", "fail");
const CI: (&str, &str) = ("CI", "true");

#[isolated]
fn nobody_skips_what_was_not_asked_for() {
    for environment in [&[][..], &[CI], &[FAIL], &[("BELLJAR_UNSUPPORTED", "")]] {
        let output = fails("victim", environment);
        assert!(output.contains("`victim` did not run: this host does not let its sandbox be set up."), "{output}");
        fails("victim_that_should_panic", environment);
    }
}

#[isolated]
fn the_environment_can_ask_for_it() {
    for environment in [&[SKIP][..], &[SKIP, CI]] {
        is_skipped("victim", environment);
        is_skipped("victim_that_may_be_skipped", environment);
        is_skipped("victim_that_should_panic", environment);
    }
}

#[isolated]
fn a_test_can_ask_for_it() {
    is_skipped("victim_that_may_be_skipped", &[]);
    is_skipped("victim_that_should_panic_somehow", &[]);
    fails("victim_that_may_be_skipped", &[FAIL]);
    fails("victim_that_should_panic_somehow", &[FAIL]);
}

#[isolated]
fn a_mistake_is_no_reason() {
    let output = fails("victim_of_a_mistake", &[SKIP]);
    assert!(output.contains("/nonexistent/path") && output.contains("no such path on the host"), "{output}");
}

#[isolated]
fn what_the_host_can_run_is_run() {
    let run = run_with("runs_everywhere", &[SKIP]);
    assert!(run.passed() && run.output.contains(RAN) && !run.output.contains("skipped"), "{}", run.output);
}

#[isolated]
fn unknown_values_are_errors() {
    let output = fails("runs_everywhere", &[("BELLJAR_UNSUPPORTED", "ignore")]);
    assert!(output.contains("BELLJAR_UNSUPPORTED is `ignore`") && output.contains("`skip`"), "{output}");
}

#[isolated]
fn one_page_is_enough() {
    let mut command: Command = this_binary();
    let run = run(command.args(["--exact", "body", "victim*", "--test-threads=1"]).env("BELLJAR_REPORT", "-"));
    assert!(run.output.contains("4 failed") && !run.output.contains(RAN), "{}", run.output);
    assert_eq!(run.output.matches("  remedy: sudo").count(), 1, "{}", run.output);
    assert!(run.output.contains("`victim_two` did not run: could not do without a user namespace"), "{}", run.output);
    assert!(run.output.contains("(as for `victim`)"), "{}", run.output);
    // Two are skipped, and the report tells.
    assert!(run.output.contains("belljar: skipped 2 tests that this host can't run\n"), "{}", run.output);
    let skipped = run.output.lines().filter(|line| line.starts_with("  unsupported::") && line.contains(" skipped "));
    assert_eq!(skipped.count(), 2, "{}", run.output);
}
