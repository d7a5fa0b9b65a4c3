//! Where belljar begins in a process, and where it ends: a constructor before `main`, and a handler at exit.
//!
//! Constructors with a priority run before this one. This one then runs those that come later in `.init_array`.
//! The C library hands it the arguments of `main`, which the standard library does not know yet.
//!
//! This is the only file that knows both the harness and the zygote's fork.
#![expect(unsafe_code, reason = "a constructor")]

use std::ffi::{OsString, c_char, c_int};
use std::process::ExitCode;

use crate::cgroup;
use crate::harness::{self, doctor, forks, listed_twice, pool, report, spare, trace, unsupported};
use crate::proc::arguments;
use crate::settings::settings;
use crate::spec::Test;
use crate::sys::{self, Constructor, MainArguments};
use crate::zygote;

/// Has the C library call [`enter`] before `main`. Without a priority it comes after all that have one.
/// glibc passes it the arguments of `main`. musl passes nothing, and constructors there expect nothing.
/// Miri can't fork, and a fuzzer runs no test.
#[used]
#[cfg_attr(not(any(miri, fuzzing)), unsafe(link_section = ".init_array"))]
static ENTRY: Constructor = enter;

extern "C" fn enter(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) {
    // Before the fork, so that both processes go by the same.
    settings();
    let form = doctor::asked();
    if runs_tests() {
        // So that the zygote has all that they make, and they run once, where `main` will.
        // SAFETY: `ENTRY` lies in `.init_array`, and it is its turn.
        match unsafe { sys::run_constructors_behind(&raw const ENTRY, MainArguments(argc, argv, envp)) } {
            Ok(()) if zygote::start(leave, name_one_test(arguments())) => {
                pool::watch_mounts();
                forks::prepare();
            }
            Ok(()) => {}
            Err(errno) => zygote::fail(errno),
        }
        if let Some(form) = form {
            doctor::tell_and_exit(form);
        }
    }
}

/// Runs the `main` of a program in a sandbox. Arguments by which a harness is told to run no test are the program's own: there may be no
/// zygote yet.
pub fn main(test: &'static Test) -> ExitCode {
    if zygote::zygote().is_none() && zygote::start(leave, false) {
        forks::prepare();
    }
    harness::main(test)
}

/// Whether the arguments leave a libtest harness anything to run.
fn runs_tests() -> bool {
    !arguments().iter().skip(1).any(|argument| argument == "--list" || argument == "--help" || argument == "-h")
}

/// Whether these arguments name one test, as those of nextest do: `--exact NAME --nocapture`. Its function may ask for more sandboxes than one.
fn name_one_test(arguments: Vec<OsString>) -> bool {
    let (options, names): (Vec<_>, Vec<_>) =
        arguments.into_iter().skip(1).partition(|argument| argument.as_encoded_bytes().starts_with(b"-"));
    names.len() == 1 && options.iter().any(|option| option == "--exact")
}

/// Ends the zygote, and tells what is told when no test runs any more. A fork of the test binary leaves both to that.
extern "C" fn leave() {
    if zygote::end() {
        // It takes a descriptor.
        spare::look(cgroup::clean_up);
        report::print();
        trace::print();
        unsupported::print();
        listed_twice::print();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_test_is_named() {
        let name_one = |arguments: &[&str]| name_one_test(arguments.iter().map(OsString::from).collect());
        assert!(name_one(&["binary", "--exact", "a::test", "--nocapture"]));
        assert!(name_one(&["binary", "a::test", "--exact"]));
        assert!(!name_one(&["binary", "a::test"]), "others have it in their names");
        assert!(!name_one(&["binary", "--exact", "a::test", "another"]));
        assert!(!name_one(&["binary", "--exact"]), "all tests");
    }
}
