//! Properties that quickcheck tries with many values: all of them in one sandbox.

use belljar::isolated;
use quickcheck_macros::quickcheck;

fn is_isolated() -> bool {
    std::os::unix::process::parent_id() == 1
}

#[quickcheck]
#[isolated]
fn above(numbers: Vec<u32>) -> bool {
    is_isolated() && numbers.iter().rev().rev().eq(numbers.iter())
}

#[isolated]
#[quickcheck]
fn below(numbers: Vec<u32>) -> bool {
    is_isolated() && numbers.iter().rev().rev().eq(numbers.iter())
}

#[isolated]
#[quickcheck]
#[should_panic(expected = "TEST FAILED")]
fn that_does_not_hold(number: u8) -> bool {
    assert!(is_isolated());
    number > u8::MAX / 2
}

#[isolated]
fn without_the_attribute() {
    quickcheck::quickcheck(is_isolated as fn() -> bool);
}

#[isolated]
mod of_a_module {
    use super::{is_isolated, quickcheck};

    #[quickcheck]
    fn holds(numbers: Vec<u8>) -> bool {
        is_isolated() && numbers.len() < 1000
    }
}
