//! Debuggers stop in the bodies of isolated tests, and core dumps land where somebody finds them: the recipes of `docs/debugging.md`.
//!
//! This takes gdb, so that it is run by name. As root, the tests run as an ordinary user too.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, abort};
use std::thread::sleep;
use std::time::Duration;

use belljar::isolated;
use belljar_tests::{body, mark, marked, run, runners, this_binary};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

belljar_tests::bodies!();

/// Where gdb is to stop: the line of the second statement of `victim`.
const LINE: u32 = line!() + 6;

#[body]
#[isolated]
fn victim() {
    let answer = std::hint::black_box(42);
    assert_eq!(std::process::id(), 2, "{answer}");
}

#[body]
#[isolated]
fn victim_that_waits() {
    println!("waits");
    sleep(Duration::from_secs(1000));
}

#[body]
#[isolated]
fn crashes() {
    abort();
}

#[body]
#[isolated(net)]
fn crashes_in_the_hosts_tree() {
    abort();
}

#[body]
#[isolated(bind = [".:rw"])]
fn crashes_where_the_package_is_writable() {
    abort();
}

#[body]
#[isolated(root = "overlay")]
fn crashes_in_a_copy() {
    abort();
}

#[body]
#[isolated(root = "overlay", bind = [".:rw"])]
fn crashes_in_a_copy_with_the_package() {
    abort();
}

/// `program`, as whoever the tests are to run as.
fn program(program: &str, runner: Option<&str>) -> Command {
    let mut words = runner.into_iter().flat_map(|runner| runner.split(' ')).chain([program]);
    let mut command = Command::new(words.next().expect("a word"));
    command.args(words).stdin(Stdio::null());
    command
}

/// A directory that all users may write to.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debuggers").join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("mkdir");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("chmod");
    directory
}

fn binary() -> String {
    this_binary().get_program().to_str().expect("text").to_owned()
}

/// What gdb and the harness tell of `victim`, run by gdb with a breakpoint in its body.
fn debugged(runner: Option<&str>, settings: &[&str]) -> (String, String) {
    // Both write at once.
    let output = directory("gdb").join("output");
    let run_test = format!("run body victim --exact > {}", output.display());
    let stop = format!("break debuggers.rs:{LINE}");
    let commands = settings.iter().copied().chain([&*stop, &*run_test, "print answer", "continue"]);
    let mut gdb = program("gdb", runner);
    gdb.args(["-batch", "-nx"]).args(commands.flat_map(|command| ["-ex", command])).arg(binary());
    (run(&mut gdb).output, fs::read_to_string(output).expect("an output"))
}

#[test]
fn gdb_stops_in_a_body() {
    let passed = "test result: ok. 1 passed; 0 failed;";
    let stopped = |gdb: &str| gdb.contains("hit Breakpoint 1") && gdb.contains("$1 = 42");
    for runner in runners() {
        let (gdb, output) = debugged(*runner, &["set follow-fork-mode child"]);
        assert!(stopped(&gdb) && output.contains(passed), "{gdb}\n{output}");
        // gdb stays with the test binary, where the body does not run.
        let (gdb, output) = debugged(*runner, &[]);
        assert!(!stopped(&gdb) && output.contains(passed), "{gdb}\n{output}");
    }
}

/// Whether a process has a thread of this name, as far as the kernel keeps it.
fn has_thread(pid: u32, name: &str) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    names.any(|thread| thread.trim_end() == name)
}

#[test]
fn gdb_attaches_to_a_body() {
    for runner in runners() {
        let mut victim = program(&binary(), *runner);
        victim.args(["body", "victim_that_waits", "--exact", "--nocapture"]).stdout(Stdio::piped());
        let mark = mark(&mut victim);
        let mut victim = victim.stderr(Stdio::null()).spawn().expect("this binary");
        let mut lines = BufReader::new(victim.stdout.take().expect("a pipe")).lines();
        assert!(lines.any(|line| line.expect("a line") == "waits"));
        let is_body = |pid: &u32| *pid != victim.id() && has_thread(*pid, "victim_that_wai");
        let body = marked(&mark).into_iter().find(is_body).expect("a body");
        let mut gdb = program("gdb", *runner);
        gdb.args(["-batch", "-nx", "-ex", "thread apply all backtrace", &binary(), "-p", &body.to_string()]);
        let told = run(&mut gdb).output;
        victim.kill().and_then(|()| victim.wait()).expect("its end");
        assert!(told.contains("debuggers::victim_that_waits::victim_that_waits ()"), "{told}");
    }
}

/// The core dumps that a test leaves in its package, and what is told of it.
fn cores(runner: Option<&str>, test: &str) -> (usize, String) {
    let package = directory("crash");
    let mut command = program(&binary(), runner);
    command.args(["--exact", "body", test]).current_dir(&package).env("CARGO_MANIFEST_DIR", &package);
    let told = run(&mut command).output;
    let is_core = |path: &Path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
    (fs::read_dir(&package).expect("entries").flatten().filter(|entry| is_core(&entry.path())).count(), told)
}

#[test]
#[ignore = "takes a kernel.core_pattern that is a plain name"]
fn core_dumps_land_in_a_package_that_is_writable() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a pattern");
    assert!(!pattern.starts_with(['|', '/', '@']), "{pattern}");
    let (_, most) = getrlimit(Resource::RLIMIT_CORE).expect("getrlimit");
    assert_eq!(most, RLIM_INFINITY);
    setrlimit(Resource::RLIMIT_CORE, most, most).expect("setrlimit");
    for runner in runners() {
        for (test, count, is_dumped) in [
            ("crashes", 0, false),
            ("crashes_where_the_package_is_writable", 1, true),
            ("crashes_in_the_hosts_tree", 1, true),
            ("crashes_in_a_copy", 0, true),
            ("crashes_in_a_copy_with_the_package", 1, true),
        ] {
            let (cores, told) = cores(*runner, test);
            assert_eq!((cores, told.contains("(core dumped)")), (count, is_dumped), "{runner:?} {test}: {told}");
        }
    }
}
