//! Frames are read as etherparse reads them, and may be anything.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use fastrand::Rng;

use super::frames::{Version, all, flow, tagged};
use super::rounds;
use crate::net::wire::chance::hash_bytes;
use crate::net::wire::flows::Flows;
use crate::net::wire::matcher::Packets;
use crate::net::wire::packet::{Ip, Kind, Packet, Transport, Upkeep, complete_checksum, corruptible};

/// What both know of an IP packet: the addresses, the protocol, the ports, and the sequence number.
type Known = (u128, u128, u8, Option<[u16; 2]>, Option<u32>);

fn ours(frame: &[u8]) -> Option<Known> {
    let Kind::Ip(Ip { source, destination, protocol, transport, .. }) = Packet::parse(frame).kind else { return None };
    let (ports, sequence) = match transport {
        Transport::Udp { ports, .. } => (Some(ports), None),
        Transport::Tcp(tcp) => (Some(tcp.ports), Some(tcp.sequence)),
        _ => (None, None),
    };
    Some((source, destination, protocol, ports, sequence))
}

/// Whether the kernel takes a frame for a packet. etherparse looks behind more tags, and behind those of 0x9100.
fn is_packet(frame: &[u8]) -> bool {
    let kind = |tags: usize| frame.get(12 + tags * 4..).and_then(<[u8]>::first_chunk).copied().map(u16::from_be_bytes);
    let tags = (0..2).take_while(|tags| matches!(kind(*tags), Some(0x8100 | 0x88a8))).count();
    matches!(kind(tags), Some(0x0800 | 0x86dd))
}

fn theirs(frame: &[u8]) -> Option<Known> {
    let packet = SlicedPacket::from_ethernet(frame).ok().filter(|_| is_packet(frame))?;
    let mapped = |address: std::net::Ipv4Addr| u128::from(address.to_ipv6_mapped());
    let (source, destination, protocol) = match packet.net? {
        NetSlice::Ipv4(ip) if ip.payload().fragmented && ip.header().fragments_offset().value() > 0 => return None,
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            (mapped(header.source_addr()), mapped(header.destination_addr()), ip.payload_ip_number().0)
        }
        NetSlice::Ipv6(ip) if ip.is_payload_fragmented() => return None,
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload().ip_number.0)
        }
        NetSlice::Arp(_) => return None,
    };
    let (ports, sequence) = match packet.transport? {
        TransportSlice::Udp(udp) => (Some([udp.source_port(), udp.destination_port()]), None),
        TransportSlice::Tcp(tcp) => (Some([tcp.source_port(), tcp.destination_port()]), Some(tcp.sequence_number())),
        _ => return None,
    };
    Some((source, destination, protocol, ports, sequence))
}

#[test]
fn reads_what_etherparse_reads() {
    let mut both = 0;
    for frame in all() {
        if let Some(known) = theirs(&frame) {
            assert_eq!(ours(&frame), Some(known), "{frame:?}");
            both += 1;
        }
    }
    assert!(both >= 12, "{both}");
}

#[test]
fn knows_upkeep() {
    let upkeep = |frame: &[u8]| match Packet::parse(frame).kind {
        Kind::Upkeep(upkeep) => Some(upkeep),
        _ => None,
    };
    assert_eq!(upkeep(&super::frames::arp(2)), Some(Upkeep::Arp));
    let six = flow(Version::Six, 0, 0);
    assert_eq!([133, 134, 135, 136, 137, 143].map(|kind| upkeep(&six.icmp_6(kind))), [Some(Upkeep::Neighbours); 6]);
    assert_eq!([1, 2, 3, 4, 128].map(|kind| upkeep(&six.icmp_6(kind))), [None; 5]);
}

#[test]
fn knows_vlans_and_fragments() {
    let packet = Packet::parse(&tagged(7, b"x"));
    assert_eq!(packet.vlan, 7);
    assert!(matches!(packet.kind, Kind::Ip(Ip { transport: Transport::Udp { ports: [1000, 2000], .. }, .. })));
    let whole = flow(Version::Four, 1000, 2000).udp(&[7; 100]);
    let [first, second] = super::frames::fragments(&whole, 3, 48).map(|frame| Packet::parse(&frame).kind);
    let (Kind::Ip(first), Kind::Ip(second)) = (first, second) else { panic!("no packets") };
    assert_eq!(
        [first, second].map(|ip| ip.fragment.map(|fragment| (fragment.id, fragment.offset))),
        [Some((3, 0)), Some((3, 6))]
    );
    assert!(matches!(first.transport, Transport::Udp { ports: [1000, 2000], .. }));
    assert_eq!(second.transport, Transport::None);
}

#[test]
fn completes_checksums() {
    for frame in all() {
        let mut bare = frame.clone();
        let Kind::Ip(ip) = Packet::parse(&frame).kind else { continue };
        let offset = match ip.transport {
            Transport::Tcp(_) => 16,
            Transport::Udp { .. } => 6,
            _ => continue,
        };
        // Of a fragment, the first part of a checksum would be wrong, and nobody leaves it out.
        if ip.fragment.is_some() {
            continue;
        }
        bare[ip.start + offset..ip.start + offset + 2].fill(0xaa);
        complete_checksum(&mut bare);
        assert_eq!(bare, frame);
    }
}

/// Changes some bytes, cuts, or puts parts of two frames together.
fn mutate(frame: &[u8], other: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..frame.len().max(1)).min(frame.len());
        match random.u8(..8) {
            0..5 if at < frame.len() => {
                let any = random.u8(..);
                frame[at] = *random.choice(&[0, 1, 0x7f, 0x80, 0xff, any]).expect("a byte");
            }
            5 => frame.truncate(at),
            6 => frame.extend(other.get(at..).unwrap_or_default()),
            _ => {
                frame.splice(at..at, (0..random.usize(..24)).map(|_| random.u8(..)).collect::<Vec<_>>()).for_each(drop)
            }
        }
        frame.truncate(2000);
    }
    frame
}

/// More rounds, if the environment asks for them: an hour's are some ten thousand.
#[test]
fn frames_may_be_anything() {
    let (seeds, mut random) = (all(), Rng::with_seed(17));
    let mut flows = Flows::new();
    let matchers = [
        Packets::any(),
        Packets::udp().to_port(80).beginning_with(b"h"),
        Packets::tcp().with_flags(Packets::SYN).without_flags(Packets::ACK).longer_than(60),
        Packets::icmp().beginning_with(&[8]),
        Packets::neighbours().from_port(7),
    ];
    for round in 0..20_000 * rounds() {
        let [one, other] = [0; 2].map(|_| random.choice(&seeds).expect("a seed"));
        let mut frame = mutate(one, other, &mut random);
        let shown = frame.clone();
        let packet = Packet::parse(&frame);
        if let Kind::Ip(ip) = packet.kind {
            let is_inside = |at: usize| at <= frame.len() + 8 * 255 * 8;
            assert!(ip.end <= frame.len() && is_inside(ip.start), "{shown:?}");
        }
        if let Some((start, length)) = corruptible(&frame) {
            assert!(length > 0 && start >= 14 && start + length <= frame.len(), "{shown:?}");
        }
        if let Some(known) = theirs(&frame) {
            assert_eq!(ours(&frame), Some(known), "{shown:?}");
        }
        for _ in 0..2 {
            let key = flows.key(&packet, &frame, round % 7, round % 3);
            assert!(key.number > 0, "{shown:?}");
        }
        assert!(matchers[0].match_frame(&packet, &frame));
        matchers.iter().for_each(|matcher| _ = matcher.match_frame(&packet, &frame));
        complete_checksum(&mut frame);
        assert_eq!(frame.len(), shown.len());
    }
    assert_ne!(hash_bytes(b"a"), hash_bytes(b"b"));
}
