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
//! | `process` | what an image says of its processes |
//! | `layer` | unpacks a layer |
//! | `error` | why unpacking fails |
//! | `tree` | the directory that an image is unpacked to: no path leads out of it |
//!
//! Formats: the [image layout](https://github.com/opencontainers/image-spec/blob/main/image-layout.md) and the
//! [layers](https://github.com/opencontainers/image-spec/blob/main/layer.md) of OCI, and tar(5).

mod archive;
mod error;
mod layer;
mod manifest;
mod process;
mod source;
mod store;
mod tree;
mod unpack;

pub(crate) use error::ImageError;
pub(crate) use layer::Lost;
pub(crate) use store::{Image, forget_unknown, hold, image};
