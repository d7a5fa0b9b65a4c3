//! Each system call that the test binary makes for a test, and that the zygote, its templates and what maps their ids make, fails once with
//! each error that it may give: the run ends by itself, no test passes that has not run, none runs on behind its timeout, nothing is left, and
//! a test that fails names what has failed. `injected` has the calls of init, and the steps that it is to name.
//!
//! It is the [supervisor](belljar_tests::supervisor) that has them fail. Calls of the test binary count from the mark that a victim sets: those of
//! its thread to the second mark, and those of the first thread to the end of the process.

mod calls;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_long;
use std::fs::{self, File};
use std::mem;
use std::net::UdpSocket;
use std::panic::{catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use belljar::net::Lab;
use belljar::{Spec, isolated, spec};
use belljar_tests::supervisor::{Answer, Calls, Role, run_supervised};
use belljar_tests::{
    Run, as_runner, body, descendants, describe, must_limit, rounds, runners, this_binary, wait_until,
};

use nix::errno::Errno;
use nix::errno::Errno::*;
use nix::fcntl::{Flock, FlockArg};

use calls::{Call, Fault, MKDIR, POLL, SAFE, errors_of, is_edge};

belljar_tests::bodies!();

// ---- The victims ----

/// What a body writes that has run to its end.
const RAN: &str = "the body ran";

/// What is said of a test whose time is up.
const LATE: &str = "its timeout of 300ms";

/// No operation of prctl(2): by this, a victim tells the supervisor that the calls of its thread count from now on, or no longer.
const MARK: libc::c_int = 0x6a_61_72;

macro_rules! victims {
    ($($name:ident: $($test:ident)*;)*) => {
        $(
            #[body]
            fn $name() {
                mark();
                $($test();)*
            }
        )*
    };
}

victims! {
    runs_one: plain;
    runs_four: plain plain plain plain;
    runs_survivor: leaves_a_process;
    runs_limited: limited;
    runs_copy: copy;
    runs_range: range;
    runs_bytes: bytes;
    runs_hosts: hosts;
}

/// When the verdict is there, no body may run any more.
#[body]
fn runs_late() {
    mark();
    let verdict = catch_unwind(late);
    mark();
    let is_init = |pid: u32| fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"belljar-init\n");
    // One that was not born in time ends by itself.
    wait_until(|| !descendants(process::id()).into_iter().any(is_init));
    verdict.unwrap_or_else(|panic| resume_unwind(panic));
}

#[expect(unsafe_code, reason = "an operation that there is not")]
fn mark() {
    // SAFETY: the kernel refuses it.
    unsafe { libc::prctl(MARK) };
}

#[body]
#[isolated]
fn plain() {
    println!("{RAN}");
}

#[body]
#[isolated(timeout = "300ms")]
fn late() {
    // Longer than a run may take.
    thread::sleep(Duration::from_secs(1000));
    println!("{RAN}");
}

#[body]
#[isolated]
fn leaves_a_process() {
    #[expect(clippy::zombie_processes, reason = "it is to be left")]
    let _left = Command::new("sleep").arg("1000").spawn().expect("spawn");
    println!("{RAN}");
}

#[body]
#[isolated(memory = "64MiB", pids = 50, cpu = 1.0)]
fn limited() {
    println!("{RAN}");
}

#[body]
#[isolated(root = "overlay")]
fn copy() {
    println!("{RAN}");
}

#[body]
#[isolated(uids = 65536)]
fn range() {
    println!("{RAN}");
}

/// A function that `run` calls.
fn bytes() {
    static SPEC: Spec = spec!();
    let output = belljar::run(&SPEC, b"input", |input| Ok::<_, String>(input.repeat(2)));
    assert_eq!(output.unwrap_or_else(|failure| panic!("{failure}")), b"inputinput");
    println!("{RAN}");
}

/// Of their packets, the test binary has a record.
#[body]
#[isolated]
fn hosts() {
    let mut lab = Lab::new();
    let (one, other) = (lab.host("one"), lab.host("other"));
    let net = lab.up().expect("up");
    let socket = other.run(|| UdpSocket::bind("[::]:80")).expect("bind");
    one.run(|| UdpSocket::bind("[::]:0").and_then(|own| own.send_to(b"x", "other:80"))).expect("send");
    assert_eq!(socket.recv(&mut [0; 8]).expect("recv"), 1);
    drop(net);
    println!("{RAN}");
}

struct Victim {
    name: &'static str,
    /// Whose calls fail.
    roles: &'static [Role],
    /// How many bodies run to their end.
    bodies: usize,
    /// Whether an ordinary user can run it everywhere.
    is_ordinary: bool,
}

const BINARY: &[Role] = &[Role::Thread, Role::Binary];
const MAKERS: &[Role] = &[Role::Zygote, Role::Template, Role::Mapper];

const VICTIMS: &[Victim] = &[
    Victim { name: "runs_one", roles: MAKERS, bodies: 1, is_ordinary: true },
    Victim { name: "runs_four", roles: BINARY, bodies: 4, is_ordinary: true },
    Victim { name: "runs_late", roles: BINARY, bodies: 0, is_ordinary: true },
    Victim { name: "runs_survivor", roles: BINARY, bodies: 1, is_ordinary: true },
    Victim { name: "runs_limited", roles: BINARY, bodies: 1, is_ordinary: false },
    Victim { name: "runs_copy", roles: BINARY, bodies: 1, is_ordinary: true },
    Victim { name: "runs_range", roles: MAKERS, bodies: 1, is_ordinary: false },
    Victim { name: "runs_bytes", roles: BINARY, bodies: 1, is_ordinary: true },
    Victim { name: "runs_hosts", roles: BINARY, bodies: 1, is_ordinary: true },
];

// ---- A run in which one fails ----

/// What became known of a run.
struct Tried {
    /// `Err` if it hung, with what it wrote.
    run: Result<Run, String>,
    calls: Vec<Call>,
    /// Cgroups that it has made and left.
    cgroups: Vec<PathBuf>,
}

/// Runs a victim, with a fault.
fn run_with(victim: &Victim, runner: Option<&str>, fault: Option<Fault>) -> Tried {
    let mut command = this_binary();
    command.args(["--exact", "body", victim.name, "--show-output", "--test-threads=1"]);
    let (mut calls, mut counts, mut made, mut marks) = (Vec::new(), BTreeMap::new(), BTreeSet::new(), 0);
    let command = as_runner(runner, &command);
    let run = run_supervised(command, victim.name, Calls::AllBut(SAFE), |asked| {
        let Some(role) = asked.role else { return Answer::Made };
        if role == Role::Thread && (asked.number, asked.arguments[0]) == (libc::SYS_prctl, MARK as u64) {
            marks += 1;
            return Answer::Made;
        }
        if matches!(role, Role::Binary | Role::Thread) {
            if asked.number == MKDIR.0 {
                made.extend(asked.text(MKDIR.1).filter(|path| path.contains("/belljar-run-")).map(PathBuf::from));
            }
            let counts = if role == Role::Thread { marks == 1 } else { marks > 0 };
            // What the harness writes is its own.
            if !counts || asked.number == libc::SYS_write && asked.arguments[0] <= 2 {
                return Answer::Made;
            }
        }
        if !victim.roles.contains(&role) {
            return Answer::Made;
        }
        let count = counts.entry((role, asked.number)).or_insert(0_usize);
        let call = Call { role, number: asked.number, at: *count };
        *count += 1;
        calls.push(call);
        fault.filter(|(failing, _)| call == *failing).map_or(Answer::Made, |(_, answer)| answer)
    });
    // Another test binary locks what it is about to sweep.
    let is_left = |path: &PathBuf| {
        File::open(path).is_ok_and(|directory| Flock::lock(directory, FlockArg::LockExclusiveNonblock).is_ok())
    };
    let cgroups = made.into_iter().filter(is_left).collect();
    Tried { run, calls, cgroups }
}

// ---- What is to come of it ----

/// What tells of a failure besides its error, because whoever met it could not say more.
const NAMED: &[&str] = &[
    "the zygote of this test binary has been killed",
    "the process that makes sandboxes like it was killed",
    "the process that maps the ids was killed",
];

/// What is wrong with a run.
fn wrong(victim: &Victim, fault: Option<Fault>, tried: &Tried) -> Result<(), String> {
    let Tried { run, cgroups, .. } = tried;
    let run = run.as_ref().map_err(|output| format!("it hung: {output}"))?;
    let Run { status, output, left } = run;
    let fails = |why: String| Err(format!("{why}, {}: {output}", describe(*status)));
    if !left.is_empty() {
        return fails(format!("it left {left:?}"));
    }
    // Without memory, nobody can go on. Whoever comes next removes its cgroups.
    if output.contains("memory allocation of") && status.code().is_none() {
        return Ok(());
    }
    if !cgroups.is_empty() {
        return fails(format!("it left {cgroups:?}"));
    }
    if run.passed() {
        let has_run = victim.bodies > 0 && output.matches(RAN).count() == victim.bodies;
        return if has_run { Ok(()) } else { fails("it passed and has not run".to_owned()) };
    }
    if !run.failed() {
        return fails("it ended otherwise".to_owned());
    }
    if victim.bodies == 0 && output.contains(LATE) {
        return Ok(());
    }
    let error = match fault {
        Some((_, Answer::Fails(errno))) => format!("{errno:?} ("),
        _ => return fails("it failed".to_owned()),
    };
    let is_of_descriptors = matches!(fault, Some((_, Answer::Fails(EMFILE | ENFILE | ETOOMANYREFS))));
    if output.contains("no descriptors for its sandbox") && !is_of_descriptors {
        return fails("what was there is told to lack".to_owned());
    }
    // musl's allocator does not go on without mmap(2), so that the zygote has nothing to tell it with.
    let is_of_memory = matches!(fault, Some((Call { number: libc::SYS_mmap, .. }, Answer::Fails(ENOMEM))));
    let is_named = output.contains(&error)
        || NAMED.iter().any(|named| output.contains(named))
        || cfg!(target_env = "musl")
            && is_of_memory
            && output.contains("the zygote of this test binary was killed by SIGABRT");
    if is_named { Ok(()) } else { fails("nothing is named".to_owned()) }
}

/// Has those faults happen that `choose` picks, several at once.
fn check(choose: impl Fn(&Victim, Vec<Fault>) -> Vec<Fault>) {
    let mut tasks = Vec::new();
    for runner in runners() {
        let can_limit = runner.is_none() && must_limit() == Some(true);
        for victim in VICTIMS.iter().filter(|victim| victim.is_ordinary || can_limit) {
            let whole = run_with(victim, *runner, None);
            wrong(victim, None, &whole).unwrap_or_else(|why| panic!("{}, as {runner:?}: {why}", victim.name));
            let calls: BTreeSet<_> = whole.calls.iter().filter(|call| is_edge(call, &whole.calls)).collect();
            let unknown: BTreeSet<_> =
                calls.iter().map(|call| call.number).filter(|number| errors_of(*number).is_none()).collect();
            // Other processors have other calls besides.
            assert!(unknown.is_empty() || !cfg!(target_arch = "x86_64"), "the errors of {unknown:?} are not known");
            let faults = calls.into_iter().flat_map(|call| call.faults().map(|fault| (*call, fault))).collect();
            tasks.extend(choose(victim, faults).into_iter().map(|fault| (victim, *runner, fault)));
        }
    }
    let [next, met, wrongs] = [const { AtomicUsize::new(0) }; 3];
    let work = || {
        while let Some((victim, runner, fault)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let tried = run_with(victim, *runner, Some(*fault));
            // How often it is waited and read varies.
            met.fetch_add(usize::from(tried.calls.contains(&fault.0)), Ordering::Relaxed);
            if let Err(why) = wrong(victim, Some(*fault), &tried) {
                println!("{}, as {runner:?}, {fault:?}: {why}\n", victim.name);
                wrongs.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
    let (met, wrongs) = (met.into_inner(), wrongs.into_inner());
    println!("{met} of {} faults were met", tasks.len());
    assert!(met > 0 && wrongs == 0, "{wrongs} of {} are wrong", tasks.len());
}

#[test]
#[ignore = "takes a quarter of an hour; .ci/run leaves it out"]
fn all_failures_are_survived() {
    check(|_, faults| faults);
}

#[test]
fn failures_are_survived() {
    check(|_, faults| {
        let stride = faults.len().div_ceil(rounds(4)).max(1);
        faults.into_iter().step_by(stride).collect()
    });
}

/// After these, runs hung, ended by SIGABRT, or something went on.
const NOT_SURVIVED_ONCE: &[(&str, Role, c_long, Errno)] = &[
    ("runs_four", Role::Thread, libc::SYS_sendto, ENOMEM),
    ("runs_four", Role::Binary, POLL, ENOMEM),
    ("runs_four", Role::Binary, libc::SYS_shutdown, ENOMEM),
    ("runs_late", Role::Thread, POLL, ENOMEM),
    ("runs_limited", Role::Binary, libc::SYS_flock, EINTR),
    ("runs_range", Role::Template, libc::SYS_write, EINTR),
];

#[test]
fn what_was_not_survived_once_is() {
    check(|victim, faults| {
        let is_known = |(call, answer): &Fault| {
            let known = |(name, role, number, errno): &(&str, Role, c_long, Errno)| {
                *answer == Answer::Fails(*errno) && (*name, *role, *number) == (victim.name, call.role, call.number)
            };
            NOT_SURVIVED_ONCE.iter().any(known)
        };
        faults.into_iter().filter(is_known).collect()
    });
}

/// The twin: what is wrong is found.
#[test]
fn what_is_wrong_is_found() {
    let victim = &VICTIMS[0];
    let mut tried = run_with(victim, None, None);
    let mut is_wrong_after = |change: &dyn Fn(&mut Tried, &mut Run)| {
        let Ok(mut run) = mem::replace(&mut tried.run, Err("it hung".to_owned())) else { return true };
        assert!(wrong(victim, None, &tried).is_err());
        change(&mut tried, &mut run);
        tried.run = Ok(run);
        wrong(victim, None, &tried).is_err()
    };
    assert!(!is_wrong_after(&|_, _| {}));
    assert!(is_wrong_after(&|tried, _| tried.cgroups.push("belljar-run-0".into())));
    assert!(is_wrong_after(&|tried, run| {
        tried.cgroups.clear();
        run.left.insert(1);
    }));
    assert!(is_wrong_after(&|_, run| {
        run.left.clear();
        run.output = run.output.replace(RAN, "");
    }));
}
