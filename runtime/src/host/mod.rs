//! In the test binary, on the thread that the harness runs a test on: ask for a sandbox, tell it the test, pass on its
//! output, judge.

pub(crate) mod census;

mod explain;
mod judge;
mod output;
mod sandbox;

use std::panic::resume_unwind;

use crate::message;
use crate::spec::Test;
use crate::zygote::zygote;
use judge::{Verdict, judge};
use sandbox::Sandbox;

/// Runs `test` in a sandbox of its own. Returns if it passed, and panics otherwise, as a test does.
///
/// The panic has the body's message, and is not printed again. Where `#[should_panic]` would take *any* panic for a
/// pass, a failure that is none of the body's returns: the harness then says that the test did not panic.
pub fn run(test: &'static Test) {
    match verdict(test) {
        Verdict::Passed => {}
        Verdict::Panicked(Some(text)) => resume_unwind(Box::new(text)),
        Verdict::Panicked(None) => resume_unwind(Box::new(NoText)),
        Verdict::Failed(text) => {
            eprintln!("{text}");
            if !test.should_panic {
                resume_unwind(Box::new(NoText));
            }
        }
    }
}

/// What a test panics with when its message has been printed, or can't be known.
struct NoText;

fn verdict(test: &'static Test) -> Verdict {
    let name = test.short_name();
    let zygote = match zygote() {
        Some(Ok(zygote)) => zygote,
        Some(Err(errno)) => return Verdict::Failed(message::no_zygote(name, *errno)),
        None => return Verdict::Failed(message::not_a_test_run(name)),
    };
    let (mut sandbox, channel) = match Sandbox::open() {
        Ok(opened) => opened,
        Err(errno) => return Verdict::Failed(message::no_channel(name, errno)),
    };
    let evidence = sandbox.run(test, zygote, channel);
    let verdict = judge(test, &evidence);
    let has_survivors = !evidence.survivors.is_empty();
    if sandbox.is_mid_line() && (has_survivors || matches!(verdict, Verdict::Failed(_))) {
        eprintln!();
    }
    if has_survivors {
        eprintln!("{}", message::survivors(name, &evidence.survivors));
    }
    verdict
}
