//! What was asked for of a router: translation of addresses, forwarded ports, a firewall.

/// How a router translates the addresses of what it forwards to the outside: see [`Router::nat`](super::Router::nat).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// As most home routers do. Packets get the router's address, and keep their port if that is free, whoever they are for. So two hosts
    /// behind two such routers can find a way to each other: hole punching works.
    Masquerade,
    /// Packets get the router's address, and another port for each destination, chosen at random. Hole punching fails.
    Symmetric,
}

/// What was asked for of a router.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    pub(super) nat: Option<Nat>,
    pub(super) forwards: Vec<Forward>,
    pub(super) has_firewall: bool,
    /// What its outward interface leads to, if that was chosen.
    pub(super) outside: Option<Peer>,
}

/// A port at which the router stands in for a host.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    pub(super) port: u16,
    pub(super) to: Peer,
    pub(super) to_port: u16,
}

/// A node that a test names by its handle.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) lab: u64,
    pub(super) index: usize,
    pub(super) name: String,
}
