//! Steps of cucumber that run in sandboxes of their own.

use belljar::{Spec, run, spec};
use cucumber::{World, then, when};

static SPEC: Spec = spec!(net, timeout = "60s");

#[derive(Debug, Default, World)]
struct Server {
    said: Vec<u8>,
}

fn claim(input: &[u8]) -> std::io::Result<Vec<u8>> {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    // Whoever shares the sandbox has this port already.
    std::net::TcpListener::bind("0.0.0.0:80")?;
    Ok(input.to_vec())
}

#[when("a server has port 80")]
fn has_port(server: &mut Server) {
    server.said = run(&SPEC, b"one", claim).expect("it passes");
}

#[then(expr = "it has said {string}")]
fn has_said(server: &mut Server, text: String) {
    assert_eq!(server.said, text.as_bytes());
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(Server::cucumber().fail_on_skipped().run_and_exit("features"));
}
