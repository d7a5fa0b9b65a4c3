//! What a sweep says of the cases that are bad.

use std::fmt::{self, Display, Formatter};

use super::case::{Bad, Found};
use super::swept::{Ended, Swept};
use crate::faults::Fault;
use crate::sys::End;

/// How many bad cases are listed.
const LISTED: usize = 10;

/// A bad case.
pub(super) struct Finding {
    /// What the sweep had fail.
    pub(super) fault: Fault,
    pub(super) found: Found,
    /// The end of what was printed.
    pub(super) output: String,
}

/// All bad cases, in the order of the calls.
pub(super) struct Findings<'f> {
    pub(super) swept: Swept,
    pub(super) findings: &'f [Finding],
}

impl Display for Findings<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { swept: Swept { calls, cases, .. }, findings } = self;
        let s = if *calls == 1 { "" } else { "s" };
        writeln!(f, "bad cases: {} of {cases} (the body makes {calls} such call{s})", findings.len())?;
        for Finding { fault, found, .. } in findings.iter().take(LISTED) {
            writeln!(f, "  {fault}: {found}")?;
        }
        if findings.len() > LISTED {
            writeln!(f, "  and {} more", findings.len() - LISTED)?;
        }
        if let Some(Finding { output, .. }) = findings.first() {
            if output.trim().is_empty() {
                write!(f, "in the first of them, nothing was printed")?;
            } else {
                write!(f, "in the first of them, this was printed at the end:\n{}", output.trim_end())?;
            }
        }
        Ok(())
    }
}

impl Display for Found {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (whose, bad) = match self {
            Self::Body(bad) => ("the body", bad),
            Self::Check(ended, bad) => {
                f.write_str(match ended {
                    Ended::Returned => "the body returned no error, and ",
                    Ended::Failed => "the body returned an error, and ",
                    Ended::Killed => "the body was killed, and ",
                })?;
                ("the check", bad)
            }
        };
        match bad {
            Bad::Panicked => write!(f, "{whose} panicked"),
            Bad::Hung => write!(f, "{whose} was not over in time"),
            Bad::Died(End::Exited(status)) => write!(f, "{whose} ended its process with the status {status}"),
            Bad::Died(End::Killed { signal, .. }) => write!(f, "{whose} was killed by the signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(call: u64, found: Found, output: &str) -> Finding {
        let fault = Fault::syncing().errno(libc::EIO).path("/data/*").nth(call);
        Finding { fault, found, output: output.to_owned() }
    }

    #[test]
    fn bad_cases_are_told() {
        let killed = End::Killed { signal: libc::SIGABRT, core: false };
        let mut findings = vec![
            finding(1, Found::Body(Bad::Panicked), "thread 'it' panicked\n"),
            finding(2, Found::Body(Bad::Hung), ""),
            finding(3, Found::Body(Bad::Died(End::Exited(3))), ""),
            finding(4, Found::Body(Bad::Died(killed)), ""),
            finding(5, Found::Check(Ended::Returned, Bad::Panicked), ""),
            finding(6, Found::Check(Ended::Failed, Bad::Panicked), ""),
            finding(7, Found::Check(Ended::Killed, Bad::Hung), ""),
        ];
        findings.extend((8..=12).map(|call| finding(call, Found::Body(Bad::Panicked), "")));
        let swept = Swept { calls: 12, cases: 24, missed: 0 };
        insta::assert_snapshot!(Findings { swept, findings: &findings }, @r#"
        bad cases: 12 of 24 (the body makes 12 such calls)
          Fault::syncing().errno(libc::EIO).path("/data/*").nth(1): the body panicked
          Fault::syncing().errno(libc::EIO).path("/data/*").nth(2): the body was not over in time
          Fault::syncing().errno(libc::EIO).path("/data/*").nth(3): the body ended its process with the status 3
          Fault::syncing().errno(libc::EIO).path("/data/*").nth(4): the body was killed by the signal 6
          Fault::syncing().errno(libc::EIO).path("/data/*").nth(5): the body returned no error, and the check panicked
          Fault::syncing().errno(libc::EIO).path("/data/*").nth(6): the body returned an error, and the check panicked
          Fault::syncing().errno(libc::EIO).path("/data/*").nth(7): the body was killed, and the check was not over in time
          Fault::syncing().errno(libc::EIO).path("/data/*").nth(8): the body panicked
          Fault::syncing().errno(libc::EIO).path("/data/*").nth(9): the body panicked
          Fault::syncing().errno(libc::EIO).path("/data/*").nth(10): the body panicked
          and 2 more
        in the first of them, this was printed at the end:
        thread 'it' panicked
        "#);
        insta::assert_snapshot!(Findings { swept, findings: &findings[1..2] }, @r#"
        bad cases: 1 of 24 (the body makes 12 such calls)
          Fault::syncing().errno(libc::EIO).path("/data/*").nth(2): the body was not over in time
        in the first of them, nothing was printed
        "#);
    }
}
