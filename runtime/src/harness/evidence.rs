//! What becomes known of a test while it runs: all that its verdict rests on.

use std::fs::File;
use std::time::Duration;

use nix::errno::Errno;

use super::kept_host::KeptHost;
use super::processes::Process;
use super::supervisor::Report;
use crate::cgroup::Events;
use crate::frame::usage::Usage;
use crate::frame::{Outcome, Refusal};
use crate::sys::{Crash, End};

/// The most bytes of a panic's text that are kept: many times what anybody reads.
pub(super) const PANIC_TEXT_MAX: usize = 64 << 20;

/// Why nobody answers calls that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// Too many processes of the test have asked for somebody.
    TooMany,
    /// This process could not: it lacked something.
    Failed(Errno),
}

/// What became known while a sandbox ran.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// The step of the set-up that failed.
    pub(crate) refused: Option<Refusal>,
    /// Whether no init was ever born.
    pub(crate) unborn: bool,
    /// Whether the frame socket was shut down while the sandbox lived.
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
    pub(crate) crash: Option<Crash>,
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
    /// The memory in which the packets of its laboratories are kept.
    pub(crate) captures: Vec<File>,
    /// The memory that says what went wrong in all of them.
    #[cfg(feature = "net")]
    pub(crate) trouble: Option<File>,
    /// How many of their wires were killed.
    pub(crate) wires_killed: u32,
    /// Whether some of it did not come, for want of descriptors.
    pub(crate) has_lost_captures: bool,
    /// The hosts of its laboratories, if its sandbox is kept when it fails.
    pub(crate) hosts: Vec<KeptHost>,
    /// What its calls have met that were to fail.
    pub(crate) faults: Report,
    /// Why nobody answers its calls that are watched.
    pub(crate) unanswered_calls: Option<Unanswered>,
    /// How many bytes came over the frame socket that were no frame. `Some(0)`: an empty message.
    pub(crate) rubbish: Option<usize>,
    /// What was running when the time was up.
    pub(crate) timed_out: Option<Vec<Process>>,
    /// Whether its processes had not all ended some time after SIGKILL.
    pub(crate) are_unkillable: bool,
    /// The zygote and its templates, if no sandbox had been made when the time was up.
    pub(crate) unanswered: Option<Vec<Process>>,
    /// How init ended, if it has not told how the test did, and that is known.
    pub(crate) init_ended: Option<End>,
    /// Whether the zygote is dead.
    pub(crate) zygote_gone: bool,
    /// How it ended, if that is known.
    pub(crate) zygote_ended: Option<End>,
    /// Whether the test binary has begun to end.
    pub(crate) binary_ends: bool,
    /// Why the sandbox could not be watched to its end.
    pub(crate) watching_failed: Option<Errno>,
}

impl Evidence {
    /// Whether nothing tells yet why the test did not run.
    pub(super) fn says_nothing(&self) -> bool {
        self.refused.is_none() && self.timed_out.is_none()
    }

    /// Counts a message of so many bytes that is no frame.
    pub(super) fn throw_away(&mut self, bytes: usize) {
        let rubbish = self.rubbish.get_or_insert_default();
        *rubbish = rubbish.saturating_add(bytes);
    }
}

/// The process that had most memory at a time.
#[derive(Debug)]
pub(crate) struct Largest {
    pub(crate) bytes: u64,
    /// `None` for the test itself.
    pub(crate) name: Option<String>,
    /// Whether the figure may be that of a child which this process had waited for.
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
