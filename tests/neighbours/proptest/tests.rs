//! Properties: all cases of one run in one sandbox.

use std::fs;

use belljar::isolated;
use proptest::prelude::*;
use proptest::property_test;

/// Counts the cases, in the sandbox.
fn count(case: u8) {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    let cases = fs::read_to_string("/etc/cases").unwrap_or_default();
    fs::write("/etc/cases", format!("{cases}{case}\n")).expect("write");
}

proptest! {
    #[isolated]
    #[test]
    fn in_the_macro_above(case in 0..9_u8) {
        count(case);
    }

    #[test]
    #[isolated]
    fn in_the_macro_below(case in 0..9_u8) {
        count(case);
    }

    /// It makes a test by itself.
    #[isolated]
    fn in_the_macro_alone(case in 0..9_u8) {
        count(case);
    }
}

#[test_strategy::proptest]
#[isolated]
fn with_a_strategy_above(#[strategy(0..9_u8)] case: u8) {
    count(case);
}

#[isolated]
#[test_strategy::proptest]
fn with_a_strategy_below(#[strategy(0..9_u8)] case: u8) {
    count(case);
}

#[isolated]
#[property_test]
fn with_an_attribute_below(#[strategy = 0..9_u8] case: u8) {
    count(case);
}

#[property_test]
#[isolated]
fn with_an_attribute_above(#[strategy = 0..9_u8] case: u8) {
    count(case);
}

#[isolated]
mod of_a_module {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn in_the_macro(case in 0..9_u8) {
            count(case);
        }

        #[test]
        #[isolated(hostname = "own")]
        fn in_the_macro_with_its_own(case in 0..9_u8) {
            count(case);
        }
    }

    #[property_test]
    fn with_an_attribute(#[strategy = 0..9_u8] case: u8) {
        count(case);
    }
}
