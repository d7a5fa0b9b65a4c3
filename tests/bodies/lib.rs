//! What the bodies run.

/// Goes round `n` times, and two ways.
pub fn collatz(mut n: u64) -> u32 {
    let mut steps = 0;
    while n != 1 {
        n = if n & 1 == 0 { n / 2 } else { 3 * n + 1 };
        steps += 1;
    }
    steps
}

/// Is run by a body that does not come to its end.
pub fn before_the_end() -> u32 {
    collatz(27)
}

/// Is run by nobody.
pub fn nobody() -> u32 {
    collatz(1)
}
