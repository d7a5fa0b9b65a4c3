//! Runs a command in a sandbox: `cargo run -p belljar-examples --example sandboxed -- ip addr`.

use std::env;
use std::process::{Command, ExitCode};

use belljar::isolated;

#[isolated]
fn main() -> ExitCode {
    let mut words = env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("usage: sandboxed COMMAND [ARGUMENT ..]");
        return ExitCode::from(2);
    };
    match Command::new(&program).args(words).status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("sandboxed: {}: {error}", program.to_string_lossy());
            ExitCode::from(127)
        }
    }
}
