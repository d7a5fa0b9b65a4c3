//! The bodies of `bodies/`, built for coverage, with sanitizers, and as for Miri: what they count, and what becomes of them, is the
//! same as without the attribute, or told.
//!
//! This takes cargo-llvm-cov, cargo-nextest and LLVM's tools, so that `.ci/run` runs it. As root, the tests run as an ordinary user too.

mod fixture;

use std::fs;
use std::process::Command;

use belljar_tests::{Run, run, runners};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use serde_json::Value;

use fixture::{cargo, target, triple};

/// A body that leaves by `_exit`.
const LEAVES: &str = "does_not_come_to_its_end";

/// Bodies that fail with a sanitizer alone.
const SANITIZED: [&str; 2] = ["uses_what_is_freed", "races"];

/// How often each piece of each file was run: what `llvm-cov export` calls segments, by file.
type Counts = Vec<(String, Value)>;

/// Runs the bodies, one that fails among them, by `subcommand`, and returns what they counted.
fn counts(subcommand: &[&str], is_isolated: bool, runner: Option<&str>, harness: &[&str]) -> Counts {
    let target = target(if is_isolated { "coverage" } else { "coverage-without" });
    let profiles = target.join("llvm-cov-target");
    if runner.is_some() {
        // The runtime of profiles makes files in it.
        fchmodat(nix::fcntl::AT_FDCWD, &profiles, Mode::from_bits_truncate(0o777), FchmodatFlags::FollowSymlink)
            .expect("chmod");
    }
    let report = target.join("report.json");
    let mut cargo = cargo(&[&["llvm-cov"], subcommand].concat(), &target, is_isolated, runner);
    cargo.args(["--test=bodies", "--json", "--ignore-run-fail", "--output-path"]).arg(&report).arg("--").args(harness);
    let Run { status, output, .. } = run(&mut cargo);
    assert!(status.success(), "{output}");
    assert!(!output.contains("LLVM Profile"), "{output}");
    let report: Value = serde_json::from_slice(&fs::read(report).expect("a report")).expect("JSON");
    let files = report["data"][0]["files"].as_array().expect("files").iter();
    let counts = files.map(|file| (file["filename"].to_string(), file["segments"].clone())).collect::<Counts>();
    assert_eq!(counts.len(), 2, "{counts:?}");
    counts
}

fn skip<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    names.into_iter().flat_map(|name| ["--skip", name]).collect()
}

#[test]
fn coverage_counts_as_without() {
    let harness = [vec!["--include-ignored"], skip([LEAVES].into_iter().chain(SANITIZED))].concat();
    for (runner, subcommand) in runners().iter().flat_map(|runner| [(*runner, &[][..]), (*runner, &["nextest"])]) {
        let without = counts(subcommand, false, runner, &harness);
        // A line that all bodies run, so that it is not nothing that is compared with nothing. nextest tries one of them twice.
        assert!(without.iter().any(|(_, segments)| segments.to_string().contains("[5,9,2")), "{without:?}");
        assert_eq!(counts(subcommand, true, runner, &harness), without, "{runner:?} {subcommand:?}");
    }
    // What a body loses that leaves, is what it has counted itself.
    let [without, with] = [&[LEAVES][..], &[]].map(|left_out| {
        let skipped = skip(left_out.iter().copied().chain(SANITIZED));
        counts(&[], true, None, &[vec!["--include-ignored"], skipped].concat())
    });
    assert_eq!(with, without);
}

const ADDRESSES: &str = "-Zsanitizer=address";

/// The standard library is not built with the sanitizer, for want of its source.
const THREADS: &str = "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer";

/// So the sanitizer does not see what keeps these from racing.
const UNSEEN: &str = "race:std::sync\nrace:core::sync\nrace:alloc::sync\nrace:belljar::\n";

/// Runs the isolated bodies, as built with flags that take a compiler which has what is not stable.
fn sanitized(flags: &str, runner: Option<&str>, harness: &[&str]) -> Command {
    let purpose = flags.replace(|c: char| !c.is_ascii_alphanumeric(), "");
    let mut cargo = cargo(&["test", "--test=bodies", "--target", &triple()], &target(&purpose), true, runner);
    cargo.env("RUSTFLAGS", flags).env("RUSTC_BOOTSTRAP", "1").arg("--").args(harness);
    cargo
}

#[test]
fn address_sanitizer_works() {
    for runner in runners() {
        let Run { status, output, .. } = run(&mut sanitized(ADDRESSES, *runner, &[]));
        assert!(status.success() && output.contains("test result: ok. 7 passed; 0 failed; 4 ignored"), "{output}");
        let run = run(&mut sanitized(ADDRESSES, *runner, &["--ignored", SANITIZED[0]]));
        assert!(run.failed() && run.output.contains("heap-use-after-free"), "{}", run.output);
    }
}

#[test]
fn thread_sanitizer_works() {
    let suppressions = target("suppressions");
    fs::create_dir_all(target("")).and_then(|()| fs::write(&suppressions, UNSEEN)).expect("write");
    for runner in runners() {
        let run = |harness: &[&str]| {
            let mut cargo = sanitized(THREADS, *runner, harness);
            run(cargo.env("TSAN_OPTIONS", format!("suppressions={}", suppressions.display())))
        };
        let Run { status, output, .. } = run(&skip(["the_user_is_another"]));
        assert!(status.success() && output.contains("test result: ok. 6 passed; 0 failed; 4 ignored"), "{output}");
        // The sanitizer's own thread is one too many for this, and that is told.
        let Run { status, output, .. } = run(&["the_user_is_another"]);
        assert!(!status.success() && output.contains("as with ThreadSanitizer"), "{output}");
        let run = run(&["--ignored", SANITIZED[1]]);
        assert!(run.failed() && run.output.contains("ThreadSanitizer: data race"), "{}", run.output);
    }
}

#[test]
fn under_miri_all_are_ignored() {
    let miri = |harness: &[&str]| {
        let mut cargo = cargo(&["test", "--test=bodies"], &target("miri"), true, None);
        run(cargo.env("RUSTFLAGS", "--cfg miri").arg("--").args(harness))
    };
    let Run { status, output, .. } = miri(&[]);
    assert!(status.success() && output.contains("test result: ok. 0 passed; 0 failed; 11 ignored"), "{output}");
    let reason = "ignored, isolated tests need the namespaces of a Linux kernel";
    // Four are ignored anyway.
    assert_eq!(output.matches(reason).count(), 7, "{output}");
    // Whoever insists is not told that they pass.
    let Run { status, output, .. } = miri(&["--include-ignored"]);
    assert!(!status.success() && output.contains("test result: FAILED. 0 passed; 11 failed; 0 ignored"), "{output}");
}

#[test]
fn under_miri_nothing_is_unused() {
    let mut cargo = cargo(&["check", "--tests", "--features=panics"], &target("miri-strict"), true, None);
    let Run { status, output, .. } = run(cargo.env("RUSTFLAGS", "--cfg miri --deny warnings"));
    assert!(status.success(), "{output}");
}

/// The verdicts on bodies that panic, where that aborts, in the order of their names; and what was printed.
fn verdicts_of_panics(is_isolated: bool, runner: Option<&str>) -> (Vec<String>, String) {
    let subcommand = ["test", "--test=panics", "--features=panics", "-Zpanic-abort-tests"];
    let mut cargo = cargo(&subcommand, &target("panic-abort"), is_isolated, runner);
    cargo.env("RUSTC_BOOTSTRAP", "1").env("CARGO_PROFILE_DEV_PANIC", "abort").args(["--", "--test-threads=1"]);
    let output = run(&mut cargo).output;
    let verdicts = output.lines().filter(|line| line.starts_with("test ") && line.contains(" ... "));
    let mut verdicts: Vec<_> = verdicts.map(str::to_owned).collect();
    verdicts.sort();
    (verdicts, output)
}

#[test]
fn panics_that_abort_are_as_without() {
    for runner in runners() {
        let (without, output) = verdicts_of_panics(false, *runner);
        let ends = |end: &str| without.iter().filter(|verdict| verdict.ends_with(end)).count();
        assert_eq!([ends(" ... ok"), ends(" ... FAILED")], [6, 5], "{output}");
        let (with, output) = verdicts_of_panics(true, *runner);
        assert_eq!(with, without, "{output}");
        for told in ["panics.rs:", "by accident", "killed by SIGABRT"] {
            assert!(output.contains(told), "{output}");
        }
    }
}
