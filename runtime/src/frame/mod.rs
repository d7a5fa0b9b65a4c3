//! What crosses between processes: frames from a sandbox, addresses of constants, and plain data that frames carry.

pub(crate) mod address;
pub(crate) mod changes;
mod frames;
pub(crate) mod moments;
mod refusal;
mod step;
pub(crate) mod usage;

#[cfg(feature = "net")]
pub(crate) use frames::HOST_NAME_MAX;
#[cfg(any(test, fuzzing))]
pub(crate) use frames::MAGIC;
#[cfg(test)]
pub(crate) use frames::tests::examples;
pub(crate) use frames::{Buffer, FRAME_MAX, Frame, Outcome, PAYLOAD_MAX, REPORTED, UNREPORTED};
pub(crate) use moments::OrRefuse;
pub(crate) use refusal::{Refusal, RefusalRef};
pub(crate) use step::{Moment, Step};
