//! What programs do in sandboxes that aren't on each machine: `.ci/run` installs them, and says which.

mod faults;
mod go;
mod mounts;

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use belljar::isolated;
use belljar_tests::succeeds;

belljar_tests::bodies!();

/// The two commands of the guide.
#[isolated]
fn multicast_takes_two_commands() {
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let receiver = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).expect("bind");
    let error = receiver.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED).expect_err("no interface has multicast");
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV));

    succeeds("ip link set lo multicast on");
    succeeds("ip route add 224.0.0.0/4 dev lo");
    receiver.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED).expect("join");
    receiver.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
    sender.send_to(b"hello", (group, 5353)).expect("send");
    let mut text = [0; 8];
    assert_eq!(receiver.recv(&mut text).expect("receive"), 5);
}
