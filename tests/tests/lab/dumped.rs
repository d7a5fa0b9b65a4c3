//! What tests leave that end in a hostile way is read by tcpdump, and all of it is right.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use belljar::isolated;
use belljar::net::{Lab, Net};
use belljar_tests::{allocate, body, body_command, fork, hang, must_limit, run_body, run_hanging};
use nix::sys::signal::{Signal, raise};
use nix::unistd::{ForkResult, Uid};

use crate::ends::capture_of;

const TEXT: &[u8] = b"a datagram";

/// What a body says when all has passed.
const DONE: &str = "all has passed";

/// A laboratory in which TCP and UDP have passed, by IPv4 and by IPv6.
fn busy() -> Net {
    let mut lab = Lab::new();
    let (server, client) = (lab.host("server"), lab.host("client"));
    let net = lab.up().expect("up");
    for (there, here, tcp) in
        [("10.0.0.1:53", "10.0.0.2:53", "10.0.0.1:80"), ("[fd00::1]:53", "[fd00::2]:53", "[fd00::1]:81")]
    {
        let socket = crate::socket(&server, there, crate::PATIENCE);
        crate::socket(&client, here, crate::PATIENCE).send_to(TEXT, there).expect("send");
        assert_eq!(crate::next(&socket).as_deref(), Some(TEXT));
        crate::greets(&server, &client, tcp).expect("a greeting");
    }
    net
}

#[body]
#[isolated]
fn panics() {
    let _net = busy();
    panic!("the body");
}

#[body]
#[isolated]
fn aborts() {
    let _net = busy();
    std::process::abort();
}

#[body]
#[isolated]
fn hangs() {
    let _net = busy();
    eprintln!("{DONE}");
    hang();
}

#[body]
#[isolated]
fn is_stopped() {
    let _net = busy();
    eprintln!("{DONE}");
    raise(Signal::SIGSTOP).expect("raise");
}

/// It leaves a process.
#[body]
#[isolated]
fn forks() {
    let _net = busy();
    if let ForkResult::Child = fork() {
        hang();
    }
    panic!("the body");
}

#[body]
#[isolated(memory = "64MiB", unsupported = "skip")]
fn is_out_of_memory() {
    let _net = busy();
    drop(allocate(256));
}

#[body]
#[isolated]
fn becomes_another() {
    let _net = busy();
    let arguments = [c"true"];
    let Err(errno) = nix::unistd::execvp(arguments[0], &arguments);
    panic!("exec: {errno}");
}

/// What tcpdump says of a capture.
fn dumped(capture: &[u8]) -> String {
    let mut tcpdump = Command::new("tcpdump");
    tcpdump.args(["-n", "-vv", "-r", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tcpdump = tcpdump.spawn().expect("tcpdump");
    tcpdump.stdin.take().expect("a pipe").write_all(capture).expect("write");
    let output = tcpdump.wait_with_output().expect("wait");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("truncated"), "{said}");
    String::from_utf8(output.stdout).expect("text")
}

/// The checksums of so many packets are right, and of so many are not, in the eyes of tcpdump.
fn sums(dump: &str) -> [usize; 2] {
    let count = |words: &[&str]| words.iter().map(|word| dump.matches(word).count()).sum();
    [count(&["udp sum ok", "(correct)"]), count(&["bad udp cksum", "bad cksum", "(incorrect"])]
}

#[test]
#[ignore = "takes tcpdump"]
fn tcpdump_reads_whatever_is_left() {
    for test in ["panics", "aborts", "hangs", "is_stopped", "forks", "is_out_of_memory", "becomes_another"] {
        let name = format!("dumped::{test}");
        let output = match test {
            "hangs" | "is_stopped" => run_hanging(&mut body_command(&name), |output| output.contains(DONE)).output,
            _ => run_body(&name).output,
        };
        if test == "is_out_of_memory" && output.contains("skipped 1 test") {
            assert_ne!(must_limit(), Some(true), "{output}");
            continue;
        }
        let (path, is_written) = capture_of(&output).expect(&output);
        // The target directory may be another user's.
        assert!(is_written || !Uid::effective().is_root(), "{output}");
        if !is_written {
            continue;
        }
        let mut capture = fs::read(&path).expect("read");
        let dump = dumped(&capture);
        // Each packet is there twice, at both ports: four of UDP, and at least six of each connection.
        let [right, wrong] = sums(&dump);
        assert!(right >= 4 + 2 * 2 * 6 && wrong == 0, "{test}: {dump}");
        for protocol in ["IP (", "IP6 (", "UDP", "TCP", "10.0.0.2.53 > 10.0.0.1.53", "fd00::2.53 > fd00::1.53"] {
            assert!(dump.contains(protocol), "{test}: {protocol}: {dump}");
        }
        // The twin.
        let at = capture.windows(TEXT.len()).position(|window| window == TEXT).expect("the datagram");
        capture[at] ^= 1;
        assert_eq!(sums(&dumped(&capture)), [right - 1, 1], "{test}");
    }
}
