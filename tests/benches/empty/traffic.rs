//! What a laboratory does to traffic, as it is measured on its hosts: how late, how fast, and whether all of it comes.

use std::fs;
use std::hint;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use belljar::__private::{Test, run};
use belljar::net::{Host, Lab, Net};

use super::{SPEC, print_row};

/// How many laboratories are made, and how many of them at once, to measure first connections.
const LABS: usize = 500;
const MAKERS: usize = 4;

/// How many round trips are measured.
const TRIPS: usize = 500;

/// For how long a stream is measured.
const STREAM: Duration = Duration::from_secs(4);

static MEASURES: [Test; 4] = [
    Test { name: "bench::first_connects", spec: SPEC, body: first_connects, ..Test::PLAIN },
    Test { name: "bench::delay", spec: SPEC, body: delay, ..Test::PLAIN },
    Test { name: "bench::rates", spec: SPEC, body: rates, ..Test::PLAIN },
    Test { name: "bench::faultless", spec: SPEC, body: faultless, ..Test::PLAIN },
];

pub(super) fn measure() {
    MEASURES.iter().for_each(run);
}

fn two() -> (Net, Host, Host) {
    let mut lab = Lab::new();
    let (client, server) = (lab.host("client"), lab.host("server"));
    (lab.up().expect("up"), client, server)
}

/// How long the first connections of a laboratory take, while each core has something to do, and other laboratories are made.
///
/// An IPv6 address takes packets only when a worker of the kernel has made it ready. The worker needs a lock that all networks of the machine share. If
/// it comes too late, the first packet is dropped, and TCP sends the next a second later. `Lab::up` waits for the worker: `wait_for_v6` in
/// `runtime/src/net/lab/host.rs`.
///
/// On Linux 6.18 with two cores, none of 500 took more than 100 ms; the longest took 30 over IPv6 and 26 over IPv4. Without `wait_for_v6`, 18 did over
/// IPv6, the longest 1040.
fn first_connects() -> u8 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let is_over = AtomicBool::new(false);
    let connects: Vec<[f64; 2]> = thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        let makers = [(); MAKERS].map(|()| scope.spawn(|| [(); LABS / MAKERS].map(|()| connect_first())));
        let connects = makers.into_iter().flat_map(|maker| maker.join().expect("it connects")).collect();
        is_over.store(true, Ordering::Relaxed);
        connects
    });
    println!("\nfirst connects of {} laboratories, {MAKERS} at once, {cores} cores busy; milliseconds", connects.len());
    println!("{:<12} {:>10} {:>8} {:>8}", "", "min", "median", "p90");
    for (number, name) in ["IPv6", "IPv4"].into_iter().enumerate() {
        let millis: Vec<f64> = connects.iter().map(|times| times[number]).collect();
        let slow = millis.iter().filter(|time| **time > 100.0).count();
        let longest = millis.iter().copied().fold(0.0, f64::max);
        print_row(name, millis, &[]);
        println!("the longest took {longest:.2}, and {slow} of them more than 100");
    }
    0
}

/// Makes a laboratory, and says how many milliseconds its first connections took, over IPv6 and over IPv4.
fn connect_first() -> [f64; 2] {
    let (_net, client, server) = two();
    let _listener = server.run(|| TcpListener::bind("[::]:80").expect("bind"));
    ["[fd00::2]:80", "10.0.0.2:80"].map(|address| {
        client.run(|| {
            let begun = Instant::now();
            TcpStream::connect(address).expect("connect");
            begun.elapsed().as_secs_f64() * 1e3
        })
    })
}

/// How long a round trip takes with a delay of 10 ms each way.
fn delay() -> u8 {
    let (net, client, server) = two();
    net.port(&client).delay(Duration::from_millis(10));
    let there = server.run(|| UdpSocket::bind("10.0.0.2:7").expect("bind"));
    let here = client.run(|| UdpSocket::bind("10.0.0.1:8").expect("bind"));
    here.connect("10.0.0.2:7").expect("connect");
    there.connect("10.0.0.1:8").expect("connect");
    let millis = thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..TRIPS {
                there.recv(&mut [0; 8]).and_then(|_| there.send(b"pong")).expect("answer");
            }
        });
        let trip = |_| {
            let begun = Instant::now();
            here.send(b"ping").and_then(|_| here.recv(&mut [0; 8])).expect("ask");
            begun.elapsed().as_secs_f64() * 1e3
        };
        (0..TRIPS).map(trip).collect::<Vec<_>>()
    });
    println!("\n{TRIPS} round trips with 10 ms each way; milliseconds");
    println!("{:<12} {:>10} {:>8} {:>8}", "", "min", "median", "p90");
    print_row("round trip", millis, &[]);
    0
}

/// Sends without end from the server to the client, and returns for how many seconds of that something was measured, and the bytes that the
/// client has read meanwhile. What comes in the first half second is not measured.
fn stream(client: &Host, server: &Host, pause: Duration, mut measured: impl FnMut()) -> (f64, u64) {
    let listener = server.run(|| TcpListener::bind("[::]:80").expect("bind"));
    thread::scope(|scope| {
        scope.spawn(|| {
            let data = vec![7; 1 << 18];
            let (mut stream, _) = listener.accept().expect("accept");
            while stream.write_all(&data).is_ok() {}
        });
        let mut stream = client.run(|| TcpStream::connect("10.0.0.2:80").expect("connect"));
        let mut data = vec![0; 1 << 18];
        let mut read = || {
            thread::sleep(pause);
            stream.read(&mut data).expect("read") as u64
        };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(500) {
            read();
        }
        measured();
        let (begun, mut bytes) = (Instant::now(), 0);
        while begun.elapsed() < STREAM {
            bytes += read();
        }
        measured();
        (begun.elapsed().as_secs_f64(), bytes)
    })
}

/// How fast frames pass whose rate is limited: all of each frame counts.
fn rates() -> u8 {
    println!("\nrates, for {} s each; Mbit/s of frames", STREAM.as_secs());
    for written in [10_000_000, 100_000_000] {
        let (net, client, server) = two();
        net.port(&client).to_host().rate(written);
        let mut delivered = Vec::new();
        let (seconds, _) = stream(&client, &server, Duration::ZERO, || {
            delivered.push(net.port(&client).to_host().stats().delivered_bytes)
        });
        let measured = (delivered[1] - delivered[0]) as f64 * 8.0 / seconds;
        let off = (measured / written as f64 - 1.0) * 100.0;
        println!("{:>6} written, {:>8.2} measured, {off:+.2} %", written / 1_000_000, measured / 1e6);
    }
    0
}

/// How many packets this host has sent.
fn sent(host: &Host) -> u64 {
    let path = "/sys/class/net/eth0/statistics/tx_packets";
    host.run(|| fs::read_to_string(path)).expect("read").trim().parse().expect("a number")
}

/// How much passes without faults, and how much of it is lost: to a reader that the kernel wakes up for each packet, which the wire's processor
/// does, and to one that looks again some time after it has read.
fn faultless() -> u8 {
    println!("\nstreams without faults, for {} s each", STREAM.as_secs());
    for pause in [Duration::ZERO, Duration::from_micros(100)] {
        let (net, client, server) = two();
        let (seconds, bytes) = stream(&client, &server, pause, || {});
        let hosts = [&client, &server];
        let of_hosts = hosts.map(sent).iter().sum::<u64>();
        let stats = hosts.map(|host| net.port(host).from_host().stats());
        let taken: u64 = stats.iter().map(|stats| stats.sent + stats.upkeep).sum();
        let lost: u64 = hosts.map(|host| net.port(host).stats().lost).iter().sum();
        let size = stats[1].sent_bytes / stats[1].sent.max(1);
        let speed = bytes as f64 * 8.0 / seconds / 1e9;
        println!("{speed:.2} Gbit/s of data, read after pauses of {pause:?}, in frames of {size} bytes on average");
        println!(
            "{of_hosts} packets sent by the hosts, {} of them not taken by the wire, {lost} lost by it",
            of_hosts - taken.min(of_hosts)
        );
    }
    0
}
