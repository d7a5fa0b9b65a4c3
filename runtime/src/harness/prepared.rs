//! What became of preparations. Each is run once, when the first test that starts from it is about to run; the others wait for that.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::collect::CollectVec as _;
use crate::rootfs::left::Left;
use crate::sorted::Map;
use crate::spec::{Preparation, Spec, Test};

/// What became of a preparation.
#[derive(Clone)]
pub(super) enum Outcome {
    /// It has left a root.
    Left(Arc<Left>),
    /// This host can't run it, and it is to be skipped, for this reason.
    Skipped(String),
    /// It has failed, for this reason.
    Failed(String),
}

/// The preparations that were asked for so far, by their addresses.
static OUTCOMES: Mutex<Map<usize, Arc<OnceLock<Outcome>>>> = Mutex::new(Map::new());

fn outcomes() -> MutexGuard<'static, Map<usize, Arc<OnceLock<Outcome>>>> {
    OUTCOMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has no other thread ask for a preparation meanwhile.
pub(super) fn hold() -> Box<dyn Any> {
    Box::new(outcomes())
}

/// Forgets the preparations that are being run. In a fork, nobody runs them.
pub(super) fn forget_unknown() {
    let mut outcomes = outcomes();
    let unknown = outcomes.iter().filter(|(_, outcome)| outcome.get().is_none()).map(|(address, _)| *address);
    for address in unknown.collect_vec() {
        outcomes.remove(&address);
    }
}

fn address(preparation: &'static Test) -> usize {
    std::ptr::from_ref(preparation).addr()
}

/// What became of `preparation`, which `run` finds if nobody has asked before.
pub(super) fn once(preparation: &'static Test, run: impl FnOnce() -> Outcome) -> Outcome {
    let outcome = Arc::clone(outcomes().get_or_insert_with(address(preparation), Arc::default));
    outcome.get_or_init(run).clone()
}

/// What lies below the root of a sandbox, if that starts from a preparation, which has run.
pub(super) fn left_for(spec: &Spec) -> Option<Arc<Left>> {
    let Preparation(preparation) = spec.from?;
    match outcomes().get(&address(preparation))?.get()? {
        Outcome::Left(left) => Some(Arc::clone(left)),
        Outcome::Skipped(_) | Outcome::Failed(_) => None,
    }
}
