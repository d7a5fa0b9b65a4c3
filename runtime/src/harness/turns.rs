//! How many tests of this process are in sandboxes at once: as many as the harness starts, until descriptors or processes run short.
//!
//! Each sandbox takes some descriptors of the test binary, and is processes of the user. A test that gets none waits until another one is
//! over, and from then on fewer tests are in sandboxes at once. Only a test that has been alone fails.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::prepared;
use crate::zygote::Zygote;

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

/// Whether descriptors or processes have run short.
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
    /// Waits for a turn. In a process that was forked by the test binary, nobody would give one back, and all have one.
    pub(super) fn take(zygote: &Zygote) -> Self {
        let full = |turns: &mut Turns| turns.taken >= turns.most && zygote.is_own();
        let mut turns = GIVEN_BACK.wait_while(turns(), full).unwrap_or_else(PoisonError::into_inner);
        turns.taken += 1;
        Self { is_alone: turns.most == 1 }
    }

    /// Whether no other test is in a sandbox meanwhile, so that another turn would be of no use.
    pub(super) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Gives the turn back, as something has run short, and waits for another one, with fewer tests beside it.
    pub(super) fn take_another(self, zygote: &Zygote) -> Self {
        {
            let mut turns = turns();
            turns.most = turns.most.min(turns.taken.saturating_sub(1).max(1));
        }
        // From now on, none are made.
        prepared::drop_all();
        drop(self);
        Self::take(zygote)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = turns();
        turns.taken = turns.taken.saturating_sub(1);
        drop(turns);
        GIVEN_BACK.notify_all();
    }
}
