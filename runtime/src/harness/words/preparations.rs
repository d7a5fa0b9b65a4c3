//! All messages about preparations.

use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::beginning::failed;
use crate::text::{error, plain};

/// `reason` is what was said of the preparation.
pub(in crate::harness) fn preparation_failed(test: &str, preparation: &str, reason: &str) -> String {
    let said = failed(preparation) + ": ";
    let reason = reason.strip_prefix(&said).unwrap_or(reason);
    format!("{}: its preparation `{preparation}` failed: {reason}", failed(test))
}

pub(in crate::harness) fn preparation_skipped(test: &str, preparation: &str, reason: &str) -> String {
    format!("belljar: skipped: `{test}`, as its preparation `{preparation}` is: {reason}")
}

/// Why a preparation that panicked left nothing. It has printed its message.
pub(in crate::harness) fn preparation_panicked(text: Option<&str>) -> String {
    text.map_or_else(|| "it panicked.".to_owned(), |text| format!("it panicked: {text}"))
}

/// Why what a preparation has left is of no use.
pub(in crate::harness) fn preparation_lost(errno: Errno) -> String {
    format!("what it left could not be kept: {}.", error(errno))
}

/// Each process runs it, because of an error there.
pub(in crate::harness) fn preparation_not_shared(preparation: &str, path: &Path, why: &io::Error) -> String {
    format!(
        "belljar: each test runs its preparations itself, among them `{preparation}`, because what they leave can't be shared in `{}`: {why}.",
        plain(path.display())
    )
}
