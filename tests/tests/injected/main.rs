//! Each system call that the set-up makes fails, with each error that it may give: the test fails and names the step, the error, and the
//! path, or it runs in the very sandbox that it would have had. Nothing is left behind.
//!
//! The [supervisor](belljar_tests::supervisor) counts these calls of a victim, and has one of them fail.

mod calls;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

use belljar::isolated;
use belljar_tests::supervisor::{Answer, Calls, Role, run_supervised};
use belljar_tests::{Run, body, this_binary};
use nix::errno::Errno;
use nix::errno::Errno::*;
use nix::unistd::{gethostname, getpgrp, getpid, getsid};

use calls::{Call, KINDS, Kind, run_with};

belljar_tests::bodies!();

// ---- The victims ----

/// What the body of a victim writes.
const RAN: &str = "the body ran";

/// What begins the lines in which a victim tells of its sandbox.
const TOLD: &str = "| ";

#[body]
#[isolated]
fn victim() {
    tell();
}

#[body]
#[isolated(net, bind = ["Cargo.toml", "lab:/mnt:rw"])]
fn victim_with_the_hosts_tree() {
    tell();
}

#[body]
#[isolated(user = 1000, monotonic = "1h", bind = ["Cargo.toml:/mnt/here"])]
fn victim_that_is_nobody() {
    tell();
}

#[body]
#[isolated(root = "overlay")]
fn victim_with_a_copy() {
    tell();
}

/// Tells all that makes up a sandbox, and is the same each time.
fn tell() {
    println!("{RAN}");
    let told = |what: &str, text: String| text.lines().for_each(|line| println!("{TOLD}{what}: {line}"));
    let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
    for line in read("/proc/self/mountinfo").lines() {
        // Behind the numbers of the mount, of the one that it lies on, and of the device.
        told("mount", line.splitn(4, ' ').last().unwrap_or_default().to_owned());
    }
    for path in
        ["/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups", "/proc/self/limits", "/proc/self/cgroup"]
    {
        told(path, read(path));
    }
    let kept = ["Umask", "Uid", "Gid", "Groups", "SigIgn", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"];
    let status = read("/proc/self/status");
    let is_kept = |line: &&str| line.split(':').next().is_some_and(|name| kept.contains(&name));
    told("status", status.lines().filter(is_kept).collect::<Vec<_>>().join("\n"));
    let open = (0..1024).filter(|fd| Path::new(&format!("/proc/self/fd/{fd}")).exists());
    told("descriptors", format!("{:?}", open.collect::<Vec<_>>()));
    told("processes", format!("{:?}", belljar_tests::processes()));
    told("ids", format!("{} {:?} {}", getpid(), getsid(None), getpgrp()));
    told("hostname", format!("{:?}", gethostname()));
    told("directory", format!("{:?}", env::current_dir()));
    for path in ["/", "/dev", "/etc", "/sys/class/net"] {
        let names = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
        told(path, format!("{:?}", names.collect::<BTreeSet<_>>()));
    }
    told("lo", read("/sys/class/net/lo/flags"));
    for path in ["/etc/passwd", "/etc/hosts", "/proc/self/timens_offsets"] {
        told(path, read(path));
    }
}

/// What a victim has told.
fn told(output: &str) -> Vec<&str> {
    output.lines().filter(|line| line.starts_with(TOLD)).collect()
}

// ---- What is to come of it ----

/// Fails with why it is not right that this came of `call` failing with `errno`, where `whole` is what the victim tells otherwise.
fn check(call: &Call, errno: Errno, run: &Run, whole: &[&str]) -> Result<(), String> {
    let Run { output, left, .. } = run;
    if !left.is_empty() {
        return Err(format!("left {left:?}"));
    }
    if run.passed() {
        let unlike = match call.kind().number {
            // Where the kernel refuses a sysfs, a sandbox has one that is read-only.
            libc::SYS_mount if call.path.as_ref().is_some_and(|path| path.ends_with("sys")) => Some("/sys"),
            // An init that can't join the cgroup of the default limit stays in that of the run. The kernel tells where a mount of
            // cgroups begins, as seen from there.
            libc::SYS_write if call.role == Role::Init => Some("/sys/fs/cgroup"),
            _ => None,
        };
        let is_same = |line: &&str| unlike.is_none_or(|words| !line.contains(words));
        let (found, wanted) = (told(output).into_iter().filter(is_same), whole.iter().copied().filter(is_same));
        let is_whole = output.contains(RAN) && found.clone().eq(wanted);
        let other: Vec<_> = found.filter(|line| !whole.contains(line)).collect();
        return if is_whole { Ok(()) } else { Err(format!("it ran in another sandbox: {other:#?}")) };
    }
    if !run.failed() || output.contains(RAN) {
        return Err("it neither passed nor failed before it ran".to_owned());
    }
    let step = output.lines().find(|line| line.starts_with("  step:   "));
    let step = step.ok_or("no step is named")?;
    // The C library starts threads, and has one error for them.
    let is_thread = call.role == Role::Test && call.kind().name.starts_with("clone");
    let errno = if is_thread { EAGAIN } else { errno };
    if !output.contains(&format!("error:  {errno:?} (")) {
        return Err("the error is not named".to_owned());
    }
    let Kind { steps, .. } = call.kind();
    if !steps.is_empty() && !steps.iter().any(|words| step.contains(words)) {
        return Err("another step is named".to_owned());
    }
    // What the sandbox has at the root, and what the plan calls by relative paths.
    let is_named = |path: &str| step.contains(path.trim_start_matches("root/").trim_start_matches('/'));
    match (call.path.as_deref(), call.source.as_deref()) {
        // Of `/run`, where it is put together is not told.
        _ if step.contains("make a symbolic link in the sandbox: /run") => Ok(()),
        // Where a root is put together, nobody looks.
        (
            Some("root" | "layers" | "host" | "set-aside" | "new" | "settings" | "new-proc" | "whole-proc" | "/.."),
            _,
        ) => Ok(()),
        (Some(path), source) if !path.starts_with('.') && !is_named(path) && !source.is_some_and(is_named) => {
            Err(format!("{path} is not named"))
        }
        _ => Ok(()),
    }
}

/// Has `calls` of a victim fail, each with one of the errors that `choose` picks, several at once. Returns all that it makes.
fn check_all(victim: &str, choose: impl Fn(&[Call]) -> Vec<(Call, Errno)>) -> Vec<Call> {
    let (run, calls) = run_with(victim, None);
    assert!(run.passed() && run.output.contains(RAN), "{}", run.output);
    let whole = told(&run.output);
    assert!(whole.len() > 50, "{}", run.output);
    let chosen = choose(&calls);
    let (next, wrong) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
    let work = || {
        while let Some((call, errno)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (run, made) = run_with(victim, Some((call, *errno)));
            let has_failed = made.iter().any(|made| made.is_same(call));
            let result = if has_failed { check(call, *errno, &run, &whole) } else { Err("it was not made".to_owned()) };
            if let Err(why) = result {
                let name = call.kind().name;
                wrong.lock().expect("lock").push(format!("{name} {call:?} {errno:?}: {why}\n{}", run.output));
            }
        }
    };
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
    let wrong = wrong.into_inner().expect("lock");
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), chosen.len(), wrong.join("\n"));
    println!("{victim}: {} errors", chosen.len());
    calls
}

#[test]
#[ignore = "takes a minute; .ci/run runs it"]
fn all_calls_that_fail_are_named() {
    let mut made = check_all("victim", |calls| {
        calls.iter().flat_map(|call| call.kind().errors.iter().map(|errno| (call.clone(), *errno))).collect()
    });
    for victim in ["victim_with_the_hosts_tree", "victim_that_is_nobody", "victim_with_a_copy"] {
        made.extend(check_all(victim, |calls| {
            calls.iter().enumerate().map(with_one_error).filter(|chosen| is_told(victim, chosen)).collect()
        }));
    }
    // A kind of call that nobody makes any more tests nothing.
    let is_made = |kind: &&Kind| made.iter().any(|call| call.number == kind.number);
    let unmade: Vec<_> = KINDS.iter().filter(|kind| !is_made(kind)).map(|kind| kind.name).collect();
    assert_eq!(unmade, [""; 0]);
}

/// Whether it is told that a call fails. Of a tree, a copy has what this user can read, and shows what the kernel can't copy.
fn is_told(victim: &str, (call, errno): &(Call, Errno)) -> bool {
    let is_of_tree = call.role == Role::Template && ["open", "openat"].contains(&call.kind().name);
    let is_layer = call.source.as_deref() == Some("overlay") && *errno == EINVAL;
    victim != "victim_with_a_copy" || !is_of_tree && !is_layer
}

/// Each of the errors that a call may give has its turn.
fn with_one_error((at, call): (usize, &Call)) -> (Call, Errno) {
    let errors = call.kind().errors;
    (call.clone(), errors[at % errors.len()])
}

/// The first and the last of each kind, each with an error.
#[test]
fn calls_that_fail_are_named() {
    check_all("victim", |calls| {
        let is_edge = |call: &&Call| {
            let like = calls.iter().filter(|other| (other.role, other.number) == (call.role, call.number));
            call.at == 0 || call.at + 1 == like.count()
        };
        calls.iter().filter(is_edge).enumerate().map(with_one_error).collect()
    });
}

/// The twin: what is wrong is found.
#[test]
fn what_is_not_named_is_found() {
    let (run, calls) = run_with("victim", None);
    let whole = told(&run.output);
    let call = calls
        .iter()
        .find(|call| call.role == Role::Init && call.kind().name == "mount" && call.at > 3)
        .expect("a mount");
    let (mut run, _) = run_with("victim", Some((call, EPERM)));
    check(call, EPERM, &run, &whole).expect("all is right");
    let right = run.output.clone();
    let path = call.path.as_deref().expect("a path");
    let step = right.lines().find(|line| line.starts_with("  step:   ")).expect("a step").to_owned();
    let other_step = format!("  step:   set the host name: /{path}");
    for (words, others) in
        [("EPERM (", "EIO ("), ("  step:   ", "  "), (path, "elsewhere"), (&step, &other_step), ("1 failed", RAN)]
    {
        run.output = right.replace(words, others);
        assert!(check(call, EPERM, &run, &whole).is_err(), "{words:?}: {}", run.output);
    }
    run.output = right;
    run.left.insert(1);
    assert!(check(call, EPERM, &run, &whole).is_err());
}

/// The twin: a sandbox that lacks something is another.
#[test]
fn another_sandbox_is_found() {
    let (run, calls) = run_with("victim", None);
    let whole = told(&run.output);
    check(&calls[0], EPERM, &run, &whole).expect("all is right");
    for at in 0..whole.len() {
        let less: Vec<_> = whole.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, line)| *line).collect();
        assert!(check(&calls[0], EPERM, &run, &less).is_err(), "{}", whole[at]);
    }
}

// ---- What comes first ----

/// From its first call on, init ends with the template: also where it then tells what it does when.
#[test]
fn init_ties_its_life_to_the_template_first() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let trace = directory.path().join("trace.json");
    for environment in [&[][..], &[("BELLJAR_TRACE", &*trace)]] {
        let mut command = this_binary();
        command.args(["--exact", "body", "victim", "--show-output", "--test-threads=1"]);
        command.envs(environment.iter().copied());
        let mut first = None;
        let run = run_supervised(command, "victim", Calls::AllBut(&[]), |asked| {
            if asked.role == Some(Role::Init) {
                first.get_or_insert((asked.number, asked.arguments[0], asked.arguments[1]));
            }
            Answer::Made
        });
        assert!(run.as_ref().is_ok_and(Run::passed), "{:?}", run.map(|run| run.output));
        assert_eq!(first, Some((libc::SYS_prctl, libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64)));
    }
}
