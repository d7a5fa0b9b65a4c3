//! Why a host says no: what it is like, what of that is the cause, and what to do about it.

mod cause;
mod environment;
mod explain;
mod limits;
mod page;

pub(crate) use cause::Cause;
#[cfg(any(test, fuzzing))]
pub(crate) use environment::barrier_of;
pub(crate) use explain::{device, explain, explain_cgroup, unknown};
#[cfg(any(test, fuzzing))]
pub(crate) use explain::{holds, is_older_than};
pub(crate) use limits::death;
pub(crate) use page::{Page, did_not_run, table};
