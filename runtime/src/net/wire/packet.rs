//! What a frame is: read from its bytes, which may be anything.

use crate::collect::map_both;

/// The most headers of extensions of version 6 that are looked behind.
const EXTENSIONS_MAX: usize = 8;

/// The most tags of VLANs that are looked behind.
const TAGS_MAX: usize = 2;

/// What is known of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// The tags of VLANs, the last in the lower half.
    pub(super) vlan: u32,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ip(Ip),
    /// What keeps a network together, such as ARP, neighbour discovery and multicast listener discovery.
    Upkeep(Upkeep),
    /// Of another protocol, or too short for its own.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upkeep {
    Arp,
    Neighbours,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ip {
    /// Those of version 4 are mapped, as `::ffff:a.b.c.d`.
    pub(super) source: u128,
    pub(super) destination: u128,
    pub(super) protocol: u8,
    pub(super) fragment: Option<Fragment>,
    pub(super) transport: Transport,
    /// Where the packet of the protocol begins in the frame, and where it ends.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) id: u32,
    /// Where it begins, in units of eight bytes. Only the first has the ports.
    pub(super) offset: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp {
        ports: [u16; 2],
        payload: usize,
    },
    Tcp(Tcp),
    /// `id` is that of an echo: whoever asks chooses it, like a port.
    Icmp {
        kind: u8,
        code: u8,
        id: Option<u16>,
    },
    /// Another protocol, a later fragment, or too short for its own.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tcp {
    pub(super) ports: [u16; 2],
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    pub(super) flags: u8,
    /// Where its payload begins in the frame, and how long it is.
    pub(super) payload: usize,
    pub(super) length: u32,
}

pub(super) mod flags {
    pub(in super::super) const FIN: u8 = 1;
    pub(in super::super) const SYN: u8 = 2;
    pub(in super::super) const RST: u8 = 4;
    pub(in super::super) const ACK: u8 = 16;
}

fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

// Tests are built without optimization, as a rule, and this is done for each frame: plain matches are much faster there than iterators.
fn short(bytes: &[u8], at: usize) -> Option<u16> {
    match bytes.get(at..at.checked_add(2)?)? {
        &[high, low] => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    match bytes.get(at..at.checked_add(4)?)? {
        &[a, b, c, d] => Some(u32::from_be_bytes([a, b, c, d])),
        _ => None,
    }
}

fn address_4(bytes: &[u8], at: usize) -> Option<u128> {
    Some(MAPPED | u128::from(long(bytes, at)?))
}

fn address_6(bytes: &[u8], at: usize) -> Option<u128> {
    let half = |at| Some(u64::from(long(bytes, at)?) << 32 | u64::from(long(bytes, at + 4)?));
    Some(u128::from(half(at)?) << 64 | u128::from(half(at + 8)?))
}

/// What addresses of version 4 begin with, as ones of version 6.
const MAPPED: u128 = 0xffff << 32;

impl Packet {
    /// Reads a frame, from the destination's address on.
    pub(super) fn parse(frame: &[u8]) -> Self {
        let (mut at, mut vlan) = (12, 0);
        let mut kind = short(frame, at);
        for _ in 0..TAGS_MAX {
            if !matches!(kind, Some(0x8100 | 0x88a8)) {
                break;
            }
            vlan = vlan << 16 | u32::from(short(frame, at + 2).unwrap_or_default() & 0xfff);
            at += 4;
            kind = short(frame, at);
        }
        let kind = match kind {
            Some(0x0800) => version_4(frame, at + 2).map(Kind::Ip),
            Some(0x86dd) => version_6(frame, at + 2).map(Kind::Ip),
            Some(0x0806) => Some(Kind::Upkeep(Upkeep::Arp)),
            _ => None,
        };
        let kind = match kind.unwrap_or(Kind::Other) {
            Kind::Ip(ip) if ip.is_upkeep() => Kind::Upkeep(Upkeep::Neighbours),
            kind => kind,
        };
        Self { vlan, kind }
    }

    pub(super) fn is_upkeep(&self) -> bool {
        matches!(self.kind, Kind::Upkeep(_))
    }
}

impl Ip {
    /// Neighbour and multicast listener discovery, and what version 4 has in the place of the latter, IGMP.
    fn is_upkeep(&self) -> bool {
        let is_discovery = |kind| matches!(kind, 130..=137 | 143);
        match self.transport {
            Transport::Icmp { kind, .. } => self.protocol == 58 && is_discovery(kind),
            Transport::None => self.protocol == 2,
            _ => false,
        }
    }
}

/// The number of the header by which IPsec authenticates what follows, in both versions.
const AUTHENTICATION: u8 = 51;

/// How many bytes such a header has, by what it says of its size. See RFC 4302.
fn authentication(size: u8) -> usize {
    usize::from(size) * 4 + 8
}

fn version_4(frame: &[u8], at: usize) -> Option<Ip> {
    let first = byte(frame, at)?;
    let header = usize::from(first & 15) * 4;
    if first >> 4 != 4 || header < 20 {
        return None;
    }
    // What follows is padding. With offloads, the length may be zero.
    let length = usize::from(short(frame, at + 2)?);
    let end = if length < header { frame.len() } else { frame.len().min(at + length) };
    let parts = short(frame, at + 6)?;
    let offset = parts & 0x1fff;
    let is_fragment = offset != 0 || parts & 0x2000 != 0;
    let fragment = is_fragment.then_some(Fragment { id: u32::from(short(frame, at + 4)?), offset });
    let (source, destination) = (address_4(frame, at + 12)?, address_4(frame, at + 16)?);
    let (mut protocol, mut start) = (byte(frame, at + 9)?, at + header);
    if let (AUTHENTICATION, 0, Some(next), Some(size)) = (protocol, offset, byte(frame, start), byte(frame, start + 1))
    {
        (protocol, start) = (next, start + authentication(size));
    }
    let transport = transport(frame, start, end, protocol, offset);
    Some(Ip { source, destination, protocol, fragment, transport, start, end })
}

fn version_6(frame: &[u8], at: usize) -> Option<Ip> {
    if byte(frame, at)? >> 4 != 6 {
        return None;
    }
    let length = usize::from(short(frame, at + 4)?);
    let (source, destination) = (address_6(frame, at + 8)?, address_6(frame, at + 24)?);
    let mut protocol = byte(frame, at + 6)?;
    let mut start = at + 40;
    let end = if length == 0 { frame.len() } else { frame.len().min(start + length) };
    let mut fragment = None;
    for _ in 0..EXTENSIONS_MAX {
        let (Some(next), Some(size)) = (byte(frame, start), byte(frame, start + 1)) else { break };
        let size = match protocol {
            // Options for each hop, routing, options for the destination.
            0 | 43 | 60 => usize::from(size) * 8 + 8,
            44 => {
                let (Some(parts), Some(id)) = (short(frame, start + 2), long(frame, start + 4)) else { break };
                fragment = Some(Fragment { id, offset: parts >> 3 });
                8
            }
            AUTHENTICATION => authentication(size),
            _ => break,
        };
        protocol = next;
        start += size;
        // What stands in later fragments is no header.
        if fragment.is_some_and(|fragment| fragment.offset > 0) {
            break;
        }
    }
    let offset = fragment.map_or(0, |fragment| fragment.offset);
    let transport = transport(frame, start, end, protocol, offset);
    Some(Ip { source, destination, protocol, fragment, transport, start, end })
}

/// What begins at `start` in the frame. Of a fragment, only the first has it.
fn transport(frame: &[u8], start: usize, end: usize, protocol: u8, offset: u16) -> Transport {
    let parse = || {
        let body = frame.get(start..end)?;
        Some(match protocol {
            6 => {
                let header = usize::from(byte(body, 12)? >> 4) * 4;
                let length = body.len().checked_sub(header).filter(|_| header >= 20)?;
                Transport::Tcp(Tcp {
                    ports: [short(body, 0)?, short(body, 2)?],
                    sequence: long(body, 4)?,
                    acknowledged: long(body, 8)?,
                    flags: byte(body, 13)?,
                    payload: start + header,
                    length: u32::try_from(length).ok()?,
                })
            }
            17 => {
                let ports = [short(body, 0)?, short(body, 2)?];
                byte(body, 7)?;
                Transport::Udp { ports, payload: start + 8 }
            }
            1 | 58 => {
                let kind = byte(body, 0)?;
                let is_echo = matches!((protocol, kind), (1, 0 | 8) | (58, 128 | 129));
                Transport::Icmp { kind, code: byte(body, 1)?, id: if is_echo { short(body, 4) } else { None } }
            }
            _ => Transport::None,
        })
    };
    if offset > 0 { Transport::None } else { parse().unwrap_or(Transport::None) }
}

/// Writes the checksum that the kernel has left to the network card. See RFC 1071.
pub(super) fn complete_checksum(frame: &mut [u8]) {
    let Kind::Ip(ip) = Packet::parse(frame).kind else { return };
    let offset = match ip.transport {
        Transport::Tcp(_) => 16,
        Transport::Udp { .. } => 6,
        _ => return,
    };
    let Some(body) = frame.get_mut(ip.start..ip.end) else { return };
    if let Some(place) = body.get_mut(offset..offset + 2) {
        place.fill(0);
    }
    // Of an address of version 4, only its own four bytes count.
    let mask = if ip.source >> 32 == MAPPED >> 32 { u128::from(u32::MAX) } else { u128::MAX };
    let [source, destination] = map_both([ip.source, ip.destination], |address| sum(&(address & mask).to_be_bytes()));
    let head = source + destination + u64::from(ip.protocol) + body.len() as u64;
    let checksum = match folded(head + sum(body)) {
        // In UDP, zero would say that there is none. For TCP, both are the same.
        0xffff => 0xffff,
        folded => !folded,
    };
    if let Some(place) = body.get_mut(offset..offset + 2) {
        place.copy_from_slice(&checksum.to_be_bytes());
    }
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u64::from(high) << 8 | u64::from(low),
        [high] => u64::from(high) << 8,
        _ => 0,
    });
    words.sum()
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Which bits of a frame may be changed, so that a checksum finds it: those behind the addresses. A card throws away what is wrong in others.
pub(super) fn corruptible(frame: &[u8]) -> Option<(usize, usize)> {
    let packet = Packet::parse(frame);
    let Kind::Ip(ip) = packet.kind else { return None };
    let length = ip.end.checked_sub(ip.start).filter(|length| *length > 0)?;
    Some((ip.start, length))
}
