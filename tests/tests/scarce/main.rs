//! What becomes of tests where something runs out: open files, processes, memory, space for files.
//!
//! A limit is put on a whole run of this binary: of tests that are over at once, and of one that never ends by itself. Whatever the limit, the
//! run ends, each test passes or names what ran out, and none passes that has not run.

mod hoarded;
mod ids;
mod limited;
mod on_the_way;
mod processes;

use std::fmt::Write as _;
use std::fs::File;
use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use belljar::net::Lab;
use belljar::{Fault, isolated};
use belljar_tests::supervisor::{Answer, Calls, Role, run_supervised};
use belljar_tests::{MARK, Run, allocate, as_runner, body, rounds, run, runners, this_binary};
use nix::errno::Errno;
use nix::unistd::geteuid;

use limited::{Groups, Limited, Scarce, WORKERS};

belljar_tests::bodies!();

/// Tests that are over at once. Where nothing runs out, all pass.
macro_rules! crowd {
    ($($name:ident)*) => {
        /// All of them, and a body that is never over by itself.
        const ALL: &[&str] =
            &[$(stringify!($name),)* "crowd_copies", "crowd_has_hosts", "crowd_is_another", "crowd_leaves", "crowd_meets_faults", "crowd_panics",
                "crowd_takes_bytes", "crowd_talks", "body", "sleeps"];
        const CROWD: &[&str] = ALL.split_at(ALL.len() - 2).0;
        const PLAIN: &[&str] = &[$(concat!("plain::", stringify!($name)),)*];

        $(
            #[isolated]
            fn $name() {
                println!("{} ran", stringify!($name));
            }
        )*

        /// The same without sandboxes.
        mod plain {
            $(
                #[test]
                fn $name() {
                    println!("{} ran", stringify!($name));
                }
            )*
        }
    };
}

crowd! {
    crowd_00 crowd_01 crowd_02 crowd_03 crowd_04 crowd_05 crowd_06 crowd_07 crowd_08 crowd_09 crowd_10 crowd_11 crowd_12 crowd_13 crowd_14 crowd_15
    crowd_16
}

#[isolated(root = "overlay")]
fn crowd_copies() {
    // Where it can't be written, that is no matter. Where it is too large, the kernel ends the process.
    let _ = fs::write("/etc/scarce", [0; 100 << 10]);
    println!("crowd_copies ran");
}

#[isolated(user = "1000:1000")]
fn crowd_is_another() {
    println!("crowd_is_another ran");
}

/// What can't be had is no matter. A call that meets no fault is one.
#[isolated]
fn crowd_meets_faults() {
    let fault = Fault::new("fsync").errno(libc::EIO).start();
    if let Some((file, fault)) = File::create("/tmp/scarce").ok().zip(fault.ok()) {
        let errno = file.sync_all().err().and_then(|error| error.raw_os_error());
        // Where nobody answers, that is told.
        assert!(errno == Some(libc::ENOSYS) || (errno, fault.hits()) == (Some(libc::EIO), 1), "{errno:?}");
    }
    println!("crowd_meets_faults ran");
}

/// The same goes for hosts.
#[isolated]
fn crowd_has_hosts() {
    let mut lab = Lab::new();
    let (one, other) = (lab.host("one"), lab.host("other"));
    if let Ok(_net) = lab.up() {
        let bound = other.run(|| UdpSocket::bind("[::]:80"));
        let sent = one.run(|| UdpSocket::bind("[::]:0")?.send_to(b"x", "other:80"));
        if let (Ok(socket), Ok(_)) = (bound, sent) {
            let _ = socket.set_read_timeout(Some(Duration::from_secs(5))).and_then(|()| socket.recv(&mut [0; 8]));
        }
    }
    println!("crowd_has_hosts ran");
}

#[test]
fn crowd_takes_bytes() {
    static SPEC: belljar::Spec = belljar::spec!();
    let output = belljar::run(&SPEC, b"input", |input| Ok::<_, String>(input.repeat(2)));
    assert_eq!(output.unwrap_or_else(|failure| panic!("{failure}")), b"inputinput");
    println!("crowd_takes_bytes ran");
}

#[isolated]
fn crowd_leaves() {
    // Where it can't be had, that is no matter.
    drop(Command::new("sleep").arg("1000").stdout(Stdio::null()).stderr(Stdio::null()).spawn());
    println!("crowd_leaves ran");
}

#[isolated]
#[should_panic(expected = "at its end")]
fn crowd_panics() {
    println!("crowd_panics ran");
    panic!("at its end");
}

#[isolated]
fn crowd_talks() {
    (0..2000).for_each(|line| println!("line {line}, which is longer than it need be"));
    println!("crowd_talks ran");
}

/// How long [`sleeps`] may run, and in what steps it sleeps.
const TIMEOUT: Duration = Duration::from_millis(300);
const STEP: Duration = Duration::from_millis(10);

#[body]
#[isolated(timeout = "300ms")]
fn sleeps() {
    // Longer than a run may take.
    for _ in 0..100_000 {
        thread::sleep(STEP);
        // The thread that keeps the timeout answers this, and looks at the clock before the next answer. Where there is no answer, that is
        // no matter, and the step is not counted.
        if belljar::whereabouts().is_some_and(|here| here.init.is_some()) {
            println!("a step");
        }
    }
}

/// A neighbour in the same process, which takes all descriptors that are left, and gives them back, over and over. It begins first.
#[body]
fn a_hoarder() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        let mut files = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        thread::sleep(Duration::from_micros(200));
        drop(files);
        thread::sleep(Duration::from_micros(200));
    }
}

/// Where the two of one run meet, which share the host's network.
fn meeting_place() -> SocketAddr {
    SocketAddr::from_abstract_name(env::var(MARK).expect("a mark")).expect("an address")
}

/// Runs tests, the crowd among them, in a shell that has put these limits on itself.
fn run_limited(runner: Option<&str>, names: &[&str], limit: &str, threads: usize) -> Run {
    let mut command = until_killed();
    command.args(["sh", "-c", &format!("{limit} && exec \"$@\""), "sh"]);
    run(&mut as_runner(runner, with_tests(&mut command, names, threads)))
}

/// What runs the command that follows, and kills it in the end. It is not in a process group of its own, and is killed by a signal that
/// nobody can catch.
fn until_killed() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--signal=KILL", "120"]);
    command
}

/// Adds this binary and what it is to run.
fn with_tests<'c>(command: &'c mut Command, names: &[&str], threads: usize) -> &'c mut Command {
    command.arg(this_binary().get_program()).args(names);
    command.args(["--exact", "--show-output", &format!("--test-threads={threads}")]);
    for (name, value) in this_binary().get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// What is wrong with a run of the crowd, if anything is. Tests that fail for want of something say one of these words.
fn faults(run: &Run, named: &[&str]) -> String {
    let mut faults = String::new();
    if run.status.code() == Some(137) {
        faults.push_str("it did not end by itself\n");
    }
    if run.status.success() {
        faults.push_str("all passed\n");
    }
    if !run.left.is_empty() {
        let _ = writeln!(faults, "it left {:?}", run.left);
    }
    if ["body", "sleeps"].iter().any(|name| run.output.contains(&format!("test {name} ... ok"))) {
        faults.push_str("a test passed that had not ended\n");
    }
    // What the tests have written is shown at the end.
    if !run.output.contains("test result: ") {
        return faults;
    }
    for name in CROWD {
        let has_passed =
            ["", " - should panic"].iter().any(|kind| run.output.contains(&format!("test {name}{kind} ... ok")));
        if has_passed && !run.output.contains(&format!("{name} ran\n")) {
            let _ = writeln!(faults, "{name} passed and did not run");
        }
    }
    let failed = |line: &&str| line.starts_with("test ") && line.ends_with("FAILED");
    for line in run.output.lines().filter(failed) {
        let name = line.split(' ').nth(1).unwrap_or_default();
        // The harness shows what bodies have written as one.
        let shown = if CROWD.contains(&name) { name } else { "body" };
        let block = run.output.split_once(&format!("---- {shown} stdout ----")).map_or("", |(_, rest)| rest);
        let block = block.split("\n----").next().unwrap_or_default();
        let is_late = shown == "body" && block.contains("its timeout of 300ms");
        if !is_late && !named.iter().any(|word| block.contains(word)) {
            let _ = writeln!(faults, "{name} names no limit: {block}");
        }
    }
    faults
}

#[track_caller]
fn check(names: &[&str], limit: &str, threads: usize) {
    for runner in runners() {
        let run = run_limited(*runner, names, limit, threads);
        let faults = faults(&run, Scarce::Files.named());
        assert!(faults.is_empty(), "{limit}, {threads} threads, as {runner:?}:\n{faults}\nof:\n{}", run.output);
    }
}

#[test]
fn with_few_descriptors_fewer_tests_run_at_once() {
    for (limit, threads) in [(64, 16), (64, 64), (100, 64), (40, 16)] {
        for runner in runners() {
            let run = run_limited(*runner, ALL, &format!("ulimit -n {limit}"), threads);
            let counts = format!("test result: FAILED. {} passed; 1 failed;", CROWD.len());
            assert!(run.output.contains(&counts), "{limit} for {threads} threads, as {runner:?}: {}", run.output);
            assert_eq!(faults(&run, Scarce::Files.named()), "");
        }
    }
}

/// The twin is the least limit with which anything can run.
#[test]
fn each_limit_on_descriptors_is_named_or_enough() {
    for limit in (3..=48).step_by((48 / rounds(6)).max(1)) {
        check(ALL, &format!("ulimit -n {limit}"), 1 + limit % 4);
    }
}

/// To remove a cgroup takes a descriptor. A run that leaves one fails.
#[test]
fn with_few_descriptors_nothing_is_left() {
    for limit in 3..=16 {
        let limited = Limited { scarce: Scarce::Files, limit, threads: 4, as_root: geteuid().is_root() };
        let run = limited.run(ALL, WORKERS + 1).expect("a run");
        assert_eq!(faults(&run, limited.scarce.named()), "", "{limited:?}: {}", run.output);
    }
}

/// Descriptors run out at all moments.
#[test]
fn a_neighbour_may_take_all_descriptors() {
    for _ in 0..rounds(3) {
        check(&[ALL, &["a_hoarder"]].concat(), "ulimit -n 64", 4);
    }
}

/// The harness has a thread for each test, and each sandbox three processes and threads.
#[test]
fn with_few_processes_fewer_tests_run_at_once() {
    let limited = Limited { scarce: Scarce::Processes, limit: 45, threads: 64, as_root: false };
    let run = limited.run(ALL, WORKERS).expect("a run");
    let counts = format!("test result: FAILED. {} passed; 1 failed;", CROWD.len());
    assert!(run.output.contains(&counts), "{}", run.output);
    assert_eq!(faults(&run, limited.scarce.named()), "");
}

/// Has more memory than the others.
#[body]
fn a_large_neighbour() {
    let memory = allocate(40);
    thread::sleep(Duration::from_secs(1));
    drop(memory);
}

#[body]
#[isolated]
fn takes_what_is_left() {
    thread::sleep(Duration::from_millis(200));
    drop(allocate(100));
}

/// The kernel would take the largest.
#[test]
fn tests_end_before_the_test_binary() {
    let limited = Limited { scarce: Scarce::Memory, limit: 64 << 20, threads: 2, as_root: true };
    let Some(run) = limited.run(&["body", "a_large_neighbour", "takes_what_is_left"], WORKERS) else {
        println!("not tried: this takes cgroups of version 1, and root");
        return;
    };
    assert!(run.output.contains("test a_large_neighbour ... ok"), "{}", run.output);
    assert!(run.output.contains("test takes_what_is_left ... FAILED"), "{}", run.output);
    assert!(run.output.contains("memory.limit_in_bytes is 67108864, and was reached"), "{}", run.output);
}

/// Where the kernel may not kill for it, a call fails for want of memory.
#[test]
fn a_full_cgroup_is_named_where_a_call_is_refused() {
    const LIMIT: u64 = 64 << 20;
    let groups = Groups::make(Some(LIMIT));
    let Some(group) = &groups.memory else {
        println!("not tried: this takes cgroups of version 1, and root");
        groups.remove();
        return;
    };
    let procs = group.join("cgroup.procs");
    let joins = |then: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo $$ > {} && {then}", procs.display()), "sh"]);
        command
    };
    let status = joins("exec tail /dev/zero").status().expect("sh");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    let mut command = joins("exec \"$@\"");
    command.arg(this_binary().get_program()).args(["--exact", "crowd_00", "--test-threads=1"]);
    let calls = Calls::These(&[libc::SYS_clone, libc::SYS_unshare]);
    let run = run_supervised(command, "crowd_00", calls, |asked| {
        let is_refused = asked.role == Some(Role::Init) && asked.number == libc::SYS_unshare;
        if is_refused { Answer::Fails(Errno::ENOMEM) } else { Answer::Made }
    });
    let output = run.expect("it ends").output;
    groups.remove();
    assert!(output.contains("error:  ENOMEM ("), "{output}");
    assert!(output.contains(&format!("memory.limit_in_bytes is {LIMIT}, and was reached")), "{output}");
}

/// What is written of tests is no matter of theirs.
#[test]
fn a_report_that_is_too_large_fails_no_test() {
    let limited = Limited { scarce: Scarce::FileSizes, limit: 2048, threads: 4, as_root: true };
    let run = limited.run(&[ALL, &["--skip=crowd_copies"]].concat(), WORKERS).expect("a run");
    let counts = format!("test result: FAILED. {} passed; 1 failed;", CROWD.len() - 1);
    assert!(run.output.contains(&counts), "{}", run.output);
    for variable in ["BELLJAR_REPORT", "BELLJAR_TRACE"] {
        let told = format!("the file that {variable} names: File too large (os error 27).");
        assert!(run.output.contains(&told), "{}", run.output);
    }
    assert_eq!(faults(&run, limited.scarce.named()), "");
}

// ---- Everything, by chance ----

/// Each run follows from its seed, and these from the first, which `BELLJAR_TESTS_SEED` says.
#[test]
fn whatever_is_scarce_runs_end_and_say_so() {
    let first = env::var("BELLJAR_TESTS_SEED").map_or(0, |seed| seed.parse().expect("BELLJAR_TESTS_SEED is a number"));
    let (next, runs) = (AtomicU64::new(first), rounds(40) as u64);
    let (silent, only_ours) = (AtomicU64::new(0), AtomicU64::new(0));
    let counted = AtomicU64::new(0);
    let all = |worker: u32| {
        let mut found = String::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + runs {
                return found;
            }
            let limited = Limited::new(seed);
            let Some(run) = limited.run(ALL, worker) else { continue };
            let mut faults = faults(&run, limited.scarce.named());
            let steps = run.output.matches("a step\n").count() as u32;
            counted.fetch_add(steps.into(), Ordering::Relaxed);
            // The first step may end before the clock is read for the first time.
            if STEP * steps > TIMEOUT + STEP {
                let _ = writeln!(faults, "a test went on for {steps} steps");
            }
            if !faults.is_empty() {
                let _ = writeln!(found, "BELLJAR_TESTS_SEED={seed}: {limited:?}:\n{faults}\nof:\n{}", run.output);
            }
            if !run.output.contains("test result: ") {
                silent.fetch_add(1, Ordering::Relaxed);
                let plain = limited.run(PLAIN, worker);
                if plain.is_some_and(|plain| plain.status.success()) {
                    only_ours.fetch_add(1, Ordering::Relaxed);
                    println!("{seed}: {limited:?} ends with {:?}: {}", run.status, run.output);
                }
            }
        }
    };
    let found = thread::scope(|scope| {
        let all = &all;
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || all(worker))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect::<String>()
    });
    println!("{runs} runs; {silent:?} ended without verdicts, and in {only_ours:?} of them plain tests pass");
    assert!(found.is_empty(), "{found}");
    // Not every run has room for the answers by which steps are counted.
    assert!(counted.into_inner() > 0, "no step was counted in {runs} runs");
}
