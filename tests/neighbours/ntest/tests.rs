//! Cases of ntest: what stands below one of them is for that case alone.

use std::fs;

use belljar::isolated;
use ntest::{test_case, timeout};

fn claim(number: u32) {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    fs::File::create_new("/etc/claimed").expect("nobody was here");
    assert!(number > 0);
}

#[test_case(1)]
#[isolated]
fn one_case(number: u32) {
    claim(number);
}

#[test_case(1)]
#[isolated]
#[test_case(2)]
#[isolated(mount)]
fn each_case(number: u32) {
    claim(number);
}

#[test]
#[timeout(60_000)]
#[isolated]
fn timeout_above() {
    claim(1);
}

#[isolated]
#[timeout(60_000)]
fn timeout_below() {
    claim(1);
}

#[cfg(feature = "refused")]
mod refused {
    use super::{isolated, test_case};

    #[test_case(1)]
    #[test_case(2)]
    #[isolated]
    fn below_the_last_case(number: u32) {
        super::claim(number);
    }

    #[test_case(1)]
    #[isolated]
    #[test_case(2)]
    fn below_the_first_case(number: u32) {
        super::claim(number);
    }
}
