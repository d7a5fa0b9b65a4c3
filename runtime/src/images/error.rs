//! Why an image can't be unpacked.

use std::fmt::{self, Display, Formatter};
use std::io;

/// Why an image can't be unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageError {
    /// What it is about: a file of the host, or an entry of a layer. It may be nothing.
    what: String,
    why: String,
}

impl ImageError {
    pub(super) fn new(what: impl Display, why: impl Display) -> Self {
        Self { what: what.to_string(), why: why.to_string() }
    }

    /// For `map_err`.
    pub(super) fn at(what: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::new(what, error)
    }
}

impl Display for ImageError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { what, why } = self;
        if what.is_empty() { f.write_str(why) } else { write!(f, "`{what}`: {why}") }
    }
}
