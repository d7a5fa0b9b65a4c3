//! What expansions of the attributes name.

#[cfg(target_os = "linux")]
pub use crate::harness::bytes::spec;
#[cfg(target_os = "linux")]
pub use crate::harness::run;
#[cfg(target_os = "linux")]
pub use crate::sandbox::must_be_inside;
#[cfg(target_os = "linux")]
pub use crate::spec::{Bind, Ids, Root, Spec, Test};
#[cfg(target_os = "linux")]
pub use crate::start::main;
pub use belljar_macros::{isolated_case, isolated_in_module};

use std::process::{ExitCode, Termination};

/// Fails to compile in a function that no program begins with: by the path of its module. Merged documentation tests have modules.
#[cfg(target_os = "linux")]
pub const fn must_be_a_program(module: &str) {
    let is_root = !contains(module.as_bytes(), b":");
    let is_program = is_root || contains(module.as_bytes(), MERGED);
    assert!(is_program, "no program begins with this `main`: write `#[isolated] #[test] fn main()` if it is a test");
}

/// Fails to compile in a documentation test, which calls no functions but `main`.
#[cfg(target_os = "linux")]
pub const fn must_not_be_documentation(module: &str) {
    let path = module.as_bytes();
    let is_documentation =
        begins(path, 0, b"rust_out") && (path.len() == 8 || path[8] == b':') || contains(path, MERGED);
    assert!(
        !is_documentation,
        "a documentation test calls no test: write ```test_harness in the place of ```, or `#[isolated] fn main()`"
    );
}

/// What begins the names of modules that merged documentation tests are in.
#[cfg(target_os = "linux")]
const MERGED: &[u8] = b"__doctest_";

#[cfg(target_os = "linux")]
const fn contains(path: &[u8], mark: &[u8]) -> bool {
    let mut at = 0;
    while at < path.len() {
        if begins(path, at, mark) {
            return true;
        }
        at += 1;
    }
    false
}

/// Whether `path` goes on with `mark` at this place.
#[cfg(target_os = "linux")]
const fn begins(path: &[u8], at: usize, mark: &[u8]) -> bool {
    let (mut length, mut is_mark) = (0, at + mark.len() <= path.len());
    while is_mark && length < mark.len() {
        is_mark = path[at + length] == mark[length];
        length += 1;
    }
    is_mark
}

/// What `#[prepared]` makes of a function.
#[cfg(target_os = "linux")]
#[diagnostic::on_unimplemented(
    message = "`from` takes a preparation",
    label = "this is none: write `#[prepared]` on the function"
)]
pub trait Prepared {
    /// What is run for it.
    const TEST: &'static Test;
}

/// What a test may return.
#[diagnostic::on_unimplemented(
    message = "a test can't return `{Self}`",
    label = "write no type, or `Result<(), E>` with an error `E` that implements `Debug`",
    note = "a test returns what implements `std::process::Termination`"
)]
pub trait Returned: Termination {}

#[diagnostic::do_not_recommend]
impl<T: Termination> Returned for T {}

/// Calls `body`, and returns the status that its value stands for, as the harness would.
pub fn status<T: Returned>(body: fn() -> T) -> u8 {
    let code = __rust_begin_short_backtrace(body).report();
    // An exit code shows its number only by comparison. It has one: this is Unix.
    (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(u8::MAX)
}

/// By this name the standard library knows where the user's part of a backtrace begins.
#[inline(never)]
fn __rust_begin_short_backtrace<T>(body: fn() -> T) -> T {
    let value = body();
    // Keeps this frame, which a call at the end would not need.
    std::hint::black_box(());
    value
}
