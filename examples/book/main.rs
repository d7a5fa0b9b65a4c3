//! The Rust of README.md and of the pages in `docs/`, which `tests/tests/pages.rs` compares line for line: a module for each page.
//!
//! What pages show stands at the left margin in these files.

mod daemon;
mod failing;
mod faults;
mod first;
mod guide;
mod limits;
mod preparations;
mod readme;
mod two_hosts;
mod users;
