//! Bodies that end by themselves.

use std::{process, thread};

use belljar::isolated;
use belljar_tests::{body, hang};
use nix::sys::signal::{Signal, raise};

use crate::hostile::{panics_as_it_should, returns};

#[body]
#[isolated]
fn exits_0() {
    process::exit(0);
}

#[body]
#[isolated]
fn exits_1() {
    process::exit(1);
}

#[body]
#[isolated]
fn exits_like_one_that_reported() {
    process::exit(90);
}

#[body]
#[isolated]
fn exits_like_one_that_could_not_report() {
    process::exit(91);
}

#[body]
#[isolated]
fn exits_from_another_thread() {
    thread::spawn(|| process::exit(0));
    hang();
}

#[body]
#[isolated]
fn exits_0_at_once() {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(0) };
}

#[body]
#[isolated]
fn exits_101_at_once() {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(101) };
}

#[body]
#[isolated]
fn exits_at_once_like_one_that_reported() {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(90) };
}

#[body]
#[isolated]
#[should_panic]
fn exits_0_although_it_should_panic() {
    process::exit(0);
}

#[body]
#[isolated]
fn calls_another_test() {
    returns();
}

#[body]
#[isolated]
#[should_panic]
fn calls_another_test_although_it_should_panic() {
    returns();
}

#[body]
#[isolated]
fn calls_another_test_that_should_panic() {
    panics_as_it_should();
    println!("and goes on");
}

#[body]
#[isolated]
#[should_panic]
fn exits_1_although_it_should_panic() {
    process::exit(1);
}

#[body]
#[isolated]
#[should_panic]
fn exits_0_at_once_although_it_should_panic() {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(0) };
}

#[body]
#[isolated]
#[should_panic]
fn aborts_although_it_should_panic() {
    process::abort();
}

#[body]
#[isolated]
#[should_panic(expected = "on purpose")]
fn exits_after_a_panic_that_was_caught() {
    let _ = std::panic::catch_unwind(|| panic!("on purpose"));
    process::exit(0);
}

extern "C" fn kill_this_process() {
    let _ = raise(Signal::SIGKILL);
}

#[body]
#[isolated]
fn dies_in_an_exit_handler() {
    // SAFETY: a function pointer is all that atexit asks for.
    unsafe { libc::atexit(kill_this_process) };
}

extern "C" fn exit_this_process() {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(0) };
}

#[body]
#[isolated]
fn exits_0_in_an_exit_handler() {
    // SAFETY: a function pointer is all that atexit asks for.
    unsafe { libc::atexit(exit_this_process) };
}
