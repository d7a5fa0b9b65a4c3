//! What is captured is read by somebody else, and all of it is right.

use std::fs;
use std::net::UdpSocket;

use belljar::isolated;
use belljar::net::Net;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::{PATIENCE, exchange, reader, receiver, sender, two};

/// What is in a file of pcapng.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    pub(crate) comment: String,
    pub(crate) interfaces: Vec<String>,
    pub(crate) packets: Vec<Packet>,
}

/// A frame at an interface.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) interface: usize,
    pub(crate) frame: Vec<u8>,
    pub(crate) comment: String,
    pub(crate) is_to_host: bool,
}

impl Packet {
    /// The sequence number of a segment, and how much data it has.
    pub(crate) fn tcp(&self) -> Option<(u32, usize)> {
        match SlicedPacket::from_ethernet(&self.frame).ok()?.transport? {
            TransportSlice::Tcp(tcp) => Some((tcp.sequence_number(), tcp.payload().len())),
            _ => None,
        }
    }

    /// The payload of a datagram.
    fn udp(&self) -> Option<Vec<u8>> {
        match SlicedPacket::from_ethernet(&self.frame).ok()?.transport? {
            TransportSlice::Udp(udp) => Some(udp.payload().to_vec()),
            _ => None,
        }
    }

    /// Whether the checksum of UDP or TCP is right, if there is one.
    fn checksum_is_right(&self) -> Option<bool> {
        let packet = SlicedPacket::from_ethernet(&self.frame).ok()?;
        let sums = match (packet.transport?, packet.net?) {
            (TransportSlice::Udp(udp), NetSlice::Ipv4(ip)) => {
                (udp.checksum(), udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).ok()?)
            }
            (TransportSlice::Udp(udp), NetSlice::Ipv6(ip)) => {
                (udp.checksum(), udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload()).ok()?)
            }
            (TransportSlice::Tcp(tcp), NetSlice::Ipv4(ip)) => {
                (tcp.checksum(), tcp.to_header().calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()).ok()?)
            }
            (TransportSlice::Tcp(tcp), NetSlice::Ipv6(ip)) => {
                (tcp.checksum(), tcp.to_header().calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()).ok()?)
            }
            _ => return None,
        };
        Some(sums.0 == sums.1)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The value of an option, as text if it is one.
fn option(mut options: &[u8], wanted: u32) -> Vec<u8> {
    while options.len() >= 4 {
        let (code, length) = (word(options, 0) & 0xffff, (word(options, 0) >> 16) as usize);
        if code == wanted {
            return options[4..4 + length].to_vec();
        }
        options = &options[4 + length.next_multiple_of(4)..];
    }
    Vec::new()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

/// Reads a file of pcapng, of which it knows nothing but the format.
fn read(mut file: &[u8]) -> Capture {
    let mut capture = Capture::default();
    while !file.is_empty() {
        let (kind, length) = (word(file, 0), word(file, 4) as usize);
        assert_eq!(word(file, length - 4) as usize, length);
        let body = &file[8..length - 4];
        match kind {
            0x0a0d_0d0a => capture.comment = text(option(&body[16..], 1)),
            1 => capture.interfaces.push(text(option(&body[8..], 2))),
            6 => {
                let captured = word(body, 12) as usize;
                let options = &body[20 + captured.next_multiple_of(4)..];
                capture.packets.push(Packet {
                    interface: word(body, 0) as usize,
                    frame: body[20..20 + captured].to_vec(),
                    comment: text(option(options, 1)),
                    is_to_host: word(&option(options, 2), 0) & 3 == 1,
                });
            }
            other => panic!("a block of the kind {other:#x}"),
        }
        file = &file[length..];
    }
    capture
}

/// What a laboratory has captured.
pub(crate) fn capture(net: &Net) -> Capture {
    net.capture("/tmp/wire.pcapng").expect("capture");
    read(&fs::read("/tmp/wire.pcapng").expect("read"))
}

#[isolated]
fn all_that_was_sent_is_there_and_its_checksums_are_right() {
    let (net, client, server) = two(7);
    net.port(&client).from_host().loss(0.2);
    for address in ["10.0.0.2:7000", "[fd00::2]:7000"] {
        let there = receiver(&server, 7000);
        let got = exchange(net.port(&client), &sender(&client, address), &there, 100, 500);
        assert!(got.len() < 100);
    }
    let stats = net.port(&client).from_host().stats();
    let capture = capture(&net);
    assert_eq!(capture.comment, "seed 7");
    assert_eq!(capture.interfaces.len(), 2);
    assert!(capture.interfaces[0].contains("client") && capture.interfaces[1].contains("server"));
    let datagrams: Vec<_> =
        capture.packets.iter().filter(|packet| packet.udp().is_some_and(|data| data.len() == 500)).collect();
    let at = |interface, is_lost| {
        let is = |packet: &&&Packet| {
            packet.interface == interface
                && packet.comment.contains("lost on its way from the host: by chance") == is_lost
        };
        datagrams.iter().filter(is).count() as u64
    };
    assert_eq!([at(0, true), at(0, true) + at(0, false)], [stats.lost, 200]);
    assert_eq!([at(1, true), at(1, false)], [0, 200 - stats.lost]);
    assert!(datagrams.iter().all(|packet| packet.checksum_is_right() == Some(true)));
    assert!(datagrams.iter().all(|packet| packet.is_to_host == (packet.interface == 1)));
}

#[isolated]
fn nothing_crosses_a_partition() {
    let (net, client, server) = two(7);
    let there = receiver(&server, 7000);
    let here = sender(&client, "10.0.0.2:7000");
    let send = |socket: &UdpSocket, text: &[u8]| _ = socket.send(text);
    send(&here, b"before");
    net.partition([&client], [&server]);
    (0..100).for_each(|_| send(&here, b"during"));
    net.heal();
    send(&here, b"after");
    there.set_read_timeout(Some(PATIENCE)).expect("timeout");
    for expected in [&b"before"[..], b"after"] {
        let mut text = [0; 100];
        let length = there.recv(&mut text).expect("receive");
        assert_eq!(&text[..length], expected);
    }
    let capture = capture(&net);
    let during = |packet: &&Packet| packet.udp().is_some_and(|data| data == b"during");
    let there: Vec<_> = capture.packets.iter().filter(during).filter(|packet| packet.interface == 1).collect();
    assert_eq!(there.len(), 100);
    assert!(
        there.iter().all(|packet| packet.comment.contains("lost on its way to the host: the two ports are kept apart"))
    );
}

/// One that is too large would be cut, and one that is not there would be missed.
#[isolated]
fn segments_are_as_long_as_a_link_allows() {
    use std::io::Write as _;
    use std::net::TcpStream;
    let (net, client, server) = two(7);
    let reading = reader(&server);
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    client.run(|| TcpStream::connect("10.0.0.2:80")).expect("connect").write_all(&sent).expect("write");
    assert!(reading.join().expect("join") == sent);
    let capture = capture(&net);
    let longest = capture.packets.iter().map(|packet| packet.frame.len()).max();
    assert_eq!(longest, Some(1514));
    let all: usize = capture
        .packets
        .iter()
        .filter(|packet| packet.interface == 1 && packet.is_to_host)
        .filter_map(Packet::tcp)
        .map(|(_, length)| length)
        .sum();
    // Some may have been sent twice.
    assert!(all >= sent.len());
    assert!(capture.packets.iter().all(|packet| packet.checksum_is_right() != Some(false)));
}
