//! Sandboxes that are prepared while a test runs, for the tests after it.
//!
//! A spare is as new as any other: set up to the point where it waits for its test. When a test takes one, the next is
//! asked for, so that its making and the running of the test share the time. Nothing of a used sandbox is used again.

use std::sync::{Mutex, PoisonError};

use super::sandbox::Sandbox;
use crate::spec::Spec;
use crate::zygote::Zygote;

/// How many spares there are for one kind of sandbox. Fewer would leave processors idle while one of them waits for the kernel.
const EACH: usize = 3;

/// How many spares there are in all. Those longest unused give way.
const ALL: usize = 6;

#[derive(Default)]
struct Spares {
    /// The oldest first.
    ready: Vec<(&'static Spec, Sandbox)>,
    /// How many tests have been begun.
    begun: usize,
}

static SPARES: Mutex<Spares> = Mutex::new(Spares { ready: Vec::new(), begun: 0 });

/// Takes a spare of this kind, if there is one.
pub(super) fn take(spec: &'static Spec) -> Option<Sandbox> {
    let mut spares = SPARES.lock().unwrap_or_else(PoisonError::into_inner);
    let found = spares.ready.iter().position(|(kind, _)| *kind == spec)?;
    Some(spares.ready.remove(found).1)
}

/// Prepares for tests like one that has just begun. A process that runs a single test, as under nextest, prepares none.
pub(super) fn replenish(zygote: &Zygote, spec: &'static Spec) {
    let mut spares = SPARES.lock().unwrap_or_else(PoisonError::into_inner);
    spares.begun += 1;
    if spares.begun == 1 {
        return;
    }
    let present = spares.ready.iter().filter(|(kind, _)| *kind == spec).count();
    for _ in present..EACH {
        // Where it can't be had now, the test that needs one will say why.
        let Ok(sandbox) = Sandbox::request(zygote, spec) else { return };
        spares.ready.push((spec, sandbox));
    }
    let excess = spares.ready.len().saturating_sub(ALL);
    spares.ready.drain(..excess);
}
