//! Words of the kernel, the environment and others.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| belljar::fuzzed::texts(input));
