//! In the test binary, on the thread that the harness runs a test on: ask for a sandbox, tell it the test, pass on its
//! output, judge.

pub(crate) mod census;

mod explain;
mod judge;
mod output;
mod sandbox;
mod spares;

use std::panic::resume_unwind;

use nix::errno::Errno;

use crate::cgroup::DEFAULT_PIDS;
use crate::message;
use crate::spec::Test;
use crate::zygote::{Zygote, zygote};
use judge::{Evidence, Verdict, judge};
use sandbox::{NoSandbox, Sandbox};

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
    let (sandbox, evidence) = match run_in_sandbox(test, zygote) {
        Ok(run) => run,
        // The zygote's end of the request socket is closed.
        Err(NoSandbox::Channel(Errno::EPIPE | Errno::ECONNRESET)) => {
            return Verdict::Failed(message::zygote_gone(name));
        }
        Err(NoSandbox::Channel(errno)) => return Verdict::Failed(message::no_channel(name, errno)),
        Err(NoSandbox::Cgroup(trouble)) => {
            let cause = explain::explain_cgroup(&trouble);
            return Verdict::Failed(message::no_cgroup(name, &trouble, cause.as_ref()));
        }
    };
    let verdict = judge(test, &evidence);
    let has_survivors = !evidence.survivors.is_empty();
    let forks_refused = evidence.events.forks_refused;
    if sandbox.is_mid_line() && (has_survivors || forks_refused > 0 || matches!(verdict, Verdict::Failed(_))) {
        eprintln!();
    }
    if has_survivors {
        eprintln!("{}", message::survivors(name, &evidence.survivors));
    }
    if forks_refused > 0 {
        let limit = test.spec.pids.unwrap_or(DEFAULT_PIDS);
        eprintln!("{}", message::forks_refused(name, forks_refused, limit));
    }
    verdict
}

/// Runs `test` in a spare sandbox, or else in one that is made for it.
fn run_in_sandbox(test: &'static Test, zygote: &Zygote) -> Result<(Sandbox, Evidence), NoSandbox> {
    let _running = spares::begin();
    if let Some(mut sandbox) = spares::take(&test.spec) {
        // A spare that has died, or could not be made, has run nothing. The next one tells why, if that happens again.
        if sandbox.begin(test).is_ok() {
            spares::replenish(zygote, &test.spec);
            let evidence = sandbox.follow(test, zygote);
            if evidence.refused.is_none() {
                return Ok((sandbox, evidence));
            }
        }
    }
    let mut sandbox = Sandbox::request(zygote, &test.spec)?;
    match sandbox.begin(test) {
        // It is over already, and has said why or shows it.
        Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => {}
        Err(errno) => return Err(errno.into()),
    }
    spares::replenish(zygote, &test.spec);
    let evidence = sandbox.follow(test, zygote);
    Ok((sandbox, evidence))
}
