//! Each system call that the set-up makes fails, with each error that it may give: the test fails and names the step, the error, and the
//! path, or it runs in the very sandbox that it would have had. Nothing is left behind.
//!
//! The [supervisor](belljar_tests::supervisor) counts these calls of a victim, and has one of them fail.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_long;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

use belljar::isolated;
use belljar_tests::supervisor::{Answer, Calls, Role, run_supervised};
use belljar_tests::{Run, body, this_binary};
use nix::errno::Errno;
use nix::errno::Errno::*;
use nix::unistd::{gethostname, getpgrp, getpid, getsid};

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

// ---- The calls ----

/// A system call of the set-up.
struct Kind {
    number: c_long,
    name: &'static str,
    /// Who makes it for the set-up.
    roles: &'static [Role],
    /// Which of its arguments is the path that it is about.
    path: Option<usize>,
    errors: &'static [Errno],
    /// Words of the steps that do it. Without any, all will do.
    steps: &'static [&'static str],
}

const fn kind(
    (number, name): (c_long, &'static str),
    roles: &'static [Role],
    path: Option<usize>,
    errors: &'static [Errno],
    steps: &'static [&'static str],
) -> Kind {
    Kind { number, name, roles, path, errors, steps }
}

#[cfg(target_arch = "x86_64")]
const MKDIR: ((c_long, &str), usize) = ((libc::SYS_mkdir, "mkdir"), 0);
#[cfg(not(target_arch = "x86_64"))]
const MKDIR: ((c_long, &str), usize) = ((libc::SYS_mkdirat, "mkdirat"), 1);
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
const POLL: (c_long, &str) = (libc::SYS_ppoll, "ppoll");
#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
const POLL: (c_long, &str) = (libc::SYS_poll, "poll");
#[cfg(target_arch = "x86_64")]
const DUP: (c_long, &str) = (libc::SYS_dup2, "dup2");
#[cfg(not(target_arch = "x86_64"))]
const DUP: (c_long, &str) = (libc::SYS_dup3, "dup3");

const INIT: &[Role] = &[Role::Init];
const TEST: &[Role] = &[Role::Test];
const MAKERS: &[Role] = &[Role::Template, Role::Init];
const ALL: &[Role] = &[Role::Zygote, Role::Template, Role::Init];
const BINARY: &[Role] = &[Role::Binary];

const ZYGOTE_IS_PREPARED: &str = "prepare the zygote";
const PROC_IS_MOUNTED: &str = "mount a file system in the sandbox: /proc";
const ROOT_IS_MADE: &str = "make the new root the root";
const STARTS_THREAD: &str = "start the thread";

const OPEN_ERRORS: &[Errno] = &[EMFILE, ENFILE, ENOMEM, EACCES, ENOENT, ENOSPC];

const KINDS: &[Kind] = &[
    kind(
        (libc::SYS_clone, "clone"),
        &[Role::Binary, Role::Zygote, Role::Template, Role::Init, Role::Test],
        None,
        &[EAGAIN, ENOMEM, EPERM, ENOSPC, ENOSYS],
        &["fork the zygote", "make the user and mount namespaces", "clone init", "fork the test", STARTS_THREAD],
    ),
    kind((libc::SYS_clone3, "clone3"), TEST, None, &[EAGAIN, ENOMEM], &[STARTS_THREAD]),
    #[cfg(all(target_arch = "x86_64", target_env = "musl"))]
    kind((libc::SYS_fork, "fork"), INIT, None, &[EAGAIN, ENOMEM, EPERM, ENOSYS], &["fork the test"]),
    #[cfg(all(target_arch = "x86_64", target_env = "musl"))]
    kind((libc::SYS_open, "open"), ALL, Some(0), OPEN_ERRORS, &[]),
    kind((libc::SYS_socketpair, "socketpair"), BINARY, None, &[EMFILE, ENFILE, ENOMEM], &["fork the zygote"]),
    kind(
        (libc::SYS_setpgid, "setpgid"),
        &[Role::Zygote, Role::Test],
        None,
        &[EPERM, EACCES],
        &[ZYGOTE_IS_PREPARED, "prepare the test's process"],
    ),
    kind((libc::SYS_prctl, "prctl"), ALL, None, &[EPERM, EINVAL], &[ZYGOTE_IS_PREPARED, "begin a session"]),
    kind(
        (libc::SYS_pidfd_open, "pidfd_open"),
        ALL,
        None,
        &[EMFILE, ENOMEM, EPERM, ENOSYS],
        &[ZYGOTE_IS_PREPARED, "send a descriptor of init to the test binary"],
    ),
    kind(DUP, ALL, None, &[EBADF, EMFILE], &[ZYGOTE_IS_PREPARED, "put the standard streams"]),
    kind((libc::SYS_fcntl, "fcntl"), INIT, None, &[EMFILE, EINVAL], &["put the standard streams"]),
    kind(
        (libc::SYS_close_range, "close_range"),
        ALL,
        None,
        &[EPERM, EACCES, ENOSYS, ENOMEM],
        &[ZYGOTE_IS_PREPARED, "put the standard streams"],
    ),
    kind((libc::SYS_setsid, "setsid"), INIT, None, &[EPERM], &["begin a session"]),
    kind(POLL, INIT, None, &[ENOMEM], &["begin a session"]),
    kind(
        (libc::SYS_prlimit64, "prlimit64"),
        INIT,
        None,
        &[EPERM, EINVAL],
        &["limit processes", "put the standard streams"],
    ),
    kind((libc::SYS_openat, "openat"), ALL, Some(1), OPEN_ERRORS, &[]),
    kind(
        (libc::SYS_write, "write"),
        MAKERS,
        None,
        &[EPERM, EINVAL, ENOSPC, EIO],
        &["map the ids", "join the cgroup", "write a file", "set its clocks"],
    ),
    kind(
        (libc::SYS_unshare, "unshare"),
        &[Role::Init, Role::Test],
        None,
        &[EPERM, ENOSPC, ENOMEM, EINVAL, ENOSYS],
        &["enter new mount, network", "time namespace", "become the user"],
    ),
    kind(
        (libc::SYS_keyctl, "keyctl"),
        ALL,
        None,
        &[EDQUOT, ENOMEM, EPERM, ENOSYS],
        &["begin an empty session keyring"],
    ),
    kind((libc::SYS_sethostname, "sethostname"), INIT, None, &[EPERM, EINVAL], &["set the host name"]),
    kind(
        (libc::SYS_socket, "socket"),
        INIT,
        None,
        &[EMFILE, ENOMEM, EPERM, EAFNOSUPPORT],
        &["bring up the interface lo"],
    ),
    kind((libc::SYS_ioctl, "ioctl"), INIT, None, &[EPERM, ENODEV], &["bring up the interface lo"]),
    kind(
        (libc::SYS_mount, "mount"),
        MAKERS,
        Some(1),
        &[EPERM, EACCES, ENOMEM, EINVAL, EBUSY, ENODEV, ENOENT, ENOSPC],
        &["make the mount table private", "mount a", "show a path", "read-only", "lay a private copy"],
    ),
    kind(
        (libc::SYS_mount_setattr, "mount_setattr"),
        MAKERS,
        Some(1),
        &[EPERM, ENOSYS, EACCES, EINVAL, ENOMEM],
        &["read-only", PROC_IS_MOUNTED],
    ),
    kind(
        (libc::SYS_open_tree, "open_tree"),
        INIT,
        None,
        &[EPERM, ENOSYS, EMFILE, ENOMEM],
        &["show a path", "lay a private copy"],
    ),
    kind((libc::SYS_move_mount, "move_mount"), INIT, Some(3), &[EPERM, ENOSYS, EINVAL, ENOMEM], &["show a path"]),
    kind((libc::SYS_umount2, "umount2"), INIT, None, &[EPERM, EINVAL, EBUSY], &[ROOT_IS_MADE]),
    kind((libc::SYS_pivot_root, "pivot_root"), MAKERS, None, &[EPERM, EACCES, EINVAL, EBUSY], &[ROOT_IS_MADE]),
    kind(
        (libc::SYS_chdir, "chdir"),
        MAKERS,
        Some(0),
        &[EACCES, ENOMEM, ENOENT],
        &["mount a tmpfs for the root", "enter the working directory", ZYGOTE_IS_PREPARED, PROC_IS_MOUNTED],
    ),
    kind(
        (libc::SYS_chroot, "chroot"),
        MAKERS,
        None,
        &[EPERM, EACCES],
        &["mount a tmpfs for the root", ZYGOTE_IS_PREPARED],
    ),
    kind((libc::SYS_fchdir, "fchdir"), &[Role::Template], None, &[EACCES], &[ZYGOTE_IS_PREPARED, PROC_IS_MOUNTED]),
    kind(
        MKDIR.0,
        MAKERS,
        Some(MKDIR.1),
        &[EACCES, ENOSPC, EROFS, EEXIST, ENOENT],
        &["make a directory", "mount a tmpfs for the root", "lay a private copy", PROC_IS_MOUNTED],
    ),
    kind((libc::SYS_symlinkat, "symlinkat"), INIT, Some(2), &[EPERM, EACCES, ENOSPC, EROFS], &["make a symbolic link"]),
    kind((libc::SYS_mknodat, "mknodat"), INIT, Some(1), &[EPERM, EACCES, ENOSPC, EROFS], &["write a file"]),
    kind((libc::SYS_capset, "capset"), TEST, None, &[EPERM], &["become the user"]),
    kind((libc::SYS_madvise, "madvise"), BINARY, None, &[EINVAL, ENOMEM], &["fork the zygote"]),
    kind(
        (libc::SYS_sendmsg, "sendmsg"),
        INIT,
        None,
        &[ENOBUFS, ENOMEM, EPERM],
        &["send a descriptor of init to the test binary", "lay a private copy"],
    ),
    kind((libc::SYS_recvfrom, "recvfrom"), TEST, None, &[ENOMEM, EPERM], &["prepare the test's process"]),
];

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    role: Role,
    number: c_long,
    /// How many of this number the same process has made before.
    at: usize,
    path: Option<String>,
    /// What is mounted there.
    source: Option<String>,
}

impl Call {
    /// Whether both are the same call, made in two runs: processes have other numbers in each.
    fn is_same(&self, other: &Self) -> bool {
        let numbered = |path: &String| {
            let below =
                path.strip_prefix("/proc/").filter(|below| below.starts_with(|first: char| first.is_ascii_digit()));
            below.map_or_else(
                || path.clone(),
                |below| below.trim_start_matches(|digit: char| digit.is_ascii_digit()).into(),
            )
        };
        let [own, others] = [self, other].map(|call| call.path.as_ref().map(numbered));
        (self.role, self.number, self.at, &self.source, own)
            == (other.role, other.number, other.at, &other.source, others)
    }

    fn kind(&self) -> &'static Kind {
        KINDS.iter().find(|kind| kind.number == self.number).expect("one of ours")
    }
}

/// Runs a victim, one of whose calls fails. Returns how that went, and the calls of its set-up.
fn run_with(victim: &str, failing: Option<(&Call, Errno)>) -> (Run, Vec<Call>) {
    let mut command = this_binary();
    command.args(["--exact", "body", victim, "--ignored", "--show-output", "--test-threads=1"]);
    let numbers: Vec<_> = KINDS.iter().map(|kind| kind.number).collect();
    let (mut calls, mut counts) = (Vec::new(), BTreeMap::new());
    let run = run_supervised(command, victim, Calls::These(&numbers), |asked| {
        let kind = KINDS.iter().find(|kind| kind.number == asked.number).expect("one of ours");
        let Some(role) = asked.role.filter(|role| kind.roles.contains(role)) else { return Answer::Made };
        let count = counts.entry((role, asked.number)).or_insert(0_usize);
        *count += 1;
        let path = kind.path.and_then(|argument| asked.text(argument));
        let source = (asked.number == libc::SYS_mount).then(|| asked.text(0)).flatten();
        let call = Call { role, number: asked.number, at: *count - 1, path, source };
        let errno = failing.filter(|(failing, _)| call.is_same(failing)).map(|(_, errno)| errno);
        calls.push(call);
        errno.map_or(Answer::Made, Answer::Fails)
    });
    (run.unwrap_or_else(|output| panic!("{victim} hangs when this fails: {failing:?}\n{output}")), calls)
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

/// Has `calls` of a victim fail, each with one of the errors that `choose` picks, several at once.
fn check_all(victim: &str, choose: impl Fn(&[Call]) -> Vec<(Call, Errno)>) {
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
}

#[test]
#[ignore = "takes a minute; .ci/run runs it"]
fn all_calls_that_fail_are_named() {
    check_all("victim", |calls| {
        calls.iter().flat_map(|call| call.kind().errors.iter().map(|errno| (call.clone(), *errno))).collect()
    });
    all_with_one_error("victim_with_the_hosts_tree");
    all_with_one_error("victim_that_is_nobody");
    all_with_one_error("victim_with_a_copy");
}

fn all_with_one_error(victim: &str) {
    check_all(victim, |calls| {
        calls.iter().enumerate().map(with_one_error).filter(|chosen| is_told(victim, chosen)).collect()
    });
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
        command.args(["--exact", "body", "victim", "--ignored", "--show-output", "--test-threads=1"]);
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
