//! The supervisor of a sandbox that has faults: a thread of the test binary that decides about each watched call of the body's processes.
//!
//! It is started when the body hands over the descriptor by which calls come, and ends when no process is left that is watched, or when the sandbox is
//! dropped. Until it answers, the caller waits. So it waits for nobody itself: what takes time is in a list with the moment that it is due at, and what
//! may block (`short`) is on a thread of its own. It looks at nothing but what the kernel answers at once: links in `/proc` and the caller's memory,
//! and never at files of the sandbox, which a process of the sandbox may serve. Memory that is not there yet may be such a file's: a thread of
//! its own reads that, and hands the call back.
//!
//! It trusts nothing that the sandbox can write. If it ends early, the kernel has all watched calls fail with ENOSYS.

mod caller;
mod copy;
mod keep;
mod shared;
mod short;
mod thread;
mod told;

pub(super) use thread::{SUPERVISORS_MAX, Supervisor};
pub(crate) use told::{Blind, Met, Report};
