//! Routers that translate addresses, forward ports, and let only answers in. Each with a twin that does not.

use std::env;
use std::net::{SocketAddr, UdpSocket};

use belljar::isolated;
use belljar::net::{Host, Lab, Nat, Net, Router};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket as new_socket};

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

/// More than fit into one message to the kernel, and to a host behind another router.
#[isolated]
fn hundreds_of_ports_lead_to_a_host_far_inside() {
    const PORTS: u16 = 300;
    let mut lab = Lab::new();
    let (web, near, far, visitor) = (lab.host("web"), lab.router("near"), lab.router("far"), lab.host("visitor"));
    lab.link(&web, &near);
    lab.link(&near, &far); // far is 10.0.1.2 there, and 10.0.2.1 outside
    lab.link(&far, &visitor);
    let _far = (1..=PORTS).fold(far.nat(Nat::Masquerade), |far, port| far.forward(port, &web, 1000 + port));
    let _net = lab.up().expect("up");
    for port in [1, PORTS / 2, PORTS] {
        let here = socket(&web, &format!("[::]:{}", 1000 + port), PATIENCE);
        for router in ["10.0.2.1", "[fd00:0:0:2::1]"] {
            let any = if router.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            socket(&visitor, any, PATIENCE).send_to(b"hello", format!("{router}:{port}")).expect("send");
            assert_eq!(next(&here).expect("it comes"), b"hello");
        }
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

/// A socket on a host that sends and receives ICMP, of version 4 or 6.
fn icmp(host: &Host, is_v4: bool) -> UdpSocket {
    let (family, protocol) = match is_v4 {
        true => (AddressFamily::Inet, SockProtocol::Icmp),
        false => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket = host.run(|| new_socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)).expect("a socket");
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    socket
}

const ASKED: u16 = 0x4321;
const UNASKED: u16 = 0x1234;

/// A question of ping(8) or an answer, with this id.
fn echo(is_v4: bool, is_answer: bool, id: u16) -> [u8; 8] {
    let kind = match (is_v4, is_answer) {
        (true, false) => 8,
        (true, true) => 0,
        (false, _) => 128 + u8::from(is_answer),
    };
    // That of version 6 is the kernel's to write.
    let checksum = if is_v4 { !((u16::from(kind) << 8) + id) } else { 0 };
    let [[check, sum], [high, low]] = [checksum, id].map(u16::to_be_bytes);
    [kind, 0, check, sum, high, low, 0, 0]
}

/// What came at such a socket, up to the question or answer that was asked for: whom from, and with which id.
fn echoes(socket: &UdpSocket, is_v4: bool, is_answer: bool) -> Vec<(String, u16)> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(_, id)| *id == UNASKED) {
        let mut packet = [0; 256];
        let (length, from) = socket.recv_from(&mut packet).expect("an echo");
        // Of version 4, the head comes too.
        let message = &packet[if is_v4 { 20 } else { 0 }..length];
        let id = u16::from_be_bytes([message[4], message[5]]);
        let is_echo = [echo(is_v4, false, id), echo(is_v4, true, id)].iter().any(|echo| echo[0] == message[0]);
        if is_echo && (id == UNASKED || message[0] == echo(is_v4, is_answer, id)[0]) {
            seen.push((from.ip().to_string(), id));
        }
    }
    seen
}

/// An answer of ping(8) that nobody has asked for belongs to no connection.
#[isolated]
fn a_firewall_lets_in_nothing_that_belongs_to_no_connection() {
    for (has_firewall, is_v4) in [(false, true), (true, true), (false, false), (true, false)] {
        let (_net, inside, outside) = three(|router, _| if has_firewall { router.firewall() } else { router });
        let [here, there] = [&inside, &outside].map(|host| icmp(host, is_v4));
        let [to, from] = if is_v4 { ["10.0.0.1", "10.0.1.2"] } else { ["fd00::1", "fd00:0:0:1::2"] };
        let at = |address: &str| SocketAddr::new(address.parse().expect(address), 0);
        there.send_to(&echo(is_v4, true, UNASKED), at(to)).expect("send");
        here.send_to(&echo(is_v4, false, ASKED), at(from)).expect("send");
        let expected: &[_] = if has_firewall { &[ASKED] } else { &[UNASKED, ASKED] };
        let ids: Vec<_> = echoes(&here, is_v4, true).into_iter().map(|(_, id)| id).collect();
        assert_eq!(ids, expected, "{has_firewall} {is_v4}");
    }
}

/// The kernel translates nothing that belongs to no connection.
#[isolated]
fn no_address_of_the_inside_gets_out() {
    for (nat, is_v4) in [(None, true), (Some(Nat::Masquerade), true), (None, false), (Some(Nat::Masquerade), false)] {
        let (_net, inside, outside) = three(|router, _| match nat {
            Some(nat) => router.nat(nat),
            None => router,
        });
        let [here, there] = [&inside, &outside].map(|host| icmp(host, is_v4));
        let [own, router, to] = match is_v4 {
            true => ["10.0.0.1", "10.0.1.1", "10.0.1.2"],
            false => ["fd00::1", "fd00:0:0:1::1", "fd00:0:0:1::2"],
        };
        let to = SocketAddr::new(to.parse().expect(to), 0);
        here.send_to(&echo(is_v4, true, UNASKED), to).expect("send");
        here.send_to(&echo(is_v4, false, ASKED), to).expect("send");
        let expected: &[_] = if nat.is_some() { &[(router, ASKED)] } else { &[(own, UNASKED), (own, ASKED)] };
        let seen = echoes(&there, is_v4, false);
        assert_eq!(seen.iter().map(|(from, id)| (&**from, *id)).collect::<Vec<_>>(), expected, "{nat:?}");
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

/// Which module the kernel lacks, for `a_module_that_is_missing_is_named`.
const LACKING: &str = "BELLJAR_TESTS_LACKING";

/// Its twin is run by hand: with all modules, it fails.
#[isolated]
#[ignore = "takes a kernel that lacks the module which BELLJAR_TESTS_LACKING names: lab/cells boots it"]
fn a_module_that_is_missing_is_named() {
    let module = env::var(LACKING).expect(LACKING);
    let mut lab = Lab::new();
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let router = lab.router("router").nat(Nat::Masquerade).forward(8080, &inside, 80).firewall();
    lab.link(&inside, &router);
    lab.link(&router, &outside);
    let error = lab.up().expect_err("the module is missing");
    let (text, end) = (error.to_string(), format!(" The kernel lacks the module {module}: modprobe {module}."));
    println!("{text}");
    assert!(text.ends_with(&end), "{text}");
    // A router that only forwards takes none of them.
    if module != "veth" {
        three(|router, _| router);
    }
}
