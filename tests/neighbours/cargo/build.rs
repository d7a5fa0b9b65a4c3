//! Writes a file for the tests.

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let directory = std::env::var_os("OUT_DIR").unwrap_or_default();
    std::fs::write(std::path::Path::new(&directory).join("generated"), "generated")
}
