//! How long it takes until a laboratory is up, and how long it takes to drop it, beside the same by `ip` commands in turn. Nobody
//! waits until its processes have ended.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use belljar::__private::{Test, run};
use belljar::net::Lab;

use super::{SPEC, print_row, time};

const ROUNDS: usize = 31;

/// In which the kernel takes down the networks of the one before. On a quiet machine, nobody waits for that.
const PAUSE: Duration = Duration::from_millis(200);

/// Laboratories of two and of eight hosts.
static LABS: [Test; 2] = [
    Test { name: "bench::two_hosts", spec: SPEC, body: measure::<2>, ..Test::PLAIN },
    Test { name: "bench::eight_hosts", spec: SPEC, body: measure::<8>, ..Test::PLAIN },
];

pub(super) fn compare() {
    println!("laboratories, {ROUNDS} rounds; milliseconds");
    LABS.iter().for_each(run);
}

/// In a sandbox: makes laboratories of so many hosts.
fn measure<const HOSTS: usize>() -> u8 {
    let (mut up, mut down, mut by_ip) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let mut lab = Lab::new();
        (0..HOSTS).for_each(|host| drop(lab.host(&format!("host{host}"))));
        thread::sleep(PAUSE);
        let begun = Instant::now();
        let net = lab.up().expect("up");
        let made = begun.elapsed();
        let begun = Instant::now();
        drop((net, lab));
        let gone = begun.elapsed();
        thread::sleep(PAUSE);
        let commands = time(|| make_by_ip(HOSTS));
        // The first round finds nothing in caches.
        if round > 0 {
            up.push(made.as_secs_f64() * 1e3);
            down.push(gone.as_secs_f64() * 1e3);
            by_ip.push(commands.as_secs_f64() * 1e3);
        }
    }
    println!("\n{:<12} {:>10} {:>8} {:>8}", format!("{HOSTS} hosts"), "min", "median", "p90");
    print_row("up", up, &[]);
    print_row("down", down, &[]);
    print_row("by ip", by_ip, &[]);
    0
}

/// Makes hosts on a bridge, with addresses of both kinds, and removes them.
fn make_by_ip(hosts: usize) {
    let mut script =
        "ip netns add fabric; ip -n fabric link add br0 type bridge; ip -n fabric link set br0 up\n".to_owned();
    for host in 0..hosts {
        script += &format!(
            "ip netns add h{host}; ip link add eth0 netns h{host} type veth peer name p{host} netns fabric
             ip -n fabric link set p{host} master br0 up; ip -n h{host} link set lo up; ip -n h{host} link set eth0 up
             ip -n h{host} address add 10.0.0.{}/24 dev eth0; ip -n h{host} address add fd00::{}/64 dev eth0 nodad\n",
            host + 1,
            host + 1
        );
    }
    script += "ip netns delete fabric\n";
    (0..hosts).for_each(|host| script += &format!("ip netns delete h{host}\n"));
    let status = Command::new("sh").args(["-ec", &script]).status().expect("sh");
    assert!(status.success(), "{status}: this takes iproute2");
}
