//! Templates of rstest_reuse: what applies one is isolated, or all that do.

use std::fs;

use belljar::isolated;
use rstest::rstest;
use rstest_reuse::{self, apply, template};

fn claim(number: u32) {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    fs::File::create_new("/etc/claimed").expect("nobody was here");
    assert!(number > 0);
}

#[template]
#[rstest]
#[case(1)]
#[case(2)]
fn numbers(#[case] number: u32) {}

#[apply(numbers)]
#[isolated]
fn above(number: u32) {
    claim(number);
}

#[apply(numbers)]
#[case(3)]
#[isolated(mount)]
fn above_with_one_more_case(number: u32) {
    claim(number);
}

#[template]
#[rstest]
#[case(1)]
#[case(2)]
#[isolated]
fn isolated_numbers(#[case] number: u32) {}

#[apply(isolated_numbers)]
fn by_the_template(number: u32) {
    claim(number);
}

#[cfg(feature = "refused")]
mod refused {
    use super::{apply, claim, isolated, numbers, rstest, template};

    #[isolated]
    #[template]
    #[rstest]
    #[case(1)]
    fn above_a_template(#[case] number: u32) {}

    #[apply(numbers)]
    #[isolated]
    #[case(3)]
    fn above_one_more_case(number: u32) {
        claim(number);
    }

    #[isolated]
    #[apply(numbers)]
    fn above_what_applies(number: u32) {
        claim(number);
    }
}

#[isolated]
mod of_a_module {
    use super::*;

    #[apply(numbers)]
    fn by_a_template(number: u32) {
        claim(number);
    }
}
