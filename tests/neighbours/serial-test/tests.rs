//! Tests that share something outside of their sandboxes, one at a time: a name that two can't have at once, in the network of
//! the host.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;
use std::time::Duration;

use belljar::isolated;
use serial_test::{file_serial, parallel, serial};

/// Has the name for a while. `run` tells apart runs at the same time.
fn claim(name: &str) {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    let run = std::env::var("BELLJAR_TESTS_RUN").unwrap_or_default();
    let address = SocketAddr::from_abstract_name(format!("belljar-{run}-{name}")).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("the name is free");
    thread::sleep(Duration::from_millis(50));
}

#[serial]
#[isolated(mount)]
fn above() {
    claim("one");
}

#[isolated(mount)]
#[serial]
fn below() {
    claim("one");
}

#[test]
#[serial]
#[isolated(uts)]
fn above_with_test() -> Result<(), String> {
    claim("one");
    Ok(())
}

#[serial]
#[isolated(uts)]
#[test]
fn around() {
    claim("one");
}

#[tokio::test]
#[serial]
#[isolated(uts)]
async fn async_above() {
    claim("one");
}

#[serial]
#[tokio::test]
#[isolated(uts)]
async fn async_far_above() {
    claim("one");
}

#[isolated(uts)]
#[serial]
#[tokio::test]
async fn async_below() {
    claim("one");
}

#[isolated(uts)]
#[tokio::test]
#[serial]
async fn async_far_below() {
    claim("one");
}

#[isolated]
#[parallel]
fn parallel_below() {
    claim("another");
}

#[parallel]
#[isolated]
fn parallel_above() {
    claim("another");
}

#[isolated(uts)]
#[file_serial]
fn by_a_file_below() {
    claim("third");
}

#[isolated(uts)]
#[file_serial]
#[test]
fn by_a_file_below_too() {
    claim("third");
}

#[isolated(mount)]
mod of_a_module {
    use super::*;

    #[test]
    #[serial]
    fn below_test() {
        claim("one");
    }

    #[serial]
    #[test]
    fn above_test() {
        claim("one");
    }
}
