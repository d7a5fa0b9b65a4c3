//! Building and running the fixture in `bodies/`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where what is built for `purpose` goes.
pub(crate) fn target(purpose: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("bodies").join(purpose)
}

pub(crate) fn triple() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

/// Cargo, on the bodies. What this run was told about its own build is not for that one.
pub(crate) fn cargo(subcommand: &[&str], target: &Path, is_isolated: bool, runner: Option<&str>) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in env::vars_os() {
        let is_of_this_build =
            ["CARGO_TARGET_", "RUSTFLAGS", "CARGO_ENCODED", "LLVM_PROFILE", "NEXTEST", "BELLJAR_", "RUST_TEST"];
        if is_of_this_build.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/bodies")).args(subcommand).env("CARGO_TARGET_DIR", target);
    cargo.args(is_isolated.then_some("--features=isolated"));
    if let Some(runner) = runner {
        let triple = triple().to_uppercase().replace('-', "_");
        cargo.env(format!("CARGO_TARGET_{triple}_RUNNER"), runner);
    }
    cargo
}
