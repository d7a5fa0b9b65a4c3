//! What `BELLJAR_TRACE` tells: valid at any time, one row a thread or sandbox, and what happened in its order.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use belljar::isolated;
use belljar_tests::{Run, body, run, this_binary};
use serde_json::Value;

belljar_tests::bodies!();

const SLEEP: Duration = Duration::from_millis(50);

#[body]
#[isolated]
fn sleeps() {
    assert_eq!(std::env::var_os("BELLJAR_TRACE"), None, "a nested test binary has no place for its own");
    std::thread::sleep(SLEEP);
}

#[body]
#[isolated(net)]
fn does_nothing() {}

#[body]
#[isolated]
fn exits() {
    std::process::exit(3);
}

/// This binary, for the three tests above.
fn traced(path: &Path) -> Command {
    let mut command = this_binary();
    command.args(["--exact", "body"]).env("BELLJAR_TRACE", path);
    command
}

/// The same, for all three.
fn traced_all(path: &Path) -> Command {
    let mut command = traced(path);
    command.args(["--test-threads=2", "sleeps", "does_nothing", "exits"]);
    command
}

fn read(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("the trace");
    serde_json::from_str(&text).expect("an array in JSON")
}

/// A part of a row: its name, and when it began and ended, in microseconds.
type Part = (String, f64, f64);

/// The parts of each row, by process and row.
fn rows(events: &[Value]) -> BTreeMap<(u64, u64), Vec<Part>> {
    let mut rows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let row = (event["pid"].as_u64().expect("pid"), event["tid"].as_u64().expect("tid"));
        let (begin, length) = (event["ts"].as_f64().expect("ts"), event["dur"].as_f64().expect("dur"));
        let name = event["name"].as_str().expect("name").to_owned();
        rows.entry(row).or_default().push((name, begin, begin + length));
    }
    rows
}

fn ran_three(run: &Run) {
    assert!(run.output.contains("2 passed; 1 failed"), "{}", run.output);
    assert!(run.left.is_empty());
}

#[test]
fn a_trace_tells_who_did_what_when() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("trace.json");
    ran_three(&run(&mut traced_all(&path)));
    let events = read(&path);
    let rows = rows(&events);
    let parts: Vec<_> = rows.values().flatten().collect();
    let named = |name: &str| parts.iter().filter(|(other, ..)| other == name).copied().collect::<Vec<_>>();

    // Once on the thread that runs it, and once in the sandbox, within that time.
    for test in ["sleeps", "does_nothing", "exits"] {
        let mut spans = named(test);
        spans.sort_by(|(_, a, _), (_, b, _)| a.total_cmp(b));
        let [(_, begin, end), (_, body_begins, body_ends)] = spans[..] else { panic!("{test}: {spans:?}") };
        assert!(begin <= body_begins && body_ends <= end, "{spans:?}");
        if test == "sleeps" {
            assert!(body_ends - body_begins >= SLEEP.as_micros() as f64, "{spans:?}");
        }
    }
    // What only one of them has made, and what all have. Sandboxes that no test has used tell nothing.
    assert_eq!(named("make the new root the root").len(), 2);
    for step in ["clone init into new user and pid namespaces", "set the host name", "follow the test"] {
        assert_eq!(named(step).len(), 3, "{step}");
    }
    // Where its files belong to this user, there is one that is whole, which is shown at `/proc`.
    let is_proc = |path: &Value| path == "proc" || path == "sys/proc";
    let proc =
        |event: &&Value| is_proc(&event["args"]["path"]) && event["name"] == "mount a file system in the sandbox";
    assert_eq!(events.iter().filter(proc).count(), 2);
    // In one row, one part may lie within another, and otherwise they follow each other.
    for parts in rows.values() {
        for (a, b) in parts.iter().flat_map(|a| parts.iter().map(move |b| (a, b))) {
            let overlap = a.1 < b.1 && b.1 < a.2 && a.2 < b.2;
            assert!(!overlap, "{a:?} and {b:?}");
        }
    }
    // What somebody is asked for comes after that. Each sandbox is asked for, and told its test.
    let mut halves: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["ph"] == "s" || event["ph"] == "f") {
        halves.entry(event["id"].to_string()).or_default().push((event["ph"].to_string(), event["ts"].as_f64()));
    }
    for halves in halves.values() {
        let [(from, asked), (to, done)] = &halves[..] else { panic!("{halves:?}") };
        assert!(from == "\"s\"" && to == "\"f\"" && asked <= done, "{halves:?}");
    }
    assert_eq!(halves.len(), 6);
}

#[test]
fn test_binaries_share_a_file() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("trace.json");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| ran_three(&run(&mut traced_all(&path))));
        }
    });
    let bodies = rows(&read(&path)).into_values().flatten().filter(|(name, ..)| name == "sleeps").count();
    assert_eq!(bodies, 4 * 2);
    assert_eq!(read(&path).iter().filter(|event| event["name"] == "process_name").count(), 4);
}

#[test]
fn a_file_that_can_not_be_had_is_told() {
    let run = run(traced(Path::new("/nowhere/trace.json")).arg("does_nothing"));
    assert!(run.failed(), "{}", run.output);
    assert!(run.output.contains("BELLJAR_TRACE names the file `/nowhere/trace.json`"), "{}", run.output);
}

/// These are no files, but what other variables take: a terminal, a switch, a format.
#[test]
fn values_of_other_variables_are_told() {
    let directory = tempfile::tempdir().expect("tempdir");
    for value in ["-", "1", "json:trace.json"] {
        let run = run(traced(Path::new(value)).arg("does_nothing").current_dir(directory.path()));
        let told = format!("BELLJAR_TRACE is `{value}`. Write the path of a file for a trace viewer");
        assert!(run.failed() && run.output.contains(&told), "{}", run.output);
        assert_eq!(fs::read_dir(directory.path()).expect("read_dir").count(), 0);
    }
    // A file that has such a name can be written so.
    let run = run(traced(Path::new("./1")).arg("does_nothing").current_dir(directory.path()));
    assert!(run.passed() && !read(&directory.path().join("1")).is_empty(), "{}", run.output);
}

/// Whatever somebody has there by mistake is not lost.
#[test]
fn what_is_no_trace_is_left_as_it_is() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("main.rs");
    for text in ["fn main() {}\n", "]", "[1]\n", "[\n  1,\n  2\n]\n", "[\n]\n", "key = [\n]\n"] {
        fs::write(&path, text).expect("write");
        let run = run(traced(&path).arg("does_nothing"));
        assert!(run.failed() && run.output.contains("which is there and is no trace"), "{}", run.output);
        assert_eq!(fs::read_to_string(&path).expect("read"), text);
    }
}

/// A test binary that is killed while it writes leaves a part of an event. The next one cuts it off.
#[test]
fn what_was_cut_short_is_mended() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("trace.json");
    ran_three(&run(&mut traced_all(&path)));
    let whole = fs::read(&path).expect("the trace");
    let events = read(&path).len();
    for length in [1, 30, 60, whole.len() / 2, whole.len() - 10, whole.len() - 1] {
        fs::write(&path, &whole[..length]).expect("write");
        let run = run(traced(&path).arg("does_nothing"));
        assert!(run.passed(), "{length}: {}", run.output);
        assert!(length < whole.len() / 2 || read(&path).len() > events / 3, "{length}");
        assert!(rows(&read(&path)).into_values().flatten().any(|(name, ..)| name == "does_nothing"), "{length}");
    }
}

/// Where there is no room, what was there stays, tests pass, and it is said once, at the end.
#[isolated]
fn a_full_disk_spoils_nothing() {
    let disk = Path::new("/mnt");
    nix::mount::mount(Some("tmpfs"), disk, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=12k,nr_inodes=3"))
        .expect("mount");
    let path = disk.join("trace.json");
    let told = "a part of the trace could not be written";
    let run_two = |path: &Path| {
        let run = run(traced(path).args(["--test-threads=1", "sleeps", "does_nothing"]));
        let (_, end) = run.output.split_once("2 passed; 0 failed").expect(&run.output);
        assert!(run.output.matches(told).count() == 1 && end.contains(told), "{}", run.output);
    };
    run_two(&path);
    let before = read(&path);
    run_two(&path);
    assert!(read(&path).starts_with(&before));
    // There is no room for anything.
    fs::write(disk.join("other"), "").expect("write");
    run_two(&disk.join("another.json"));
}

#[body]
fn a_test_that_changes_the_environment() {
    std::env::set_current_dir("/").expect("chdir");
    #[expect(unsafe_code, reason = "no other thread reads the environment")]
    // SAFETY: there is one test thread, and the other one waits for it.
    unsafe {
        std::env::remove_var("BELLJAR_TRACE");
    }
}

/// What counts is what the test binary was started with.
#[test]
fn what_a_test_does_to_the_environment_has_no_say() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut command = traced(Path::new("trace.json"));
    // In this order.
    command.args(["--test-threads=1", "a_test_that_changes_the_environment", "does_nothing"]);
    let command = command.env("BELLJAR_REPORT", "json:report.json").current_dir(directory.path());
    let run = run(command);
    assert!(run.output.contains("2 passed; 0 failed"), "{}", run.output);
    let rows = rows(&read(&directory.path().join("trace.json")));
    assert!(rows.into_values().flatten().any(|(name, ..)| name == "set the host name"));
    let report = fs::read_to_string(directory.path().join("report.json")).expect("the report");
    assert_eq!(report.lines().count(), 1, "{report}");
}

/// Whoever holds the file does not hold the tests.
#[test]
fn a_file_that_is_locked_is_not_waited_for() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("trace.json");
    ran_three(&run(&mut traced_all(&path)));
    let file = fs::File::open(&path).expect("open");
    let _lock =
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, errno)| errno).expect("flock");
    let run = run(traced(&path).arg("does_nothing"));
    assert!(run.failed() && run.output.contains("which can't be used: EAGAIN"), "{}", run.output);
}

#[test]
fn nothing_is_traced_unasked() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut command = traced_all(Path::new(""));
    ran_three(&run(command.current_dir(directory.path())));
    assert_eq!(fs::read_dir(directory.path()).expect("read_dir").count(), 0);
}
