//! Tells what this machine lets belljar's sandboxes have, and what to do about the rest.
//!
//! `cargo run -p belljar-examples --example doctor`; with `-- --json`, for programs.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let diagnosis = belljar::doctor();
    if env::args().skip(1).any(|argument| argument == "--json") {
        println!("{}", diagnosis.to_json());
    } else {
        print!("{diagnosis}");
    }
    if diagnosis.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
