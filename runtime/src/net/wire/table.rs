//! A table of fixed size: where there is no room any more, what was not used for longest is forgotten.

/// How many places one key may have.
const PLACES: usize = 16;

/// The kernel supplies zeroed memory only where it is written to. So a table that is hardly used costs little.
pub(super) struct Table<V> {
    /// Zero stands for none.
    keys: Vec<u64>,
    /// When each was looked for last.
    used: Vec<u64>,
    /// Where its value is.
    places: Vec<u32>,
    values: Vec<V>,
    /// How often something was looked for.
    uses: u64,
    /// How much was forgotten.
    forgotten: u64,
}

/// What is in the table for a key.
pub(super) struct Found<'t, V> {
    pub(super) value: &'t mut V,
    /// Whether it was not there before, and so is what it is by default.
    pub(super) is_new: bool,
}

impl<V: Default> Table<V> {
    /// One with room for so many: a power of two.
    pub(super) fn new(size: usize) -> Self {
        let size = size.next_power_of_two().max(PLACES);
        let values = Vec::with_capacity(size);
        Self { keys: vec![0; size], used: vec![0; size], places: vec![0; size], values, uses: 0, forgotten: 0 }
    }

    /// Where `key` may be.
    fn places(&self, key: u64) -> impl Iterator<Item = usize> + use<V> {
        let mask = self.keys.len() - 1;
        (0..PLACES).map(move |place| (key as usize).wrapping_add(place) & mask)
    }

    /// What is there for `key`. Something is put there if nothing is.
    pub(super) fn entry(&mut self, key: u64) -> Option<Found<'_, V>> {
        let key = key.max(1);
        self.uses += 1;
        let (mut best, mut oldest) = (None, u64::MAX);
        for at in self.places(key) {
            if *self.keys.get(at)? == key {
                best = Some(at);
                break;
            }
            // One that is empty was never used.
            let used = *self.used.get(at)?;
            if used < oldest {
                (best, oldest) = (Some(at), used);
            }
        }
        let at = best?;
        *self.used.get_mut(at)? = self.uses;
        let (known, place) = (self.keys.get_mut(at)?, self.places.get_mut(at)?);
        let is_new = *known != key;
        if *known == 0 {
            *place = self.values.len() as u32;
            // There is a value for each key, and room for all.
            self.values.push(V::default());
        } else if is_new {
            self.forgotten += 1;
            *self.values.get_mut(*place as usize)? = V::default();
        }
        *known = key;
        Some(Found { value: self.values.get_mut(*place as usize)?, is_new })
    }

    /// What is there for `key`, if something is.
    pub(super) fn find(&self, key: u64) -> Option<&V> {
        let key = key.max(1);
        let at = self.places(key).find(|at| self.keys.get(*at) == Some(&key))?;
        self.values.get(*self.places.get(at)? as usize)
    }

    /// How much was forgotten since this was asked last.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chance::mix;
    use super::*;

    #[test]
    fn keeps_what_fits_and_tells_what_does_not() {
        let mut table = Table::<u64>::new(1024);
        for key in 0..256 {
            *table.entry(mix(key)).expect("a place").value = key;
        }
        assert!((0..256).all(|key| table.find(mix(key)) == Some(&key)));
        assert_eq!(table.take_forgotten(), 0);
        for key in 0..4096 {
            *table.entry(mix(key)).expect("a place").value = key;
        }
        let left = (0..4096).filter(|key| table.find(mix(*key)) == Some(key)).count();
        assert!(left <= 1024 && table.take_forgotten() >= 3072, "{left}");
        // The newest are there.
        assert!((4090..4096).all(|key| table.find(mix(key)) == Some(&key)));
    }
}
