//! What a laboratory is made of, as the handles of a test share it: hosts, routers and switches, and what was chosen for them.

use std::io;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::gate::{Gate, Peer};
use super::place::HostNamespaces;

/// How many bytes the packets of an interface can have. [`Host::mtu`](super::Host::mtu) and [`Link::mtu`](super::Link::mtu) say so too.
pub(super) const MTUS: RangeInclusive<u32> = 68..=9000;

/// Names that no host can have: in `/etc/hosts`, they are those of the loopback.
pub(super) const RESERVED: [&str; 3] = ["localhost", "ip6-localhost", "ip6-loopback"];

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Host,
    Router,
    Switch,
}

/// What a test chose for an interface, as it is written there. Of a switch, `addresses` are its subnets.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    pub(super) addresses: Vec<String>,
    pub(super) mac: Option<String>,
    pub(super) mtu: Option<u32>,
    pub(super) interface: Option<String>,
}

/// A host, a router or a switch.
#[derive(Debug)]
pub struct Node {
    /// Which laboratory it belongs to.
    pub(super) lab: u64,
    /// Its place among the nodes of that.
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) role: Role,
    choice: Mutex<Choice>,
    gate: Mutex<Gate>,
    place: OnceLock<HostNamespaces>,
}

impl Node {
    pub(super) fn new(lab: u64, index: usize, name: &str, role: Role) -> Self {
        let (choice, gate, place) = (Mutex::default(), Mutex::default(), OnceLock::new());
        Self { lab, index, name: name.to_owned(), role, choice, gate, place }
    }

    /// What was chosen for its first interface.
    pub(super) fn choice(&self) -> MutexGuard<'_, Choice> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What others call it.
    pub(super) fn peer(&self) -> Peer {
        Peer { lab: self.lab, index: self.index, name: self.name.clone() }
    }

    /// What was asked for of a router.
    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where it is, when the laboratory is up.
    pub(super) fn set_place(&self, place: HostNamespaces) {
        let _ = self.place.set(place);
    }

    /// Where it is. `NotConnected` before the laboratory is up.
    pub(super) fn place(&self) -> io::Result<&HostNamespaces> {
        let down = || {
            let text =
                format!("belljar: `{}` is not there yet: its laboratory is not up. Call `Lab::up` before.", self.name);
            io::Error::new(io::ErrorKind::NotConnected, text)
        };
        self.place.get().ok_or_else(down)
    }
}

/// What a link can lead to: a [`Host`](super::Host), a [`Router`](super::Router) or a [`Switch`](super::Switch).
pub trait End: sealed::Sealed {}

pub(super) mod sealed {
    use std::sync::Arc;

    use crate::net::node::Node;

    /// Implemented for what is a node.
    pub trait Sealed {
        #[doc(hidden)]
        fn node(&self) -> &Arc<Node>;
    }
}
