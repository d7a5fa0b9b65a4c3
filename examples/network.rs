//! A network laboratory: several hosts, a bad link between them, and what clients, servers and clusters make of it.
//!
//! `docs/network.md` shows these.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::{self, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::time::{Duration, Instant};

    use belljar::isolated;
    use belljar::net::{Host, Lab, Nat, Packets};

    /// Asks until there is an answer, at most so many times. Returns how often that was.
    fn ask(server: &str, attempts: usize) -> io::Result<usize> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect(server)?;
        for attempt in 1..=attempts {
            socket.send(b"ask")?;
            if socket.recv(&mut [0; 16]).is_ok() {
                return Ok(attempt);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Answers whoever asks, for ever.
    fn answer(socket: &UdpSocket) {
        let mut text = [0; 16];
        loop {
            let (length, client) = socket.recv_from(&mut text).unwrap();
            socket.send_to(&text[..length], client).unwrap();
        }
    }

    #[isolated]
    fn a_client_asks_again() {
        let mut lab = Lab::new();
        let (server, client) = (lab.host("server"), lab.host("client"));
        let net = lab.seed(7).up().unwrap();
        let socket = server.run(|| UdpSocket::bind("10.0.0.1:53").unwrap());
        server.spawn(move || answer(&socket));

        // The next two answers are lost.
        net.port(&client).to_host().lose_nth(1).lose_nth(2);
        assert!(client.run(|| ask("10.0.0.1:53", 20)).unwrap() >= 3);
        assert_eq!(net.port(&client).stats().lost_as_told, 2);

        // Half of all packets are lost: the same ones in each run.
        net.port(&client).loss(0.5);
        client.run(|| ask("10.0.0.1:53", 20)).unwrap();

        // All requests are lost, and the client gives up.
        net.port(&client).loss(0.0).lose_when(Packets::udp().to_port(53));
        assert_eq!(client.run(|| ask("10.0.0.1:53", 3)).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    /// The nodes that this one reaches, itself among them.
    fn reached(from: &Host, nodes: &[Host]) -> BTreeSet<String> {
        let answers = |node: &&Host| from.run(|| ask(&format!("{}:7000", node.name()), 1).is_ok());
        nodes.iter().filter(answers).map(|node| node.name().to_owned()).collect()
    }

    /// Who leads, in the eyes of a node: the first of those that it reaches, if they are more than half.
    fn leader(from: &Host, nodes: &[Host]) -> Option<String> {
        let reached = reached(from, nodes);
        if reached.len() > nodes.len() / 2 { reached.first().cloned() } else { None }
    }

    /// Whether a node comes to follow this leader: one that answers late is reached at another try.
    fn follows(node: &Host, nodes: &[Host], name: &str) -> bool {
        (0..10).any(|_| leader(node, nodes).as_deref() == Some(name))
    }

    #[isolated]
    fn the_larger_part_has_a_leader() {
        let mut lab = Lab::new();
        let nodes = ["a", "b", "c"].map(|name| lab.host(name));
        let net = lab.up().unwrap();
        for node in &nodes {
            let socket = node.run(|| UdpSocket::bind("0.0.0.0:7000").unwrap());
            node.spawn(move || answer(&socket));
        }
        let [a, b, c] = &nodes;
        assert!([a, b, c].iter().all(|node| follows(node, &nodes, "a")));

        net.partition([a], [b, c]);
        assert_eq!(leader(a, &nodes), None);
        assert!([b, c].iter().all(|node| follows(node, &nodes, "b")));

        net.heal();
        assert!(follows(a, &nodes, "a"));
    }

    #[isolated]
    fn a_download_takes_its_time() {
        const SIZE: usize = 1 << 20;
        let mut lab = Lab::new();
        let (home, gateway, server) = (lab.host("home"), lab.router("gateway"), lab.host("server"));
        lab.link(&home, &gateway);
        lab.link(&gateway, &server);
        let net = lab.up().unwrap();
        net.port(&home).to_host().rate(20_000_000).delay(Duration::from_millis(10));

        let listener = server.run(|| TcpListener::bind("[::]:80").unwrap());
        server.spawn(move || listener.accept().unwrap().0.write_all(&vec![7; SIZE]).unwrap());
        let begun = Instant::now();
        let mut data = Vec::new();
        home.run(|| TcpStream::connect("server:80").unwrap()).read_to_end(&mut data).unwrap();
        assert_eq!(data.len(), SIZE);
        assert!(begun.elapsed() >= Duration::from_millis(400), "20 Mbit/s are 2.5 MB/s at most");
    }

    /// Two hosts behind two home routers, which tell each other their outer addresses by a server: can they talk?
    fn find_each_other(nat: Nat) -> io::Result<String> {
        let mut lab = Lab::new();
        let (internet, server) = (lab.switch("internet"), lab.host("server"));
        lab.link(&server, &internet); // 10.0.0.1
        let peers = ["alice", "bob"].map(|name| {
            let (peer, home) = (lab.host(name), lab.router(&format!("{name}s-home")).nat(nat).outside(&internet));
            lab.link(&peer, &home);
            lab.link(&home, &internet);
            peer
        });
        let _net = lab.up().unwrap();

        let meeting = server.run(|| UdpSocket::bind("10.0.0.1:3478").unwrap());
        let [alice, bob] = peers.map(|peer| peer.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()));
        let [alice_outside, bob_outside] = [&alice, &bob].map(|peer| {
            peer.send_to(b"who am I?", "10.0.0.1:3478").unwrap();
            meeting.recv_from(&mut [0; 16]).unwrap().1
        });
        // Each opens its own router for the other. The first packet may still find the other's closed.
        let mut text = [0; 16];
        alice.set_read_timeout(Some(Duration::from_millis(200)))?;
        for _ in 0..5 {
            alice.send_to(b"open", bob_outside)?;
            bob.send_to(b"hello", alice_outside)?;
            if let Ok((length, _)) = alice.recv_from(&mut text) {
                return Ok(String::from_utf8_lossy(&text[..length]).into_owned());
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    #[isolated]
    fn holes_are_punched() {
        assert_eq!(find_each_other(Nat::Masquerade).unwrap(), "hello");
        // Such routers take another port for each destination. A relay is needed.
        find_each_other(Nat::Symmetric).unwrap_err();
    }
}
