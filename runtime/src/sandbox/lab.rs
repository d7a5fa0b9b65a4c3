//! What the test's process does about the laboratories of its body.

use std::any::Any;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::thread;

use super::channel::frame_socket;
use super::ids::ROOT;
use super::words;
use crate::collect::CollectVec as _;
use crate::frame::moments;
use crate::frame::{Buffer, Frame};
use crate::net::{self, Inside, LeftOnHosts};
use crate::settings::settings;
use crate::spec::{Spec, Test};
use crate::sys;
use crate::text;

/// What a body is taken to have returned that has left a busy thread, if its test expects a panic.
const BUSY: u8 = 1;

/// Tells what sandbox this is, before the body runs.
pub(super) fn prepare(spec: &Spec) {
    let Spec { net, mount, memory, .. } = *spec;
    let user = spec.user.filter(|user| *user != ROOT).map(|(uid, _)| uid);
    let hand_over_host = settings().on_fail.map(|_| hand_over_host as _);
    let tell_change = moments::is_wanted().then_some(tell_change as _);
    let hand_over = hand_over_capture;
    net::set_inside(Inside { net, mount, user, memory, hand_over, hand_over_host, tell_change });
}

/// Gives the test binary, outside, the memory that tells of a laboratory. If that fails, there is no capture, and the
/// test binary says that it is missing.
fn hand_over_capture(memory: &[BorrowedFd<'_>; 2]) {
    hand_over(&Frame::Captures, memory);
}

/// Gives the test binary, outside, the namespaces of a host. If that fails, a kept sandbox does not tell of the host.
fn hand_over_host(name: &str, namespaces: &[BorrowedFd<'_>]) {
    hand_over(&Frame::Host(name.as_bytes()), namespaces);
}

/// Tells the test binary, outside, that a fault of a laboratory was changed just now.
fn tell_change(what: &str) {
    hand_over(&Frame::Change { at: moments::clock(), what: what.as_bytes() }, &[]);
}

fn hand_over(frame: &Frame<'_>, fds: &[BorrowedFd<'_>]) {
    if let Some(socket) = frame_socket() {
        let fds = fds.iter().map(|fd| fd.as_raw_fd()).collect_vec();
        let mut buffer = Buffer::new();
        let message = frame.encode(&mut buffer);
        let sent = sys::send_in_time(|| sys::send_with_fds(socket.0.as_fd(), message, &fds));
        if sent.is_err() {
            // Without descriptors, the frame of a capture tells that they are missing.
            let _ = sys::send(socket.0.as_fd(), message);
        }
    }
}

/// What is left on the hosts of a laboratory has its say before the verdict. `None` if the body has no result.
pub(super) fn finish(test: &Test, result: Option<thread::Result<u8>>) -> Option<thread::Result<u8>> {
    let left = net::finish();
    result.map(|result| with_lab(test, result, left))
}

/// The result of the body, with what became of its laboratory: a panic on a host is one of the test. Whichever of two panics is not expected
/// decides. Tells the notes on a failure.
fn with_lab(test: &Test, result: thread::Result<u8>, left: Option<LeftOnHosts>) -> thread::Result<u8> {
    let name = test.short_name();
    let tell = |text: String| drop(io::stderr().write_all(text.as_bytes()));
    let as_payload = |text: String| Box::new(text) as Box<dyn Any + Send>;
    let result = match (result, left) {
        (result, None) => result,
        (Err(payload), Some(LeftOnHosts::Panic(text))) if is_expected(test, &*payload) && is_expected(test, &text) => {
            Err(payload)
        }
        (result, Some(LeftOnHosts::Panic(text))) => {
            tell(words::panicked_on_host(name, &text));
            match result {
                Err(payload) if !is_expected(test, &*payload) => Err(payload),
                _ => Err(as_payload(text)),
            }
        }
        (result, Some(LeftOnHosts::Busy(text))) => {
            tell(words::panicked_on_host(name, &text));
            match result {
                // It is no panic, so that no test may expect it.
                _ if test.should_panic.is_some() => Ok(BUSY),
                Err(payload) => Err(payload),
                Ok(_) => Err(as_payload(text)),
            }
        }
    };
    let is_failure = match &result {
        Ok(status) => *status != 0 || test.should_panic.is_some(),
        Err(payload) => !is_expected(test, &**payload),
    };
    if is_failure {
        net::notes().iter().for_each(|note| tell(words::note_on_lab(name, note)));
    }
    result
}

/// Whether a panic is the one that the test should have.
fn is_expected(test: &Test, payload: &(dyn Any + Send)) -> bool {
    test.should_panic.is_some_and(|expected| text::of_panic(payload).unwrap_or_default().contains(expected))
}
