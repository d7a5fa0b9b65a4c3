//! What is left of a laboratory: nothing, however its test ends.

use std::fs;
use std::mem;
use std::process::Command;

use belljar::isolated;
use belljar::net::{Lab, Net};
use belljar_tests::{body, run, run_body, this_binary};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

fn up() -> Net {
    let mut lab = Lab::new();
    lab.host("host");
    lab.up().expect("up")
}

/// The processes that are called like this, with their parents.
fn called(name: &str) -> Vec<(u32, u32)> {
    let directories = fs::read_dir("/proc").expect("read").flatten();
    let stat = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, tail) = stat.rsplit_once(") ")?;
        let parent = tail.split(' ').nth(1)?.parse().ok()?;
        head.ends_with(&format!("({name}")).then_some((pid, parent))
    };
    directories.filter_map(stat).collect()
}

#[isolated]
fn the_wire_is_inits_child_and_ends_with_the_laboratory() {
    let net = up();
    let wires = called("belljar-wire");
    assert!(matches!(wires[..], [(_, 1)]), "{wires:?}");
    assert_eq!(waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)), Err(Errno::ECHILD));
    // The twin.
    let mut child = Command::new("sleep").arg("1000").spawn().expect("sleep");
    assert!(waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)).is_ok());
    child.kill().and_then(|()| child.wait()).expect("kill");
    drop(net);
    belljar_tests::wait_until(|| called("belljar-wire").is_empty());
}

macro_rules! endings {
    ($($name:ident ($($arguments:tt)*) |$net:ident| { $($body:tt)* })*) => {
        $(#[body]
        #[isolated($($arguments)*)]
        fn $name() {
            let $net = up();
            $($body)*
        })*
    };
}

endings! {
    returns() |_net| {}
    forgets() |net| { mem::forget(net) }
    panics() |_net| { panic!("the body") }
    exits() |_net| { std::process::exit(3) }
    aborts() |_net| { std::process::abort() }
    hangs(timeout = "1s") |_net| { belljar_tests::hang() }
    is_killed() |_net| { nix::sys::signal::kill(Pid::this(), nix::sys::signal::Signal::SIGKILL).expect("kill") }
    kills_all() |_net| {
        let _ = nix::sys::signal::kill(Pid::from_raw(-1), nix::sys::signal::Signal::SIGKILL);
        panic!("the body");
    }
    becomes_another() |_net| {
        let arguments = [c"true"];
        let Err(errno) = nix::unistd::execvp(arguments[0], &arguments);
        panic!("exec: {errno}");
    }
    is_out_of_memory(memory = "64MiB", unsupported = "skip") |_net| { drop(belljar_tests::allocate(256)) }
    // The twin.
    leaves_a_process() |net| {
        drop(net);
        mem::forget(Command::new("sleep").arg("1000").spawn().expect("sleep"));
    }
}

/// What the report lists as left over after a body, and what was told.
fn left_over(test: &str) -> (Vec<String>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let report = directory.path().join("report");
    let mut command = this_binary();
    command.args(["--exact", "body", test, "--ignored", "--show-output"]);
    let run = run(command.env("BELLJAR_REPORT", format!("json:{}", report.display())));
    assert!(run.left.is_empty(), "{test}: {:?}", run.left);
    let text = fs::read_to_string(&report).expect("a report");
    let line: serde_json::Value = serde_json::from_str(text.trim()).expect(&text);
    let names = line["left_over"].as_array().cloned().unwrap_or_default();
    (names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect(), run.output)
}

#[test]
fn no_wire_is_left_over() {
    for test in [
        "returns",
        "forgets",
        "panics",
        "exits",
        "aborts",
        "hangs",
        "is_killed",
        "kills_all",
        "becomes_another",
        "is_out_of_memory",
    ] {
        let test = format!("ends::{test}");
        let (left, output) = left_over(&test);
        assert_eq!(left, [""; 0], "{test}: {output}");
        assert!(!output.contains("belljar-wire"), "{test}: {output}");
    }
    assert_eq!(left_over("ends::leaves_a_process").0, ["sleep"]);
}

#[test]
fn what_returns_passes() {
    for test in ["ends::returns", "ends::forgets"] {
        let run = run_body(test);
        assert!(run.passed(), "{test}: {}", run.output);
    }
}

#[test]
fn a_wire_that_was_killed_is_told() {
    const NOTE: &str = "the wire of its laboratory was killed";
    assert!(run_body("ends::kills_all").output.contains(NOTE));
    // The twin.
    assert!(!run_body("ends::panics").output.contains(NOTE));
}
