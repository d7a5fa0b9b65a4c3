//! What becomes of tests that this host can't run: they fail, unless somebody has asked for them to be skipped.

use std::any::Any;
use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{mem, ptr};

use super::judge::Verdict;
use super::words;
use crate::collect::CollectVec as _;
use crate::diagnosis::Page;
use crate::settings::{Unsupported, settings};
use crate::spec::Test;

/// What this process has said so far.
struct Said {
    /// The pages that were printed in full, each with the test that it was about.
    pages: Vec<(Page, &'static str)>,
    /// The tests that were skipped, each with why.
    skipped: Vec<(&'static Test, String)>,
}

static SAID: Mutex<Said> = Mutex::new(Said { pages: Vec::new(), skipped: Vec::new() });

fn said() -> MutexGuard<'static, Said> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has no other thread say anything meanwhile.
pub(super) fn hold() -> Box<dyn Any> {
    Box::new(said())
}

/// The verdict on a test that this host can't run.
pub(super) fn verdict(test: &'static Test, page: Page) -> Verdict {
    let name = test.short_name();
    let mut said = said();
    let is_skipped = match settings().unsupported {
        Some(Unsupported::Skip) => true,
        Some(Unsupported::Fail) => false,
        None => test.skip_unsupported,
    };
    if is_skipped {
        said.skipped.push((test, page.summary()));
        return Verdict::Skipped(page.skipped(name));
    }
    match said.pages.iter().find(|(known, _)| *known == page) {
        Some((_, first)) => Verdict::Failed(page.in_short(name, first)),
        None => {
            let text = page.in_full(name);
            said.pages.push((page, name));
            Verdict::Failed(text)
        }
    }
}

/// The verdict on a test whose preparation was skipped, for this reason.
pub(super) fn with_preparation(test: &'static Test, preparation: &'static Test, reason: String) -> Verdict {
    let text = words::preparation_skipped(test.short_name(), preparation.short_name(), &reason);
    said().skipped.push((test, reason));
    Verdict::Skipped(text)
}

/// Why a preparation was skipped. That is no test, and is not listed among them.
pub(super) fn reason(preparation: &'static Test) -> String {
    let mut said = said();
    let known = said.skipped.iter().rposition(|(test, _)| ptr::eq(*test, preparation));
    known.map_or(String::new(), |known| said.skipped.remove(known).1)
}

/// Lists the tests that were skipped, past the harness, which shows nothing of tests that pass. To be called when no test runs any more.
pub(crate) fn print() {
    let skipped: Vec<_> =
        mem::take(&mut said().skipped).into_iter().map(|(test, reason)| (test.short_name(), reason)).collect_vec();
    if !skipped.is_empty() {
        let _ = io::stderr().write_all(words::skipped(&skipped).as_bytes());
    }
}
