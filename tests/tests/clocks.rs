//! Tests with clocks of their own: time namespaces.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use belljar::isolated;
use belljar_tests::body;
use nix::time::{ClockId, clock_gettime};

belljar_tests::bodies!();

const HOUR: Duration = Duration::from_secs(60 * 60);
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

fn clock(clock: ClockId) -> Duration {
    clock_gettime(clock).expect("clock_gettime").into()
}

fn namespace() -> String {
    fs::read_link("/proc/self/ns/time").expect("a time namespace").display().to_string()
}

#[isolated(boottime = "30d")]
fn the_machine_has_been_up_for_a_month() {
    let uptime = |text: &str| text.split(['.', ' ']).next().and_then(|seconds| seconds.parse().ok());
    let text = fs::read_to_string("/proc/uptime").expect("uptime");
    assert!(uptime(&text).map(Duration::from_secs) >= Some(MONTH), "{text}");
    assert!(clock(ClockId::CLOCK_BOOTTIME) >= MONTH);
}

/// Programs see the same. After 68 years, most 32-bit programs can't read the clocks any more.
#[isolated(monotonic = "525600h")]
fn children_have_the_same_clocks() {
    let sixty_years = 60 * 365 * 24 * HOUR;
    assert!(clock(ClockId::CLOCK_MONOTONIC) >= sixty_years);
    let output = Command::new("cat").args(["/proc/self/timens_offsets"]).output().expect("cat");
    let offsets = String::from_utf8(output.stdout).expect("text");
    assert_eq!(offsets.split_whitespace().collect::<Vec<_>>(), ["monotonic", "1892160000", "0", "boottime", "0", "0"]);
    let child = fs::read_link("/proc/self/ns/time_for_children").expect("a time namespace");
    assert_eq!(child.display().to_string(), namespace());
}

#[body]
#[isolated(time, monotonic = "1h", boottime = "21900d")]
fn tells_its_clocks() {
    println!("clocks {} {}", clock(ClockId::CLOCK_MONOTONIC).as_millis(), clock(ClockId::CLOCK_BOOTTIME).as_millis());
    println!("namespace {}", namespace());
}

#[body]
#[isolated(time)]
fn tells_clocks_that_agree() {
    println!("clocks {} {}", clock(ClockId::CLOCK_MONOTONIC).as_millis(), clock(ClockId::CLOCK_BOOTTIME).as_millis());
    println!("namespace {}", namespace());
}

#[body]
#[isolated]
fn tells_the_hosts_clocks() {
    println!("clocks {} {}", clock(ClockId::CLOCK_MONOTONIC).as_millis(), clock(ClockId::CLOCK_BOOTTIME).as_millis());
    println!("namespace {}", namespace());
}

/// How far the clocks of `test` are ahead of ours, rounded to hours, and its time namespace.
fn ahead(test: &str) -> ([u64; 2], String) {
    let now = || [ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_BOOTTIME].map(clock);
    let before = now();
    let run = belljar_tests::run_body(test);
    let after = now();
    assert!(run.passed(), "{}", run.output);
    let told = |what: &str| run.output.lines().find_map(|line| line.strip_prefix(what)).expect(what).to_owned();
    let clocks = told("clocks ");
    let mut clocks = clocks.split(' ').map(|clock| Duration::from_millis(clock.parse().expect("a number")));
    let hours = [0, 1].map(|at| {
        let inside = clocks.next().expect("two clocks");
        let hours = (inside - before[at] + Duration::from_millis(1)).as_secs() / HOUR.as_secs();
        // It lies between the two, so many hours later.
        let offset = HOUR * u32::try_from(hours).expect("few");
        assert!(inside + Duration::from_millis(1) >= before[at] + offset && inside <= after[at] + offset, "{inside:?}");
        hours
    });
    (hours, told("namespace "))
}

#[test]
fn clocks_are_ahead_by_what_is_written() {
    let (hours, inside) = ahead("tells_its_clocks");
    assert_eq!(hours, [1, 21900 * 24]);
    assert_ne!(inside, namespace());
}

/// The twins.
#[test]
fn clocks_are_the_hosts_otherwise() {
    assert_eq!(ahead("tells_the_hosts_clocks"), ([0, 0], namespace()));
    let (hours, inside) = ahead("tells_clocks_that_agree");
    assert_eq!(hours, [0, 0]);
    assert_ne!(inside, namespace());
}

#[body]
#[isolated(monotonic = "1h", timeout = "100ms")]
fn hangs_later() {
    belljar_tests::hang();
}

#[test]
fn timeouts_are_the_hosts() {
    let begin = Instant::now();
    let run = belljar_tests::run_body("hangs_later");
    assert!(run.failed() && run.output.contains("100ms"), "{}", run.output);
    assert!(begin.elapsed() >= Duration::from_millis(100));
}

/// A trace is in the time of the host.
#[test]
fn a_trace_has_one_clock() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("trace");
    let mut command = belljar_tests::this_binary();
    command.args(["--exact", "body", "tells_its_clocks"]).env("BELLJAR_TRACE", &path);
    let run = belljar_tests::run(&mut command);
    assert!(run.passed(), "{}", run.output);
    let trace: serde_json::Value = serde_json::from_slice(&fs::read(path).expect("a trace")).expect("JSON");
    let events = trace.as_array().or(trace["traceEvents"].as_array()).expect("events");
    let times: Vec<_> = events.iter().filter_map(|event| event["ts"].as_f64()).collect();
    let (first, last) = (times.iter().copied().fold(f64::MAX, f64::min), times.iter().copied().fold(0.0, f64::max));
    assert!(events.iter().any(|event| event["name"] == "tells_its_clocks"), "{trace:#}");
    // In microseconds.
    assert!(last - first < 600e6, "{first} {last}");
}
