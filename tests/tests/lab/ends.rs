//! What is left of a laboratory: nothing, however its test ends.

use std::fs;
use std::mem;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use belljar::isolated;
use belljar::net::{Lab, Net};
use belljar_tests::{
    Run, body, body_command, is_real_root, mark, marked, named, run, run_body, run_hanging, this_binary,
};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

fn up() -> Net {
    let mut lab = Lab::new();
    lab.host("host");
    lab.up().expect("up")
}

/// The processes that are called like this, with their parents.
fn called(name: &str) -> Vec<(u32, u32)> {
    let directories = fs::read_dir("/proc").expect("read").flatten();
    let stat = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, tail) = stat.rsplit_once(") ")?;
        let parent = tail.split(' ').nth(1)?.parse().ok()?;
        head.ends_with(&format!("({name}")).then_some((pid, parent))
    };
    directories.filter_map(stat).collect()
}

#[isolated]
fn the_wire_is_inits_child_and_ends_with_the_laboratory() {
    let net = up();
    let wires = called(WIRE);
    assert!(matches!(wires[..], [(_, 1)]), "{wires:?}");
    assert_eq!(waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)), Err(Errno::ECHILD));
    // The twin.
    let mut child = Command::new("sleep").arg("1000").spawn().expect("sleep");
    assert!(waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)).is_ok());
    child.kill().and_then(|()| child.wait()).expect("kill");
    drop(net);
    belljar_tests::wait_until(|| called(WIRE).is_empty());
}

macro_rules! endings {
    ($($name:ident ($($arguments:tt)*) |$net:ident| { $($body:tt)* })*) => {
        $(#[body]
        #[isolated($($arguments)*)]
        fn $name() {
            let $net = up();
            $($body)*
        })*
    };
}

endings! {
    returns() |_net| {}
    forgets() |net| { mem::forget(net) }
    panics() |_net| { panic!("the body") }
    exits() |_net| { std::process::exit(3) }
    aborts() |_net| { std::process::abort() }
    hangs() |_net| { belljar_tests::hang() }
    waits() |_net| { belljar_tests::hang() }
    is_killed() |_net| { kill(Pid::this(), Signal::SIGKILL).expect("kill") }
    kills_all() |_net| {
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        panic!("the body");
    }
    kills_all_and_aborts() |_net| {
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        std::process::abort()
    }
    kills_all_and_hangs() |_net| {
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        belljar_tests::hang()
    }
    drops_and_aborts() |net| {
        drop(net);
        belljar_tests::wait_until(|| called(WIRE).is_empty());
        std::process::abort()
    }
    becomes_another() |_net| {
        let arguments = [c"true"];
        let Err(errno) = nix::unistd::execvp(arguments[0], &arguments);
        panic!("exec: {errno}");
    }
    is_out_of_memory(memory = "64MiB", unsupported = "skip") |_net| { drop(belljar_tests::allocate(256)) }
    // The twin.
    leaves_a_process() |net| {
        drop(net);
        mem::forget(Command::new("sleep").arg("1000").spawn().expect("sleep"));
    }
}

/// The process of a laboratory is called so.
const WIRE: &str = "belljar-wire";

const WIRE_KILLED: &str = "the wire of its laboratory was killed";

/// Runs a body to its end. One that hangs gets the time that it takes until its laboratory is up, or until it has killed all.
fn run_to_end(command: &mut Command, test: &str) -> Run {
    match test {
        "ends::hangs" => run_hanging(command, |output| capture_of(output).is_some()),
        "ends::kills_all_and_hangs" => run_hanging(command, |output| output.contains(WIRE_KILLED)),
        _ => run(command),
    }
}

fn ending(test: &str) -> Run {
    run_to_end(&mut body_command(test), test)
}

/// What the report lists as left over after a body, and what was told.
fn left_over(test: &str) -> (Vec<String>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let report = directory.path().join("report");
    let mut command = body_command(test);
    let run = run_to_end(command.env("BELLJAR_REPORT", format!("json:{}", report.display())), test);
    assert!(run.left.is_empty(), "{test}: {:?}", run.left);
    let text = fs::read_to_string(&report).expect("a report");
    // Each run appends a line.
    let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect(&text);
    let names = line["left_over"].as_array().cloned().unwrap_or_default();
    (names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect(), run.output)
}

#[test]
fn no_wire_is_left_over() {
    for test in [
        "returns",
        "forgets",
        "panics",
        "exits",
        "aborts",
        "hangs",
        "is_killed",
        "kills_all",
        "becomes_another",
        "is_out_of_memory",
    ] {
        let test = format!("ends::{test}");
        let (left, output) = left_over(&test);
        assert_eq!(left, [""; 0], "{test}: {output}");
        assert!(!output.contains(WIRE), "{test}: {output}");
    }
    assert_eq!(left_over("ends::leaves_a_process").0, ["sleep"]);
}

#[test]
fn what_returns_passes() {
    for test in ["ends::returns", "ends::forgets"] {
        let run = run_body(test);
        assert!(run.passed(), "{test}: {}", run.output);
    }
}

#[test]
fn a_wire_that_was_killed_is_told() {
    for test in ["kills_all", "kills_all_and_aborts", "kills_all_and_hangs"] {
        let output = ending(&format!("ends::{test}")).output;
        assert_eq!(output.matches(WIRE_KILLED).count(), 1, "{test}: {output}");
    }
    // The twins.
    for test in ["panics", "aborts", "hangs", "is_killed", "becomes_another", "drops_and_aborts", "may_open_nothing"] {
        let output = ending(&format!("ends::{test}")).output;
        assert!(!output.contains(WIRE_KILLED), "{test}: {output}");
    }
}

/// Whoever may have no descriptor open can't ask poll(2) for one either.
#[body]
#[isolated]
fn may_open_nothing() {
    let _net = up();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("setrlimit");
    panic!("by intention");
}

/// Whoever kills the test binary, or a process of its sandbox, leaves nothing: no wire either.
#[test]
fn nothing_is_left_whatever_is_killed() {
    let own = fs::read_to_string("/proc/self/comm").expect("a name");
    // The body's process has the name of the test binary.
    for victim in ["the test binary", "belljar-zygote", "belljar-tmpl", "belljar-init", own.trim(), WIRE] {
        let mut command = this_binary();
        command.args(["--exact", "body", "ends::waits"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mark = mark(&mut command);
        let mut child = command.spawn().expect("it runs");
        belljar_tests::wait_until(|| !named(&mark, WIRE).is_empty());
        if let Some(pid) = named(&mark, victim).into_iter().find(|pid| *pid != child.id()) {
            kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("kill");
            belljar_tests::wait_until(|| !marked(&mark).contains(&pid));
        } else {
            assert_eq!(victim, "the test binary");
        }
        // A body goes on without its wire. All others end the test.
        if ["the test binary", WIRE].contains(&victim) {
            child.kill().expect("kill");
        }
        child.wait().expect("wait");
        belljar_tests::wait_until(|| marked(&mark).is_empty());
    }
}

// ---- Captures of tests that fail ----

/// The file that a run names, if it names one, and whether it could be written.
pub(crate) fn capture_of(output: &str) -> Option<(PathBuf, bool)> {
    let line = output.lines().find(|line| line.starts_with("belljar: what passed in the laboratory of "))?;
    Some((line.split('`').nth(3).expect("a path").into(), line.contains("` is in `")))
}

#[body]
#[isolated]
fn sends_and_panics() {
    let mut lab = Lab::new();
    let (server, client) = (lab.host("server"), lab.host("client"));
    let _net = lab.up().expect("up");
    let there = crate::socket(&server, "10.0.0.1:53", crate::PATIENCE);
    crate::socket(&client, "10.0.0.2:53", crate::PATIENCE).send_to(b"a datagram", "10.0.0.1:53").expect("send");
    assert_eq!(crate::next(&there), None);
}

#[body]
#[isolated]
#[should_panic(expected = "the body")]
fn panics_as_expected() {
    let _net = up();
    panic!("the body");
}

fn has_two_hosts_and_a_router() -> Net {
    let mut lab = Lab::new();
    let (home, gateway, server) = (lab.host("home"), lab.router("gateway"), lab.host("server"));
    lab.link(&home, &gateway);
    lab.link(&gateway, &server);
    lab.up().expect("up")
}

#[body]
#[isolated]
fn returns_an_error() -> Result<(), &'static str> {
    let _net = has_two_hosts_and_a_router();
    Err("the body")
}

#[body]
#[isolated]
#[should_panic]
fn does_not_panic() {
    let _net = has_two_hosts_and_a_router();
}

/// What was not reached is a host of the laboratory. No option of the sandbox would help.
#[body]
#[isolated]
fn reaches_no_host() {
    let mut lab = Lab::new();
    let host = lab.host("host");
    let _net = lab.up().expect("up");
    host.run(|| std::net::TcpStream::connect("192.0.2.7:80")).unwrap();
}

#[test]
fn no_option_is_named_that_has_nothing_to_do_with_hosts() {
    let output = run_body("ends::reaches_no_host").output;
    assert!(output.contains("NetworkUnreachable") && !output.contains("because of its sandbox"), "{output}");
}

#[test]
fn what_has_passed_before_a_failure_is_kept() {
    for test in ["ends::sends_and_panics", "ends::aborts", "ends::hangs", "ends::kills_all", "ends::becomes_another"] {
        let run = ending(test);
        let (path, is_written) = capture_of(&run.output).expect(&run.output);
        assert!(path.components().any(|part| part.as_os_str() == "belljar-captures"), "{}", path.display());
        // The target directory may be another user's.
        assert!(is_written || !is_real_root(), "{test}: {}", run.output);
        if !is_written {
            assert!(run.output.contains("could not be written to"), "{test}: {}", run.output);
            continue;
        }
        // Where Cargo doesn't run this, it is the directory's name.
        let package = std::env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "tests".to_owned());
        assert_eq!(path.parent().and_then(|parent| parent.file_name()), Some(package.as_ref()));
        let mode = fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let bytes = fs::read(&path).expect("read");
        assert!(bytes.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]), "{test}");
        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(has(b"host.eth0") || has(b"client.eth0"), "{test}");
        assert_eq!(has(b"a datagram"), test == "ends::sends_and_panics", "{test}");
    }
    // The twins.
    assert_eq!(capture_of(&run_body("ends::panics_as_expected").output), None);
    assert_eq!(capture_of(&run_body("ends::returns").output), None);
    assert_eq!(capture_of(&run_body("threads::a_spawned_server_waits_for_its_next_client").output), None);
}

// ---- A picture ----

#[body]
#[isolated]
fn fails_with_a_router() {
    let mut lab = Lab::new();
    let (home, gateway, server, lan) = (lab.host("home"), lab.router("gateway"), lab.host("server"), lab.switch("lan"));
    lab.link(&home, &lan);
    lab.link(&gateway, &lan);
    lab.link(&gateway, &server);
    let _net = lab.up().expect("up");
    panic!("the body");
}

#[test]
fn a_failure_shows_the_laboratory() {
    let run = run_body("ends::fails_with_a_router");
    let picture: Vec<_> = run.output.lines().skip_while(|line| !line.ends_with(": its laboratory:")).take(7).collect();
    insta::assert_snapshot!(picture.join("\n"), @r#"
    belljar: `ends::fails_with_a_router`: its laboratory:
      the switch `lan`: 10.0.0.0/24, fd00::/64
      ├── home.eth0: 10.0.0.1, fd00::1
      └── gateway.eth0 (router): 10.0.0.2, fd00::2
      the link of `gateway` and `server`: 10.0.1.0/24, fd00:0:0:1::/64
      ├── gateway.eth1 (router): 10.0.1.1, fd00:0:0:1::1
      └── server.eth0: 10.0.1.2, fd00:0:0:1::2
    "#);
    for test in ["ends::returns_an_error", "ends::does_not_panic"] {
        let output = run_body(test).output;
        assert!(output.contains(": its laboratory:"), "{test}: {output}");
    }
    // The twin: of one host, there is none.
    assert!(!run_body("ends::panics").output.contains("its laboratory:"));
}

// ---- The size of captures ----

/// The packets that are kept of so many, of 1 KiB each.
fn kept(lab: &mut Lab, datagrams: usize) -> u64 {
    let (server, client) = (lab.host("server"), lab.host("client"));
    let net = lab.up().expect("up");
    let there = crate::socket(&server, "10.0.0.1:53", crate::PATIENCE);
    let here = crate::socket(&client, "10.0.0.2:53", crate::PATIENCE);
    for _ in 0..datagrams {
        here.send_to(&[7; 1024], "10.0.0.1:53").expect("send");
        crate::next(&there).expect("it comes");
    }
    net.capture("/tmp/capture").expect("capture");
    fs::metadata("/tmp/capture").expect("metadata").len()
}

#[isolated]
fn the_oldest_packets_go() {
    let large = kept(&mut Lab::new(), 200);
    let small = kept(Lab::new().capture_size(64 << 10), 200);
    assert!(small < 100 << 10 && small > 20 << 10 && large > 300 << 10, "{small}, {large}");
}

/// What is kept must not use up the memory of the test.
#[isolated(memory = "64MiB", unsupported = "skip")]
fn packets_have_a_share_of_the_memory() {
    let most = kept(&mut Lab::new(), 12_000);
    assert!(most < 10 << 20 && most > 4 << 20, "{most}");
}
