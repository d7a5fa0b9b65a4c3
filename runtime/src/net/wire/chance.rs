//! What is drawn by lot: it follows from the seed and from what a frame is, and never from time.

pub(in crate::net) use crate::chance::odds;
pub(super) use crate::chance::{hash, hash_bytes, mix};

/// What may happen to a frame by chance. Each has lots of its own, so that one more fault changes nothing of the others.
#[derive(Clone, Copy)]
pub(super) enum Lot {
    Loss = 1,
    Duplicate,
    Reorder,
    Corrupt,
    CorruptedBit,
    Jitter,
}

/// The lots of one frame, in one direction of one port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lots(u64);

impl Lots {
    /// `seed` is that of the direction, `frame` what stands for the frame in all runs.
    pub(super) fn of(seed: u64, frame: u64) -> Self {
        Self(mix(seed ^ mix(frame)))
    }

    /// Any number, each as probable as the others.
    pub(super) fn draw(self, lot: Lot) -> u64 {
        mix(self.0 ^ mix(lot as u64))
    }

    /// Whether it happens, as often as `odds` says: out of 2^64 times, and always for the largest.
    pub(super) fn happens(self, lot: Lot, odds: u64) -> bool {
        odds != 0 && (odds == u64::MAX || self.draw(lot) < odds)
    }

    /// A number up to `most`.
    pub(super) fn up_to(self, lot: Lot, most: u64) -> u64 {
        ((u128::from(self.draw(lot)) * (u128::from(most) + 1)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn happens_as_often_as_written() {
        for probability in [0.01, 0.1, 0.5, 0.9] {
            let count = (0..100_000).filter(|frame| Lots::of(7, *frame).happens(Lot::Loss, odds(probability))).count();
            let ratio = count as f64 / (100_000.0 * probability);
            assert!((0.9..1.1).contains(&ratio), "{probability}: {ratio}");
        }
        let happens =
            |probability| (0..1000).filter(|frame| Lots::of(7, *frame).happens(Lot::Loss, odds(probability))).count();
        assert_eq!([0.0, -1.0, f64::NAN, 1.0, 7.0].map(happens), [0, 0, 0, 1000, 1000]);
    }

    #[test]
    fn lots_do_not_depend_on_each_other() {
        let lost =
            |seed, lot| (0..10_000).filter(|frame| Lots::of(seed, *frame).happens(lot, odds(0.1))).collect::<Vec<_>>();
        assert_eq!(lost(7, Lot::Loss), lost(7, Lot::Loss));
        let (by_loss, by_copy, by_seed) = (lost(7, Lot::Loss), lost(7, Lot::Duplicate), lost(8, Lot::Loss));
        for other in [by_copy, by_seed] {
            let both = by_loss.iter().filter(|frame| other.contains(frame)).count();
            assert!((50..200).contains(&both), "{both}");
        }
    }

    #[test]
    fn spreads_over_all_numbers() {
        let draws: Vec<_> = (0..10_000).map(|frame| Lots::of(1, frame).up_to(Lot::Jitter, 9)).collect();
        for number in 0..=9 {
            let count = draws.iter().filter(|draw| **draw == number).count();
            assert!((850..1150).contains(&count), "{number}: {count}");
        }
        assert_eq!(Lots::of(1, 1).up_to(Lot::Jitter, 0), 0);
    }
}
