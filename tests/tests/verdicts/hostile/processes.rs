//! Bodies with processes of their own.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::{fs, process};

use belljar::isolated;
use belljar_tests::{body, fork, hang};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{wait, waitpid};
use nix::unistd::{ForkResult, Pid, getpgrp, getpid, getppid, getsid, pipe, read, setsid};

use crate::hostile::deaths::read_an_invalid_address;

/// Starts a daemon as daemon(7) tells, which holds stdout, and waits until it runs.
fn start_daemon() {
    let (reader, writer) = pipe().expect("pipe");
    let (mut reader, mut writer) = (File::from(reader), File::from(writer));
    if let ForkResult::Parent { child } = fork() {
        waitpid(child, None).expect("waitpid");
        reader.read_exact(&mut [0]).expect("the daemon runs");
        return;
    }
    setsid().expect("setsid");
    if let ForkResult::Child = fork() {
        println!("the daemon runs");
        writer.write_all(&[1]).expect("write");
        hang();
    }
    process::exit(0);
}

#[body]
#[isolated]
fn leaves_a_daemon() {
    start_daemon();
}

/// A name that is no UTF-8, and one that the kernel cuts within a character, after 15 bytes.
#[body]
#[isolated]
#[expect(clippy::zombie_processes, reason = "they are to be left")]
fn leaves_odd_names() {
    for name in [&b"Z\xfcrich"[..], "fourteen-bytes\u{e9}".as_bytes()] {
        let program = Path::new("/tmp").join(OsStr::from_bytes(name));
        symlink(fs::canonicalize("/bin/sleep").expect("sleep"), &program).expect("symlink");
        Command::new(program).arg("1000").spawn().expect("spawn");
    }
}

#[body]
#[isolated]
fn leaves_a_daemon_and_fails() {
    start_daemon();
    panic!("on purpose");
}

/// Siblings of the test, which init reaps when they end: with the test, as many as can be at that moment.
fn end_with_siblings() {
    let (reader, writer) = pipe().expect("pipe");
    for _ in 0..50 {
        let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
        // SAFETY: without CLONE_VM the child has a copy of the address space, and goes on with the stack it has.
        if unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } == 0 {
            drop(writer);
            let _ = read(&reader, &mut [0]);
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(0) }
        }
    }
}

macro_rules! siblings {
    ($($name:ident)*) => {
        $(#[body]
        #[isolated(uts)]
        fn $name() {
            super::end_with_siblings();
        })*
    };
}

mod siblings {
    use belljar::isolated;
    use belljar_tests::body;
    siblings!(a b c d e f g h i j k l m n o p q r s t);
}

#[body]
#[isolated]
fn leaves_500_orphans() {
    for _ in 0..500 {
        if let ForkResult::Child = fork() {
            hang();
        }
    }
}

#[body]
#[isolated]
fn leaves_500_that_have_ended() {
    for _ in 0..500 {
        if let ForkResult::Child = fork() {
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(0) };
        }
    }
}

#[body]
#[isolated]
fn drops_a_fork_bomb() {
    // Real root is exempt from the limit, so that the bomb has a fuse of its own.
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NPROC, 100.min(hard), hard).expect("setrlimit");
    for _ in 0..8 {
        // SAFETY: as in `fork`; the children only fork and hang.
        let _ = unsafe { nix::unistd::fork() };
    }
    if getpid() != Pid::from_raw(2) {
        hang();
    }
}

#[body]
#[isolated]
fn kills_all_others() {
    let mut child = Command::new("sleep").arg("1000").spawn().expect("spawn");
    kill(Pid::from_raw(-1), Signal::SIGKILL).expect("kill");
    assert!(!child.wait().expect("wait").success());
}

#[body]
#[isolated]
fn signals_init() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGSEGV] {
        kill(getppid(), signal).expect("kill");
    }
    assert_eq!(getppid(), Pid::from_raw(1));
}

#[body]
#[isolated]
fn reboots() {
    // Outside a pid namespace it would be the machine.
    assert_eq!(getppid(), Pid::from_raw(1));
    // SAFETY: it takes a number.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    hang();
}

#[body]
#[isolated]
fn is_no_session_leader() {
    assert_eq!(getpid(), Pid::from_raw(2));
    assert_eq!(getpgrp(), getpid());
    assert_eq!(getsid(None).expect("getsid"), Pid::from_raw(1));
}

/// Both processes return from the body; only the test's own has a say.
fn return_twice(test_panics: bool, child_panics: bool) {
    match fork() {
        ForkResult::Parent { child } => {
            waitpid(child, None).expect("waitpid");
            assert!(!test_panics, "the test panics");
        }
        ForkResult::Child => assert!(!child_panics, "the child panics"),
    }
}

#[body]
#[isolated]
fn returns_twice() {
    return_twice(false, false);
}

#[body]
#[isolated]
fn panics_in_the_child() {
    return_twice(false, true);
}

#[body]
#[isolated]
fn panics_in_the_test() {
    return_twice(true, false);
}

#[body]
#[isolated]
fn panics_twice() {
    return_twice(true, true);
}

/// Runs `act` in a process that has the test's pid, in a pid namespace of its own. Returns in both, and whether this is
/// the other.
fn in_a_process_with_the_same_pid(act: fn()) -> bool {
    let ForkResult::Child = fork() else {
        wait().expect("wait");
        return false;
    };
    unshare(CloneFlags::CLONE_NEWPID).expect("unshare");
    for _ in 0..2 {
        let ForkResult::Child = fork() else {
            wait().expect("wait");
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(0) };
        };
    }
    assert_eq!(getpid(), Pid::from_raw(2));
    act();
    true
}

#[body]
#[isolated]
fn returns_from_a_process_with_the_same_pid() {
    let is_other = in_a_process_with_the_same_pid(|| println!("it returns"));
    assert!(is_other, "on purpose");
}

#[body]
#[isolated]
fn exits_at_once_after_a_process_with_the_same_pid() {
    in_a_process_with_the_same_pid(|| process::exit(0));
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(0) };
}

#[body]
#[isolated]
fn kills_itself_after_a_process_with_the_same_pid() {
    in_a_process_with_the_same_pid(read_an_invalid_address);
    raise(Signal::SIGKILL).expect("raise");
}
