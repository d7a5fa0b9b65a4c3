//! The file system of a sandbox: what it is made of, how it is made, and what has changed in it.
//!
//! | file | which process | what |
//! | --- | --- | --- |
//! | [context] | zygote, template | what the host is like |
//! | [stage] | template | the host's tree, read-only, and what else inits find |
//! | `read_only` | template | makes the host's mounts read-only |
//! | [sysctl] | zygote, template | what `/proc/sys` is in sandboxes |
//! | [plan] | template | the list of operations that make a root |
//! | [build] | init | carries them out |
//! | `paths` | all of them | paths of the host, and paths in the sandbox |
//! | [left] | test binary, template | what preparations have left |
//! | `merged` | test binary, template | directories that lie one over another |
//! | [diff] | test binary | what has changed in a copy |
//! | [unpacked] | test binary, zygote, template | an image in a directory |
//! | `image_directory` | test binary, zygote | that directory, with the feature `images` |
//! | [access] | test binary, zygote | which directories root of a sandbox can't enter |

pub(crate) mod access;
pub(crate) mod build;
pub(crate) mod context;
pub(crate) mod diff;
#[cfg(feature = "images")]
pub(crate) mod image_directory;
pub(crate) mod left;
mod merged;
pub(crate) mod paths;
pub(crate) mod plan;
mod read_only;
pub(crate) mod stage;
pub(crate) mod sysctl;
#[cfg_attr(not(feature = "images"), path = "absent/unpacked.rs")]
pub(crate) mod unpacked;
