//! All messages about the packets of laboratories.

use std::io;
use std::path::Path;

use crate::text::plain;

/// Of what went wrong with the wire of a laboratory.
pub(in crate::harness) fn trouble(test: &str, trouble: &str) -> String {
    format!("belljar: `{test}`: {trouble}")
}

pub(in crate::harness) fn captured(test: &str, path: &Path) -> String {
    format!(
        "belljar: what passed in the laboratory of `{test}` is in `{}`, for tcpdump or Wireshark.",
        plain(path.display())
    )
}

pub(in crate::harness) fn not_captured(test: &str, path: &Path, why: &io::Error) -> String {
    format!(
        "belljar: what passed in the laboratory of `{test}` could not be written to `{}`: {why}.",
        plain(path.display())
    )
}
