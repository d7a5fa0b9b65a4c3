//! The bodies of `bodies/` under libtest, with each of its stable options, and under nextest: what is told of each is the same as
//! without the attribute. And what the environment asks of belljar, under nextest and under a whole `cargo test`.
//!
//! This takes cargo-nextest, so that `.ci/run` runs it. As root, the tests run as ordinary users too.

mod doctor;
#[path = "../fixture/mod.rs"]
mod fixture;

use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use belljar_tests::{
    Run, mark, marked, processes, rounds, run, run_begun, run_in_terminal, runners, start_in_terminal, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

use fixture::{cargo, target};

/// Builds the bodies, and returns the path of the test binary of this name.
fn binary(name: &str, is_isolated: bool) -> PathBuf {
    let target = target(if is_isolated { "runners" } else { "runners-without" });
    let mut cargo = cargo(&["test", "--test", name, "--no-run", "--message-format=json"], &target, is_isolated, None);
    let Run { status, output, .. } = run(&mut cargo);
    assert!(status.success(), "{output}");
    let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut executables = lines.filter_map(|line| Some(line["executable"].as_str()?.to_owned()));
    PathBuf::from(executables.next().unwrap_or_else(|| panic!("{output}")))
}

/// What the harness says of each test, and of all, without the time that it took.
fn told(mut command: Command) -> (Option<i32>, BTreeSet<String>) {
    let Run { status, output, left } = run(&mut command);
    assert!(left.is_empty(), "{output}");
    let is_of_harness = |line: &&str| {
        let begins =
            ["test ", "running ", "test result", ".", "F", "i", "ok ", "failed ", "ignored ", "error:", "Usage"];
        line.ends_with(": test") || line.contains(" tests, ") || begins.iter().any(|begin| line.starts_with(begin))
    };
    let without_time = |line: &str| line.split("; finished in").next().unwrap_or_default().to_owned();
    (status.code(), output.lines().filter(is_of_harness).map(without_time).collect())
}

#[test]
fn each_option_of_libtest_does_what_it_does_without() {
    let [without, with] = [false, true].map(|is_isolated| binary("bodies", is_isolated));
    let log = target("log");
    let log_file = format!("--logfile={}", log.display());
    for runner in runners() {
        for options in [
            &[][..],
            &["--list"],
            &["--list", "--format=terse"],
            &["--list", "--ignored"],
            &["--ignored", "--skip=does_not", "--skip=freed"],
            &["--include-ignored", "--skip=does_not", "--skip=freed"],
            &["root"],
            &["root", "network"],
            &["--exact", "threads_count"],
            &["--exact", "threads"],
            &["--skip", "root"],
            &["--test"],
            &["--bench"],
            &["--test-threads=1"],
            &["--test-threads=16"],
            &["--quiet", "--test-threads=1"],
            &["--format=pretty"],
            &["--format=terse", "--test-threads=1"],
            &["--color=never"],
            &["--color=always"],
            &["--nocapture", "--test-threads=1"],
            &["--no-capture", "--test-threads=1"],
            &["--show-output"],
            &[&log_file],
            &["--no-such-option"],
        ] {
            let [without, with] = [&without, &with].map(|binary| {
                // Each run writes its own, whoever it runs as.
                let _ = fs::remove_file(&log);
                let mut command = match runner {
                    Some(runner) => {
                        let mut words = runner.split(' ');
                        let mut command = Command::new(words.next().expect("a word"));
                        command.args(words).arg(binary);
                        command
                    }
                    None => Command::new(binary),
                };
                let directory = log.parent().expect("a directory");
                fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).expect("chmod");
                command.args(options).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/bodies"));
                let told = told(command);
                let logged = fs::read_to_string(&log).unwrap_or_default();
                (told, logged.lines().map(str::to_owned).collect::<BTreeSet<_>>())
            });
            assert!(!without.0.1.is_empty(), "{options:?}");
            assert_eq!(with, without, "{options:?}");
        }
    }
}

/// What nextest tells of a test.
type Outcome = (String, String);

/// Has nextest write its report where no other run does. Returns the path of that.
fn report_of(nextest: &mut Command, name: &str) -> PathBuf {
    let store = target("reports").join(name);
    fs::create_dir_all(&store).expect("mkdir");
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/bodies/.config/nextest.toml");
    let config = fs::read_to_string(config).expect("the configuration");
    let own = store.join("nextest.toml");
    fs::write(&own, format!("store.dir = {store:?}\n{config}")).expect("write");
    nextest.arg("--config-file").arg(own);
    store.join("default/junit.xml")
}

/// What nextest tells of each test, the run itself, and the report in JUnit's format.
fn outcomes(is_isolated: bool, runner: Option<&str>) -> (BTreeSet<Outcome>, Run, String) {
    let target = target(if is_isolated { "runners" } else { "runners-without" });
    let arguments = ["nextest", "run", "--test=outcomes", "--no-fail-fast", "--status-level=all"];
    let mut cargo = cargo(&arguments, &target, is_isolated, runner);
    let junit = report_of(&mut cargo, &format!("outcomes-{is_isolated}"));
    let run = run(cargo.arg("--final-status-level=none").env("RUST_BACKTRACE", "0"));
    let outcome = |line: &str| {
        let (outcome, rest) = line.trim().split_once(" [")?;
        let test = rest.contains("covered::outcomes").then(|| rest.rsplit_once(' '))??.1;
        // Whether a test is slow, apart from the one that hangs, is for the machine to say.
        (!outcome.ends_with("SLOW")).then(|| (test.to_owned(), outcome.to_owned()))
    };
    let outcomes = run.output.lines().filter_map(outcome).collect();
    (outcomes, run, fs::read_to_string(junit).expect("a report"))
}

#[test]
fn nextest_tells_the_same_but_that_nothing_is_left() {
    let leak = |outcome: &str| ("leaves_a_daemon".to_owned(), outcome.to_owned());
    for runner in runners() {
        let [without, with] = [false, true].map(|is_isolated| outcomes(is_isolated, *runner));
        assert!(!without.1.left.is_empty(), "{}", without.1.output);
        without.1.kill_left();
        // What nextest kills takes its sandbox along, which is nothing that nextest waits for.
        wait_until(|| with.1.left.is_disjoint(&processes()));
        let (mut expected, with, junit) = (without.0, with.0, with.2);
        for (test, outcome) in [
            ("passes", "PASS"),
            ("fails", "TRY 2 FAIL"),
            ("fails_the_first_time", "TRY 2 PASS"),
            ("hangs", "TRY 2 TMT"),
            ("is_ignored", "SKIP"),
        ] {
            assert!(expected.contains(&(test.to_owned(), outcome.to_owned())), "{expected:?}");
        }
        assert!(expected.remove(&leak("LEAK")) && expected.insert(leak("PASS")), "{expected:?}");
        assert_eq!(with, expected);
        assert_eq!(junit.matches("<testcase ").count(), 6, "{junit}");
        for told in [r#"failures="2""#, "as it says", r#"<failure type="test timeout"/>"#, "<flakyFailure "] {
            assert!(junit.contains(told), "{junit}");
        }
    }
}

/// How many machines the tests are spread over.
const MACHINES: u32 = 4;

/// The user of the first machine, where there are several.
const FIRST_USER: u32 = 65531;

/// Tests that pass, by nextest's words.
const PASS: &str = "not test(/^(fails|failing|hangs)/)";

/// The tests that a run on one machine has reported.
fn spread(archive: &Path, machine: u32) -> Vec<String> {
    let checkout = target("machines").join(machine.to_string());
    let _ = fs::remove_dir_all(&checkout);
    fs::create_dir_all(checkout.join(".config")).expect("mkdir");
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("bodies");
    for file in
        ["Cargo.toml", "Cargo.lock", "lib.rs", "bodies.rs", "outcomes.rs", "prepared.rs", ".config/nextest.toml"]
    {
        fs::copy(original.join(file), checkout.join(file)).expect(file);
    }
    // The checkout that the archive was made of has none.
    fs::write(checkout.join("machine"), machine.to_string()).expect("write");
    let mut nextest = match geteuid().is_root() {
        true => {
            let user = FIRST_USER + machine - 1;
            chown(&checkout, Some(user), Some(user)).expect("chown");
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "cargo-nextest"]);
            command
        }
        false => Command::new("cargo-nextest"),
    };
    let report = checkout.join("report");
    nextest.args(["nextest", "run", "--archive-file"]).arg(archive).arg("--workspace-remap").arg(&checkout);
    nextest.arg(format!("--partition=slice:{machine}/{MACHINES}")).args(["-E", PASS]).current_dir(&checkout);
    nextest.env("BODIES_MACHINE", machine.to_string()).env("BELLJAR_REPORT", format!("json:{}", report.display()));
    let Run { status, output, .. } = run(nextest.env("HOME", &checkout));
    assert!(status.success(), "{output}");
    let report = fs::read_to_string(report).expect("a report");
    let lines = report.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.map(|line| line["test"].as_str().expect("a name").to_owned()).collect()
}

/// The recipe of `docs/guide.md`.
#[test]
fn over_four_machines_each_test_is_run_once() {
    let archive = target("archive.tar.zst");
    let mut cargo = cargo(&["nextest", "archive"], &target("runners"), true, None);
    let Run { status, output, .. } = run(cargo.arg("--archive-file").arg(&archive));
    assert!(status.success(), "{output}");
    let mut machines = (1..=MACHINES).map(|machine| spread(&archive, machine)).collect::<Vec<_>>();
    assert!(machines.iter().all(|tests| !tests.is_empty()), "{machines:?}");
    // Each machine prepares for itself, and once.
    let prepared = |tests: &Vec<String>| tests.iter().filter(|test| *test == "prepared::files").count();
    let counts: Vec<_> = machines.iter().map(prepared).collect();
    assert!(counts.iter().all(|count| *count <= 1) && counts.iter().sum::<usize>() > 1, "{counts:?}");
    let mut tests = machines.drain(..).flatten().filter(|test| !test.starts_with("prepared::")).collect::<Vec<_>>();
    tests.sort();
    let listed = ["bodies", "outcomes"].map(|name| {
        let Run { output, .. } = run(Command::new(binary(name, true)).args(["--list", "--format=terse"]));
        let ignored = run(Command::new(binary(name, true)).args(["--list", "--format=terse", "--ignored"])).output;
        let is_run = |line: &&str| !ignored.contains(*line) && !line.starts_with("fails") && !line.starts_with("hangs");
        let lines =
            output.lines().filter(is_run).filter_map(|line| Some(format!("{name}::{}", line.strip_suffix(": test")?)));
        lines.collect::<Vec<_>>()
    });
    let mut listed = listed.concat();
    listed.sort();
    assert_eq!(tests, listed);
}

// ---- Timeouts, and sandboxes that are kept ----

/// nextest, on one test.
fn nextest(test: &str, runner: Option<&str>) -> Command {
    let mut cargo = cargo(&["nextest", "run", "--test=outcomes", "--retries=0"], &target("runners"), true, runner);
    cargo.args(["-E", &format!("test(={test})")]).env_remove("CI");
    cargo.env("RUST_BACKTRACE", "0").env("CARGO_TERM_COLOR", "never");
    cargo
}

/// The twin: by itself, nextest ends the same test later, see above.
#[test]
fn under_nextest_a_timeout_of_the_environment_comes_first() {
    for runner in runners() {
        let Run { status, output, .. } = run_begun(nextest("hangs", *runner).env("BELLJAR_TIMEOUT", "300ms"));
        assert!(!status.success() && output.contains("1 failed") && !output.contains("timed out"), "{output}");
        assert!(output.contains("it still ran after 300ms, the timeout that BELLJAR_TIMEOUT gives"), "{output}");
        let Run { status, output, .. } = run(nextest("passes", *runner).env("BELLJAR_TIMEOUT", "300"));
        assert!(!status.success() && output.contains("`passes` did not run: BELLJAR_TIMEOUT is `300`."), "{output}");
    }
}

/// The first line of a failure is the reason that nextest and its report give. The table of costs is in the output of the test, as both have it.
#[test]
fn under_nextest_a_failure_is_told_where_people_look() {
    for runner in runners() {
        let mut command = nextest("hangs", *runner);
        let junit = report_of(&mut command, "told");
        let Run { status, output, .. } = run_begun(command.env("BELLJAR_TIMEOUT", "300ms").env("BELLJAR_REPORT", "-"));
        assert!(!status.success(), "{output}");
        let junit = fs::read_to_string(junit).expect("a report");
        let reason = junit.split_once("<failure message=\"").expect(&junit).1.lines().next().unwrap_or_default();
        assert!(reason.starts_with("Error: belljar: `hangs` failed: it still ran after 300ms"), "{junit}");
        for told in [&output, &junit] {
            assert!(told.contains("peak memory"), "{told}");
        }
    }
}

#[test]
fn under_nextest_sandboxes_are_kept_where_standard_error_is_shown() {
    for runner in runners() {
        let fails = || {
            let mut command = nextest("fails", *runner);
            command.env("BELLJAR_ON_FAIL", "shell");
            command
        };
        let Run { status, output, .. } = run_in_terminal(&mut fails());
        assert!(!status.success() && output.contains("standard error is no terminal"), "{output}");
        assert!(output.contains("under nextest, add `--no-capture`") && !output.contains("nsenter"), "{output}");
        // As it says.
        let mut command = fails();
        let (mut child, terminal) = start_in_terminal(command.arg("--no-capture").stdout(Stdio::null()));
        let mut lines = terminal.lines().map_while(Result::ok);
        let let_go = lines.find(|line| line.trim_start().starts_with("kill -KILL ")).expect("how to let it go");
        assert!(Command::new("sh").args(["-c", &let_go]).status().expect("sh").success());
        let rest: Vec<_> = lines.collect();
        assert!(!child.wait().expect("wait").success(), "{rest:?}");
        assert!(rest.iter().any(|line| line.contains("1 failed")), "{rest:?}");
    }
}

// ---- Preparations, once a run ----

/// A target directory in which everybody may leave what is prepared. One test at a time has it.
struct Prepared {
    target: PathBuf,
    place: PathBuf,
    _lock: MutexGuard<'static, ()>,
}

impl Prepared {
    fn new() -> Self {
        static LOCK: Mutex<()> = Mutex::new(());
        let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        let target = target("runners");
        let place = target.join("belljar-prepared");
        let _ = fs::remove_dir_all(&place);
        let _ = fs::remove_file(&place);
        fs::create_dir_all(&place).expect("mkdir");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).expect("chmod");
        // Or the time that this takes would be another's.
        let mut cargo = cargo(&["nextest", "run", "--test=prepared", "--no-run"], &target, true, None);
        let Run { status, output, .. } = run(&mut cargo);
        assert!(status.success(), "{output}");
        Self { target, place, _lock: lock }
    }

    /// nextest, on what these words filter.
    fn nextest(&self, filter: &str, runner: Option<&str>) -> Command {
        let arguments = ["nextest", "run", "--test=prepared", "--retries=0", "--no-fail-fast", "-E", filter];
        cargo(&arguments, &self.target, true, runner)
    }

    /// Runs all tests that pass, and returns how often each preparation has run, and what was written.
    fn run(&self, runner: Option<&str>) -> ([usize; 2], String) {
        let report = self.target.join("report");
        let _ = fs::remove_file(&report);
        fs::write(&report, "").expect("a report");
        fs::set_permissions(&report, fs::Permissions::from_mode(0o666)).expect("chmod");
        let mut command = self.nextest("not test(failing)", runner);
        let Run { status, output, left } =
            run(command.env("BELLJAR_REPORT", format!("json:{}", report.display())).arg("--success-output=final"));
        assert!(status.success() && output.contains("13 tests run: 13 passed") && left.is_empty(), "{output}");
        let report = fs::read_to_string(&report).expect("a report");
        (["files", "more_files"].map(|name| report.matches(&format!("\"prepared::{name}\"")).count()), output)
    }

    /// The runs that have left something.
    fn runs(&self) -> BTreeSet<PathBuf> {
        fs::read_dir(&self.place).expect("read_dir").map(|entry| entry.expect("an entry").path()).collect()
    }
}

#[test]
fn a_run_prepares_once() {
    let prepared = Prepared::new();
    for runner in runners() {
        let before = prepared.runs();
        assert_eq!(prepared.run(*runner).0, [1, 1], "{runner:?}");
        let first = &prepared.runs() - &before;
        assert_eq!(first.len(), 1);
        // The next one removes what is left of the first.
        assert_eq!(prepared.run(*runner).0, [1, 1], "{runner:?}");
        let second = &prepared.runs() - &before;
        assert!(second.len() == 1 && second != first, "{second:?}");
    }
}

/// Where it can't be, each process prepares for itself, and says so: the twin.
#[test]
fn where_nothing_can_be_left_each_test_prepares() {
    let prepared = Prepared::new();
    fs::remove_dir(&prepared.place).expect("rmdir");
    fs::write(&prepared.place, "").expect("write");
    for runner in runners() {
        let (counts, output) = prepared.run(*runner);
        assert_eq!(counts, [10, 5], "{output}");
        assert!(output.contains("belljar: each test runs its preparations itself"), "{output}");
    }
}

#[test]
fn a_preparation_fails_once_a_run() {
    let prepared = Prepared::new();
    for runner in runners() {
        let Run { status, output, .. } = run(&mut prepared.nextest("test(failing)", *runner));
        assert!(!status.success() && output.contains("3 tests run: 0 passed, 3 failed"), "{output}");
        let told = "failed: its preparation `fails` failed: it panicked: on purpose";
        assert_eq!(output.matches(told).count(), 3, "{output}");
        assert_eq!(output.matches("panicked at").count(), 1, "{output}");
    }
}

/// Whoever comes next starts from no half of it, and nothing stays of a run that was killed.
#[test]
fn a_run_that_is_killed_leaves_nothing_that_counts() {
    let prepared = Prepared::new();
    let mut random = fastrand::Rng::new();
    println!("seed {}", random.get_seed());
    for runner in runners() {
        let before = prepared.runs();
        for _ in 0..rounds(5) {
            let mut command = prepared.nextest("not test(failing)", *runner);
            let mark = mark(command.stdout(Stdio::null()).stderr(Stdio::null()));
            let mut nextest = command.spawn().expect("spawn");
            thread::sleep(Duration::from_millis(random.u64(100..700)));
            // One process that belljar is in, or all.
            let marked = marked(&mark);
            let victims: Vec<_> = match marked.iter().next_back() {
                Some(last) if random.bool() => vec![*last],
                _ => marked.into_iter().collect(),
            };
            for pid in victims {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
            nextest.wait().expect("wait");
            wait_until(|| belljar_tests::marked(&mark).is_empty());
        }
        assert_eq!(prepared.run(*runner).0, [1, 1], "{runner:?}");
        assert_eq!((&prepared.runs() - &before).len(), 1);
    }
}

/// One test after the other, so that there are moments at which nextest alone is alive.
#[test]
fn a_run_that_lives_is_let_be() {
    let prepared = Prepared::new();
    for runner in runners() {
        let report = prepared.target.join("report-of-first");
        fs::write(&report, "").expect("a report");
        fs::set_permissions(&report, fs::Permissions::from_mode(0o666)).expect("chmod");
        let mut first = prepared.nextest("not test(failing)", *runner);
        first.args(["--test-threads=1"]).env("BELLJAR_REPORT", format!("json:{}", report.display()));
        let mut first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("spawn");
        wait_until(|| fs::read_to_string(&report).is_ok_and(|report| report.contains("prepared::files")));
        assert_eq!(prepared.run(*runner).0, [1, 1], "{runner:?}");
        assert!(first.wait().expect("wait").success(), "{runner:?}");
        let report = fs::read_to_string(&report).expect("a report");
        let counts = ["files", "more_files"].map(|name| report.matches(&format!("\"prepared::{name}\"")).count());
        assert_eq!(counts, [1, 1], "{runner:?}: {report}");
    }
}
