//! rtnetlink(7) by hand: messages that make interfaces and give them addresses, routes and neighbours; and what other parts of netlink(7) need.
//!
//! Messages are put together in batches. The kernel answers a message only if it refuses it, and the last one of a batch in any case, so
//! that a batch takes two system calls.

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::error::PAIR;
use super::subnet::Subnet;
use crate::collect::CollectVec as _;

/// The most messages that are sent at once. The answers of all of them fit into a socket, should the kernel refuse all.
const AT_ONCE: usize = 64;

/// The head of a message: its length, its kind, flags, a number and the sender's.
const HEAD: usize = 16;

/// The flags of a message that makes something new.
const MAKE: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// The flags of a message that changes something.
const CHANGE: u16 = libc::NLM_F_REQUEST as u16;

/// The attributes of a veth pair, in `linux/veth.h`.
const VETH_INFO_PEER: u16 = 1;

/// The attributes of a table of neighbours, in `linux/neighbour.h`.
const RTM_SETNEIGHTBL: u16 = 67;
const NDTA_NAME: u16 = 1;
const NDTA_PARMS: u16 = 6;
const NDTPA_IFINDEX: u16 = 1;
const NDTPA_BASE_REACHABLE_TIME: u16 = 4;

/// Entries with this flag, in `linux/neighbour.h`, count for no limit: `gc_thresh3` is one for all networks of the machine together.
const NTF_EXT_LEARNED: u8 = 1 << 4;

/// For how long a host knows its neighbours without asking them again, in milliseconds: longer than tests take.
const REACHABLE_MS: u64 = 3_600_000;

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

/// One end of a veth pair.
pub(super) struct VethEnd<'e> {
    pub(super) name: &'e str,
    /// Its number in its network.
    pub(super) index: i32,
    pub(super) mac: Mac,
    /// The network namespace that it is made in.
    pub(super) network: BorrowedFd<'e>,
}

/// Where a message begins, and what it is to make, in the words of an error.
type Begin = (usize, &'static str);

/// Messages that are sent together.
#[derive(Default)]
pub(super) struct Messages {
    pub(super) bytes: Vec<u8>,
    begin: Vec<Begin>,
}

/// What the kernel has refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) what: &'static str,
    pub(super) errno: Errno,
}

impl Messages {
    /// Makes a pair. The outer end is raised. The inner one is for whoever is in its network: the kernel would refuse it here, because the
    /// other end is not there yet.
    pub(super) fn pair(&mut self, outer: &VethEnd<'_>, inner: &VethEnd<'_>, mtu: u32) {
        self.message(PAIR, libc::RTM_NEWLINK, MAKE, |message| {
            message.link_head(outer.index, true);
            message.end(outer, mtu);
            message.nested(libc::IFLA_LINKINFO, |message| {
                message.attribute(libc::IFLA_INFO_KIND, b"veth");
                message.nested(libc::IFLA_INFO_DATA, |message| {
                    message.nested(VETH_INFO_PEER, |message| {
                        message.link_head(inner.index, false);
                        message.end(inner, mtu);
                    });
                });
            });
        });
    }

    /// Raises an interface.
    pub(super) fn raise(&mut self, index: i32) {
        self.message("an interface that is up", libc::RTM_SETLINK, CHANGE, |message| message.link_head(index, true));
    }

    /// Gives an interface an address, at once: nobody else on its link can have it.
    pub(super) fn address(&mut self, index: i32, address: IpAddr, subnet: &Subnet) {
        let flags = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
        let head = [family(address), subnet.prefix(), flags, libc::RT_SCOPE_UNIVERSE];
        self.message("an address", libc::RTM_NEWADDR, MAKE, |message| {
            message.bytes.extend(head);
            message.bytes.extend(index.to_ne_bytes());
            message.address_attribute(libc::IFA_LOCAL, address);
            message.address_attribute(libc::IFA_ADDRESS, address);
            if let Some(broadcast) = subnet.broadcast() {
                message.address_attribute(libc::IFA_BROADCAST, broadcast);
            }
        });
    }

    /// Has packets to `to`, or, with none, to wherever there is no other route, go by way of `gateway`.
    pub(super) fn route(&mut self, to: Option<&Subnet>, gateway: IpAddr, index: i32) {
        let prefix = to.map_or(0, Subnet::prefix);
        let (table, kind) = (libc::RT_TABLE_MAIN, libc::RTN_UNICAST);
        let head = [family(gateway), prefix, 0, 0, table, libc::RTPROT_STATIC, libc::RT_SCOPE_UNIVERSE, kind];
        self.message("a route", libc::RTM_NEWROUTE, MAKE, |message| {
            message.bytes.extend(head);
            message.bytes.extend([0; 4]);
            if let Some(to) = to {
                message.address_attribute(libc::RTA_DST, to.network());
            }
            message.address_attribute(libc::RTA_GATEWAY, gateway);
            message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
        });
    }

    /// Tells who has an address on a link, as if that one had just answered. It takes none of the room that the machine has for its own
    /// neighbours.
    pub(super) fn neighbour(&mut self, index: i32, address: IpAddr, mac: Mac) {
        self.message("a neighbour", libc::RTM_NEWNEIGH, MAKE, |message| {
            message.bytes.extend([family(address), 0, 0, 0]);
            message.bytes.extend(index.to_ne_bytes());
            message.bytes.extend(libc::NUD_REACHABLE.to_ne_bytes());
            message.bytes.extend([NTF_EXT_LEARNED, libc::RTN_UNICAST]);
            message.address_attribute(libc::NDA_DST, address);
            message.attribute(libc::NDA_LLADDR, &mac);
        });
    }

    /// Has neighbours on a link be known for as long as a test takes. The settings in `/proc/sys` are not there in networks of ordinary users.
    pub(super) fn remember_neighbours(&mut self, index: i32, is_v4: bool) {
        let (family, name) = if is_v4 {
            (libc::AF_INET, b"arp_cache\0".as_slice())
        } else {
            (libc::AF_INET6, b"ndisc_cache\0".as_slice())
        };
        self.message("a table of neighbours", RTM_SETNEIGHTBL, CHANGE, |message| {
            message.bytes.extend([family as u8, 0, 0, 0]);
            message.attribute(NDTA_NAME, name);
            message.nested(NDTA_PARMS, |message| {
                message.attribute(NDTPA_IFINDEX, &index.to_ne_bytes());
                message.attribute(NDTPA_BASE_REACHABLE_TIME, &REACHABLE_MS.to_ne_bytes());
            });
        });
    }

    pub(super) fn message(&mut self, what: &'static str, kind: u16, flags: u16, fill: impl FnOnce(&mut Self)) {
        let begin = self.bytes.len();
        self.begin.push((begin, what));
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend([0; 8]);
        fill(self);
        let length = self.bytes.len() - begin;
        self.bytes[begin..begin + 4].copy_from_slice(&(length as u32).to_ne_bytes());
    }

    /// A `struct ifinfomsg`.
    fn link_head(&mut self, index: i32, is_up: bool) {
        let up = if is_up { libc::IFF_UP } else { 0 };
        self.bytes.extend([0; 4]);
        self.bytes.extend(index.to_ne_bytes());
        self.bytes.extend(up.to_ne_bytes());
        self.bytes.extend(up.to_ne_bytes());
    }

    fn end(&mut self, end: &VethEnd<'_>, mtu: u32) {
        self.attribute(libc::IFLA_IFNAME, &[end.name.as_bytes(), b"\0"].concat());
        self.attribute(libc::IFLA_ADDRESS, &end.mac);
        self.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
        self.attribute(libc::IFLA_NET_NS_FD, &end.network.as_raw_fd().to_ne_bytes());
    }

    fn address_attribute(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.bytes.extend(value));
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let begin = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        fill(self);
        let length = self.bytes.len() - begin;
        self.bytes[begin..begin + 2].copy_from_slice(&(length as u16).to_ne_bytes());
    }

    /// All messages, as a transaction that is sent at once: the last but one asks for an answer. Numbers them from `first` on, which becomes the
    /// number behind the last.
    fn as_transaction(&mut self, first: &mut u32) -> (&[u8], &[Begin]) {
        let count = self.begin.len();
        self.number_all(first, |index| index + 2 == count);
        (&self.bytes, &self.begin)
    }

    /// Numbers the messages. Has those of which `asks` says so ask for an answer.
    fn number_all(&mut self, first: &mut u32, asks: impl Fn(usize) -> bool) {
        const FLAGS: usize = 6;
        const NUMBER: usize = 8;
        for (index, (begin, _)) in self.begin.iter().enumerate() {
            self.bytes[begin + NUMBER..begin + NUMBER + 4].copy_from_slice(&first.to_ne_bytes());
            *first = first.wrapping_add(1);
            if asks(index) {
                let flags = [self.bytes[begin + FLAGS], self.bytes[begin + FLAGS + 1]];
                let flags = u16::from_ne_bytes(flags) | libc::NLM_F_ACK as u16;
                self.bytes[begin + FLAGS..begin + FLAGS + 2].copy_from_slice(&flags.to_ne_bytes());
            }
        }
    }

    /// Numbers the messages from `first` on, which becomes the number behind the last. Returns parts that are sent at once: the last message
    /// of each asks for an answer.
    fn parts(&mut self, first: &mut u32) -> Vec<(&[u8], &[Begin])> {
        let count = self.begin.len();
        self.number_all(first, |index| index % AT_ONCE == AT_ONCE - 1 || index == count - 1);
        let end_of = |part: usize| self.begin.get((part + 1) * AT_ONCE).map_or(self.bytes.len(), |(begin, _)| *begin);
        self.begin
            .chunks(AT_ONCE)
            .enumerate()
            .map(|(part, begin)| (&self.bytes[begin[0].0..end_of(part)], begin))
            .collect_vec()
    }
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

/// A socket to the kernel's part of one network namespace: the one of the thread that has made it, whoever uses it.
pub(super) struct Netlink {
    socket: OwnedFd,
    next: u32,
}

impl Netlink {
    pub(super) fn new() -> nix::Result<Self> {
        Self::with(SockProtocol::NetlinkRoute)
    }

    /// One to another part of the kernel.
    pub(super) fn with(protocol: SockProtocol) -> nix::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Self { socket, next: 1 })
    }

    /// Has the kernel do all of it, in order. If it refuses something, the first such is the error, and the rest may have been done.
    pub(super) fn run(&mut self, mut messages: Messages) -> Result<(), Refused> {
        let mut first = self.next;
        for (bytes, begin) in messages.parts(&mut self.next) {
            let what = begin[0].1;
            let refused = |errno| Refused { what, errno };
            let last = first.wrapping_add(begin.len() as u32 - 1);
            let error = self.ask(bytes, |number| number == last).map_err(refused)?;
            if let Some((number, errno)) = error {
                let what = begin.get(number.wrapping_sub(first) as usize).map_or(what, |(_, what)| what);
                return Err(Refused { what, errno: Errno::from_raw(errno) });
            }
            first = last.wrapping_add(1);
        }
        Ok(())
    }

    /// Has the kernel do all of it, or nothing. The first message and the last one begin and end the transaction.
    pub(super) fn transact(&mut self, mut messages: Messages) -> Result<(), Refused> {
        let first = self.next;
        let (bytes, begin) = messages.as_transaction(&mut self.next);
        let what = begin[0].1;
        let refused = |errno| Refused { what, errno };
        // The first one is answered only if there is nobody who could do any of it, or if all of it fails at its end.
        let last = first.wrapping_add(begin.len() as u32).wrapping_sub(2);
        match self.ask(bytes, |number| number == last || number == first).map_err(refused)? {
            None => Ok(()),
            Some((number, errno)) => {
                let what = begin.get(number.wrapping_sub(first) as usize).map_or(what, |(_, what)| what);
                Err(Refused { what, errno: Errno::from_raw(errno) })
            }
        }
    }

    /// Sends messages, and returns the first error that is answered, with the number of its message, when a last answer has come.
    fn ask(&self, bytes: &[u8], is_last: impl Fn(u32) -> bool) -> nix::Result<Option<(u32, i32)>> {
        send(self.socket.as_fd().as_raw_fd(), bytes, MsgFlags::empty())?;
        let mut error = None;
        let mut buffer = [0; 8192];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                length => length?,
            };
            let answers = answers(&buffer[..length]).collect_vec();
            error = error.or_else(|| answers.iter().find(|(_, errno)| *errno != 0).copied());
            if answers.iter().any(|(number, _)| is_last(*number)) {
                return Ok(error);
            }
        }
    }
}

/// The answers in what the kernel has sent: the number of each message, and its error, or 0.
fn answers(mut bytes: &[u8]) -> impl Iterator<Item = (u32, i32)> + '_ {
    let word = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    std::iter::from_fn(move || {
        loop {
            let length = usize::try_from(word(bytes, 0)?).ok()?;
            let message = bytes.get(..length).filter(|message| message.len() >= HEAD)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            let kind = u16::from_ne_bytes([message[4], message[5]]);
            if i32::from(kind) == libc::NLMSG_ERROR {
                let errno = word(message, HEAD)? as i32;
                return Some((word(message, 8)?, errno.wrapping_neg()));
            }
        }
    })
}
