//! Groups of a test's processes: limited, stopped, killed and measured together.
//!
//! As with limits, `BELLJAR_TESTS_LIMITS` says whether the host must be able to.

mod wrong;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{self, Child, Command};
use std::time::{Duration, Instant};
use std::{hint, thread};

use belljar::{Group, isolated};
use belljar_tests::{MIB, allocate, body, fork, hang, must_limit, run_body, wait_until};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

belljar_tests::bodies!();

/// A group, if the host lets there be one. Otherwise it says why, and the caller returns.
fn group(name: &str) -> Option<Group> {
    match Group::new(name) {
        Ok(group) => {
            println!("there are groups");
            Some(group)
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            println!("no group: {error}");
            None
        }
    }
}

/// Runs a body, which must pass, with groups or without, as it must be here.
fn passes(name: &str) {
    let run = run_body(name);
    assert!(run.passed() && run.left.is_empty(), "{}", run.output);
    let has = run.output.contains("there are groups");
    assert!(has != run.output.contains("no group: belljar: the host refuses"), "{}", run.output);
    assert!(must_limit().is_none_or(|must| must == has), "{}", run.output);
}

/// A process that makes `/tmp/ticks` longer as long as it runs.
fn ticking(group: &Group) -> Child {
    let script = "while :; do echo tick >> /tmp/ticks; done";
    let child = group.command("sh").expect("command").args(["-c", script]).spawn().expect("spawn");
    wait_until(|| ticks() > 0);
    child
}

fn ticks() -> u64 {
    fs::metadata("/tmp/ticks").map_or(0, |ticks| ticks.len())
}

/// Whether it ticks, for certain if it does.
fn ticks_on() -> bool {
    let before = ticks();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(100) {
        if ticks() != before {
            return true;
        }
        thread::sleep(Duration::from_millis(1));
    }
    false
}

/// The cgroups of a process as its cgroup namespace shows them.
fn cgroups(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect()
}

/// With a cgroup namespace of its own, a process finds itself at the root: the sandbox has one. The twin has not.
#[body]
#[isolated]
fn has_a_cgroup_namespace() {
    let own = fs::read_to_string("/proc/self/cgroup").expect("cgroup");
    let Some(group) = group("within") else { return };
    let of_group = |namespaces: CloneFlags| {
        let mut command = group.command("cat").expect("command");
        #[expect(unsafe_code, reason = "a process is to enter a namespace after the group")]
        // SAFETY: the child makes one system call.
        unsafe {
            command.pre_exec(move || Ok(unshare(namespaces)?));
        }
        let output = command.arg("/proc/self/cgroup").output().expect("output");
        String::from_utf8(output.stdout).expect("text")
    };
    let (shared, fresh) = (of_group(CloneFlags::empty()), of_group(CloneFlags::CLONE_NEWCGROUP));
    let pairs: Vec<_> = cgroups(&shared).into_iter().zip(cgroups(&fresh)).zip(cgroups(&own)).collect();
    let joined: Vec<_> = pairs.into_iter().filter(|((shared, _), _)| shared.ends_with("/within")).collect();
    assert!(!joined.is_empty(), "{shared}");
    for ((shared, fresh), own) in joined {
        assert_eq!((fresh, own), ("/", "/"), "{shared}");
    }
}

#[test]
fn a_namespace_makes_a_cgroup_the_root() {
    passes("has_a_cgroup_namespace");
}

fn stops_and_goes_on(group: &Group) {
    wait_until(ticks_on);
    for _ in 0..20 {
        group.freeze().expect("freeze");
        assert!(!ticks_on());
        group.thaw().expect("thaw");
        wait_until(ticks_on);
    }
}

#[body]
#[isolated(timeout = "1m")]
fn stops_a_group() {
    let Some(group) = group("ticker") else { return };
    let mut child = ticking(&group);
    assert_eq!(group.pids().expect("pids"), [child.id()]);
    stops_and_goes_on(&group);
    group.freeze().expect("freeze");
    // Frozen as it is.
    group.kill().expect("kill");
    assert_eq!(child.wait().expect("wait").signal(), Some(Signal::SIGKILL as i32));
    assert!(group.pids().expect("pids").is_empty());
    // One that is left frozen is gone with the sandbox.
    #[expect(clippy::zombie_processes, reason = "it is to be left")]
    let _left = ticking(&group);
    group.freeze().expect("freeze");
}

#[test]
fn a_group_is_stopped_and_goes_on() {
    passes("stops_a_group");
}

/// All of it dies, also what it goes on to fork; and nothing else.
#[body]
#[isolated(timeout = "1m")]
fn kills_a_group() {
    let Some(group) = group("forks") else { return };
    let mut other = Command::new("sleep").arg("1000").spawn().expect("spawn");
    let script = "while :; do sleep 1000 & sleep 0.01; done";
    let mut children: Vec<_> =
        (0..3).map(|_| group.command("sh").expect("command").args(["-c", script]).spawn().expect("spawn")).collect();
    wait_until(|| group.pids().expect("pids").len() > 10);
    group.kill().expect("kill");
    assert!(group.pids().expect("pids").is_empty());
    children.iter_mut().for_each(|child| assert!(!child.wait().expect("wait").success()));
    assert!(other.try_wait().expect("wait").is_none());
    other.kill().and_then(|()| other.wait()).expect("kill");
}

#[test]
fn a_group_is_killed() {
    passes("kills_a_group");
}

/// Runs `act` in a fork that has joined the group, and returns how it ended.
fn forked(group: &Group, act: impl FnOnce() -> i32) -> WaitStatus {
    match fork() {
        ForkResult::Child => {
            group.add(process::id()).expect("add");
            process::exit(act());
        }
        ForkResult::Parent { child } => waitpid(child, None).expect("waitpid"),
    }
}

#[body]
#[isolated(timeout = "1m")]
fn limits_groups() {
    let Some(memory) = group("memory") else { return };
    let killed = |end: WaitStatus| matches!(end, WaitStatus::Signaled(_, Signal::SIGKILL, _));
    let succeeded = |end: WaitStatus| matches!(end, WaitStatus::Exited(_, 0));
    let allocates = |mib: usize| {
        move || {
            allocate(mib);
            0
        }
    };
    // The twin: no limit yet.
    assert!(succeeded(forked(&memory, allocates(40))));
    memory.limit_memory(32 * MIB as u64).expect("limit");
    assert!(killed(forked(&memory, allocates(40))));
    assert!(succeeded(forked(&memory, allocates(24))));
    // It may be raised again, and lowered.
    memory.limit_memory(64 * MIB as u64).expect("limit");
    assert!(succeeded(forked(&memory, allocates(40))));
    memory.limit_memory(32 * MIB as u64).expect("limit");
    assert!(killed(forked(&memory, allocates(40))));
    // Others of the sandbox are not concerned.
    allocate(70);
    let peak = memory.usage().memory_peak;
    assert!(peak.is_none_or(|peak| peak.abs_diff(64 * MIB as u64) < 30 * MIB as u64), "{peak:?}");

    let pids = Group::new("pids").expect("another group");
    let forks = || {
        let children: Vec<_> = (0..8).map_while(|_| Command::new("sleep").arg("1000").spawn().ok()).collect();
        let count = children.len() as i32;
        for mut child in children {
            child.kill().and_then(|()| child.wait()).expect("kill");
        }
        count
    };
    assert!(matches!(forked(&pids, forks), WaitStatus::Exited(_, 8)));
    pids.limit_pids(4).expect("limit");
    // The fork itself is one.
    assert!(matches!(forked(&pids, forks), WaitStatus::Exited(_, 3)));
    assert_eq!(pids.usage().pids, Some(0));

    let cpu = Group::new("cpu").expect("another group");
    cpu.weigh_cpu(50).expect("weight");
    cpu.limit_cpu(0.2).expect("limit");
    let (before, start) = (cpu.usage().cpu.expect("CPU time"), Instant::now());
    forked(&cpu, || {
        while start.elapsed() < Duration::from_secs(2) {
            hint::black_box(0);
        }
        0
    });
    let (spent, wall) = (cpu.usage().cpu.expect("CPU time") - before, start.elapsed());
    assert!(spent < wall.mul_f64(0.2 * 1.1) + Duration::from_millis(20), "{spent:?} of {wall:?}");
    assert!(spent > Duration::ZERO);
}

#[test]
fn a_groups_limits_hold() {
    passes("limits_groups");
}

/// The sandbox's own limit holds for its groups as well, and what is said of it.
#[body]
#[isolated(memory = "64MiB", pids = 32)]
fn exceeds_its_own_limit_in_a_group() {
    let Some(group) = group("large") else { return };
    forked(&group, || {
        allocate(80);
        0
    });
}

#[test]
fn the_sandboxs_limit_holds_for_groups() {
    let run = run_body("exceeds_its_own_limit_in_a_group");
    if run.output.contains("there are groups") {
        assert!(run.failed() && run.output.contains("killed: out of memory (limit 64 MiB"), "{}", run.output);
    } else {
        assert!(run.failed() && run.output.contains("did not run"), "{}", run.output);
    }
}

/// Processes that start others all the time, by vfork(2) where the C library does so, and one whose main thread has ended.
#[body]
#[isolated(timeout = "1m")]
fn stops_all_kinds_of_processes() {
    let Some(group) = group("spawns") else { return };
    let start = |act: fn()| match fork() {
        ForkResult::Child => {
            act();
            process::abort();
        }
        ForkResult::Parent { child } => group.add(child.as_raw() as u32).expect("add"),
    };
    start(|| {
        loop {
            let _ = Command::new("true").status();
        }
    });
    for _ in 0..100 {
        group.freeze().and_then(|()| group.thaw()).expect("freeze and thaw");
    }
    group.kill().expect("kill");
    start(|| {
        thread::spawn(|| {
            loop {
                fs::write("/tmp/ticks", vec![0; ticks() as usize + 1]).expect("write");
                if ticks() > 1000 {
                    fs::write("/tmp/ticks", "").expect("write");
                }
            }
        });
        #[expect(unsafe_code, reason = "only the thread is to end")]
        // SAFETY: the stack of the main thread stays, and with it all that others may refer to.
        unsafe {
            libc::syscall(libc::SYS_exit, 0);
        }
    });
    stops_and_goes_on(&group);
}

#[test]
fn all_kinds_of_processes_are_stopped() {
    passes("stops_all_kinds_of_processes");
}

/// Elsewhere its processes have other numbers, or none.
#[body]
#[isolated(timeout = "1m")]
fn is_used_in_another_pid_namespace() {
    let Some(group) = group("there") else { return };
    let mut child = group.command("sleep").expect("command").arg("1000").spawn().expect("spawn");
    unshare(CloneFlags::CLONE_NEWPID).expect("unshare");
    // Its first process is one of the new namespace.
    let end = match fork() {
        ForkResult::Child => match group.kill() {
            Ok(()) => process::exit(1),
            Err(error) => process::exit(i32::from(!error.to_string().contains("does not know the processes"))),
        },
        ForkResult::Parent { child } => waitpid(child, None).expect("waitpid"),
    };
    // Nobody can tell before 6.11 with version 1.
    let can_tell = has_pidfs_namespaces() || Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert!(!can_tell || matches!(end, WaitStatus::Exited(_, 0)), "{end:?}");
    assert!(child.try_wait().expect("wait").is_none());
    group.kill().expect("kill");
    child.wait().expect("wait");
}

fn has_pidfs_namespaces() -> bool {
    let release = nix::sys::utsname::uname().expect("uname").release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(11))
}

#[test]
fn a_group_stays_in_its_pid_namespace() {
    passes("is_used_in_another_pid_namespace");
}

/// Where no limit is written, the default holds for groups too.
#[body]
#[isolated(timeout = "1m")]
fn forks_without_end_in_a_group() {
    let Some(group) = group("bomb") else { return };
    let end = forked(&group, || {
        #[expect(unsafe_code, reason = "that is the point")]
        // SAFETY: the child only waits.
        let fork = || match unsafe { libc::fork() } {
            0 => hang(),
            child => child > 0,
        };
        i32::from((0..2000).all(|_| fork()))
    });
    assert!(matches!(end, WaitStatus::Exited(_, 0)), "{end:?}");
}

#[test]
fn fork_bombs_in_groups_end() {
    passes("forks_without_end_in_a_group");
}

/// A test can do without a view of its own, and without `/proc`; but for one thing in version 1, which is then refused.
#[body]
#[isolated(net, timeout = "1m")]
fn has_no_view() {
    let Some(group) = group("blind") else { return };
    let mut child = group.command("sleep").expect("command").arg("1000").spawn().expect("spawn");
    fs::create_dir_all("/tmp/belljar-tests-empty").expect("create_dir");
    nix::unistd::chroot("/tmp/belljar-tests-empty").expect("chroot");
    assert!(File::open("/proc/self").is_err());
    assert_eq!(group.usage().pids, Some(1));
    match group.freeze() {
        Ok(()) => group.thaw().expect("thaw"),
        Err(error) => assert!(error.to_string().contains("there is no /proc"), "{error}"),
    }
    group.kill().expect("kill");
    assert_eq!(waitpid(Pid::from_raw(child.id() as i32), None).map(drop), Ok(()));
    assert!(child.try_wait().is_err());
    assert!(Group::new("another").is_ok());
}

#[test]
fn the_view_makes_no_difference() {
    passes("has_no_view");
    let _ = fs::remove_dir("/tmp/belljar-tests-empty");
}
