//! Processes of belljar's that are stopped, as by a debugger, or by a machine that is short of memory: time runs for tests all the same.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::Duration;

use belljar::isolated;
use belljar_tests::{body, descendants, describe, generations, marked, rounds, run, this_binary, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

belljar_tests::bodies!();

// ---- Stopped by a test of the same process, which runs before ----

/// The processes of this name below this one.
fn below(name: &str) -> Vec<Pid> {
    let is_named =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name);
    descendants(process::id()).into_iter().filter(is_named).map(|pid| Pid::from_raw(pid as i32)).collect()
}

/// Stops all of them.
fn stop(name: &str) {
    // A process gets its name some time after it has begun.
    wait_until(|| !below(name).is_empty());
    for pid in below(name) {
        kill(pid, Signal::SIGSTOP).expect("kill");
        wait_until(|| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T ")));
    }
}

#[body]
fn zygote_1_stops_it() {
    stop("belljar-zygote");
}

#[body]
#[isolated(timeout = "300ms")]
fn zygote_2_is_late() {}

#[body]
#[isolated]
fn template_1_has_it_made() {}

#[body]
fn template_2_stops_it() {
    stop("belljar-tmpl");
}

/// It has another name, so that no sandbox has been prepared for it.
#[body]
#[isolated(timeout = "300ms", hostname = "late")]
fn template_3_is_late() {}

/// Its init is found and stopped meanwhile.
#[body]
#[isolated(timeout = "2s")]
fn init_1_is_late() {
    thread::sleep(Duration::from_secs(1000));
}

#[body]
fn init_2_stops_it() {
    wait_until(|| !below("belljar-init").is_empty());
    stop("belljar-init");
}

/// Runs these tests, and returns what was written. Nothing is left.
fn run_all(tests: &str, threads: usize) -> String {
    let mut command = this_binary();
    command.args(["body", tests, "--exact", &format!("--test-threads={threads}")]);
    let run = run(&mut command);
    assert!(run.left.is_empty(), "{:?} is left: {}", run.left, run.output);
    run.output
}

#[test]
fn a_zygote_that_is_stopped() {
    let output = run_all("zygote_*", 1);
    assert!(output.contains("test zygote_1_stops_it ... ok"), "{output}");
    assert!(output.contains("test zygote_2_is_late ... FAILED"), "{output}");
    assert!(
        output.contains("it did not begin: after its timeout of 300ms, these had made no sandbox for it:"),
        "{output}"
    );
    assert!(output.contains("`belljar-zygote`, stopped"), "{output}");
}

#[test]
fn a_template_that_is_stopped() {
    let output = run_all("template_*", 1);
    assert!(output.contains("test template_1_has_it_made ... ok"), "{output}");
    assert!(output.contains("test template_3_is_late ... FAILED"), "{output}");
    assert!(
        output.contains("it did not begin: after its timeout of 300ms, these had made no sandbox for it:"),
        "{output}"
    );
    assert!(output.contains("`belljar-tmpl`, stopped"), "{output}");
}

#[test]
fn an_init_that_is_stopped() {
    let output = run_all("init_*", 2);
    assert!(output.contains("test init_2_stops_it ... ok"), "{output}");
    assert!(output.contains("test init_1_is_late ... FAILED"), "{output}");
    assert!(output.contains("it still ran after its timeout of 2s, and was killed"), "{output}");
}

// ---- Some hundreds wait for one that is stopped ----

/// Tests that are late. Each has sandboxes of its own kind prepared, so that some hundreds of requests come of them.
macro_rules! crowd {
    ($($name:ident $hostname:literal)*) => {
        mod crowd {
            $(
                #[belljar_tests::body]
                #[belljar::isolated(timeout = "20ms", hostname = $hostname)]
                fn $name() {
                    std::thread::sleep(std::time::Duration::from_secs(1000));
                }
            )*
        }
    };
}

crowd!(a0 "a0" a1 "a1" a2 "a2" a3 "a3" a4 "a4" a5 "a5" a6 "a6" a7 "a7" a8 "a8" a9 "a9"
       b0 "b0" b1 "b1" b2 "b2" b3 "b3" b4 "b4" b5 "b5" b6 "b6" b7 "b7" b8 "b8" b9 "b9"
       c0 "c0" c1 "c1" c2 "c2" c3 "c3" c4 "c4" c5 "c5" c6 "c6" c7 "c7" c8 "c8" c9 "c9"
       d0 "d0" d1 "d1" d2 "d2" d3 "d3" d4 "d4" d5 "d5" d6 "d6" d7 "d7" d8 "d8" d9 "d9"
       e0 "e0" e1 "e1" e2 "e2" e3 "e3" e4 "e4" e5 "e5" e6 "e6" e7 "e7" e8 "e8" e9 "e9"
       f0 "f0" f1 "f1" f2 "f2" f3 "f3" f4 "f4" f5 "f5" f6 "f6" f7 "f7" f8 "f8" f9 "f9"
       g0 "g0" g1 "g1" g2 "g2" g3 "g3" g4 "g4" g5 "g5" g6 "g6" g7 "g7" g8 "g8" g9 "g9"
       h0 "h0" h1 "h1" h2 "h2" h3 "h3" h4 "h4" h5 "h5" h6 "h6" h7 "h7" h8 "h8" h9 "h9");

/// How many there are in the crowd.
const CROWD: usize = 80;

mod before {
    #[belljar_tests::body]
    fn zygote() {
        super::stop("belljar-zygote");
    }

    #[belljar_tests::body]
    #[belljar::isolated]
    fn tmpl_1_is_made() {}

    #[belljar_tests::body]
    fn tmpl_2_is_stopped() {
        super::stop("belljar-tmpl");
    }
}

#[body]
#[isolated]
fn later() {}

/// Runs these and the crowd, in the order of their names. Who is kept waiting is killed.
fn run_crowd(others: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--signal=KILL", "60"]).arg(this_binary().get_program());
    command.args(["--exact", "--test-threads=1", "body", "crowd::*"]).args(others).env("RUST_BACKTRACE", "0");
    let run = run(&mut command);
    assert!(run.left.is_empty(), "{:?} is left: {}", run.left, run.output);
    run.output
}

#[test]
fn a_zygote_with_no_room_for_requests() {
    let output = run_crowd(&["before::zygote"]);
    assert!(output.contains("test before::zygote ... ok"), "{output}");
    assert_eq!(output.matches("it did not begin: after its timeout of 20ms").count(), CROWD, "{output}");
}

#[test]
fn a_template_with_no_room_for_requests() {
    let output = run_crowd(&["before::tmpl_*", "later"]);
    assert!(output.contains("test before::tmpl_2_is_stopped ... ok"), "{output}");
    assert!(output.contains("test later ... ok"), "{output}");
}

// ---- The test binary itself is stopped, as by Ctrl-Z ----

/// It has to wait until somebody reads what it writes.
#[body]
#[isolated(timeout = "4s")]
fn writes_much() {
    println!("begins");
    (0..20_000).for_each(|line| println!("{line:100}"));
}

#[test]
fn time_does_not_run_while_the_test_binary_is_stopped() {
    let mut command = this_binary();
    command.args(["--exact", "body", "writes_much", "--nocapture"]).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().expect("spawn");
    let (binary, group) = (child.id(), Pid::from_raw(-(child.id() as i32)));
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| line.expect("a line"));
    assert!(lines.any(|line| line == "begins"));
    // Ctrl-Z, and later `fg`.
    kill(group, Signal::SIGTSTP).expect("kill");
    wait_until(|| fs::read_to_string(format!("/proc/{binary}/stat")).is_ok_and(|stat| stat.contains(") T ")));
    thread::sleep(Duration::from_secs(5));
    kill(group, Signal::SIGCONT).expect("kill");
    assert!(lines.any(|line| line.starts_with("test result: ok. 1 passed")));
    assert!(child.wait().expect("wait").success());
}

// ---- Stopped from outside, at any moment, and let go on ----

macro_rules! victims {
    ($($name:ident)*) => {
        mod victims {
            $(
                #[belljar_tests::body]
                #[belljar::isolated]
                fn $name() {
                    let output = std::process::Command::new("echo").arg("ran").output().expect("echo");
                    assert_eq!(output.stdout, b"ran\n");
                }
            )*

            #[belljar_tests::body]
            #[belljar::isolated(timeout = "300ms")]
            fn is_late() {
                std::thread::sleep(std::time::Duration::from_secs(1000));
            }

            /// The test binary decides about its calls.
            #[belljar_tests::body]
            #[belljar::isolated]
            fn meets_faults() {
                let file = std::fs::File::create("/tmp/file").expect("a file");
                let fault = belljar::Fault::new("fsync").errno(libc::EIO).every(2).start().expect("start");
                let failed = (0..20).filter(|_| file.sync_all().is_err()).count();
                assert_eq!((failed, fault.hits(), fault.calls()), (10, 10, 20));
            }

            #[belljar_tests::body]
            #[belljar::isolated]
            fn has_a_laboratory() {
                let mut lab = belljar::net::Lab::new();
                let (one, other) = (lab.host("one"), lab.host("other"));
                let net = lab.up().expect("up");
                let socket = other.run(|| std::net::UdpSocket::bind("[::]:80")).expect("bind");
                let own = one.run(|| std::net::UdpSocket::bind("[::]:0")).expect("bind");
                one.run(|| own.connect("other:80")).expect("connect");
                for number in 0..20 {
                    own.send(&[number]).expect("send");
                    let mut bytes = [0; 8];
                    assert_eq!((socket.recv(&mut bytes).expect("recv"), bytes[0]), (1, number));
                }
                drop(net);
            }

            #[belljar_tests::body]
            fn takes_bytes() {
                static SPEC: belljar::Spec = belljar::spec!();
                let output = belljar::run(&SPEC, b"input", |input| Ok::<_, String>(input.repeat(2)));
                assert_eq!(output.expect("output"), b"inputinput");
            }
        }
    };
}

victims!(a b c d e);

/// How long something is stopped: longer than the timeout.
const STOP: Duration = Duration::from_secs(3);

/// What can be stopped. Each is made by the one before, and so is what a body starts.
const KINDS: [&str; 5] = ["the binary", "a zygote", "a template", "an init", "a body"];

/// Whether a child has ended that nobody has waited for.
fn has_ended(child: u32) -> bool {
    fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// Runs the victims, and stops a process of this kind `delay` after there is one.
fn stop_after(delay: Duration, kind: usize) -> bool {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--signal=KILL", "60"]).arg(this_binary().get_program());
    command.args(["body", "victims::*", "--exact", "--test-threads=2"]).env("RUST_BACKTRACE", "0");
    let mark = belljar_tests::mark(&mut command);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let stream =
        || file.reopen().map(|_| fs::OpenOptions::new().append(true).open(file.path()).expect("open")).expect("open");
    let mut child = command.stdout(stream()).stderr(stream()).spawn().expect("timeout");
    let found = || {
        let is_of_kind = |(pid, generation)| (generation == kind + 1).then_some(Pid::from_raw(pid as i32));
        generations(child.id()).into_iter().filter_map(is_of_kind).collect::<Vec<_>>()
    };
    // The run may have ended before this test looks.
    wait_until(|| !found().is_empty() || has_ended(child.id()));
    thread::sleep(delay);
    let stopped = fastrand::choice(found());
    if let Some(pid) = stopped {
        let _ = kill(pid, Signal::SIGSTOP);
        thread::sleep(STOP);
        let _ = kill(pid, Signal::SIGCONT);
    }
    let status = child.wait().expect("wait");
    let output = fs::read_to_string(file.path()).expect("the output");
    let told = format!("{} {stopped:?} stopped after {delay:?}, {}:\n{output}", KINDS[kind], describe(status));
    assert_eq!(status.code(), Some(101), "{told}");
    assert!(output.contains("test result: FAILED. 8 passed; 1 failed;"), "{told}");
    let is_late = output.contains("it still ran after its timeout of 300ms")
        || output.contains("it did not begin: after its timeout");
    assert!(is_late, "{told}");
    assert!(marked(&mark).is_empty(), "{told}");
    stopped.is_some()
}

#[test]
fn any_of_them_at_any_moment() {
    thread::scope(|scope| {
        for (kind, name) in KINDS.iter().enumerate() {
            scope.spawn(move || {
                for _ in 0..rounds(2) {
                    let stop = |_| stop_after(Duration::from_micros(fastrand::u64(0..60_000)), kind);
                    assert!((0..20).any(stop), "no {name} was found that could be stopped");
                }
            });
        }
    });
}
