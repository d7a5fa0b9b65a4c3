//! The Rust of `docs/images.md`. It is compiled, and not run: nobody has these images.

use belljar::{isolated, prepared};

#[isolated(root = "oci:tests/images:debian")]
fn is_debian() {
    assert!(std::fs::read_to_string("/etc/os-release").unwrap().contains("bookworm"));
}

fn initdb(directory: &str) -> std::io::Result<()> {
    let status = std::process::Command::new("initdb").arg(directory).status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(status.to_string())) }
}

#[prepared(root = "oci:tests/images:postgres", user = 999, timeout = "60s")]
fn database() -> std::io::Result<()> {
    initdb("/var/lib/postgresql/data")
}

#[isolated(from = database, user = 999)]
fn has_its_own_server() { /* starts it on localhost:5432 */
}
