//! A program whose `main` runs in a sandbox: `cargo run -p belljar-examples --example program`.

use belljar::isolated;

#[isolated(net, timeout = "30s")]
fn main() -> std::io::Result<()> {
    let server = std::net::TcpListener::bind("0.0.0.0:80")?;
    println!("port 80, as an ordinary user: {}", server.local_addr()?);
    Ok(())
}
