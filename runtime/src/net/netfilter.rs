//! nf_tables by hand: a table with what a router does to packets beside forwarding them.
//!
//! In the words of nft(8), for a router whose interface 65537 leads to the outside:
//!
//! ```text
//! table inet belljar {
//!     chain nat-out { type nat hook postrouting priority 100
//!         oif 65537 masquerade }
//!     chain nat-in { type nat hook prerouting priority -100
//!         iif 65537 meta nfproto ipv4 meta l4proto tcp th dport 8080 dnat to 10.0.0.1:80 }
//!     chain input { type filter hook input priority 0
//!         iif 65537 meta l4proto tcp ct state & (established | related) == 0 drop }
//!     chain forward { type filter hook forward priority 0
//!         oif 65537 ct state & (new | established | related) == 0 drop
//!         iif 65537 ct state & (new | established | related) == 0 drop
//!         iif 65537 ct state & (established | related) == 0 ct status & dnat == 0 drop }
//! }
//! ```
//!
//! The chain `input` is what makes hole punching work: without it, the kernel remembers a packet that has come too early, and gives the way that the
//! inside opens then another port.
//!
//! What belongs to no connection, such as an answer that nobody has asked for, has no state and no status. The kernel translates nothing of it, so that it
//! would show the outside an address of the inside. And a rule that asks for its status does not hold for it, whatever the rule says then. So the first
//! rules of `forward`, one for NAT and one for the firewall, drop it.
//!
//! A transaction is done as a whole, or not at all. A rule is a list of expressions, which load values into registers,
//! compare them, and decide. The numbers are in `linux/netfilter/nf_tables.h`.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::error::{Error, ErrorKind};
use super::gate::Nat;
use super::netlink::{Messages, Netlink, Refused};

/// What a router is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedGate {
    pub(super) nat: Option<Nat>,
    /// The port that leads to the outside, and the number of its interface.
    pub(super) outside: usize,
    pub(super) index: i32,
    pub(super) forwards: Vec<PlannedForward>,
    pub(super) has_firewall: bool,
}

/// A port that leads to a host inside, for packets of the kind of its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedForward {
    pub(super) port: u16,
    pub(super) to: IpAddr,
    pub(super) to_port: u16,
}

/// What is made, in the words of an error, and the module without which the kernel refuses it.
const TABLE: &str = "a table of nf_tables";
const NAT_CHAIN: &str = "a chain that translates addresses";
const FILTER_CHAIN: &str = "a chain that filters packets";
const MASQUERADE: &str = "a rule that masquerades";
const FORWARD: &str = "a rule that forwards a port";
const ESTABLISHED: &str = "a rule that lets answers pass";
const MODULES: [(&str, &str); 6] = [
    (TABLE, "nf_tables"),
    (NAT_CHAIN, "nft_chain_nat"),
    (FILTER_CHAIN, "nf_tables"),
    (MASQUERADE, "nft_masq"),
    (FORWARD, "nft_nat"),
    (ESTABLISHED, "nft_ct"),
];

/// The names of the table and of its chains.
const NAME: &[u8] = b"belljar\0";
const OUT: &[u8] = b"nat-out\0";
const IN: &[u8] = b"nat-in\0";
const INPUT: &[u8] = b"input\0";
const FORWARDED: &[u8] = b"forward\0";

/// Messages that begin and end a transaction, in `linux/netfilter/nfnetlink.h`.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

/// The part of netfilter, and the kinds of its messages.
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

/// Flags of messages that make something: rules are added behind the others.
const BATCH: u16 = libc::NLM_F_REQUEST as u16;
const MAKE: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_CREATE) as u16;
const ADD: u16 = MAKE | libc::NLM_F_APPEND as u16;

/// Families: IPv4 and IPv6 at once, and each.
const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// Hooks, and when a chain is asked there.
const PREROUTING: u32 = 0;
const LOCAL_IN: u32 = 1;
const FORWARDING: u32 = 2;
const POSTROUTING: u32 = 4;
const DESTINATION_NAT: i32 = -100;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;

/// The registers that rules use.
const VERDICT: u32 = 0;
const FIRST: u32 = 1;
const SECOND: u32 = 2;

/// What `meta` and `ct` load.
const META_IIF: u32 = 4;
const META_OIF: u32 = 5;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;

/// Connections that are established, or related to one; these and new ones; and those whose destination was changed.
const ANSWERS: u32 = 1 << 1 | 1 << 2;
const KNOWN: u32 = ANSWERS | 1 << 3;
const DNAT: u32 = 1 << 5;

const EQUAL: u32 = 0;
const TRANSPORT_HEADER: u32 = 2;
const DROP: u32 = 0;

/// Flags of `masq`: a port is chosen at random, for each connection anew.
const RANDOM_FULLY: u32 = 1 << 4;

/// How many forwarded ports are told the kernel in one transaction. It takes some 100 KiB at once, and a rule has half of one.
const AT_ONCE: usize = 64;

/// The protocols that have ports.
const PROTOCOLS: [u8; 2] = [libc::IPPROTO_TCP as u8, libc::IPPROTO_UDP as u8];

/// Has the router whose network this thread is in do what was planned.
pub(super) fn set_up(router: &str, gate: &PlannedGate) -> Result<(), Error> {
    let refused = |Refused { what, errno }| Error(trouble(router, what, errno));
    let socket = Netlink::with(SockProtocol::NetlinkNetFilter);
    let mut netlink = socket.map_err(|errno| refused(Refused { what: TABLE, errno }))?;
    netlink.transact(messages(gate)).map_err(refused)?;
    gate.forwards.chunks(AT_ONCE).try_for_each(|some| netlink.transact(forwards(gate, some)).map_err(refused))
}

/// Which modules are missing is told by what the kernel does not know.
fn trouble(router: &str, what: &'static str, errno: Errno) -> ErrorKind {
    let module = MODULES.iter().find(|(made, _)| *made == what).map(|(_, module)| *module);
    let is_unknown = matches!(errno, Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT);
    match module.filter(|_| is_unknown) {
        Some(module) => ErrorKind::NoModule { of: router.to_owned(), what, module, errno },
        None => ErrorKind::Step { what, of: router.to_owned(), errno },
    }
}

fn messages(gate: &PlannedGate) -> Messages {
    let mut messages = Messages::default();
    batch(&mut messages, BATCH_BEGIN);
    message(&mut messages, TABLE, NEW_TABLE, MAKE, |table| table.attribute(1, NAME));
    if let Some(nat) = gate.nat {
        chain(&mut messages, NAT_CHAIN, OUT, b"nat\0", (POSTROUTING, SOURCE_NAT));
        rule(&mut messages, MASQUERADE, OUT, |rule| {
            rule.is_interface(META_OIF, gate.index);
            rule.expression(b"masq\0", |masq| match nat {
                Nat::Masquerade => {}
                Nat::Symmetric => masq.number(1, RANDOM_FULLY),
            });
        });
        chain(&mut messages, NAT_CHAIN, IN, b"nat\0", (PREROUTING, DESTINATION_NAT));
        chain(&mut messages, FILTER_CHAIN, INPUT, b"filter\0", (LOCAL_IN, FILTER));
        for protocol in PROTOCOLS {
            rule(&mut messages, ESTABLISHED, INPUT, |rule| {
                rule.is_interface(META_IIF, gate.index);
                rule.is_protocol(protocol);
                rule.has_none_of(CT_STATE, ANSWERS);
                rule.drop_it();
            });
        }
    }
    forward_known(&mut messages, gate);
    batch(&mut messages, BATCH_END);
    messages
}

/// What has these ports be forwarded, when the chains are there.
fn forwards(gate: &PlannedGate, forwards: &[PlannedForward]) -> Messages {
    let mut messages = Messages::default();
    batch(&mut messages, BATCH_BEGIN);
    for forward in forwards {
        for protocol in PROTOCOLS {
            rule(&mut messages, FORWARD, IN, |rule| forward_port(rule, gate.index, protocol, forward));
        }
    }
    batch(&mut messages, BATCH_END);
    messages
}

/// Has only packets pass that belong to a connection: of those from the outside, where there is a firewall, one that the inside has begun.
fn forward_known(messages: &mut Messages, gate: &PlannedGate) {
    chain(messages, FILTER_CHAIN, FORWARDED, b"filter\0", (FORWARDING, FILTER));
    let directions = [(gate.nat.is_some(), META_OIF), (gate.has_firewall, META_IIF)];
    for (_, direction) in directions.into_iter().filter(|(is_asked_for, _)| *is_asked_for) {
        rule(messages, ESTABLISHED, FORWARDED, |rule| {
            rule.is_interface(direction, gate.index);
            rule.has_none_of(CT_STATE, KNOWN);
            rule.drop_it();
        });
    }
    if gate.has_firewall {
        rule(messages, ESTABLISHED, FORWARDED, |rule| {
            rule.is_interface(META_IIF, gate.index);
            rule.has_none_of(CT_STATE, ANSWERS);
            // Those without a connection, for which this never holds, are gone by now.
            rule.has_none_of(CT_STATUS, DNAT);
            rule.drop_it();
        });
    }
}

fn forward_port(rule: &mut Messages, index: i32, protocol: u8, forward: &PlannedForward) {
    let (family, address) = match forward.to {
        IpAddr::V4(address) => (IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, address.octets().to_vec()),
    };
    rule.is_interface(META_IIF, index);
    rule.load_meta(META_NFPROTO);
    rule.compare(&[family]);
    rule.is_protocol(protocol);
    rule.expression(b"payload\0", |payload| {
        // The port that a packet is for is at 2 in the heads of both protocols, and has 2 bytes.
        [(1, FIRST), (2, TRANSPORT_HEADER), (3, 2), (4, 2)]
            .into_iter()
            .for_each(|(kind, value)| payload.number(kind, value));
    });
    rule.compare(&forward.port.to_be_bytes());
    rule.load(FIRST, &address);
    rule.load(SECOND, &forward.to_port.to_be_bytes());
    rule.expression(b"nat\0", |nat| {
        // A translation of destinations, whose address and port are in registers.
        [(1, 1), (2, family.into()), (3, FIRST), (5, SECOND)]
            .into_iter()
            .for_each(|(kind, value)| nat.number(kind, value));
    });
}

/// A message that begins or ends the transaction.
fn batch(messages: &mut Messages, kind: u16) {
    messages.message(TABLE, kind, BATCH, |message| {
        // No family, no version, and the part of netfilter.
        let [high, low] = SUBSYSTEM.to_be_bytes();
        message.bytes.extend([0, 0, high, low]);
    });
}

/// A message about something for both families.
fn message(messages: &mut Messages, what: &'static str, kind: u16, flags: u16, fill: impl FnOnce(&mut Messages)) {
    messages.message(what, SUBSYSTEM << 8 | kind, flags, |message| {
        message.bytes.extend([INET, 0, 0, 0]);
        fill(message);
    });
}

fn chain(messages: &mut Messages, what: &'static str, name: &[u8], kind: &[u8], (hook, priority): (u32, i32)) {
    message(messages, what, NEW_CHAIN, MAKE, |chain| {
        chain.attribute(1, NAME);
        chain.attribute(3, name);
        chain.nested(4, |place| {
            place.number(1, hook);
            place.attribute(2, &priority.to_be_bytes());
        });
        chain.attribute(7, kind);
    });
}

fn rule(messages: &mut Messages, what: &'static str, chain: &[u8], fill: impl FnOnce(&mut Messages)) {
    message(messages, what, NEW_RULE, ADD, |rule| {
        rule.attribute(1, NAME);
        rule.attribute(2, chain);
        rule.nested(4, fill);
    });
}

/// Expressions of a rule.
impl Messages {
    /// A number, which netfilter expects with the high byte first.
    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    fn expression(&mut self, name: &[u8], fill: impl FnOnce(&mut Self)) {
        self.nested(1, |element| {
            element.attribute(1, name);
            element.nested(2, fill);
        });
    }

    fn load_meta(&mut self, key: u32) {
        self.expression(b"meta\0", |meta| {
            [(1, FIRST), (2, key)].into_iter().for_each(|(kind, value)| meta.number(kind, value))
        });
    }

    /// Goes on if the first register has this value.
    fn compare(&mut self, value: &[u8]) {
        self.expression(b"cmp\0", |compare| {
            [(1, FIRST), (2, EQUAL)].into_iter().for_each(|(kind, value)| compare.number(kind, value));
            compare.nested(3, |data| data.attribute(1, value));
        });
    }

    fn load(&mut self, register: u32, value: &[u8]) {
        self.expression(b"immediate\0", |immediate| {
            immediate.number(1, register);
            immediate.nested(2, |data| data.attribute(1, value));
        });
    }

    /// Goes on if a packet comes in or goes out by this interface.
    fn is_interface(&mut self, key: u32, index: i32) {
        self.load_meta(key);
        self.compare(&index.to_ne_bytes());
    }

    fn is_protocol(&mut self, protocol: u8) {
        self.load_meta(META_L4PROTO);
        self.compare(&[protocol]);
    }

    fn drop_it(&mut self) {
        self.expression(b"immediate\0", |immediate| {
            immediate.number(1, VERDICT);
            immediate.nested(2, |data| data.nested(2, |verdict| verdict.number(1, DROP)));
        });
    }

    /// Goes on if none of these bits is set of what is known of the packet's connection.
    fn has_none_of(&mut self, key: u32, bits: u32) {
        self.expression(b"ct\0", |ct| {
            [(1, FIRST), (2, key)].into_iter().for_each(|(kind, value)| ct.number(kind, value))
        });
        self.expression(b"bitwise\0", |bitwise| {
            [(1, FIRST), (2, FIRST), (3, 4)].into_iter().for_each(|(kind, value)| bitwise.number(kind, value));
            bitwise.nested(4, |mask| mask.attribute(1, &bits.to_ne_bytes()));
            bitwise.nested(5, |xor| xor.attribute(1, &[0; 4]));
        });
        self.compare(&[0; 4]);
    }
}
