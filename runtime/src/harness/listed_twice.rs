//! Tests that the harness has twice.
//!
//! An attribute above ours may have made a test of the function where ours could not see it, as in `macro_rules`. Then ours has made
//! another, of the same name, and the harness calls both. The body runs once; the second call has the verdict of the first, and
//! says so.

use std::any::Any;
use std::env;
use std::io::{self, Write as _};
use std::mem;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::judge::Verdict;
use super::words;
use crate::collect::CollectVec as _;
use crate::sorted::Map;
use crate::spec::Test;

/// The tests that were called so far, by their names, each with its verdict when there is one.
static CALLED: Mutex<Map<&str, Arc<OnceLock<Verdict>>>> = Mutex::new(Map::new());

/// The tests whose second calls were not run.
static REPEATED: Mutex<Vec<&str>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has no other thread look at these meanwhile.
pub(super) fn hold() -> [Box<dyn Any>; 2] {
    [Box::new(lock(&CALLED)), Box::new(lock(&REPEATED))]
}

/// Forgets the tests that are being run. In a fork, nobody runs them.
pub(super) fn forget_unknown() {
    let mut called = lock(&CALLED);
    let unknown = called.iter().filter(|(_, verdict)| verdict.get().is_none()).map(|(name, _)| *name).collect_vec();
    for name in unknown {
        called.remove(name);
    }
}

/// The verdict on `test`, which the harness calls, and `run` finds unless the harness has called it before.
pub(super) fn once(test: &'static Test, run: impl FnOnce() -> Verdict) -> Verdict {
    let name = test.short_name();
    let mut is_first = false;
    let verdict = Arc::clone(lock(&CALLED).get_or_insert_with(name, || {
        is_first = true;
        Arc::default()
    }));
    if is_first {
        return verdict.get_or_init(run).clone();
    }
    if !is_listed_twice(name) {
        return run();
    }
    // If the other call is not over yet, this waits.
    let verdict = verdict.get_or_init(run).clone();
    eprintln!("{}", words::repeated(name));
    lock(&REPEATED).push(name);
    verdict
}

/// Whether the harness has two tests of this name, or may have.
fn is_listed_twice(name: &str) -> bool {
    static LISTED: OnceLock<Option<String>> = OnceLock::new();
    let listed = LISTED.get_or_init(|| {
        let mut list = Command::new(env::current_exe().ok()?);
        let list = list.args(["--list", "--format", "terse"]).stdin(Stdio::null()).output().ok()?;
        String::from_utf8(list.stdout).ok().filter(|_| list.status.success())
    });
    let is_test = |line: &&str| line.strip_suffix(": test") == Some(name);
    listed.as_ref().is_none_or(|listed| listed.lines().filter(is_test).count() > 1)
}

/// Lists the tests that the harness has twice, past the harness, which shows nothing of tests that pass. To be called when no test
/// runs any more.
pub(crate) fn print() {
    let repeated = mem::take(&mut *lock(&REPEATED));
    if !repeated.is_empty() {
        let _ = io::stderr().write_all(words::listed_twice(&repeated).as_bytes());
    }
}
