//! Read by Clippy, which `compile` runs: it finds as much in an isolated test as in any other.
#![warn(clippy::arithmetic_side_effects, clippy::tests_outside_test_module)]

use belljar::isolated;

fn five() -> i32 {
    std::hint::black_box(5)
}

/// The twin: outside of tests, arithmetic is told.
pub fn no_test() {
    assert!(five() + five() > 0);
}

#[test]
fn plain() {
    assert!(five() + five() > 0);
}

#[isolated]
fn by_itself() {
    assert!(five() + five() > 0);
}

#[isolated]
#[test]
fn above_test() -> Result<(), String> {
    assert!(five() + five() > 0);
    Ok(())
}

#[test]
#[isolated(net)]
pub fn below_test() {
    assert!(five() + five() > 0);
}

#[cfg(test)]
mod tests {
    use super::{five, isolated};

    #[test]
    fn plain() {
        assert!(five() - five() == 0);
    }

    #[isolated]
    fn by_itself() {
        assert!(five() - five() == 0);
    }
}
