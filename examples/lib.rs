//! Tests of published crates that change the machine they run on: one file for each.
//!
//! Run them with `cargo test -p belljar-examples`, as root or not.
