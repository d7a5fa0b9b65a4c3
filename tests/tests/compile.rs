//! What the attribute refuses, and what it says then: each error on the token that caused it, all at once.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use belljar_tests::run;

#[test]
fn errors_are_on_the_exact_token() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile/bad_arguments.rs");
    cases.compile_fail("tests/compile/bad_functions.rs");
    cases.compile_fail("tests/compile/bad_modules.rs");
    cases.compile_fail("tests/compile/bad_preparations.rs");
}

/// What the compiler says of the tests in `file`, in a crate that knows belljar by this name: the first line of each error or warning,
/// and where it is. And all that it says.
fn said_of_tests(command: &[&str], file: &str, name: &str) -> (Vec<(String, String)>, String) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("misused").join(name);
    let manifest = format!(
        "[workspace]\n[package]\nname = 'misused'\nedition = '2024'\n[lib]\npath = '{tests}/neighbours/empty.rs'\n\
         [[test]]\nname = '{file}'\npath = '{tests}/tests/compile/{file}.rs'\n\
         [dev-dependencies]\n{name} = {{ package = 'belljar', path = '{tests}/../runtime' }}\n",
        tests = tests.display(),
    );
    fs::create_dir_all(&package).expect("a directory");
    fs::write(package.join("Cargo.toml"), manifest).expect("write");
    fs::copy(tests.join("../Cargo.lock"), package.join("Cargo.lock")).expect("copy");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(command).args(["--offline", "--test", file]).current_dir(&package);
    cargo.env("CARGO_TARGET_DIR", package.parent().expect("a parent").join("target"));
    let output = run(&mut cargo).output;
    let mut lines = output.lines();
    let mut said = Vec::new();
    while let Some(first) = lines.find(|line| line.starts_with("error") || line.starts_with("warning")) {
        let place = lines.find_map(|line| line.split_once("--> ")).map(|(_, place)| place);
        let place = place.and_then(|place| place.rsplit('/').next());
        said.extend(place.map(|place| (first.to_owned(), place.to_owned())));
    }
    (said, output)
}

fn as_texts(said: &[(String, String)]) -> Vec<(&str, &str)> {
    said.iter().map(|(first, place)| (&**first, &**place)).collect()
}

#[test]
fn a_type_that_no_test_returns_is_told_once() {
    let (errors, output) = said_of_tests(&["test", "--no-run"], "bad_tests", "belljar");
    let expected = [
        ("error: the `#[test]` attribute may only be used on a free function", "bad_tests.rs:23:5"),
        ("error[E0277]: a test can't return `u32`", "bad_tests.rs:5:23"),
        ("error[E0277]: a test can't return `Result<(), WithoutDebug>`", "bad_tests.rs:13:42"),
        ("error[E0277]: a test can't return `Option<()>`", "bad_tests.rs:18:37"),
    ];
    assert_eq!(as_texts(&errors), expected, "{output}");
    let advice = "write no type, or `Result<(), E>` with an error `E` that implements `Debug`";
    assert_eq!(output.matches(advice).count(), 3, "{output}");
}

#[test]
fn what_no_test_can_start_from_is_told() {
    let (errors, output) = said_of_tests(&["test", "--no-run"], "bad_starts", "belljar");
    let expected = [
        ("error[E0573]: expected type, found function `no_preparation`", "bad_starts.rs:6:19"),
        ("error[E0603]: struct `hidden` is private", "bad_starts.rs:22:28"),
        (
            "error[E0080]: evaluation panicked: `user` is none of the ids that the preparation has: raise its `uids`",
            "bad_starts.rs:14:1",
        ),
    ];
    assert_eq!(as_texts(&errors), expected, "{output}");
    let (errors, output) = said_of_tests(&["test", "--no-run"], "bad_prepared", "belljar");
    let expected = [("error: unknown argument `rooot`: did you mean `root`?", "bad_prepared.rs:4:12")];
    assert_eq!(as_texts(&errors), expected, "{output}");
}

#[test]
fn a_crate_that_is_renamed_must_be_named() {
    let (errors, output) = said_of_tests(&["test", "--no-run"], "bad_name", "glass");
    let hint = "error: belljar has the name `glass` in this crate: write `crate = glass`";
    assert_eq!(as_texts(&errors), [(hint, "bad_name.rs:4:1"), (hint, "bad_name.rs:7:1")], "{output}");
}

#[test]
fn clippy_finds_what_it_finds_in_other_tests() {
    let (warnings, output) = said_of_tests(&["clippy"], "lints", "belljar");
    let outside = "warning: this function marked with #[test] is outside a #[cfg(test)] module";
    let arithmetic = "warning: arithmetic operation that can potentially result in unexpected side-effects";
    let expected = [
        (arithmetic, "lints.rs:12:13"),
        (outside, "lints.rs:16:1"),
        (outside, "lints.rs:20:1"),
        (outside, "lints.rs:25:1"),
        (outside, "lints.rs:33:1"),
    ];
    assert_eq!(as_texts(&warnings), expected, "{output}");
}
