//! Cases of parameterized: each is a test, in a sandbox of its own.

use std::fs;

use belljar::isolated;
use parameterized::parameterized;

fn claim(number: u32) {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    fs::File::create_new("/etc/claimed").expect("nobody was here");
    assert!(number > 0);
}

#[parameterized(number = { 1, 2 })]
#[isolated]
fn above(number: u32) {
    claim(number);
}

#[isolated]
#[parameterized(number = { 1, 2 })]
fn below(number: u32) {
    claim(number);
}

#[parameterized(number = { 1, 2 })]
#[parameterized_macro(tokio::test)]
#[isolated]
async fn async_above(number: u32) {
    tokio::task::yield_now().await;
    claim(number);
}

#[isolated]
#[parameterized(number = { 1, 2 })]
#[parameterized_macro(tokio::test)]
async fn async_below(number: u32) {
    tokio::task::yield_now().await;
    claim(number);
}

#[isolated]
mod of_a_module {
    use super::{claim, parameterized};

    #[parameterized(number = { 1, 2 })]
    fn plain(number: u32) {
        claim(number);
    }
}
