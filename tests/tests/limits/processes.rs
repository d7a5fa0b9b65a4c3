//! `pids`, and what is said when no more may be started.

use std::fs::{self, DirEntry, File};
use std::io::{self, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;
use std::{env, process};

use belljar::isolated;
use belljar_tests::{body, body_command, hang, must_limit, run, run_body, this_binary};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{ForkResult, geteuid};

use crate::is_limited;
use crate::parent::Parent;

/// The kernel counts the processes of a user together. Of the tests that have many, or may have few, one runs at a time, under nextest too.
fn alone() -> Flock<File> {
    let binary = File::open(this_binary().get_program()).expect("this binary");
    Flock::lock(binary, FlockArg::LockExclusive).expect("flock")
}

/// A lower limit on the user's processes is no reason not to run.
#[test]
fn a_low_limit_of_the_user_is_kept() {
    let _alone = alone();
    // What there is of this user counts too.
    let is_own = |task: &io::Result<DirEntry>| {
        task.as_ref().is_ok_and(|task| task.metadata().is_ok_and(|metadata| metadata.uid() == geteuid().as_raw()))
    };
    let processes = fs::read_dir("/proc").expect("proc").flatten();
    let tasks = processes.filter_map(|process| fs::read_dir(process.path().join("task")).ok());
    let there_are = tasks.map(|tasks| tasks.filter(is_own).count()).sum::<usize>();
    let (_, most) = getrlimit(Resource::RLIMIT_NPROC).expect("getrlimit");
    let low = most.min(libc::rlim_t::try_from(there_are + 300).expect("few"));
    let mut command = body_command("memory::allocates_without_a_limit");
    #[expect(unsafe_code, reason = "the limit is set between fork and exec")]
    // SAFETY: between fork and exec, this makes one system call. It takes no lock and no memory: an errno becomes an `io::Error` without any.
    unsafe {
        command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_NPROC, low, low)?))
    };
    let run = run(&mut command);
    assert!(run.passed(), "{}", run.output);
}

/// Starts processes until no more can be, or there are so many.
pub(crate) fn spawn_up_to(most: usize) -> Vec<Child> {
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

pub(crate) fn end(children: Vec<Child>) {
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
    let run = run_body("processes::forks_too_often");
    // RLIMIT_NPROC stands in for ordinary users since Linux 5.14. It keeps no count.
    let stands_in = must_limit() != Some(true) && !geteuid().is_root() && run.passed();
    if stands_in || is_limited(&run) {
        assert!(run.passed(), "{}", run.output);
        let note = "`processes::forks_too_often` reached its limit: fork refused once: pids limit 32";
        assert!(stands_in || run.output.contains(note), "{}", run.output);
    }
    let run = run_body("processes::forks_almost_too_often");
    if stands_in || is_limited(&run) {
        assert!(run.passed() && !run.output.contains("belljar"), "{}", run.output);
    }
    let run = run_body("processes::forks_without_a_limit");
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
    command.args(["--exact", "body", "processes::forks_without_a_limit"]);
    parent.use_it(&mut command);
    let run = run(&mut command);
    assert!(run.failed() && !run.output.contains("pids limit 1024"), "{}", run.output);
    let named = format!(
        "`processes::forks_without_a_limit` met a limit that it shares: fork refused once: {} is 20",
        limit.display()
    );
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
        command
            .args(["--exact", "--show-output", "--test-threads=22", "body", "processes::bomb", "*beside_*"])
            .env(GATE, name);
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
    let note = "`processes::bomb` reached its limit: fork refused once: pids limit 1024";
    assert!(!geteuid().is_root() || run.output.contains(note), "{}", run.output);
}
