//! All messages about calls that were to fail.

use std::fmt::Write as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::faults::definition::Effect;
use crate::harness::evidence::Evidence;
use crate::harness::supervisor::{Blind, Met};
use crate::text::{error, plain};

/// How many a message lists.
const LISTED: usize = 20;

/// A fault that a call has met.
pub(in crate::harness) fn met(met: &Met) -> String {
    let subject = met.subject.as_ref().map(|subject| plain(subject.to_string_lossy())).unwrap_or_default();
    let effect = match met.effect {
        Effect::Nothing | Effect::Keep => None,
        Effect::Errno(errno) => Some(match Errno::from_raw(errno) {
            Errno::UnknownErrno => format!("errno {errno}"),
            errno => format!("{errno:?}"),
        }),
        Effect::Returns(value) => Some(format!("returns {value}")),
        Effect::Short(bytes) => Some(format!("short, {bytes} B")),
        Effect::Signal(signal) => {
            Some(Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string()))
        }
    };
    let delay = (met.delay > 0).then(|| format!("delayed by {:?}", Duration::from_nanos(met.delay)));
    let effect: Vec<_> = delay.into_iter().chain(effect).collect();
    let effect = if effect.is_empty() { "seen".to_owned() } else { effect.join(", ") };
    let mut text =
        format!("{}({subject}) → {effect}, {} call of `{}`", met.call, ordinal(met.number), plain(&met.name));
    if let Some(pid) = met.pid {
        let _ = write!(text, ", pid {pid}");
    }
    text
}

fn ordinal(number: u64) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// What is to be said of faults when a test has failed.
pub(in crate::harness) fn faults(test: &str, evidence: &Evidence) -> Vec<String> {
    let report = &evidence.faults;
    let mut told = Vec::new();
    if report.hits > 0 {
        let mut text = format!("belljar: `{test}` met {} that it had asked for:", count(report.hits));
        for one in report.met.iter().take(LISTED) {
            let _ = write!(text, "\n  {}", met(one));
        }
        let rest = report.hits.saturating_sub(report.met.len().min(LISTED) as u64);
        if rest > 0 {
            let _ = write!(text, "\n  and {rest} more");
        }
        told.push(text);
    }
    for blind in &report.blind {
        let what = match blind {
            Blind::IoUring => "has made an io_uring while a fault was active: what it does by that, no fault meets",
            Blind::OtherPrograms => {
                "has run a program for another architecture, such as one with 32 bits, while a fault was active: its calls, no fault meets"
            }
            Blind::NotReadable => {
                "had calls whose path or address could not be read, as of a process that has changed its user: faults with a path, a port or an \
                 address did not meet them"
            }
        };
        told.push(format!("belljar: `{test}` {what}."));
    }
    if let Some(errno) = evidence.unanswered_calls {
        told.push(format!(
            "belljar: nobody could answer the calls of `{test}` that are watched for faults, so that they failed with ENOSYS: {}.",
            error(errno)
        ));
    }
    told
}

fn count(hits: u64) -> String {
    if hits == 1 { "a fault".to_owned() } else { format!("{hits} faults") }
}
