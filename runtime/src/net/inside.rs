//! What the sandbox has told of itself, so that a laboratory knows whether it may be made here.

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use super::wire::CAPTURE;

/// The least and the most bytes of packets that can be kept: some packets, and what a test binary can make a file of.
pub(super) const LEAST_CAPTURE: usize = 64 << 10;
pub(crate) const MOST_CAPTURE: usize = 1 << 30;

/// What matters of the sandbox that this process is the test of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside {
    /// Whether it has a network of its own.
    pub(crate) net: bool,
    /// Whether it has a root of its own.
    pub(crate) mount: bool,
    /// Who the test is, if it is not root.
    pub(crate) user: Option<u32>,
    /// How much memory it may use, if that is limited, in bytes.
    pub(crate) memory: Option<u64>,
    /// Hands over what tells of a laboratory if the test fails: the memory in which its packets are kept, and that which says what went wrong.
    pub(crate) hand_over: fn(&[BorrowedFd<'_>; 2]),
    /// Hands a host over by its name, with its namespaces, to whoever keeps the sandbox if the test fails. `None` if nobody does.
    pub(crate) hand_over_host: Option<fn(&str, &[BorrowedFd<'_>])>,
    /// Tells the trace how a fault was changed. `None` if none is wanted.
    pub(crate) tell_change: Option<fn(&str)>,
}

impl Inside {
    /// How many bytes of packets are kept if nobody chooses.
    pub(super) fn capture(&self) -> usize {
        let share = self.memory.map_or(usize::MAX, |limit| usize::try_from(limit / 8).unwrap_or(usize::MAX));
        share.clamp(LEAST_CAPTURE, CAPTURE)
    }
}

static INSIDE: OnceLock<Inside> = OnceLock::new();

/// Tells what sandbox this is, before the body runs.
pub(crate) fn set(inside: Inside) {
    let _ = INSIDE.set(inside);
}

/// Tells the trace how a fault was changed just now, if one is wanted.
pub(super) fn tell_change(words: impl FnOnce() -> String) {
    if let Some(tell) = get().and_then(|inside| inside.tell_change) {
        tell(&words());
    }
}

/// `None` outside of sandboxes.
pub(super) fn get() -> Option<Inside> {
    INSIDE.get().copied()
}
