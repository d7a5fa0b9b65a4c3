//! What a test binary has inherited from whoever starts it is odd: its number, its standard input, its directories, its `/proc`, and what the
//! C library says of it.
#![expect(unsafe_code, reason = "a clone")]

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::{env, io};

use belljar::isolated;
use belljar_tests::{Run, as_runner, body, descendants, mark, marked, run, runners, this_binary, wait_until};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, User, geteuid, getpid};

belljar_tests::bodies!();

/// This binary, which is to run these bodies.
fn binary(tests: &str) -> Command {
    let mut command = this_binary();
    command.args(["body", tests, "--exact", "--test-threads=1"]);
    command
}

/// The same, started by another program with these arguments, which makes namespaces. Who is not root is first made root of one.
fn started_by(program: &[&str], runner: Option<&str>, binary: &Command) -> Command {
    let runner = if geteuid().is_root() { as_runner(runner, binary) } else { as_runner(None, binary) };
    let mut command = Command::new("unshare");
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--mount", "--"])
        .args(program)
        .arg(runner.get_program())
        .args(runner.get_args())
        .stdin(Stdio::null());
    for (name, value) in runner.get_envs() {
        value.map(|value| command.env(name, value));
    }
    command
}

fn check(run: &Run, passed: usize) {
    assert!(run.output.contains(&format!("test result: ok. {passed} passed; 0 failed;")), "{}", run.output);
    assert!(run.left.is_empty(), "{:?}", run.left);
}

// ---- The first process of a pid namespace ----

#[body]
#[isolated]
fn first_1_has_a_sandbox() {}

/// Its child has the number of the test binary, and ends as that one will.
#[body]
fn first_2_has_a_child_of_its_number() {
    assert_eq!(getpid().as_raw(), 1);
    let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::SIGCHLD);
    let none = 0 as libc::c_long;
    let [first, second] = if cfg!(target_arch = "s390x") { [none, flags] } else { [flags, none] };
    // SAFETY: the harness waits for this test, and no other thread runs.
    let child =
        Errno::result(unsafe { libc::syscall(libc::SYS_clone, first, second, none, none, none) }).expect("clone");
    if child == 0 {
        process::exit(if process::id() == 1 { 7 } else { 1 });
    }
    let child = Pid::from_raw(child as libc::pid_t);
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 7)));
}

#[body]
#[isolated]
fn first_3_has_another() {}

/// Not prepared before.
#[body]
#[isolated(hostname = "other")]
fn first_4_has_another_kind() {}

#[test]
fn it_may_be_the_first_process() {
    for runner in runners() {
        let unshare = ["unshare", "--pid", "--fork", "--mount-proc"];
        check(&run(&mut started_by(&unshare, *runner, &binary("first_*"))), 4);
    }
}

// ---- Standard input ----

#[body]
#[isolated]
fn children_have_a_standard_input() {
    let mut readlink = Command::new("readlink");
    let output = readlink.arg("/proc/self/fd/0").stdin(Stdio::inherit()).output().expect("readlink");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "/dev/null");
}

#[test]
fn standard_input_may_be_closed() {
    for runner in runners() {
        for closed in ["", "<&-", "<&- 2>&-"] {
            let binary = as_runner(*runner, &binary("children_have*"));
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &format!("exec \"$0\" \"$@\" {closed}")])
                .arg(binary.get_program())
                .args(binary.get_args());
            check(&run(&mut shell), 1);
        }
    }
}

// ---- The home directory ----

/// The environment variable that says whether the home directory is this test's to write to.
const OWN: &str = "BELLJAR_TESTS_OWN_HOME";

fn looks_at_home() {
    let home = User::from_uid(geteuid()).expect("getpwuid").expect("this user").dir;
    let written = fs::write(home.join("file"), "");
    assert_eq!(written.is_ok(), env::var_os(OWN).is_some(), "{}: {written:?}", home.display());
}

#[body]
#[isolated]
fn home_of_root() {
    looks_at_home();
}

#[body]
#[isolated(user = 1000)]
fn home_of_another() {
    looks_at_home();
}

#[body]
#[isolated(uids = 65536, user = 1000)]
fn home_of_one_of_many() {
    looks_at_home();
}

#[test]
fn the_home_directory_may_be_odd() {
    let maps_all = fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.ends_with(" 4294967295\n"));
    let has_ids = geteuid().is_root() && maps_all;
    for runner in runners() {
        for (home, is_own) in [
            (Some("relative"), true),
            (Some(""), true),
            (None, true),
            (Some("/nonexistent/home"), true),
            (Some("/proc"), false),
            (Some("/dev/null"), false),
            (Some("/dev/null/home"), false),
            (Some("/usr"), false),
            (Some("/usr/lib/home"), false),
        ] {
            let mut binary = binary("home_of*");
            match home {
                Some(home) => binary.env("HOME", home),
                None => binary.env_remove("HOME"),
            };
            if is_own {
                binary.env(OWN, "1");
            }
            if runner.is_some() || !has_ids {
                binary.arg("--skip=*one_of_many");
            }
            check(&run(&mut as_runner(*runner, &binary)), if runner.is_some() || !has_ids { 2 } else { 3 });
        }
    }
}

// ---- The working directory ----

#[body]
#[isolated]
fn works_below_a_link() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR"));
    for path in [Path::new("file"), &package.join("file"), &Path::new(&env::var_os("PWD").expect("PWD")).join("file")] {
        assert_eq!(fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())), "here");
    }
    let shell = Command::new("sh").args(["-c", "pwd && cat \"$PWD/file\" ../package/file"]).output().expect("sh");
    let text = String::from_utf8_lossy(&shell.stdout);
    assert!(text.ends_with("/link/package\nherehere"), "{text}");
}

#[test]
fn the_working_directory_may_lie_below_a_link() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).expect("chmod");
    let place = |path: &str| directory.path().join(path);
    fs::create_dir_all(place("real/package")).expect("mkdir");
    fs::write(place("real/package/file"), "here").expect("write");
    symlink("real", place("link")).expect("symlink");
    for runner in runners() {
        let mut binary = as_runner(*runner, &binary("works_below_a_link"));
        let package = place("link/package");
        check(&run(binary.env("CARGO_MANIFEST_DIR", &package).env("PWD", &package).current_dir(&package)), 1);
    }
}

// ---- What /proc shows ----

#[body]
#[isolated]
fn shown_has_a_sandbox() {
    assert_eq!(fs::read_link("/proc/self").expect("/proc/self"), Path::new("2"));
}

#[body]
#[isolated(uids = 65536)]
fn shown_has_users() {
    assert_eq!(fs::read_to_string("/proc/self/uid_map").expect("uid_map").split_whitespace().nth(2), Some("65536"));
}

/// Its `/proc` is that of a pid namespace above.
#[test]
fn proc_may_show_more_processes() {
    for runner in runners() {
        let mut binary = binary("shown_*");
        let has_ids = geteuid().is_root() && runner.is_none();
        if !has_ids {
            binary.arg("--skip=*has_users");
        }
        check(&run(&mut started_by(&["unshare", "--pid", "--fork"], *runner, &binary)), 1 + usize::from(has_ids));
    }
}

/// Its `/proc` is that of a pid namespace in which it has no number.
#[test]
fn proc_may_show_others_processes() {
    if !geteuid().is_root() {
        return;
    }
    let unshare = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "1000"];
    let mut keeper = Command::new("unshare").args(unshare).spawn().expect("unshare");
    let sleeps = |pid: &u32| fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"sleep\n");
    let sleep = || descendants(keeper.id()).into_iter().find(sleeps);
    wait_until(|| sleep().is_some());
    let namespace = format!("--mount=/proc/{}/ns/mnt", sleep().expect("sleep"));
    let run_there = |runner: &Option<&str>| {
        let binary = as_runner(*runner, &binary("shown_has_a_sandbox"));
        let directory = env::current_dir().expect("a directory");
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(&namespace).arg(format!("--wdns={}", directory.display())).arg(binary.get_program());
        run(nsenter.args(binary.get_args()))
    };
    let runs: Vec<_> = runners().iter().map(run_there).collect();
    keeper.kill().and_then(|()| keeper.wait()).expect("kill");
    let cause = "cause:  the /proc here is that of a pid namespace in which the tests do not run";
    for Run { output, .. } in runs {
        assert!(output.contains("test result: FAILED. 0 passed; 1 failed;") && output.contains(cause), "{output}");
    }
}

// ---- What the C library says ----

/// What fakeroot(1) has programs believe, as far as it matters here.
const FAKE: &str = "
int getuid(void) { return 0; }
int geteuid(void) { return 0; }
int getgid(void) { return 0; }
int getegid(void) { return 0; }
";

#[body]
#[isolated]
fn faked_has_a_sandbox() {
    io::stdout().write_all(b"ran\n").expect("write");
}

/// A library that stands for that of fakeroot, by this name.
fn fake(directory: &Path, name: &str) -> PathBuf {
    fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("chmod");
    let [source, library] = ["fake.c", name].map(|name| directory.join(name));
    fs::write(&source, FAKE).expect("write");
    let bits = if cfg!(target_arch = "x86") { "-m32" } else { "-fPIC" };
    let compiled = Command::new("cc").args(["-shared", "-fPIC", bits, "-o"]).args([&library, &source]).status();
    assert!(compiled.expect("cc").success());
    library
}

#[test]
fn the_c_library_may_say_root() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let library = fake(directory.path(), "fake.so");
    for runner in runners() {
        let mut binary = as_runner(*runner, &binary("faked_*"));
        check(&run(binary.env("LD_PRELOAD", &library).env("FAKEROOTKEY", "1")), 1);
    }
}

/// Its library waits for a daemon that no sandbox has.
#[test]
fn fakeroot_is_named() {
    if cfg!(target_env = "musl") {
        // Nothing is loaded into static programs.
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let library = fake(directory.path(), "libfakeroot.so");
    for runner in runners() {
        let mut binary = as_runner(*runner, &binary("faked_*"));
        let run = run(binary.env("LD_PRELOAD", &library).env("FAKEROOTKEY", "1"));
        assert!(run.failed() && run.output.contains("cause:  fakeroot runs this program"), "{}", run.output);
    }
}

// ---- What runs it ----

/// Both answer some calls in the place of the kernel. A program that is linked statically loads nothing, so that fakeroot is not in its way.
#[test]
#[ignore = "takes valgrind and fakeroot: .ci/run installs them"]
fn what_is_in_the_way_is_named() {
    let fakeroot = (!cfg!(target_env = "musl")).then_some((["fakeroot", "--"], "cause:  fakeroot runs this program"));
    let valgrind = (["valgrind", "--quiet"], "cause:  valgrind runs this program");
    for runner in runners() {
        for ([program, option], cause) in fakeroot.into_iter().chain([valgrind]) {
            let binary = binary("faked_*");
            let mut command = Command::new(program);
            command.arg(option).arg(binary.get_program()).args(binary.get_args());
            let mut command = as_runner(*runner, &command);
            let mark = mark(&mut command);
            let run = run(&mut command);
            assert!(run.failed() && run.output.contains(cause), "{}", run.output);
            // fakeroot does not wait for the end of its daemon.
            wait_until(|| marked(&mark).is_empty());
        }
    }
}
