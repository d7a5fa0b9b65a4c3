//! Compiler errors: the compiler runs in the sandbox, and so does what Cargo asks it for.

use belljar::isolated;

/// What it builds goes to a target directory of the sandbox's own.
#[isolated(env = ["CARGO_TARGET_DIR=/tmp/target", "CARGO_NET_OFFLINE=true"])]
fn errors() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("ui/mismatch.rs");
    cases.pass("ui/fine.rs");
}
