//! Tests of googletest, which go on after an expectation that is not met.

use belljar::isolated;
use googletest::prelude::*;

#[gtest]
#[isolated]
fn above() {
    expect_that!(std::os::unix::process::parent_id(), eq(1));
}

#[isolated]
#[gtest]
fn below() -> googletest::Result<()> {
    verify_that!(std::os::unix::process::parent_id(), eq(1))
}

#[isolated]
#[gtest]
#[should_panic]
fn below_and_not_met() {
    expect_that!(std::os::unix::process::parent_id(), eq(2));
}

#[gtest]
#[should_panic]
#[isolated]
fn above_and_not_met() {
    expect_that!(std::os::unix::process::parent_id(), eq(2));
}

#[isolated]
mod of_a_module {
    use super::*;

    #[gtest]
    fn plain() {
        expect_that!(std::os::unix::process::parent_id(), eq(1));
    }
}
