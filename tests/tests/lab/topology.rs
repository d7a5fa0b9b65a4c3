//! What is between hosts: addresses, links, switches, and routes through routers.

use std::fs;
use std::net::{IpAddr, UdpSocket};

use belljar::isolated;
use belljar::net::{Host, Lab, Packets};
use nix::ifaddrs::getifaddrs;

use crate::{PATIENCE, SHORT, greets, next, socket};

/// The addresses of an interface of a host, but for those that the kernel gives it by itself.
fn addresses(host: &Host, interface: &str) -> Vec<String> {
    let of = |entry: nix::ifaddrs::InterfaceAddress| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        let v6 = address.as_sockaddr_in6().map(|address| address.ip()).filter(|ip| !ip.is_unicast_link_local());
        v4.or(v6.map(IpAddr::from)).map(|address| address.to_string())
    };
    let all = host.run(|| {
        getifaddrs()
            .expect("getifaddrs")
            .filter(|one| one.interface_name == interface)
            .filter_map(of)
            .collect::<Vec<_>>()
    });
    let mut all = all;
    all.sort();
    all
}

/// What is chosen for a host can be said in statements, and behind each other.
#[isolated]
fn choices_are_made_in_any_style() {
    let mut lab = Lab::new();
    let first = lab.host("first");
    first.address("192.0.2.7/24");
    first.interface("wan0");
    let second = lab.host("second").address("192.0.2.8/24").interface("wan0");
    let _net = lab.up().expect("up");
    for (host, address) in [(&first, "192.0.2.7"), (&second, "192.0.2.8")] {
        assert_eq!(addresses(host, "wan0")[0], address);
    }
}

#[isolated]
fn hosts_without_links_are_on_one_switch() {
    let mut lab = Lab::new();
    let hosts = ["a", "b", "c"].map(|name| lab.host(name));
    let _net = lab.up().expect("up");
    for (index, host) in hosts.iter().enumerate() {
        assert_eq!(addresses(host, "eth0"), [format!("10.0.0.{}", index + 1), format!("fd00::{}", index + 1)]);
    }
    for (server, client) in [(0, 1), (1, 2), (2, 0)] {
        let [server, client] = [server, client].map(|index: usize| &hosts[index]);
        greets(server, client, &format!("{}:80", server.name())).expect("by name");
        for address in addresses(server, "eth0") {
            let address = if address.contains(':') { format!("[{address}]:80") } else { format!("{address}:80") };
            greets(server, client, &address).expect(&address);
        }
    }
}

#[isolated]
fn link_local_addresses_and_multicast_work_at_once() {
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let _net = lab.up().expect("up");
    let there = socket(&b, "[::]:5353", PATIENCE);
    let group = "ff02::fb".parse().expect("a group");
    let index = |host: &Host| host.run(|| nix::net::if_::if_nametoindex("eth0")).expect("an index");
    there.join_multicast_v6(&group, index(&b)).expect("join");
    let from = socket(&a, "[::]:0", PATIENCE);
    let to = std::net::SocketAddrV6::new(group, 5353, 0, index(&a));
    from.send_to(b"hello", to).expect("send");
    assert_eq!(next(&there).expect("it comes"), b"hello");
    let to_broadcast = socket(&a, "0.0.0.0:0", PATIENCE);
    to_broadcast.set_broadcast(true).expect("broadcast");
    let there = socket(&b, "0.0.0.0:67", PATIENCE);
    to_broadcast.send_to(b"discover", "10.0.0.255:67").expect("send");
    assert_eq!(next(&there).expect("it comes"), b"discover");
}

#[isolated]
fn what_is_chosen_is_so() {
    let mut lab = Lab::new();
    let lan = lab.switch("lan").subnet("192.0.2.0/24");
    let server = lab.host("server").address("192.0.2.7/24").mac("02:00:00:00:be:11").mtu(1400).interface("lan0");
    let (client, other) = (lab.host("client"), lab.host("other"));
    lab.link(&server, &lan);
    lab.link(&client, &lan).address(&client, "2001:db8::9/64").interface(&client, "up0").mtu(1300);
    lab.link(&other, &lan);
    let _net = lab.up().expect("up");
    assert_eq!(addresses(&server, "lan0"), ["192.0.2.7", "2001:db8::1"]);
    assert_eq!(addresses(&client, "up0"), ["192.0.2.2", "2001:db8::9"]);
    assert_eq!(addresses(&other, "eth0"), ["192.0.2.3", "2001:db8::3"]);
    let read =
        |host: &Host, path: &str| host.run(|| fs::read_to_string(format!("/sys/class/net/{path}"))).expect("read");
    assert_eq!(read(&server, "lan0/address"), "02:00:00:00:be:11\n");
    assert_eq!([read(&server, "lan0/mtu"), read(&client, "up0/mtu")], ["1400\n", "1300\n"]);
    assert_eq!(read(&other, "eth0/mtu"), "1500\n");
    greets(&server, &client, "192.0.2.7:80").expect("by IPv4");
    greets(&client, &server, "[2001:db8::9]:80").expect("by IPv6");
}

#[isolated]
fn addresses_of_interfaces_that_are_chosen_make_room() {
    let mut lab = Lab::new();
    let (a, b, c) = (lab.host("a").mac("02:00:00:00:00:02"), lab.host("b"), lab.host("c"));
    let _net = lab.up().expect("up");
    let mac = |host: &Host| host.run(|| fs::read_to_string("/sys/class/net/eth0/address")).expect("read");
    assert_eq!([mac(&a), mac(&b), mac(&c)], ["02:00:00:00:00:02\n", "02:00:00:00:00:04\n", "02:00:00:00:00:03\n"]);
    greets(&a, &b, "a:80").expect("a way");
}

#[isolated]
fn subnets_that_are_chosen_make_room() {
    let mut lab = Lab::new();
    let (left, right) = (lab.switch("left"), lab.switch("right").subnet("10.0.0.0/16"));
    let (a, b) = (lab.host("a"), lab.host("b"));
    let gateway = lab.router("gateway").address("10.1.0.9/24").mac("02:00:00:00:be:11").mtu(1400).interface("lan0");
    lab.link(&a, &left);
    lab.link(&b, &right);
    lab.link(&gateway, &left);
    lab.link(&gateway, &right);
    let _net = lab.up().expect("up");
    assert_eq!(addresses(&a, "eth0"), ["10.1.0.1", "fd00::1"]);
    assert_eq!(addresses(&b, "eth0"), ["10.0.0.1", "fd00:0:0:1::1"]);
    assert_eq!(addresses(&gateway, "lan0"), ["10.1.0.9", "fd00::2"]);
    let read = |name: &str| gateway.run(|| fs::read_to_string(format!("/sys/class/net/lan0/{name}"))).expect("read");
    assert_eq!([read("address"), read("mtu")], ["02:00:00:00:be:11\n", "1400\n"]);
    greets(&a, &b, "a:80").expect("a way");
}

/// Whoever builds a laboratory in a function of its own drops the handles that it doesn't hand on.
#[isolated]
fn a_router_stays_whose_handle_is_dropped() {
    let (_net, a, b) = {
        let mut lab = Lab::new();
        let (a, b, gateway) = (lab.host("a"), lab.host("b"), lab.router("gateway"));
        lab.link(&a, &gateway);
        lab.link(&gateway, &b);
        (lab.up().expect("up"), a, b)
    };
    greets(&a, &b, "10.0.0.1:80").expect("a way");
}

#[isolated]
fn an_interface_that_is_too_small_has_no_ipv6() {
    let mut lab = Lab::new();
    let (small, large) = (lab.host("small").mtu(1000), lab.host("large"));
    let _net = lab.up().expect("up");
    assert_eq!(addresses(&small, "eth0"), ["10.0.0.1"]);
    assert_eq!(addresses(&large, "eth0"), ["10.0.0.2", "fd00::2"]);
    greets(&small, &large, "small:80").expect("by IPv4");
}

/// Other hosts may send what is too long for it.
#[isolated]
fn what_is_longer_than_the_mtu_of_a_host_is_lost_and_counted() {
    let mut lab = Lab::new();
    let (small, large) = (lab.host("small").mtu(1400), lab.host("large"));
    let net = lab.up().expect("up");
    let [here, there] = [&small, &large].map(|host| socket(host, "0.0.0.0:7000", PATIENCE));
    // A packet has 28 bytes beside what is sent.
    for length in [1373, 1372] {
        there.send_to(&vec![7; length], "10.0.0.1:7000").expect("send");
    }
    assert_eq!(next(&here).expect("it comes").len(), 1372);
    let stats = net.port(&small).to_host().stats();
    assert_eq!((stats.sent, stats.delivered, stats.lost_by_length, stats.lost_by_overload), (2, 1, 1, 0));
}

/// Three routers in a row, with a network behind each.
#[isolated]
fn ways_lead_over_several_routers() {
    let mut lab = Lab::new();
    let lan = lab.switch("lan");
    let (home, other) = (lab.host("home"), lab.host("other"));
    let [first, second, third] = ["first", "second", "third"].map(|name| lab.router(name));
    let server = lab.host("server");
    lab.link(&home, &lan);
    lab.link(&other, &lan);
    lab.link(&first, &lan);
    lab.link(&first, &second);
    lab.link(&second, &third);
    lab.link(&third, &server);
    let net = lab.up().expect("up");
    greets(&server, &home, "server:80").expect("there");
    greets(&home, &server, "home:80").expect("and back");
    let [v4, v6] = ["10.0.3.2:80", "[fd00:0:0:3::2]:80"];
    for address in [v4, v6] {
        greets(&server, &other, address).expect(address);
    }
    // From a router to what is behind the next but one, by the address that is nearest.
    greets(&server, &first, "server:80").expect("from a router");
    greets(&third, &home, "third:80").expect("to a router");
    assert!(net.port_to(&second, &third).stats().delivered > 0);
}

/// The twin: a host with two links forwards nothing, and is no error.
#[isolated]
fn a_host_between_two_networks_forwards_nothing() {
    let mut lab = Lab::new();
    let [left, middle, right] = ["left", "middle", "right"].map(|name| lab.host(name));
    lab.link(&left, &middle);
    lab.link(&middle, &right);
    let _net = lab.up().expect("up");
    greets(&middle, &left, "middle:80").expect("a neighbour");
    greets(&middle, &right, "middle:80").expect("a neighbour, by the address that is on its side");
    let error = greets(&right, &left, "10.0.1.2:80").expect_err("nobody knows a way");
    assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable);
    assert!(!arrives_through_the_middle(&left, &right, SHORT));
}

/// The twin of the last.
#[isolated]
fn a_router_between_two_networks_forwards() {
    let mut lab = Lab::new();
    let (left, middle, right) = (lab.host("left"), lab.router("middle"), lab.host("right"));
    lab.link(&left, &middle);
    lab.link(&middle, &right);
    let _net = lab.up().expect("up");
    assert!(arrives_through_the_middle(&left, &right, PATIENCE));
}

/// Whether a datagram arrives for which there is a route through what lies between.
fn arrives_through_the_middle(left: &Host, right: &Host, patience: std::time::Duration) -> bool {
    let route = ["route", "add", "10.0.1.0/24", "via", "10.0.0.2"];
    assert!(left.command("ip").args(route).status().expect("ip is installed").success());
    let there = socket(right, "10.0.1.2:53", patience);
    socket(left, "10.0.0.1:53", PATIENCE).send_to(b"hello", "10.0.1.2:53").expect("send");
    next(&there).is_some()
}

#[isolated]
fn of_two_ways_the_shorter_is_taken() {
    let mut lab = Lab::new();
    let (home, server) = (lab.host("home"), lab.host("server"));
    let [short, long, far] = ["short", "long", "far"].map(|name| lab.router(name));
    let (near, beyond) = (lab.switch("near"), lab.switch("beyond"));
    lab.link(&home, &near);
    lab.link(&long, &near);
    lab.link(&short, &near);
    lab.link(&long, &far);
    lab.link(&far, &beyond);
    lab.link(&short, &beyond);
    lab.link(&server, &beyond);
    let net = lab.up().expect("up");
    net.port_to(&far, &server).lose_when(Packets::udp());
    let there = socket(&server, "0.0.0.0:53", PATIENCE);
    let address = there.local_addr().expect("address").port();
    home.run(|| UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"hello", ("10.0.1.3", address))))
        .expect("send");
    assert!(next(&there).is_some());
    // The twin.
    net.port_to(&short, &server).lose_when(Packets::udp());
    home.run(|| UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"hello", ("10.0.1.3", address))))
        .expect("send");
    there.set_read_timeout(Some(SHORT)).expect("timeout");
    assert!(next(&there).is_none());
}

#[isolated]
fn there_may_be_many_hosts_and_two_laboratories() {
    let mut lab = Lab::new();
    // Each knows all others: more neighbours than the kernel has room for by default, for all networks of the machine.
    let hosts: Vec<_> = (0..40).map(|index| lab.host(&format!("host{index}"))).collect();
    let mut second = Lab::new();
    let same = second.host("host0");
    let (_net, _second) = (lab.up().expect("up"), second.up().expect("another"));
    greets(&hosts[0], &hosts[39], "host0:80").expect("a way");
    assert_eq!(addresses(&same, "eth0"), addresses(&hosts[0], "eth0"));
    greets(&same, &hosts[1], "10.0.0.3:80").expect_err("that is no host of the same laboratory");
}

/// Whatever the machine's are, of which new networks have copies.
#[isolated]
fn settings_are_the_same_on_every_machine() {
    let mut lab = Lab::new();
    let (host, gateway) = (lab.host("host"), lab.router("gateway"));
    let read = |path: &str| fs::read_to_string(format!("/proc/sys/net/{path}")).ok();
    let _net = lab.up().expect("up");
    for (node, forwards) in [(&host, "0\n"), (&gateway, "1\n")] {
        let read = |path: &str| node.run(|| read(path));
        assert_eq!(read("ipv4/ip_forward").as_deref(), Some(forwards));
        for which in ["all", "default", "eth0"] {
            for name in ["rp_filter", "arp_ignore", "arp_filter"] {
                assert_eq!(read(&format!("ipv4/conf/{which}/{name}")).as_deref(), Some("0\n"), "{which}/{name}");
            }
            // Where there is no IPv6, there is none.
            let v6 = |name: &str| read(&format!("ipv6/conf/{which}/{name}"));
            assert!(v6("disable_ipv6").is_none_or(|value| value == "0\n"), "{which}");
            assert!(v6("forwarding").is_none_or(|value| value == forwards), "{which}");
        }
    }
}

/// Where modules such as `ipip` and `sit` are loaded, each new network has interfaces of theirs, with the numbers behind the loopback's.
#[isolated]
fn interfaces_leave_room_for_those_of_the_kernel() {
    let mut lab = Lab::new();
    let (host, gateway, lan) = (lab.host("host"), lab.router("gateway"), lab.switch("lan"));
    lab.link(&host, &gateway);
    lab.link(&gateway, &lan);
    let _net = lab.up().expect("up");
    for (host, interface) in [(&host, "eth0"), (&gateway, "eth0"), (&gateway, "eth1")] {
        let index = host.run(|| nix::net::if_::if_nametoindex(interface)).expect("an index");
        assert!(index >= 1 << 16, "{interface}: {index}");
    }
}

#[isolated]
fn large_packets_pass_as_a_whole() {
    /// Whether a datagram arrives where packets are lost that are as large.
    fn arrives_in_pieces(mtu: u32) -> bool {
        let mut lab = Lab::new();
        let (a, b) = (lab.host("a").mtu(mtu), lab.host("b").mtu(mtu));
        let net = lab.up().expect("up");
        let there = socket(&b, "10.0.0.2:53", PATIENCE);
        let send = || socket(&a, "10.0.0.1:53", PATIENCE).send_to(&[7; 8000], "10.0.0.2:53").expect("send");
        let mut data = [0; 9000];
        send();
        assert_eq!(there.recv(&mut data).expect("it comes"), 8000);
        net.port(&a).lose_when(Packets::udp().longer_than(8000));
        there.set_read_timeout(Some(SHORT)).expect("timeout");
        send();
        there.recv(&mut data).is_ok()
    }
    assert!(arrives_in_pieces(1500));
    assert!(!arrives_in_pieces(9000));
}
