//! All messages about the packets of laboratories.

use std::io;
use std::path::Path;

use crate::text::plain;

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
