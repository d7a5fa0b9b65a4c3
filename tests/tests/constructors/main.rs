//! A test binary that is hard on the zygote: constructors before and behind belljar's start threads and change how signals are taken, and
//! the allocator takes much stack, and ends an init that uses it.
#![expect(unsafe_code, reason = "an allocator and constructors")]

// Before `belljar`, so that its constructor stands behind.
extern crate belljar_tests_behind;

mod signals;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_int;
use std::fs::{self, File, Permissions};
use std::hint::black_box;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use std::{env, mem, panic, ptr, thread};

use belljar::isolated;
use belljar_tests::{Run, as_runner, body, descendants, rounds, run, runners, this_binary, wait_until};
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::pipe;

belljar_tests::bodies!();

/// As much stack as jemalloc takes in a debug build when a thread begins, and more.
struct Greedy;

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Greedy {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        end_init();
        black_box([0_u8; 64 * 1024]);
        // SAFETY: the caller promises what is asked for here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        end_init();
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Ends this process if it is the init of a sandbox. What it was cloned from may have been about to allocate, in another thread, so that it
/// could wait for ever.
fn end_init() {
    // SAFETY: these are system calls.
    unsafe {
        if libc::getpid() == 1 {
            libc::_exit(99);
        }
    }
}

#[global_allocator]
static GREEDY: Greedy = Greedy;

// ---- The constructors ----

/// The environment variable that says what the constructors do: words, each a place and a deed.
const DEEDS: &str = "BELLJAR_TESTS_CONSTRUCTORS";

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE: extern "C" fn() = before;

extern "C" fn before() {
    let _ = belljar_tests_behind::RUN.set(behind);
    act("before");
}

fn behind() {
    if env::var(DEEDS).is_ok_and(|deeds| deeds.contains("behind:")) {
        // No variable of belljar's. Where belljar's constructor has looked before, it does no harm.
        // SAFETY: what other threads read of the environment goes by a lock.
        unsafe { env::set_var("BELLJAR_BEHIND", "1") };
        act("behind");
    }
}

fn act(place: &str) {
    let deeds = env::var(DEEDS).unwrap_or_default();
    let here = deeds.split(' ').filter_map(|deed| deed.strip_prefix(place)?.strip_prefix(':'));
    for deed in here {
        match deed {
            "allocates" => in_thread(|| {
                loop {
                    black_box(vec![1_u8; 5000]);
                    RUNS.store(true, Ordering::Relaxed);
                }
            }),
            "locks" => in_thread(|| {
                loop {
                    take_locks();
                    RUNS.store(true, Ordering::Relaxed);
                }
            }),
            "keeps-a-lock" => in_thread(keep_a_lock),
            "answers" => answer(),
            "ignores" => take(libc::SIGCHLD, libc::SIG_IGN),
            "handles" => HANDLED.into_iter().for_each(|signal| take(signal, handler())),
            other => panic!("{other}?"),
        }
    }
}

/// Whether the thread is at it, so that it is when the zygote is forked.
static RUNS: AtomicBool = AtomicBool::new(false);

fn in_thread(body: fn()) {
    thread::Builder::new().name("meddler".to_owned()).spawn(body).expect("a thread");
    while !RUNS.load(Ordering::Relaxed) {
        thread::yield_now();
    }
}

/// Takes each of the locks of the standard library that bodies take, and gives it back.
fn take_locks() {
    // SAFETY: what other threads read of the environment goes by a lock.
    unsafe { env::set_var("MEDDLED", "1") };
    drop(io::stdout().lock());
    drop(io::stderr().lock());
    panic::set_hook(panic::take_hook());
}

/// Keeps the lock of the environment for good, as one that reads it.
fn keep_a_lock() {
    let mut command = Command::new("true");
    let begin = || {
        RUNS.store(true, Ordering::Relaxed);
        belljar_tests::hang()
    };
    // SAFETY: for exec(3), this process is not forked.
    unsafe { command.pre_exec(begin) };
    let _ = command.exec();
}

/// Where a thread takes requests, if there is one.
static REQUESTS: OnceLock<Sender<Sender<()>>> = OnceLock::new();

/// Has a thread answer each request, as those of Go's runtime run what is called.
fn answer() {
    let (requests, received) = channel::<Sender<()>>();
    let answerer = thread::Builder::new().name("answerer".to_owned());
    let answers = move || received.iter().for_each(|asker| asker.send(()).expect("it waits"));
    answerer.spawn(answers).expect("a thread");
    let _ = REQUESTS.set(requests);
    // Then it has its name.
    ask();
}

fn ask() {
    let (asker, answer) = channel();
    REQUESTS.get().expect("a constructor has started it").send(asker).expect("send");
    answer.recv().expect("an answer");
}

/// The signals that a constructor handles.
const HANDLED: [c_int; 4] = [libc::SIGCHLD, libc::SIGUSR1, libc::SIGSEGV, libc::SIGBUS];

/// It is the same one for all that ask, also where the compiler would have a copy of it for each module.
#[inline(never)]
fn handler() -> libc::sighandler_t {
    extern "C" fn ignore(_: c_int) {}
    ignore as extern "C" fn(c_int) as libc::sighandler_t
}

/// Sets how this process takes a signal.
fn take(signal: c_int, handler: libc::sighandler_t) {
    // SAFETY: the handler does nothing.
    unsafe { libc::signal(signal, handler) };
}

/// How this process takes a signal.
fn taken(signal: c_int) -> libc::sighandler_t {
    // SAFETY: `sigaction` is integers and pointers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: `action` outlives the call.
    unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    action.sa_sigaction
}

/// Runs bodies of this binary, with constructors that do this.
fn run_with(deeds: &str, runner: Option<&str>, tests: &[&str], environment: &[(&str, &str)]) -> Run {
    // Nothing but this binary and what that starts has the environment.
    let mut command = Command::new("env");
    command.args(environment.iter().map(|(name, value)| format!("{name}={value}"))).arg(format!("{DEEDS}={deeds}"));
    command.arg(this_binary().get_program()).args(["--exact", "--test-threads=1", "body"]).args(tests);
    run(as_runner(runner, &command).env_remove("RUST_TEST_THREADS").env("RUST_BACKTRACE", "0"))
}

// ---- Threads ----

#[body]
#[isolated]
fn allocates() {
    black_box(vec![1_u8; 5000]);
}

#[body]
#[isolated]
fn allocates_too() {
    black_box(vec![1_u8; 5000]);
}

#[body]
#[isolated]
fn starts_a_thread() {
    let thread = thread::spawn(|| black_box(vec![1_u8; 5000]).len());
    assert_eq!(thread.join().expect("join"), 5000);
}

#[body]
#[isolated(env = ["ONE=1"])]
fn uses_locks() {
    take_locks();
    println!("printed");
    assert_eq!(env::var("ONE").as_deref(), Ok("1"));
    assert!(Command::new("true").status().expect("true").success());
    panic::catch_unwind(|| panic!("printed")).expect_err("it panics");
}

/// The tests that must pass beside threads of constructors.
const BODIES: [&str; 3] = ["allocates*", "starts_a_thread", "uses_locks"];

fn check_bodies(deeds: &str, runner: Option<&str>, environment: &[(&str, &str)]) {
    let run = run_with(deeds, runner, &BODIES, environment);
    assert!(
        run.output.contains("test result: ok. 4 passed; 0 failed;"),
        "{deeds} {environment:?} {:?}: {}",
        run.status,
        run.output
    );
    assert!(run.left.is_empty());
}

#[test]
fn each_run_ends() {
    for runner in runners() {
        for deeds in ["before:allocates", "behind:allocates", "before:locks", "behind:locks"] {
            for environment in [&[][..], &[("MALLOC_ARENA_MAX", "1")]] {
                (0..rounds(1)).for_each(|_| check_bodies(deeds, *runner, environment));
            }
        }
    }
}

/// The twin: what stands behind runs, and runs behind.
#[test]
fn constructors_behind_run() {
    let run = run_with("behind:no-deed", None, &BODIES, &[]);
    assert!(!run.status.success() && run.output.contains("no-deed?"), "{}", run.output);
    let run = run_with("", None, &BODIES, &[("BELLJAR_BEHIND", "1")]);
    assert!(run.output.contains("test result: FAILED. 0 passed; 4 failed;"), "{}", run.output);
}

#[test]
fn who_keeps_a_lock_is_named() {
    for runner in runners() {
        for deeds in ["before:keeps-a-lock", "behind:keeps-a-lock"] {
            let run = run_with(deeds, *runner, &["uses_locks"], &[]);
            assert!(run.failed(), "{}", run.output);
            for words in ["step:   fork the zygote", "error:  EDEADLK (", "the threads were `meddler`"] {
                assert!(run.output.contains(words), "{words}: {}", run.output);
            }
            assert!(run.left.is_empty());
        }
    }
}

#[body]
#[isolated(timeout = "300ms")]
fn asks_in_a_sandbox() {
    ask();
}

#[body]
fn asks_plainly() {
    ask();
}

#[body]
#[isolated(timeout = "300ms")]
fn sleeps() {
    thread::sleep(Duration::from_secs(1000));
}

#[test]
fn who_waits_for_a_thread_is_told() {
    const NOTE: &str = "it has none of the threads that were started before `main` (`answerer`)";
    for runner in runners() {
        for deeds in ["before:answers", "behind:answers"] {
            let run = run_with(deeds, *runner, &["asks_*"], &[]);
            assert!(run.output.contains("test asks_plainly ... ok"), "{}", run.output);
            assert!(run.output.contains("test asks_in_a_sandbox ... FAILED"), "{}", run.output);
            assert!(run.output.contains(NOTE), "{}", run.output);
        }
        let run = run_with("", *runner, &["sleeps"], &[]);
        assert!(run.failed() && !run.output.contains("before `main`"), "{}", run.output);
    }
}

/// A library whose static object starts a thread that allocates all the time.
const LIBRARY: &str = "
#include <thread>
#include <vector>
struct Runtime {
    std::thread thread;
    Runtime() : thread([] { for (;;) { std::vector<char> *bytes = new std::vector<char>(5000); delete bytes; } }) { thread.detach(); }
};
static Runtime runtime;
";

#[test]
fn runtimes_of_other_languages_have_threads() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).expect("chmod");
    let [source, library] = ["runtime.cpp", "runtime.so"].map(|name| directory.path().join(name));
    fs::write(&source, LIBRARY).expect("write");
    let compiler = Command::new("c++").args(["-shared", "-fPIC", "-pthread", "-o"]).args([&library, &source]).status();
    if compiler.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        || cfg!(not(target_pointer_width = "64"))
    {
        eprintln!("there is no C++ compiler for this target");
        return;
    }
    assert!(compiler.expect("c++").success());
    let library = library.to_str().expect("UTF-8");
    for runner in runners() {
        for deeds in ["", "behind:allocates"] {
            for environment in [&[("LD_PRELOAD", library)][..], &[("LD_PRELOAD", library), ("MALLOC_ARENA_MAX", "1")]] {
                (0..rounds(1)).for_each(|_| check_bodies(deeds, *runner, environment));
            }
        }
    }
}

/// In sandboxes of all kinds.
mod kinds {
    use belljar::isolated;
    use belljar_tests::body;

    #[body]
    #[isolated(net)]
    fn with_a_network() {}

    #[body]
    #[isolated(root = "overlay")]
    fn with_a_copy() {}

    #[body]
    #[isolated(time, boottime = "1h", hostname = "other")]
    fn with_clocks() {}

    #[body]
    #[isolated(user = 1000, bind = ["/etc/passwd"], env = ["A=b"], clear_env)]
    fn with_a_user_and_binds() {}

    #[body]
    #[isolated(tmpfs = "2MiB", pids = 100)]
    fn with_limits() {}

    #[body]
    #[isolated(uts)]
    fn with_the_hosts_tree() {}

    #[body]
    #[isolated]
    #[expect(clippy::zombie_processes, reason = "it is to be left")]
    fn with_survivors() {
        let _ = std::process::Command::new("sleep").arg("1000").spawn().expect("spawn");
    }
}

#[test]
fn init_allocates_nothing() {
    for deeds in ["", "before:allocates"] {
        let run = run_with(deeds, None, &["kinds::*"], &[]);
        assert!(run.output.contains("test result: ok. 7 passed; 0 failed;"), "{}", run.output);
    }
}

// ---- Whether there is a zygote ----

/// Whether this binary has a zygote, if it is started with this argument. It is looked at while it waits to print.
fn has_zygote(argument: &str) -> bool {
    let (_reader, writer) = pipe().expect("pipe");
    let size = fcntl(&writer, FcntlArg::F_GETPIPE_SZ).expect("fcntl");
    let mut full = File::from(writer);
    full.write_all(&vec![0; size.try_into().expect("a size")]).expect("write");
    let mut child = this_binary().arg(argument).stdout(full).spawn().expect("this binary");
    wait_until(|| {
        let call = fs::read_to_string(format!("/proc/{}/syscall", child.id())).expect("syscall");
        call.starts_with(&format!("{} 0x1 ", libc::SYS_write))
    });
    let found = !descendants(child.id()).is_empty();
    child.kill().and_then(|()| child.wait()).expect("kill");
    found
}

#[test]
fn where_no_test_runs_there_is_no_zygote() {
    assert!(!has_zygote("--list"));
    assert!(!has_zygote("--help"));
    // The twin.
    assert!(has_zygote("--quiet"));
}
