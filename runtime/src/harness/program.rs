//! Programs whose `main` runs in a sandbox: what their exit status is.

use std::process::ExitCode;

use super::judge::Verdict;
use super::run::{find, with_usual_stack};
use super::run_by::RunBy;
use super::words;
use crate::frame::Outcome;
use crate::sandbox::must_be_outside;
use crate::spec::Test;

/// The status of a program that has failed: what Rust programs end with that panic.
const FAILED: u8 = 101;

/// Runs the `main` of a program in a sandbox. Returns what `main` has returned, and a failure if it did not come so far.
pub(crate) fn main(test: &'static Test) -> ExitCode {
    must_be_outside(test.short_name());
    let (verdict, evidence) = with_usual_stack(move || find(test, &RunBy::Main));
    let status = match verdict {
        Verdict::Passed => return ExitCode::SUCCESS,
        Verdict::Skipped(text) => {
            eprintln!("{text}");
            return ExitCode::SUCCESS;
        }
        Verdict::Panicked(text) => {
            eprintln!("{}", words::panicked(test.short_name(), text.as_deref()));
            FAILED
        }
        Verdict::Failed(text) => {
            eprintln!("{text}");
            match evidence.and_then(|evidence| evidence.outcome) {
                Some(Outcome::Returned(status)) if text == words::returned_failure(test.short_name(), status) => status,
                _ => FAILED,
            }
        }
    };
    ExitCode::from(status)
}
