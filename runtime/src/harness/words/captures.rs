//! All messages about the packets of laboratories.

use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::may_be::MayBe;
use crate::diagnosis::Cause;
use crate::text::{error, plain};

/// Of what went wrong with the wires of laboratories.
pub(in crate::harness) fn trouble(test: &str, trouble: &str) -> String {
    format!("belljar: `{test}`: {trouble}")
}

pub(in crate::harness) fn captured(test: &str, path: &Path) -> String {
    format!(
        "belljar: what passed in the laboratory of `{test}` is in `{}`, for tcpdump or Wireshark.",
        plain(path.display())
    )
}

/// `cause` is why, if something shows.
pub(in crate::harness) fn captures_lost(test: &str, cause: Option<&Cause>) -> String {
    let cause = cause.map_or(String::new(), |cause| format!(" {}", MayBe(cause)));
    format!(
        "belljar: what passed in a laboratory of `{test}`, or what went wrong there, did not reach the test binary: {}.{cause}",
        error(Errno::EMFILE)
    )
}

pub(in crate::harness) fn not_captured(test: &str, path: &Path, why: &io::Error) -> String {
    format!(
        "belljar: what passed in the laboratory of `{test}` could not be written to `{}`: {why}.",
        plain(path.display())
    )
}

/// Of a test that had more laboratories than captures are kept of.
pub(in crate::harness) fn captures_left_out(test: &str, laboratories: u64, most: usize) -> String {
    format!("belljar: `{test}` had {laboratories} laboratories: what passed is kept of the first {most} only.")
}
