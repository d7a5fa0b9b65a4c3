//! The crate [`hostsfile`] keeps a section of `/etc/hosts`, which the C library then resolves names from.
//!
//! As a plain `#[test]`, this needs root, and leaves its names in the machine's own `/etc/hosts` if it fails halfway.

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};

use belljar::isolated;
use hostsfile::HostsBuilder;

fn resolve(name: &str) -> Option<IpAddr> {
    Some((name, 0).to_socket_addrs().ok()?.next()?.ip())
}

#[isolated]
fn names_come_and_go_with_their_section() {
    assert_eq!(resolve("db.example"), None);
    let mut section = HostsBuilder::new("belljar");
    section.add_hostname(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5)), "db.example");
    assert!(section.write().expect("written"));
    assert_eq!(resolve("db.example"), Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5))));
    assert!(HostsBuilder::new("belljar").write().expect("removed"));
    assert_eq!(resolve("db.example"), None);
}
