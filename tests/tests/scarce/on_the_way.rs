//! Descriptors of this user that are on their way through sockets. The kernel counts those of all of its processes together.

use std::fs::File;
use std::io::{IoSlice, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;
use std::{process, thread};

use belljar::{Fault, isolated, prepared};
use belljar_tests::supervisor::{Answer, Calls, Role, run_supervised};
use belljar_tests::{body, this_binary};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::geteuid;

use super::{meeting_place, run_limited};

/// When it has met its neighbour, it hands the test binary what answers its calls.
#[body]
#[isolated(mount, uts)]
fn meets_a_fault() {
    let _neighbour = meet();
    let fault = Fault::new("fsync").errno(libc::EIO).start().expect("a fault");
    let failed = File::create("/tmp/file").and_then(|file| file.sync_all());
    assert_eq!(failed.expect_err("a fault").raw_os_error(), Some(libc::EIO));
    assert_eq!(fault.hits(), 1);
}

/// Waits until the neighbour is there and has them on their way.
fn meet() -> UnixStream {
    loop {
        let met = UnixStream::connect_addr(&meeting_place()).and_then(|mut it| it.read_exact(&mut [0]).map(|()| it));
        match met {
            Ok(neighbour) => return neighbour,
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Meets its neighbour, and has more descriptors on their way than a process may have: for this time, or until the neighbour ends.
fn hold_for(time: Option<Duration>) {
    let listener = UnixListener::bind_addr(&meeting_place()).expect("listen");
    let (mut neighbour, _) = listener.accept().expect("the neighbour's sandbox");
    let (from, to) = UnixStream::pair().expect("a pair");
    let fds = [from.as_raw_fd(); 100];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(from.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).expect("send");
    neighbour.write_all(&[0]).expect("write");
    neighbour.set_read_timeout(time).expect("a timeout");
    let _ = neighbour.read(&mut [0]);
    drop(to);
}

#[body]
fn has_some_on_their_way() {
    hold_for(Some(Duration::from_millis(200)));
}

#[body]
fn has_some_on_their_way_for_long() {
    hold_for(None);
}

/// What a run says in which one of them is a neighbour. It is a user's who has nothing else on its way.
fn run_beside(neighbour: &str, number: u32) -> Option<String> {
    if !geteuid().is_root() {
        println!("not tried: this takes root, who can be other users");
        return None;
    }
    let user = 60_000 + process::id() % 1000 * 2 + number;
    let runner = format!("setpriv --reuid={user} --regid={user} --clear-groups");
    let names = ["body", "on_the_way::meets_a_fault", &format!("on_the_way::{neighbour}")];
    Some(run_limited(Some(&runner), &names, "ulimit -n 64", 2).output)
}

#[test]
fn a_fault_waits_for_descriptors_that_are_on_their_way() {
    let Some(output) = run_beside("has_some_on_their_way", 0) else { return };
    assert!(output.contains("2 passed; 0 failed;"), "{output}");
}

#[test]
fn descriptors_that_stay_on_their_way_are_named() {
    let Some(output) = run_beside("has_some_on_their_way_for_long", 1) else { return };
    assert!(output.contains("test on_the_way::meets_a_fault ... FAILED"), "{output}");
    assert!(output.contains("ETOOMANYREFS (Too many references: cannot splice). It may be that a process may not have so many files open: RLIMIT_NOFILE is 64."), "{output}");
    assert!(!output.contains("the body closed"), "{output}");
}

#[prepared]
fn leaves_a_root() {}

#[isolated(from = leaves_a_root)]
fn starts_from_it() {}

/// Descriptors of what a preparation has left come to the zygote from children of its own.
#[test]
fn what_a_preparation_has_left_waits_for_descriptors_that_are_on_their_way() {
    let name = "on_the_way::starts_from_it";
    // Runs the test while the zygote's children fail to send this message of theirs, and counts those.
    let run = |refused: usize| {
        let mut command = this_binary();
        command.args(["--exact", name, "--test-threads=1"]);
        let mut sent = 0;
        let run = run_supervised(command, name, Calls::These(&[libc::SYS_clone, libc::SYS_sendmsg]), |asked| {
            let is_sent = asked.role == Some(Role::Template) && asked.number == libc::SYS_sendmsg;
            sent += usize::from(is_sent);
            if is_sent && sent == refused { Answer::Fails(Errno::ETOOMANYREFS) } else { Answer::Made }
        });
        let run = run.expect("it ends");
        assert!(run.passed(), "{refused}: {}", run.output);
        sent
    };
    let last = run(0);
    assert_eq!(run(last), last + 1, "it is sent anew");
}
