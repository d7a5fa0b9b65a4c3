//! Messages between the processes of belljar.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| belljar::fuzzed::messages(input));
