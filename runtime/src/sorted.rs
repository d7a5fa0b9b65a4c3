//! Small sorted sets and maps, and a sort, which cost a user's build little.
//!
//! The compiler makes each generic function anew for each type, unoptimized and with debug info, in the build of each user. One more type
//! costs 7,000 lines of LLVM's language for a `BTreeMap`, 2,500 for a `sort`, and 300 for what is here. Keys lie in a vector, in order: to
//! insert one is slow in sets of many thousands, where a `BTreeMap` is worth its price.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::mem;

/// Sorts like `slice::sort_by`: what is equal keeps its order. Only positions are sorted, so that one sort is compiled for all types.
pub(crate) fn sort_by<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let mut from = positions(items.len(), &|a, b| compare(&items[a], &items[b]));
    for at in 0..from.len() {
        // An earlier swap may have moved what belongs here. The swaps lead to it.
        let mut source = from[at];
        while source < at {
            source = from[source];
        }
        from[at] = source;
        items.swap(at, source);
    }
}

/// Sorts like `slice::sort`.
pub(crate) fn sort<T: Ord>(items: &mut [T]) {
    sort_by(items, T::cmp);
}

/// The positions of items, in the order of the items.
fn positions(len: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut positions = Vec::with_capacity(len);
    positions.extend(0..len);
    positions.sort_unstable_by(|a, b| compare(*a, *b).then(a.cmp(b)));
    positions
}

/// A set in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set<K>(Vec<K>);

impl<K: Ord> Set<K> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Where `key` is, or where it would be.
    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        // Keys often come in order.
        if self.0.last().is_none_or(|last| last.borrow() < key) {
            return Err(self.0.len());
        }
        let (mut low, mut high) = (0, self.0.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.0[middle].borrow().cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Inserts `key`. Returns whether it is new.
    pub(crate) fn insert(&mut self, key: K) -> bool {
        match self.place(&key) {
            Ok(_) => false,
            Err(at) => {
                self.0.insert(at, key);
                true
            }
        }
    }

    /// Whether it was there.
    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        let place = self.place(key);
        place.map(|at| drop(self.0.remove(at))).is_ok()
    }

    pub(crate) fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.place(key).is_ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, K> {
        self.0.iter()
    }
}

impl<K: Ord> Default for Set<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord> Extend<K> for Set<K> {
    fn extend<I: IntoIterator<Item = K>>(&mut self, keys: I) {
        for key in keys {
            self.insert(key);
        }
    }
}

impl<K: Ord> FromIterator<K> for Set<K> {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        let mut set = Self::new();
        set.extend(keys);
        set
    }
}

impl<K: Ord, const N: usize> From<[K; N]> for Set<K> {
    fn from(keys: [K; N]) -> Self {
        keys.into_iter().collect()
    }
}

impl<K> IntoIterator for Set<K> {
    type Item = K;
    type IntoIter = std::vec::IntoIter<K>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// A map in the order of its keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Map<K, V> {
    keys: Set<K>,
    /// Those of the keys, in their order.
    values: Vec<V>,
}

impl<K: Ord, V> Map<K, V> {
    pub(crate) const fn new() -> Self {
        Self { keys: Set::new(), values: Vec::new() }
    }

    /// Of pairs in any order, also of many thousands: it takes as long as a sort. Of pairs with the same key, the last counts.
    pub(crate) fn of(mut pairs: Vec<(K, V)>) -> Self {
        sort_by(&mut pairs, |(a, _), (b, _)| a.cmp(b));
        let (mut keys, mut values) = (Vec::with_capacity(pairs.len()), Vec::with_capacity(pairs.len()));
        for (key, value) in pairs {
            if keys.last() == Some(&key) {
                values.pop();
            } else {
                keys.push(key);
            }
            values.push(value);
        }
        Self { keys: Set(keys), values }
    }

    /// Returns the value that was there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.keys.place(&key) {
            Ok(at) => Some(mem::replace(&mut self.values[at], value)),
            Err(at) => {
                self.keys.0.insert(at, key);
                self.values.insert(at, value);
                None
            }
        }
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let place = self.keys.place(key);
        place.ok().map(|at| &self.values[at])
    }

    /// The value of `key`: what `make` makes if there is none.
    pub(crate) fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let at = match self.keys.place(&key) {
            Ok(at) => at,
            Err(at) => {
                self.keys.0.insert(at, key);
                self.values.insert(at, make());
                at
            }
        };
        &mut self.values[at]
    }

    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.keys.place(key).ok()?;
        self.keys.0.remove(at);
        Some(self.values.remove(at))
    }

    pub(crate) fn keys(&self) -> std::slice::Iter<'_, K> {
        self.keys.iter()
    }

    pub(crate) fn values(&self) -> std::slice::Iter<'_, V> {
        self.values.iter()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.keys.iter().zip(&self.values)
    }
}

impl<K: Ord, V> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use fastrand::Rng;

    use super::*;

    #[test]
    fn sorts_like_the_standard_library() {
        let mut rng = Rng::with_seed(1);
        for len in (0..40).chain([1000]) {
            let mut items: Vec<_> = (0..len).map(|at| (rng.u8(..8), at)).collect();
            let mut expected = items.clone();
            expected.sort_by_key(|(key, _)| *key);
            sort_by(&mut items, |a, b| a.0.cmp(&b.0));
            assert_eq!(items, expected, "what is equal keeps its order");
            sort_by(&mut items, |a, b| b.cmp(a));
            expected.sort_by(|a, b| b.cmp(a));
            assert_eq!(items, expected);
        }
    }

    #[test]
    fn sets_and_maps_are_like_those_of_the_standard_library() {
        let mut rng = Rng::with_seed(2);
        let (mut set, mut expected_set) = (Set::new(), BTreeSet::new());
        let (mut map, mut expected) = (Map::new(), BTreeMap::new());
        for round in 0..5000 {
            let key = rng.u8(..64);
            match rng.u8(..3) {
                0 => {
                    assert_eq!(set.insert(key), expected_set.insert(key));
                    assert_eq!(map.insert(key, round), expected.insert(key, round));
                }
                1 => {
                    assert_eq!(set.remove(&key), expected_set.remove(&key));
                    assert_eq!(map.remove(&key), expected.remove(&key));
                }
                _ => assert_eq!(map.get_or_insert_with(key, || round), expected.entry(key).or_insert(round)),
            }
            let key = rng.u8(..64);
            assert_eq!(set.contains(&key), expected_set.contains(&key));
            assert_eq!(map.get(&key), expected.get(&key));
            assert!(set.iter().eq(&expected_set) && map.iter().eq(&expected) && map.values().eq(expected.values()));
        }
        let mut pairs: Vec<_> = map.iter().map(|(key, value)| (*key, *value)).collect();
        rng.shuffle(&mut pairs);
        let (key, _) = pairs[0];
        pairs.push((key, 7));
        map.insert(key, 7);
        assert_eq!(Map::of(pairs), map);
        assert_eq!(Map::of(Vec::new()), Map::<u8, u8>::new());
    }
}
