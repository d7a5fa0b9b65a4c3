//! System calls that fail on demand.
//!
//! The problem: what a program does when fsync(2) fails, or a disk fills up at the third write, is seldom tested, because nobody can have that
//! happen. The mechanism: seccomp(2) asks another process about calls, see seccomp_unotify(2).
//!
//! 1. The first [`Fault::start`] of a process installs a filter ([`filter`]), for all of its threads and for what they start. It can't be removed, and
//!    there can't be a second one: so it watches all calls that tests want to fail ([`calls`]), and those of this fault.
//! 2. It hands the descriptor by which the calls come to the test binary, with memory in which all faults are ([`board`]). A thread there, the
//!    supervisor, decides about each call: `harness/supervisor`.
//! 3. Further faults are written to that memory. Neither they nor the end of a fault take a system call.

use std::ffi::CStr;

mod active;
pub(crate) mod board;
pub(crate) mod calls;
pub(crate) mod definition;
mod error;
mod fault;
pub(crate) mod filter;
pub(crate) mod pattern;
pub(crate) mod table;

pub use active::ActiveFault;
pub(crate) use active::set_inside;
pub use error::FaultError;
pub use fault::Fault;

/// Where a sweep keeps the contents of files that were synced: each case mounts a tmpfs of its own over `/proc/driver`.
pub(crate) const KEPT: [&str; 2] = ["proc", "driver"];

/// The name of the memory to which a case of a sweep prints. No fault meets that.
pub(crate) const PRINTED_NAME: &CStr = c"belljar-sweep";

/// The same, as `/proc/PID/fd` tells it.
pub(crate) const PRINTED: &str = "/memfd:belljar-sweep (deleted)";

/// By what name the content of a file is kept there: of its device and its inode.
pub(crate) fn kept_name(device: u64, inode: u64) -> String {
    format!("{device:x}-{inode:x}")
}

#[cfg(test)]
mod tests {
    use super::{PRINTED, PRINTED_NAME};

    #[test]
    fn what_is_printed_has_one_name() {
        assert_eq!(PRINTED, format!("/memfd:{} (deleted)", PRINTED_NAME.to_string_lossy()));
    }
}
