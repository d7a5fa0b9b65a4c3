//! Turns what is known about a run into a verdict.
//!
//! A test passes only if its body returned, said so, and its process then ended cleanly. Nothing is inferred from
//! silence: all that is not a pass by that rule is a failure with its own message.

use std::time::Duration;

use nix::errno::Errno;

use super::timeout_of;
use super::words;
use crate::cgroup::Events;
use crate::diagnosis::Page;
use crate::diagnosis::explain;
use crate::frame::refusal::OwnedRefusal;
use crate::frame::usage::Usage;
use crate::frame::{Outcome, REPORTED, Step, UNREPORTED};
use crate::harness::processes::Process;
use crate::spec::{Spec, Test};
use crate::sys::{self, End, Fault};
use crate::zygote::is_ending;

/// What became known while a sandbox ran.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// The step of the set-up that failed.
    pub(crate) refused: Option<OwnedRefusal>,
    /// Whether no init was ever born.
    pub(crate) unborn: bool,
    /// Whether the report socket was shut down while the sandbox lived.
    pub(crate) shut_down: bool,
    /// How the body ended.
    pub(crate) outcome: Option<Outcome>,
    /// What it panicked with.
    pub(crate) panic_text: Vec<u8>,
    /// The last line that it has written to standard error: of one that returned an error, that is the error.
    pub(crate) last_line: String,
    /// Whether RLIMIT_NPROC stood in for a cgroup.
    pub(crate) has_process_limit: bool,
    /// Whether `exit` was called before the body was over.
    pub(crate) exiting: bool,
    /// Why the test's process got SIGSEGV or SIGBUS.
    pub(crate) fault: Option<Fault>,
    /// How the test's process ended.
    pub(crate) ended: Option<Ended>,
    /// What was still running when it had ended.
    pub(crate) survivors: Vec<Process>,
    /// How it met its limits.
    pub(crate) events: Events,
    /// Who had most memory at a time.
    pub(crate) largest: Option<Largest>,
    /// What it had used at its end.
    pub(crate) usage: Usage,
    /// Bytes that came over the report socket and were no report.
    pub(crate) rubbish: usize,
    /// What was running when the time was up.
    pub(crate) timed_out: Option<Vec<Process>>,
    /// The processes that make sandboxes, if there was none when the time was up.
    pub(crate) unanswered: Option<Vec<Process>>,
    /// How init ended, if it has not told how the test did, and that is known.
    pub(crate) init_ended: Option<End>,
    /// Whether the zygote is dead.
    pub(crate) zygote_gone: bool,
    /// Why the sandbox could not be watched to its end.
    pub(crate) watching_failed: Option<Errno>,
}

/// The process that had most memory at a time.
#[derive(Debug)]
pub(crate) struct Largest {
    pub(crate) bytes: u64,
    /// None for the test itself.
    pub(crate) name: Option<String>,
    /// Whether it may have been a child of that one.
    pub(crate) had_children: bool,
}

/// How the test's process ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) end: End,
    pub(crate) execed: bool,
    /// The CPU time of all its processes, if none was left.
    pub(crate) cpu: Option<Duration>,
}

/// What the harness is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// The body panicked: with a text, or with something else. It has printed its message itself.
    Panicked(Option<String>),
    /// The host can't make its sandbox, and such tests are to be skipped, with what to print.
    Skipped(String),
    /// Anything else, with what to print.
    Failed(String),
}

/// Why a test did not run.
#[derive(Debug)]
pub(crate) enum Obstacle {
    /// This host can't make its sandbox.
    Host(Page),
    /// It asks for what does not exist, such as a path.
    Mistake(Page),
    /// Too much is in use at the moment.
    Moment(Page),
    /// Anything else, with what to print.
    Other(String),
}

/// The verdict on `test`, if it has run.
pub(crate) fn judge(test: &Test, evidence: &Evidence) -> Result<Verdict, Obstacle> {
    let name = test.short_name();
    if let (Events { oom_kills: 1.., memory_peak, .. }, Some(limit)) = (evidence.events, test.spec.memory) {
        let text = words::out_of_memory(name, limit, memory_peak, evidence.largest.as_ref());
        return Ok(Verdict::Failed(text));
    }
    if let (Some(running), Some(timeout)) = (&evidence.timed_out, timeout_of(test)) {
        return Ok(Verdict::Failed(words::timed_out(name, timeout, test.timeout.is_some(), running)));
    }
    if let (Some(makers), Some(timeout)) = (&evidence.unanswered, timeout_of(test)) {
        return Ok(Verdict::Failed(words::unanswered(name, timeout, test.timeout.is_some(), makers)));
    }
    if let Some(refusal) = &evidence.refused {
        return Err(refused(&test.spec, refusal));
    }
    Ok(judge_run(name, evidence))
}

/// Why a test did not run, a step of whose set-up has failed.
pub(crate) fn refused(spec: &Spec, refusal: &OwnedRefusal) -> Obstacle {
    let OwnedRefusal { step, path, errno, .. } = refusal;
    let page = Page::new(*step, path, *errno, explain(spec, refusal));
    match errno {
        Errno::EAGAIN | Errno::ENOMEM => Obstacle::Moment(page),
        errno if sys::is_of_descriptors(*errno) => Obstacle::Moment(page),
        Errno::ENOENT | Errno::ENOTDIR if matches!(step, Step::Bind | Step::Copy) => Obstacle::Mistake(page),
        _ => Obstacle::Host(page),
    }
}

fn judge_run(name: &str, evidence: &Evidence) -> Verdict {
    if let Some(errno) = evidence.watching_failed {
        return Verdict::Failed(words::watching_failed(name, errno));
    }
    let Some(ended) = evidence.ended else {
        return Verdict::Failed(match evidence {
            _ if is_ending() => words::binary_ends(name),
            Evidence { zygote_gone: true, .. } => words::zygote_gone(name),
            Evidence { unborn: true, .. } => words::unborn(name),
            Evidence { shut_down: true, .. } => words::unreported(name),
            _ => words::init_gone(name, evidence.init_ended),
        });
    };
    match (evidence.outcome, ended.end) {
        (None, _) => Verdict::Failed(ended_early(name, evidence, ended)),
        (Some(_), _) if evidence.rubbish > 0 => Verdict::Failed(words::rubbish(name, evidence.rubbish)),
        (Some(outcome), End::Exited(REPORTED)) => match outcome {
            Outcome::Returned(0) => Verdict::Passed,
            Outcome::Returned(status) => Verdict::Failed(words::returned_failure(name, status)),
            Outcome::Panicked { text: true } => {
                Verdict::Panicked(Some(String::from_utf8_lossy(&evidence.panic_text).into_owned()))
            }
            Outcome::Panicked { text: false } => Verdict::Panicked(None),
        },
        (Some(outcome), end) => {
            let what = match outcome {
                Outcome::Returned(_) => "returned",
                Outcome::Panicked { .. } => "panicked",
            };
            Verdict::Failed(words::ended_badly_after(name, what, end))
        }
    }
}

/// The message about a process that ended with the body not over.
fn ended_early(name: &str, evidence: &Evidence, Ended { end, execed, .. }: Ended) -> String {
    match (end, evidence.fault) {
        _ if execed => words::execed(name, end),
        (End::Exited(UNREPORTED), _) if !evidence.exiting => words::unreported(name),
        (End::Exited(_), _) => words::ended_before_return(name, end, evidence.exiting),
        (End::Killed { .. }, Some(Fault::StackOverflow)) => words::stack_overflow(name),
        (End::Killed { .. }, Some(Fault::Access { address: Some(address) })) => words::fault(name, end, address),
        (End::Killed { signal: libc::SIGSEGV, .. }, None) => words::stack_overflow_elsewhere(name, end),
        (End::Killed { .. }, _) => words::killed(name, end),
    }
}
