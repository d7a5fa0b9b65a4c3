//! Each fault does what it says, as often as it says, and in the direction that it is set for.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use std::{process, thread};

use belljar::isolated;
use belljar::net::{Host, Lab, Net, Packets, Port};
use belljar_tests::{rounds, wait_until};

use crate::told::without_wire;
use crate::{PATIENCE, exchange, missing, reader, receiver, sender, two};

const ADDRESSES: [&str; 2] = ["10.0.0.2:7000", "[fd00::2]:7000"];

/// What comes of so many datagrams from the client, with what is set at its port.
fn with(set: impl Fn(Port<'_>) -> Port<'_>, count: u32, size: usize) -> (Vec<u32>, belljar::net::Stats) {
    let (net, client, server) = two(7);
    set(net.port(&client).from_host());
    let there = receiver(&server, 7000);
    let got = exchange(net.port(&client), &sender(&client, "10.0.0.2:7000"), &there, count, size);
    (got, net.port(&client).from_host().stats())
}

#[isolated]
fn without_faults_all_comes_in_order() {
    let (got, stats) = with(|port| port, 3000, 100);
    assert_eq!((got.len(), missing(&got, 3000)), (3000, vec![]));
    assert!(got.is_sorted());
    assert_eq!(
        (stats.lost, stats.sent, stats.duplicated, stats.reordered, stats.corrupted),
        (0, stats.delivered, 0, 0, 0)
    );
}

/// Whether a count of 10,000 is what is written, within a tenth.
fn is_about(count: usize, written: usize) -> bool {
    count.abs_diff(written) * 10 <= written
}

#[isolated]
fn as_much_is_lost_as_written() {
    let (got, stats) = with(|port| port.loss(0.1), 10_000, 100);
    let lost = missing(&got, 10_000).len();
    assert!(is_about(lost, 1000), "{lost}");
    assert_eq!((stats.lost, stats.lost_by_chance), (lost as u64, lost as u64));
    assert!(got.is_sorted());
}

#[isolated]
fn as_much_comes_twice_as_written() {
    let (got, stats) = with(|port| port.duplicate(0.1), 10_000, 100);
    let twice = got.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(is_about(twice, 1000) && got.len() == 10_000 + twice, "{twice}");
    assert_eq!((stats.duplicated, stats.lost), (twice as u64, 0));
    assert!(got.is_sorted());
}

#[isolated]
fn as_much_is_overtaken_as_written() {
    let (got, stats) = with(|port| port.reorder(0.1), 10_000, 100);
    let mut largest = 0;
    let late = got.iter().filter(|number| {
        let is_late = **number < largest;
        largest = largest.max(**number);
        is_late
    });
    let late = late.count();
    assert!(is_about(late, 1000), "{late}");
    assert_eq!((missing(&got, 10_000), got.len()), (vec![], 10_000));
    assert!((stats.reordered as usize).abs_diff(late) <= 1, "{stats:?}");
}

#[isolated]
fn what_is_changed_is_thrown_away_by_the_host() {
    let (got, stats) = with(|port| port.corrupt(0.1), 10_000, 100);
    let lost = missing(&got, 10_000).len();
    assert!(is_about(lost, 1000), "{lost}");
    assert_eq!((stats.corrupted, stats.lost), (lost as u64, 0));
    assert!(got.is_sorted());
}

#[isolated]
fn jitter_keeps_the_order() {
    let (got, stats) = with(|port| port.delay(Duration::from_millis(1)).jitter(Duration::from_millis(5)), 2000, 100);
    assert_eq!((got.len(), missing(&got, 2000)), (2000, vec![]));
    assert!(got.is_sorted());
    assert_eq!(stats.queued, 0);
}

/// The wire can't keep up, and has to send at once what is to leave the one port and what is to leave the other.
#[isolated]
fn two_delays_keep_the_order() {
    let (net, client, server) = two(7);
    let there = receiver(&server, 7000);
    there.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let here = sender(&client, "10.0.0.2:7000");
    let [short, long] = [100, 400].map(Duration::from_millis);
    let [first, second] = [net.port(&client).from_host().delay(short), net.port(&server).to_host().delay(long)];
    here.send(b"a").expect("send");
    wait_until(|| second.stats().sent == 1);
    here.send(b"b").expect("send");
    wait_until(|| first.stats().sent == 2);
    without_wire(|| thread::sleep(2 * long));
    let mut text = [0; 2];
    let got = [(); 2].map(|()| there.recv(&mut text).map(|length| text[..length].to_vec()).expect("receive"));
    assert_eq!(got, [b"a", b"b"]);
}

#[isolated]
fn exactly_the_nth_is_lost() {
    for address in ADDRESSES {
        for _ in 0..rounds(3) {
            let (net, client, server) = two(7);
            let there = receiver(&server, 7000);
            let here = sender(&client, address);
            // What was sent before doesn't count. It may come later: a kernel of a busy machine can have it wait at another processor.
            (100..105_u32).for_each(|number| _ = here.send(&number.to_le_bytes()).expect("send"));
            net.port(&client).from_host().lose_nth(3).lose_nth(7);
            let got = exchange(net.port(&client), &here, &there, 20, 10);
            assert_eq!((got.len(), missing(&got, 20)), (23, vec![2, 6]));
            assert_eq!(net.port(&client).stats().lost_as_told, 2);
            // The other direction has its own.
            net.port(&client).to_host().lose_nth(1);
            assert_eq!(exchange(net.port(&client), &here, &there, 20, 10).len(), 20);
        }
    }
}

/// The most that a port takes at a time.
const NUMBERS: u64 = 64;

#[isolated]
fn a_number_is_used_up_by_a_frame_that_a_partition_has_kept_off() {
    let (net, client, server) = two(7);
    let there = receiver(&server, 7000);
    let here = sender(&client, "10.0.0.2:7000");
    let port = net.port(&server).to_host();
    (1..=NUMBERS).for_each(|number| _ = port.lose_nth(number));
    net.partition([&client], [&server]);
    (0..NUMBERS).for_each(|_| _ = here.send(b"x").expect("send"));
    assert_eq!([port.stats().lost_by_cut, port.stats().lost_as_told], [NUMBERS, 0]);
    net.heal();
    // There is room for as many again.
    (1..=NUMBERS).for_each(|number| _ = port.lose_nth(number * 2));
    let got = exchange(net.port(&server), &here, &there, 10, 10);
    assert_eq!(missing(&got, 10), [1, 3, 5, 7, 9]);
}

#[isolated]
fn what_is_described_is_lost_until_it_is_taken_back() {
    let (net, client, server) = two(7);
    let [first, second] = [7000, 7001].map(|port| receiver(&server, port));
    let [here, other] = [7000, 7001].map(|port| sender(&client, &format!("10.0.0.2:{port}")));
    net.port(&client).lose_when(Packets::udp().to_port(7001));
    assert_eq!(exchange(net.port(&client), &here, &first, 20, 10).len(), 20);
    assert_eq!(exchange(net.port(&client), &other, &second, 20, 10).len(), 0);
    net.port(&client).lose_when(Packets::any().beginning_with(&3_u32.to_le_bytes()));
    assert_eq!(missing(&exchange(net.port(&client), &here, &first, 20, 10), 20), [3]);
    net.port(&client).lose_no_more();
    assert_eq!(exchange(net.port(&client), &here, &first, 20, 10).len(), 20);
    assert_eq!(exchange(net.port(&client), &other, &second, 20, 10).len(), 20);
}

#[isolated]
fn the_first_step_of_a_connection_is_lost() {
    let (net, client, server) = two(7);
    let listener = server.run(|| TcpListener::bind("[::]:80")).expect("bind");
    net.port(&client).from_host().lose_when(Packets::tcp().to_port(80).with_flags(Packets::SYN));
    let address = "10.0.0.2:80".parse().expect("an address");
    let connect = |patience| client.run(|| TcpStream::connect_timeout(&address, patience));
    assert!(connect(Duration::from_millis(100)).is_err());
    assert!(net.port(&client).stats().lost > 0);
    net.port(&client).lose_no_more();
    connect(PATIENCE).expect("connect");
    drop(listener);
}

/// What becomes of the way between a client and a server.
type Loss = dyn Fn(&Net, &Host, &Host);

/// A laboratory in which a datagram was on its way from the client when `loss` came, and the sockets of both. On a busy machine, the datagram may
/// have come before that, which shows nothing: the next has twice the delay.
fn caught(loss: &Loss) -> (Net, Host, Host, UdpSocket, UdpSocket) {
    let caught = |delay| {
        let (net, client, server) = two(7);
        let there = receiver(&server, 7000);
        let here = sender(&client, "10.0.0.2:7000");
        net.port(&client).delay(delay);
        here.send(&7_u32.to_le_bytes()).expect("send");
        loss(&net, &client, &server);
        (net.port(&client).stats().queued == 1).then_some((net, client, server, here, there))
    };
    (0..8).find_map(|doubled| caught(Duration::from_millis(200 << doubled))).expect("one is on its way")
}

#[isolated]
fn a_cut_loses_what_is_on_its_way() {
    let (net, client, _server, here, there) = caught(&|net, client, _| _ = net.port(client).cut());
    here.send(&2_u32.to_le_bytes()).expect("send");
    wait_until(|| net.port(&client).stats().queued == 0);
    net.port(&client).heal().delay(Duration::ZERO);
    assert_eq!(exchange(net.port(&client), &here, &there, 3, 10), [0, 1, 2]);
    assert_eq!(net.port(&client).stats().lost_by_cut, 2);
}

/// Whoever cuts and heals at once loses what was on its way, and nothing else.
#[isolated]
fn what_is_on_its_way_is_lost_though_all_heals_before_it_is_due() {
    let losses: [&Loss; 4] = [
        &|net, client, _| _ = net.port(client).cut().heal(),
        &|net, client, _| {
            net.port(client).cut();
            net.heal();
        },
        &|net, client, server| {
            net.partition([client], [server]);
            net.heal();
        },
        // The other way is left alone.
        &|net, client, server| {
            net.oneway(client, server);
            net.heal();
        },
    ];
    for (loss, is_lost) in losses.into_iter().zip([true, true, true, false]) {
        let (net, client, server, here, there) = caught(loss);
        here.send(&8_u32.to_le_bytes()).expect("send");
        net.port(&client).delay(Duration::ZERO);
        wait_until(|| net.port(&client).stats().queued == 0);
        let got = exchange(net.port(&client), &here, &there, 1, 10);
        assert_eq!(got, if is_lost { vec![8, 0] } else { vec![7, 8, 0] });
        let lost_by_cut = net.port(&client).stats().lost_by_cut + net.port(&server).stats().lost_by_cut;
        assert_eq!(lost_by_cut, u64::from(is_lost));
    }
}

#[isolated]
fn what_is_longer_than_the_mtu_is_lost() {
    let (net, client, server) = two(7);
    let there = receiver(&server, 7000);
    let here = sender(&client, "10.0.0.2:7000");
    net.port(&client).mtu(1000);
    // With the heads of IP and UDP.
    assert_eq!(exchange(net.port(&client), &here, &there, 10, 973).len(), 0);
    assert_eq!(exchange(net.port(&client), &here, &there, 10, 972).len(), 10);
    assert_eq!(net.port(&client).from_host().stats().lost_by_length, 10);
    assert_eq!(net.port(&server).stats().lost, 0);
}

/// Never earlier than is written. How much later depends on the machine.
#[isolated]
fn nothing_is_faster_than_the_rate() {
    let (net, client, server) = two(7);
    let there = receiver(&server, 7000);
    there.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let here = sender(&client, "10.0.0.2:7000");
    net.port(&client).rate(8_000_000);
    let begun = Instant::now();
    // 100 frames of 1,000 bytes, of which each takes a millisecond.
    (0..100).for_each(|_| _ = here.send(&[7; 958]).expect("send"));
    (0..100).for_each(|_| _ = there.recv(&mut [0; 1000]).expect("receive"));
    assert!(begun.elapsed() >= Duration::from_millis(99));
    // What finds a full queue is lost.
    net.port(&client).queue(10_000);
    (0..100).for_each(|_| _ = here.send(&[7; 958]).expect("send"));
    let stats = net.port(&client).stats();
    assert!(stats.lost_by_queue > 0 && stats.lost_by_queue == stats.lost, "{stats:?}");
}

#[isolated]
fn a_stream_survives_everything() {
    for address in ["10.0.0.2:80", "[fd00::2]:80"] {
        let (net, client, server) = two(7);
        let reading = reader(&server);
        let mut stream = client.run(|| TcpStream::connect(address)).expect("connect");
        let ms = Duration::from_millis;
        net.port(&client)
            .loss(0.01)
            .duplicate(0.05)
            .reorder(0.05)
            .corrupt(0.01)
            .delay(ms(1))
            .jitter(ms(1))
            .rate(100_000_000);
        let sent: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        stream.write_all(&sent).expect("write");
        drop(stream);
        assert!(reading.join().expect("join") == sent, "other data has come");
        let stats = net.port(&client).stats();
        assert!(stats.lost > 0 && stats.duplicated > 0 && stats.corrupted > 0, "{stats:?}");
    }
}

/// Each port has its own faults, and counts for itself.
#[isolated]
fn other_ports_are_left_alone() {
    let (net, client, server) = two(7);
    net.port(&server).to_host().loss(1.0);
    let there = receiver(&server, 7000);
    assert_eq!(exchange(net.port(&client), &sender(&client, "10.0.0.2:7000"), &there, 10, 10).len(), 0);
    assert_eq!(net.port(&client).stats().lost, 0);
    assert_eq!(net.port(&server).to_host().stats().lost_by_chance, 10);
    assert_eq!(net.port(&server).from_host().stats().lost, 0);
}

/// Where hosts are is known before they have sent anything.
#[isolated]
fn a_third_host_sees_nothing_of_what_two_send() {
    for _ in 0..rounds(3) {
        let mut lab = Lab::new();
        let [client, server, third] = ["client", "server", "third"].map(|name| lab.host(name));
        let net = lab.up().expect("up");
        let there = receiver(&server, 7000);
        assert_eq!(exchange(net.port(&client), &sender(&client, "10.0.0.2:7000"), &there, 20, 10).len(), 20);
        let stats = net.port(&third).to_host().stats();
        assert_eq!((stats.sent, stats.delivered), (0, 0));
        // What is for all comes there too.
        let here = client.run(|| UdpSocket::bind("0.0.0.0:0")).expect("bind");
        here.set_broadcast(true).expect("broadcast");
        here.send_to(b"x", "255.255.255.255:7001").or_else(|_| here.send_to(b"x", "10.0.0.255:7001")).expect("send");
        assert_eq!(net.port(&third).to_host().stats().sent, 1);
    }
}

/// A fork of the body has the laboratory too, and ends: that of the body goes on.
#[isolated]
fn a_fork_of_the_body_does_not_end_the_wire() {
    let (net, client, server) = two(7);
    let there = receiver(&server, 7000);
    let here = sender(&client, "10.0.0.2:7000");
    // SAFETY: the child drops what it has, and ends.
    #[expect(unsafe_code, reason = "a body may fork")]
    let child = match unsafe { nix::unistd::fork() }.expect("fork") {
        nix::unistd::ForkResult::Child => {
            drop(net);
            process::exit(0)
        }
        nix::unistd::ForkResult::Parent { child } => child,
    };
    nix::sys::wait::waitpid(child, None).expect("wait");
    assert_eq!(exchange(net.port(&client), &here, &there, 20, 10).len(), 20);
    assert_eq!(net.port(&client).stats().lost, 0);
}
