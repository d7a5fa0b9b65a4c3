//! The time that a test has, and how what happens meanwhile is waited for.

use std::mem;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

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

    pub(super) fn begin(timeout: Option<Duration>) -> Self {
        let pulse = timeout.map_or(Self::PULSE, |timeout| Self::PULSE.min(timeout / 4).max(Duration::from_millis(1)));
        Self { left: timeout, pulse, counted: Instant::now() }
    }

    /// Counts what has passed since the last time.
    pub(super) fn count(&mut self) {
        let now = Instant::now();
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
pub(super) fn wait<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    deadline: Option<Instant>,
) -> nix::Result<[bool; N]> {
    let mut polled: Vec<_> = fds.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
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
    Ok(fds.map(|fd| fd.is_some() && polled.next().and_then(PollFd::any).unwrap_or(false)))
}
