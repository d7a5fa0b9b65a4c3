//! Inside a sandbox: init, which is PID 1 there, and the test, its child.

mod body;
mod call;
mod channel;
mod group;
mod ids;
mod init;
#[cfg(feature = "net")]
mod lab;
mod reaper;
mod words;

pub use body::must_be_inside;
pub(crate) use body::{changes, must_be_outside, outer, usage, whereabouts};
pub(crate) use channel::{Channel, InitArgs, send};
pub use group::Group;
pub(crate) use ids::{give_up_setgroups, map_ids};
pub(crate) use init::init;
