//! How many tests of this process are in sandboxes at once: as many as the harness starts, until descriptors run short.
//!
//! Each sandbox takes some descriptors of the test binary. A test that gets none waits until another one is over, and from then on fewer
//! tests are in sandboxes at once. Only a test that has been alone fails.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

struct Turns {
    taken: usize,
    most: usize,
}

static TURNS: Mutex<Turns> = Mutex::new(Turns { taken: 0, most: usize::MAX });

/// Tells when one is given back.
static GIVEN_BACK: Condvar = Condvar::new();

fn turns() -> MutexGuard<'static, Turns> {
    TURNS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether descriptors have run short.
pub(super) fn are_short() -> bool {
    turns().most != usize::MAX
}

/// A test's turn, which it gives back at its end.
#[derive(Debug)]
pub(super) struct Turn {
    /// Whether no other test was in a sandbox meanwhile.
    is_alone: bool,
}

impl Turn {
    /// Waits for a turn.
    pub(super) fn take() -> Self {
        let full = |turns: &mut Turns| turns.taken >= turns.most;
        let mut turns = GIVEN_BACK.wait_while(turns(), full).unwrap_or_else(PoisonError::into_inner);
        turns.taken += 1;
        Self { is_alone: turns.most == 1 }
    }

    /// Gives the turn back, as descriptors have run short, and waits for another one, with fewer tests beside it. If it was alone, that is
    /// of no use.
    pub(super) fn take_another(self) -> Result<Self, Self> {
        if self.is_alone {
            return Err(self);
        }
        {
            let mut turns = turns();
            turns.most = turns.most.min((turns.taken - 1).max(1));
        }
        drop(self);
        Ok(Self::take())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        turns().taken -= 1;
        GIVEN_BACK.notify_all();
    }
}
