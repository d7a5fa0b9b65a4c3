//! Tests that test-with ignores if something is missing: it looks when they are compiled, outside of the sandbox.

use belljar::isolated;

fn assert_isolated() {
    assert_eq!(std::os::unix::process::parent_id(), 1);
}

#[test_with::env(PATH)]
#[isolated]
fn above() {
    assert_isolated();
}

#[isolated]
#[test_with::env(PATH)]
fn below() {
    assert_isolated();
}

#[test_with::env(PATH)]
#[test]
#[isolated]
fn above_with_test() {
    assert_isolated();
}

#[isolated]
#[test_with::path(/)]
#[test]
fn below_with_test() {
    assert_isolated();
}

#[test_with::env(PATH)]
#[isolated]
#[test]
fn around() {
    assert_isolated();
}

#[test_with::env(BELLJAR_HAS_NO_SUCH_VARIABLE)]
#[isolated]
fn ignored_above() {
    unreachable!();
}

#[isolated]
#[test_with::env(BELLJAR_HAS_NO_SUCH_VARIABLE)]
fn ignored_below() {
    unreachable!();
}

// test-with writes the path of its lock into the test. Cargo builds this file again if that path is another one now.
const _: Option<&str> = option_env!("TMPDIR");

/// The lock is a file of the host's.
#[isolated]
#[test_with::lock(belljar_beside_test_with)]
fn below_a_lock() {
    assert_isolated();
}

#[isolated]
mod of_a_module {
    #[test_with::env(PATH)]
    #[test]
    fn plain() {
        super::assert_isolated();
    }
}
