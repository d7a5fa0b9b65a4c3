//! Bodies that do bad things to descriptors.

use std::fs::File;
use std::io::Write as _;
use std::{fs, io, process};

use belljar::isolated;
use belljar_tests::{body, fork, hang};
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use nix::unistd::ForkResult;

use crate::hostile::MILLION;

#[body]
#[isolated]
fn closes_every_descriptor() {
    for fd in 0..4096 {
        // SAFETY: none; that is the point.
        unsafe { libc::close(fd) };
    }
}

#[body]
#[isolated]
fn replaces_every_descriptor() {
    let file = File::options().write(true).create_new(true).open("/tmp/victim").expect("open");
    for fd in 3..4096 {
        // SAFETY: none; that is the point.
        unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&file), fd) };
    }
    // The file has the number of the descriptor that leads to the test binary now. Nothing may be written to it.
    extern "C" fn look() {
        let text = fs::read_to_string("/tmp/victim").unwrap_or_default();
        let verdict = if text.is_empty() { "the file is empty\n" } else { "the file was written to\n" };
        let _ = io::stdout().write_all(verdict.as_bytes());
    }
    // SAFETY: a function pointer is all that atexit asks for.
    unsafe { libc::atexit(look) };
    std::mem::forget(file);
}

fn write_rubbish() {
    for fd in 0..4096 {
        for rubbish in [&b"rubbish"[..], &[0; 4096], &[0xff; 64]] {
            // SAFETY: the buffer is valid. That the descriptors are others' is the point.
            unsafe { libc::write(fd, rubbish.as_ptr().cast(), rubbish.len()) };
        }
    }
}

#[body]
#[isolated]
fn writes_rubbish_to_every_descriptor() {
    write_rubbish();
}

#[body]
#[isolated]
fn writes_rubbish_and_exits_0() {
    write_rubbish();
    process::exit(0);
}

/// A message of no bytes looks to its reader like the end of all messages.
#[body]
#[isolated]
fn sends_nothing_to_every_descriptor() {
    for number in 3..1024 {
        let _ = send(number, b"", MsgFlags::empty());
    }
    if let ForkResult::Child = fork() {
        hang();
    }
}

/// Writes reports, as belljar's own processes do.
fn report(frames: &[&[u8]]) {
    for number in 3..1024 {
        for frame in frames {
            let _ = send(number, &[b"\xbeJar", *frame].concat(), MsgFlags::empty());
        }
    }
}

/// That the body has returned, and that it has panicked with something that is no text.
const RETURNED: &[u8] = &[3, 0, 0];
const PANICKED: &[u8] = &[3, 1, 0];

#[body]
#[isolated]
fn reports_the_end_of_its_process() {
    let ended = [&[6, 0, 0, 0, 0], &90_i32.to_ne_bytes()[..], &[0; 8]].concat();
    report(&[RETURNED, &ended]);
    process::exit(3);
}

#[body]
#[isolated]
fn reports_a_return_and_panics() {
    report(&[RETURNED]);
    panic!("on purpose");
}

#[body]
#[isolated]
#[should_panic]
fn reports_a_panic_and_returns() {
    report(&[PANICKED]);
}

#[body]
#[isolated(unsupported = "skip")]
fn reports_a_refusal_and_returns() {
    // Of new namespaces, with EPERM.
    report(&[&[&[1, 12], &1_i32.to_ne_bytes()[..], &[0; 2]].concat()]);
}

#[body]
#[isolated]
fn writes_a_byte_to_every_descriptor() {
    for number in 3..1024 {
        let _ = send(number, b"x", MsgFlags::empty());
    }
}

#[body]
#[isolated]
fn shuts_every_socket_down() {
    for number in 3..1024 {
        let _ = shutdown(number, Shutdown::Both);
    }
    hang();
}

#[body]
#[isolated]
#[should_panic(expected = "the end")]
fn makes_no_descriptor_wait() {
    for number in 0..1024 {
        // SAFETY: the command takes an integer; whoever uses the descriptor finds out.
        let _ = unsafe { libc::fcntl(number, libc::F_SETFL, libc::O_NONBLOCK) };
    }
    panic!("{}, the end", "x".repeat(MILLION));
}
