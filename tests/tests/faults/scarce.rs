//! The test binary runs short of what it decides about calls with: each call meets its fault all the same, or the test fails and names what
//! ran out.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::UdpSocket;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{self, Command};
use std::{iter, mem};

use belljar::net::Lab;
use belljar::{Fault, Sweep, isolated};
use belljar_tests::{Run, as_runner, body, descendants, run, runners, this_binary, wait_until};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::{data, no_fsync};

// ---- The neighbours: other tests of the same process ----

/// Waits until a body waits, and has it go on behind what is done here, which stays so.
fn act<T>(action: impl FnOnce() -> T) {
    let sleeps = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n");
    let sleeper = || descendants(process::id()).into_iter().find(sleeps);
    wait_until(|| sleeper().is_some());
    let sleeper = sleeper().expect("it lives");
    mem::forget(action());
    kill(Pid::from_raw(sleeper as i32), Signal::SIGKILL).expect("kill");
}

#[body]
fn does_nothing() {
    act(|| ());
}

#[body]
fn takes_all_descriptors() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, 128, most).expect("setrlimit");
    act(|| iter::from_fn(|| File::open("/dev/null").ok()).collect::<Vec<_>>());
}

#[body]
fn allows_no_threads() {
    act(|| {
        let (_, most) = getrlimit(Resource::RLIMIT_NPROC).expect("getrlimit");
        setrlimit(Resource::RLIMIT_NPROC, 0, most).expect("setrlimit");
    });
}

/// Waits until the neighbour has done what it does, which then kills what this waits for.
fn meet() {
    let status = Command::new("sleep").arg("1000").status().expect("sleep");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
}

// ---- The bodies ----

#[body]
#[isolated]
fn starts_a_first_fault() {
    let file = data("wal");
    meet();
    let fault = no_fsync().start();
    let _ = (file.sync_all(), fault);
}

#[body]
#[isolated]
fn has_a_child_killed() {
    data("wal");
    let fault = Fault::syncing().kill().start().expect("start");
    meet();
    let status = Command::new("sync").arg("/data/wal").status().expect("sync");
    assert_eq!((status.signal(), fault.hits()), (Some(libc::SIGKILL), 1));
}

#[body]
#[isolated]
fn writes_short() {
    writes_three_of_six();
}

fn writes_three_of_six() {
    let mut file = data("wal");
    let _fault = Fault::writing().short(3).path("/data/*").start().expect("start");
    meet();
    let _ = file.write(b"abcdef").expect("write");
}

/// The panic that it should have would be a pass, though the call was whole.
#[body]
#[isolated]
#[should_panic(expected = "as it should")]
fn panics_after_a_whole_call() {
    writes_three_of_six();
    panic!("as it should");
}

/// The name is in a file that is mapped, and whose page nobody has touched: to read it may take as long as it likes.
#[body]
#[isolated]
fn opens_by_a_mapped_name() {
    data("name").write_all(b"/data/wal\0").expect("write");
    let file = File::open("/data/name").expect("open");
    let length = NonZero::new(10).expect("a length");
    #[expect(unsafe_code, reason = "a mapping may change below whoever has it")]
    // SAFETY: nobody else has the file.
    let name = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, &file, 0) }.expect("mmap");
    let _fault = Fault::opening().errno(libc::EIO).path("/data/wal").start().expect("start");
    meet();
    #[expect(unsafe_code, reason = "Rust would read the name first")]
    // SAFETY: the name ends within the file.
    let _ = unsafe { libc::openat(libc::AT_FDCWD, name.as_ptr().cast(), libc::O_RDONLY) };
}

#[body]
#[isolated]
fn sweeps_with_power_cuts() {
    data("wal");
    // From its first fault on, somebody answers.
    drop(no_fsync().start().expect("start"));
    meet();
    let commit = || File::create("/data/wal").and_then(|mut file| file.write_all(b"x").and_then(|()| file.sync_all()));
    Sweep::new(Fault::writing().kill().path("/data/*")).state("/data").power_cut().check(|_| {}).run(commit);
}

/// Of the wire, a supervisor asks what it is called.
#[body]
#[isolated]
fn has_a_laboratory() {
    let mut lab = Lab::new();
    let (server, client) = (lab.host("server"), lab.host("client"));
    let net = lab.up().expect("up");
    let socket = server.run(|| UdpSocket::bind("[::]:80")).expect("bind");
    let own = client.run(|| UdpSocket::bind("[::]:0").and_then(|own| own.connect("server:80").map(|()| own)));
    let fault = Fault::new("sendto").errno(libc::EIO).start().expect("start");
    meet();
    File::from(OwnedFd::from(own.expect("connect"))).write_all(b"y").expect("write");
    assert_eq!(socket.recv(&mut [0; 8]).expect("recv"), 1);
    assert_eq!(fault.hits(), 0);
    drop((net, fault));
}

/// The test binary has no room for its packets.
#[body]
#[isolated]
fn has_a_laboratory_and_fails() {
    meet();
    let mut lab = Lab::new();
    let _host = lab.host("one");
    drop(lab.up().expect("up"));
    panic!("on purpose");
}

// ---- What becomes of them ----

fn run_with(runner: Option<&str>, neighbour: &str, name: &str) -> Run {
    let mut command = this_binary();
    let names =
        ["body", neighbour, name].map(|name| if name == "body" { name.to_owned() } else { format!("scarce::{name}") });
    command.args(["--exact", "--show-output", "--test-threads=2"]).args(names);
    let run = run(&mut as_runner(runner, &command));
    assert!(run.output.contains(&format!("test scarce::{neighbour} ... ok")), "{}", run.output);
    assert!(run.left.is_empty(), "{:?} is left: {}", run.left, run.output);
    run
}

fn passes(run: &Run, name: &str) -> bool {
    run.output.contains(&format!("test scarce::{name} ... ok"))
}

/// What is said of a body whose calls nobody can answer, or that don't meet their faults.
const NO_ANSWER: &str = ", but belljar could not answer some of its watched calls";
const UNMET: &str = "its body returned, but a call did not meet a fault that is for it";
const FILES: &str = "EMFILE (Too many open files). It may be that";

/// `None` for those that pass.
const WITHOUT_DESCRIPTORS: &[(&str, Option<[&str; 3]>)] = &[
    ("starts_a_first_fault", Some([NO_ANSWER, FILES, "RLIMIT_NOFILE is 128"])),
    ("has_a_child_killed", None),
    ("writes_short", Some([UNMET, FILES, "RLIMIT_NOFILE is 128"])),
    ("sweeps_with_power_cuts", Some(["what was synced could not be kept", "", ""])),
    ("has_a_laboratory", None),
];

#[test]
fn without_descriptors_faults_are_met_or_it_is_told() {
    for runner in runners() {
        for (name, told) in WITHOUT_DESCRIPTORS {
            let run = run_with(*runner, "takes_all_descriptors", name);
            assert_eq!(passes(&run, name), told.is_none(), "{name}, as {runner:?}: {}", run.output);
            for words in told.iter().flatten() {
                assert!(run.output.contains(words), "{words:?} of {name}, as {runner:?}: {}", run.output);
            }
        }
    }
}

/// The twin.
#[test]
fn with_descriptors_they_are_met() {
    for (name, _) in WITHOUT_DESCRIPTORS {
        let run = run_with(None, "does_nothing", name);
        assert!(passes(&run, name), "{name}: {}", run.output);
    }
}

#[test]
fn packets_that_are_lost_are_told() {
    let name = "has_a_laboratory_and_fails";
    for (neighbour, is_told) in [("takes_all_descriptors", true), ("does_nothing", false)] {
        let run = run_with(None, neighbour, name);
        assert!(!passes(&run, name) && run.output.contains("on purpose"), "{}", run.output);
        let words = "what passed in a laboratory of `scarce::has_a_laboratory_and_fails`, or what went wrong there, did not reach the test binary: EMFILE (";
        assert_eq!(run.output.contains(words), is_told, "beside {neighbour}: {}", run.output);
    }
}

const WITHOUT_THREADS: [(&str, &str); 4] = [
    ("starts_a_first_fault", NO_ANSWER),
    ("writes_short", UNMET),
    ("opens_by_a_mapped_name", UNMET),
    ("panics_after_a_whole_call", "its body panicked, but a call did not meet a fault that is for it"),
];

/// To root, the limit on processes does not apply.
#[test]
fn without_threads_it_is_told() {
    for runner in runners().iter().filter(|runner| runner.is_some() || !geteuid().is_root()) {
        for (name, told) in WITHOUT_THREADS {
            let run = run_with(*runner, "allows_no_threads", name);
            assert!(!passes(&run, name), "{name}: {}", run.output);
            for words in [told, "EAGAIN (", "RLIMIT_NPROC is 0"] {
                assert!(run.output.contains(words), "{name}: {}", run.output);
            }
        }
        let run = run_with(*runner, "does_nothing", "opens_by_a_mapped_name");
        assert!(passes(&run, "opens_by_a_mapped_name"), "the twin: {}", run.output);
    }
}

/// More processes than may have supervisors of their own: each starts its first fault. That is no lack of descriptors.
#[body]
#[isolated]
fn starts_first_faults_in_nine_processes() {
    for _ in 0..9 {
        if let nix::unistd::ForkResult::Parent { child } = belljar_tests::fork() {
            nix::sys::wait::waitpid(child, None).expect("wait");
        } else {
            let fault = no_fsync().start();
            let _ = File::open("/data/wal").map(|file| file.sync_all());
            drop(fault);
            // SAFETY: it takes an integer.
            #[expect(unsafe_code, reason = "a fork ends without the handlers of its parent")]
            unsafe {
                libc::_exit(0)
            };
        }
    }
}

#[test]
fn too_many_processes_with_faults_are_told() {
    let run = belljar_tests::run_body("scarce::starts_first_faults_in_nine_processes");
    assert!(run.failed() && run.output.contains(NO_ANSWER), "{}", run.output);
    assert!(run.output.contains("more than 8 processes have each started a first fault"), "{}", run.output);
}
