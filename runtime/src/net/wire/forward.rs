//! The wire's process: it decides about each frame, and sends it on. It allocates nothing, takes no lock, and ends only when it is told to,
//! or when the test's process is over.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nix::unistd::read;

use super::board::{Board, Cause, Count, Direction, Setting, Way, WireWord};
use super::capture::{Seen, Tape, marks};
use super::chance::{Lot, hash, hash_bytes};
use super::decide::{Lane, Passes, packet_length};
use super::flows::Flows;
use super::packet::{Packet, complete_checksum, corruptible};
use super::queue::{Next, Queue, Traveller};
use super::table::Table;
use super::trouble::{Number, Troubles};
use crate::sys;
use crate::sys::packet::{PacketRing, PacketSender, Received};

/// A frame that leaves so much later than it should have is told of, in nanoseconds.
const LATE: u64 = 5_000_000;

/// For how long a frame is held back at most, so that others overtake it, in nanoseconds.
const HOLD: u64 = 50_000_000;

/// How often a frame is offered to a kernel that has no room: for some 50 ms, as the one that empties its queues may have to wait for a processor.
const OFFERS: usize = 500;

/// How often another thread may run in between, and how long each of the other pauses is.
const YIELDS: usize = 10;
const PAUSE: Duration = Duration::from_micros(100);

/// After so many turns without a pause, the wire looks whether the test's process has ended. In each turn, it takes 64 frames.
const TURNS: u32 = 16;

/// How many addresses are learned.
const ADDRESSES: usize = 1 << 12;

/// What is fixed about a port.
pub(super) struct Outlet {
    pub(super) ifindex: i32,
    pub(super) segment: usize,
    /// The longest packet that the host's interface takes.
    pub(super) mtu: u64,
    /// That of frames from the host, and of frames to it.
    pub(super) lanes: [Lane; 2],
    /// Whether the last frame was refused. The other end may be down, which looks the same as no room: nobody waits for it again.
    pub(super) is_refused: bool,
}

impl Outlet {
    /// Sends a frame to the host. `false` if the kernel does not take it.
    fn send(&mut self, frame: &[u8], sender: &PacketSender<'_>) -> bool {
        let mut sent = sender.send(self.ifindex, frame);
        for offer in 0..if self.is_refused { 0 } else { OFFERS } {
            if !matches!(sent, Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR)) {
                break;
            }
            if offer < YIELDS {
                thread::yield_now();
            } else {
                thread::sleep(PAUSE);
            }
            sent = sender.send(self.ifindex, frame);
        }
        self.is_refused = sent.is_err();
        sent.is_ok()
    }
}

/// All memory of the process.
pub(super) struct Arena {
    pub(super) flows: Flows,
    queue: Queue,
    /// Behind which port an address was seen last.
    addresses: Table<usize>,
    /// For a frame that is on its way from the ring or the queue.
    scratch: Vec<u8>,
}

impl Arena {
    /// With room for so many bytes of frames that wait, each of at most `frame` bytes.
    pub(super) fn new(bytes: usize, frame: usize) -> Self {
        Self {
            flows: Flows::new(),
            queue: Queue::new(bytes / frame, frame),
            addresses: Table::new(ADDRESSES),
            scratch: vec![0; frame],
        }
    }

    /// Remembers behind which port of a segment an address is.
    pub(super) fn learn(&mut self, segment: usize, address: &[u8], port: usize) {
        if let Some(known) = self.addresses.entry(key_of(segment, address)) {
            *known.value = port;
        }
    }

    /// The port that an address was learned for.
    fn port_of(&self, segment: usize, address: &[u8]) -> Option<usize> {
        self.addresses.find(key_of(segment, address)).copied()
    }
}

/// What an address of a segment is found by.
fn key_of(segment: usize, address: &[u8]) -> u64 {
    hash(&[segment as u64, hash_bytes(address)])
}

pub(super) struct WireProcess<'b> {
    pub(super) board: &'b Board,
    pub(super) outlets: Vec<Outlet>,
    /// The ports of each segment.
    pub(super) segments: Vec<Vec<usize>>,
    /// Which port an interface is, in the order of the interfaces.
    pub(super) by_ifindex: Vec<(i32, usize)>,
    pub(super) arena: Arena,
    pub(super) tape: Tape,
    pub(super) troubles: &'static Troubles,
}

impl<'b> WireProcess<'b> {
    /// Goes on until the laboratory is over, or the test's process, which `body` refers to, has ended. `wake` is readable when somebody asks something.
    pub(super) fn run(&mut self, ring: &mut PacketRing, slots: usize, wake: BorrowedFd<'_>, body: BorrowedFd<'_>) {
        let (mut answered, mut turns) = (0, 0_u32);
        loop {
            let asked = self.board.whole(WireWord::Asked).load(Ordering::Acquire);
            let is_empty = self.take_all(ring, if asked == answered { 64 } else { slots });
            if asked != answered {
                self.look_for_trouble(ring);
                self.board.whole(WireWord::Answered).store(asked, Ordering::Release);
                answered = asked;
            }
            if self.board.whole(WireWord::Over).load(Ordering::Acquire) != 0 {
                self.look_for_trouble(ring);
                return;
            }
            let due = self.arena.queue.next_due().map(|due| due.saturating_sub(sys::now()));
            let wait = if is_empty { due } else { Some(0) };
            turns = turns.wrapping_add(1);
            // Also while something always comes, or is always due, this looks from time to time whether the body is over.
            if wait == Some(0) && turns % TURNS != 0 {
                continue;
            }
            // Nobody may ask any more: who kills all processes of a sandbox does so at once.
            self.look_for_trouble(ring);
            let flags = PollFlags::POLLIN;
            let mut fds = [ring.as_fd(), wake, body].map(|fd| PollFd::new(fd, flags));
            let wait = wait.map(|wait| TimeSpec::new((wait / 1_000_000_000) as _, (wait % 1_000_000_000) as _));
            let polled = ppoll(&mut fds, wait, None);
            let is_ready = |fd: &PollFd<'_>| polled.is_ok() && fd.any().unwrap_or_default();
            let [_, is_asked, is_over] = fds.each_ref().map(is_ready);
            if is_asked {
                let _ = read(wake, &mut [0; 8]);
            }
            if is_over {
                self.take_all(ring, slots);
                self.look_for_trouble(ring);
                return;
            }
        }
    }

    /// Takes at most so many frames out of the ring, and sends what is due. Returns whether the ring is empty.
    fn take_all(&mut self, ring: &mut PacketRing, most: usize) -> bool {
        for _ in 0..most {
            let Some((received, sender)) = ring.next() else {
                self.send_due(&ring.sender(), sys::now());
                return true;
            };
            // A frame is not dated earlier than it came, and does not overtake those that are due before it.
            let now = sys::now();
            self.send_due(&sender, now);
            self.take(received, &sender, now);
            ring.release();
        }
        false
    }

    fn look_for_trouble(&mut self, ring: &PacketRing) {
        self.troubles.add(Number::Overruns, ring.overruns().unwrap_or_default().into());
        self.troubles.add(Number::Forgotten, self.arena.flows.take_forgotten());
    }

    /// Sends on what is due.
    fn send_due(&mut self, sender: &PacketSender<'_>, now: u64) {
        if self.arena.queue.next_due().is_none_or(|due| due > now) {
            return;
        }
        // It is put back below: this takes no memory.
        let mut scratch = std::mem::take(&mut self.arena.scratch);
        while let Some((due, length, traveller)) = self.arena.queue.pop(now, &mut scratch) {
            // Many may be due at once, and each of them takes its time.
            let late = sys::now().saturating_sub(due);
            if late > LATE {
                self.troubles.add(Number::Late, 1);
                self.troubles.raise(Number::Latest, late);
            }
            self.direction(&traveller).add(Count::Queued, u64::MAX);
            if let Some(frame) = scratch.get_mut(..length) {
                // What follows is counted from when it was due: delays don't add up to more than they are.
                self.arrive(frame, &traveller, due, now, sender);
            }
        }
        self.arena.scratch = scratch;
    }

    /// A frame from a host.
    fn take(&mut self, received: Received<'_>, sender: &PacketSender<'_>, now: u64) {
        let found = self.by_ifindex.binary_search_by_key(&received.ifindex, |(ifindex, _)| *ifindex);
        let port = found.ok().and_then(|at| self.by_ifindex.get(at)).map(|(_, port)| *port);
        let Some(port) = port.filter(|_| !received.is_outgoing) else { return };
        if received.length > received.bytes.len() {
            self.troubles.add(Number::TooLarge, 1);
            return;
        }
        if received.lacks_checksum {
            complete_checksum(received.bytes);
        }
        let Some([kind, tag]) = received.vlan else { return self.enter(received.bytes, port, sender, now) };
        // The tag goes back to its place behind the addresses.
        let mut scratch = std::mem::take(&mut self.arena.scratch);
        let length = received.bytes.len() + 4;
        if let (Some(frame), Some((addresses, rest))) = (scratch.get_mut(..length), received.bytes.split_at_checked(12))
        {
            let tagged = addresses.iter().copied().chain(kind.to_be_bytes()).chain(tag.to_be_bytes());
            frame.iter_mut().zip(tagged.chain(rest.iter().copied())).for_each(|(to, from)| *to = from);
            self.enter(frame, port, sender, now);
        } else {
            self.troubles.add(Number::TooLarge, 1);
        }
        self.arena.scratch = scratch;
    }

    fn enter(&mut self, frame: &mut [u8], port: usize, sender: &PacketSender<'_>, now: u64) {
        let Some(segment) = self.outlets.get(port).map(|outlet| outlet.segment) else { return };
        let packet = Packet::parse(frame);
        let key = self.arena.flows.key(&packet, frame, port as u64, segment as u64);
        let is_upkeep = packet.is_upkeep();
        let next = Next::Segment;
        let traveller = Traveller { key, from: port, next, sent: now, entered: now, marks: 0, is_upkeep };
        self.travel(frame, traveller, now, now, sender);
    }

    /// Has a frame go in the direction that `traveller` says, from when it is `at`.
    fn travel(&mut self, frame: &mut [u8], mut traveller: Traveller, at: u64, now: u64, sender: &PacketSender<'_>) {
        let (port, way) = lane_of(&traveller);
        let direction = self.direction(&traveller);
        let Some(lane) = self.outlets.get_mut(port).and_then(|outlet| outlet.lanes.get_mut(way as usize)) else {
            return;
        };
        let passes = match lane.decide(direction, frame, &traveller, at) {
            Ok(passes) => passes,
            Err(cause) => return self.lose(frame, &traveller, cause, now),
        };
        let Passes { due, is_doubled, is_held, is_corrupted, lots } = passes;
        traveller.marks |= if is_doubled { marks::DUPLICATED } else { 0 } | if is_held { marks::HELD } else { 0 };
        let corrupted = lots.filter(|_| is_corrupted).and_then(|lots| {
            let (start, length) = corruptible(frame)?;
            let bit = lots.up_to(Lot::CorruptedBit, length as u64 * 8 - 1);
            Some((start + (bit / 8) as usize, 1_u8 << (bit % 8)))
        });
        if corrupted.is_some() {
            direction.add(Count::Corrupted, 1);
            traveller.marks |= marks::CORRUPTED;
        }
        if way == Way::FromHost {
            self.record(frame, &traveller, None, now);
        }
        let lane = hash(&[traveller.key.stream, port as u64, way as u64]);
        let change = |frame: &mut [u8]| {
            if let Some((byte, bit)) = corrupted.and_then(|(at, bit)| Some((frame.get_mut(at)?, bit))) {
                *byte ^= bit;
            }
        };
        change(frame);
        if is_held {
            let is_there = self.arena.queue.hold(due + HOLD, frame, traveller, lane);
            self.wait(frame, &traveller, is_there, now);
        } else {
            self.go(frame, &traveller, due, now, sender);
        }
        change(frame);
        if is_doubled {
            direction.add(Count::Duplicated, 1);
            let marks = traveller.marks & !(marks::DUPLICATED | marks::HELD | marks::CORRUPTED) | marks::COPY;
            let copy = Traveller { key: traveller.key.of_copy(), marks, ..traveller };
            self.go(frame, &copy, due, now, sender);
        }
        if !is_held {
            let count = self.arena.queue.overtake(due, lane, marks::OVERTAKEN);
            direction.add(Count::Reordered, count);
        }
    }

    /// Goes on at once if it is due, and nothing that waits is due before it or as early. Else it waits.
    fn go(&mut self, frame: &mut [u8], traveller: &Traveller, due: u64, now: u64, sender: &PacketSender<'_>) {
        if due <= now && self.arena.queue.next_due().is_none_or(|next| due < next) {
            self.arrive(frame, traveller, due, now, sender);
        } else {
            let is_there = self.arena.queue.push(due, frame, *traveller);
            self.wait(frame, traveller, is_there, now);
        }
    }

    fn wait(&mut self, frame: &[u8], traveller: &Traveller, is_there: bool, now: u64) {
        if is_there {
            self.direction(traveller).add(Count::Queued, 1);
        } else {
            self.troubles.add(Number::NoRoom, 1);
            self.lose(frame, traveller, Cause::NoRoom, now);
        }
    }

    /// A frame that has its direction behind it.
    fn arrive(&mut self, frame: &mut [u8], traveller: &Traveller, at: u64, now: u64, sender: &PacketSender<'_>) {
        let direction = self.direction(traveller);
        // It may be whole again, but was cut while the frame was on its way.
        if direction.get(Setting::Cut) != 0 || direction.get(Setting::CutAt) > traveller.entered {
            return self.lose(frame, traveller, Cause::Cut, now);
        }
        match traveller.next {
            Next::Segment => {
                direction.add(Count::Delivered, 1);
                direction.add(Count::DeliveredBytes, frame.len() as u64);
                self.switch(frame, traveller, at, now, sender);
            }
            Next::Host(port) => self.deliver(frame, traveller, port, now, sender),
        }
    }

    /// Sends a frame to the port that its destination is behind, or to all.
    fn switch(&mut self, frame: &mut [u8], traveller: &Traveller, at: u64, now: u64, sender: &PacketSender<'_>) {
        let Some(segment) = self.outlets.get(traveller.from).map(|outlet| outlet.segment) else { return };
        let (Some(to), Some(from)) = (frame.get(..6), frame.get(6..12)) else { return };
        let is_group = |address: &[u8]| address.first().is_some_and(|first| first & 1 != 0);
        if !is_group(from) {
            self.arena.learn(segment, from, traveller.from);
        }
        let known = if is_group(to) { None } else { self.arena.port_of(segment, to) };
        let go = |process: &mut Self, frame: &mut [u8], port: usize| {
            // Marks belong to the direction that they were made in, but for those that the host at the other end sees too.
            let marks = traveller.marks & (marks::CORRUPTED | marks::COPY);
            let traveller = Traveller { next: Next::Host(port), entered: at, marks, ..*traveller };
            if process.board.is_blocked(traveller.from, port, traveller.sent) {
                process.direction(&traveller).begin(frame.len() as u64);
                return process.lose(frame, &traveller, Cause::Blocked, now);
            }
            process.travel(frame, traveller, at, now, sender);
        };
        match known {
            Some(port) if port == traveller.from => {}
            Some(port) => go(self, frame, port),
            None => {
                let count = self.segments.get(segment).map_or(0, Vec::len);
                for at in 0..count {
                    let port = self.segments.get(segment).and_then(|ports| ports.get(at)).copied();
                    if let Some(port) = port.filter(|port| *port != traveller.from) {
                        go(self, frame, port);
                    }
                }
            }
        }
    }

    fn deliver(&mut self, frame: &[u8], traveller: &Traveller, port: usize, now: u64, sender: &PacketSender<'_>) {
        if self.board.is_blocked(traveller.from, port, traveller.sent) {
            return self.lose(frame, traveller, Cause::Blocked, now);
        }
        let Some(outlet) = self.outlets.get_mut(port) else { return };
        // The kernel would not take it. That is no trouble: the test has chosen so.
        if packet_length(frame) > outlet.mtu {
            return self.lose(frame, traveller, Cause::TooLong, now);
        }
        if !outlet.send(frame, sender) {
            self.troubles.add(Number::Refused, 1);
            return self.lose(frame, traveller, Cause::NoRoom, now);
        }
        let direction = self.direction(traveller);
        direction.add(Count::Delivered, 1);
        direction.add(Count::DeliveredBytes, frame.len() as u64);
        self.record(frame, traveller, None, now);
    }

    fn lose(&mut self, frame: &[u8], traveller: &Traveller, cause: Cause, now: u64) {
        self.direction(traveller).add_lost(cause);
        self.record(frame, traveller, Some(cause), now);
    }

    /// The numbers of the direction that a frame is in.
    fn direction(&self, traveller: &Traveller) -> Direction<'b> {
        let (port, way) = lane_of(traveller);
        self.board.direction(port, way).of(traveller.is_upkeep)
    }

    fn record(&mut self, frame: &[u8], traveller: &Traveller, lost: Option<Cause>, now: u64) {
        let (port, way) = lane_of(traveller);
        let (marks, number) = (traveller.marks, traveller.key.number);
        let seen = Seen { time: now, port: port as u16, way, lost, marks, number, length: frame.len() as u32 };
        self.tape.record(&seen, frame);
    }
}

/// The port and the direction in which a frame is.
fn lane_of(traveller: &Traveller) -> (usize, Way) {
    match traveller.next {
        Next::Segment => (traveller.from, Way::FromHost),
        Next::Host(port) => (port, Way::ToHost),
    }
}
