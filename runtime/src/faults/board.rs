//! The faults of a sandbox: numbers in memory that the body's processes share with the supervisor.
//!
//! Who starts a fault takes a slot, writes the definition, and then sets the slot's state: the supervisor looks at that for each call. So no
//! fault that was started has to be announced. The supervisor counts in the slots. It trusts nothing that is in there.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

use super::definition::{Definition, WORDS as DEFINITION};
use crate::sys::shared::SharedBytes;

/// How many faults there may be at a time.
pub(super) const SLOTS: usize = 64;

/// Numbers of the whole.
#[derive(Clone, Copy)]
enum BoardWord {
    /// How many faults were started, in all.
    Started,
    /// How many slots were ever used.
    Used,
    /// The inodes of the socket and of the pipes that lead to the test binary. No fault is for those.
    Socket,
    Output,
    Errors,
    /// Whether callers wait for an answer whatever signals they get.
    Killable,
    /// How often a sweep could not keep what was synced.
    NotKept,
}

const OURS: [BoardWord; 3] = [BoardWord::Socket, BoardWord::Output, BoardWord::Errors];

const WHOLE: usize = 8;

/// Numbers of a slot, before the definition.
#[derive(Clone, Copy)]
enum Field {
    /// The number of the fault that has the slot, times 4, and what it is.
    State,
    Calls,
    Hits,
}

const FIELDS: usize = 8;
const SLOT: usize = FIELDS + DEFINITION;
const ALL: usize = WHOLE + SLOTS * SLOT;
const LENGTH: usize = (ALL * size_of::<u64>()).next_multiple_of(1 << 16);

// What a slot is.
const FREE: u64 = 0;
const WRITTEN: u64 = 1;
const ACTIVE: u64 = 2;

/// A fault that was started: its slot, and its number, which no other has. Later ones have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    slot: usize,
}

impl Entry {
    fn state(self) -> u64 {
        self.number << 2 | ACTIVE
    }

    /// A number of calls is marked with the fault's: who counts late, when another fault has the slot, counts nothing.
    fn mark(self) -> u64 {
        self.number << COUNT_BITS
    }
}

/// The bits of a number of calls. The others have the number of the fault.
const COUNT_BITS: u32 = 40;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

static NONE: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(crate) struct Board(SharedBytes);

impl Board {
    /// An empty one, and what stands for it.
    pub(super) fn new(ours: [u64; 3]) -> nix::Result<(Self, File)> {
        let (bytes, file) = SharedBytes::new(c"belljar-faults", LENGTH)?;
        let board = Self(bytes);
        for (word, inode) in OURS.into_iter().zip(ours) {
            board.word(word as usize).store(inode, Ordering::Relaxed);
        }
        Ok((board, file))
    }

    pub(super) fn set_waits_killable(&self, is_so: bool) {
        self.word(BoardWord::Killable as usize).store(is_so.into(), Ordering::Release);
    }

    /// Whether no signal but SIGKILL interrupts a call that waits for an answer.
    pub(crate) fn waits_killable(&self) -> bool {
        self.word(BoardWord::Killable as usize).load(Ordering::Acquire) != 0
    }

    /// The inodes of what leads to the test binary: of a socket, and of two pipes.
    pub(crate) fn ours(&self) -> [u64; 3] {
        OURS.map(|word| self.word(word as usize).load(Ordering::Relaxed))
    }

    /// One that another process has made.
    pub(crate) fn of(file: &File) -> nix::Result<Self> {
        SharedBytes::of(file, LENGTH).map(Self)
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        self.0.words(ALL).get(at).unwrap_or(&NONE)
    }

    fn field(&self, slot: usize, field: Field) -> &AtomicU64 {
        self.word(WHOLE + slot * SLOT + field as usize)
    }

    fn definition_words(&self, slot: usize) -> &[AtomicU64] {
        let begin = WHOLE + slot * SLOT + FIELDS;
        self.0.words(ALL).get(begin..begin + DEFINITION).unwrap_or_default()
    }

    /// Starts a fault. `None` if there are too many.
    pub(super) fn start(&self, definition: &Definition) -> Option<Entry> {
        let claim = |slot: &usize| {
            let state = self.field(*slot, Field::State);
            state.compare_exchange(FREE, WRITTEN, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let slot = (0..SLOTS).find(claim)?;
        for (to, from) in self.definition_words(slot).iter().zip(definition.encode()) {
            // Whoever reads one of these as the fault that had the slot before, sees that it is over.
            to.store(from, Ordering::Release);
        }
        self.word(BoardWord::Used as usize).fetch_max(slot as u64 + 1, Ordering::AcqRel);
        let number = self.word(BoardWord::Started as usize).fetch_add(1, Ordering::AcqRel) + 1;
        let entry = Entry { number, slot };
        for field in [Field::Calls, Field::Hits] {
            self.field(slot, field).store(entry.mark(), Ordering::Release);
        }
        self.field(slot, Field::State).store(entry.state(), Ordering::Release);
        Some(entry)
    }

    /// Has the calls of a fault go through again.
    pub(super) fn end(&self, entry: Entry) {
        let state = self.field(entry.slot, Field::State);
        let _ = state.compare_exchange(entry.state(), FREE, Ordering::AcqRel, Ordering::Relaxed);
    }

    fn count(&self, entry: Entry, field: Field) -> u64 {
        let marked = self.field(entry.slot, field).load(Ordering::Acquire);
        if marked & !COUNT == entry.mark() { marked & COUNT } else { 0 }
    }

    /// Counts one more. `None` if another fault has the slot.
    fn add(&self, entry: Entry, field: Field) -> Option<u64> {
        let more =
            |marked: u64| (marked & !COUNT == entry.mark()).then(|| entry.mark() | marked.wrapping_add(1) & COUNT);
        let before = self.field(entry.slot, field).fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        Some((before.ok()? & COUNT) + 1)
    }

    /// How many calls a fault has met.
    pub(crate) fn calls(&self, entry: Entry) -> u64 {
        self.count(entry, Field::Calls)
    }

    /// How many of them were hit.
    pub(crate) fn hits(&self, entry: Entry) -> u64 {
        self.count(entry, Field::Hits)
    }

    /// Counts one more call, and returns how many there are now. `None` if the fault is over.
    pub(crate) fn add_call(&self, entry: Entry) -> Option<u64> {
        self.add(entry, Field::Calls)
    }

    pub(crate) fn add_hit(&self, entry: Entry) {
        let _ = self.add(entry, Field::Hits);
    }

    /// Ends all faults that were started later than this one: who started them may have been killed.
    pub(super) fn end_later(&self, entry: Entry) {
        self.active().filter(|other| other.number > entry.number).for_each(|other| self.end(other));
    }

    /// How often a sweep could not keep what was synced.
    pub(super) fn not_kept(&self) -> u64 {
        self.word(BoardWord::NotKept as usize).load(Ordering::Acquire)
    }

    pub(crate) fn add_not_kept(&self) {
        self.word(BoardWord::NotKept as usize).fetch_add(1, Ordering::AcqRel);
    }

    /// The faults that are active, in no order.
    pub(crate) fn active(&self) -> impl Iterator<Item = Entry> {
        let used = self.word(BoardWord::Used as usize).load(Ordering::Acquire);
        (0..SLOTS.min(usize::try_from(used).unwrap_or(SLOTS))).filter_map(|slot| {
            let state = self.field(slot, Field::State).load(Ordering::Acquire);
            (state & 3 == ACTIVE).then_some(Entry { number: state >> 2, slot })
        })
    }

    /// What a fault is. `None` if it was ended meanwhile, or is none.
    pub(crate) fn definition(&self, entry: Entry) -> Option<Definition> {
        let mut words = [0; DEFINITION];
        let from = self.definition_words(entry.slot);
        words.iter_mut().zip(from).for_each(|(to, from)| *to = from.load(Ordering::Acquire));
        let is_there = self.field(entry.slot, Field::State).load(Ordering::Acquire) == entry.state();
        is_there.then(|| Definition::decode(&words)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::definition::tests::some;

    #[test]
    fn both_sides_see_the_same() {
        let (body, file) = Board::new([7; 3]).expect("a board");
        let supervisor = Board::of(&file).expect("the same");
        let first = body.start(&some()).expect("a slot");
        let second = body.start(&some()).expect("a slot");
        assert_eq!(supervisor.active().collect::<Vec<_>>(), [first, second]);
        assert_eq!(supervisor.definition(first), Some(some()));
        assert_eq!((supervisor.add_call(first), supervisor.add_call(first)), (Some(1), Some(2)));
        supervisor.add_hit(first);
        assert_eq!((body.calls(first), body.hits(first), body.calls(second)), (2, 1, 0));
        body.end(first);
        assert_eq!(supervisor.active().collect::<Vec<_>>(), [second]);
        assert_eq!(supervisor.definition(first), None);
        let third = body.start(&some()).expect("a slot");
        assert!(third.slot == first.slot && third > second && body.calls(third) == 0);
        // What comes late for the fault that had the slot before, is not counted for this one.
        supervisor.add_hit(first);
        assert_eq!(
            (supervisor.add_call(first), body.calls(third), body.hits(third), body.hits(first)),
            (None, 0, 0, 0)
        );
        // One that is over ends no other.
        body.end(first);
        assert_eq!(supervisor.active().count(), 2);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let (board, _) = Board::new([7; 3]).expect("a board");
        let all: Vec<_> = std::iter::from_fn(|| board.start(&some())).collect();
        assert_eq!(all.len(), SLOTS);
        board.end(all[7]);
        assert!(board.start(&some()).is_some() && board.start(&some()).is_none());
    }

    #[test]
    fn rubbish_is_no_fault() {
        let (board, file) = Board::new([7; 3]).expect("a board");
        board.0.words(ALL).iter().for_each(|word| word.store(u64::MAX - 1, Ordering::Relaxed));
        assert!(board.active().all(|entry| board.definition(entry).is_none()));
        assert!(board.active().count() == SLOTS);
        assert!(Board::of(&File::open("/dev/null").expect("open")).is_err());
        drop(file);
    }
}
