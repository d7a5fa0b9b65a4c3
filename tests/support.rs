//! What the integration tests share: running one test of this very binary by itself, and looking at what it left.

use std::collections::BTreeSet;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

/// The environment variable by which processes are found that a run has left. Forks inherit it as bytes in memory, so
/// that not even `clearenv` removes it.
const MARK: &str = "BELLJAR_TESTS_MARK";

/// A run of a test binary that has ended.
pub struct Run {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub output: String,
    /// Processes that it left.
    pub left: BTreeSet<u32>,
}

impl Run {
    /// Whether the harness ran one test, and it passed.
    pub fn passed(&self) -> bool {
        self.status.success() && self.output.contains("test result: ok. 1 passed; 0 failed;")
    }

    /// Whether the harness ran one test, and it failed.
    pub fn failed(&self) -> bool {
        self.status.code() == Some(101) && self.output.contains("test result: FAILED. 0 passed; 1 failed;")
    }

    /// Kills what it left, by SIGKILL.
    pub fn kill_left(&self) {
        for pid in &self.left {
            let pid = nix::unistd::Pid::from_raw(*pid as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Runs the ignored test `name` of the running test binary, in a process of its own.
pub fn run_ignored(name: &str) -> Run {
    let mut command = this_binary();
    command.args(["--exact", name, "--ignored", "--show-output"]);
    run(&mut command)
}

/// The running test binary, to be started again.
pub fn this_binary() -> Command {
    let mut command = Command::new(env::current_exe().expect("the path of this binary"));
    command.env_remove("RUST_TEST_THREADS").env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Run {
    let mark = mark(command);
    // A file, and no pipe: what a run leaves may hold it open.
    let mut file = tempfile::tempfile().expect("a temporary file");
    command.stdout(file.try_clone().expect("dup")).stderr(file.try_clone().expect("dup"));
    let status = command.status().expect("the command runs");
    let left = marked(&mark);
    let mut output = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut output)).expect("read");
    Run { status, output: String::from_utf8_lossy(&output).into_owned(), left }
}

/// Marks the processes that `command` will start. [`marked`] finds those that are alive.
pub fn mark(command: &mut Command) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mark = format!("{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    command.env(MARK, &mark);
    mark
}

/// The processes that bear this mark, zombies aside.
pub fn marked(mark: &str) -> BTreeSet<u32> {
    let wanted = format!("{MARK}={mark}").into_bytes();
    let is_marked = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
    };
    processes().into_iter().filter(is_marked).collect()
}

/// All processes that `/proc` shows.
pub fn processes() -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// How a process ended, for messages.
pub fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("killed by signal {signal}"),
        None => format!("ended with status {:?}", status.code()),
    }
}
