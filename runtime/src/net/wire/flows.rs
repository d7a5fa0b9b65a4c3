//! Gives each frame an identity that is the same in every run: its flow, and its place in that.
//!
//! A run must not differ from the next by what is chosen anew each time: ephemeral ports, initial sequence numbers, the ids of echoes. So a
//! flow is identified by its addresses, its protocol, those of its ports that somebody has chosen, and how many such flows there were before. A
//! datagram is identified by its number in its flow, a segment of TCP by its place in the stream. Everything else is identified by its content,
//! and by how often that was seen.

use super::chance::{hash, hash_bytes, mix};
use super::packet::{Ip, Kind, Packet, Tcp, Transport, flags};
use super::table::Table;
use crate::collect::map_both;

/// How many directions of flows are known at a time.
const STREAMS: usize = 1 << 14;

/// How many contents are told apart.
const CONTENTS: usize = 1 << 12;

/// What stands for a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FrameKey {
    /// The flow and the direction in it.
    pub(super) stream: u64,
    /// The position in that.
    pub(super) position: u64,
    /// The number of the frame in its stream, from 1 on, for people.
    pub(super) number: u64,
}

impl FrameKey {
    /// One number for it.
    pub(super) fn id(self) -> u64 {
        hash(&[self.stream, self.position])
    }

    /// That of another copy.
    pub(super) fn of_copy(self) -> Self {
        Self { position: hash(&[self.position, 1]), ..self }
    }
}

pub(super) struct Flows {
    /// How many flows of a kind there were.
    groups: Table<u64>,
    /// Which of its kind a flow is.
    flows: Table<u64>,
    streams: Table<Stream>,
    /// Where the first fragments of packets stand.
    fragments: Table<FrameKey>,
    contents: Table<u64>,
}

/// One direction of a flow, where it enters a segment.
#[derive(Clone, Default)]
struct Stream {
    label: u64,
    count: u64,
    tcp: TcpState,
}

#[derive(Clone, Default)]
struct TcpState {
    /// The initial sequence number.
    initial: Option<u32>,
    /// Where what was sent ends, from there.
    end: u32,
    /// How many segments were sent again.
    again: u64,
    /// The first acknowledgement, and how often the last came.
    first_acknowledged: Option<u32>,
    last_acknowledged: u32,
    same: u64,
    resets: u64,
}

/// What a flow is, before it is known which of its kind.
struct Identity {
    /// Whether this packet goes from the larger address to the smaller.
    is_reverse: bool,
    /// The same in all runs.
    label: u64,
    /// For this run.
    key: u64,
}

impl Identity {
    fn of(ip: &Ip, vlan: u32) -> Self {
        let (protocol, ports) = match ip.transport {
            Transport::Udp { ports, .. } | Transport::Tcp(Tcp { ports, .. }) => (u64::from(ip.protocol), ports),
            Transport::Icmp { id: Some(id), .. } => (u64::from(ip.protocol) | 1 << 8, [id; 2]),
            Transport::Icmp { kind, code, .. } => {
                (u64::from(ip.protocol) | u64::from(kind) << 16 | u64::from(code) << 24, [0; 2])
            }
            Transport::None => (u64::from(ip.protocol), [0; 2]),
        };
        // The kernel's `ip_local_port_range`. Ids of echoes are never chosen.
        let is_echo = protocol & 1 << 8 != 0;
        let chosen = ports.map(|port| if is_echo || (32768..=60999).contains(&port) { 0 } else { u64::from(port) });
        let ports = ports.map(u64::from);
        let is_reverse = (ip.source, ports[0]) > (ip.destination, ports[1]);
        let (mut ends, mut chosen, mut ports) = (map_both([ip.source, ip.destination], one_of), chosen, ports);
        if is_reverse {
            ends.reverse();
            chosen.reverse();
            ports.reverse();
        }
        let label = hash(&[protocol, u64::from(vlan), ends[0], ends[1], chosen[0], chosen[1]]);
        Self { is_reverse, label, key: hash(&[label, ports[0], ports[1]]) }
    }
}

/// One number for an address.
fn one_of(address: u128) -> u64 {
    mix((address >> 64) as u64 ^ mix(address as u64))
}

impl Flows {
    pub(super) fn new() -> Self {
        Self {
            groups: Table::new(STREAMS / 2),
            flows: Table::new(STREAMS),
            streams: Table::new(STREAMS),
            fragments: Table::new(1 << 10),
            contents: Table::new(CONTENTS),
        }
    }

    /// How many entries were forgotten since the last call. Later frames of a forgotten flow count as a new flow.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        self.groups.take_forgotten() + self.flows.take_forgotten() + self.streams.take_forgotten()
    }

    /// Where a frame stands that enters `segment` at `port`.
    pub(super) fn key(&mut self, packet: &Packet, frame: &[u8], port: u64, segment: u64) -> FrameKey {
        let key = match &packet.kind {
            Kind::Ip(ip) => self.key_of_ip(ip, packet.vlan, port, segment),
            _ => None,
        };
        key.unwrap_or_else(|| self.key_of_content(frame, port))
    }

    fn key_of_content(&mut self, frame: &[u8], port: u64) -> FrameKey {
        let content = hash_bytes(frame);
        let mut number = 1;
        if let Some(seen) = self.contents.entry(hash(&[content, port])) {
            *seen.value += 1;
            number = *seen.value;
        }
        FrameKey { stream: content, position: number, number }
    }

    fn key_of_ip(&mut self, ip: &Ip, vlan: u32, port: u64, segment: u64) -> Option<FrameKey> {
        let packet = ip.fragment.map(|fragment| {
            hash(&[one_of(ip.source), one_of(ip.destination), fragment.id.into(), ip.protocol.into(), port])
        });
        if let Some((packet, fragment)) = packet.zip(ip.fragment).filter(|(_, fragment)| fragment.offset > 0) {
            if let Some(first) = self.fragments.find(packet) {
                return Some(FrameKey { position: hash(&[first.position, fragment.offset.into()]), ..*first });
            }
        }
        let identity = Identity::of(ip, vlan);
        let (segment_group, flow_key) = (hash(&[identity.label, segment]), hash(&[identity.key, segment]));
        let stream = self.streams.entry(hash(&[identity.key, port, identity.is_reverse.into()]))?;
        let mut starts = stream.is_new;
        let mut is_opening = false;
        if let Transport::Tcp(tcp) = ip.transport {
            // A connection on the ports of one before.
            if tcp.flags & flags::SYN != 0 && stream.value.tcp.initial.is_some_and(|initial| initial != tcp.sequence) {
                (starts, is_opening) = (true, tcp.flags & flags::ACK == 0);
            }
        }
        if starts {
            let flow = self.flows.entry(flow_key)?;
            if flow.is_new || is_opening {
                let count = self.groups.entry(segment_group)?.value;
                *count += 1;
                *flow.value = *count;
            }
            let label = hash(&[identity.label, *flow.value, identity.is_reverse.into()]);
            *stream.value = Stream { label, ..Stream::default() };
        }
        let stream = stream.value;
        stream.count += 1;
        let position = match ip.transport {
            Transport::Tcp(tcp) => stream.tcp.position(&tcp),
            _ => stream.count,
        };
        let key = FrameKey { stream: stream.label, position, number: stream.count };
        if let Some(first) = packet.and_then(|packet| self.fragments.entry(packet)) {
            *first.value = key;
        }
        Some(key)
    }
}

impl TcpState {
    /// Where a segment stands: the first time that it is sent, by its place in the stream alone.
    fn position(&mut self, tcp: &Tcp) -> u64 {
        let initial = *self.initial.get_or_insert(tcp.sequence);
        let has = |flag| u32::from(tcp.flags & flag != 0);
        if has(flags::RST) != 0 {
            self.resets += 1;
            return hash(&[1, self.resets]);
        }
        let length = tcp.length + has(flags::SYN) + has(flags::FIN);
        if length == 0 {
            let first = *self.first_acknowledged.get_or_insert(tcp.acknowledged);
            let acknowledged = tcp.acknowledged.wrapping_sub(first);
            self.same = if acknowledged == self.last_acknowledged { self.same + 1 } else { 0 };
            self.last_acknowledged = acknowledged;
            return hash(&[2, acknowledged.into(), self.same]);
        }
        let start = tcp.sequence.wrapping_sub(initial);
        // The numbers begin anew after four gigabytes.
        let is_first = start.wrapping_sub(self.end) < 1 << 31;
        if is_first {
            self.end = start.wrapping_add(length);
            return hash(&[3, start.into()]);
        }
        self.again += 1;
        hash(&[4, start.into(), self.again])
    }
}
