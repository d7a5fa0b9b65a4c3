//! What `memory`, `pids` and `cpu` promise, what is said when a test meets its limit, and that no cgroup is left.
//!
//! Where a host can't limit, as without cgroups or for ordinary users with cgroups of version 1, the same rows show that a
//! written limit fails the test, and says why. `BELLJAR_TESTS_LIMITS` (`yes` or `no`) says which must be the case; by
//! default root can limit, and others may or may not.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, hint, iter, panic, process};

use belljar::isolated;
use belljar_tests::{
    MIB, Run, allocate, body, fork, hang, mark, marked, must_limit, named, rounds, run, run_body, this_binary,
    wait_until,
};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};
use nix::sys::signal::{SigHandler, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, geteuid};

belljar_tests::bodies!();

/// Whether this run shows that the host can limit. If it can't, the page must say so, and that must be expected.
fn is_limited(run: &Run) -> bool {
    let refused = run.output.contains("did not run: this host does not let its sandbox be set up");
    assert!(must_limit().is_none_or(|expected| expected != refused), "{}", run.output);
    if refused {
        assert!(run.failed(), "{}", run.output);
        assert!(run.output.contains("make a cgroup with the limits of the test"), "{}", run.output);
        assert!(!run.output.contains("cause:  unknown"), "{}", run.output);
    }
    !refused
}

#[body]
#[isolated(memory = "64MiB", pids = 32, cpu = 0.5)]
fn has_all_limits() {}

// ---- Memory ----

#[body]
#[isolated(memory = "64MiB")]
fn allocates_too_much() {
    allocate(70);
}

#[body]
#[isolated(memory = "64MiB")]
fn allocates_almost_too_much() {
    allocate(58);
}

#[body]
#[isolated]
fn allocates_without_a_limit() {
    allocate(70);
}

/// Half in the test, half in a child.
#[body]
#[isolated(memory = "64MiB", timeout = "1m")]
fn allocates_from_two_processes() {
    let _ours = allocate(35);
    match fork() {
        ForkResult::Child => {
            allocate(35);
            process::abort();
        }
        ForkResult::Parent { child } => {
            let _ = waitpid(child, None);
        }
    }
}

/// The kernel kills the child, and the test would wait for ever.
#[body]
#[isolated(memory = "64MiB")]
fn waits_for_a_child_that_is_killed() {
    match fork() {
        ForkResult::Child => {
            nix::sys::prctl::set_name(c"glutton").expect("set_name");
            allocate(80);
            process::abort();
        }
        ForkResult::Parent { .. } => hang(),
    }
}

/// So would a child of a child, which its parent has waited for.
#[body]
#[isolated(memory = "64MiB")]
fn waits_for_a_grandchild_that_is_killed() {
    match fork() {
        ForkResult::Child => {
            nix::sys::prctl::set_name(c"parent").expect("set_name");
            match fork() {
                ForkResult::Child => {
                    nix::sys::prctl::set_name(c"glutton").expect("set_name");
                    allocate(80);
                    process::abort();
                }
                ForkResult::Parent { child } => {
                    let _ = waitpid(child, None);
                    hang()
                }
            }
        }
        ForkResult::Parent { .. } => hang(),
    }
}

#[body]
#[isolated(memory = "64MiB")]
fn fills_the_tmpfs() {
    let mut file = File::create("/tmp/large").expect("create");
    for _ in 0..70 {
        file.write_all(&vec![1; MIB]).expect("write");
    }
}

#[isolated(mount, tmpfs = "8MiB")]
fn the_tmpfs_has_its_size() {
    for place in ["/tmp/large", &format!("{}/large", env!("CARGO_TARGET_TMPDIR"))] {
        let mut file = File::create(place).expect("create");
        let written = (0..16).take_while(|_| file.write_all(&vec![1; MIB]).is_ok()).count();
        assert!((7..=8).contains(&written), "{written} MiB in {place}");
        fs::remove_file(place).expect("remove");
    }
}

/// Nobody reads what those say that are left, so that nobody may wait for it to be read.
#[body]
#[isolated(memory = "64MiB", timeout = "1m")]
fn leaves_talkers() {
    for _ in 0..4 {
        if let ForkResult::Child = fork() {
            let exiting = b"\xbeJar\x04";
            loop {
                #[expect(unsafe_code, reason = "that is the point")]
                // SAFETY: the bytes outlive the call.
                unsafe {
                    libc::send(255, exiting.as_ptr().cast(), exiting.len(), 0);
                }
            }
        }
    }
}

#[test]
fn what_is_left_keeps_nobody_waiting() {
    for _ in 0..10 {
        let run = run_body("leaves_talkers");
        if is_limited(&run) {
            assert!(run.left.is_empty() && !run.output.contains("timeout"), "{}", run.output);
        }
    }
}

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
    for name in ["looks_at_its_cgroup", "kills_a_child_by_a_limit_of_its_own"] {
        let run = run_body(name);
        if is_limited(&run) {
            assert!(run.passed() && !run.output.contains("out of memory"), "{}", run.output);
        }
    }
}

/// The kernel counts the processes of a user together. Of the tests that have many, or may have few, one runs at a time, under nextest too.
fn alone() -> Flock<File> {
    let binary = File::open(this_binary().get_program()).expect("this binary");
    Flock::lock(binary, FlockArg::LockExclusive).expect("flock")
}

/// A lower limit on the user's processes is no reason not to run.
#[test]
fn a_low_limit_of_the_user_is_kept() {
    let _alone = alone();
    let script = "ulimit -u 900 && exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(this_binary().get_program()).args([
        "--exact",
        "body",
        "allocates_without_a_limit",
    ]);
    let run = run(command.arg("--ignored"));
    // Shells that have no such limit end before.
    assert!(run.passed() || !run.output.contains("running"), "{}", run.output);
}

#[test]
fn too_much_memory_is_named() {
    for name in ["allocates_too_much", "allocates_from_two_processes", "fills_the_tmpfs"] {
        let run = run_body(name);
        if is_limited(&run) {
            assert!(run.failed(), "{}", run.output);
            assert!(run.output.contains("killed: out of memory (limit 64 MiB"), "{name}: {}", run.output);
        }
        assert!(run.left.is_empty());
    }
}

/// A cgroup above may have less than the test: then it was not the test's own limit, and that is told.
#[test]
fn less_memory_above_is_named() {
    let Some(parent) = Parent::new("outer") else { return };
    let set = |limit: usize| {
        for directory in &parent.directories {
            for file in ["memory.limit_in_bytes", "memory.max"].map(|file| directory.join(file)) {
                if file.exists() {
                    fs::write(file, limit.to_string()).expect("write");
                }
            }
        }
    };
    let run = || {
        let mut command = this_binary();
        command.args(["--ignored", "--exact", "body", "allocates_almost_too_much"]);
        parent.use_it(&mut command);
        run(&mut command)
    };
    set(80 * MIB);
    let ran = run();
    assert!(ran.passed(), "{}", ran.output);
    set(40 * MIB);
    let ran = run();
    assert!(ran.failed() && !ran.output.contains("limit 64 MiB"), "{}", ran.output);
    assert!(ran.output.contains("has used up its memory"), "{}", ran.output);
    assert!(ran.output.contains(&parent.path) && ran.output.contains(&(40 * MIB).to_string()), "{}", ran.output);
}

/// All die as one, and it is told who had most.
#[test]
fn the_largest_is_named() {
    for (name, largest) in [
        ("allocates_too_much", ["`allocates_too_much` "; 2]),
        ("waits_for_a_child_that_is_killed", ["`glutton` "; 2]),
        // Whether its parent has waited for it by then is a matter of luck.
        ("waits_for_a_grandchild_that_is_killed", ["`parent` or a child of it ", "`glutton` "]),
    ] {
        let run = run_body(name);
        if is_limited(&run) {
            let mut rest = largest.iter().filter_map(|largest| run.output.split_once(&format!(", largest: {largest}")));
            let figure = rest.next().map(|(_, rest)| rest);
            let figure = figure.and_then(|rest| rest.split_once(" MiB).")?.0.parse::<f64>().ok());
            assert!(figure.is_some_and(|figure| (57.0..72.0).contains(&figure)), "{name}: {}", run.output);
        }
        assert!(run.failed() && run.left.is_empty());
    }
    // It has no process that is large.
    let run = run_body("fills_the_tmpfs");
    let is_small = |rest: &str| {
        rest.split_once(" MiB).").is_none_or(|(figure, _)| figure.parse::<f64>().is_ok_and(|figure| figure < 20.0))
    };
    let largest = run.output.split_once(", largest: `fills_the_tmpfs` ").map(|(_, rest)| rest);
    assert!(!is_limited(&run) || largest.is_some_and(is_small), "{}", run.output);
}

#[test]
fn almost_too_much_memory_is_not() {
    let run = run_body("allocates_almost_too_much");
    if is_limited(&run) {
        assert!(run.passed() && !run.output.contains("belljar"), "{}", run.output);
    }
    let run = run_body("allocates_without_a_limit");
    assert!(run.passed() && !run.output.contains("belljar"), "{}", run.output);
}

/// What the kernel is told to spare when memory is used up doesn't spare its tests.
#[test]
fn the_spared_spare_no_tests() {
    let script = "echo -1000 > /proc/self/oom_score_adj && exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(this_binary().get_program()).args([
        "--exact",
        "--ignored",
        "body",
        "allocates_too_much",
    ]);
    let run = run(&mut command);
    // It takes CAP_SYS_RESOURCE, which root has in the lab.
    let may = run.output.contains("running 1 test");
    assert!(may || !geteuid().is_root() || env::var_os("BELLJAR_TESTS_LIMITS").is_none(), "{}", run.output);
    if may && is_limited(&run) {
        assert!(run.failed() && run.output.contains("killed: out of memory (limit 64 MiB"), "{}", run.output);
    }
}

// ---- Processes ----

/// Starts processes until no more can be, or there are so many.
fn spawn_up_to(most: usize) -> Vec<Child> {
    let mut children = Vec::new();
    while children.len() < most {
        match Command::new("sleep").arg("1000").spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(Errno::EAGAIN as i32), "{error}");
                break;
            }
        }
    }
    children
}

fn end(children: Vec<Child>) {
    for mut child in children {
        child.kill().and_then(|()| child.wait()).expect("kill");
    }
}

/// The test has two threads, that of the body and the one it was forked with.
#[body]
#[isolated(pids = 32)]
fn forks_too_often() {
    let children = spawn_up_to(40);
    assert_eq!(children.len(), 30);
    end(children);
}

#[body]
#[isolated(pids = 32)]
fn forks_almost_too_often() {
    let children = spawn_up_to(30);
    assert_eq!(children.len(), 30);
    end(children);
}

#[body]
#[isolated]
fn forks_without_a_limit() {
    let children = spawn_up_to(40);
    assert_eq!(children.len(), 40);
    end(children);
}

#[test]
fn too_many_processes_are_refused() {
    let run = run_body("forks_too_often");
    // RLIMIT_NPROC stands in for ordinary users since Linux 5.14. It keeps no count.
    let stands_in = must_limit() != Some(true) && !geteuid().is_root() && run.passed();
    if stands_in || is_limited(&run) {
        assert!(run.passed(), "{}", run.output);
        let note = "`forks_too_often` reached its limit: fork refused once: pids limit 32";
        assert!(stands_in || run.output.contains(note), "{}", run.output);
    }
    let run = run_body("forks_almost_too_often");
    if stands_in || is_limited(&run) {
        assert!(run.passed() && !run.output.contains("belljar"), "{}", run.output);
    }
    let run = run_body("forks_without_a_limit");
    assert!(run.passed() && !run.output.contains("belljar"), "{}", run.output);
}

/// What is used up is named, with the figure: here a limit of a cgroup above, which neighbours could have used up as well.
#[test]
fn a_limit_that_is_shared_is_named() {
    let Some(parent) = Parent::new("shared") else { return };
    let limit = parent.directories.iter().map(|directory| directory.join("pids.max")).find(|file| file.exists());
    // By version 2, what is refused above is not counted below. Before Linux 6.1, nobody knows how many there have been at most.
    let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let Some(limit) = limit.filter(|limit| !is_v2 && limit.with_file_name("pids.peak").exists()) else { return };
    fs::write(&limit, "20").expect("write");
    let mut command = this_binary();
    command.args(["--ignored", "--exact", "body", "forks_without_a_limit"]);
    parent.use_it(&mut command);
    let run = run(&mut command);
    assert!(run.failed() && !run.output.contains("pids limit 1024"), "{}", run.output);
    let named =
        format!("`forks_without_a_limit` met a limit that it shares: fork refused once: {} is 20", limit.display());
    assert!(run.output.contains(&named) && run.output.contains("write `pids = ..`"), "{}", run.output);
}

/// Where `a_fork_bomb_harms_no_neighbour` listens.
const GATE: &str = "BELLJAR_TESTS_GATE";

/// Tells whoever listens that a body has come so far, and waits to be let go.
fn pass_gate(message: &[u8]) -> UnixStream {
    let name = env::var_os(GATE).expect(GATE);
    let address = SocketAddr::from_abstract_name(name.as_encoded_bytes()).expect("address");
    let mut gate = UnixStream::connect_addr(&address).expect("connect");
    gate.write_all(message).and_then(|()| gate.read_exact(&mut [0])).expect("gate");
    gate
}

/// How many processes a bomb starts where nothing limits it.
const BOMB: usize = 1100;

#[body]
#[isolated(mount, timeout = "5m")]
fn bomb() {
    let mut started = 0;
    while started < BOMB {
        #[expect(unsafe_code, reason = "spawning takes too long")]
        // SAFETY: the child does nothing but wait.
        match unsafe { nix::unistd::fork() } {
            Ok(ForkResult::Child) => hang(),
            Ok(ForkResult::Parent { .. }) => started += 1,
            Err(errno) => {
                assert_eq!(errno, Errno::EAGAIN);
                break;
            }
        }
    }
    println!("{started} were started");
    pass_gate(b"bomb");
}

fn lives_beside_a_bomb() {
    let _gate = pass_gate(b"rest");
    end(spawn_up_to(10));
}

macro_rules! neighbours {
    ($($name:ident)*) => { $(
        #[body]
        #[isolated(mount, timeout = "5m")]
        fn $name() {
            lives_beside_a_bomb();
        }
    )* };
}

neighbours! {
    beside_a beside_b beside_c beside_d beside_e beside_f beside_g beside_h beside_i beside_j beside_k beside_l beside_m beside_n
    beside_o beside_p beside_q beside_r beside_s beside_t beside_u
}

/// Whether a test that writes no limit may have 1024 processes and threads here, and no more: with version 1 for root, and by RLIMIT_NPROC for
/// others.
fn has_default_limit() -> bool {
    if geteuid().is_root() {
        return Path::new("/sys/fs/cgroup/pids/tasks").exists();
    }
    let system = nix::sys::utsname::uname().expect("uname");
    let release = system.release().to_str().expect("release").to_owned();
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    numbers.next().zip(numbers.next()).is_some_and(|version| version >= (5, 14))
}

/// While the bomb has all that it can have, each of the others starts processes.
#[test]
fn a_fork_bomb_harms_no_neighbour() {
    let _alone = alone();
    if !has_default_limit() {
        return;
    }
    let name = format!("belljar-tests-{}", process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("address");
    let gate = UnixListener::bind_addr(&address).expect("bind");
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut command = this_binary();
        command.args(["--ignored", "--show-output", "--test-threads=22", "body", "bomb", "beside_"]).env(GATE, name);
        let _ = told.send(run(&mut command));
    });
    let (mut bombs, mut others) = (Vec::new(), Vec::new());
    gate.set_nonblocking(true).expect("set_nonblocking");
    while bombs.len() + others.len() < 22 {
        let Ok((mut body, _)) = gate.accept() else {
            let ended = heard.recv_timeout(Duration::from_millis(10));
            assert!(ended.is_err(), "{}", ended.expect("run").output);
            continue;
        };
        body.set_nonblocking(false).expect("set_nonblocking");
        let mut message = [0; 4];
        body.read_exact(&mut message).expect("message");
        if message == *b"bomb" { bombs.push(body) } else { others.push(body) }
    }
    for mut body in others.into_iter().chain(bombs) {
        body.write_all(b"!").expect("let go");
        // It is over.
        assert_eq!(body.read(&mut [0]).expect("end"), 0);
    }
    let run = heard.recv().expect("run");
    assert!(run.status.success() && run.output.contains("test result: ok. 22 passed"), "{}", run.output);
    assert!(run.output.contains("1022 were started"), "{}", run.output);
    let note = "`bomb` reached its limit: fork refused once: pids limit 1024";
    assert!(!geteuid().is_root() || run.output.contains(note), "{}", run.output);
}

// ---- CPU time ----

/// The CPU time that this process has taken.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage");
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000))
        .sum()
}

/// Works for a while, on two threads. Whatever else the machine does makes the share smaller.
#[body]
#[isolated(cpu = 0.2)]
fn burns_cpu_time() {
    let (start, cpu_before) = (Instant::now(), cpu_time());
    let burn = || {
        while start.elapsed() < Duration::from_secs(2) {
            hint::black_box(0);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(burn);
        burn();
    });
    let (wall, cpu) = (start.elapsed(), cpu_time() - cpu_before);
    println!("{cpu:?} of {wall:?}");
    // One period's share may be used up at once at the start.
    assert!(cpu < wall.mul_f64(0.2 * 1.1) + Duration::from_millis(20), "{cpu:?} of {wall:?}");
}

#[test]
fn cpu_time_is_rationed() {
    let run = run_body("burns_cpu_time");
    if is_limited(&run) {
        assert!(run.passed(), "{}", run.output);
    }
}

// ---- Where they are ----

/// A cgroup below the root, or one at the same path in each hierarchy of version 1, for test binaries to use. Removed at the
/// end.
struct Parent {
    path: String,
    directories: Vec<PathBuf>,
}

impl Parent {
    /// `None` where this user can make none, or should not, as on somebody's machine with cgroups of version 2.
    fn new(name: &str) -> Option<Self> {
        let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        if !geteuid().is_root() || is_v2 && must_limit() != Some(true) {
            return None;
        }
        let path = format!("/belljar-tests-{}-{name}", process::id());
        let roots = if is_v2 { vec![""] } else { vec!["/pids", "/memory", "/cpu"] };
        let roots = roots.into_iter().map(|root| format!("/sys/fs/cgroup{root}"));
        let roots = roots.filter(|root| Path::new(root).join("cgroup.procs").exists());
        let directories: Vec<_> = roots.map(|root| PathBuf::from(format!("{root}{path}"))).collect();
        directories.iter().for_each(|directory| fs::create_dir(directory).expect("create_dir"));
        (!directories.is_empty()).then_some(Self { path, directories })
    }

    fn below(&self) -> Vec<PathBuf> {
        self.directories.iter().flat_map(|directory| below(directory)).collect()
    }

    fn use_it(&self, command: &mut Command) {
        command.env("BELLJAR_CGROUP", &self.path);
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for directory in self.below().iter().chain(&self.directories) {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// All cgroups below this one, the deepest first. Some may be removed meanwhile: there is nothing below those.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path()));
            found.push(entry.path());
        }
    }
    found
}

#[body]
#[isolated(pids = 100)]
fn waits_to_be_killed() {
    wait_to_be_killed();
}

#[body]
#[isolated(memory = "64MiB", pids = 100, cpu = 0.5)]
fn waits_with_all_limits() {
    wait_to_be_killed();
}

#[body]
#[isolated]
fn waits_without_a_limit() {
    wait_to_be_killed();
}

fn wait_to_be_killed() {
    println!("{}", process::id());
    hang();
}

/// A test that takes these signals by handlers of its own, one of which ends the process at once.
#[body]
fn handles_signals() {
    extern "C" fn end(_: libc::c_int) {
        process::abort();
    }
    for (signal, handler) in [(Signal::SIGTERM, SigHandler::Handler(end)), (Signal::SIGHUP, SigHandler::SigIgn)] {
        #[expect(unsafe_code, reason = "handlers are what this is about")]
        // SAFETY: the handler makes system calls.
        unsafe { nix::sys::signal::signal(signal, handler) }.expect("signal");
    }
    hang();
}

/// A run of one of these below `parent`, whose sandbox is there. It can be told from others by the mark.
fn start_marked(parent: &Parent, names: &[&str]) -> (Child, String) {
    let mut command = this_binary();
    command
        .args(["--exact", "body"])
        .args(names)
        .args(["--ignored", "--nocapture", "--test-threads=2"])
        .stdout(Stdio::piped());
    parent.use_it(&mut command);
    let mark = mark(&mut command);
    #[expect(unsafe_code, reason = "signals that this process ignores, as below `nohup`, are to end the run")]
    // SAFETY: the child makes system calls.
    unsafe {
        command.pre_exec(|| {
            for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
                nix::sys::signal::signal(signal, SigHandler::SigDfl)?;
            }
            Ok(())
        });
    }
    let mut child = command.process_group(0).spawn().expect("spawn");
    let mut output = String::new();
    let stdout = child.stdout.as_mut().expect("piped");
    while !output.contains("\n2\n") {
        let mut bytes = [0; 64];
        let length = stdout.read(&mut bytes).expect("read");
        assert_ne!(length, 0, "{output}");
        output.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    (child, mark)
}

fn start(parent: &Parent, name: &str) -> Child {
    start_marked(parent, &[name]).0
}

fn kill(mut child: Child) {
    child.kill().and_then(|()| child.wait()).expect("kill");
}

/// Kills a run, and first the process that removes what it leaves, if it is there.
fn kill_with_sweeper(child: Child, mark: &str) {
    for sweeper in named(mark, "belljar-sweeper") {
        send(Signal::SIGKILL, sweeper as i32);
    }
    kill(child);
}

/// Sends a signal to a process, or to a process group, whose number is negative.
fn send(signal: Signal, to: i32) {
    nix::sys::signal::kill(Pid::from_raw(to), signal).expect("kill");
}

/// Whatever ends a test binary, alone or with its process group: its cgroups go, and it takes no other run.
#[test]
fn signals_leave_no_cgroup() {
    let Some(parent) = Parent::new("signals") else { return };
    let tests: [&[&str]; 3] =
        [&["waits_without_a_limit"], &["waits_with_all_limits"], &["waits_with_all_limits", "handles_signals"]];
    for (tests, signal) in tests.iter().flat_map(|tests| {
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGKILL].map(|signal| (tests, signal))
    }) {
        for is_group in [false, true] {
            let (mut child, mark) = start_marked(&parent, tests);
            assert!(!parent.below().is_empty());
            let pid = child.id() as i32;
            send(signal, if is_group { -pid } else { pid });
            if signal == Signal::SIGHUP && tests.len() > 1 {
                send(Signal::SIGKILL, pid);
            }
            child.wait().expect("wait");
            wait_until(|| parent.below().is_empty() && marked(&mark).is_empty());
        }
    }
    // Who signals all of them, signals the sweeper too. With the test binary, most others end.
    let (mut child, mark) = start_marked(&parent, &["waits_with_all_limits"]);
    for pid in marked(&mark) {
        let _ = nix::sys::signal::kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
    }
    child.wait().expect("wait");
    wait_until(|| parent.below().is_empty() && marked(&mark).is_empty());
    // The twin: it is the sweeper who removes them.
    let (child, mark) = start_marked(&parent, &["waits_with_all_limits"]);
    kill_with_sweeper(child, &mark);
    wait_until(|| marked(&mark).is_empty());
    assert!(!parent.below().is_empty());
    sweep(&parent);
}

/// Each try has one more descriptor, until one has enough. So there is one that has enough for a cgroup, and not for a sandbox.
#[body]
fn waits_when_descriptors_have_run_short() {
    let open = || File::open("/dev/null");
    let most = libc::rlim_t::try_from(open().expect("open").as_raw_fd()).expect("a number") + 64;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("setrlimit");
    let mut taken: Vec<_> = iter::from_fn(|| open().ok()).collect();
    while taken.pop().is_some() {
        let _ = panic::catch_unwind(waits_with_all_limits);
    }
}

/// A sandbox that can have no cgroup.
#[body]
fn waits_without_a_cgroup() {
    let failed = panic::catch_unwind(has_all_limits).is_err();
    println!("failed: {failed}\n2");
    hang();
}

#[body]
fn has_all_limits_again_and_again() {
    has_all_limits();
    println!("2");
    loop {
        has_all_limits();
    }
}

/// There is a sweeper, whatever happens to the first sandbox that is asked for, and to the first sweeper.
#[test]
fn each_run_has_a_sweeper() {
    let Some(parent) = Parent::new("sweeper") else { return };
    let start = |name: &str| {
        let (child, mark) = start_marked(&parent, &[name]);
        assert!(!parent.below().is_empty());
        (child, mark)
    };
    let is_swept = |child: Child, mark: &str| {
        kill(child);
        wait_until(|| parent.below().is_empty() && marked(mark).is_empty());
    };
    let (child, mark) = start("waits_when_descriptors_have_run_short");
    is_swept(child, &mark);
    let (child, mark) = start("has_all_limits_again_and_again");
    let sweeper = || named(&mark, "belljar-sweeper").first().copied();
    wait_until(|| sweeper().is_some());
    let first = sweeper();
    first.iter().for_each(|pid| send(Signal::SIGKILL, *pid as i32));
    wait_until(|| sweeper().is_some_and(|pid| Some(pid) != first));
    is_swept(child, &mark);
    // One of several hierarchies can't be had.
    let Some(missing) = parent.directories.get(1) else { return };
    fs::remove_dir(missing).expect("remove_dir");
    let (child, mark) = start("waits_without_a_cgroup");
    is_swept(child, &mark);
    fs::create_dir(missing).expect("create_dir");
}

/// Has runs that limit no memory remove what is left of others.
fn sweep(parent: &Parent) {
    // What was killed may take a moment to end.
    wait_until(|| {
        let mut command = this_binary();
        command.args(["--ignored", "--exact", "body", "forks_without_a_limit"]);
        parent.use_it(&mut command);
        assert!(run(&mut command).passed());
        parent.below().is_empty()
    });
}

#[test]
fn each_sandbox_has_a_cgroup_and_leaves_none() {
    let Some(parent) = Parent::new("each") else { return };
    let processes =
        |directory: &PathBuf| fs::read_to_string(directory.join("cgroup.procs")).expect("procs").lines().count();
    let child = start(&parent, "waits_without_a_limit");
    assert!(parent.below().iter().any(|directory| processes(directory) >= 2));
    kill(child);
    let mut child = start(&parent, "waits_to_be_killed");
    assert!(parent.below().iter().any(|directory| processes(directory) == 2));
    send(Signal::SIGTERM, child.id() as i32);
    child.wait().expect("wait");
    // What was killed may take a moment to end.
    wait_until(|| {
        let mut command = this_binary();
        command.args(["--ignored", "--test-threads=4", "body", "allocates_without", "forks_without", "forks_too"]);
        parent.use_it(&mut command);
        let run = run(&mut command);
        assert!(run.output.contains("3 passed"), "{}", run.output);
        parent.below().is_empty()
    });
}

/// What a run left that was killed is swept by the next: never what belongs to a live one, nor what isn't ours.
#[test]
fn the_next_run_sweeps() {
    let Some(parent) = Parent::new("sweeps") else { return };
    let other = parent.directories[0].join("other");
    fs::create_dir(&other).expect("create_dir");
    let (killed, mark) = start_marked(&parent, &["waits_with_all_limits"]);
    let (alive, alives_mark) = start_marked(&parent, &["waits_to_be_killed"]);
    kill_with_sweeper(killed, &mark);
    let before = parent.below();
    let next = || {
        let mut command = this_binary();
        command.args(["--ignored", "--exact", "body", "forks_without_a_limit"]);
        parent.use_it(&mut command);
        assert!(run(&mut command).passed());
    };
    // What was killed may take a moment to end.
    let [_, unused @ ..] = &parent.directories[..] else { return };
    wait_until(|| {
        next();
        parent.below().len() < before.len() && unused.iter().all(|directory| below(directory).is_empty())
    });
    let after = parent.below();
    assert!(after.contains(&other));
    kill_with_sweeper(alive, &alives_mark);
    let is_first = |directory: &PathBuf| directory.to_str().is_some_and(|path| path.ends_with("-1"));
    assert!(after.iter().any(is_first), "{after:?}");
    wait_until(|| {
        next();
        parent.below() == [other.clone()]
    });
}

#[test]
fn runs_that_are_killed_leave_nothing_to_the_next() {
    let Some(parent) = Parent::new("killed") else { return };
    for _ in 0..rounds(20) {
        let mut command = this_binary();
        command.args(["--ignored", "--test-threads=4", "body", "has_all_limits", "waits", "forks"]);
        parent.use_it(&mut command);
        let mark = mark(&mut command);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("spawn");
        std::thread::sleep(Duration::from_micros(fastrand::u64(..50_000)));
        kill_with_sweeper(child, &mark);
    }
    sweep(&parent);
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
    command.args(["--ignored", "--exact", "body", "has_all_limits"]);
    parent.use_it(&mut command);
    let run = run(&mut command);
    let still_there = fs::read_to_string(&procs).expect("cgroup.procs");
    other.kill().and_then(|()| other.wait()).expect("kill");
    assert_eq!(still_there, format!("{}\n", other.id()));
    assert!(run.failed() && run.output.contains("processes that are not of this test run (`sleep`)"), "{}", run.output);
    assert!(run.output.contains("BELLJAR_CGROUP names a cgroup that others use"), "{}", run.output);
    assert_eq!(parent.below(), [""; 0].map(PathBuf::from));
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
        command.args(["--ignored", "--exact", "body", "allocates_too_much"]).env("PATH", &path);
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
    command.args(["--ignored", "--exact", "body", "forks_too_often"]).env("PATH", &path).env("POLICY", "stop");
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
    command.args(["--ignored", "--exact", "body", "has_all_limits"]);
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
    command.args(["--ignored", "--exact", "body", "has_all_limits"]);
    parent.use_it(&mut command);
    let run = run(&mut command);
    assert!(run.passed(), "{}", run.output);
}

/// Whoever names a cgroup means it.
#[test]
fn a_cgroup_that_is_not_there_is_named() {
    for name in ["allocates_without_a_limit", "forks_almost_too_often"] {
        for cgroup in ["/belljar-tests/nothing", "..", "/belljar-tests/../.."] {
            let mut command = this_binary();
            command.args(["--ignored", "--exact", "body", name]).env("BELLJAR_CGROUP", cgroup);
            let run = run(&mut command);
            assert!(run.failed(), "{}", run.output);
            let shown = Path::new("/").join(cgroup);
            assert!(run.output.contains(&format!("BELLJAR_CGROUP is `{}`", shown.display())), "{}", run.output);
        }
    }
}

// ---- What a sandbox has used ----

/// Whether figures are to be expected: for a test that has written all limits, wherever it runs.
fn figures() -> belljar::Usage {
    let usage = belljar::usage();
    assert!(usage.memory.is_some() && usage.pids.is_some() && usage.cpu.is_some(), "{usage:?}");
    usage
}

#[body]
#[isolated(memory = "256MiB", pids = 32, cpu = 2)]
fn looks_at_its_usage() {
    let close =
        |actual: Option<u64>, expected: u64| actual.is_some_and(|actual| actual.abs_diff(expected) < expected / 10);
    let before = figures();
    let memory = allocate(100);
    let during = figures();
    drop(memory);
    let after = figures();
    let grown = during.memory.zip(before.memory).map(|(during, before)| during - before);
    assert!(close(grown, 100 * MIB as u64), "{before:?} {during:?}");
    assert!(after.memory < Some(50 * MIB as u64), "{after:?}");
    // Known since Linux 5.19, and in version 1.
    assert!(after.memory_peak.is_none_or(|peak| Some(peak) >= during.memory), "{during:?} {after:?}");

    // Init, and two threads of the test.
    assert_eq!(before.pids, Some(3));
    end(spawn_up_to(5));
    let children = spawn_up_to(5);
    assert_eq!(belljar::usage().pids, Some(8));
    end(children);
    assert!(belljar::usage().pids_peak.is_none_or(|peak| peak == 8), "{:?}", belljar::usage());

    let (before, own_before) = (figures().cpu, cpu_time());
    while cpu_time() - own_before < Duration::from_millis(200) {
        hint::black_box(0);
    }
    let spent = figures().cpu.zip(before).map(|(after, before)| after - before);
    assert!(spent.is_some_and(|spent| spent >= Duration::from_millis(180)), "{spent:?}");

    // A thread may ask, and a fork.
    let known = || belljar::usage().pids.is_some();
    assert!(std::thread::scope(|scope| scope.spawn(known).join().expect("join")));
    match fork() {
        ForkResult::Child => process::exit(i32::from(!known())),
        ForkResult::Parent { child } => {
            let end = waitpid(child, None).expect("waitpid");
            assert_eq!(end, WaitStatus::Exited(child, 0));
        }
    }
}

/// The descriptor by which it would ask belongs to a file of the test's by now.
#[body]
#[isolated(pids = 32)]
fn asks_with_its_report_closed() {
    let file = File::create_new("/tmp/file").expect("create");
    for number in 3..=255 {
        if fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|target| target.starts_with("socket:")) {
            #[expect(unsafe_code, reason = "nix has no dup2 to a bare number")]
            // SAFETY: the number stays what it is, another name of an open descriptor.
            unsafe {
                libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&file), number)
            };
        }
    }
    assert_eq!(belljar::usage(), belljar::Usage::default());
    assert_eq!(fs::metadata("/tmp/file").expect("metadata").len(), 0);
    println!("asked in vain");
}

#[test]
fn usage_is_told() {
    let run = run_body("looks_at_its_usage");
    if is_limited(&run) {
        assert!(run.passed(), "{}", run.output);
    }
    let run = run_body("asks_with_its_report_closed");
    assert!(run.failed() || run.output.contains("asked in vain") || !is_limited(&run), "{}", run.output);
}

/// What is not known is not told: not as 0 either.
#[test]
fn outside_of_sandboxes_no_usage_is_known() {
    assert_eq!(belljar::usage(), belljar::Usage::default());
    assert_eq!(belljar::Usage::default().pids, None);
}

// ---- Forks of the test binary ----

#[body]
#[isolated(memory = "512MiB", pids = 100)]
fn has_limits_in_a_fork() {}

#[body]
fn runs_tests_with_limits_in_forks() {
    has_limits_in_a_fork();
    let run = |_| match fork() {
        ForkResult::Child => {
            let failed = (0..5).any(|_| panic::catch_unwind(has_limits_in_a_fork).is_err());
            process::exit(failed.into())
        }
        ForkResult::Parent { child } => child,
    };
    let children = [(), (), ()].map(run);
    let ends = children.map(|child| waitpid(child, None).expect("wait") == WaitStatus::Exited(child, 0));
    assert_eq!(ends, [true; 3]);
}

#[test]
fn forks_of_the_test_binary_have_cgroups_of_their_own() {
    let run = run_body("runs_tests_with_limits_in_forks");
    assert!(!is_limited(&run) || run.passed(), "{}", run.output);
}
