//! Sandboxes that are prepared while a test runs, for the tests after it.
//!
//! A spare is as new as any other: set up to the point where it waits for its test. When a test takes one, the next is
//! asked for, so that its making and the running of the test share the time. Nothing of a used sandbox is used again.

use std::mem;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::sandbox::Sandbox;
use super::trace;
use crate::proc::MountWatch;
use crate::spec::{Root, Spec};
use crate::zygote::Zygote;

/// How many spares of one kind there are at most. Setting up waits for the kernel at times, so that one a processor would not keep
/// it busy, however many tests run.
const MOST: usize = 4;

/// How many spares there are in all. Those longest unused give way.
const ALL: usize = 6;

struct Spares {
    /// The oldest first.
    ready: Vec<(&'static Spec, Sandbox)>,
    /// How many tests have begun.
    begun: usize,
}

static SPARES: Mutex<Spares> = Mutex::new(Spares { ready: Vec::new(), begun: 0 });

/// Tells when spares show what the host has mounted no more. `None` where there is no `/proc`.
static MOUNTS: OnceLock<Option<MountWatch>> = OnceLock::new();

/// Begins to watch what the host has mounted, before there is any spare.
pub(crate) fn watch_mounts() {
    let _ = MOUNTS.set(MountWatch::begin().ok());
}

fn spares() -> MutexGuard<'static, Spares> {
    SPARES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether spares can stand for sandboxes that are made when they are asked for: not in a process that was forked by a test binary, which
/// has those too; and what a test names, or has a copy of, is to be what lies there when it begins.
fn may_be_used(zygote: &Zygote, spec: &Spec) -> bool {
    zygote.is_own() && spec.binds.is_empty() && spec.root == Root::Tmpfs
}

/// Counts a test that begins, and takes a spare of its kind, if there is one.
pub(super) fn take(zygote: &Zygote, spec: &'static Spec) -> Option<Sandbox> {
    if !may_be_used(zygote, spec) {
        return None;
    }
    let mut spares = spares();
    spares.begun += 1;
    if MOUNTS.get().and_then(Option::as_ref).is_some_and(MountWatch::has_changed) {
        let outdated = mem::take(&mut spares.ready);
        drop(spares);
        drop(outdated);
        return None;
    }
    let found = spares.ready.iter().position(|(kind, _)| *kind == spec)?;
    Some(spares.ready.remove(found).1)
}

/// Gives up what is prepared.
pub(super) fn drop_all() {
    let spare = mem::take(&mut spares().ready);
    drop(spare);
}

/// Prepares for tests like one that has just begun. A process that runs a single test, as under nextest, prepares none, and one that
/// has run few prepares few: what nobody takes has been made in vain.
pub(super) fn replenish(zygote: &Zygote, spec: &'static Spec) {
    if !may_be_used(zygote, spec) {
        return;
    }
    let mut spares = spares();
    let wanted = (spares.begun / 2).min(MOST);
    if wanted == 0 {
        return;
    }
    let _span = trace::span("prepare sandboxes");
    let present = spares.ready.iter().filter(|(kind, _)| *kind == spec).count();
    for _ in present..wanted {
        // Where it can't be had now, the test that needs one will say why.
        let Ok(sandbox) = Sandbox::request(zygote, spec, Some(Instant::now())) else { return };
        spares.ready.push((spec, sandbox));
    }
    let excess = spares.ready.len().saturating_sub(ALL);
    let over: Vec<_> = spares.ready.drain(..excess).collect();
    // Others need not wait for what is told of them.
    drop(spares);
    drop(over);
}
