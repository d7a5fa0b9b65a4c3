//! A cluster whose members find each other by gossip, with [foca](https://crates.io/crates/foca): who is told of whom, when the network is divided
//! and whole again. Each member is on a host of its own.
//!
//! Neither foca nor the member knows that it is a laboratory: sockets, timers and addresses are real ones.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::num::NonZeroUsize;
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::{Duration, Instant};

    use belljar::isolated;
    use belljar::net::{Host, Lab};
    use foca::{AccumulatingRuntime, Config, Foca, Identity, PeriodicParams, PostcardCodec};
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;
    use serde::{Deserialize, Serialize};

    const PORT: u16 = 7946;
    const MS: Duration = Duration::from_millis(1);

    /// A member: where it is, and how often it has come back.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Member {
        address: Ipv4Addr,
        life: u16,
    }

    impl Identity for Member {
        type Addr = Ipv4Addr;

        fn renew(&self) -> Option<Self> {
            Some(Self { life: self.life + 1, ..*self })
        }

        fn addr(&self) -> Ipv4Addr {
            self.address
        }

        fn win_addr_conflict(&self, other: &Self) -> bool {
            self.life > other.life
        }
    }

    /// Faster than real clusters, so that a test takes seconds.
    fn config() -> Config {
        let often = |period, members| {
            let num_members = NonZeroUsize::new(members).unwrap();
            Some(PeriodicParams { frequency: period * MS, num_members })
        };
        Config {
            probe_period: 100 * MS,
            probe_rtt: 40 * MS,
            suspect_to_down_after: 300 * MS,
            notify_down_members: true,
            periodic_gossip: often(50, 3),
            periodic_announce: often(500, 1),
            // Those who were down are asked whether they are back.
            periodic_announce_to_down_members: often(200, 2),
            ..Config::simple()
        }
    }

    /// Whom a member knows.
    type Known = Arc<Mutex<BTreeSet<Ipv4Addr>>>;

    /// Takes part for ever.
    fn take_part(address: Ipv4Addr, first: Ipv4Addr, known: &Known) {
        let socket = UdpSocket::bind((address, PORT)).unwrap();
        let random = SmallRng::seed_from_u64(u32::from(address).into());
        let mut foca = Foca::new(Member { address, life: 0 }, config(), random, PostcardCodec);
        let (mut runtime, mut timers) = (AccumulatingRuntime::new(), Vec::new());
        let (mut data, mut asks) = ([0; 1500], Instant::now());
        loop {
            // Again, if nobody answers: either packet may be lost.
            if address != first && foca.num_members() == 0 && asks <= Instant::now() {
                foca.announce(Member { address: first, life: 0 }, &mut runtime).unwrap();
                asks = Instant::now() + 100 * MS;
            }
            while let Some((to, data)) = runtime.to_send() {
                let _ = socket.send_to(&data, (to.address, PORT));
            }
            while let Some((after, timer)) = runtime.to_schedule() {
                timers.push((Instant::now() + after, timer));
            }
            while runtime.to_notify().is_some() {}
            *known.lock().unwrap() = foca.iter_members().map(|member| member.id().address).collect();
            timers.sort_by_key(|(due, _)| std::cmp::Reverse(*due));
            let wait = timers.last().map_or(100 * MS, |(due, _)| due.saturating_duration_since(Instant::now()));
            if wait.is_zero() {
                let (_, timer) = timers.pop().unwrap();
                let _ = foca.handle_timer(timer, &mut runtime);
            } else {
                socket.set_read_timeout(Some(wait.max(MS))).unwrap();
                if let Ok((length, _)) = socket.recv_from(&mut data) {
                    let _ = foca.handle_data(&data[..length], &mut runtime);
                }
            }
        }
    }

    /// Waits until each of these members knows all others of them, and nobody else.
    fn know_each_other(members: &[(Ipv4Addr, Known)]) {
        let all: BTreeSet<_> = members.iter().map(|(address, _)| *address).collect();
        for (address, known) in members {
            let others = all.iter().copied().filter(|other| other != address).collect();
            while *known.lock().unwrap() != others {
                thread::sleep(10 * MS);
            }
        }
    }

    // What is waited for may take as long as it likes, up to that.
    #[isolated(timeout = "60s")]
    fn a_cluster_is_divided_and_joins_again() {
        let mut lab = Lab::new();
        let hosts = ["a", "b", "c", "d", "e"].map(|name| lab.host(name));
        let net = lab.seed(7).up().unwrap();
        // Some is lost all the time. Gossip does not mind.
        hosts.iter().for_each(|host| _ = net.port(host).loss(0.05));

        let first = Ipv4Addr::new(10, 0, 0, 1);
        let join = |(number, host): (u8, &Host)| {
            let (address, known) = (Ipv4Addr::new(10, 0, 0, number), Known::default());
            let own = known.clone();
            host.spawn(move || take_part(address, first, &own));
            (address, known)
        };
        let members: Vec<_> = (1..).zip(&hosts).map(join).collect();
        know_each_other(&members);

        // Both sides hold that the others are down.
        let (left, right) = hosts.split_at(2);
        net.partition(left, right);
        know_each_other(&members[..2]);
        know_each_other(&members[2..]);

        net.heal();
        know_each_other(&members);
    }
}
