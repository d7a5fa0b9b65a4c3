use std::fs::File;

use nix::sys::socket::MsgFlags;

use super::*;
use crate::frame::{Buffer, Frame, Outcome, REPORTED};
use crate::harness::fuzzed::TESTS;
use crate::sandbox::send;
use crate::sys::End;

/// A file that stands for a process that is dead.
fn null() -> OwnedFd {
    File::open("/dev/null").expect("/dev/null").into()
}

/// A sandbox of this test, which nobody has made and which has told that it is ready, and its end of the frame socket.
fn ready(test: &'static Test) -> (Sandbox, OwnedFd) {
    let sockets = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (socket, theirs) = sockets.expect("socketpair");
    setsockopt(&socket, PassCred, &true).expect("setsockopt");
    for frame in [Frame::Born, Frame::Copied].iter().take(1 + usize::from(test.spec.hands_out_root())) {
        let mut buffer = Buffer::new();
        sys::send_with_fds(theirs.as_fd(), frame.encode(&mut buffer), &[null().as_raw_fd()]).expect("send");
    }
    (Sandbox { socket, ..Sandbox::made_up(&test.spec, false).expect("descriptors") }, theirs)
}

/// The test passes.
fn pass(theirs: &OwnedFd) {
    send(theirs.as_fd(), &Frame::Finished(Outcome::Returned(0))).expect("send");
    let ended = Frame::Ended { end: End::Exited(REPORTED), execed: false, stays: false, cpu: 0 };
    send(theirs.as_fd(), &ended).expect("send");
}

fn watch(sandbox: &mut Sandbox) -> nix::Result<Ending> {
    sandbox.watch(null().as_fd(), &mut Time::until(None, Instant::now()))
}

/// `begin` reads no last frame, which nobody would act on.
#[test]
fn a_test_is_handed_over_before_more_is_read() {
    for test in &TESTS {
        let (mut sandbox, theirs) = ready(test);
        pass(&theirs);
        assert_eq!(sandbox.begin(test, &RunBy::Harness), Ok(()));
        let mut message = [0; 16];
        let received = sys::receive(theirs.as_fd(), &mut message, MsgFlags::MSG_DONTWAIT).expect("a message");
        assert_eq!(&message[..received.expect("a message").length], address::encode(test));
        assert_eq!(watch(&mut sandbox), Ok(Ending::Over));
    }
}

/// It has ended before its test was handed over.
#[test]
fn what_was_told_before_a_death_is_heard() {
    let (mut sandbox, theirs) = ready(&TESTS[0]);
    pass(&theirs);
    drop(theirs);
    sandbox.progress.begin(&TESTS[0]);
    assert_eq!(watch(&mut sandbox), Ok(Ending::Over));
}

/// The clock is looked at when so many frames have been read, or a question has been answered.
#[test]
fn who_sends_without_end_is_left_for_a_while() {
    for (frame, count) in [(Frame::Exiting, FRAMES_AT_ONCE - 1), (Frame::AskUsage, 1)] {
        let (mut sandbox, theirs) = ready(&TESTS[0]);
        (0..count).for_each(|_| send(theirs.as_fd(), &frame).expect("send"));
        pass(&theirs);
        assert_eq!(sandbox.take_frames(), Ok(None));
        assert_eq!(sandbox.take_frames(), Ok(Some(Ending::Over)));
    }
}
