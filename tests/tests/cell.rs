//! What `matrix` runs in each place: tests that pass in a sandbox alone, and say so.

use std::net::{TcpListener, TcpStream};
use std::{fs, process};

use belljar::isolated;
use belljar_tests::{run, this_binary};
use nix::ifaddrs::getifaddrs;
use nix::unistd::{gethostname, getppid, getuid, sethostname};

/// What a body writes that found itself in a sandbox.
const ISOLATED: &str = "the body is isolated";

/// What a body writes that did not.
const SHARED: &str = "the body is NOT ISOLATED";

/// What is not the sandbox's own.
fn shared() -> Vec<&'static str> {
    let lines = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let interfaces = getifaddrs().into_iter().flatten().map(|interface| interface.interface_name);
    let root_is_tmpfs = lines("/proc/self/mountinfo").lines().any(|line| {
        let mut halves = line.split(" - ").map(|half| half.split(' ').collect::<Vec<_>>());
        halves.next().is_some_and(|half| half[4] == "/") && halves.next().is_some_and(|half| half[0] == "tmpfs")
    });
    let cgroups = lines("/proc/self/cgroup");
    [
        ("the host name", gethostname().is_ok_and(|name| name == "cell") && sethostname("other").is_ok()),
        ("the process", (process::id(), getppid().as_raw()) == (2, 1)),
        ("the user", getuid().is_root() && lines("/proc/self/uid_map").split_whitespace().last() == Some("1")),
        ("the root", root_is_tmpfs && fs::write("/etc/hosts", "").is_ok()),
        ("the interfaces", interfaces.into_iter().all(|name| name == "lo")),
        (
            "the network",
            TcpListener::bind("127.0.0.1:80").is_ok_and(|_port| TcpStream::connect("127.0.0.1:80").is_ok()),
        ),
        ("the cgroup", !cgroups.is_empty() && cgroups.lines().all(|line| line.ends_with(":/"))),
    ]
    .into_iter()
    .filter_map(|(what, is_own)| (!is_own).then_some(what))
    .collect()
}

fn must_be_isolated() {
    let shared = shared();
    assert!(shared.is_empty(), "{SHARED}: {shared:?}");
    println!("{ISOLATED}");
}

#[isolated(hostname = "cell")]
fn sandbox() {
    must_be_isolated();
}

#[isolated(hostname = "cell", memory = "64MiB")]
fn limit() {
    must_be_isolated();
    assert!(belljar::usage().memory.is_some(), "{SHARED}: the memory");
}

#[isolated]
fn sandbox_in_a_sandbox() {
    let run = run(this_binary().args(["--exact", "sandbox", "--show-output"]));
    assert!(run.passed() && run.left.is_empty(), "{}", run.output);
    println!("{}", run.output);
}

/// The twin: what is not isolated is noticed.
#[test]
fn outside() {
    let shared = shared();
    assert!(shared.contains(&"the host name") && shared.len() > 1, "{shared:?}");
}
