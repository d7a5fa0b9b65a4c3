//! What the sandbox has told of itself, so that a laboratory knows whether it may be made here.

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

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
    /// Hands the memory in which packets are kept to whoever writes it to a file if the test fails.
    pub(crate) hand_over: fn(BorrowedFd<'_>),
}

static INSIDE: OnceLock<Inside> = OnceLock::new();

/// Tells what sandbox this is, before the body runs.
pub(crate) fn set(inside: Inside) {
    let _ = INSIDE.set(inside);
}

/// `None` outside of sandboxes.
pub(super) fn get() -> Option<Inside> {
    INSIDE.get().copied()
}
