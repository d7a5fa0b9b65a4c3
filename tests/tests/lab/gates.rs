//! Routers that translate addresses, forward ports, and let only answers in. Each with a twin that does not.

use std::net::{SocketAddr, UdpSocket};

use belljar::isolated;
use belljar::net::{Host, Lab, Nat, Net, Router};

use crate::{PATIENCE, SHORT, greets, next, socket};

/// `inside` (10.0.0.1), a router (10.0.0.2 and 10.0.1.1), and `outside` (10.0.1.2), with the same numbers in fd00::/64 and fd00:0:0:1::/64.
fn three(gate: impl FnOnce(Router, &Host) -> Router) -> (Net, Host, Host) {
    let mut lab = Lab::new();
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let router = gate(lab.router("router"), &inside);
    lab.link(&inside, &router);
    lab.link(&router, &outside);
    (lab.up().expect("up"), inside, outside)
}

/// Whom a datagram from one host to another seems to come from, if it arrives.
fn sender_of(from: &UdpSocket, to: &UdpSocket, address: &str) -> SocketAddr {
    from.send_to(b"hello", address).expect("send");
    to.recv_from(&mut [0; 8]).expect("it arrives").1
}

#[isolated]
fn the_outside_sees_the_router() {
    for (nat, v4, v6) in [(None, "10.0.0.1", "fd00::1"), (Some(Nat::Masquerade), "10.0.1.1", "fd00:0:0:1::1")] {
        let (_net, inside, outside) = three(|router, _| match nat {
            Some(nat) => router.nat(nat),
            None => router,
        });
        let there = socket(&outside, "[::]:7000", PATIENCE);
        for (any, address, seen) in [("0.0.0.0:7001", "10.0.1.2:7000", v4), ("[::]:7001", "[fd00:0:0:1::2]:7000", v6)] {
            let here = socket(&inside, any, PATIENCE);
            let from = sender_of(&here, &there, address);
            assert_eq!(from.ip().to_canonical().to_string(), seen);
            // A port that is free is kept, and answers find their way back.
            assert_eq!(from.port(), 7001);
            there.send_to(b"answer", from).expect("send");
            assert_eq!(next(&here).expect("an answer"), b"answer");
        }
        greets(&outside, &inside, "outside:80").expect("TCP");
    }
}

#[isolated]
fn nobody_outside_knows_of_the_inside() {
    let knock = |outside: &Host, address: &str| {
        let socket = outside.run(|| UdpSocket::bind("[::]:7000")).expect("bind");
        socket.send_to(b"knock", address).map(|_| ()).map_err(|error| error.kind())
    };
    let (_net, inside, outside) = three(|router, _| router.nat(Nat::Masquerade));
    let here = socket(&inside, "[::]:7000", SHORT);
    for address in ["10.0.0.1:7000", "[fd00::1]:7000"] {
        knock(&outside, address).expect_err("no route");
    }
    // Nor does the router let anybody in who asks at its own port.
    let _ = knock(&outside, "10.0.1.1:7000");
    assert_eq!(next(&here), None);
    // The twin.
    let (_net, inside, outside) = three(|router, _| router);
    let here = socket(&inside, "[::]:7000", PATIENCE);
    knock(&outside, "10.0.0.1:7000").expect("a route");
    assert_eq!(next(&here).expect("it comes"), b"knock");
}

/// The ports of the router from which one socket's datagrams come, for three destinations.
fn ports(nat: Nat) -> [u16; 3] {
    let (_net, inside, outside) = three(|router, _| router.nat(nat));
    let here = socket(&inside, "0.0.0.0:7001", PATIENCE);
    [7100, 7101, 7102].map(|port| {
        let there = socket(&outside, &format!("0.0.0.0:{port}"), PATIENCE);
        sender_of(&here, &there, &format!("10.0.1.2:{port}")).port()
    })
}

#[isolated]
fn each_destination_of_a_symmetric_nat_sees_another_port() {
    assert_eq!(ports(Nat::Masquerade), [7001; 3]);
    // They are chosen at random, out of some 60,000: two may be the same by chance.
    let ports = ports(Nat::Symmetric);
    assert!(ports.iter().any(|port| *port != ports[0]), "{ports:?}");
}

#[isolated]
fn a_forwarded_port_leads_inside() {
    let (_net, inside, outside) =
        three(|router, inside| router.nat(Nat::Masquerade).firewall().forward(8080, inside, 80));
    let listener = inside.run(|| std::net::TcpListener::bind("[::]:80")).expect("bind");
    let datagrams = socket(&inside, "[::]:80", PATIENCE);
    for (any, router) in [("0.0.0.0:0", "10.0.1.1"), ("[::]:0", "[fd00:0:0:1::1]")] {
        let there = outside.run(|| std::net::TcpStream::connect(format!("{router}:8080"))).expect("connect");
        let (_, from) = listener.accept().expect("accept");
        assert_eq!(from.ip().to_canonical(), there.local_addr().expect("an address").ip());
        socket(&outside, any, PATIENCE).send_to(b"hello", format!("{router}:8080")).expect("send");
        assert_eq!(next(&datagrams).expect("it comes"), b"hello");
        // The twin: the next port.
        outside
            .run(|| std::net::TcpStream::connect_timeout(&format!("{router}:8081").parse().expect("an address"), SHORT))
            .expect_err("nobody is there");
    }
}

#[isolated]
fn a_firewall_lets_answers_in_and_nothing_else() {
    for has_firewall in [false, true] {
        let (_net, inside, outside) = three(|router, _| if has_firewall { router.firewall() } else { router });
        let [here, there] =
            [(&inside, "[::]:7000"), (&outside, "[::]:7001")].map(|(host, any)| socket(host, any, PATIENCE));
        there.send_to(b"knock", "10.0.0.1:7000").expect("send");
        here.send_to(b"ask", "10.0.1.2:7001").expect("send");
        let mut text = [0; 8];
        let (length, from) = there.recv_from(&mut text).expect("a request");
        assert_eq!(&text[..length], b"ask");
        there.send_to(b"answer", from).expect("send");
        // Packets of one flow keep their order.
        let expected: &[&[u8]] = if has_firewall { &[b"answer"] } else { &[b"knock", b"answer"] };
        for expected in expected {
            assert_eq!(next(&here).expect("it comes"), *expected);
        }
        greets(&outside, &inside, "outside:80").expect("from inside");
    }
}

/// A way through two NATs that keep ports: both sides send first, and each opens its own.
#[isolated]
fn holes_are_punched_through_what_keeps_ports() {
    for (nat, comes) in [(Nat::Masquerade, true), (Nat::Symmetric, false)] {
        let mut lab = Lab::new();
        let internet = lab.switch("internet");
        let [alice, bob] = ["alice", "bob"].map(|name| {
            let (host, router) = (lab.host(name), lab.router(&format!("{name}-home")).nat(nat).outside(&internet));
            // The outside comes first: it is chosen.
            lab.link(&router, &internet);
            lab.link(&host, &router);
            host
        });
        let _net = lab.up().expect("up");
        let [here, there] = [&alice, &bob].map(|host| socket(host, "0.0.0.0:7000", SHORT));
        // The routers are 10.0.0.1 and 10.0.0.2 there. Whoever sends first finds the door still closed, and must not have it stay so.
        let is_open = (0..if comes { 100 } else { 2 }).any(|_| {
            here.send_to(b"hello", "10.0.0.2:7000").expect("send");
            there.send_to(b"hello", "10.0.0.1:7000").expect("send");
            next(&here).is_some() && next(&there).is_some()
        });
        assert_eq!(is_open, comes, "{nat:?}");
    }
}
