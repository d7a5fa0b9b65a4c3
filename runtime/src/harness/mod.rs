//! In the test binary: what happens between the harness's call of a test and its verdict.

mod bad_settings;
pub(crate) mod bytes;
#[cfg_attr(not(feature = "net"), path = "absent/captures.rs")]
mod captures;
pub(crate) mod doctor;
mod evidence;
pub(crate) mod forks;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
mod hints;
#[cfg(feature = "images")]
mod image;
mod judge;
mod keep_failed;
#[cfg_attr(not(feature = "net"), path = "absent/kept_host.rs")]
mod kept_host;
pub(crate) mod listed_twice;
mod output;
pub(crate) mod pool;
mod prepared;
pub(crate) mod processes;
mod program;
mod replies;
pub(crate) mod report;
mod run;
mod run_by;
mod sandbox;
mod shared;
mod slots;
pub(crate) mod spare;
#[cfg_attr(not(feature = "faults"), path = "absent/supervisor.rs")]
mod supervisor;
mod time;
pub(crate) mod trace;
pub(crate) mod unsupported;
mod words;

pub(crate) use program::main;
pub use run::run;
