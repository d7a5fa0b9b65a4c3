//! What Cargo promises to tests by the environment.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use belljar::isolated;

/// Whether `path` can't be written to.
fn is_read_only(path: &Path) -> bool {
    let error = fs::write(path.join("new"), "").expect_err("read-only");
    error.kind() == std::io::ErrorKind::ReadOnlyFilesystem
}

#[isolated]
fn the_package() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(env::var_os("CARGO_MANIFEST_DIR").as_deref(), Some(package.as_os_str()));
    assert_eq!(env::current_dir().expect("a directory"), package);
    assert!(fs::read_to_string(package.join("tests.rs")).expect("this file").contains("fn the_package"));
    assert!(Path::new("../Cargo.lock").is_file());
    assert!(is_read_only(package));
}

/// The workspace is a part of it. `run` says whether this is one: the sources may have come without it.
#[isolated]
fn the_repository() {
    let is_repository = env::var_os("BELLJAR_TESTS_REPOSITORY").is_some_and(|value| value == "yes");
    assert_eq!(Path::new("../../../README.md").is_file(), is_repository);
}

#[isolated]
fn what_was_generated() {
    assert_eq!(include_str!(concat!(env!("OUT_DIR"), "/generated")), "generated");
    let directory = Path::new(env!("OUT_DIR"));
    assert_eq!(fs::read_to_string(directory.join("generated")).expect("a file"), "generated");
    assert!(is_read_only(directory));
}

#[isolated(hostname = "jar")]
fn the_binary() {
    let output = Command::new(env!("CARGO_BIN_EXE_cargo-hostname")).output().expect("it runs");
    assert_eq!(output.stdout, b"jar\n");
}

#[isolated]
fn the_temporary_directory() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    assert_eq!(fs::read_dir(directory).expect("a directory").count(), 0);
    fs::write(directory.join("new"), "").expect("write");
}

#[isolated]
fn cargo_itself() {
    let output = Command::new(env::var_os("CARGO").expect("Cargo"))
        .args(["metadata", "--offline", "--no-deps", "--format-version=1"])
        .output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("beside-cargo"));
}
