//! What the integration tests share: running one test of this very binary by itself, and looking at what it left.

mod bodies;
pub mod supervisor;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_int, c_long};
use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, hint, iter, mem, process, thread};

use nix::errno::Errno;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::prctl::set_no_new_privs;
use nix::unistd::{ForkResult, geteuid, pause};

pub use bodies::{BODIES, Body, body, run_bodies};
#[doc(hidden)]
pub use linkme;

/// 1 MiB, in bytes.
pub const MIB: usize = 1 << 20;

/// The environment variable by which processes are found that a run has left. Forks inherit it as bytes in memory, so
/// that not even `clearenv` removes it.
pub const MARK: &str = "BELLJAR_TESTS_MARK";

/// A program that runs test binaries as an ordinary user.
const ORDINARY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

/// Whom the tests can run as: who runs this, and if that is root, an ordinary user.
pub fn runners() -> &'static [Option<&'static str>] {
    if geteuid().is_root() { &[None, Some(ORDINARY)] } else { &[None] }
}

/// Whether this is the machine's own root, and not one of a user namespace's.
pub fn is_real_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").expect("uid_map");
    geteuid().is_root() && map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

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

/// Runs this body in a process of its own: see [`body`](macro@body).
pub fn run_body(name: &str) -> Run {
    run(&mut body_command(name))
}

/// What [`run_body`] runs.
pub fn body_command(name: &str) -> Command {
    let mut command = this_binary();
    command.args(["--exact", "body", name, "--show-output"]);
    command
}

/// The same, in a process that is asked for one test by its name, as nextest asks.
pub fn lone_body_command(name: &str) -> Command {
    let mut command = this_binary();
    command.args(["--exact", "body", "--show-output"]).env(bodies::BODY, name);
    command
}

/// Runs `command`, in which a body hangs that has no timeout of its own. A timeout can't wait for what the body does before. So this
/// begins again with a timeout twice as long, until the output shows that it `has_come`.
pub fn run_hanging(command: &mut Command, has_come: impl Fn(&str) -> bool) -> Run {
    let mut seconds = 1;
    loop {
        let run = run(command.env("BELLJAR_TIMEOUT", format!("{seconds}s")));
        if has_come(&run.output) || seconds >= 64 {
            return run;
        }
        seconds *= 2;
    }
}

/// Runs `command` until all its tests have begun. A timeout runs from the moment when a sandbox is asked for: on a busy machine, a short one may
/// be up before there is a sandbox. That shows nothing.
pub fn run_begun(command: &mut Command) -> Run {
    let mut runs = iter::repeat_with(|| run(command)).take(100);
    runs.find(|run| !run.output.contains("did not begin")).expect("one of a hundred begins in time")
}

/// The running test binary, to be started again.
pub fn this_binary() -> Command {
    binary_at(&env::current_exe().expect("the path of this binary"))
}

/// A copy of the running test binary, to be started.
pub fn binary_at(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_remove("RUST_TEST_THREADS").env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    // By these, remedies would be those of a cluster that these tests may run in, and preparations would be those of a whole run of nextest.
    command.env_remove("KUBERNETES_SERVICE_HOST").env_remove("NEXTEST_RUN_ID");
    command
}

/// The same command, to be run by one of the [`runners`].
pub fn as_runner(runner: Option<&str>, command: &Command) -> Command {
    let words = runner.unwrap_or("env").split(' ');
    let mut other = Command::new("env");
    other.args(words).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other
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

/// Runs a script in a shell, which must succeed, and returns what it writes.
pub fn succeeds(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().expect("sh");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Starts `command` with a terminal for its standard error, and returns what reads from that.
pub fn start_in_terminal(command: &mut Command) -> (Child, BufReader<File>) {
    let OpenptyResult { master, slave } = openpty(None, None).expect("openpty");
    let child = command.stderr(slave).spawn().expect("the command runs");
    // Or `command` would hold the terminal open.
    command.stderr(Stdio::null());
    (child, BufReader::new(File::from(master)))
}

/// Runs `command` to its end, with a terminal for its standard error.
pub fn run_in_terminal(command: &mut Command) -> Run {
    let mark = mark(command);
    let mut stdout = tempfile::tempfile().expect("a temporary file");
    let (mut child, mut terminal) = start_in_terminal(command.stdout(stdout.try_clone().expect("dup")));
    let mut output = Vec::new();
    // A terminal that nobody has open any more ends with EIO.
    let end = terminal.read_to_end(&mut output).map_err(|error| error.raw_os_error());
    assert!(matches!(end, Ok(_) | Err(Some(libc::EIO))), "{end:?}");
    let status = child.wait().expect("wait");
    let left = marked(&mark);
    stdout.rewind().and_then(|()| stdout.read_to_end(&mut output)).expect("read");
    Run { status, output: String::from_utf8_lossy(&output).replace("\r\n", "\n"), left }
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
        let environment = environment_of(*pid);
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
    };
    processes().into_iter().filter(is_marked).collect()
}

/// The processes with this mark that have this name.
pub fn named(mark: &str, name: &str) -> Vec<u32> {
    let has_name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    marked(mark).into_iter().filter(has_name).collect()
}

/// The environment that a process began with; nothing if it has ended, or belongs to another user.
fn environment_of(pid: u32) -> Vec<u8> {
    loop {
        // In this order: what has a program now had its environment before.
        let in_exec = is_in_exec(pid);
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if !environment.is_empty() || !in_exec {
            return environment;
        }
        // It may need this very processor, which some kernels do not give away for good by sched_yield(2).
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a process is in the midst of its exec, when it has a new address space, but no environment in it yet. What the kernel
/// notes last is where the code starts: see `load_elf_binary` in its `fs/binfmt_elf.c`, and `startcode` in proc_pid_stat(5).
fn is_in_exec(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let start = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(23));
    // Kernel threads and zombies have no program.
    start == Some("0") && fs::read_link(format!("/proc/{pid}/exe")).is_ok()
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

/// All processes below `ancestor`, zombies aside.
pub fn descendants(ancestor: u32) -> BTreeSet<u32> {
    generations(ancestor).into_keys().collect()
}

/// The same, and how many generations each is below `ancestor`: 1 for a child.
pub fn generations(ancestor: u32) -> BTreeMap<u32, usize> {
    let parent = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let is_zombie = fields.next()? == "Z";
        if is_zombie { None } else { fields.next()?.parse().ok() }
    };
    let parents: BTreeMap<u32, u32> = processes().into_iter().filter_map(|pid| Some((pid, parent(&pid)?))).collect();
    let generation =
        |pid: u32| iter::successors(Some(pid), |pid| parents.get(pid).copied()).skip(1).position(|pid| pid == ancestor);
    parents.keys().filter_map(|pid| Some((*pid, generation(*pid)? + 1))).collect()
}

/// Waits for a fact that others bring about. It fails if that takes a minute.
pub fn wait_until(fact: impl Fn() -> bool) {
    let start = Instant::now();
    while !fact() {
        assert!(start.elapsed() < Duration::from_secs(60), "it did not come about");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether this host must be able to limit what a sandbox uses. `BELLJAR_TESTS_LIMITS` (`yes` or `no`) says it; by default root
/// can, and others may or may not.
pub fn must_limit() -> Option<bool> {
    match env::var("BELLJAR_TESTS_LIMITS").as_deref() {
        Ok("yes") => Some(true),
        Ok("no") => Some(false),
        Ok(other) => panic!("BELLJAR_TESTS_LIMITS is {other:?}, and should be yes or no"),
        Err(_) => geteuid().is_root().then_some(true),
    }
}

/// Forks the test's process, which has a second thread that only waits.
pub fn fork() -> ForkResult {
    #[expect(unsafe_code, reason = "tests fork as the code does that they stand for")]
    // SAFETY: the other thread is in a system call, so that it can't hold a lock.
    unsafe { nix::unistd::fork() }.expect("fork")
}

/// Waits until it is killed.
pub fn hang() -> ! {
    loop {
        pause();
    }
}

/// So many MiB of memory that has been written to.
pub fn allocate(mib: usize) -> Vec<u8> {
    let mut memory = vec![0; mib * MIB];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    hint::black_box(memory)
}

/// The version of the kernel: its first two numbers.
pub fn linux_version() -> (u32, u32) {
    let system = nix::sys::utsname::uname().expect("uname");
    let release = system.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().expect("a number"));
    (numbers.next().expect("a number"), numbers.next().expect("another"))
}

/// Why this kernel can't have copies, in the words that a user must be told.
pub fn refusal_of_copies() -> Option<[&'static str; 2]> {
    let has_overlay = fs::read_to_string("/proc/filesystems").expect("filesystems").contains("\toverlay\n");
    match linux_version() {
        _ if !has_overlay => Some(["ENODEV", "modprobe overlay"]),
        (..5, _) | (5, ..11) => Some(["EPERM", "Linux 5.11 or later"]),
        _ => None,
    }
}

/// How often a test of chance is to be repeated: as often as `BELLJAR_TESTS_ROUNDS` says, or by default.
pub fn rounds(default: usize) -> usize {
    match env::var("BELLJAR_TESTS_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("BELLJAR_TESTS_ROUNDS is a number"),
        Err(_) => default,
    }
}

/// From now on, this system call fails. If `bits` are given, it fails only with one of them in the argument of this index.
#[expect(unsafe_code, reason = "seccomp(2) has no wrapper")]
pub fn refuse(call: c_long, bits: Option<(usize, c_int)>, errno: Errno) {
    let load = |offset| (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    // On s390x, the flags are the second argument of clone(2). The lower half of an argument is looked at.
    let (shift, half) = (cfg!(target_arch = "s390x") && call == libc::SYS_clone, cfg!(target_endian = "big"));
    let place = |argument| {
        mem::offset_of!(libc::seccomp_data, args) + 8 * (argument + usize::from(shift)) + 4 * usize::from(half)
    };
    let is_call = |otherwise| (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, otherwise, call as u32);
    let [allow, fail] = [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_ERRNO | errno as u32]
        .map(|answer| (libc::BPF_RET | libc::BPF_K, 0, 0, answer));
    let program = match bits {
        None => vec![load(0), is_call(1), fail, allow],
        Some((argument, bits)) => {
            let has_bits = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, bits as u32);
            vec![load(0), is_call(3), load(place(argument) as u32), has_bits, fail, allow]
        }
    };
    let instruction = |(code, jt, jf, k)| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program: Vec<_> = program.into_iter().map(instruction).collect();
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set_no_new_privs().expect("prctl");
    // SAFETY: the program and its instructions outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(result).expect("seccomp");
}
