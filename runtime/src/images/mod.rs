//! Images as roots, with the feature `images`: they are unpacked below the target directory, once for each version. All of this happens in the
//! test binary, before a sandbox is asked for.
//!
//! | file | what |
//! | --- | --- |
//! | `store` | where what was unpacked lies, and who may use and remove it |
//! | `source` | what an argument of the attribute names |
//! | `archive` | files in a layout of OCI, or in an archive |
//! | `manifest` | which layers an image has |
//! | `unpack` | unpacks an image |
//! | `process` | what it says of its processes |
//! | `layer` | unpacks a layer |
//! | `tree` | the directory that it is unpacked to, which nothing leads out of |
//!
//! Formats: the [image layout](https://github.com/opencontainers/image-spec/blob/main/image-layout.md) and the
//! [layers](https://github.com/opencontainers/image-spec/blob/main/layer.md) of OCI, and tar(5).

mod archive;
mod layer;
mod manifest;
mod process;
mod source;
mod store;
mod tree;
mod unpack;

use std::fmt::{self, Display, Formatter};
use std::io;

pub(crate) use store::{Image, image};

/// Why an image can't be unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What it is about: a file of the host, or an entry of a layer. It may be nothing.
    what: String,
    why: String,
}

impl Trouble {
    fn new(what: impl Display, why: impl Display) -> Self {
        Self { what: what.to_string(), why: why.to_string() }
    }

    /// For `map_err`.
    fn at(what: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::new(what, error)
    }
}

impl Display for Trouble {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { what, why } = self;
        if what.is_empty() { f.write_str(why) } else { write!(f, "`{what}`: {why}") }
    }
}
