//! Benches of divan, each round of which is in a sandbox of its own. As a test, each bench has one round.

use belljar::{Spec, run, spec};

static SPEC: Spec = spec!(net, timeout = "60s");

fn main() {
    divan::main();
}

fn claim(input: &[u8]) -> std::io::Result<Vec<u8>> {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    // Whoever shares the sandbox has this port already.
    std::net::TcpListener::bind("0.0.0.0:80")?;
    Ok(input.to_vec())
}

#[divan::bench]
fn one() -> Vec<u8> {
    run(&SPEC, b"one", claim).expect("it passes")
}

#[divan::bench(args = ["a", "b"])]
fn two(argument: &str) -> Vec<u8> {
    run(&SPEC, argument.as_bytes(), claim).expect("it passes")
}
