//! What is drawn by lot: it follows from the seed and from what a frame is, and never from time.

/// Makes each bit depend on all others: the finalizer of splitmix64.
pub(super) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One number for several.
pub(super) fn hash(numbers: &[u64]) -> u64 {
    let mut hash = numbers.len() as u64;
    for number in numbers {
        hash = mix(hash ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
    }
    hash
}

/// One number for some bytes.
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        if let Some(place) = word.get_mut(..chunk.len()) {
            place.copy_from_slice(chunk);
        }
        hash = mix(hash ^ u64::from_le_bytes(word));
    }
    hash
}

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

/// The odds of a probability, for [`Lots::happens`].
pub(in crate::net) fn odds(probability: f64) -> u64 {
    // A cast saturates, and takes what is no number for zero.
    (probability * 2_f64.powi(64)) as u64
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
