//! Tests with a log, which is set up inside of the sandbox: its process is not the one that other tests run in.

use belljar::isolated;

#[track_caller]
fn log_it() {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    assert!(log::log_enabled!(log::Level::Error), "there is a log");
    log::error!("told");
}

#[test_log::test]
#[isolated]
fn above() {
    log_it();
}

#[isolated]
#[test_log::test]
fn below() {
    log_it();
}

#[test_log::test(tokio::test)]
#[isolated]
async fn async_above() {
    log_it();
}

#[isolated]
#[test_log::test(tokio::test)]
async fn async_below() {
    log_it();
}

mod by_a_short_name {
    use test_log::test;

    #[test]
    #[belljar::isolated]
    fn above() {
        super::log_it();
    }

    #[belljar::isolated]
    #[test]
    fn below() {
        super::log_it();
    }
}

#[isolated]
mod of_a_module {
    #[test_log::test]
    fn plain() {
        super::log_it();
    }
}
