//! Where the cgroups of tests are, and what tests may do with them.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, process};

use belljar::isolated;
use belljar_tests::{MIB, allocate, body, fork, run, run_body, this_binary};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, geteuid};

use crate::is_limited;
use crate::parent::Parent;

/// By version 2 it is this test's to divide; by version 1 it may only be looked at, as its limits could be changed there.
#[body]
#[isolated(memory = "64MiB", pids = 32)]
fn looks_at_its_cgroup() {
    let own = fs::read_to_string("/proc/self/cgroup").expect("cgroup");
    assert!(own.lines().all(|line| line.ends_with(":/")), "{own}");
    let read = |file: &str| fs::read_to_string(Path::new("/sys/fs/cgroup").join(file)).expect(file);
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert_eq!(read("memory/cgroup.procs"), "1\n2\n");
        assert_eq!(read("memory/memory.limit_in_bytes"), format!("{}\n", 64 * MIB));
        assert_eq!((read("pids/cgroup.procs"), read("pids/pids.max")), ("1\n2\n".into(), "33\n".into()));
        let refused =
            fs::write("/sys/fs/cgroup/pids/pids.max", "100").and_then(|()| fs::create_dir("/sys/fs/cgroup/pids/x"));
        assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::ReadOnlyFilesystem));
        let refused = fs::write("/sys/fs/cgroup/file", "").map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::ReadOnlyFilesystem));
        let mounted = fs::read_dir("/sys/fs/cgroup").expect("read_dir").count();
        assert_eq!(mounted, 2, "those that the test has joined");
        return;
    }
    assert_eq!(read("cgroup.procs"), "1\n2\n");
    assert_eq!(read("memory.max"), format!("{}\n", 64 * MIB));
    fs::create_dir("/sys/fs/cgroup/below").expect("create_dir");
    let mut child = Command::new("sleep").arg("1000").spawn().expect("spawn");
    fs::write("/sys/fs/cgroup/below/cgroup.procs", child.id().to_string()).expect("write");
    assert_eq!(read("below/cgroup.procs"), format!("{}\n", child.id()));
    child.kill().and_then(|()| child.wait()).expect("kill");
    // It is left, with the sandbox's own.
}

/// What a test does to a cgroup of its own says nothing of its own limit.
#[body]
#[isolated(memory = "64MiB", pids = 100)]
fn kills_a_child_by_a_limit_of_its_own() {
    let own = Path::new("/sys/fs/cgroup");
    if !own.join("cgroup.controllers").exists() {
        return;
    }
    let set = |path: &str, value: &str| fs::write(own.join(path), value).expect(path);
    fs::create_dir(own.join("rest")).expect("create_dir");
    set("rest/cgroup.procs", "1");
    set("rest/cgroup.procs", "2");
    set("cgroup.subtree_control", "+memory");
    fs::create_dir(own.join("child")).expect("create_dir");
    set("child/memory.max", "4194304");
    match fork() {
        ForkResult::Child => {
            set("child/cgroup.procs", "0");
            allocate(8);
            process::abort();
        }
        ForkResult::Parent { child } => {
            let end = waitpid(child, None).expect("waitpid");
            let killed = WaitStatus::Signaled(child, Signal::SIGKILL, false);
            assert_eq!(end, killed);
        }
    }
}

#[test]
fn a_sandbox_sees_its_own_cgroup() {
    for name in ["cgroups::looks_at_its_cgroup", "cgroups::kills_a_child_by_a_limit_of_its_own"] {
        let run = run_body(name);
        if is_limited(&run) {
            assert!(run.passed() && !run.output.contains("out of memory"), "{}", run.output);
        }
    }
}

/// A cgroup with somebody else's process is left alone, and the process is named.
#[test]
fn a_cgroup_of_others_is_not_divided() {
    let Some(parent) = Parent::new("others") else { return };
    let [directory] = &parent.directories[..] else { return };
    let mut other = Command::new("sleep").arg("1000").spawn().expect("spawn");
    let procs = directory.join("cgroup.procs");
    fs::write(&procs, other.id().to_string()).expect("write");
    let mut command = this_binary();
    command.args(["--exact", "body", "has_all_limits"]);
    parent.use_it(&mut command);
    let run = run(&mut command);
    let still_there = fs::read_to_string(&procs).expect("cgroup.procs");
    other.kill().and_then(|()| other.wait()).expect("kill");
    assert_eq!(still_there, format!("{}\n", other.id()));
    assert!(run.failed() && run.output.contains("processes that are not of this test run (`sleep`)"), "{}", run.output);
    assert!(run.output.contains("BELLJAR_CGROUP names a cgroup that others use"), "{}", run.output);
    assert_eq!(parent.below(), [""; 0].map(PathBuf::from));
}

/// The cgroups are found whatever else is mounted somewhere.
#[test]
fn mount_points_may_have_odd_names() {
    if !geteuid().is_root() {
        println!("not tried: it takes root");
        return;
    }
    let directory = tempfile::tempdir().expect("tempdir");
    let point = directory.path().join(OsStr::from_bytes(b"Z\xfcrich"));
    fs::create_dir(&point).expect("create_dir");
    let script = "mount -t tmpfs tmpfs \"$POINT\" && exec \"$0\" \"$@\"";
    for body in ["has_all_limits", "processes::forks_too_often"] {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script]).arg(this_binary().get_program());
        let run = run(command.args(["--exact", "body", body]).env("POINT", &point));
        if is_limited(&run) {
            assert!(run.passed(), "{}", run.output);
        }
    }
}

/// What somebody has given to the cgroups below stays theirs, whether the tests can have limits there or not.
#[test]
fn controllers_that_were_on_before_stay_on() {
    let Some(parent) = Parent::new("on") else { return };
    let [directory] = &parent.directories[..] else { return };
    let control = directory.join("cgroup.subtree_control");
    if !control.exists() {
        println!("not tried: cgroups are of version 1");
        return;
    }
    fs::write(&control, "+pids").expect("write");
    let run = |script: &str, body: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(this_binary().get_program()).args(["--exact", "body", body]);
        let run = run(command.env("PARENT", directory).env("BELLJAR_CGROUP", &parent.path));
        let on = fs::read_to_string(&control).expect("cgroup.subtree_control");
        assert!(on.contains("pids"), "{on}");
        assert_eq!(parent.below(), [""; 0].map(PathBuf::from));
        run
    };
    let beside = run("exec \"$0\" \"$@\"", "has_all_limits");
    assert!(beside.passed(), "{}", beside.output);
    // Others would keep processes out.
    fs::write(&control, "-memory -cpu").expect("write");
    let script = "echo $$ > \"$PARENT/cgroup.procs\" && unset BELLJAR_CGROUP && exec \"$0\" \"$@\"";
    let unlimited = run(script, "memory::allocates_without_a_limit");
    assert!(unlimited.passed(), "{}", unlimited.output);
}

/// systemd ends some units when the kernel kills a process in them because memory is used up, and would end the run. Here a
/// `systemctl` answers for it, which says what it is told to say, or fails. `lab/units` has the true one.
#[test]
fn no_test_ends_the_unit_that_the_tests_run_in() {
    let Some(parent) = Parent::new("x.scope") else { return };
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return;
    }
    let programs = tempfile::tempdir().expect("tempdir");
    let systemctl = programs.path().join("systemctl");
    fs::write(&systemctl, "#!/bin/sh\n[ -n \"${POLICY+set}\" ] && echo \"$POLICY\"\n").expect("write");
    fs::set_permissions(&systemctl, Permissions::from_mode(0o755)).expect("set_permissions");
    let path = format!("{}:{}", programs.path().display(), env::var("PATH").expect("PATH"));
    for (policy, ends) in
        [(Some("stop"), true), (Some("kill"), true), (None, true), (Some("continue"), false), (Some(""), false)]
    {
        let mut command = this_binary();
        command.args(["--exact", "body", "memory::allocates_too_much"]).env("PATH", &path);
        command.envs(policy.map(|policy| ("POLICY", policy)));
        parent.use_it(&mut command);
        let run = run(&mut command);
        assert!(run.failed(), "{}", run.output);
        let shown = format!("-x.scope is {}", policy.unwrap_or("stop"));
        assert_eq!(run.output.contains(&shown) && run.output.contains("-p Delegate=yes"), ends, "{}", run.output);
        assert_eq!(run.output.contains("killed: out of memory"), !ends, "{}", run.output);
    }
    // Other limits kill nobody.
    let mut command = this_binary();
    command.args(["--exact", "body", "processes::forks_too_often"]).env("PATH", &path).env("POLICY", "stop");
    parent.use_it(&mut command);
    let run = run(&mut command);
    assert!(run.passed(), "{}", run.output);
}

/// One of several hierarchies can't be had: the test does not run, and what was made in the others is removed.
#[test]
fn a_cgroup_that_is_there_in_part_is_none() {
    let Some(parent) = Parent::new("part") else { return };
    let Some(missing) = parent.directories.get(1) else { return };
    fs::remove_dir(missing).expect("remove_dir");
    let mut command = this_binary();
    command.args(["--exact", "body", "has_all_limits"]);
    parent.use_it(&mut command);
    let run = run(&mut command);
    fs::create_dir(missing).expect("create_dir");
    assert!(run.failed() && run.output.contains(&missing.display().to_string()), "{}", run.output);
    assert!(parent.below().is_empty());
}

/// What the tests run in may have less than a test asks for at most.
#[test]
fn a_stricter_cgroup_above_is_no_obstacle() {
    let Some(parent) = Parent::new("strict") else { return };
    let set = |file: &str, value: &str| {
        let files = parent.directories.iter().map(|directory| directory.join(file)).filter(|file| file.exists());
        files.map(|file| fs::write(file, value).expect("write")).count()
    };
    assert!(set("cpu.max", "20000 100000") + set("cpu.cfs_quota_us", "20000") > 0);
    let mut command = this_binary();
    command.args(["--exact", "body", "has_all_limits"]);
    parent.use_it(&mut command);
    let run = run(&mut command);
    assert!(run.passed(), "{}", run.output);
}

/// Whoever names a cgroup means it.
#[test]
fn a_cgroup_that_is_not_there_is_named() {
    for name in ["memory::allocates_without_a_limit", "processes::forks_almost_too_often"] {
        for cgroup in ["/belljar-tests/nothing", "..", "/belljar-tests/../.."] {
            let mut command = this_binary();
            command.args(["--exact", "body", name]).env("BELLJAR_CGROUP", cgroup);
            let run = run(&mut command);
            assert!(run.failed(), "{}", run.output);
            let shown = Path::new("/").join(cgroup);
            assert!(run.output.contains(&format!("BELLJAR_CGROUP is `{}`", shown.display())), "{}", run.output);
        }
    }
}
