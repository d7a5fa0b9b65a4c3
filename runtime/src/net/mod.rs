//! A network laboratory in the sandbox: hosts, switches, routers and links that may be bad.

#[expect(dead_code, reason = "nothing makes a laboratory yet")]
mod port;
#[expect(dead_code, reason = "nothing makes a laboratory yet")]
mod wire;

pub use port::{Port, Stats};
pub use wire::Packets;

pub(crate) use wire::NAME as WIRE;
