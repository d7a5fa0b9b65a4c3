//! What becomes of frames in one direction of a port.

use super::frames::{Version, arp, flow};
use crate::net::wire::board::{Board, Cause, Count, Direction, MATCHERS_MAX, NUMBERED_MAX, Setting, Way};
use crate::net::wire::chance::odds;
use crate::net::wire::decide::{Lane, Passes};
use crate::net::wire::flows::Flows;
use crate::net::wire::matcher::Packets;
use crate::net::wire::packet::Packet;
use crate::net::wire::queue::{Next, Traveller};

const MS: u64 = 1_000_000;

struct Bench {
    board: Board,
    flows: Flows,
    lane: Lane,
}

impl Bench {
    fn new(seed: u64) -> Self {
        Self { board: Board::new(2).expect("memory"), flows: Flows::new(), lane: Lane::new(seed) }
    }

    fn direction(&self) -> Direction<'_> {
        self.board.direction(0, Way::FromHost)
    }

    fn set(&self, setting: Setting, value: u64) {
        self.direction().set(setting, value);
    }

    fn send_at(&mut self, frame: &[u8], at: u64) -> Result<Passes, Cause> {
        let packet = Packet::parse(frame);
        let key = self.flows.key(&packet, frame, 0, 0);
        let is_upkeep = packet.is_upkeep();
        let traveller = Traveller { key, from: 0, next: Next::Segment, sent: at, entered: at, marks: 0, is_upkeep };
        self.lane.decide(self.board.direction(0, Way::FromHost).of(is_upkeep), frame, &traveller, at)
    }

    fn send(&mut self, frame: &[u8]) -> Result<Passes, Cause> {
        self.send_at(frame, 0)
    }

    /// Which of so many datagrams have this answer.
    fn which(&mut self, count: u64, is: impl Fn(&Result<Passes, Cause>) -> bool) -> Vec<u64> {
        let datagram = flow(Version::Four, 40000, 53).udp(b"x");
        (0..count).filter(|_| is(&self.send(&datagram))).collect()
    }
}

fn is_lost(answer: &Result<Passes, Cause>) -> bool {
    answer.is_err()
}

#[test]
fn by_default_everything_passes_at_once() {
    let mut bench = Bench::new(7);
    assert_eq!(bench.which(1000, is_lost), [0; 0]);
    let passes = bench.send_at(&arp(2), 17).expect("it passes");
    assert_eq!((passes.due, passes.is_doubled, passes.is_held, passes.is_corrupted), (17, false, false, false));
    assert_eq!([false, true].map(|is_upkeep| bench.direction().of(is_upkeep).count(Count::Sent)), [1000, 1]);
}

#[test]
fn chance_follows_from_the_seed() {
    let lost = |seed, loss| {
        let mut bench = Bench::new(seed);
        bench.set(Setting::Loss, odds(loss));
        bench.which(10_000, is_lost)
    };
    assert_eq!(lost(7, 0.1), lost(7, 0.1));
    assert_ne!(lost(7, 0.1), lost(8, 0.1));
    assert!((900..1100).contains(&lost(7, 0.1).len()));
    // More of the same are lost, and not others.
    let (few, many) = (lost(7, 0.05), lost(7, 0.1));
    assert!(few.iter().all(|number| many.contains(number)));
    assert_eq!(lost(7, 1.0).len(), 10_000);
}

#[test]
fn other_faults_change_nothing_of_what_is_lost() {
    let lost = |others: bool| {
        let mut bench = Bench::new(7);
        bench.set(Setting::Loss, odds(0.1));
        if others {
            [Setting::Duplicate, Setting::Reorder, Setting::Corrupt].iter().for_each(|odds| bench.set(*odds, 1 << 63));
            [Setting::Delay, Setting::Jitter].iter().for_each(|time| bench.set(*time, MS));
        }
        bench.which(1000, is_lost)
    };
    assert_eq!(lost(false), lost(true));
}

#[test]
fn all_kinds_of_chance_happen_as_often_as_written() {
    let mut bench = Bench::new(3);
    [Setting::Duplicate, Setting::Reorder, Setting::Corrupt].iter().for_each(|setting| bench.set(*setting, odds(0.1)));
    let counts = [
        bench.which(10_000, |answer| answer.as_ref().is_ok_and(|passes| passes.is_doubled)).len(),
        bench.which(10_000, |answer| answer.as_ref().is_ok_and(|passes| passes.is_held)).len(),
        bench.which(10_000, |answer| answer.as_ref().is_ok_and(|passes| passes.is_corrupted)).len(),
    ];
    assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
}

#[test]
fn the_nth_is_lost_and_upkeep_does_not_count() {
    let mut bench = Bench::new(7);
    let datagram = flow(Version::Six, 40000, 53).udp(b"x");
    let neighbours = flow(Version::Six, 0, 0).icmp_6(135);
    // In any order.
    assert!([5, 3].into_iter().all(|number| bench.direction().lose(number)));
    let mut lost = vec![];
    for number in 1..=10 {
        assert!(bench.send(&arp(2)).is_ok() && bench.send(&neighbours).is_ok());
        if let Err(cause) = bench.send(&datagram) {
            lost.push((number, cause));
        }
    }
    assert_eq!(lost, [(3, Cause::Numbered), (5, Cause::Numbered)]);
    let free = (0..1000).take_while(|number| bench.direction().lose(1000 + number)).count();
    assert_eq!(free, NUMBERED_MAX);
    bench.direction().lose_no_more();
    assert!(bench.direction().lose(1));
}

#[test]
fn a_number_that_passes_while_the_port_is_cut_is_used_up() {
    let mut bench = Bench::new(7);
    let datagram = flow(Version::Four, 40000, 53).udp(b"x");
    for (setting, value, cause) in [(Setting::Cut, 1, Cause::Cut), (Setting::Mtu, 10, Cause::TooLong)] {
        let sent = bench.direction().count(Count::Sent);
        assert!((1..=NUMBERED_MAX as u64).all(|number| bench.direction().lose(sent + number)));
        bench.set(setting, value);
        (1..NUMBERED_MAX).for_each(|_| assert_eq!(bench.send(&datagram).err(), Some(cause)));
        bench.set(setting, 0);
        assert_eq!(bench.send(&datagram).err(), Some(Cause::Numbered));
    }
    // Nobody else is asked about the first of these: the pair of ports is blocked.
    let sent = bench.direction().count(Count::Sent);
    assert!((1..=2).all(|number| bench.direction().lose(sent + number)));
    assert!(bench.direction().begin(60));
    assert_eq!(bench.send(&datagram).err(), Some(Cause::Numbered));
    // There is room for as many as before.
    let sent = bench.direction().count(Count::Sent);
    assert!((1..=NUMBERED_MAX as u64).all(|number| bench.direction().lose(sent + number)));
}

#[test]
fn what_matches_is_lost() {
    let there = flow(Version::Four, 40000, 80);
    let frames = [
        there.tcp(2, 1, None, b""),
        there.back().tcp(2, 1, Some(2), b""),
        there.tcp(0, 2, Some(2), b"GET /"),
        there.udp(b"GET /"),
        there.echo(1, 1, b"GET /"),
        arp(2),
        flow(Version::Six, 0, 0).icmp_6(135),
        flow(Version::Six, 1, 2).tcp(1, 0, Some(1), &[0; 200]),
    ];
    let lost = |packets: Packets| {
        let mut bench = Bench::new(7);
        assert!(bench.direction().lose_when(&packets));
        let lost = |index: &usize| matches!(bench.send(&frames[*index]), Err(Cause::Matched));
        (0..frames.len()).filter(lost).collect::<Vec<_>>()
    };
    assert_eq!(lost(Packets::any()), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(lost(Packets::tcp()), [0, 1, 2, 7]);
    assert_eq!(lost(Packets::udp()), [3]);
    assert_eq!(lost(Packets::icmp()), [4]);
    assert_eq!(lost(Packets::arp()), [5]);
    assert_eq!(lost(Packets::neighbours()), [6]);
    assert_eq!(lost(Packets::any().to_port(80)), [0, 2, 3]);
    assert_eq!(lost(Packets::any().from_port(80)), [1]);
    assert_eq!(lost(Packets::tcp().with_flags(Packets::SYN)), [0, 1]);
    assert_eq!(lost(Packets::any().with_flags(Packets::SYN).without_flags(Packets::ACK)), [0]);
    assert_eq!(lost(Packets::any().with_flags(Packets::FIN)), [7]);
    assert_eq!(lost(Packets::any().beginning_with(b"GET ")), [2, 3]);
    assert_eq!(lost(Packets::icmp().beginning_with(&[8])), [4]);
    assert_eq!(lost(Packets::any().longer_than(200)), [7]);
    assert_eq!(lost(Packets::udp().from_port(7)), [0; 0]);
    let bench = Bench::new(7);
    assert_eq!((0..100).take_while(|_| bench.direction().lose_when(&Packets::arp())).count(), MATCHERS_MAX);
}

#[test]
fn a_cut_and_an_mtu_lose_all_that_they_are_for() {
    let mut bench = Bench::new(7);
    bench.set(Setting::Mtu, 1000);
    // With the heads of IP and UDP, it is as long.
    let [fits, is_longer] = [972, 973].map(|length| flow(Version::Four, 1, 2).udp(&vec![0; length]));
    assert!(bench.send(&fits).is_ok());
    assert_eq!(bench.send(&is_longer).err(), Some(Cause::TooLong));
    bench.set(Setting::Cut, 1);
    assert_eq!([bench.send(&fits).err(), bench.send(&arp(2)).err()], [Some(Cause::Cut); 2]);
    bench.set(Setting::Cut, 0);
    assert!(bench.send(&fits).is_ok());
}

#[test]
fn delays_are_as_written_and_jitter_keeps_the_order() {
    let mut bench = Bench::new(7);
    bench.set(Setting::Delay, 20 * MS);
    let datagram = flow(Version::Four, 40000, 53).udp(b"x");
    assert_eq!(bench.send_at(&datagram, 5).expect("it passes").due, 20 * MS + 5);
    bench.set(Setting::Jitter, 10 * MS);
    let dues: Vec<_> = (0..1000).map(|number| bench.send_at(&datagram, number * MS).expect("it passes").due).collect();
    let waits: Vec<_> = dues.iter().zip(0..).map(|(due, number)| due - number * MS).collect();
    assert!(waits.iter().all(|wait| (20 * MS..=30 * MS).contains(wait)), "{waits:?}");
    assert!(dues.is_sorted());
    // Setting something else doesn't change it, and neither does setting the same.
    let mut send = |number: u64| {
        [(Setting::Cut, 0), (Setting::Delay, 20 * MS), (Setting::Jitter, 10 * MS), (Setting::Loss, number % 2)]
            .iter()
            .for_each(|(setting, value)| bench.set(*setting, *value));
        bench.send_at(&datagram, 1000 * MS + number * 1000).expect("it passes").due
    };
    assert!((0..1000).map(&mut send).is_sorted());
    // A shorter one holds at once.
    bench.set(Setting::Jitter, 0);
    bench.set(Setting::Delay, 0);
    assert_eq!(bench.send_at(&datagram, 1002 * MS).expect("it passes").due, 1002 * MS);
}

#[test]
fn rates_count_whole_frames_and_have_a_queue() {
    let mut bench = Bench::new(7);
    bench.set(Setting::Rate, 8_000_000);
    let frame = flow(Version::Four, 40000, 53).udp(&[0; 958]);
    assert_eq!(frame.len(), 1000);
    // A byte takes a microsecond.
    let dues: Vec<_> = (0..300).map(|_| bench.send_at(&frame, 0).map(|passes| passes.due).ok()).collect();
    let through = dues.iter().flatten().count();
    assert!((262..=264).contains(&through), "{through}");
    assert!(dues.iter().take(through).zip(1..).all(|(due, number)| *due == Some(number * MS)));
    assert_eq!(bench.send_at(&frame, 0).err(), Some(Cause::QueueFull));
    // It has room again when something has left, and what comes later does not wait.
    assert_eq!(bench.send_at(&frame, 10 * MS).ok().map(|passes| passes.due), Some((through as u64 + 1) * MS));
    assert_eq!(bench.send_at(&frame, 5000 * MS).ok().map(|passes| passes.due), Some(5001 * MS));
    bench.set(Setting::Queue, 1);
    assert!(bench.send_at(&frame, 6000 * MS).is_ok());
    assert_eq!(bench.send_at(&frame, 6000 * MS).err(), Some(Cause::QueueFull));
    bench.set(Setting::Rate, 0);
    assert_eq!(bench.send_at(&frame, 6000 * MS).ok().map(|passes| passes.due), Some(6000 * MS));
}

#[test]
fn the_largest_numbers_are_no_trouble() {
    let mut bench = Bench::new(7);
    for setting in [Setting::Delay, Setting::Jitter, Setting::Reorder, Setting::Duplicate] {
        bench.set(setting, u64::MAX);
    }
    bench.set(Setting::Rate, 1);
    bench.set(Setting::Queue, u64::MAX);
    for _ in 0..100 {
        assert!(bench.send_at(&arp(2), u64::MAX / 4).is_ok());
    }
}

#[test]
fn ports_that_are_blocked_are_kept_apart_one_by_one() {
    let board = Board::new(70).expect("memory");
    board.set_block(3, 69, 5);
    let blocked = |board: &Board, sent| {
        let pairs = (0..70).flat_map(|from| (0..70).map(move |to| (from, to)));
        pairs.filter(|(from, to)| board.is_blocked(*from, *to, sent)).collect::<Vec<_>>()
    };
    assert_eq!(blocked(&board, 9), [(3, 69)]);
    board.set_block(69, 3, 7);
    board.lift_block(3, 69);
    assert_eq!(blocked(&board, 9), [(69, 3)]);
    // What was sent before it was blocked is lost.
    assert_eq!([4, 5].map(|sent| board.is_blocked(3, 69, sent)), [true, false]);
    // Outside, there is nothing.
    board.set_block(70, 0, 5);
    board.set_block(0, 70, 5);
    assert_eq!(blocked(&board, 9), [(69, 3)]);
    assert_eq!(board.direction(70, Way::ToHost).get(Setting::Cut), 0);
}
