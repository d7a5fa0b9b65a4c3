//! Which packets a test means: in numbers, since the wire can't run a closure of the test's.

use super::packet::{Kind, Packet, Tcp, Transport, Upkeep};
use crate::collect::{CollectVec as _, map_both};

/// How many words it has in shared memory.
pub(super) const WORDS: usize = 4;

/// The most bytes that [`Packets::beginning_with`] compares.
const BEGINNING_MAX: usize = 16;

/// Packets that have something in common, for `lose_when`. All that is said must be so.
///
/// ```
/// use belljar::net::Packets;
///
/// let answers = Packets::udp().from_port(53);
/// let first_steps = Packets::tcp().to_port(80).with_flags(Packets::SYN);
/// let pings = Packets::icmp().beginning_with(&[8]); // of version 4; an echo request of version 6 is 128
/// # let _ = (answers, first_steps, pings);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    protocol: Protocol,
    from: Option<u16>,
    to: Option<u16>,
    flags: u8,
    without_flags: u8,
    longer_than: u16,
    beginning: [u8; BEGINNING_MAX],
    beginning_length: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Protocol {
    #[default]
    Any,
    Udp,
    Tcp,
    Icmp,
    Arp,
    Neighbours,
}

impl Packets {
    /// The flag of TCP that ends one direction of a connection.
    pub const FIN: u8 = 1;
    /// The flag of TCP that begins a connection.
    pub const SYN: u8 = 2;
    /// The flag of TCP that ends a connection at once.
    pub const RST: u8 = 4;
    /// The flag of TCP that has data passed on without waiting for more.
    pub const PSH: u8 = 8;
    /// The flag of TCP that acknowledges what has come.
    pub const ACK: u8 = 16;

    /// What is said of them, for a trace.
    pub(crate) fn text(&self) -> String {
        const FLAGS: [(u8, &str); 5] = [
            (Packets::SYN, "SYN"),
            (Packets::ACK, "ACK"),
            (Packets::FIN, "FIN"),
            (Packets::RST, "RST"),
            (Packets::PSH, "PSH"),
        ];
        let Self { protocol, from, to, flags, without_flags, longer_than, beginning, beginning_length } = *self;
        let names = |flags: u8| FLAGS.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect_vec();
        let mut words = match protocol {
            Protocol::Any => "all".to_owned(),
            Protocol::Udp => "UDP".to_owned(),
            Protocol::Tcp => "TCP".to_owned(),
            Protocol::Icmp => "ICMP".to_owned(),
            Protocol::Arp => "ARP".to_owned(),
            Protocol::Neighbours => "neighbour discovery".to_owned(),
        };
        let parts = [
            from.map(|port| format!(" from port {port}")),
            to.map(|port| format!(" to port {port}")),
            (flags != 0).then(|| format!(" with {}", names(flags).join(" and "))),
            (without_flags != 0).then(|| format!(" without {}", names(without_flags).join(" and "))),
            (longer_than != 0).then(|| format!(" longer than {longer_than} bytes")),
            beginning
                .get(..beginning_length.into())
                .filter(|bytes| !bytes.is_empty())
                .map(|bytes| format!(" beginning with {bytes:02x?}")),
        ];
        words.extend(parts.into_iter().flatten());
        words
    }

    /// All packets, and all frames that are none.
    pub fn any() -> Self {
        Self::default()
    }

    /// Datagrams of UDP, of version 4 and 6.
    pub fn udp() -> Self {
        Self { protocol: Protocol::Udp, ..Self::default() }
    }

    /// Segments of TCP, of version 4 and 6.
    pub fn tcp() -> Self {
        Self { protocol: Protocol::Tcp, ..Self::default() }
    }

    /// Messages of ICMP, of version 4 and 6, but for [neighbour discovery](Self::neighbours).
    pub fn icmp() -> Self {
        Self { protocol: Protocol::Icmp, ..Self::default() }
    }

    /// Requests and replies of ARP.
    pub fn arp() -> Self {
        Self { protocol: Protocol::Arp, ..Self::default() }
    }

    /// Neighbour and multicast listener discovery of version 6, and IGMP.
    pub fn neighbours() -> Self {
        Self { protocol: Protocol::Neighbours, ..Self::default() }
    }

    /// Only those from this port.
    pub fn from_port(self, port: u16) -> Self {
        Self { from: Some(port), ..self }
    }

    /// Only those to this port.
    pub fn to_port(self, port: u16) -> Self {
        Self { to: Some(port), ..self }
    }

    /// Only those of TCP that have all of these flags.
    pub fn with_flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    /// Only those of TCP that have none of these flags.
    pub fn without_flags(self, flags: u8) -> Self {
        Self { without_flags: flags, ..self }
    }

    /// Only frames of more bytes than that, the 14 bytes of their own head included.
    pub fn longer_than(self, bytes: u16) -> Self {
        Self { longer_than: bytes, ..self }
    }

    /// Only those whose payload begins with these bytes. In UDP and TCP, that is what applications send; in ICMP the message itself;
    /// in anything else what follows the head of the frame.
    ///
    /// # Panics
    ///
    /// If there are more than 16 bytes.
    pub fn beginning_with(mut self, bytes: &[u8]) -> Self {
        assert!(
            bytes.len() <= BEGINNING_MAX,
            "packets are told by at most {BEGINNING_MAX} bytes, not by {}",
            bytes.len()
        );
        self.beginning.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        self.beginning_length = bytes.len() as u8;
        self
    }

    pub(super) fn words(&self) -> [u64; WORDS] {
        let port = |port: Option<u16>| port.map_or(0, |port| 1 << 16 | u64::from(port));
        let short = [self.protocol as u8, self.flags, self.without_flags, self.beginning_length];
        let lengths = u64::from(u32::from_le_bytes(short)) | u64::from(self.longer_than) << 32;
        let [low, high] = map_both([0, 8], |at| self.beginning[at..at + 8].try_into().map_or(0, u64::from_le_bytes));
        [lengths, port(self.from) | port(self.to) << 32, low, high]
    }

    pub(super) fn of_words([lengths, ports, low, high]: [u64; WORDS]) -> Self {
        let port = |word: u64| (word & 1 << 16 != 0).then_some(word as u16);
        let [protocol, flags, without_flags, beginning_length, low_length, high_length, ..] = lengths.to_le_bytes();
        let mut beginning = [0; BEGINNING_MAX];
        let bytes = low.to_le_bytes().into_iter().chain(high.to_le_bytes());
        beginning.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        let protocols = [Protocol::Udp, Protocol::Tcp, Protocol::Icmp, Protocol::Arp, Protocol::Neighbours];
        let protocol = protocols.into_iter().find(|known| *known as u8 == protocol).unwrap_or_default();
        let longer_than = u16::from_le_bytes([low_length, high_length]);
        let (from, to) = (port(ports), port(ports >> 32));
        Self { protocol, from, to, flags, without_flags, longer_than, beginning, beginning_length }
    }

    /// Whether a frame is one of them.
    pub(super) fn match_frame(&self, packet: &Packet, frame: &[u8]) -> bool {
        let (protocol, ports, flags, payload) = match &packet.kind {
            Kind::Ip(ip) => match ip.transport {
                Transport::Udp { ports, payload } => (Protocol::Udp, Some(ports), None, frame.get(payload..ip.end)),
                Transport::Tcp(Tcp { ports, flags, payload, .. }) => {
                    (Protocol::Tcp, Some(ports), Some(flags), frame.get(payload..ip.end))
                }
                Transport::Icmp { .. } => (Protocol::Icmp, None, None, frame.get(ip.start..ip.end)),
                Transport::None => (Protocol::Any, None, None, frame.get(14..)),
            },
            Kind::Upkeep(Upkeep::Arp) => (Protocol::Arp, None, None, frame.get(14..)),
            Kind::Upkeep(Upkeep::Neighbours) => (Protocol::Neighbours, None, None, frame.get(14..)),
            Kind::Other => (Protocol::Any, None, None, frame.get(14..)),
        };
        let is_port = |wanted: Option<u16>, which: usize| {
            wanted.is_none_or(|wanted| ports.and_then(|ports| ports.get(which).copied()) == Some(wanted))
        };
        let beginning = self.beginning.get(..self.beginning_length.into()).unwrap_or_default();
        (self.protocol == Protocol::Any || self.protocol == protocol)
            && is_port(self.from, 0)
            && is_port(self.to, 1)
            && (self.flags == 0 || flags.is_some_and(|flags| flags & self.flags == self.flags))
            && (self.without_flags == 0 || flags.is_some_and(|flags| flags & self.without_flags == 0))
            && (self.longer_than == 0 || frame.len() > self.longer_than.into())
            && payload.unwrap_or_default().starts_with(beginning)
    }
}
