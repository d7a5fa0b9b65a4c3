//! How many tests of this process are in sandboxes at once: as many as the harness starts, until descriptors or processes run short.
//!
//! Each sandbox takes some descriptors of the test binary, and is processes of the user. A test that gets none waits until another one is
//! over, and from then on fewer tests are in sandboxes at once. Only a test that has been alone fails.

use std::any::Any;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::pool;
use crate::zygote::Zygote;

/// A counting semaphore, whose count only falls.
struct Slots {
    taken: usize,
    most: usize,
}

static SLOTS: Mutex<Slots> = Mutex::new(Slots { taken: 0, most: usize::MAX });

/// Tells when one is given back.
static GIVEN_BACK: Condvar = Condvar::new();

fn slots() -> MutexGuard<'static, Slots> {
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has no other thread take or give back a slot meanwhile.
pub(super) fn hold() -> Box<dyn Any> {
    Box::new(slots())
}

/// Whether descriptors or processes have run short.
pub(super) fn are_scarce() -> bool {
    slots().most != usize::MAX
}

/// A test's slot, which it gives back at its end.
#[derive(Debug)]
pub(super) struct Slot {
    /// Whether no other test was in a sandbox meanwhile.
    is_alone: bool,
}

impl Slot {
    /// Waits for a slot. In a process that was forked by the test binary, nobody would give one back, so that each test gets one.
    pub(super) fn take(zygote: &Zygote) -> Self {
        let full = |slots: &mut Slots| slots.taken >= slots.most && zygote.is_own();
        let mut slots = GIVEN_BACK.wait_while(slots(), full).unwrap_or_else(PoisonError::into_inner);
        slots.taken += 1;
        Self { is_alone: slots.most == 1 }
    }

    /// Whether no other test is in a sandbox meanwhile, so that another slot would be of no use.
    pub(super) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Gives the slot back, as something has run short, and waits for another one, with fewer tests beside it.
    pub(super) fn take_another(self, zygote: &Zygote) -> Self {
        {
            let mut slots = slots();
            slots.most = slots.most.min(slots.taken.saturating_sub(1).max(1));
        }
        // From now on, none are made.
        pool::drop_all();
        drop(self);
        Self::take(zygote)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut slots = slots();
        slots.taken = slots.taken.saturating_sub(1);
        drop(slots);
        GIVEN_BACK.notify_all();
    }
}
