//! A test that fails where its sandbox may be why gets one note, which names the option that has what was missing.

use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};
use std::process::Command;
use std::{fs, io, thread};

use belljar::isolated;
use belljar_tests::{body, run_body};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, chown, setgroups, setuid};

belljar_tests::bodies!();

/// What begins every note.
const NOTE: &str = "may have failed because of its sandbox: ";

/// What `test`, which must fail, is told.
fn note_on(test: &str) -> Option<String> {
    let run = run_body(test);
    assert!(run.failed(), "{test}: {}", run.output);
    let notes: Vec<_> = run.output.lines().filter_map(|line| line.split_once(NOTE)).collect();
    assert!(notes.len() <= 1, "{test}: {}", run.output);
    notes.first().map(|(_, note)| (*note).to_owned())
}

macro_rules! failing {
    ($($name:ident ($($arguments:tt)*) $(-> $returned:ty)? $body:block)*) => {
        $(#[body]
        #[isolated($($arguments)*)]
        fn $name() $(-> $returned)? $body)*
    };
}

failing! {
    writes_to_the_host() { fs::write("/usr/file", "").expect("write") }
    writes_to_the_host_and_unwraps() { fs::write("/usr/file", "").unwrap() }
    writes_to_the_host_and_returns() -> io::Result<()> { fs::write("/usr/file", "") }
    resolves_a_name() { drop(("tests.belljar.example", 80).to_socket_addrs().unwrap()) }
    connects_elsewhere() { drop(TcpStream::connect("192.0.2.7:80").unwrap()) }
    sends_elsewhere() {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        socket.send_to(b"x", "192.0.2.7:80").expect("send");
    }
    gives_a_file_away() { chown("/tmp", Some(Uid::from_raw(7)), None).expect("chown") }
    gives_a_file_away_and_returns() -> io::Result<()> { std::os::unix::fs::chown("/tmp", Some(7), None) }
    becomes_another() { setuid(Uid::from_raw(7)).unwrap() }
    takes_a_group() { setgroups(&[Gid::from_raw(7)]).expect("setgroups") }
    // What has nothing to do with sandboxes.
    asserts() { assert_eq!(1, 2) }
    names_no_error() { panic!("read-only") }
    meets_another_error() { drop(fs::read("/nonexistent").unwrap()) }
    prints_an_error() {
        println!("{}", Errno::EROFS);
        panic!("for another reason");
    }
    // What is there with these options fails for other reasons.
    resolves_a_name_of_the_hosts(mount) { panic!("failed to lookup address information") }
    gives_a_file_to_nobody(uids = 1000) { panic!("chown: EINVAL") }
    writes_to_a_copy(root = "overlay") { panic!("EROFS") }
}

#[body]
fn returns_bytes() {
    static SPEC: belljar::Spec = belljar::spec!();
    belljar::run(&SPEC, b"", |_| fs::write("/usr/file", "").map(|()| Vec::new())).unwrap();
}

#[test]
fn there_is_a_note_that_names_the_option() {
    let told = [
        "writes_to_the_host",
        "writes_to_the_host_and_unwraps",
        "writes_to_the_host_and_returns",
        "resolves_a_name",
        "connects_elsewhere",
        "sends_elsewhere",
        "gives_a_file_away",
        "gives_a_file_away_and_returns",
        "returns_bytes",
        "becomes_another",
        "takes_a_group",
    ]
    .map(|test| format!("{test}: {}", note_on(test).unwrap_or_default()));
    insta::assert_snapshot!(told.join("\n"), @r#"
    writes_to_the_host: what it has of the host is read-only. bind = ["/path:rw"] gives it a path to write to, and root = "overlay" a private copy of the whole tree.
    writes_to_the_host_and_unwraps: what it has of the host is read-only. bind = ["/path:rw"] gives it a path to write to, and root = "overlay" a private copy of the whole tree.
    writes_to_the_host_and_returns: what it has of the host is read-only. bind = ["/path:rw"] gives it a path to write to, and root = "overlay" a private copy of the whole tree.
    resolves_a_name: it has a network of its own, without name servers. Names can be written to /etc/hosts; #[isolated(mount)] has the host's network.
    connects_elsewhere: it has a network of its own, with `lo` alone. #[isolated(mount)] has the host's network.
    sends_elsewhere: it has a network of its own, with `lo` alone. #[isolated(mount)] has the host's network.
    gives_a_file_away: there is no user and no group but root. uids = 65536 has more.
    gives_a_file_away_and_returns: there is no user and no group but root. uids = 65536 has more.
    returns_bytes: what it has of the host is read-only. bind = ["/path:rw"] gives it a path to write to, and root = "overlay" a private copy of the whole tree.
    becomes_another: there is no user and no group but root. uids = 65536 has more.
    takes_a_group: there is no user and no group but root. uids = 65536 has more.
    "#);
}

#[test]
fn there_is_none_where_no_error_shows() {
    for test in ["asserts", "names_no_error", "meets_another_error", "prints_an_error", "resolves_a_name_of_the_hosts"]
    {
        assert_eq!(note_on(test), None, "{test}");
    }
    // Where these can be had.
    for test in ["gives_a_file_to_nobody", "writes_to_a_copy"] {
        let run = run_body(test);
        assert!(run.failed() && !run.output.contains(NOTE), "{test}: {}", run.output);
    }
}

#[body]
#[isolated]
#[should_panic(expected = "EROFS")]
fn expects_an_error() {
    panic!("EROFS");
}

#[body]
#[isolated]
fn passes_after_an_error() {
    eprintln!("{}", fs::write("/usr/file", "").expect_err("read-only"));
}

#[test]
fn expected_errors_need_none() {
    for test in ["expects_an_error", "passes_after_an_error"] {
        let run = run_body(test);
        assert!(run.passed() && !run.output.contains(NOTE), "{test}: {}", run.output);
    }
}

#[body]
#[isolated(pids = 6)]
fn forks_too_much() {
    let children: Vec<_> = (0..8).map(|_| Command::new("sleep").arg("9").spawn().unwrap()).collect();
    drop(children);
}

#[body]
#[isolated(pids = 6)]
fn starts_too_many_threads() {
    let threads = (0..8).map(|_| thread::Builder::new().spawn(thread::park).unwrap());
    threads.for_each(drop);
}

/// Whether a cgroup or RLIMIT_NPROC keeps it.
#[test]
fn a_limit_that_is_met_is_told_once() {
    for test in ["forks_too_much", "starts_too_many_threads"] {
        let run = run_body(test);
        if run.output.contains("did not run") {
            // Where nothing can keep it, `limits` looks at what is said.
            continue;
        }
        assert!(run.failed(), "{}", run.output);
        assert_eq!(run.output.matches("fork refused").count(), 1, "{test}: {}", run.output);
        assert!(run.output.contains("pids limit 6"), "{test}: {}", run.output);
    }
}
