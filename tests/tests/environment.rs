//! The environment of a test: inherited, and changed as it asks.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use std::{env, fs};

use belljar::isolated;

/// Cargo sets it for all tests.
const OF_CARGO: &str = "CARGO_MANIFEST_DIR";

/// What a program finds that this process starts.
fn of_a_child() -> BTreeMap<String, String> {
    let output = Command::new("/usr/bin/env").output().expect("env");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.lines().filter_map(pair).collect()
}

#[isolated(env = ["BELLJAR_TESTS_A=1", "BELLJAR_TESTS_B=x=y z", "BELLJAR_TESTS_EMPTY=", "LANG=tlh"])]
fn variables_are_set() {
    for (name, value) in
        [("BELLJAR_TESTS_A", "1"), ("BELLJAR_TESTS_B", "x=y z"), ("BELLJAR_TESTS_EMPTY", ""), ("LANG", "tlh")]
    {
        assert_eq!(env::var(name).as_deref(), Ok(value));
        assert_eq!(of_a_child().get(name).map(String::as_str), Some(value));
    }
    // All else is inherited.
    assert!(env::var_os(OF_CARGO).is_some());
}

#[isolated(clear_env)]
fn all_variables_are_removed() {
    assert_eq!(env::vars_os().count(), 0);
    assert_eq!(of_a_child(), BTreeMap::new());
}

#[isolated(env = ["PATH=/usr/bin:/bin"], clear_env, net)]
fn only_those_are_left() {
    assert_eq!(env::vars().collect::<Vec<_>>(), [("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
}

/// The twin: without a word, everything is inherited.
#[isolated]
fn variables_are_inherited() {
    assert!(env::var_os(OF_CARGO).is_some() && env::var_os("BELLJAR_TESTS_A").is_none());
}

/// With musl, the standard library learns them in `main`, which sandboxes don't run.
#[isolated]
fn arguments_are_those_of_the_test_binary() {
    let told: Vec<u8> = env::args_os().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect();
    let line = fs::read("/proc/self/cmdline").expect("the arguments");
    assert!(String::from_utf8_lossy(&line).contains("/environment-"), "{line:?}");
    assert_eq!(told, if cfg!(target_env = "musl") { Vec::new() } else { line });
}
