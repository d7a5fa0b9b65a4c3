//! Ports: where an interface of a host is connected, and where faults are.

use std::fmt::{self, Debug, Formatter};
use std::time::Duration;

use super::inside;
use super::wire::board::{CAUSES, Cause, Count, Direction, MATCHERS_MAX, NUMBERED_MAX, Setting, Way};
use super::wire::{Packets, Wire, odds};
use crate::sys::now;

/// Where an interface of a host is connected: what is set here, happens to the frames that pass.
///
/// A frame goes through two ports: from its host through one, and through another to the host that it is for. Settings are for both directions of a
/// port, and each has them for itself: a delay of 20 ms makes a round trip 40 ms longer. [`to_host`](Self::to_host) and
/// [`from_host`](Self::from_host) are one direction. Everything may be changed at any time. It holds for frames that are sent from then on.
///
/// # What is the same in every run
///
/// Which frames are lost, doubled, held back and changed, and how much jitter each has: it follows from the laboratory's seed, from the port and
/// the direction, and from what the frame is. Time has no part in it, and neither have other flows.
///
/// | | a frame is identified by |
/// | --- | --- |
/// | UDP, ICMP, and other protocols over IP | its number in its flow |
/// | TCP, what is sent for the first time | its place in the stream of bytes. So the sender must cut it alike, as it does if it is not interrupted |
/// | TCP, what is sent again, and acknowledgements without data | its place, and how often it was sent. That depends on time, and is no promise |
/// | ARP, neighbour discovery, and everything else | its content, and how often that was sent |
///
/// A flow is identified by both addresses, the protocol, and both ports. In the place of an ephemeral port (32768 to 60999) stands how many such flows
/// there were before. Of flows that begin at the same moment, with all else alike, either may be the first. What is lost by a full
/// [queue](Self::queue) depends on time.
///
/// A UDP socket does not say that it is new. If the kernel chooses a port for it that an earlier socket had, with the same peer, its datagrams
/// continue the flow of that one. Then other datagrams are lost than in most runs, of this flow and of those that follow. With 20 such sockets
/// for a pair of hosts, that happens in one of 150 runs; with 50, in one of 23; with 200, in every second. A client that takes a new socket for
/// each question, as for DNS, should bind it to a port below 32768. The same is true of ICMP echoes and their ids. It is not of TCP, where a
/// connection begins with a SYN.
#[derive(Clone, Copy)]
pub struct Port<'n> {
    wire: &'n Wire,
    index: usize,
    /// The host, and its interface.
    name: [&'n str; 2],
    ways: &'static [Way],
}

const BOTH: &[Way] = &[Way::FromHost, Way::ToHost];

/// What was counted at a port, or in one direction of it: frames, if nothing else is said. A port's are the sums of both directions.
///
/// Frames that hosts send by themselves to keep the network together are counted as [`upkeep`](Self::upkeep), and nowhere else: ARP, neighbour and
/// multicast listener discovery, IGMP. They are lost and late as others are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Those that came to the port, lost there or not. Each copy of one that another port sent twice counts.
    pub sent: u64,
    /// The same in bytes.
    pub sent_bytes: u64,
    /// Those that went on: to the other ports, or to the host.
    pub delivered: u64,
    /// The same in bytes.
    pub delivered_bytes: u64,
    /// Those that were lost, for whatever cause.
    pub lost: u64,
    /// Of those, the ones that were lost by chance.
    pub lost_by_chance: u64,
    /// The ones that [`lose_nth`](Port::lose_nth) and [`lose_when`](Port::lose_when) were for.
    pub lost_as_told: u64,
    /// The ones that came while the port was cut, or the two hosts were kept apart. What hosts that are kept apart send to each other is counted
    /// at the port of the receiver.
    pub lost_by_cut: u64,
    /// The ones that were longer than the [MTU](Port::mtu) of the port, or of the [host](super::Host::mtu) that they were for.
    pub lost_by_length: u64,
    /// The ones that found a full [queue](Port::queue).
    pub lost_by_queue: u64,
    /// The ones that belljar or the kernel had no room for. That is no fault which was asked for.
    pub lost_by_overload: u64,
    /// Those that were sent twice.
    pub duplicated: u64,
    /// Those that another one of their flow has overtaken.
    pub reordered: u64,
    /// Those of which a bit was changed.
    pub corrupted: u64,
    /// Those that are on their way now, as of a delay or a rate.
    pub queued: u64,
    /// Those that keep the network together.
    pub upkeep: u64,
}

impl<'n> Port<'n> {
    /// The port with this place in the wire's list.
    pub(super) fn new(wire: &'n Wire, index: usize, name: [&'n str; 2]) -> Self {
        Self { wire, index, name, ways: BOTH }
    }

    /// The direction to the host, alone.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// # let (client, server) = (lab.host("client"), lab.host("server"));
    /// # let net = lab.up().unwrap();
    /// net.port(&client).to_host().loss(0.1); // answers, and no requests
    /// # drop(server);
    /// # }
    /// ```
    pub fn to_host(self) -> Self {
        Self { ways: &[Way::ToHost], ..self }
    }

    /// The direction from the host, alone.
    pub fn from_host(self) -> Self {
        Self { ways: &[Way::FromHost], ..self }
    }

    /// How long each frame is on its way, at least: a few dozen microseconds come on top.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use std::time::Duration;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// # let (client, server) = (lab.host("client"), lab.host("server"));
    /// # let net = lab.up().unwrap();
    /// net.port(&client).delay(Duration::from_millis(20)); // a round trip takes 40 ms
    /// # drop(server);
    /// # }
    /// ```
    pub fn delay(self, delay: Duration) -> Self {
        self.set(Setting::Delay, nanoseconds(delay), || format!("delay {delay:?}"))
    }

    /// How much longer a frame may be on its way: by chance, from nothing to so much. Frames keep their order.
    pub fn jitter(self, jitter: Duration) -> Self {
        self.set(Setting::Jitter, nanoseconds(jitter), || format!("jitter {jitter:?}"))
    }

    /// How probable it is that a frame is lost.
    ///
    /// # Panics
    ///
    /// If that is no probability, from 0 to 1.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// # let (client, server) = (lab.host("client"), lab.host("server"));
    /// # let net = lab.up().unwrap();
    /// net.port(&client).loss(0.1).duplicate(0.01).reorder(0.01).corrupt(0.001);
    /// # drop(server);
    /// # }
    /// ```
    #[track_caller]
    pub fn loss(self, probability: f64) -> Self {
        self.set_odds(Setting::Loss, "loss", probability)
    }

    /// How probable it is that a frame comes twice.
    ///
    /// # Panics
    ///
    /// If that is no probability, from 0 to 1.
    #[track_caller]
    pub fn duplicate(self, probability: f64) -> Self {
        self.set_odds(Setting::Duplicate, "duplicate", probability)
    }

    /// How probable it is that a frame is held back until another one of its flow has overtaken it, or 50 ms have passed.
    ///
    /// # Panics
    ///
    /// If that is no probability, from 0 to 1.
    #[track_caller]
    pub fn reorder(self, probability: f64) -> Self {
        self.set_odds(Setting::Reorder, "reorder", probability)
    }

    /// How probable it is that one bit of a packet is changed, behind the head of IP. So checksums find it, and the host throws the packet away. Frames
    /// of other protocols are left alone.
    ///
    /// # Panics
    ///
    /// If that is no probability, from 0 to 1.
    #[track_caller]
    pub fn corrupt(self, probability: f64) -> Self {
        self.set_odds(Setting::Corrupt, "corrupt", probability)
    }

    /// How many bits pass in a second. All of a frame counts, with the 14 bytes of its own head. Zero lifts the limit.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// # let (client, server) = (lab.host("client"), lab.host("server"));
    /// # let net = lab.up().unwrap();
    /// net.port(&client).rate(20_000_000); // 20 Mbit/s
    /// # drop(server);
    /// # }
    /// ```
    pub fn rate(self, bits_per_second: u64) -> Self {
        self.set(Setting::Rate, bits_per_second, || match bits_per_second {
            0 => "no limit of the rate".to_owned(),
            _ => format!("rate {bits_per_second} bit/s"),
        })
    }

    /// How many bytes may wait for the [rate](Self::rate): what comes while there are more is lost. By default, that is 256 KiB.
    pub fn queue(self, bytes: u64) -> Self {
        self.set(Setting::Queue, bytes.max(1), || format!("queue {bytes} bytes"))
    }

    /// The longest packet that passes, in bytes, the head of IP included. Longer ones are lost, and nobody is told. Zero lifts the limit.
    pub fn mtu(self, bytes: u32) -> Self {
        self.set(Setting::Mtu, bytes.into(), || match bytes {
            0 => "no limit of the MTU".to_owned(),
            _ => format!("MTU {bytes}"),
        })
    }

    /// Has the `n`th frame from now on be lost, the first being 1. Frames that hosts send by themselves don't count, see
    /// [`Stats::upkeep`]. Those that are lost for another cause do. Each direction counts for itself.
    ///
    /// # Panics
    ///
    /// If `n` is zero, or 64 such frames have yet to come.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// # let (client, server) = (lab.host("client"), lab.host("server"));
    /// # let net = lab.up().unwrap();
    /// net.port(&client).from_host().lose_nth(1).lose_nth(3);
    /// # drop(server);
    /// # }
    /// ```
    #[track_caller]
    pub fn lose_nth(self, n: u64) -> Self {
        assert!(n > 0, "there is no frame 0: the next frame is number 1");
        self.wire.settle();
        for direction in self.directions() {
            let has_room = direction.lose(direction.count(Count::Sent).saturating_add(n));
            assert!(
                has_room,
                "{NUMBERED_MAX} frames of this port have yet to come and be lost, and more can't be told"
            );
        }
        self.told(|| format!("lose frame {n} from now on"))
    }

    /// Has all frames like these be lost, from now on and until [`lose_no_more`](Self::lose_no_more).
    ///
    /// # Panics
    ///
    /// If a direction of this port already has 16 such rules.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// # let (client, server) = (lab.host("client"), lab.host("server"));
    /// # let net = lab.up().unwrap();
    /// use belljar::net::Packets;
    ///
    /// net.port(&client).from_host().lose_when(Packets::tcp().to_port(80).with_flags(Packets::SYN));
    /// // No connection begins.
    /// net.port(&client).lose_no_more();
    /// # drop(server);
    /// # }
    /// ```
    #[track_caller]
    pub fn lose_when(self, packets: Packets) -> Self {
        self.wire.settle();
        for direction in self.directions() {
            let has_room = direction.lose_when(&packets);
            assert!(has_room, "this port loses {MATCHERS_MAX} kinds of packets, and can't know more");
        }
        self.told(|| format!("lose {}", packets.text()))
    }

    /// Forgets what [`lose_nth`](Self::lose_nth) and [`lose_when`](Self::lose_when) have said.
    pub fn lose_no_more(self) -> Self {
        self.wire.settle();
        self.directions().for_each(Direction::lose_no_more);
        self.told(|| "lose no more".to_owned())
    }

    /// Has nothing pass, as if the cable were cut: what is on its way is lost too, also if it is due only after a [`heal`](Self::heal).
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// # let (client, server) = (lab.host("client"), lab.host("server"));
    /// # let net = lab.up().unwrap();
    /// net.port(&client).cut();
    /// // Nobody hears of the client.
    /// net.port(&client).heal();
    /// # drop(server);
    /// # }
    /// ```
    pub fn cut(self) -> Self {
        self.wire.settle();
        self.directions().for_each(|direction| direction.cut(now()));
        self.wire.settle();
        self.told(|| "cut".to_owned())
    }

    /// Joins what was [cut](Self::cut). The next frame passes.
    pub fn heal(self) -> Self {
        self.set(Setting::Cut, 0, || "healed".to_owned())
    }

    /// What was counted until now.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// # let (client, server) = (lab.host("client"), lab.host("server"));
    /// # let net = lab.up().unwrap();
    /// use std::net::UdpSocket;
    ///
    /// let socket = client.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    /// net.port(&client).cut();
    /// socket.send_to(b"hello", "10.0.0.2:7").unwrap();
    /// assert_eq!(net.port(&client).stats().lost, 1);
    /// # drop(server);
    /// # }
    /// ```
    pub fn stats(self) -> Stats {
        self.wire.settle();
        self.directions().map(Stats::of).fold(Stats::default(), Stats::plus)
    }

    fn directions(&self) -> impl Iterator<Item = Direction<'n>> + use<'n> {
        let Self { wire, index, ways, .. } = *self;
        ways.iter().map(move |way| wire.direction(index, *way))
    }

    /// Sets a number, for frames that are sent from now on.
    fn set(self, setting: Setting, value: u64, words: impl FnOnce() -> String) -> Self {
        self.wire.settle();
        self.directions().for_each(|direction| direction.set(setting, value));
        self.told(words)
    }

    /// Tells the trace of the change, and returns this port.
    fn told(self, words: impl FnOnce() -> String) -> Self {
        inside::tell_change(|| {
            let [host, interface] = self.name;
            let way = match self.ways {
                [Way::FromHost] => ", from the host",
                [Way::ToHost] => ", to the host",
                _ => "",
            };
            format!("{host}.{interface}{way}: {}", words())
        });
        self
    }

    #[track_caller]
    fn set_odds(self, setting: Setting, name: &str, probability: f64) -> Self {
        assert!((0.0..=1.0).contains(&probability), "{probability} is no probability: those are from 0 to 1");
        self.set(setting, odds(probability), || format!("{name} {probability}"))
    }
}

impl Debug for Port<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { index, ways, .. } = self;
        f.debug_struct("Port").field("index", index).field("ways", ways).finish_non_exhaustive()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Stats {
    fn of(direction: Direction<'_>) -> Self {
        let (count, lost) = (|count| direction.count(count), |cause| direction.lost(cause));
        Self {
            sent: count(Count::Sent),
            sent_bytes: count(Count::SentBytes),
            delivered: count(Count::Delivered),
            delivered_bytes: count(Count::DeliveredBytes),
            lost: CAUSES.into_iter().map(lost).sum(),
            lost_by_chance: lost(Cause::Chance),
            lost_as_told: lost(Cause::Numbered) + lost(Cause::Matched),
            lost_by_cut: lost(Cause::Cut) + lost(Cause::Blocked),
            lost_by_length: lost(Cause::TooLong),
            lost_by_queue: lost(Cause::QueueFull),
            lost_by_overload: lost(Cause::NoRoom),
            duplicated: count(Count::Duplicated),
            reordered: count(Count::Reordered),
            corrupted: count(Count::Corrupted),
            queued: count(Count::Queued),
            upkeep: direction.of(true).count(Count::Sent),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            delivered: self.delivered + other.delivered,
            delivered_bytes: self.delivered_bytes + other.delivered_bytes,
            lost: self.lost + other.lost,
            lost_by_chance: self.lost_by_chance + other.lost_by_chance,
            lost_as_told: self.lost_as_told + other.lost_as_told,
            lost_by_cut: self.lost_by_cut + other.lost_by_cut,
            lost_by_length: self.lost_by_length + other.lost_by_length,
            lost_by_queue: self.lost_by_queue + other.lost_by_queue,
            lost_by_overload: self.lost_by_overload + other.lost_by_overload,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            corrupted: self.corrupted + other.corrupted,
            queued: self.queued + other.queued,
            upkeep: self.upkeep + other.upkeep,
        }
    }
}
