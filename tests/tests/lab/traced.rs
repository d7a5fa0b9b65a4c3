//! A trace shows when faults were changed, and how.

use std::fs;
use std::path::Path;
use std::time::Duration;

use belljar::isolated;
use belljar::net::{Lab, Packets};
use belljar_tests::{Run, body, run, this_binary};
use serde_json::Value;

#[body]
#[isolated(monotonic = "1h")]
fn changes_faults() {
    let mut lab = Lab::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| lab.host(name));
    let net = lab.up().expect("up");
    net.port(&a).delay(Duration::from_millis(20)).loss(0.5).to_host().lose_nth(3).rate(8000);
    net.port(&b).from_host().lose_when(Packets::tcp().to_port(80).with_flags(Packets::SYN)).mtu(1000).lose_no_more();
    net.partition([&a], [&b, &c]);
    net.heal();
    net.oneway(&a, &b);
    net.port_to(&c, &a).cut().heal();
}

/// What is set, in order.
const CHANGES: [&str; 12] = [
    "a.eth0: delay 20ms",
    "a.eth0: loss 0.5",
    "a.eth0, to the host: lose frame 3 from now on",
    "a.eth0, to the host: rate 8000 bit/s",
    "b.eth0, from the host: lose TCP to port 80 with SYN",
    "b.eth0, from the host: MTU 1000",
    "b.eth0, from the host: lose no more",
    "partition: a | b, c",
    "heal",
    "oneway: a → b",
    "c.eth0: cut",
    "c.eth0: healed",
];

/// Changes more than a trace has room for.
#[body]
#[isolated]
fn changes_faults_without_end() {
    let mut lab = Lab::new();
    let host = lab.host("host");
    let net = lab.up().expect("up");
    for _ in 0..600 {
        (0..16).for_each(|_| _ = net.port(&host).lose_when(Packets::any().beginning_with(&[7; 16])));
        net.port(&host).lose_no_more();
    }
}

fn traced(test: &str, path: Option<&Path>) -> Run {
    let mut command = this_binary();
    command.args(["--exact", "body", test]);
    path.map(|path| command.env("BELLJAR_TRACE", path));
    run(&mut command)
}

fn events(path: &Path) -> Vec<Value> {
    serde_json::from_str(&fs::read_to_string(path).expect("the trace")).expect("an array in JSON")
}

#[test]
fn faults_are_instants_of_the_test() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("trace.json");
    let run = traced("traced::changes_faults", Some(&path));
    assert!(run.passed(), "{}", run.output);
    let events = events(&path);
    let instants: Vec<_> = events.iter().filter(|event| event["ph"] == "i").collect();
    let names: Vec<_> = instants.iter().map(|event| event["name"].as_str().expect("a name")).collect();
    assert_eq!(names, CHANGES);
    // While the test runs, in the row of its sandbox. By its own clock, it would be an hour later.
    let is_body = |event: &&Value| event["name"] == "traced::changes_faults" && event["tid"] == instants[0]["tid"];
    let body = events.iter().filter(|event| event["ph"] == "X").find(is_body).expect("the body");
    let begin = body["ts"].as_f64().expect("ts");
    let span = begin..=begin + body["dur"].as_f64().expect("dur");
    let times: Vec<_> = instants.iter().map(|event| event["ts"].as_f64().expect("ts")).collect();
    assert!(times.is_sorted() && times.iter().all(|time| span.contains(time)), "{span:?}: {times:?}");
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("trace.json");
    let run = traced("traced::changes_faults_without_end", Some(&path));
    assert!(run.passed(), "{}", run.output);
    let events = events(&path);
    let names = events.iter().filter(|event| event["ph"] == "i").map(|event| event["name"].as_str().expect("a name"));
    let (last, all) =
        names.collect::<Vec<_>>().split_last().map(|(last, all)| (last.to_string(), all.len())).expect("some");
    let left_out = last.strip_suffix(" more changes of faults are not shown").expect(&last).parse::<usize>();
    assert_eq!(left_out.map(|count| count + all), Ok(600 * 17));
}

#[test]
fn nothing_is_told_if_nobody_asks() {
    for test in ["traced::changes_faults", "traced::changes_faults_without_end"] {
        let run = traced(test, None);
        assert!(run.passed(), "{test}: {}", run.output);
    }
}
