//! Faults that divide hosts. Those of ports are in `wire/faults.rs`.

use std::time::{Duration, Instant};

use belljar::isolated;
use belljar::net::{Host, Lab};

use crate::{PATIENCE, SHORT, next, socket};

/// Whether a datagram gets from one host to another, by this name or address of that.
fn gets(from: &Host, to: &Host, address: &str, patience: Duration) -> bool {
    let receiver = socket(to, "[::]:53", patience);
    let sent =
        from.run(|| std::net::UdpSocket::bind("[::]:0").and_then(|socket| socket.send_to(b"hello", (address, 53))));
    let sent = sent.or_else(|_| from.run(|| std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(b"hello", (address, 53))));
    sent.expect("send");
    next(&receiver).is_some()
}

/// The same, both ways.
fn reach(one: &Host, other: &Host, patience: Duration) -> [bool; 2] {
    [gets(one, other, other.name(), patience), gets(other, one, one.name(), patience)]
}

#[isolated]
fn a_partition_divides_until_it_is_healed() {
    let mut lab = Lab::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| lab.host(name));
    let net = lab.up().expect("up");
    assert_eq!(reach(&a, &b, PATIENCE), [true; 2]);
    net.partition([&a], [&b]);
    assert_eq!(reach(&a, &b, SHORT), [false; 2]);
    assert_eq!(reach(&a, &c, PATIENCE), [true; 2]);
    assert_eq!(reach(&b, &c, PATIENCE), [true; 2]);
    net.partition([&a], [&c]);
    assert_eq!([reach(&a, &b, SHORT), reach(&a, &c, SHORT)], [[false; 2]; 2]);
    net.heal();
    assert_eq!([reach(&a, &b, PATIENCE), reach(&a, &c, PATIENCE)], [[true; 2]; 2]);
}

#[isolated]
fn a_oneway_street_leads_one_way() {
    let mut lab = Lab::new();
    let [a, b] = ["a", "b"].map(|name| lab.host(name));
    let net = lab.up().expect("up");
    net.oneway(&a, &b);
    assert!(gets(&a, &b, "b", PATIENCE));
    assert!(!gets(&b, &a, "a", SHORT));
    net.heal();
    assert_eq!(reach(&a, &b, PATIENCE), [true; 2]);
}

#[isolated]
fn a_cut_port_is_healed_with_the_rest() {
    let mut lab = Lab::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| lab.host(name));
    let net = lab.up().expect("up");
    net.port(&a).cut();
    assert_eq!(reach(&a, &b, SHORT), [false; 2]);
    assert_eq!(reach(&b, &c, PATIENCE), [true; 2]);
    net.heal();
    assert_eq!(reach(&a, &b, PATIENCE), [true; 2]);
}

/// A router beside them leads nobody around that: neighbours send to each other themselves.
#[isolated]
fn neighbours_are_divided_beside_their_router() {
    let mut lab = Lab::new();
    let (lan, gateway) = (lab.switch("lan"), lab.router("gateway"));
    let [a, b, outside] = ["a", "b", "outside"].map(|name| lab.host(name));
    for host in [&a, &b, gateway.as_ref()] {
        lab.link(host, &lan);
    }
    lab.link(&gateway, &outside);
    let net = lab.up().expect("up");
    net.partition([&a], [&b]);
    assert_eq!(reach(&a, &b, SHORT), [false; 2]);
    assert_eq!([reach(&a, &outside, PATIENCE), reach(&b, &outside, PATIENCE)], [[true; 2]; 2]);
    net.heal();
    net.oneway(&a, &b);
    assert!(gets(&a, &b, "b", PATIENCE));
    assert!(!gets(&b, &a, "a", SHORT));
}

/// A partition that a router leads around is none.
#[isolated]
fn a_way_over_a_router_is_told() {
    let mut lab = Lab::new();
    let (a, gateway, b) = (lab.host("a"), lab.router("gateway"), lab.host("b"));
    lab.link(&a, &gateway);
    lab.link(&gateway, &b);
    let net = lab.up().expect("up");
    let divide = || net.partition([&a], [&b]);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(divide)).expect_err("there is a way");
    let text = panic.downcast_ref::<String>().expect("a text");
    assert!(text.contains("packets still get from `a` to `b`, over a router"), "{text}");
    assert_eq!(reach(&a, &b, PATIENCE), [true; 2], "nothing was changed");
    net.partition([&a], [gateway.as_ref(), &b]);
    assert_eq!(reach(&a, &b, SHORT), [false; 2]);
    assert_eq!(reach(&gateway, &b, PATIENCE), [true; 2]);
    net.partition([&a], [&b]);
    net.heal();
    assert_eq!(reach(&a, &b, PATIENCE), [true; 2]);
    // A router alone on a side, and on a one-way street.
    net.partition([&gateway], [&b]);
    assert_eq!(reach(&a, &b, SHORT), [false; 2]);
    net.heal();
    net.oneway(&a, &gateway);
    assert!(gets(&a, &b, "b", PATIENCE));
    assert!(!gets(&gateway, &a, "a", SHORT));
}

#[isolated]
fn a_port_of_another_laboratory_is_no_port() {
    let mut lab = Lab::new();
    let host = lab.host("host");
    let net = lab.up().expect("up");
    net.port(&host);
    let other = Lab::new().host("host");
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| net.port(&other).stats().lost)).unwrap_err();
    let text = panic.downcast_ref::<String>().map_or("", String::as_str);
    assert!(text.contains("`host` belongs to another laboratory"), "{text}");
}

/// Never less than is asked for. How much more depends on the machine.
#[isolated]
fn a_delay_holds_for_both_ways() {
    const DELAY: Duration = Duration::from_millis(10);
    let mut lab = Lab::new();
    let [a, b] = ["a", "b"].map(|name| lab.host(name));
    let net = lab.up().expect("up");
    net.port(&a).delay(DELAY);
    let [here, there] = [&a, &b].map(|host| socket(host, "0.0.0.0:53", PATIENCE));
    for _ in 0..5 {
        let begun = Instant::now();
        here.send_to(b"ask", "10.0.0.2:53").expect("send");
        next(&there).expect("it comes");
        there.send_to(b"answer", "10.0.0.1:53").expect("send");
        next(&here).expect("it comes");
        let elapsed = begun.elapsed();
        assert!(elapsed >= DELAY * 2, "{elapsed:?}");
    }
}
