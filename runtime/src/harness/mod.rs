//! In the test binary: what happens between the harness's call of a test and its verdict.

mod answers;
pub(crate) mod doctor;
mod evidence;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
mod hints;
mod judge;
mod keep_failed;
pub(crate) mod listed_twice;
mod mistakes;
mod output;
pub(crate) mod prepared;
mod processes;
pub(crate) mod report;
mod run;
mod sandbox;
pub(crate) mod skip;
mod time;
pub(crate) mod trace;
mod turns;
mod words;

pub use run::run;
