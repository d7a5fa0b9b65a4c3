//! Tests that look for what was logged: inside of the sandbox.

use belljar::isolated;
use tracing_test::traced_test;

fn log_it() {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    tracing::info!("told");
}

#[traced_test]
#[isolated]
fn above() {
    log_it();
    assert!(logs_contain("told") && !logs_contain("untold"));
}

#[traced_test]
#[test]
#[isolated]
fn above_with_test() {
    log_it();
    assert!(logs_contain("told"));
}

#[test]
#[traced_test]
#[isolated]
fn far_above() {
    log_it();
    assert!(logs_contain("told"));
}

#[traced_test]
#[isolated]
#[test]
fn around() {
    log_it();
    assert!(logs_contain("told"));
}

#[tokio::test]
#[traced_test]
#[isolated]
async fn async_above() {
    log_it();
    assert!(logs_contain("told"));
}

#[traced_test]
#[isolated]
#[tokio::test]
async fn async_around() {
    log_it();
    assert!(logs_contain("told"));
}

#[cfg(feature = "refused")]
mod refused {
    use super::{isolated, traced_test};

    #[isolated]
    #[traced_test]
    fn below() {
        assert!(!logs_contain("untold"));
    }

    #[isolated]
    #[tokio::test]
    #[traced_test]
    async fn async_below() {
        assert!(!logs_contain("untold"));
    }
}

#[isolated]
mod of_a_module {
    use super::*;

    #[traced_test]
    #[test]
    fn above_test() {
        log_it();
        assert!(logs_contain("told"));
    }

    #[test]
    #[traced_test]
    fn below_test() {
        log_it();
        assert!(logs_contain("told"));
    }
}
