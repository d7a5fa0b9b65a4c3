//! Causes that are not certain.

use std::fmt::{self, Display, Formatter};

use crate::diagnosis::Cause;

/// A cause, where it is not certain.
pub(super) struct MayBe<'c>(pub(super) &'c Cause);

impl Display for MayBe<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(Cause { why, seen, remedy }) = self;
        write!(f, "It may be that {why}: {seen}. The remedy: {remedy}.")
    }
}
