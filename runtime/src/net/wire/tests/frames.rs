//! Frames as hosts send them.

use etherparse::{PacketBuilder, VlanId};

pub(super) const CLIENT: u8 = 1;
pub(super) const SERVER: u8 = 2;

fn mac(host: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, host]
}

pub(super) fn address_4(host: u8) -> [u8; 4] {
    [10, 0, 0, host]
}

pub(super) fn address_6(host: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]
}

/// The version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Four,
    Six,
}

pub(super) const VERSIONS: [Version; 2] = [Version::Four, Version::Six];

/// From whom to whom, and their ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) version: Version,
    pub(super) hosts: [u8; 2],
    pub(super) ports: [u16; 2],
}

impl Flow {
    pub(super) fn back(self) -> Self {
        let Self { version, hosts: [from, to], ports: [first, second] } = self;
        Self { version, hosts: [to, from], ports: [second, first] }
    }

    fn ip(self) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        let [from, to] = self.hosts;
        let builder = PacketBuilder::ethernet2(mac(from), mac(to));
        match self.version {
            Version::Four => builder.ipv4(address_4(from), address_4(to), 64),
            Version::Six => builder.ipv6(address_6(from), address_6(to), 64),
        }
    }

    pub(super) fn udp(self, payload: &[u8]) -> Vec<u8> {
        let [from, to] = self.ports;
        let mut frame = Vec::new();
        self.ip().udp(from, to).write(&mut frame, payload).expect("write");
        frame
    }

    /// A segment with these flags: SYN, FIN and RST; it acknowledges something if that is said.
    pub(super) fn tcp(self, flags: u8, sequence: u32, acknowledged: Option<u32>, payload: &[u8]) -> Vec<u8> {
        let [from, to] = self.ports;
        let mut builder = self.ip().tcp(from, to, sequence, 1000);
        builder = if flags & 1 != 0 { builder.fin() } else { builder };
        builder = if flags & 2 != 0 { builder.syn() } else { builder };
        builder = if flags & 4 != 0 { builder.rst() } else { builder };
        if let Some(acknowledged) = acknowledged {
            builder = builder.ack(acknowledged);
        }
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).expect("write");
        frame
    }

    pub(super) fn echo(self, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        match self.version {
            Version::Four => self.ip().icmpv4_echo_request(id, sequence).write(&mut frame, payload),
            Version::Six => self.ip().icmpv6_echo_request(id, sequence).write(&mut frame, payload),
        }
        .expect("write");
        frame
    }

    /// Of another kind: one of neighbour discovery, if `kind` is between 133 and 137.
    pub(super) fn icmp_6(self, kind: u8) -> Vec<u8> {
        let mut frame = Vec::new();
        self.ip().icmpv6_raw(kind, 0, [0; 4]).write(&mut frame, &[0; 20]).expect("write");
        frame
    }
}

pub(super) fn flow(version: Version, client_port: u16, port: u16) -> Flow {
    Flow { version, hosts: [CLIENT, SERVER], ports: [client_port, port] }
}

/// A request of ARP.
pub(super) fn arp(target: u8) -> Vec<u8> {
    let mut frame = [0xff; 6].to_vec();
    frame.extend(mac(CLIENT));
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac(CLIENT));
    frame.extend(address_4(CLIENT));
    frame.extend([0; 6]);
    frame.extend(address_4(target));
    frame
}

/// A datagram with the tag of a VLAN.
pub(super) fn tagged(vlan: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(mac(CLIENT), mac(SERVER)).single_vlan(VlanId::try_new(vlan).expect("an id"));
    let mut frame = Vec::new();
    let builder = builder.ipv4(address_4(CLIENT), address_4(SERVER), 64).udp(1000, 2000);
    builder.write(&mut frame, payload).expect("write");
    frame
}

/// The same frame as two fragments of version 4, with this id. The first has `first` bytes behind the head of IP: a multiple of 8.
pub(super) fn fragments(frame: &[u8], id: u16, first: usize) -> [Vec<u8>; 2] {
    let head = 34;
    let part = |bytes: &[u8], offset: usize, more: bool| {
        let mut part = frame[..head].to_vec();
        part[16..18].copy_from_slice(&((20 + bytes.len()) as u16).to_be_bytes());
        part[18..20].copy_from_slice(&id.to_be_bytes());
        part[20..22].copy_from_slice(&((offset / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
        part.extend(bytes);
        part
    };
    [part(&frame[head..head + first], 0, true), part(&frame[head + first..], first, false)]
}

/// Of each version in a frame: where the kind of what follows stands, where its size, and where it begins.
const PLACES: [[usize; 3]; 2] = [[23, 16, 34], [20, 18, 54]];

/// One of each kind.
pub(super) fn all() -> Vec<Vec<u8>> {
    let mut frames = vec![arp(SERVER), tagged(7, b"tagged"), vec![0; 60], vec![]];
    for version in VERSIONS {
        let flow = flow(version, 40000, 80);
        frames.push(flow.udp(b"hello, world"));
        frames.push(flow.udp(b""));
        frames.push(flow.tcp(2, 7, None, b""));
        frames.push(flow.back().tcp(2, 9, Some(8), b""));
        frames.push(flow.tcp(0, 8, Some(10), b"GET / HTTP/1.0\r\n\r\n"));
        frames.push(flow.tcp(1, 26, Some(10), b""));
        frames.push(flow.tcp(4, 27, None, b""));
        frames.push(flow.echo(7, 1, b"abcdefgh"));
    }
    let six = flow(Version::Six, 40000, 80);
    frames.push(six.icmp_6(135));
    frames.push(six.icmp_6(1));
    frames.extend(fragments(&flow(Version::Four, 1000, 2000).udp(&[7; 100]), 3, 48));
    // Options for each hop, routing, and a fragment, before a datagram.
    let mut extended = six.udp(b"behind extensions");
    let datagram = extended.split_off(54);
    extended[20] = 0;
    extended.extend([43, 0, 1, 4, 0, 0, 0, 0]);
    extended.extend([44, 0, 0, 0, 0, 0, 0, 0]);
    extended.extend([17, 0, 0, 1, 0, 0, 0, 9]);
    extended.extend(datagram);
    let length = (extended.len() - 54) as u16;
    extended[18..20].copy_from_slice(&length.to_be_bytes());
    frames.push(extended);
    for (version, [kind, length, end]) in VERSIONS.into_iter().zip(PLACES) {
        let mut authenticated = flow(version, 40000, 80).udp(b"authenticated");
        let datagram = authenticated.split_off(end);
        authenticated[kind] = 51;
        authenticated.extend([17, 2, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 1, 2, 3, 4]);
        authenticated.extend(datagram);
        let size = u16::from_be_bytes([authenticated[length], authenticated[length + 1]]) + 16;
        authenticated[length..length + 2].copy_from_slice(&size.to_be_bytes());
        frames.push(authenticated);
    }
    frames
}
