//! Cases, fixtures and values of rstest: each is a test, in a sandbox of its own.

use std::fs;
use std::time::Duration;

use belljar::isolated;
use rstest::{fixture, rstest};

/// Whatever a case has left here is seen by the next one, if they share a sandbox.
fn claim(name: &str) {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    fs::File::create_new("/etc/claimed").expect("nobody was here");
    fs::write("/etc/claimed", name).expect("write");
}

#[fixture]
fn name() -> String {
    // Made inside.
    claim("fixture");
    fs::read_to_string("/etc/claimed").expect("read")
}

#[rstest]
#[case(1)]
#[case::two(2)]
#[isolated]
fn cases_above(#[case] number: u32) {
    claim(&number.to_string());
}

#[isolated]
#[rstest]
#[case(1)]
#[case::two(2)]
fn cases_below(#[case] number: u32) {
    claim(&number.to_string());
}

#[rstest]
#[isolated(mount)]
fn fixture_above(name: String) {
    assert_eq!(name, "fixture");
}

#[isolated(mount)]
#[rstest]
fn fixture_below(name: String) {
    assert_eq!(name, "fixture");
}

#[rstest]
#[isolated]
fn values_above(#[values(1, 2)] a: u32, #[values("x", "y")] b: &str) {
    claim(&format!("{a}{b}"));
}

#[isolated]
#[rstest]
fn values_below(#[values(1, 2)] a: u32, #[values("x", "y")] b: &str) {
    claim(&format!("{a}{b}"));
}

#[rstest]
#[timeout(Duration::from_secs(60))]
#[isolated]
fn timeout_above(name: String) {
    assert_eq!(name, "fixture");
}

#[isolated]
#[rstest]
#[timeout(Duration::from_secs(60))]
fn timeout_below(#[values(1, 2)] number: u32) {
    claim(&number.to_string());
}

/// The time is up, and what still runs is gone with the sandbox.
#[isolated]
#[rstest]
#[timeout(Duration::from_millis(50))]
#[should_panic(expected = "Timeout")]
fn timeout_that_is_up() {
    std::thread::sleep(Duration::from_secs(1000));
}

#[rstest]
#[case(1)]
#[case(2)]
#[tokio::test]
#[isolated]
async fn async_above(#[case] number: u32) {
    tokio::task::yield_now().await;
    claim(&number.to_string());
}

#[isolated]
#[rstest]
#[case(1)]
#[case(2)]
#[tokio::test(flavor = "multi_thread")]
async fn async_below(#[case] number: u32) {
    tokio::task::yield_now().await;
    claim(&number.to_string());
}

#[rstest]
#[case(1)]
#[isolated]
#[tokio::test]
async fn async_around(#[case] number: u32) {
    tokio::task::yield_now().await;
    claim(&number.to_string());
}

/// What stands before a case is for that one alone.
#[isolated]
#[rstest]
#[case(1)]
#[should_panic(expected = "number 2")]
#[case(2)]
fn that_panic(#[case] number: u32) {
    claim("");
    assert_eq!(number, 1, "number {number}");
}

/// All tests of a module: each case has a sandbox of its own, and fixtures are made in it.
#[isolated]
mod of_a_module {
    use super::*;

    #[fixture]
    fn number() -> u32 {
        claim("fixture");
        7
    }

    #[rstest]
    #[case(1)]
    #[case::two(2)]
    fn cases(#[case] number: u32) {
        claim(&number.to_string());
    }

    #[rstest]
    fn with_a_fixture(number: u32) {
        assert_eq!(number, 7);
    }

    #[rstest]
    #[case(1)]
    #[tokio::test]
    async fn of_a_runtime(#[case] number: u32) {
        tokio::task::yield_now().await;
        claim(&number.to_string());
    }
}
