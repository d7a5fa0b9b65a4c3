//! What a frame is, is the same in all runs: whatever ports, sequence numbers and ids were chosen, and whatever else passes.

use super::frames::{Flow, VERSIONS, Version, arp, flow, fragments};
use crate::net::wire::flows::{Flows, FrameKey};
use crate::net::wire::packet::Packet;

struct Run(Flows);

impl Run {
    fn new() -> Self {
        Self(Flows::new())
    }

    /// A frame of the client, at port 0, or of the server, at port 1.
    fn key(&mut self, frame: &[u8]) -> u64 {
        self.whole(frame).id()
    }

    fn whole(&mut self, frame: &[u8]) -> FrameKey {
        let port = u64::from(frame[11] != super::frames::CLIENT);
        self.0.key(&Packet::parse(frame), frame, port, 0)
    }
}

/// A connection, as it is told in each run: its steps, with what is chosen anew.
fn connection(run: &mut Run, version: Version, client_port: u16, initial: [u32; 2]) -> Vec<u64> {
    let there = flow(version, client_port, 80);
    let back = there.back();
    let [first, second] = initial;
    let at = |start: u32, offset: u32| start.wrapping_add(offset);
    let frames = [
        there.tcp(2, first, None, b""),
        back.tcp(2, second, Some(at(first, 1)), b""),
        there.tcp(0, at(first, 1), Some(at(second, 1)), b""),
        there.tcp(0, at(first, 1), Some(at(second, 1)), &[7; 1000]),
        there.tcp(0, at(first, 1001), Some(at(second, 1)), &[8; 500]),
        back.tcp(0, at(second, 1), Some(at(first, 1501)), &[9; 100]),
        there.tcp(0, at(first, 1501), Some(at(second, 101)), b""),
        there.tcp(1, at(first, 1501), Some(at(second, 101)), b""),
    ];
    frames.iter().map(|frame| run.key(frame)).collect()
}

fn datagrams(run: &mut Run, flow: Flow, count: usize) -> Vec<u64> {
    (0..count).map(|number| run.key(&flow.udp(&number.to_ne_bytes()))).collect()
}

fn all_different(places: &[u64]) -> bool {
    let mut sorted = places.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.len() == places.len()
}

#[test]
fn ports_sequence_numbers_and_contents_make_no_difference() {
    for version in VERSIONS {
        let (mut one, mut other) = (Run::new(), Run::new());
        let places = connection(&mut one, version, 40000, [7, 9]);
        assert_eq!(places, connection(&mut other, version, 50000, [u32::MAX - 700, 1 << 31]));
        assert!(all_different(&places));
        // The next one is another.
        let second = connection(&mut one, version, 41000, [1, 2]);
        assert_ne!(second, places);
        assert_eq!(second, connection(&mut other, version, 40001, [3, 4]));
        let places = datagrams(&mut one, flow(version, 45000, 53), 100);
        assert!(all_different(&places));
        let frames = (0..100).map(|_| other.key(&flow(version, 60000, 53).udp(b"something else")));
        assert_eq!(places, frames.collect::<Vec<_>>());
    }
}

#[test]
fn others_make_no_difference() {
    let mut alone = Run::new();
    let (first, second) = (flow(Version::Four, 45000, 53), flow(Version::Four, 45001, 53));
    let (firsts, seconds) = (datagrams(&mut alone, first, 50), datagrams(&mut alone, second, 50));
    let mut beside = Run::new();
    let mut places = [vec![], vec![]];
    for number in 0..50 {
        places[0].push(beside.key(&first.udp(b"x")));
        beside.key(&arp(2));
        beside.key(&flow(Version::Six, 45000, 53).udp(b"x"));
        beside.key(&flow(Version::Four, 45000, 54).udp(b"x"));
        beside.key(&flow(Version::Six, 0, 0).icmp_6(135));
        beside.key(&first.echo(number, number, b"ping"));
        places[1].push(beside.key(&second.udp(b"x")));
        connection(&mut beside, Version::Four, 33000 + number, [number.into(), 0]);
    }
    assert_eq!(places, [firsts, seconds]);
}

/// The twin: a port that somebody has chosen, and which of several flows it is, do make one.
#[test]
fn what_was_chosen_makes_a_difference() {
    let places = |flow| datagrams(&mut Run::new(), flow, 10);
    let one = places(flow(Version::Four, 40000, 53));
    let others = [
        flow(Version::Four, 40000, 54),
        flow(Version::Four, 1000, 53),
        flow(Version::Four, 61000, 53),
        flow(Version::Six, 40000, 53),
        flow(Version::Four, 40000, 53).back(),
    ];
    for other in others {
        assert!(places(other).iter().all(|key| !one.contains(key)), "{other:?}");
    }
    assert_eq!(one, places(flow(Version::Four, 40001, 53)));
}

#[test]
fn what_is_sent_again_is_told_apart() {
    let mut run = Run::new();
    let there = flow(Version::Four, 40000, 80);
    let syn = there.tcp(2, 100, None, b"");
    let segment = there.tcp(0, 101, Some(1), b"0123456789");
    let places: Vec<_> = [&syn, &syn, &segment, &segment, &segment].map(|frame| run.key(frame)).to_vec();
    assert!(all_different(&places), "{places:?}");
    // What comes behind it is not touched by that.
    let next = run.key(&there.tcp(0, 111, Some(1), b"0123456789"));
    let mut other = Run::new();
    let expected = [&syn, &segment].map(|frame| other.key(frame));
    assert_eq!(expected, [places[0], places[2]]);
    assert_eq!(next, other.key(&there.tcp(0, 111, Some(1), b"0123456789")));
}

#[test]
fn a_port_that_is_used_again_is_another_flow() {
    let mut run = Run::new();
    let first = connection(&mut run, Version::Four, 40000, [5, 6]);
    let again = connection(&mut run, Version::Four, 40000, [1005, 2006]);
    let mut other = Run::new();
    assert_eq!(first, connection(&mut other, Version::Four, 40000, [5, 6]));
    assert_eq!(again, connection(&mut other, Version::Four, 40001, [5, 6]));
}

#[test]
fn echoes_are_told_by_their_number() {
    for version in VERSIONS {
        let flow = flow(version, 0, 0);
        let echoes = |id: u16, payload: &[u8]| {
            let mut run = Run::new();
            (1..50).map(|sequence| run.key(&flow.echo(id, sequence, payload))).collect::<Vec<_>>()
        };
        let places = echoes(7, b"12:00:00");
        assert!(all_different(&places));
        assert_eq!(places, echoes(999, b"13:00:00"));
        assert_eq!(places, echoes(40000, b"13:00:00"));
    }
}

#[test]
fn fragments_belong_to_their_packet() {
    let places = |ids: [u16; 3]| {
        let mut run = Run::new();
        let datagram = flow(Version::Four, 45000, 53).udp(&[7; 200]);
        let parts = ids.map(|id| fragments(&datagram, id, 104));
        // The last parts come late, and out of order.
        let [[a, b], [c, d], [e, f]] = &parts;
        [a, c, b, e, f, d].map(|frame| run.key(frame))
    };
    let first = places([1, 2, 3]);
    assert!(all_different(&first));
    assert_eq!(first, places([9, 7, 8]));
}

#[test]
fn other_frames_are_told_by_content_and_by_how_often_they_came() {
    let places = || {
        let mut run = Run::new();
        [arp(2), arp(3), arp(2), vec![7; 100]].map(|frame| run.key(&frame))
    };
    assert!(all_different(&places()));
    assert_eq!(places(), places());
    assert_eq!([1, 2].map(|_| Run::new().whole(&arp(2)).number), [1; 2]);
}

#[test]
fn flows_that_are_forgotten_are_counted() {
    let mut run = Run::new();
    for port in 0..60_000 {
        run.key(&flow(Version::Four, 40000, port % 30_000).udp(b"x"));
    }
    assert!(run.0.take_forgotten() > 0);
    assert_eq!(run.0.take_forgotten(), 0);
    let mut run = Run::new();
    for port in 0..2000 {
        run.key(&flow(Version::Four, 40000, port).udp(b"x"));
    }
    assert_eq!(run.0.take_forgotten(), 0);
}
