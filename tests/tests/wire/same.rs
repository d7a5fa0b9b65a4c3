//! The same is lost in every run: other flows, load, ephemeral ports and sequence numbers make no difference.

use std::collections::BTreeSet;
use std::hint;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use belljar::isolated;
use belljar_tests::rounds;

use crate::captures::capture;
use crate::{exchange, missing, receiver, sender, two};

const COUNT: u32 = 300;

/// What goes on beside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    TwoFlows,
    TwoFlowsAndLoad,
}

/// Which of the datagrams are lost, in a laboratory of its own.
fn lost(seed: u64, address: &str, beside: Beside) -> Vec<u32> {
    let (net, client, server) = two(seed);
    net.port(&client).loss(0.1);
    let there = receiver(&server, 7000);
    let _other = receiver(&server, 7001);
    let here = sender(&client, &format!("{address}:7000"));
    let is_over = AtomicBool::new(false);
    let got = thread::scope(|scope| {
        let flows = if beside == Beside::Nothing { 0 } else { 2 };
        for _ in 0..flows {
            let flow = sender(&client, &format!("{address}:7001"));
            scope.spawn({
                let (is_over, port) = (&is_over, net.port(&client));
                move || {
                    while !is_over.load(Ordering::Relaxed) {
                        let _ = flow.send(&[7; 200]);
                        // No faster than the wire takes it, which may be slow: see `exchange`.
                        port.stats();
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        let load = if beside == Beside::TwoFlowsAndLoad { 2 } else { 0 };
        for _ in 0..load {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        let got = exchange(net.port(&client), &here, &there, COUNT, 100);
        is_over.store(true, Ordering::Relaxed);
        got
    });
    assert!(got.is_sorted());
    let lost = missing(&got, COUNT);
    // What the wire has not lost by chance, somebody else has.
    let stats = net.port(&client).from_host().stats();
    assert!(lost.len() as u64 <= stats.lost_by_chance, "{stats:?}, {:?}", net.port(&server).stats());
    lost
}

fn in_every_run(address: &str) {
    let first = lost(7, address, Beside::Nothing);
    assert!((15..50).contains(&first.len()), "{first:?}");
    for round in 0..rounds(1) {
        for beside in [Beside::Nothing, Beside::TwoFlows, Beside::TwoFlowsAndLoad] {
            assert_eq!(lost(7, address, beside), first, "round {round}");
        }
    }
    // Of another seed, others are.
    assert_ne!(lost(8, address, Beside::Nothing), first);
}

#[isolated]
fn datagrams_of_version_4() {
    in_every_run("10.0.0.2");
}

#[isolated]
fn datagrams_of_version_6() {
    in_every_run("[fd00::2]");
}

/// Echoes messages of a connection on port 80 of the server, one at a time, and returns which segments with data were lost when they were
/// sent for the first time: by their places in the stream, in both directions.
fn lost_segments(address: &str) -> Vec<(usize, u32)> {
    const MESSAGES: usize = 40;
    let (net, client, server) = two(11);
    // A connection that is there.
    let listener = server.run(|| TcpListener::bind("[::]:80")).expect("bind");
    let echo = server.spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut message = [0; 100];
        while stream.read_exact(&mut message).is_ok() {
            stream.write_all(&message).expect("write");
        }
    });
    let mut stream = client.run(|| TcpStream::connect(address)).expect("connect");
    net.port(&client).loss(0.06);
    for number in 0..MESSAGES {
        let message = [number as u8; 100];
        stream.write_all(&message).expect("write");
        let mut answer = [0; 100];
        stream.read_exact(&mut answer).expect("read");
        assert_eq!(answer, message);
    }
    net.port(&client).loss(0.0);
    drop(stream);
    echo.join().expect("join");
    let (mut seen, mut lost) = (BTreeSet::new(), Vec::new());
    let mut initial = [None; 2];
    for packet in capture(&net).packets.iter().filter(|packet| packet.interface == 0) {
        let Some((sequence, length)) = packet.tcp() else { continue };
        let way = usize::from(packet.is_to_host);
        let start = sequence.wrapping_sub(*initial[way].get_or_insert(sequence));
        if length > 0 && seen.insert((way, start)) && packet.comment.contains("lost") {
            lost.push((way, start));
        }
    }
    lost
}

#[isolated]
fn first_transmissions_of_tcp() {
    for address in ["10.0.0.2:80", "[fd00::2]:80"] {
        let first = lost_segments(address);
        assert!(!first.is_empty());
        for round in 0..rounds(1) {
            assert_eq!(lost_segments(address), first, "{address}, round {round}");
        }
    }
}
