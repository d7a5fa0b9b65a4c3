//! Sandboxes that are prepared while a test runs, for the tests after it.
//!
//! A sandbox in the pool is as new as any other: set up to the point where it waits for its test. When a test takes one, the next is
//! asked for, so that its making and the running of the test share the time. Nothing of a used sandbox is used again.

use std::mem;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::run_by::RunBy;
use super::sandbox::Sandbox;
use super::trace;
use crate::collect::CollectVec as _;
use crate::proc::MountWatch;
use crate::spec::{Root, Spec};
use crate::zygote::Zygote;

/// How many sandboxes of one kind there are at most. Setting up waits for the kernel at times, so that one a processor would not keep
/// it busy, however many tests run.
const MAX_PER_SPEC: usize = 4;

/// How many there are in all. Those longest unused give way.
const MAX_TOTAL: usize = 6;

struct Pool {
    /// The oldest first.
    ready: Vec<(&'static Spec, Box<Sandbox>)>,
    /// How many tests have begun.
    begun: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { ready: Vec::new(), begun: 0 });

/// Tells when those in the pool no longer show what the host has mounted. `None` where there is no `/proc`.
static MOUNTS: OnceLock<Option<MountWatch>> = OnceLock::new();

/// Begins to watch what the host has mounted, before there is any sandbox.
pub(crate) fn watch_mounts() {
    let _ = MOUNTS.set(MountWatch::begin().ok());
}

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether sandboxes of the pool can stand for those that are made when they are asked for. They can't in a process that was forked by a
/// test binary: that has the same pool. And what a test names, or has a copy of, is to be what lies there when it begins.
fn may_be_used(zygote: &Zygote, spec: &Spec) -> bool {
    zygote.is_own() && spec.binds.is_empty() && spec.root == Root::Tmpfs
}

/// Counts a test that begins, and takes a sandbox of its kind, if the pool has one.
pub(super) fn take(zygote: &Zygote, spec: &'static Spec) -> Option<Box<Sandbox>> {
    if !may_be_used(zygote, spec) {
        return None;
    }
    let mut pool = pool();
    pool.begun += 1;
    if MOUNTS.get().and_then(Option::as_ref).is_some_and(MountWatch::has_changed) {
        let outdated = mem::take(&mut pool.ready);
        drop(pool);
        drop(outdated);
        return None;
    }
    let found = pool.ready.iter().position(|(kind, _)| *kind == spec)?;
    Some(pool.ready.remove(found).1)
}

/// Gives up what is prepared.
pub(super) fn drop_all() {
    let ready = mem::take(&mut pool().ready);
    drop(ready);
}

/// Prepares for tests like one that has just begun. A process that runs a single test, as under nextest, prepares none, and one that
/// has run few prepares few: what nobody takes has been made in vain.
pub(super) fn replenish(zygote: &Zygote, spec: &'static Spec) {
    if !may_be_used(zygote, spec) {
        return;
    }
    let mut pool = pool();
    let wanted = (pool.begun / 2).min(MAX_PER_SPEC);
    if wanted == 0 {
        return;
    }
    let _span = trace::span("prepare sandboxes");
    let present = pool.ready.iter().filter(|(kind, _)| *kind == spec).count();
    for _ in present..wanted {
        // Where it can't be had now, the test that needs one will say why.
        let Ok(sandbox) = Sandbox::request(zygote, spec, Some(Instant::now()), &RunBy::Harness) else { return };
        pool.ready.push((spec, sandbox));
    }
    let excess = pool.ready.len().saturating_sub(MAX_TOTAL);
    let over = pool.ready.drain(..excess).collect_vec();
    // Other threads need not wait while these are ended and their traces written.
    drop(pool);
    drop(over);
}
