//! The time that a test has, and how what happens meanwhile is waited for.

use std::mem;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use crate::collect::CollectVec as _;
use crate::sys;

/// The time that a test has left, if it has a timeout.
///
/// What counts is the time in which this process runs. Somebody may stop it (Ctrl-Z), and sandboxes with it or not: a test that waits for
/// this process, such as for its output to be read, could do nothing meanwhile. The kernel does not tell of a stop. So this process looks at
/// the clock at least once a pulse, and if more time has passed, it was stopped.
pub(super) struct Time {
    left: Option<Duration>,
    pulse: Duration,
    counted: Instant,
}

impl Time {
    /// The most of the time of a stop that counts.
    const PULSE: Duration = Duration::from_secs(1);

    pub(super) fn until(deadline: Option<Instant>, now: Instant) -> Self {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let pulse = left.map_or(Self::PULSE, |left| Self::PULSE.min(left / 4).max(Duration::from_millis(1)));
        Self { left, pulse, counted: now }
    }

    /// Counts what has passed since the last time.
    pub(super) fn count(&mut self, now: Instant) {
        let passed = (now - mem::replace(&mut self.counted, now)).min(self.pulse);
        self.left = self.left.map(|left| left.saturating_sub(passed));
    }

    /// When it is to be counted again.
    pub(super) fn pulse(&self) -> Option<Instant> {
        self.left.map(|left| self.counted + left.min(self.pulse))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.left.and_then(|left| self.counted.checked_add(left))
    }

    pub(super) fn is_up(&self) -> bool {
        self.left.is_some_and(|left| left.is_zero())
    }
}

/// Waits until one of `fds` has something to say, or the time is up. Returns which have.
pub(super) fn wait(fds: [Option<BorrowedFd<'_>>; 4], deadline: Option<Instant>) -> nix::Result<[bool; 4]> {
    let mut polled = fds.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect_vec();
    loop {
        match poll(&mut polled, sys::time_left(deadline)) {
            Err(Errno::EINTR) => {}
            result => {
                result?;
                break;
            }
        }
    }
    let mut polled = polled.iter();
    let [a, b, c, d] = fds;
    let mut is_ready = |fd: Option<_>| fd.is_some() && polled.next().and_then(PollFd::any).unwrap_or(false);
    Ok([is_ready(a), is_ready(b), is_ready(c), is_ready(d)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_stop_counts_as_a_pulse_and_all_else_in_full() {
        let begun = Instant::now();
        let mut time = Time::until(Some(begun + SECOND * 4), begun);
        assert_eq!(time.pulse(), Some(begun + SECOND));
        let mut count_at = |at: Duration| {
            time.count(begun + at);
            time.left
        };
        assert_eq!(count_at(SECOND * 1000), Some(SECOND * 3));
        assert_eq!(count_at(SECOND * 1000 + SECOND / 2), Some(SECOND * 5 / 2));
        assert_eq!(count_at(SECOND * 1001), Some(SECOND * 2));
        assert_eq!(count_at(SECOND * 1002), Some(SECOND));
        assert_eq!(count_at(SECOND * 1003 - Duration::from_nanos(1)), Some(Duration::from_nanos(1)));
        assert!(!time.is_up());
        // The wait ends when the last of it has passed, and not a pulse later.
        assert_eq!(time.pulse(), Some(begun + SECOND * 1003));
        time.count(begun + SECOND * 1003);
        assert!(time.is_up());
    }
}
