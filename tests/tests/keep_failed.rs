//! `BELLJAR_ON_FAIL=shell` keeps the sandboxes of tests that fail, and tells how to enter them.

use std::fs;
use std::io::BufRead as _;
use std::net::TcpListener;
use std::process::{Command, Stdio, exit};

use belljar::isolated;
use belljar::net::Lab;
use belljar_tests::{Run, body, hang, mark, marked, run, run_in_terminal, start_in_terminal, this_binary, wait_until};

belljar_tests::bodies!();

const EVIDENCE: &str = "/tmp/evidence";

fn leave_evidence() {
    fs::write(EVIDENCE, "what the test wrote").expect("write");
}

#[body]
#[isolated(hostname = "kept")]
fn victim_that_panics() {
    leave_evidence();
    panic!("by intention");
}

#[body]
#[isolated(hostname = "kept", memory = "256MiB", unsupported = "skip")]
fn victim_with_a_limit() {
    leave_evidence();
    panic!("by intention");
}

#[body]
#[isolated(hostname = "kept")]
fn victim_that_exits() {
    leave_evidence();
    exit(0);
}

#[body]
#[isolated(hostname = "kept")]
fn victim_that_hangs() {
    leave_evidence();
    hang();
}

#[body]
#[isolated(hostname = "kept")]
#[should_panic]
fn victim_that_should_panic() {
    leave_evidence();
}

/// When its body is over, nothing of its own holds its hosts any more.
#[body]
#[isolated(hostname = "kept")]
fn victim_with_a_laboratory() {
    let mut lab = Lab::new();
    let (server, _client) = (lab.host("server"), lab.host("client"));
    let _net = lab.up().expect("up");
    server.run(|| fs::write("/tmp/server", "what a host wrote")).expect("write");
    leave_evidence();
    panic!("by intention");
}

#[body]
#[isolated(hostname = "kept")]
fn victim_with_a_laboratory_that_hangs() {
    let mut lab = Lab::new();
    let (server, _client) = (lab.host("server"), lab.host("client"));
    let _net = lab.up().expect("up");
    let _listener = server.run(|| TcpListener::bind("10.0.0.1:80")).expect("bind");
    leave_evidence();
    hang();
}

#[body]
#[isolated]
fn passes() {}

#[body]
#[isolated]
#[should_panic(expected = "intention")]
fn panics_as_it_should() {
    panic!("by intention");
}

/// This binary, to run one test.
fn victim(name: &str, on_fail: &str) -> Command {
    let mut command = this_binary();
    command.args(["--exact", "body", name]).env("BELLJAR_ON_FAIL", on_fail).env_remove("CI");
    command
}

/// Whether the shell succeeds with `line`.
fn succeeds(line: &str) -> bool {
    Command::new("sh").args(["-c", line]).status().expect("sh").success()
}

/// What the shell makes of `line`.
fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh");
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs a test that fails, enters its sandbox as told, lets it go as told, and returns what was told of the failure.
fn enter(name: &str) -> String {
    enter_hosts(name, &[], |_, _| {})
}

/// The same, and hands `look` the command by which each of the hosts is entered that are named, in this order.
fn enter_hosts(name: &str, hosts: &[&str], look: impl Fn(&str, &str)) -> String {
    enter_in_time(name, "", hosts, look).expect("a sandbox that is kept")
}

/// The same for a test that hangs, with twice the timeout until its body has come so far.
fn enter_late(name: &str, hosts: &[&str], look: impl Fn(&str, &str)) -> String {
    let mut timeouts = (0..7).map(|doubled| format!("{}ms", 300 << doubled));
    timeouts.find_map(|timeout| enter_in_time(name, &timeout, hosts, &look)).expect("it hangs in time")
}

/// The same with this timeout. `None` if that was up before the body left its evidence.
fn enter_in_time(name: &str, timeout: &str, hosts: &[&str], look: impl Fn(&str, &str)) -> Option<String> {
    let mut command = victim(name, "shell");
    command.env("BELLJAR_TIMEOUT", timeout);
    let mark = mark(&mut command);
    let (mut child, terminal) = start_in_terminal(command.stdout(Stdio::null()));
    // Once nobody has the terminal open, to read is an error.
    let mut lines = terminal.lines().map_while(Result::ok);
    let mut told = String::new();
    let go = lines.find(|line| {
        told = format!("{told}{line}\n");
        line.trim_start().starts_with("kill ")
    });
    let entering = |after: &str| {
        let (_, rest) = told.split_once(after)?;
        rest.lines().find(|line| line.trim_start().starts_with("nsenter "))
    };
    let enter = entering("");
    let hosts = hosts.iter().map(|host| Some((host, entering(&format!("To enter its host `{host}`:"))?)));
    let hosts: Option<Vec<_>> = hosts.collect();
    let has_left = |enter| succeeds(&format!("{enter} -c 'test -s {EVIDENCE}'"));
    if !timeout.is_empty() && (hosts.is_none() || !enter.is_some_and(has_left)) {
        // It is kept if it has begun.
        let _ = go.map(|go| sh(&go));
        child.wait().expect("wait");
        return None;
    }
    let Some(((enter, hosts), go)) = enter.zip(hosts).zip(go) else { panic!("{name}: {told}") };
    assert_eq!(sh(&format!("{enter} -c 'uname -n; cat {EVIDENCE}'")), "kept\nwhat the test wrote", "{name}");
    hosts.iter().for_each(|(host, enter)| look(host, enter));
    sh(&go);
    let status = child.wait().expect("wait");
    assert_eq!(status.code(), Some(101), "{name}: {told}");
    wait_until(|| marked(&mark).is_empty());
    Some(told)
}

#[test]
fn whatever_fails_is_kept() {
    for (name, why) in [
        ("victim_that_panics", "`victim_that_panics` failed: its body panicked: by intention"),
        ("victim_that_exits", "called exit(0) before the body returned"),
        ("victim_that_should_panic", "its body returned, and should have panicked"),
    ] {
        let told = enter(name);
        assert!(told.contains(why), "{told}");
    }
    let told = enter_late("victim_that_hangs", &[], |_, _| {});
    assert!(told.contains("`victim_that_hangs` failed: its time is up"), "{told}");
    if belljar_tests::must_limit() == Some(true) {
        enter("victim_with_a_limit");
    }
}

#[test]
fn hosts_of_a_laboratory_are_kept_too() {
    let told = enter_hosts("victim_with_a_laboratory", &["server", "client"], |host, enter| {
        let seen = sh(&format!("{enter} -c 'uname -n; grep -c eth0: /proc/net/dev; cat {EVIDENCE} /tmp/server'"));
        assert_eq!(seen, format!("{host}\n1\nwhat the test wrotewhat a host wrote"));
    });
    assert_eq!(told.matches("To enter its host").count(), 2, "{told}");
    // What is between the hosts of a test whose time is up is there too.
    enter_late("victim_with_a_laboratory_that_hangs", &["server", "client"], |host, enter| {
        if host == "client" {
            sh(&format!("{enter} -c 'exec 3<>/dev/tcp/server/80'").replace(" sh -c", " bash -c"));
        }
    });
    // The twin.
    assert!(!enter("victim_that_panics").contains("host"));
}

#[test]
fn nothing_else_is_kept() {
    for name in ["passes", "panics_as_it_should"] {
        let run = run_in_terminal(&mut victim(name, "shell"));
        assert!(run.passed() && run.left.is_empty() && !run.output.contains("kept"), "{}", run.output);
    }
    let run = run_in_terminal(&mut victim("victim_that_panics", ""));
    assert!(run.failed() && !run.output.contains("nsenter"), "{}", run.output);
}

/// Fails at once, without having run, and says why nobody can enter a sandbox.
fn refuses(run: &Run, why: &str) {
    let text = format!("nobody can enter the sandboxes that it keeps: {why}");
    assert!(run.failed() && run.left.is_empty() && run.output.contains(&text), "{}", run.output);
    assert!(!run.output.contains("by intention") && !run.output.contains("nsenter"), "{}", run.output);
}

#[test]
fn where_nobody_can_enter_it_nothing_is_kept() {
    for name in ["victim_that_panics", "passes"] {
        refuses(&run(&mut victim(name, "shell")), "standard error is no terminal");
        refuses(&run_in_terminal(victim(name, "shell").env("CI", "true")), "CI is set");
    }
}

#[test]
fn ci_may_be_set_to_nothing() {
    for value in ["", "false"] {
        let run = run_in_terminal(victim("passes", "shell").env("CI", value));
        assert!(run.passed(), "{}", run.output);
    }
    // It does not matter where nothing is to be kept.
    let run = run(victim("passes", "").env("CI", "true"));
    assert!(run.passed(), "{}", run.output);
}

#[test]
fn what_nobody_knows_is_an_error() {
    let run = run_in_terminal(&mut victim("passes", "bash"));
    assert!(run.failed() && run.output.contains("BELLJAR_ON_FAIL is `bash`. Write `shell`"), "{}", run.output);
}
