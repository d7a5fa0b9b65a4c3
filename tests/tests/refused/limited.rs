//! Hosts that have too few descriptors, files, processes or threads.

use std::process;
use std::process::Command;

use belljar::isolated;
use belljar_tests::{body, descendants, run_body, this_binary};

use crate::{RAN, check_told, victim};

/// Runs a victim in a shell that has put a limit on itself, and checks what it is told. What it writes goes through a pipe: files may be
/// limited. The first descriptor behind the standard streams is free, also if whoever runs the tests has one open there, as `make` has.
fn check_limited(limit: &str, words: &[&str]) {
    let script = format!("exec 3>&-; ({limit} && exec \"$0\" --exact body victim --show-output) 2>&1 | cat; exit 101");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(this_binary().get_program());
    check_told(&mut command, words);
}

#[test]
fn a_limit_on_descriptors() {
    check_limited(
        "ulimit -n 4",
        &["fork the zygote", "EMFILE", "seen:   RLIMIT_NOFILE is 4", "remedy: raise the limit on open files"],
    );
}

#[test]
fn a_limit_on_files() {
    let words = ["write a file in the sandbox", "EFBIG", "seen:   RLIMIT_FSIZE is 0", "remedy: ulimit -f unlimited"];
    check_limited("ulimit -f 0", &words);
}

/// One process too many, of the few that the cgroup or RLIMIT_NPROC allow.
#[isolated(pids = 4)]
fn a_host_without_room_for_processes() {
    let mut command = this_binary();
    command.args(["--exact", "body", "victim", "--show-output", "--test-threads=1"]);
    let run = belljar_tests::run(&mut command);
    assert!(run.failed() && !run.output.contains(RAN), "{}", run.output);
    let seen = ["pids.max is ", "RLIMIT_NPROC is "].iter().any(|words| run.output.contains(words));
    assert!(seen && run.output.contains("EAGAIN"), "{}", run.output);
}

/// A thread that can't be had is no panic of the body's.
#[test]
fn a_host_without_room_for_a_thread() {
    for victim in ["victim", "victim_that_should_panic"] {
        let mut command = this_binary();
        command.args(["--exact", "body", victim, "--show-output", "--test-threads=1"]);
        let too_much: u64 = if cfg!(target_pointer_width = "32") { 7 << 29 } else { 1 << 47 };
        let run = belljar_tests::run(command.env("RUST_MIN_STACK", too_much.to_string()));
        assert!(run.failed() && !run.output.contains(RAN), "{}", run.output);
        assert!(run.output.contains("start the thread of the body"), "{}", run.output);
        assert!(run.output.contains("lower RUST_MIN_STACK"), "{}", run.output);
    }
}

/// Nobody can tell the zygote of a sandbox when it has no place for the descriptors.
#[test]
fn a_zygote_without_descriptors() {
    let run = run_body("limited::takes_the_descriptors_from_the_zygote");
    assert!(run.failed(), "{}", run.output);
    assert!(run.output.contains("its sandbox was never made") && run.output.contains("ulimit -n"), "{}", run.output);
    assert!(!run.output.contains(RAN), "{}", run.output);
}

#[body]
#[isolated]
fn passes_in_silence() {}

#[body]
fn takes_the_descriptors_from_the_zygote() {
    // A zygote that still begins needs descriptors itself.
    passes_in_silence();
    for zygote in descendants(process::id()) {
        let status = Command::new("prlimit").args(["--nofile=0", "--pid", &zygote.to_string()]).status();
        assert!(status.expect("prlimit").success());
    }
    victim();
}
