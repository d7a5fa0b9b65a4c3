//! What `BELLJAR_REPORT` tells of each test.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, hint, process};

use belljar::isolated;
use belljar_tests::{MIB, Run, allocate, body, hang, run, this_binary};
use nix::mount::{MsFlags, mount};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::geteuid;
use serde_json::{Value, json};

belljar_tests::bodies!();

/// A nested test binary would look in vain for what these name outside.
#[body]
#[isolated]
fn does_nothing() {
    assert!(["BELLJAR_REPORT", "BELLJAR_CGROUP"].iter().all(|name| std::env::var_os(name).is_none()));
}

#[body]
#[isolated]
fn works() {
    // By its own clock: other software may take the processor away meanwhile.
    let spent = || {
        let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("clock_gettime");
        Duration::from(time)
    };
    while spent() < Duration::from_millis(300) {
        hint::black_box(0);
    }
}

#[body]
#[isolated]
fn uses_memory() {
    allocate(100);
}

#[body]
#[isolated]
fn leaves_a_process() {
    #[expect(clippy::zombie_processes, reason = "it is to be left")]
    Command::new("sleep").arg("1000").spawn().expect("spawn");
}

#[body]
#[isolated]
#[should_panic(expected = "on purpose")]
fn panics() {
    panic!("on purpose");
}

#[body]
#[isolated]
fn exits() {
    process::exit(0);
}

#[body]
#[isolated(timeout = "50ms")]
fn hangs() {
    hang();
}

/// Is killed as soon as it is born, on its way into its cgroups.
#[body]
#[isolated(timeout = "1ns")]
fn has_no_time() {
    hang();
}

/// Any name.
const ANY: &str = "*";

/// This binary, for the bodies whose names match.
fn bodies(names: &[&str], report: &str) -> Command {
    let mut command = this_binary();
    command.args(["--exact", "--test-threads=4", "body"]).args(names).env("BELLJAR_REPORT", report);
    command
}

/// The lines of a report, and what is said about `test`, which must be there once.
struct Report(Vec<Value>);

impl Report {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("the report");
        Self(text.lines().map(|line| serde_json::from_str(line).expect(line)).collect())
    }

    fn of(&self, test: &str) -> &Value {
        let name = format!("{}::{test}", module_path!());
        let found: Vec<_> = self.0.iter().filter(|line| line["test"] == name.as_str()).collect();
        assert_eq!(found.len(), 1, "{test} in {:#?}", self.0);
        found[0]
    }
}

/// A run of all, and its report.
fn reported() -> (Run, Report) {
    reported_of(&[ANY])
}

/// A run of all whose names match, and its report.
fn reported_of(names: &[&str]) -> (Run, Report) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("re port");
    let run = run(&mut bodies(names, &format!("json:{}", path.display())));
    let report = Report::read(&path);
    (run, report)
}

#[test]
fn each_test_has_one_line() {
    let (run, report) = reported();
    assert!(run.output.contains("5 passed; 3 failed"), "{}", run.output);
    let verdicts = ["does_nothing", "works", "uses_memory", "leaves_a_process", "panics", "exits", "hangs"]
        .map(|test| report.of(test)["verdict"].as_str().unwrap_or_default().to_owned());
    assert_eq!(verdicts, ["passed", "passed", "passed", "passed", "panicked", "failed", "failed"]);
    assert_eq!(report.of("has_no_time")["verdict"], "failed");
    assert_eq!(report.0.len(), verdicts.len() + 1);
}

#[test]
fn figures_are_what_was_used() {
    let (_, report) = reported();
    let seconds = |test: &str, figure: &str| report.of(test)[figure].as_f64();
    assert!(seconds("works", "wall_seconds") >= Some(0.3), "{report:#?}", report = report.0);
    assert!(seconds("hangs", "wall_seconds") >= Some(0.05));
    let (work, nothing) = (seconds("works", "cpu_seconds"), seconds("does_nothing", "cpu_seconds"));
    assert!(work > Some(0.29) && nothing < Some(0.2), "{work:?} and {nothing:?}");
    assert_eq!(report.of("works")["left_over"], json!([]));
    assert_eq!(report.of("leaves_a_process")["left_over"], json!(["sleep"]));
    // Nobody knows what would have been left.
    assert_eq!(report.of("hangs")["left_over"], Value::Null);

    let memory = |test: &str| report.of(test)["memory_peak_bytes"].as_u64();
    // Without a cgroup it can't be known.
    if memory("does_nothing").is_some() {
        assert!(memory("uses_memory") >= Some(100 * MIB as u64), "{:?}", memory("uses_memory"));
        assert!(memory("does_nothing") < Some(50 * MIB as u64), "{:?}", memory("does_nothing"));
    }
}

/// Alone, it finds no sandbox that is ready.
#[test]
fn figures_that_are_not_known_are_not_zero() {
    let (_, report) = reported_of(&["has_no_time"]);
    let line = report.of("has_no_time");
    let figures = ["memory_peak_bytes", "pids_peak", "cpu_seconds"];
    assert!(figures.iter().all(|figure| line[figure].is_null() || line[figure].as_f64() > Some(0.0)), "{line}");
}

/// Root with cgroups of version 1 has all figures from cgroups.
#[test]
fn a_hierarchy_that_is_there_is_read() {
    let has_v1 = Path::new("/sys/fs/cgroup/memory/memory.usage_in_bytes").exists();
    if geteuid().is_root() && has_v1 {
        let (_, report) = reported();
        assert!(report.of("uses_memory")["memory_peak_bytes"].is_u64());
        // The process that is left has a part in it, which is known to the cgroup alone.
        assert!(report.of("leaves_a_process")["cpu_seconds"].is_number());
    }
}

#[test]
fn several_binaries_write_to_one_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("report");
    let report = format!("json:{}", path.display());
    let run = || run(&mut bodies(&[ANY], &report)).output;
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        runs.into_iter().for_each(|run| assert!(run.join().expect("join").contains("5 passed; 3 failed")));
    });
    assert_eq!(Report::read(&path).0.len(), 4 * 8);
}

/// Where there is no room, tests pass or fail as they would, and it is said once, at the end.
#[isolated]
fn a_full_disk_spoils_nothing() {
    let options = Some("size=4k,nr_inodes=3");
    mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), options).expect("mount");
    fs::write("/mnt/report", [b'\n'; 4096]).expect("write");
    fs::write("/mnt/other", "").expect("write");
    for file in ["report", "another"] {
        let mut command = this_binary();
        command.args(["--exact", "body", "does_nothing", "works"]).env("BELLJAR_REPORT", format!("json:/mnt/{file}"));
        let run = run(&mut command);
        let (_, end) = run.output.split_once("2 passed; 0 failed").expect(&run.output);
        let told = "what 2 tests have cost could not be written";
        assert!(run.output.matches(told).count() == 1 && end.contains(told), "{}", run.output);
    }
}

#[test]
fn a_table_ends_the_run() {
    let run = run(&mut bodies(&[ANY], "-"));
    let (_, table) = run.output.split_once("belljar: what the tests have cost\n").expect(&run.output);
    let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 9, "{table}");
    let heads = ["test", "verdict", "wall", "CPU", "peak", "memory", "peak", "pids", "left", "over"];
    assert_eq!(rows[0], heads);
    let row = |test: &str| rows.iter().find(|row| row[0].ends_with(test)).expect(table);
    assert_eq!(row("leaves_a_process").last(), Some(&"sleep"));
    assert_eq!(row("works").last(), Some(&"none"));
    assert_eq!(row("hangs").last(), Some(&"?"));
}

/// nextest looks for this beginning. It shows what follows as the reason, and so does its JUnit.
#[test]
fn a_failure_begins_as_nextest_expects() {
    for (run_id, told) in [("", "\nbelljar: `exits` failed"), ("0123-abcd", "\nError: belljar: `exits` failed")] {
        let mut command = this_binary();
        command.args(["--exact", "body", "exits"]).env("NEXTEST_RUN_ID", run_id);
        let run = run(&mut command);
        assert!(run.output.contains(told), "{}", run.output);
    }
}

/// The twin: nobody has asked.
#[test]
fn there_is_no_report_unless_asked_for() {
    for unset in [None, Some("")] {
        let mut command = this_binary();
        command.args(["--exact", "body", "works"]);
        match unset {
            Some(value) => command.env("BELLJAR_REPORT", value),
            None => command.env_remove("BELLJAR_REPORT"),
        };
        let run = run(&mut command);
        assert!(run.passed() && !run.output.contains("belljar"), "{}", run.output);
    }
}

#[test]
fn a_bad_value_fails_all_tests_and_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let bad = [
        ("yes", "BELLJAR_REPORT is `yes`. Write `-` for a table"),
        ("json:", "BELLJAR_REPORT is `json:`. Write `-` for a table"),
        ("json:/proc/none/report", "`/proc/none/report`, which can't be used: ENOENT"),
        // Nobody reads it.
        (&format!("json:{}", fifo.display()), "which can't be used: ENXIO"),
    ];
    for (value, message) in bad {
        let mut command = this_binary();
        command.args(["--exact", "body", "does_nothing", "works"]).env("BELLJAR_REPORT", value);
        let run = run(&mut command);
        assert!(run.output.contains("0 passed; 2 failed"), "{}", run.output);
        assert_eq!(run.output.matches(message).count(), 2, "{}", run.output);
    }
}
