//! Sandboxes of tests that have failed, which are kept for somebody to look round in, if the environment asks for that.

use std::io::{self, Write as _};

use super::evidence::Evidence;
use super::judge::{Verdict, judge};
use super::kept_host::KeptHost;
use super::words;
use crate::collect::CollectVec as _;
use crate::settings::{OnFail, settings};
use crate::spec::{Spec, Test};

fn is_wanted() -> bool {
    settings().on_fail == Some(OnFail::Shell)
}

/// What is said of a test whose sandbox is kept because its time is up.
pub(super) fn out_of_time(test: &Test) -> Option<String> {
    is_wanted().then(|| words::out_of_time(test.short_name()))
}

/// What is said of a test whose sandbox is kept because it has failed, if it has.
pub(super) fn failure(test: &Test, evidence: &Evidence) -> Option<String> {
    if !is_wanted() {
        return None;
    }
    let name = test.short_name();
    match (judge(test, evidence).ok()?, test.should_panic) {
        (Verdict::Failed(text), _) => Some(text),
        (Verdict::Panicked(text), Some(expected)) if text.as_deref().unwrap_or_default().contains(expected) => None,
        (Verdict::Panicked(text), _) => Some(words::panicked(name, text.as_deref())),
        (Verdict::Passed, Some(_)) => Some(words::did_not_panic(name)),
        (Verdict::Passed, None) | (Verdict::Skipped(_), _) => None,
    }
}

/// Tells how to enter the sandbox with this init and the hosts in it, and how to let it go. The harness keeps what tests print until they are over: it is
/// told past the harness.
pub(super) fn tell(failure: &str, spec: &Spec, init: u32, hosts: &[KeptHost]) {
    let hosts = hosts.iter().map(KeptHost::told).collect_vec();
    let _ = writeln!(io::stderr(), "{}", words::kept(failure, spec, init, &hosts));
}
