//! Signals that constructors have handled or ignored.

use std::fs::{self};

use belljar::isolated;
use belljar_tests::{body, descendants, runners};

use crate::{HANDLED, handler, run_with, taken};

#[body]
#[isolated]
fn signals_are_handled_in_sandboxes() {
    assert_eq!(HANDLED.map(taken), [handler(); HANDLED.len()]);
}

#[body]
fn signals_are_handled_in_plain_tests() {
    assert_eq!(HANDLED.map(taken), [handler(); HANDLED.len()]);
}

#[body]
#[isolated]
fn children_are_ignored_in_sandboxes() {
    assert_eq!(taken(libc::SIGCHLD), libc::SIG_IGN);
}

/// It runs behind the one above, whose sandbox came from them.
#[body]
fn children_are_waited_for_by_those_who_make_sandboxes() {
    const MAKERS: [&str; 2] = ["belljar-zygote", "belljar-tmpl"];
    let makers: Vec<_> = descendants(std::process::id()).into_iter().filter_map(status).collect();
    for name in MAKERS {
        assert!(makers.iter().any(|status| status.contains(name)), "{makers:?}");
    }
    // Not inits: the kernel has an init that ends ignore it.
    let is_maker = |status: &&String| MAKERS.iter().any(|name| status.contains(name));
    for status in makers.iter().filter(is_maker) {
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("SigIgn").trim();
        let ignored = u64::from_str_radix(ignored, 16).expect("a number");
        assert_eq!(ignored & (1 << (libc::SIGCHLD - 1)), 0, "{status}");
    }
}

fn status(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

#[test]
fn signals_are_taken_as_constructors_say() {
    for runner in runners() {
        for place in ["before", "behind"] {
            for (deed, tests) in [("handles", "*signals_are_handled*"), ("ignores", "*children_are*")] {
                let run = run_with(&format!("{place}:{deed}"), *runner, &[tests], &[]);
                assert!(run.output.contains("test result: ok. 2 passed; 0 failed;"), "{}", run.output);
                assert!(run.left.is_empty());
                // The twin.
                let run = run_with("", *runner, &[tests], &[]);
                assert!(run.output.contains("test result: FAILED."), "{}", run.output);
            }
        }
    }
}
