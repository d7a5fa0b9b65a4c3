//! What all threads have that answer the calls of a sandbox.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Mutex;

use nix::sys::eventfd::EventFd;

use super::caller::Caller;
use super::told::{Hit, Told};
use crate::faults::board::Board;
use crate::sys::seccomp::{self, Reply};

/// What all threads have that answer the calls of a sandbox.
pub(super) struct Shared {
    pub(super) listener: OwnedFd,
    pub(super) board: Board,
    pub(super) told: Told,
    /// Whoever keeps what is synced has it. Each sandbox has its own, so that none waits for a file of another.
    pub(super) keeps: Mutex<()>,
    /// Readable when the sandbox is over.
    pub(super) over: EventFd,
}

impl Shared {
    pub(super) fn reply(&self, caller: &Caller, reply: Reply) {
        // If the caller has gone, there is nobody to tell.
        let _ = seccomp::reply(self.listener.as_fd(), caller.id, reply);
    }

    pub(super) fn still_waits(&self, caller: &Caller) -> bool {
        seccomp::still_waits(self.listener.as_fd(), caller.id)
    }

    /// Something happens to a call.
    pub(super) fn hit(&self, caller: &Caller, hit: &Hit) {
        self.board.add_hit(hit.entry);
        self.told.meet(caller, hit);
    }
}
