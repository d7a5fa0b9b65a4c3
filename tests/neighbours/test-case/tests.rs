//! Cases of test-case: each is a test, in a sandbox of its own.

use std::fs;

use belljar::isolated;
use test_case::{test_case, test_matrix};

fn claim(number: u32) -> u32 {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    fs::File::create_new("/etc/claimed").expect("nobody was here");
    number
}

#[test_case(1)]
#[test_case(2; "two")]
#[isolated]
fn above(number: u32) {
    claim(number);
}

#[isolated]
#[test_case(1)]
#[test_case(2; "two")]
fn below(number: u32) {
    claim(number);
}

#[test_case(1)]
#[isolated]
#[test_case(2)]
fn around(number: u32) {
    claim(number);
}

#[test_case(1 => 1)]
#[test_case(2 => panics "on purpose")]
#[isolated]
fn results_above(number: u32) -> u32 {
    assert!(number < 2, "on purpose");
    claim(number)
}

#[isolated]
#[test_case(1 => 1)]
#[test_case(2 => panics "on purpose")]
fn results_below(number: u32) -> u32 {
    assert!(number < 2, "on purpose");
    claim(number)
}

#[test_matrix([1, 2], [3, 4])]
#[isolated]
fn matrix_above(a: u32, b: u32) {
    claim(a + b);
}

#[isolated]
#[test_matrix([1, 2], [3, 4])]
fn matrix_below(a: u32, b: u32) {
    claim(a + b);
}

#[test_case(1)]
#[tokio::test]
#[isolated]
async fn async_above(number: u32) {
    tokio::task::yield_now().await;
    claim(number);
}

#[isolated]
#[test_case(1)]
#[tokio::test]
async fn async_below(number: u32) {
    tokio::task::yield_now().await;
    claim(number);
}

#[isolated]
mod of_a_module {
    use super::{claim, test_case, test_matrix};

    #[test_case(1)]
    #[test_case(2; "two")]
    fn cases(number: u32) {
        claim(number);
    }

    #[test_case(1 => 1)]
    #[test_case(2 => panics "on purpose")]
    fn results(number: u32) -> u32 {
        assert!(number < 2, "on purpose");
        claim(number)
    }

    #[test_matrix([1, 2])]
    fn matrix(number: u32) {
        claim(number);
    }
}
