//! Why a host says no: what it is like, what of that is the cause, and what to do about it.

mod cause;
mod explain;
mod host_state;
mod limits;
mod page;

pub(crate) use cause::Cause;
#[cfg(any(test, fuzzing))]
pub(crate) use explain::holds;
pub(crate) use explain::{device, explain, explain_cgroup, unknown};
#[cfg(any(test, fuzzing))]
pub(crate) use host_state::barrier_of;
pub(crate) use limits::{death, lack, no_more_memory};
pub(crate) use page::{Page, did_not_run, table};
