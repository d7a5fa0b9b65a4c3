//! What a bad link does to packets: what is asked for, and the same in every run.

mod captures;
mod faults;
mod same;
mod told;

use std::fs;
use std::io::{self, Read as _};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use belljar::isolated;
use belljar::net::{Host, Lab, Net, Port};

use belljar_tests::wait_until;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::sys::utsname::uname;
use nix::unistd::Pid;

belljar_tests::bodies!();

/// For how long something is waited for that is to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// For how long something is waited for that may not come.
const SHORT: Duration = Duration::from_millis(100);

/// A client and a server.
fn two(seed: u64) -> (Net, Host, Host) {
    let mut lab = Lab::new();
    let (client, server) = (lab.host("client"), lab.host("server"));
    let net = lab.seed(seed).up().expect("up");
    (net, client, server)
}

/// A socket on a host that is to receive.
fn receiver(host: &Host, port: u16) -> UdpSocket {
    let socket = host.run(|| UdpSocket::bind(("::", port))).expect("bind");
    socket.set_read_timeout(Some(SHORT)).expect("timeout");
    socket
}

/// A socket on the client, with an ephemeral port, that sends to the server.
fn sender(host: &Host, address: &str) -> UdpSocket {
    let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    host.run(|| UdpSocket::bind(any).and_then(|socket| socket.connect(address).map(|()| socket))).expect("connect")
}

/// A thread on a host that returns all that one client sends to port 80.
fn reader(host: &Host) -> JoinHandle<Vec<u8>> {
    let listener = host.run(|| TcpListener::bind("[::]:80")).expect("bind");
    host.spawn(move || {
        let mut got = Vec::new();
        listener.accept().expect("accept").0.read_to_end(&mut got).expect("read");
        got
    })
}

/// The numbers of all datagrams that come, until all are sent and none comes for a while.
fn numbers(socket: &UdpSocket, is_over: &AtomicBool) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut text = [0; 2048];
    loop {
        let was_over = is_over.load(Ordering::Acquire);
        match socket.recv(&mut text) {
            Ok(_) => numbers.push(u32::from_le_bytes(text[..4].try_into().expect("four bytes"))),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => panic!("{error}"),
            Err(_) if was_over => break numbers,
            Err(_) => {}
        }
    }
}

/// Whether the kernel may change the order of what is sent from two busy processors: before 6.4. See docs/network.md.
fn may_overtake() -> bool {
    let release = uname().expect("uname").release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
    (numbers.next().flatten(), numbers.next().flatten()) < (Some(6), Some(4))
}

/// Has this thread stay on the processor that it is on, until what is returned is dropped.
fn stay() -> impl Drop {
    struct Stays(CpuSet);
    impl Drop for Stays {
        fn drop(&mut self) {
            let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
        }
    }
    let all = sched_getaffinity(Pid::from_raw(0)).expect("the processors of this thread");
    let mut own = CpuSet::new();
    own.set(sched_getcpu().expect("its number")).expect("a set of one");
    sched_setaffinity(Pid::from_raw(0), &own).expect("it stays");
    Stays(all)
}

#[isolated]
fn the_wire_stays_where_it_is_if_the_order_may_change() {
    let (_net, _client, _server) = two(7);
    let processors = |process: &str| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
        let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).expect("its processors").trim();
        mask.chars().filter_map(|digit| digit.to_digit(16)).map(u32::count_ones).sum::<u32>()
    };
    let is_wire =
        |pid: &String| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "belljar-wire\n");
    let mut all =
        fs::read_dir("/proc").expect("processes").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let wire = all.find(is_wire).expect("a wire");
    let expected = if may_overtake() { 1 } else { processors("self") };
    assert_eq!(processors(&wire), expected);
}

/// Sends so many datagrams of this size, each with its number, and returns the numbers of those that come. No more are on their way than a
/// socket has room for.
fn exchange(port: Port<'_>, socket: &UdpSocket, receiver: &UdpSocket, count: u32, size: usize) -> Vec<u32> {
    let is_empty = || {
        let mut fds = [PollFd::new(receiver.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    };
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiving = scope.spawn(|| numbers(receiver, &is_over));
        let _stays = may_overtake().then(stay);
        let mut datagram = vec![7; size];
        for number in 0..count {
            if number % 50 == 49 {
                // Some may be held back, for others to overtake them.
                wait_until(|| port.stats().queued < 20 && is_empty());
            }
            datagram[..4].copy_from_slice(&number.to_le_bytes());
            socket.send(&datagram).expect("send");
        }
        wait_until(|| port.stats().queued == 0);
        is_over.store(true, Ordering::Release);
        receiving.join().expect("join")
    })
}

/// Which numbers are missing.
fn missing(numbers: &[u32], count: u32) -> Vec<u32> {
    (0..count).filter(|number| !numbers.contains(number)).collect()
}
