//! Iterators into vectors, which cost a user's build little.
//!
//! The compiler makes each generic function anew for each type, unoptimized and with debug info, in the build of each user. `collect` of the
//! standard library reserves room, and has a way of its own for each kind of iterator: with a chain of adapters, that is 300 to 2,500 lines of
//! LLVM's language. `collect_vec` has 80, and those of the iterator's own `next`.
#![expect(clippy::while_let_on_iterator, reason = "`for` takes a third more lines of LLVM's language")]

pub(crate) trait CollectVec: Iterator + Sized {
    /// Like `collect` into a vector.
    fn collect_vec(mut self) -> Vec<Self::Item> {
        let mut items = Vec::new();
        while let Some(item) = self.next() {
            items.push(item);
        }
        items
    }

    /// Like `collect` into a result with a vector.
    fn try_collect_vec<T, E>(mut self) -> Result<Vec<T>, E>
    where
        Self: Iterator<Item = Result<T, E>>,
    {
        let mut items = Vec::new();
        while let Some(item) = self.next() {
            items.push(item?);
        }
        Ok(items)
    }
}

impl<I: Iterator> CollectVec for I {}

/// Like `map` of an array of two. For each type, that of the standard library is 330 lines of LLVM's language.
pub(crate) fn map_both<T, U>([one, other]: [T; 2], mut of: impl FnMut(T) -> U) -> [U; 2] {
    [of(one), of(other)]
}
