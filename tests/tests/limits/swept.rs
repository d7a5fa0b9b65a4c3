//! Runs that end, or are ended, leave no cgroup.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{iter, panic, process};

use belljar::isolated;
use belljar_tests::{body, generations, hang, mark, marked, named, rounds, run, this_binary, wait_until};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::Pid;

use crate::has_all_limits;
use crate::parent::{Parent, below};

#[body]
#[isolated(pids = 100)]
fn waits_to_be_killed() {
    wait_to_be_killed();
}

#[body]
#[isolated(memory = "64MiB", pids = 100, cpu = 0.5)]
fn waits_with_all_limits() {
    wait_to_be_killed();
}

#[body]
#[isolated]
fn waits_without_a_limit() {
    wait_to_be_killed();
}

fn wait_to_be_killed() {
    println!("{}", process::id());
    hang();
}

/// A test that takes these signals by handlers of its own, one of which ends the process at once.
#[body]
fn handles_signals() {
    extern "C" fn end(_: libc::c_int) {
        process::abort();
    }
    for (signal, handler) in [(Signal::SIGTERM, SigHandler::Handler(end)), (Signal::SIGHUP, SigHandler::SigIgn)] {
        #[expect(unsafe_code, reason = "handlers are what this is about")]
        // SAFETY: the handler makes system calls.
        unsafe { nix::sys::signal::signal(signal, handler) }.expect("signal");
    }
    hang();
}

/// A run of one of these below `parent`, whose sandbox is there. It can be told from others by the mark.
fn start_marked(parent: &Parent, names: &[&str]) -> (Child, String) {
    let mut command = this_binary();
    command.args(["--exact", "body"]).args(names).args(["--nocapture", "--test-threads=2"]).stdout(Stdio::piped());
    parent.use_it(&mut command);
    let mark = mark(&mut command);
    #[expect(unsafe_code, reason = "signals that this process ignores, as below `nohup`, are to end the run")]
    // SAFETY: the child makes system calls.
    unsafe {
        command.pre_exec(|| {
            for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
                nix::sys::signal::signal(signal, SigHandler::SigDfl)?;
            }
            Ok(())
        });
    }
    let mut child = command.process_group(0).spawn().expect("spawn");
    let mut output = String::new();
    let stdout = child.stdout.as_mut().expect("piped");
    while !output.contains("\n2\n") {
        let mut bytes = [0; 64];
        let length = stdout.read(&mut bytes).expect("read");
        assert_ne!(length, 0, "{output}");
        output.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    (child, mark)
}

pub(crate) fn start(parent: &Parent, name: &str) -> Child {
    start_marked(parent, &[name]).0
}

fn kill(mut child: Child) {
    child.kill().and_then(|()| child.wait()).expect("kill");
}

/// Kills a run, and first the process that removes what it leaves, if it is there.
fn kill_with_sweeper(child: Child, mark: &str) {
    for sweeper in named(mark, "belljar-sweeper") {
        send(Signal::SIGKILL, sweeper as i32);
    }
    kill(child);
}

/// Waits until the process is there that removes what a run leaves, by its name: it gets that some time after it has begun.
fn wait_for_sweeper(mark: &str) {
    wait_until(|| !named(mark, "belljar-sweeper").is_empty());
}

/// Sends a signal to a process, or to a process group, whose number is negative.
fn send(signal: Signal, to: i32) {
    nix::sys::signal::kill(Pid::from_raw(to), signal).expect("kill");
}

/// Whatever ends a test binary, alone or with its process group: its cgroups go, and it takes no other run.
#[test]
fn signals_leave_no_cgroup() {
    let Some(parent) = Parent::new("signals") else { return };
    let tests: [&[&str]; 3] = [
        &["swept::waits_without_a_limit"],
        &["swept::waits_with_all_limits"],
        &["swept::waits_with_all_limits", "swept::handles_signals"],
    ];
    for (tests, signal) in tests.iter().flat_map(|tests| {
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGKILL].map(|signal| (tests, signal))
    }) {
        for is_group in [false, true] {
            let (mut child, mark) = start_marked(&parent, tests);
            assert!(!parent.below().is_empty());
            let pid = child.id() as i32;
            send(signal, if is_group { -pid } else { pid });
            if signal == Signal::SIGHUP && tests.len() > 1 {
                send(Signal::SIGKILL, pid);
            }
            child.wait().expect("wait");
            wait_until(|| parent.below().is_empty() && marked(&mark).is_empty());
        }
    }
    // Who signals all of them, signals the sweeper too. With the test binary, most others end.
    let (mut child, mark) = start_marked(&parent, &["swept::waits_with_all_limits"]);
    for pid in marked(&mark) {
        let _ = nix::sys::signal::kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
    }
    child.wait().expect("wait");
    wait_until(|| parent.below().is_empty() && marked(&mark).is_empty());
    // The twin: it is the sweeper who removes them.
    let (child, mark) = start_marked(&parent, &["swept::waits_with_all_limits"]);
    wait_for_sweeper(&mark);
    kill_with_sweeper(child, &mark);
    wait_until(|| marked(&mark).is_empty());
    assert!(!parent.below().is_empty());
    sweep(&parent);
}

/// Each try has one more descriptor, until one has enough. So there is one that has enough for a cgroup, and not for a sandbox.
#[body]
fn waits_when_descriptors_have_run_short() {
    let open = || File::open("/dev/null");
    let most = libc::rlim_t::try_from(open().expect("open").as_raw_fd()).expect("a number") + 64;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("setrlimit");
    let mut taken: Vec<_> = iter::from_fn(|| open().ok()).collect();
    while taken.pop().is_some() {
        let _ = panic::catch_unwind(waits_with_all_limits);
    }
}

/// A sandbox that can have no cgroup.
#[body]
fn waits_without_a_cgroup() {
    let failed = panic::catch_unwind(has_all_limits).is_err();
    println!("failed: {failed}\n2");
    hang();
}

#[body]
fn has_all_limits_again_and_again() {
    has_all_limits();
    println!("2");
    loop {
        has_all_limits();
    }
}

/// There is a sweeper, whatever happens to the first sandbox that is asked for, and to the first sweeper.
#[test]
fn each_run_has_a_sweeper() {
    let Some(parent) = Parent::new("sweeper") else { return };
    let start = |name: &str| {
        let (child, mark) = start_marked(&parent, &[name]);
        assert!(!parent.below().is_empty());
        (child, mark)
    };
    let is_swept = |child: Child, mark: &str| {
        kill(child);
        wait_until(|| parent.below().is_empty() && marked(mark).is_empty());
    };
    let (child, mark) = start("swept::waits_when_descriptors_have_run_short");
    is_swept(child, &mark);
    let (child, mark) = start("swept::has_all_limits_again_and_again");
    let sweeper = || named(&mark, "belljar-sweeper").first().copied();
    wait_until(|| sweeper().is_some());
    let first = sweeper();
    first.iter().for_each(|pid| send(Signal::SIGKILL, *pid as i32));
    wait_until(|| sweeper().is_some_and(|pid| Some(pid) != first));
    is_swept(child, &mark);
    // One of several hierarchies can't be had.
    let Some(missing) = parent.directories.get(1) else { return };
    fs::remove_dir(missing).expect("remove_dir");
    let (child, mark) = start("swept::waits_without_a_cgroup");
    is_swept(child, &mark);
    fs::create_dir(missing).expect("create_dir");
}

/// Has runs that limit no memory remove what is left of others.
fn sweep(parent: &Parent) {
    // What was killed may take a moment to end.
    wait_until(|| {
        let mut command = this_binary();
        command.args(["--exact", "body", "processes::forks_without_a_limit"]);
        parent.use_it(&mut command);
        assert!(run(&mut command).passed());
        parent.below().is_empty()
    });
}

#[test]
fn each_sandbox_has_a_cgroup_and_leaves_none() {
    let Some(parent) = Parent::new("each") else { return };
    let processes =
        |directory: &PathBuf| fs::read_to_string(directory.join("cgroup.procs")).expect("procs").lines().count();
    let child = start(&parent, "swept::waits_without_a_limit");
    assert!(parent.below().iter().any(|directory| processes(directory) >= 2));
    kill(child);
    let mut child = start(&parent, "swept::waits_to_be_killed");
    assert!(parent.below().iter().any(|directory| processes(directory) == 2));
    send(Signal::SIGTERM, child.id() as i32);
    child.wait().expect("wait");
    // What was killed may take a moment to end.
    wait_until(|| {
        let mut command = this_binary();
        command.args(["--exact", "--test-threads=4", "body", "*allocates_without*", "*forks_without*", "*forks_too*"]);
        parent.use_it(&mut command);
        let run = run(&mut command);
        assert!(run.output.contains("3 passed"), "{}", run.output);
        parent.below().is_empty()
    });
}

/// By version 2, whoever has started a run leaves the cgroup with it, and is back in it when the run is over, however that ends.
#[test]
fn who_has_started_a_run_is_moved_back() {
    let Some(parent) = Parent::new("shell") else { return };
    let [directory] = &parent.directories[..] else { return };
    if !directory.join("cgroup.subtree_control").exists() {
        println!("not tried: cgroups are of version 1");
        return;
    }
    let script = "echo $$ > \"$PARENT/cgroup.procs\" && \"$0\" \"$@\"; exec sleep 1000";
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(this_binary().get_program())
        .args(["--exact", "body", "swept::waits_with_all_limits", "--nocapture"])
        .env("PARENT", directory)
        .stdout(Stdio::piped());
    let mark = mark(&mut command);
    let mut shell = command.spawn().expect("spawn");
    let pid = shell.id();
    let has_shell = |directory: &Path| {
        let pids = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        pids.lines().any(|line| line == pid.to_string())
    };
    let mut lines = BufReader::new(shell.stdout.take().expect("piped")).lines();
    assert!(lines.any(|line| line.expect("a line") == "2"));
    assert!(has_shell(&directory.join("belljar.leaf")));
    let run = generations(pid).into_iter().find(|(_, generation)| *generation == 1).expect("a run").0;
    send(Signal::SIGKILL, run as i32);
    wait_until(|| parent.below().is_empty() && has_shell(directory));
    shell.kill().and_then(|()| shell.wait()).expect("kill");
    wait_until(|| marked(&mark).is_empty());
}

/// What a run left that was killed is swept by the next: never what belongs to a live one, nor what isn't ours.
#[test]
fn the_next_run_sweeps() {
    let Some(parent) = Parent::new("sweeps") else { return };
    let other = parent.directories[0].join("other");
    fs::create_dir(&other).expect("create_dir");
    let (killed, mark) = start_marked(&parent, &["swept::waits_with_all_limits"]);
    let (alive, alives_mark) = start_marked(&parent, &["swept::waits_to_be_killed"]);
    wait_for_sweeper(&mark);
    kill_with_sweeper(killed, &mark);
    let before = parent.below();
    let next = || {
        let mut command = this_binary();
        command.args(["--exact", "body", "processes::forks_without_a_limit"]);
        parent.use_it(&mut command);
        assert!(run(&mut command).passed());
    };
    // What was killed may take a moment to end.
    let [_, unused @ ..] = &parent.directories[..] else { return };
    wait_until(|| {
        next();
        parent.below().len() < before.len() && unused.iter().all(|directory| below(directory).is_empty())
    });
    let after = parent.below();
    assert!(after.contains(&other));
    kill_with_sweeper(alive, &alives_mark);
    let is_first = |directory: &PathBuf| directory.to_str().is_some_and(|path| path.ends_with("-1"));
    assert!(after.iter().any(is_first), "{after:?}");
    wait_until(|| {
        next();
        parent.below() == [other.clone()]
    });
}

#[test]
fn runs_that_are_killed_leave_nothing_to_the_next() {
    let Some(parent) = Parent::new("killed") else { return };
    for _ in 0..rounds(20) {
        let mut command = this_binary();
        command.args(["--exact", "--test-threads=4", "body", "*has_all_limits*", "*waits*", "*forks*"]);
        parent.use_it(&mut command);
        let mark = mark(&mut command);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("spawn");
        std::thread::sleep(Duration::from_micros(fastrand::u64(..50_000)));
        kill_with_sweeper(child, &mark);
    }
    sweep(&parent);
}
