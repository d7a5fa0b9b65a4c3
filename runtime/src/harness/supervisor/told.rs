//! What a supervisor tells of what it has done.

use std::ffi::OsString;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use super::caller::Caller;
use crate::faults::board::Entry;
use crate::faults::definition::{Effect, Position};
use crate::sorted::{Set, sort_by};
use crate::sys;

/// How many hits are kept with all that is known of them, for a message and for a trace.
const MET_MAX: usize = 20;
const TRACED_MAX: usize = 10_000;

/// What happens to a call.
#[derive(Clone, Copy)]
pub(super) struct Hit {
    pub(super) entry: Entry,
    pub(super) effect: Effect,
    pub(super) delay: u64,
    pub(super) position: Position,
}

/// A fault that a call has met.
#[derive(Clone, Debug)]
pub(crate) struct Met {
    pub(crate) call: &'static str,
    /// The path or the address that the call names, if it names one.
    pub(crate) subject: Option<OsString>,
    pub(crate) effect: Effect,
    /// In nanoseconds.
    pub(crate) delay: u64,
    /// Its number among the calls of the fault.
    pub(crate) number: u64,
    /// Who called: the name of the thread, and the number of the process in its own pid namespace.
    pub(crate) name: String,
    pub(crate) pid: Option<u32>,
    /// By the monotonic clock, in nanoseconds.
    pub(crate) at: u64,
}

/// Why calls may not have been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Blind {
    IoUring,
    OtherPrograms,
    NotReadable,
}

/// What became known until now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The first hits.
    pub(crate) met: Vec<Met>,
    /// How many there were.
    pub(crate) hits: u64,
    pub(crate) blind: Set<Blind>,
    /// Why a call did not meet a fault that was for it: this process lacked something.
    pub(crate) unmet: Option<Errno>,
}

impl Report {
    /// What two supervisors of a sandbox know, in the order of time.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.met.extend(other.met);
        sort_by(&mut self.met, |a, b| a.at.cmp(&b.at));
        self.hits = self.hits.saturating_add(other.hits);
        self.blind.extend(other.blind);
        self.unmet = self.unmet.or(other.unmet);
        self
    }
}

pub(super) struct Told {
    report: Mutex<Report>,
    most: usize,
}

impl Told {
    pub(super) fn new(has_trace: bool) -> Self {
        Self { report: Mutex::default(), most: if has_trace { TRACED_MAX } else { MET_MAX } }
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self) -> Report {
        self.lock().clone()
    }

    pub(super) fn blind(&self, blind: Blind) {
        self.lock().blind.insert(blind);
    }

    /// A call does not meet a fault that is for it.
    pub(super) fn miss(&self, errno: Errno) {
        self.lock().unmet.get_or_insert(errno);
    }

    /// A call meets a fault.
    pub(super) fn meet(&self, caller: &Caller, hit: &Hit) {
        let is_kept = {
            let mut report = self.lock();
            report.hits += 1;
            report.met.len() < self.most
        };
        if !is_kept {
            return;
        }
        let status = caller.status().unwrap_or_default();
        let met = Met {
            call: caller.call.unwrap_or("?"),
            subject: caller.subject(),
            effect: hit.effect,
            delay: hit.delay,
            number: hit.position.of_all,
            name: status.name,
            pid: status.inner,
            at: sys::now(),
        };
        self.lock().met.push(met);
    }
}
