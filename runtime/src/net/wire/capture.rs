//! What was seen of each frame: a ring of records in memory that the wire writes to. Who has its file can read it, also when all processes
//! of the sandbox are gone.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

use super::board::{Cause, Way};
use crate::sys::shared::SharedBytes;

/// The numbers at the beginning.
#[derive(Clone, Copy)]
pub(super) enum Head {
    /// How many bytes were ever written.
    End,
    /// The position of the oldest byte that is still there, counted in the same way.
    Begin,
    /// How many are gone.
    Gone,
    /// The size of the ring, and where it begins.
    Size,
    Start,
    Ports,
    Seed,
    /// What to add to times for those of the clock on the wall.
    ClockOffset,
}

/// How many of these numbers there are, and where the names of the ports are.
pub(super) const WORDS: usize = 16;
pub(super) const NAMES: usize = WORDS * 8;

/// The longest name of a port that is kept: a host's, a point, and an interface's.
pub(super) const NAME_MAX: usize = 63 + 1 + 15;

/// What is before the bytes of a frame.
pub(super) const RECORD: usize = 40;

/// Bits that say what became of a frame.
pub(super) mod marks {
    /// It was sent twice.
    pub(in super::super) const DUPLICATED: u16 = 1;
    /// It is the second.
    pub(in super::super) const COPY: u16 = 1 << 1;
    pub(in super::super) const CORRUPTED: u16 = 1 << 2;
    /// It was held back, so that others overtake it.
    pub(in super::super) const HELD: u16 = 1 << 3;
    /// One has.
    pub(in super::super) const OVERTAKEN: u16 = 1 << 4;
}

/// What is known of a frame that was seen at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// By the monotonic clock, in nanoseconds.
    pub(super) time: u64,
    pub(super) port: u16,
    pub(super) way: Way,
    pub(super) lost: Option<Cause>,
    pub(super) marks: u16,
    /// Its number in its flow.
    pub(super) number: u64,
    /// How long it is, of which fewer bytes may be there.
    pub(super) length: u32,
}

impl Seen {
    /// The record, for a frame of which so many bytes are there.
    pub(super) fn encode(&self, size: u32, captured: u32) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        let lost = self.lost.map_or(0, |cause| cause as u8 + 1);
        let ways = u64::from(self.way as u8) << 8 | u64::from(lost);
        let places = u32::from(self.port) | u32::from(self.marks) << 16;
        let pair = |first: u32, second: u32| u64::from(first) | u64::from(second) << 32;
        let words = [pair(size, captured), pair(self.length, places), self.time, self.number, ways];
        for (to, from) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        bytes
    }
}

/// The wire's end.
pub(super) struct Tape {
    memory: SharedBytes,
    start: usize,
    size: u64,
    begin: u64,
    end: u64,
}

impl Tape {
    /// A ring of `size` bytes. Its memory is taken when it is written to.
    pub(super) fn new(size: usize, seed: u64, names: &[&str], clock_offset: u64) -> nix::Result<(Self, File)> {
        let mut list = Vec::new();
        for name in names {
            let name = name.as_bytes();
            let name = name.get(..NAME_MAX).unwrap_or(name);
            list.push(name.len() as u8);
            list.extend(name);
        }
        let start = (NAMES + list.len()).next_multiple_of(1 << 12);
        let size = size.next_multiple_of(1 << 12);
        let (memory, file) = SharedBytes::new(c"belljar-capture", start + size)?;
        memory.write(NAMES, &list);
        let tape = Self { memory, start, size: size as u64, begin: 0, end: 0 };
        let heads = [
            (Head::Size, size as u64),
            (Head::Start, start as u64),
            (Head::Ports, names.len() as u64),
            (Head::Seed, seed),
            (Head::ClockOffset, clock_offset),
        ];
        heads.into_iter().for_each(|(head, value)| tape.head(head).store(value, Ordering::Relaxed));
        Ok((tape, file))
    }

    fn head(&self, head: Head) -> &AtomicU64 {
        static NONE: AtomicU64 = AtomicU64::new(0);
        self.memory.words(WORDS).get(head as usize).unwrap_or(&NONE)
    }

    /// Writes at this place of the endless ring.
    fn put(&self, at: u64, bytes: &[u8]) {
        let place = (at % self.size) as usize;
        let (first, rest) = bytes.split_at(bytes.len().min(self.size as usize - place));
        self.memory.write(self.start + place, first);
        self.memory.write(self.start, rest);
    }

    /// Adds a record. If this process is killed meanwhile, that one is not there, and all others are.
    pub(super) fn record(&mut self, seen: &Seen, frame: &[u8]) {
        let size = (RECORD + frame.len()).next_multiple_of(8) as u64;
        if size > self.size {
            return;
        }
        let mut gone = 0;
        while self.end + size - self.begin > self.size {
            let oldest = self.memory.read_u32(self.start + (self.begin % self.size) as usize);
            // Somebody else has written there.
            if oldest < RECORD as u32 || u64::from(oldest) > self.size {
                self.begin = self.end;
                break;
            }
            self.begin += u64::from(oldest);
            gone += 1;
        }
        if gone > 0 {
            self.head(Head::Begin).store(self.begin, Ordering::SeqCst);
            self.head(Head::Gone).fetch_add(gone, Ordering::SeqCst);
        }
        self.put(self.end, &seen.encode(size as u32, frame.len() as u32));
        self.put(self.end + RECORD as u64, frame);
        self.end += size;
        self.head(Head::End).store(self.end, Ordering::SeqCst);
    }
}
