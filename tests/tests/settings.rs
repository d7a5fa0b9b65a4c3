//! What the environment says is known, or an error; and what holds for all variables alike.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use std::time::Duration;
use std::{env, thread};

use belljar::isolated;
use belljar_tests::{Run, body, run, run_begun, run_hanging, run_in_terminal, this_binary};

belljar_tests::bodies!();

/// What the body of `passes` writes.
const RAN: &str = "the body ran";

#[body]
#[isolated]
fn passes() {
    println!("{RAN}");
}

/// This binary, to run one test.
fn victim(name: &str) -> Command {
    let mut command = this_binary();
    command.args(["--exact", "body", name, "--show-output"]).env_remove("CI");
    command
}

/// Runs `passes` in this environment, where it must fail without having run. Returns what was said.
fn refused(environment: &[(&str, &str)]) -> String {
    let Run { output, left, status } = run(victim("passes").envs(environment.iter().copied()));
    assert!(status.code() == Some(101) && left.is_empty() && !output.contains(RAN), "{environment:?}: {output}");
    assert!(output.contains("belljar: `passes` did not run: "), "{environment:?}: {output}");
    output
}

#[test]
fn unknown_variables_are_errors() {
    let list = "It has BELLJAR_CGROUP, BELLJAR_DOCTOR, BELLJAR_ON_FAIL, BELLJAR_REPORT, BELLJAR_TIMEOUT, BELLJAR_TRACE, \
                BELLJAR_UNSUPPORTED.";
    let output = refused(&[("BELLJAR_TIMOUT", "60s")]);
    let told = format!("belljar has no variable BELLJAR_TIMOUT. Did you mean BELLJAR_TIMEOUT? {list}\n");
    assert!(output.contains(&told), "{output}");
    let output = refused(&[("BELLJAR_VERBOSE", "1")]);
    assert!(output.contains(&format!("belljar has no variable BELLJAR_VERBOSE. {list}\n")), "{output}");
    // What is no text is no reason to panic.
    let run = run(victim("passes").env(OsStr::from_bytes(b"BELLJAR_\xff"), "1"));
    assert!(run.failed() && run.output.contains("no variable BELLJAR_\u{fffd}. It has"), "{}", run.output);
}

/// The twin.
#[test]
fn other_variables_are_none_of_belljars() {
    let known = ["CGROUP", "DOCTOR", "ON_FAIL", "REPORT", "TIMEOUT", "TRACE", "UNSUPPORTED", "NONSENSE"];
    let empty = known.map(|name| (format!("BELLJAR_{name}"), ""));
    let others = [("BELLJARS", "1"), ("belljar_timeout", "1"), ("BELLJAR_TESTS_NONSENSE", "1"), ("MY_BELLJAR_X", "1")];
    let run = run(victim("passes").envs(empty).envs(others));
    assert!(run.passed() && run.output.contains(RAN), "{}", run.output);
}

/// One run is enough to learn of them all.
#[test]
fn all_mistakes_are_told_at_once() {
    let environment = [
        ("BELLJAR_CGROUP", "-"),
        ("BELLJAR_ON_FAIL", "bash"),
        ("BELLJAR_REPORT", "1"),
        ("BELLJAR_TIMEOUT", "60"),
        ("BELLJAR_TRACE", "/nowhere/trace.json"),
        ("BELLJAR_UNSUPPORTED", "\u{1b}[1mskip"),
        ("BELLJAR_NONSENSE", "x"),
    ];
    let output = refused(&environment);
    assert!(output.contains("did not run: several environment variables are wrong:\n"), "{output}");
    for told in [
        "BELLJAR_CGROUP is `-`. Write the path of a cgroup",
        "BELLJAR_ON_FAIL is `bash`. Write `shell`",
        "BELLJAR_REPORT is `1`. Write `-`",
        "BELLJAR_TIMEOUT is `60`. Write how long a test may run, such as `60s`, `250ms` or `1m 30s`.",
        "BELLJAR_TRACE names the file `/nowhere/trace.json`, which can't be used: ENOENT",
        // It does not control a terminal.
        "BELLJAR_UNSUPPORTED is `\\u{1b}[1mskip`. Write `skip` or `fail`",
        "belljar has no variable BELLJAR_NONSENSE.",
    ] {
        let lines = output.lines().filter(|line| line.strip_prefix("  ").is_some_and(|line| line.starts_with(told)));
        assert_eq!(lines.count(), 1, "{told:?} in {output}");
    }
}

// ---- Test binaries that tests start ----

#[body]
#[isolated]
fn fails() {
    panic!("by intention");
}

/// It does not fail, or its own sandbox would be kept.
#[body]
#[isolated]
fn starts_another() {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut seen: Vec<_> = names.filter(|name| name.starts_with("BELLJAR_") && !name.contains("_TESTS_")).collect();
    seen.sort();
    println!("sees {}", seen.join(" "));
    let run = run(&mut victim("fails"));
    println!("{}: {}", if run.failed() { "it fails" } else { "IT DOES NOT FAIL" }, run.output);
}

/// Nobody could enter a sandbox that is kept there, and the files are elsewhere.
#[test]
fn test_binaries_that_tests_start_have_no_say_of_the_host() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut command = victim("starts_another");
    command.envs([("BELLJAR_ON_FAIL", "shell"), ("BELLJAR_TIMEOUT", "1h"), ("BELLJAR_UNSUPPORTED", "fail")]);
    command.env("BELLJAR_REPORT", format!("json:{}", path("report"))).env("BELLJAR_TRACE", path("trace"));
    let run = run_in_terminal(&mut command);
    assert!(run.passed() && run.left.is_empty(), "{}", run.output);
    assert!(run.output.contains("sees BELLJAR_TIMEOUT BELLJAR_UNSUPPORTED\nit fails: "), "{}", run.output);
}

// ---- Timeouts ----

/// So long that whoever waits for it shows that nothing has ended it.
const LONG: Duration = Duration::from_secs(60);

#[body]
#[isolated]
fn hangs() {
    thread::sleep(LONG);
}

#[body]
#[isolated(timeout = "400ms")]
fn hangs_with_a_timeout() {
    thread::sleep(LONG);
}

#[body]
#[isolated(timeout = "1h")]
fn takes_a_while_and_has_a_timeout() {
    thread::sleep(Duration::from_millis(100));
}

#[body]
#[isolated]
fn takes_a_while() {
    thread::sleep(Duration::from_millis(100));
}

/// The daemon has the pipe that the test reads from.
#[body]
#[isolated]
fn waits_for_a_daemon() {
    let output = Command::new("sh").args(["-c", "sleep 60 & echo started"]).output().expect("sh");
    println!("{RAN}: {output:?}");
}

fn with_timeout(test: &str, timeout: &str) -> Run {
    let run = run(victim(test).env("BELLJAR_TIMEOUT", timeout));
    assert!(run.left.is_empty(), "{}", run.output);
    run
}

#[test]
fn a_test_with_no_timeout_has_that_of_the_environment() {
    // One that is up before there is a sandbox shows nothing.
    let timeouts = (0..8).map(|doubled| Duration::from_millis(300 << doubled));
    let mut runs = timeouts.map(|timeout| (timeout, with_timeout("hangs", &format!("{}ms", timeout.as_millis()))));
    let (timeout, run) = runs.find(|(_, run)| !run.output.contains("did not begin")).expect("it begins in time");
    let told = format!(
        "belljar: `hangs` failed: it still ran after {timeout:?}, the timeout that BELLJAR_TIMEOUT gives to tests with none of their own, \
         and was killed with all it had started:\n  pid "
    );
    assert!(run.failed() && run.output.contains(&told), "{}", run.output);
    assert!(with_timeout("takes_a_while", "1ms").failed());
    // The twins.
    assert!(with_timeout("takes_a_while", "1h").passed());
    assert!(with_timeout("takes_a_while", "").passed());
}

#[test]
fn a_test_keeps_its_own_timeout() {
    let run = run_begun(victim("hangs_with_a_timeout").env("BELLJAR_TIMEOUT", "1h"));
    let told = "`hangs_with_a_timeout` failed: it still ran after its timeout of 400ms, and was killed";
    assert!(run.failed() && run.left.is_empty() && run.output.contains(told), "{}", run.output);
    let run = with_timeout("takes_a_while_and_has_a_timeout", "1ms");
    assert!(run.passed(), "{}", run.output);
}

#[test]
fn a_daemon_that_holds_a_pipe_does_not_hold_the_run() {
    let run = run_hanging(&mut victim("waits_for_a_daemon"), |output| output.contains(" `sleep`, "));
    assert!(run.failed() && run.left.is_empty() && !run.output.contains(RAN), "{}", run.output);
    assert!(run.output.contains("s, the timeout that BELLJAR_TIMEOUT gives"), "{}", run.output);
    assert!(run.output.contains(" `sleep`, "), "{}", run.output);
}

#[test]
fn a_timeout_is_a_time() {
    for value in ["60", "0s", "0", "-5s", "soon", "1", "s"] {
        let output = refused(&[("BELLJAR_TIMEOUT", value)]);
        let told = format!("did not run: BELLJAR_TIMEOUT is `{value}`. Write how long a test may run, such as `60s`");
        assert!(output.contains(&told), "{output}");
    }
    for value in ["60s", "1m 30s", "1min", "0.5h", "100years"] {
        assert!(with_timeout("passes", value).passed(), "{value}");
    }
}
