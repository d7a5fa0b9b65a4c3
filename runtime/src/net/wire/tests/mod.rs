//! Tests of what the wire decides, without the process: frames are made and read by etherparse, which is somebody else's.

mod captures;
mod decisions;
mod flows;
mod frames;
mod reading;

/// How often a test of chance is to be repeated: as often as the environment says.
fn rounds() -> u64 {
    let rounds = std::env::var_os("BELLJAR_TESTS_ROUNDS");
    rounds.map_or(1, |rounds| rounds.to_str().and_then(|rounds| rounds.parse().ok()).expect("a number"))
}
