//! What the body's process sets and reads, and the wire reads and writes: numbers in memory that both have.

use std::sync::atomic::{AtomicU64, Ordering};

use super::matcher::{Packets, WORDS as MATCHER_WORDS};
use crate::sys::shared::SharedWords;

/// A direction of a port, as seen from its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    FromHost,
    ToHost,
}

/// Numbers of the whole wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WireWord {
    /// The number of the last request to decide about all frames so far.
    Asked,
    /// The number of the last request that the wire has done.
    Answered,
    /// Whether the laboratory is over.
    Over,
}

/// Numbers of a direction that are set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Setting {
    /// Nanoseconds.
    Delay,
    Jitter,
    /// Odds, out of 2^64.
    Loss,
    Duplicate,
    Reorder,
    Corrupt,
    /// Bits a second. Zero stands for no limit.
    Rate,
    /// How many bytes may wait for the rate. Zero stands for the default.
    Queue,
    /// The largest packet, in bytes. Zero stands for no limit.
    Mtu,
    Cut,
    /// When it was cut last, in nanoseconds.
    CutAt,
    /// The highest of the numbers of frames that are to be lost. Only `lose_no_more` lowers it.
    Numbered,
    /// How many matchers there are.
    Matchers,
}

/// Numbers of a direction that count frames, if nothing else is said.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    Sent,
    SentBytes,
    Delivered,
    DeliveredBytes,
    Duplicated,
    Reordered,
    Corrupted,
    /// How many wait now.
    Queued,
}

/// Why a frame was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Chance,
    Numbered,
    Matched,
    Cut,
    Blocked,
    TooLong,
    QueueFull,
    /// The wire or the kernel had no room. That is no fault which was asked for.
    NoRoom,
}

/// All causes, in their order.
pub(crate) const CAUSES: [Cause; 8] = [
    Cause::Chance,
    Cause::Numbered,
    Cause::Matched,
    Cause::Cut,
    Cause::Blocked,
    Cause::TooLong,
    Cause::QueueFull,
    Cause::NoRoom,
];

/// How many frames may be numbered to be lost at a time, and how many matchers there may be, in each direction.
pub(crate) const NUMBERED_MAX: usize = 64;
pub(crate) const MATCHERS_MAX: usize = 16;

const WHOLE: usize = 16;
const COUNTS: usize = 16;
const CAUSES_AT: usize = COUNTS + 16;
/// How much further the same counts are for frames that keep the network together. Tests don't send those, so they are counted apart.
const UPKEEP: usize = 32;
const NUMBERED_AT: usize = COUNTS + 2 * UPKEEP;
const MATCHERS_AT: usize = NUMBERED_AT + NUMBERED_MAX;
const DIRECTION: usize = MATCHERS_AT + MATCHERS_MAX * MATCHER_WORDS;

#[derive(Debug)]
pub(crate) struct Board {
    words: SharedWords,
    ports: usize,
}

/// The numbers of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Direction<'b> {
    words: &'b [AtomicU64],
    /// Whether the counts are those of frames that keep the network together.
    is_upkeep: bool,
}

/// Stands in for what is not there.
static NONE: AtomicU64 = AtomicU64::new(0);

impl Board {
    pub(super) fn new(ports: usize) -> nix::Result<Self> {
        Ok(Self { words: SharedWords::new(WHOLE + ports * 2 * DIRECTION + ports * ports)?, ports })
    }

    pub(crate) fn ports(&self) -> usize {
        self.ports
    }

    pub(crate) fn whole(&self, number: WireWord) -> &AtomicU64 {
        self.words.words().get(number as usize).unwrap_or(&NONE)
    }

    pub(crate) fn direction(&self, port: usize, way: Way) -> Direction<'_> {
        let start = WHOLE + (port * 2 + way as usize) * DIRECTION;
        let words = if port < self.ports { self.words.words().get(start..start + DIRECTION) } else { None };
        Direction { words: words.unwrap_or_default(), is_upkeep: false }
    }

    /// What says whether nothing passes from one port to the other: its lowest bit, and the others when that was set last.
    fn block(&self, from: usize, to: usize) -> Option<&AtomicU64> {
        let word = self.words.words().get(WHOLE + self.ports * 2 * DIRECTION + from * self.ports + to)?;
        (from < self.ports && to < self.ports).then_some(word)
    }

    /// Has nothing pass from one port to another, from `now` on, nor what was sent before.
    pub(super) fn set_block(&self, from: usize, to: usize, now: u64) {
        if let Some(word) = self.block(from, to) {
            word.store(now << 1 | 1, Ordering::Release);
        }
    }

    /// Has everything pass that is sent from now on.
    pub(super) fn lift_block(&self, from: usize, to: usize) {
        if let Some(word) = self.block(from, to) {
            word.fetch_and(!1, Ordering::Release);
        }
    }

    /// Whether nothing passes from one port to another of what was `sent` then.
    pub(super) fn is_blocked(&self, from: usize, to: usize, sent: u64) -> bool {
        let word = self.block(from, to).map_or(0, |word| word.load(Ordering::Acquire));
        word & 1 != 0 || word >> 1 > sent
    }
}

/// One process alone adds, so that this takes no lock of the bus.
fn add(word: &AtomicU64, count: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

impl<'b> Direction<'b> {
    /// The same, but for what it counts: traffic, or what keeps the network together.
    pub(crate) fn of(self, is_upkeep: bool) -> Self {
        Self { is_upkeep, ..self }
    }

    /// Where counts are, of which the first has this place.
    fn counts_at(self, start: usize) -> usize {
        if self.is_upkeep { start + UPKEEP } else { start }
    }

    fn word(self, at: usize) -> &'b AtomicU64 {
        self.words.get(at).unwrap_or(&NONE)
    }

    pub(crate) fn get(self, setting: Setting) -> u64 {
        self.word(setting as usize).load(Ordering::Acquire)
    }

    pub(crate) fn set(self, setting: Setting, value: u64) {
        self.word(setting as usize).store(value, Ordering::Release);
    }

    /// Has nothing pass, nor what is on its way.
    pub(crate) fn cut(self, now: u64) {
        self.set(Setting::CutAt, now);
        self.set(Setting::Cut, 1);
    }

    pub(crate) fn count(self, count: Count) -> u64 {
        self.word(self.counts_at(COUNTS) + count as usize).load(Ordering::Relaxed)
    }

    pub(crate) fn lost(self, cause: Cause) -> u64 {
        self.word(self.counts_at(CAUSES_AT) + cause as usize).load(Ordering::Relaxed)
    }

    pub(super) fn add(self, count: Count, more: u64) {
        add(self.word(self.counts_at(COUNTS) + count as usize), more);
    }

    pub(super) fn add_lost(self, cause: Cause) {
        add(self.word(self.counts_at(CAUSES_AT) + cause as usize), 1);
    }

    fn numbered(self) -> &'b [AtomicU64] {
        self.words.get(NUMBERED_AT..MATCHERS_AT).unwrap_or_default()
    }

    /// Has the frame with this number be lost. `false` if too many are numbered.
    pub(crate) fn lose(self, number: u64) -> bool {
        let free = |word: &AtomicU64| word.compare_exchange(0, number, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        self.numbered().iter().any(free) && {
            self.word(Setting::Numbered as usize).fetch_max(number, Ordering::AcqRel);
            true
        }
    }

    /// Counts a frame of so many bytes that begins its way here. Returns whether it is to be lost because of its number. That is used up now,
    /// whatever becomes of the frame.
    pub(super) fn begin(self, bytes: u64) -> bool {
        self.add(Count::Sent, 1);
        self.add(Count::SentBytes, bytes);
        !self.is_upkeep && self.takes(self.count(Count::Sent))
    }

    /// Whether the frame with this number is to be lost. Afterwards neither it is, nor any before it.
    fn takes(self, number: u64) -> bool {
        // The body's process alone changes it: what the wire has yet to take back can't make it wrong.
        if self.get(Setting::Numbered) < number {
            return false;
        }
        let mut is_numbered = false;
        for word in self.numbered() {
            let taken = word.load(Ordering::Acquire);
            let is_over = (1..=number).contains(&taken);
            if is_over && word.compare_exchange(taken, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                is_numbered |= taken == number;
            }
        }
        is_numbered
    }

    fn matcher(self, index: usize) -> &'b [AtomicU64] {
        let start = MATCHERS_AT + index * MATCHER_WORDS;
        self.words.get(start..start + MATCHER_WORDS).unwrap_or_default()
    }

    /// Has frames like these be lost. `false` if there are too many matchers. Of two threads that call this at once, one may win.
    pub(crate) fn lose_when(self, packets: &Packets) -> bool {
        let used = self.get(Setting::Matchers) as usize;
        if used >= MATCHERS_MAX {
            return false;
        }
        self.matcher(used).iter().zip(packets.words()).for_each(|(to, from)| to.store(from, Ordering::Relaxed));
        self.set(Setting::Matchers, used as u64 + 1);
        true
    }

    /// Forgets all matchers and numbers.
    pub(crate) fn lose_no_more(self) {
        self.set(Setting::Matchers, 0);
        self.numbered().iter().for_each(|word| word.store(0, Ordering::Release));
        self.set(Setting::Numbered, 0);
    }

    /// Whether a matcher says that a frame is to be lost.
    pub(super) fn matches(self, matches: impl Fn(&Packets) -> bool) -> bool {
        let used = (self.get(Setting::Matchers) as usize).min(MATCHERS_MAX);
        (0..used).any(|index| {
            let mut words = [0; MATCHER_WORDS];
            let matcher = self.matcher(index);
            words.iter_mut().zip(matcher).for_each(|(to, from)| *to = from.load(Ordering::Relaxed));
            matches(&Packets::of_words(words))
        })
    }
}
