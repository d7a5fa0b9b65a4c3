//! What the doctor tells, under Cargo and under nextest.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use belljar_tests::{Run, run, runners};
use serde_json::Value;

use crate::fixture::{cargo, target};

/// What begins the table.
const TABLE: &str = "belljar: what this host lets sandboxes have\n";

/// What a test binary says that has run no test, in place of one that has told more before it, or as the first.
const NO_TEST: &str = "belljar: no test was run: BELLJAR_DOCTOR is set";

/// Asks for a diagnosis where Cargo runs all programs of `package/`. Returns what was told, and which programs have run.
fn diagnosis(subcommand: &[&str], runner: Option<&str>, form: &str) -> (Run, BTreeSet<String>) {
    let target = target("package");
    let mut cargo = cargo(subcommand, &target, false, runner);
    diagnosis_by(&mut cargo, form)
}

fn diagnosis_by(command: &mut Command, form: &str) -> (Run, BTreeSet<String>) {
    let ran = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::set_permissions(ran.path(), fs::Permissions::from_mode(0o666)).expect("chmod");
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/package")).env("BELLJAR_TESTS_RAN", ran.path());
    let run = run(command.env("BELLJAR_DOCTOR", form));
    let ran = fs::read_to_string(ran.path()).expect("who has run");
    (run, ran.lines().map(str::to_owned).collect())
}

/// A set of names.
fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Held as long as a test looks at what the doctor has told there: they have one target directory.
static TOLD: Mutex<()> = Mutex::new(());

/// Where the doctor notes that it has told: nowhere yet. Whoever runs the tests may write there.
fn note() -> (MutexGuard<'static, ()>, PathBuf) {
    let guard = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let target = target("package");
    fs::create_dir_all(&target).expect("create");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o777)).expect("chmod");
    let note = target.join("belljar-doctor");
    let _ = fs::remove_file(&note).or_else(|_| fs::remove_dir(&note));
    (guard, note)
}

/// Programs with other harnesses, and documentation tests.
const NOT_ASKED: [&str; 3] = ["documentation", "documentation with a harness", "program"];

#[test]
fn the_doctor_tells_once_in_a_whole_cargo_test() {
    for runner in runners() {
        let (_guard, _) = note();
        // The twin: each program runs.
        let (all, ran) = diagnosis(&["test"], *runner, "");
        assert!(all.status.success() && !all.output.contains("BELLJAR_DOCTOR"), "{}", all.output);
        assert_eq!(ran, &set(&NOT_ASKED) | &set(&["one", "two", "unit tests"]));
        // What was told in another run does not count.
        for _ in 0..2 {
            let (Run { status, output, .. }, ran) = diagnosis(&["test"], *runner, "1");
            assert!(status.success(), "{output}");
            assert_eq!(output.matches(TABLE).count(), 1, "{output}");
            assert_eq!(output.matches(NO_TEST).count(), 3, "{output}");
            assert_eq!(output.matches(", and this host is described above.").count(), 2, "{output}");
            // What is green has run.
            assert_eq!(ran, set(&NOT_ASKED), "{output}");
        }
        let (Run { status, output, .. }, _) = diagnosis(&["test", "--quiet"], *runner, "json");
        let told: Vec<_> = output.lines().filter(|line| line.starts_with('{')).collect();
        assert!(status.success() && told.len() == 1 && !output.contains(TABLE), "{output}");
        assert_eq!(serde_json::from_str::<Value>(told[0]).expect("JSON")["is_well"], true);
    }
}

/// Where nothing can be noted, the doctor tells too often.
#[test]
fn the_doctor_tells_more_than_once_rather_than_not_at_all() {
    let (_guard, note) = note();
    // No file can be there.
    fs::create_dir(&note).expect("create");
    for runner in runners() {
        let (Run { status, output, .. }, _) = diagnosis(&["test"], *runner, "1");
        assert!(status.success() && output.matches(TABLE).count() == 3, "{output}");
    }
    fs::remove_dir(note).expect("remove");
}

#[test]
fn on_a_host_that_is_not_well_each_test_binary_fails() {
    let (_guard, _) = note();
    let cargo = cargo(&["test", "--no-fail-fast"], &target("package"), false, None);
    let line = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", line, "sh"]).arg(cargo.get_program()).args(cargo.get_args());
    for (name, value) in cargo.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let (Run { status, output, .. }, ran) = diagnosis_by(&mut command, "1");
    // The documentation test that asks for a sandbox runs, and fails too.
    assert!(!status.success() && output.contains("4 targets failed:"), "{output}");
    assert_eq!((output.matches(TABLE).count(), output.matches(NO_TEST).count()), (1, 3), "{output}");
    assert!(!ran.contains("one") && !ran.contains("two") && !ran.contains("unit tests"), "{output}");
}

#[test]
fn whoever_asks_for_tests_gets_no_diagnosis() {
    for (subcommand, argument) in [
        (&["nextest", "run", "--test=one"][..], "--list"),
        (&["nextest", "list", "--test=one"], "--list"),
        (&["test", "--test=one", "plain"], "plain"),
        (&["test", "--test=one", "--", "--exact", "plain"], "--exact"),
    ] {
        for runner in runners() {
            let (Run { status, output, .. }, ran) = diagnosis(subcommand, *runner, "1");
            let told = "belljar: no test was run. BELLJAR_DOCTOR has a test binary tell what this host lets";
            assert!(!status.success() && output.contains(told), "{subcommand:?}: {output}");
            assert!(output.contains(&format!("`{argument}` asks for tests")), "{subcommand:?}: {output}");
            assert!(ran.is_empty() && !output.contains(TABLE), "{subcommand:?}: {output}");
            // The twin.
            let (Run { status, output, .. }, _) = diagnosis(subcommand, *runner, "");
            assert!(status.success(), "{subcommand:?}: {output}");
        }
    }
}
