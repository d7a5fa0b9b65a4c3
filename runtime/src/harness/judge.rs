//! Turns what is known about a run into a verdict.
//!
//! A test passes only if its body returned, said so, and its process then ended cleanly. Nothing is inferred from
//! silence: all that is not a pass by that rule is a failure with its own message.
//!
//! The body's word comes from its own process, so that a body can forge it. How that process ended is init's word, and the kernel says
//! who has sent it. So a forger must end the process as belljar does, or send a message in the name of init, as root may. Nobody does that
//! by accident.

use nix::errno::Errno;

use super::evidence::{Ended, Evidence};
use super::words;
use crate::cgroup::Events;
use crate::diagnosis::{Cause, Page, death, explain, lack, no_more_memory};
use crate::frame::{Outcome, REPORTED, Refusal, Step, UNREPORTED};
use crate::settings::settings;
use crate::spec::{Root, Spec, Test};
use crate::sys::{self, Crash, End};

/// The verdict on a test, and what it rests on, if the test ran.
pub(super) type Found = (Verdict, Option<Box<Evidence>>);

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

impl Verdict {
    /// Whether this is the panic that the test should have.
    pub(super) fn is_expected(&self, test: &Test) -> bool {
        let Verdict::Panicked(text) = self else { return false };
        test.should_panic.is_some_and(|expected| text.as_deref().unwrap_or_default().contains(expected))
    }
}

/// Why a test did not run.
#[derive(Debug)]
pub(crate) enum Obstacle {
    /// This host can't make its sandbox.
    Host(Page),
    /// It asks for what does not exist, such as a path.
    BadRequest(Page),
    /// Too much is in use at the moment.
    Busy(Page),
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
    if let (Some(running), Some(timeout)) = (&evidence.timed_out, settings().timeout_of(test.timeout)) {
        return Ok(Verdict::Failed(words::timed_out(name, timeout, test.timeout.is_some(), running)));
    }
    if let (Some(makers), Some(timeout)) = (&evidence.unanswered, settings().timeout_of(test.timeout)) {
        return Ok(Verdict::Failed(words::unanswered(name, timeout, test.timeout.is_some(), makers)));
    }
    match (&evidence.refused, evidence.rubbish) {
        (Some(refusal), None) => Err(refused(&test.spec, refusal)),
        // Not all that was said of it can be true, so that this is not taken for a reason to skip it.
        (Some(_), Some(bytes)) => Ok(Verdict::Failed(words::rubbish(name, bytes))),
        (None, _) => Ok(judge_faults(test, evidence, judge_run(name, evidence))),
    }
}

/// No test passes whose calls did not meet what they were to meet.
fn judge_faults(test: &Test, evidence: &Evidence, verdict: Verdict) -> Verdict {
    let what = match &verdict {
        Verdict::Passed => "its body returned",
        verdict if verdict.is_expected(test) => "its body panicked",
        _ => return verdict,
    };
    // A watched call had no answer and failed with ENOSYS, so that no fault could happen to it.
    if evidence.unanswered_calls.is_some() {
        Verdict::Failed(words::calls_unanswered(test.short_name(), what))
    } else if evidence.faults.unmet.is_some() {
        Verdict::Failed(words::fault_unmet(test.short_name(), what))
    } else {
        verdict
    }
}

/// Why a test did not run, a step of whose set-up has failed.
pub(crate) fn refused(spec: &Spec, refusal: &Refusal) -> Obstacle {
    let Refusal { step, errno, .. } = refusal;
    let page = Page::new(*step, &refusal.path(), *errno, explain(spec, refusal));
    match errno {
        Errno::EAGAIN | Errno::ENOMEM => Obstacle::Busy(page),
        errno if sys::is_of_descriptors(*errno) => Obstacle::Busy(page),
        Errno::ENOENT | Errno::ENOTDIR | Errno::ETIMEDOUT
            if matches!(step, Step::Bind | Step::MountPoint | Step::Copy) =>
        {
            Obstacle::BadRequest(page)
        }
        // The image has something else where a sandbox needs a directory or a file. That is no fault of the host's.
        _ if matches!(spec.root, Root::Image(_)) && is_of_files(*step) => Obstacle::BadRequest(page),
        _ => Obstacle::Host(page),
    }
}

/// Whether a step makes what a root consists of.
fn is_of_files(step: Step) -> bool {
    use Step::{Directory, File, MountPoint, Symlink, User, WorkingDirectory};
    matches!(step, Directory | File | MountPoint | Symlink | User | WorkingDirectory)
}

/// The limit because of which a call found no memory, if that is its error.
pub(crate) fn lack_of_memory(errno: Errno) -> Option<Cause> {
    matches!(errno, Errno::ENOMEM | Errno::ENOBUFS).then(no_more_memory).flatten()
}

fn judge_run(name: &str, evidence: &Evidence) -> Verdict {
    if let Some(errno) = evidence.watching_failed {
        return Verdict::Failed(words::watching_failed(name, errno, lack(errno).as_ref()));
    }
    let Some(ended) = evidence.ended else {
        return Verdict::Failed(match evidence {
            Evidence { binary_ends: true, .. } => words::binary_ends(name),
            Evidence { zygote_gone: true, zygote_ended: end, .. } => {
                words::zygote_gone(name, *end, death(*end).as_ref())
            }
            Evidence { unborn: true, .. } => words::unborn(name, death(None).as_ref()),
            Evidence { shut_down: true, .. } => words::unreported(name),
            Evidence { init_ended: end, .. } => {
                // With the template, whatever ends that, its inits are killed.
                let is_killed = matches!(end, Some(End::Killed { signal: libc::SIGKILL, .. }));
                let cause = death(end.filter(|_| !is_killed));
                words::init_gone(name, *end, cause.as_ref())
            }
        });
    };
    if let (Some(_), Some(bytes)) = (evidence.outcome, evidence.rubbish) {
        return Verdict::Failed(words::rubbish(name, bytes));
    }
    match (evidence.outcome, ended.end) {
        (None, _) => Verdict::Failed(ended_early(name, evidence, ended)),
        (Some(outcome), End::Exited(REPORTED)) => match outcome {
            Outcome::Returned(0) => Verdict::Passed,
            Outcome::Returned(status) => Verdict::Failed(words::returned_failure(name, status)),
            Outcome::Panicked { text: true } => {
                Verdict::Panicked(Some(String::from_utf8_lossy(&evidence.panic_text).into_owned()))
            }
            Outcome::Panicked { text: false } => Verdict::Panicked(None),
            Outcome::Vanished => Verdict::Failed(words::thread_ended(name)),
        },
        (Some(outcome), end) => {
            let what = match outcome {
                Outcome::Returned(_) => "returned",
                Outcome::Panicked { .. } => "panicked",
                Outcome::Vanished => "ended its thread",
            };
            Verdict::Failed(words::ended_badly_after(name, what, end, death(Some(end)).as_ref()))
        }
    }
}

/// The message about a process that ended with the body not over.
fn ended_early(name: &str, evidence: &Evidence, Ended { end, execed, .. }: Ended) -> String {
    match (end, evidence.crash) {
        _ if execed => words::execed(name, end),
        (End::Exited(UNREPORTED), _) if !evidence.exiting => match evidence.unanswered_calls {
            Some(_) => words::calls_unanswered(name, "its process could not report how the body ended"),
            None => words::unreported(name),
        },
        (End::Exited(_), _) => words::ended_before_return(name, end, evidence.exiting),
        // A fault may have been put right, so that what ended the process is another one.
        (End::Killed { signal: libc::SIGSEGV | libc::SIGBUS, .. }, Some(Crash::StackOverflow)) => {
            words::stack_overflow(name)
        }
        (End::Killed { signal: libc::SIGSEGV | libc::SIGBUS, .. }, Some(Crash::Access { address: Some(address) })) => {
            words::fault(name, end, address)
        }
        (End::Killed { signal: libc::SIGSEGV, .. }, None) => words::fault_unheard(name, end),
        (End::Killed { .. }, _) => words::killed(name, end, death(Some(end)).as_ref()),
    }
}
