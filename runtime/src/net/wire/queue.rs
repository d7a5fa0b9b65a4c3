//! Frames that wait until it is their time. All memory is there from the beginning.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::flows::FrameKey;

/// The most frames that are held back for others to overtake them.
const HELD_MAX: usize = 1 << 10;

/// A frame on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traveller {
    pub(super) key: FrameKey,
    /// The port that it came in by.
    pub(super) from: usize,
    pub(super) next: Next,
    /// When it came from its host, and when it came into the direction that it is in.
    pub(super) sent: u64,
    pub(super) entered: u64,
    /// What became of it until now: bits of `capture::marks`.
    pub(super) marks: u16,
    /// Whether it keeps the network together, and is no traffic of anybody's.
    pub(super) is_upkeep: bool,
}

/// Where it goes when it is its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Into the segment.
    Segment,
    /// To the host at this port.
    Host(usize),
}

/// An entry of the heap: the due time, the order, the slot, and the slot's turn. If the slot has another turn now, the entry is stale.
type Due = Reverse<(u64, u64, u32, u32)>;

pub(super) struct Queue {
    bytes: Vec<u8>,
    slot: usize,
    /// Those that were ever used.
    slots: Vec<Slot>,
    slots_max: usize,
    free: Vec<u32>,
    due: BinaryHeap<Due>,
    due_max: usize,
    order: u64,
    held: Vec<Held>,
}

#[derive(Clone, Copy)]
struct Slot {
    length: u32,
    /// How often it was put to use, or changed its time.
    turn: u32,
    traveller: Traveller,
}

/// A frame that is held back until another of its stream passes.
#[derive(Clone, Copy)]
struct Held {
    /// Where: the stream, and the direction of the port.
    lane: u64,
    slot: u32,
    turn: u32,
}

impl Queue {
    /// One with so many slots for frames of this size.
    pub(super) fn new(slots: usize, slot: usize) -> Self {
        Self {
            // The kernel gives memory where it is written to, and not before.
            bytes: vec![0; slots * slot],
            slot,
            slots: Vec::with_capacity(slots),
            slots_max: slots,
            free: Vec::with_capacity(slots),
            due: BinaryHeap::with_capacity(slots * 2),
            due_max: slots * 2,
            order: 0,
            held: Vec::with_capacity(HELD_MAX),
        }
    }

    /// Has a frame wait until `due`. `false` if there is no room for it.
    pub(super) fn push(&mut self, due: u64, frame: &[u8], traveller: Traveller) -> bool {
        self.put(due, frame, traveller).is_some()
    }

    /// Has a frame wait until another one of its lane passes, or until `due` if none does.
    pub(super) fn hold(&mut self, due: u64, frame: &[u8], traveller: Traveller, lane: u64) -> bool {
        if self.held.len() == HELD_MAX {
            return self.push(due, frame, traveller);
        }
        let Some((slot, turn)) = self.put(due, frame, traveller) else { return false };
        self.held.push(Held { lane, slot, turn });
        true
    }

    fn put(&mut self, due: u64, frame: &[u8], traveller: Traveller) -> Option<(u32, u32)> {
        if self.due.len() == self.due_max {
            return None;
        }
        let unused = self.slots.len();
        let index = match self.free.last() {
            Some(index) => *index,
            None if unused < self.slots_max => unused as u32,
            None => return None,
        };
        let start = index as usize * self.slot;
        // Frames that are larger than a slot don't come this far.
        self.bytes.get_mut(start..start + self.slot)?.get_mut(..frame.len())?.copy_from_slice(frame);
        if self.free.pop().is_none() {
            self.slots.push(Slot { length: 0, turn: 0, traveller });
        }
        let slot = self.slots.get_mut(index as usize)?;
        *slot = Slot { length: frame.len() as u32, turn: slot.turn.wrapping_add(1), traveller };
        let turn = slot.turn;
        self.order += 1;
        self.due.push(Reverse((due, self.order, index, turn)));
        Some((index, turn))
    }

    /// Has those that are held back in this lane wait until `due`, behind one that has passed. Returns how many there are.
    pub(super) fn overtake(&mut self, due: u64, lane: u64, mark: u16) -> u64 {
        if self.held.is_empty() {
            return 0;
        }
        let Self { slots, due: all_due, due_max, order, held, .. } = self;
        let mut count = 0;
        held.retain(|one| {
            let Some(slot) = slots.get_mut(one.slot as usize).filter(|slot| slot.turn == one.turn) else {
                return false;
            };
            if one.lane != lane || all_due.len() == *due_max {
                return true;
            }
            slot.turn = slot.turn.wrapping_add(1);
            slot.traveller.marks |= mark;
            *order += 1;
            all_due.push(Reverse((due, *order, one.slot, slot.turn)));
            count += 1;
            false
        });
        count
    }

    /// When the next frame is due.
    pub(super) fn next_due(&mut self) -> Option<u64> {
        while let Some(Reverse((due, _, slot, turn))) = self.due.peek() {
            if self.slots.get(*slot as usize).is_some_and(|slot| slot.turn == *turn) {
                return Some(*due);
            }
            self.due.pop();
        }
        None
    }

    /// The next frame, if it is due by `now`: when it was, its bytes, in `frame`, and how many they are.
    pub(super) fn pop(&mut self, now: u64, frame: &mut [u8]) -> Option<(u64, usize, Traveller)> {
        self.next_due().filter(|due| *due <= now)?;
        let Reverse((due, _, index, _)) = self.due.pop()?;
        let slot = self.slots.get_mut(index as usize)?;
        let (start, length) = (index as usize * self.slot, slot.length as usize);
        let length = length.min(frame.len());
        frame.get_mut(..length)?.copy_from_slice(self.bytes.get(start..start + length)?);
        slot.turn = slot.turn.wrapping_add(1);
        // There is room for all.
        self.free.push(index);
        Some((due, length, slot.traveller))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traveller(number: u64) -> Traveller {
        Traveller {
            key: FrameKey { stream: 0, position: 0, number },
            from: 0,
            next: Next::Segment,
            sent: 0,
            entered: 0,
            marks: 0,
            is_upkeep: false,
        }
    }

    fn numbers(queue: &mut Queue, now: u64) -> Vec<u64> {
        let mut frame = [0; 64];
        std::iter::from_fn(|| queue.pop(now, &mut frame)).map(|(_, _, traveller)| traveller.key.number).collect()
    }

    #[test]
    fn is_in_the_order_of_time_and_then_of_arrival() {
        let mut queue = Queue::new(8, 64);
        for (due, number) in [(5, 1), (3, 2), (5, 3), (4, 4)] {
            assert!(queue.push(due, &[number as u8; 10], traveller(number)));
        }
        assert_eq!(queue.next_due(), Some(3));
        assert_eq!(numbers(&mut queue, 4), [2, 4]);
        assert_eq!(numbers(&mut queue, 9), [1, 3]);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn keeps_bytes_and_has_an_end() {
        let mut queue = Queue::new(4, 64);
        for round in 0..100_u8 {
            for number in 0..4 {
                assert!(queue.push(number.into(), &[round ^ number; 64], traveller(number.into())));
            }
            assert!(!queue.push(0, &[0], traveller(9)));
            let mut frame = [0; 64];
            for number in 0..4 {
                let (due, length, traveller) = queue.pop(9, &mut frame).expect("a frame");
                assert_eq!((due, length, traveller.key.number), (number.into(), 64, number.into()));
                assert_eq!(frame, [round ^ number; 64]);
            }
        }
        // One that is too large does not use up a slot.
        assert!(!queue.push(0, &[0; 65], traveller(0)));
        assert!((0..4).all(|number| queue.push(0, &[0; 64], traveller(number))));
    }

    #[test]
    fn those_held_back_come_behind_the_next_of_their_lane() {
        let mut queue = Queue::new(8, 64);
        assert!(queue.hold(100, &[], traveller(1), 7));
        assert!(queue.hold(100, &[], traveller(2), 8));
        assert!(queue.push(10, &[], traveller(3)));
        assert_eq!(queue.overtake(10, 7, 0), 1);
        assert_eq!(queue.overtake(10, 7, 0), 0);
        assert_eq!(numbers(&mut queue, 10), [3, 1]);
        // Nobody overtakes it.
        assert_eq!(numbers(&mut queue, 100), [2]);
        assert_eq!(queue.overtake(10, 8, 0), 0);
        assert_eq!(queue.free.len(), queue.slots.len());
    }
}
