//! What becomes of a frame in one direction of a port.

use super::board::{Cause, Direction, Setting};
use super::chance::{Lot, Lots};
use super::packet::Packet;
use super::queue::Traveller;
use crate::collect::map_both;

/// How many bytes wait for the rate at most, if nothing else is said.
const QUEUE: u64 = 256 << 10;

/// What the wire remembers of a direction.
#[derive(Default)]
pub(super) struct Lane {
    seed: u64,
    /// When the last frame is through, as the rate has it.
    free_at: u64,
    /// When the last frame is due: the next is not before it.
    last_due: u64,
    /// The settings when the last frame came. If one changes, `last_due` is reset; if `rate` changes, `free_at` is too.
    rate: u64,
    delay: u64,
    jitter: u64,
}

/// A frame that is not lost.
#[derive(Debug)]
pub(super) struct Passes {
    pub(super) due: u64,
    pub(super) is_doubled: bool,
    pub(super) is_held: bool,
    pub(super) is_corrupted: bool,
    pub(super) lots: Option<Lots>,
}

impl Lane {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Decides about a frame that is here `at` that time.
    pub(super) fn decide(
        &mut self,
        direction: Direction<'_>,
        frame: &[u8],
        traveller: &Traveller,
        at: u64,
    ) -> Result<Passes, Cause> {
        let is_numbered = direction.begin(frame.len() as u64);
        if direction.get(Setting::Cut) != 0 {
            return Err(Cause::Cut);
        }
        let mtu = direction.get(Setting::Mtu);
        if mtu != 0 && packet_length(frame) > mtu {
            return Err(Cause::TooLong);
        }
        if is_numbered {
            return Err(Cause::Numbered);
        }
        if direction.get(Setting::Matchers) != 0 {
            let packet = Packet::parse(frame);
            if direction.matches(|packets| packets.match_frame(&packet, frame)) {
                return Err(Cause::Matched);
            }
        }
        let odds =
            [Setting::Loss, Setting::Duplicate, Setting::Reorder, Setting::Corrupt].map(|odds| direction.get(odds));
        let jitter = direction.get(Setting::Jitter);
        // Without chance, there is nothing to draw.
        let lots = (odds != [0; 4] || jitter != 0).then(|| Lots::of(self.seed, traveller.key.id()));
        let happens = |lot, odds| lots.is_some_and(|lots| lots.happens(lot, odds));
        let [loss, duplicate, reorder, corrupt] = odds;
        if happens(Lot::Loss, loss) {
            return Err(Cause::Chance);
        }
        self.look_for_changes(direction, jitter);
        let mut due = self.through(direction, frame.len() as u64, at).ok_or(Cause::QueueFull)?;
        let jitter = lots.map_or(0, |lots| lots.up_to(Lot::Jitter, jitter));
        due = due.saturating_add(self.delay).saturating_add(jitter).min(u64::MAX / 2);
        let is_held = happens(Lot::Reorder, reorder);
        if !is_held {
            due = due.max(self.last_due);
            self.last_due = due;
        }
        let is_doubled = happens(Lot::Duplicate, duplicate);
        Ok(Passes { due, is_doubled, is_held, is_corrupted: happens(Lot::Corrupt, corrupt), lots })
    }

    /// What is set anew holds at once: it does not wait for frames that are on their way.
    fn look_for_changes(&mut self, direction: Direction<'_>, jitter: u64) {
        let [rate, delay] = map_both([Setting::Rate, Setting::Delay], |setting| direction.get(setting));
        if rate != self.rate {
            self.free_at = 0;
        }
        // Nothing else changes the order.
        if (rate, delay, jitter) != (self.rate, self.delay, self.jitter) {
            self.last_due = 0;
        }
        (self.rate, self.delay, self.jitter) = (rate, delay, jitter);
    }

    /// When a frame of so many bytes is through, as the rate has it. `None` if the queue is full.
    fn through(&mut self, direction: Direction<'_>, length: u64, at: u64) -> Option<u64> {
        if self.rate == 0 {
            return Some(at);
        }
        let time =
            |bytes: u64| u64::try_from(u128::from(bytes) * 8_000_000_000 / u128::from(self.rate)).unwrap_or(u64::MAX);
        let start = self.free_at.max(at);
        let queue = match direction.get(Setting::Queue) {
            0 => QUEUE,
            queue => queue,
        };
        // One frame alone always fits.
        if start > at && start - at > time(queue) {
            return None;
        }
        self.free_at = start.saturating_add(time(length)).min(u64::MAX / 2);
        Some(self.free_at)
    }
}

/// How long the packet in a frame is, without the heads of the frame.
pub(super) fn packet_length(frame: &[u8]) -> u64 {
    let is_tag = |at: usize| matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8]));
    let tags = [12, 16].into_iter().take_while(|at| is_tag(*at)).count();
    (frame.len() as u64).saturating_sub(14 + 4 * tags as u64)
}
