//! The crate [`daemonize`] forks twice, leaves the session, and writes a pid file.
//!
//! As a plain `#[test]`, this leaves the daemon on the machine after the tests are over, with a pid file in `/run` that
//! makes the next run fail.

use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use belljar::isolated;
use daemonize::{Daemonize, Outcome};

const PID_FILE: &str = "/run/example.pid";

/// Does what a daemon does: serve until it is told to end, which here nobody does.
fn serve() -> ! {
    fs::write("/tmp/ready", "").expect("writable");
    loop {
        thread::park();
    }
}

fn wait_for(path: &str) {
    while !Path::new(path).exists() {
        thread::sleep(Duration::from_millis(1));
    }
}

fn run_a_daemon() {
    let daemon = Daemonize::new().pid_file(PID_FILE).working_directory("/tmp").umask(0o027);
    match daemon.execute() {
        Outcome::Parent(parent) => assert_eq!(parent.expect("forked").first_child_exit_code, 0),
        Outcome::Child(child) => {
            child.expect("a daemon");
            serve();
        }
    }
    wait_for("/tmp/ready");
    let pid: u32 = fs::read_to_string(PID_FILE).expect("a pid file").trim().parse().expect("a pid");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let parent = stat.rsplit_once(')').expect("a name").1.split_whitespace().nth(1);
    assert_eq!(parent, Some("1"), "init has adopted it");
    // Nobody stops it: when the test is over, so is everything that it started.
}

#[isolated(timeout = "30s")]
fn a_daemon_outlives_its_parent_but_not_its_test() {
    run_a_daemon();
}

/// The pid file of the other is not in the way: that is in another `/run`.
#[isolated(timeout = "30s")]
fn another_daemon_has_the_same_pid_file() {
    run_a_daemon();
}
