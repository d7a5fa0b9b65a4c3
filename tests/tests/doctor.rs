//! What a test binary tells of its host, in place of running tests.

use std::fs::{self, OpenOptions};

use belljar::isolated;
use belljar_tests::{Run, run, this_binary};
use nix::mount::{MntFlags, umount2};
use serde_json::Value;

/// Asks this binary, whose tests then must not run.
fn ask(value: &str) -> Run {
    ask_with(value, &[])
}

/// The same, with arguments.
fn ask_with(value: &str, arguments: &[&str]) -> Run {
    let run = run(this_binary().env("BELLJAR_DOCTOR", value).args(arguments));
    let is_told = run.output.contains("no test was run") || run.status.code() == Some(2);
    assert!(is_told && !run.output.contains("test result") && run.left.is_empty(), "{}", run.output);
    run
}

/// What it tells in JSON.
fn json(run: &Run) -> Value {
    let text = run.output.lines().find(|line| line.starts_with('{')).expect(&run.output);
    serde_json::from_str(text).expect("JSON")
}

/// What works, by how it is written, as both forms tell it.
fn works(written: &str) -> bool {
    let found = json(&ask("json"));
    let found = found["found"].as_array().expect("a list").iter().find(|found| found["written"] == written);
    let works = found.expect("what is asked for")["works"].as_bool().expect("whether it works");
    let table = ask("1").output;
    let line = table.lines().find(|line| line.ends_with(&format!("  {written}"))).expect("a line");
    assert_eq!(line.trim_start().starts_with('✓'), works, "{table}");
    works
}

#[isolated]
fn a_host_where_all_is_well() {
    let run = ask("1");
    assert!(run.status.success(), "{}", run.output);
    for written in ["#[isolated]", "#[isolated(uts)]", "#[isolated(net)]", "#[isolated(mount)]", "user = 1000"] {
        assert!(works(written), "{written}: {}", run.output);
    }
    // Within a sandbox that has one user, nobody can have more.
    assert!(!works("uids = 65536"), "{}", run.output);
}

#[isolated]
fn a_host_that_lacks_one_thing() {
    fs::write("/proc/sys/user/max_net_namespaces", "0").expect("write");
    let run = ask("1");
    assert_eq!(run.status.code(), Some(1), "{}", run.output);
    assert!(run.output.contains("user.max_net_namespaces is 0"), "{}", run.output);
    assert!(run.output.contains("remedy: sudo sysctl -w user.max_net_namespaces="), "{}", run.output);
    assert!(works("#[isolated(uts)]") && works("#[isolated(mount)]"), "{}", run.output);
    assert!(!works("#[isolated]") && !works("#[isolated(net)]"), "{}", run.output);
}

#[isolated]
fn a_host_that_lacks_all() {
    fs::write("/proc/sys/user/max_user_namespaces", "0").expect("write");
    let run = ask("json");
    assert_eq!(run.status.code(), Some(1), "{}", run.output);
    let found = json(&run);
    assert_eq!(found["is_well"], false);
    for found in found["found"].as_array().expect("a list") {
        assert_eq!(found["works"], false, "{found}");
    }
    // Once is enough.
    assert_eq!(ask("1").output.matches("user.max_user_namespaces is 0").count(), 1);
}

/// Output that is no terminal's has colours if they are asked for, and none otherwise.
#[isolated]
fn colours_are_as_the_environment_says() {
    for (variables, has_colours) in
        [(&[][..], false), (&[("CLICOLOR_FORCE", "1")], true), (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false)]
    {
        let mut command = this_binary();
        command.env_remove("CLICOLOR").env_remove("CLICOLOR_FORCE").env_remove("NO_COLOR");
        let run = run(command.env("BELLJAR_DOCTOR", "1").envs(variables.iter().copied()));
        assert_eq!(run.output.contains("  \x1b[32m✓\x1b[0m a sandbox"), has_colours, "{}", run.output);
        assert_eq!(run.output.contains('\x1b'), has_colours, "{}", run.output);
    }
}

const DEVICES: [&str; 2] = ["/dev/net/tun", "/dev/fuse"];

/// Whoever runs the tests is told what opening them comes to.
#[test]
fn devices_are_as_they_are_outside() {
    for device in DEVICES {
        let opened = OpenOptions::new().read(true).write(true).open(device);
        assert_eq!(works(device), opened.is_ok(), "{device}: {opened:?}");
        let table = ask("1").output;
        let is_told = |words: &str| table.contains(words);
        match opened.map_err(|error| error.raw_os_error()) {
            Err(Some(libc::EACCES)) => assert!(is_told(&format!("remedy: sudo chmod 0666 {device}")), "{table}"),
            Err(Some(libc::EPERM)) => assert!(is_told("this one is not among them"), "{table}"),
            Err(Some(libc::ENOENT | libc::ENODEV | libc::ENXIO)) => {
                assert!(is_told("there is no such device"), "{table}")
            }
            other => assert!(other.is_ok(), "{device}: {other:?}"),
        }
    }
}

#[isolated]
fn a_host_without_devices() {
    for device in DEVICES {
        // Where the host has none, neither has a sandbox.
        let _ = umount2(device, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(device);
        assert!(!works(device));
    }
    let table = ask("1").output;
    for words in ["step:   open the device: /dev/net/tun", "ENOENT", "sudo modprobe tun", "sudo modprobe fuse"] {
        assert!(table.contains(words), "{words}: {table}");
    }
}

#[test]
fn unknown_values_are_errors() {
    for value in ["0", "yes", "JSON"] {
        let run = ask(value);
        assert_eq!(run.status.code(), Some(2), "{}", run.output);
        assert!(run.output.contains(&format!("BELLJAR_DOCTOR is `{value}`. Write `1`")), "{}", run.output);
    }
}

#[test]
fn other_mistakes_are_errors_too() {
    let run = run(this_binary().env("BELLJAR_DOCTOR", "1").env("BELLJAR_UNSUPPORTED", "ignore"));
    assert_eq!(run.status.code(), Some(2), "{}", run.output);
    assert!(run.output.contains("BELLJAR_UNSUPPORTED is `ignore`. Write `skip` or `fail`"), "{}", run.output);
}

/// Whoever asks for tests must not take what the doctor tells for their success.
#[test]
fn arguments_that_ask_for_tests_are_errors() {
    for arguments in [
        // As nextest does, to list tests and to run one.
        &["--list", "--format", "terse"][..],
        &["--list", "--format", "terse", "--ignored"],
        &["--exact", "a_test", "--nocapture"],
        // As people do.
        &["a_test"],
        &["--quiet", "a_test"],
        &["--skip", "a_test"],
        &["--ignored"],
        &["--include-ignored"],
        &["--nonsense"],
    ] {
        let run = ask_with("1", arguments);
        assert_eq!(run.status.code(), Some(2), "{arguments:?}: {}", run.output);
        let named = arguments.iter().find(|argument| **argument != "--quiet").expect("an argument");
        assert!(run.output.contains(&format!("the argument `{named}` asks for tests")), "{}", run.output);
        assert!(run.output.contains("Write: BELLJAR_DOCTOR=1 cargo test\n"), "{}", run.output);
        assert!(!run.output.contains("what this host lets sandboxes have\n"), "{}", run.output);
    }
}

/// Cargo passes the first of them itself.
#[isolated]
fn arguments_that_are_about_output_are_none_of_them() {
    for argument in ["--quiet", "-q", "--nocapture", "--no-capture", "--show-output"] {
        let run = ask_with("1", &[argument]);
        assert!(run.status.success() && run.output.contains("#[isolated(net)]\n"), "{argument}: {}", run.output);
    }
}

/// The twin.
#[test]
fn nothing_is_told_that_is_not_asked_for() {
    let run = run(this_binary().env("BELLJAR_DOCTOR", "").args(["--exact", "unknown_values_are_errors"]));
    assert!(run.passed() && !run.output.contains("what this host lets"), "{}", run.output);
}
