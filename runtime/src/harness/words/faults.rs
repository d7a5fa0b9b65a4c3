//! All messages about calls that were to fail.

use std::fmt::Write as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::may_be::MayBe;
use crate::collect::CollectVec as _;
use crate::diagnosis::Cause;
use crate::faults::definition::Effect;
use crate::harness::evidence::{Evidence, Unanswered};
use crate::harness::supervisor::{Blind, Met, Report, SUPERVISORS_MAX};
use crate::text::{error, plain};

/// How many a message lists.
const LISTED: usize = 20;

/// What calls have met, with the moment of each.
pub(in crate::harness) fn met_when(report: &Report) -> Vec<(u64, String)> {
    report.met.iter().map(|one| (one.at, met(one))).collect_vec()
}

/// A fault that a call has met.
fn met(met: &Met) -> String {
    let subject = met.subject.as_ref().map(|subject| plain(subject.to_string_lossy())).unwrap_or_default();
    let effect = match met.effect {
        Effect::GoOn | Effect::Keep => None,
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
    let effect = delay.into_iter().chain(effect).collect_vec();
    let effect = if effect.is_empty() { "seen".to_owned() } else { effect.join(", ") };
    let mut text = format!(
        "{}({subject}) → {effect}, the fault's {} call, by `{}`",
        met.call,
        ordinal(met.number),
        plain(&met.name)
    );
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

/// What is to be said of faults when a test has failed. `cause` looks for why there was such an error.
pub(in crate::harness) fn faults(
    test: &str,
    evidence: &Evidence,
    cause: impl Fn(Errno) -> Option<Cause>,
) -> Vec<String> {
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
    for blind in report.blind.iter() {
        let what = match blind {
            Blind::IoUring => {
                "has made an io_uring while a fault was active. No fault meets what it does through the io_uring"
            }
            Blind::OtherPrograms => {
                "has run a program for another architecture, such as one with 32 bits, while a fault was active. No fault meets the calls of that \
                 program"
            }
            Blind::NotReadable => {
                "had calls whose path or address could not be read, as of a process that has changed its user: faults with a path, a port or an \
                 address did not meet them"
            }
        };
        told.push(format!("belljar: `{test}` {what}."));
    }
    if let Some(why) = evidence.unanswered_calls {
        let why = match why {
            Unanswered::Failed(errno) => lacking(errno, cause(errno).as_ref()),
            Unanswered::TooMany => {
                format!("more than {SUPERVISORS_MAX} processes have each started a first fault of their own.")
            }
        };
        told.push(format!(
            "belljar: nobody could answer the calls of `{test}` that are watched for faults, so that they failed with ENOSYS: {why}"
        ));
    }
    if let Some(errno) = report.unmet {
        told.push(format!(
            "belljar: a call of `{test}` did not meet a fault that is for it, because the test binary could not see to it: {}",
            lacking(errno, cause(errno).as_ref())
        ));
    }
    told
}

/// What the test binary has met, and what may be why.
fn lacking(errno: Errno, cause: Option<&Cause>) -> String {
    let cause = cause.map_or(String::new(), |cause| format!(" {}", MayBe(cause)));
    format!("{}.{cause}", error(errno))
}

fn count(hits: u64) -> String {
    if hits == 1 { "a fault".to_owned() } else { format!("{hits} faults") }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::sorted::Set;

    fn one(effect: Effect, delay: u64, number: u64) -> Met {
        let subject = Some("/data/wal\n".into());
        Met { call: "fsync", subject, effect, delay, number, name: "server".into(), pid: Some(7), at: 0 }
    }

    #[test]
    fn each_effect_has_its_words() {
        let all = [
            one(Effect::Errno(libc::EIO), 0, 2),
            one(Effect::Errno(4000), 0, 1),
            one(Effect::Returns(-3), 0, 3),
            one(Effect::Short(3), 0, 11),
            one(Effect::Signal(libc::SIGKILL), 0, 112),
            one(Effect::Signal(40), 0, 21),
            one(Effect::GoOn, 1_500_000, 4),
            one(Effect::Errno(libc::ETIMEDOUT), 2_000_000_000, 4),
            one(Effect::GoOn, 0, 4),
            Met { subject: None, pid: None, ..one(Effect::GoOn, 0, 4) },
        ];
        assert_snapshot!(all.iter().map(met).collect::<Vec<_>>().join("\n"), @r"
        fsync(/data/wal\n) → EIO, the fault's 2nd call, by `server`, pid 7
        fsync(/data/wal\n) → errno 4000, the fault's 1st call, by `server`, pid 7
        fsync(/data/wal\n) → returns -3, the fault's 3rd call, by `server`, pid 7
        fsync(/data/wal\n) → short, 3 B, the fault's 11th call, by `server`, pid 7
        fsync(/data/wal\n) → SIGKILL, the fault's 112th call, by `server`, pid 7
        fsync(/data/wal\n) → signal 40, the fault's 21st call, by `server`, pid 7
        fsync(/data/wal\n) → delayed by 1.5ms, the fault's 4th call, by `server`, pid 7
        fsync(/data/wal\n) → delayed by 2s, ETIMEDOUT, the fault's 4th call, by `server`, pid 7
        fsync(/data/wal\n) → seen, the fault's 4th call, by `server`, pid 7
        fsync() → seen, the fault's 4th call, by `server`
        ");
    }

    #[test]
    fn a_failure_tells_all_of_it() {
        let blind = Set::from([Blind::IoUring, Blind::OtherPrograms, Blind::NotReadable]);
        let met = vec![one(Effect::Errno(libc::EIO), 0, 1); 22];
        let faults = Report { met, hits: 30, blind, unmet: Some(Errno::EMFILE) };
        let unanswered_calls = Some(Unanswered::Failed(Errno::EAGAIN));
        let evidence = Evidence { faults, unanswered_calls, ..Evidence::default() };
        let told = super::faults("tests::a", &evidence, |_| None).join("\n");
        assert_eq!(told.lines().filter(|line| line.contains("→")).count(), LISTED);
        let short: Vec<_> = told.lines().filter(|line| !line.contains("→")).collect();
        assert_snapshot!(short.join("\n"), @"
        belljar: `tests::a` met 30 faults that it had asked for:
          and 10 more
        belljar: `tests::a` has made an io_uring while a fault was active. No fault meets what it does through the io_uring.
        belljar: `tests::a` has run a program for another architecture, such as one with 32 bits, while a fault was active. No fault meets the calls of that program.
        belljar: `tests::a` had calls whose path or address could not be read, as of a process that has changed its user: faults with a path, a port or an address did not meet them.
        belljar: nobody could answer the calls of `tests::a` that are watched for faults, so that they failed with ENOSYS: EAGAIN (Try again).
        belljar: a call of `tests::a` did not meet a fault that is for it, because the test binary could not see to it: EMFILE (Too many open files).
        ");
        assert!(super::faults("a", &Evidence::default(), |_| None).is_empty());
    }

    #[test]
    fn why_is_told_if_it_shows() {
        let report = Report { unmet: Some(Errno::ENOMEM), ..Report::default() };
        let cause = |errno| {
            (errno == Errno::ENOMEM).then(|| Cause { why: "WHY".into(), seen: "SEEN".into(), remedy: "REMEDY".into() })
        };
        let told = faults("tests::a", &Evidence { faults: report, ..Evidence::default() }, cause);
        assert_snapshot!(told.join("\n"), @"belljar: a call of `tests::a` did not meet a fault that is for it, because the test binary could not see to it: ENOMEM (Out of memory). It may be that WHY: SEEN. The remedy: REMEDY.");
    }

    #[test]
    fn too_many_processes_with_faults_are_told() {
        let evidence = Evidence { unanswered_calls: Some(Unanswered::TooMany), ..Evidence::default() };
        assert_snapshot!(faults("tests::a", &evidence, |_| None).join("\n"), @"belljar: nobody could answer the calls of `tests::a` that are watched for faults, so that they failed with ENOSYS: more than 8 processes have each started a first fault of their own.");
    }
}
