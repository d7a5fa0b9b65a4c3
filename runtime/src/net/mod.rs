//! A network laboratory in the sandbox: hosts, switches, routers and links that may be bad.
//!
//! A [`Lab`] is put together, and then it is [`up`](Lab::up). Each of its hosts has a network of its own, and everything that hosts send to each
//! other goes over a *wire*: a process of belljar's, which decides what becomes of each packet. It takes veth and packet sockets in the
//! kernel, no programs such as `ip`, and no rights beyond those of `#[isolated]`. [`Router::nat`], [`Router::forward`] and [`Router::firewall`]
//! take nf_tables too.
//!
//! ```test_harness
//! # use belljar::isolated;
//! use std::net::{TcpListener, TcpStream};
//!
//! use belljar::net::Lab;
//!
//! #[isolated]
//! fn two_hosts_talk() {
//!     let mut lab = Lab::new();
//!     let (server, client) = (lab.host("server"), lab.host("client"));
//!     let net = lab.up().unwrap();
//!     let _listener = server.run(|| TcpListener::bind("[::]:80").unwrap());
//!     client.run(|| TcpStream::connect("server:80").unwrap());
//!     # drop(net);
//! }
//! ```

mod entered;
mod error;
mod gate;
mod host;
mod inside;
mod lab;
mod nat;
mod netfilter;
mod netlink;
mod network;
mod node;
mod picture;
mod place;
mod port;
mod subnet;
mod threads;
mod trouble;
mod wire;

pub use error::Error;
pub use gate::Nat;
pub use host::{Entered, Host, Router};
pub(crate) use inside::{Inside, MOST_CAPTURE, set as set_inside};
pub use lab::{Lab, Link, Switch};
pub use network::Net;
pub(crate) use network::notes;
pub use node::End;
pub use port::{Port, Stats};
pub(crate) use threads::{LeftOnHosts, finish};
pub(crate) use trouble::trouble;
pub use wire::Packets;
pub(crate) use wire::write_capture;
