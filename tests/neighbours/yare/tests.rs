//! Cases of yare: each is a test, in a sandbox of its own.

use std::fs;

use belljar::isolated;
use yare::parameterized;

fn claim(number: u32) -> u32 {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    fs::File::create_new("/etc/claimed").expect("nobody was here");
    number
}

#[parameterized(one = { 1 }, two = { 2 })]
#[isolated]
fn above(number: u32) {
    claim(number);
}

#[isolated]
#[parameterized(one = { 1 }, two = { 2 })]
fn below(number: u32) {
    claim(number);
}

#[isolated]
#[parameterized(one = { 1 })]
fn below_with_a_result(number: u32) -> Result<(), String> {
    claim(number);
    Ok(())
}

#[parameterized(one = { 1 }, two = { 2 })]
#[test_macro(tokio::test)]
#[isolated]
async fn async_above(number: u32) {
    tokio::task::yield_now().await;
    claim(number);
}

#[isolated]
#[parameterized(one = { 1 }, two = { 2 })]
#[test_macro(tokio::test)]
async fn async_below(number: u32) {
    tokio::task::yield_now().await;
    claim(number);
}

#[isolated]
mod of_a_module {
    use super::*;

    #[parameterized(one = { 1 }, two = { 2 })]
    fn cases(number: u32) {
        claim(number);
    }
}
