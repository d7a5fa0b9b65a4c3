//! What all threads have that answer the calls of a sandbox.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{SockType, getsockopt, sockopt};

use super::caller::Caller;
use super::told::{Hit, Told};
use crate::faults::board::Board;
use crate::sys::seccomp::{self, Reply};

/// How often it is looked whether the caller still waits.
const LOOK: u16 = 50;

/// What all threads have that answer the calls of a sandbox.
pub(super) struct Shared {
    pub(super) listener: OwnedFd,
    pub(super) board: Board,
    pub(super) told: Told,
    /// Whoever keeps what is synced has it. Each sandbox has its own, so that none waits for a file of another.
    pub(super) keeps: Mutex<()>,
    /// Calls of which it is known now what they name.
    looked_at: Mutex<Vec<(Caller, u32)>>,
    /// Readable if there are some.
    pub(super) looked: EventFd,
    /// Readable when the sandbox is over.
    pub(super) over: EventFd,
}

impl Shared {
    pub(super) fn new(listener: OwnedFd, board: Board, told: Told) -> nix::Result<Self> {
        let event = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Ok(Self {
            listener,
            board,
            told,
            keeps: Mutex::new(()),
            looked_at: Mutex::default(),
            looked: event()?,
            over: event()?,
        })
    }

    fn lock_looked_at(&self) -> MutexGuard<'_, Vec<(Caller, u32)>> {
        self.looked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a call, with its architecture, to the thread that decides: it is known now what that names.
    pub(super) fn hand_back(&self, caller: Caller, arch: u32) {
        self.lock_looked_at().push((caller, arch));
        let _ = self.looked.write(1);
    }

    /// What was handed back until now.
    pub(super) fn take_resolved_calls(&self) -> Vec<(Caller, u32)> {
        let _ = self.looked.read();
        std::mem::take(&mut self.lock_looked_at())
    }

    pub(super) fn reply(&self, caller: &Caller, reply: Reply) {
        // If the caller has gone, there is nobody to tell.
        let _ = seccomp::reply(self.listener.as_fd(), caller.id, reply);
    }

    pub(super) fn still_waits(&self, caller: &Caller) -> bool {
        seccomp::still_waits(self.listener.as_fd(), caller.id)
    }

    /// A call that still waits does not meet a fault that is for it.
    pub(super) fn miss(&self, caller: &Caller, errno: Errno) {
        if self.still_waits(caller) {
            self.told.miss(errno);
        }
    }

    /// Something happens to a call.
    pub(super) fn hit(&self, caller: &Caller, hit: &Hit) {
        self.board.add_hit(hit.entry);
        self.told.meet(caller, hit);
    }

    /// Waits for a moment until the caller's file can be read or written, and says whether that is so. `None` if the call is not to be made here any
    /// more: the caller, or the sandbox, is gone, or a signal is to interrupt it.
    pub(super) fn wait(&self, caller: &Caller, file: &OwnedFd, flags: PollFlags) -> Option<bool> {
        let mut fds = [PollFd::new(file.as_fd(), flags), PollFd::new(self.over.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(LOOK)).ok()?;
        let [is_ready, is_over] = fds.map(|fd| fd.any().unwrap_or(true));
        (!is_over && self.still_waits(caller) && !caller.status().is_ok_and(|status| status.is_interrupted))
            .then_some(is_ready)
    }

    /// Whether what is written to a socket is bytes, and no messages.
    pub(super) fn is_stream(&self, socket: &OwnedFd) -> bool {
        getsockopt(socket, sockopt::SockType).is_ok_and(|kind| kind == SockType::Stream)
    }
}
