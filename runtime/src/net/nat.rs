//! What a router does beside forwarding: translation of addresses, forwarded ports, and a firewall. Here is what a test asks for;
//! `lab/gates.rs` finds out what that means for interfaces, and `netfilter.rs` has the kernel do it.

use super::gate::{Forward, Nat};
use super::host::{Host, Router};
use super::node::End;

impl Router {
    /// Has it translate addresses, IPv4 and IPv6: what it forwards to the outside has its own address there, and answers find their way back.
    ///
    /// The outside is what its *last* link leads to, or what [`outside`](Self::outside) says. All its other links are inside. Hosts on the
    /// outside have no route to the inside, so that they reach it only by answers and by [`forward`](Self::forward).
    ///
    /// TCP and UDP from the outside that are for the router itself are dropped, as home routers do. So is what the inside sends that belongs to
    /// no connection, such as an answer that nobody has asked for: the kernel does not translate it.
    ///
    /// It takes nf_tables in the kernel, with the modules `nft_chain_nat`, `nft_masq` and `nft_ct`. Where they are missing, [`Lab::up`](super::Lab::up)
    /// fails and names the module. No program such as `nft` is needed.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// use std::net::UdpSocket;
    ///
    /// use belljar::net::{Lab, Nat};
    ///
    /// #[isolated]
    /// fn the_server_sees_the_router() {
    ///     let mut lab = Lab::new();
    ///     let (laptop, server) = (lab.host("laptop"), lab.host("server"));
    ///     let home = lab.router("home").nat(Nat::Masquerade);
    ///     lab.link(&laptop, &home); // 10.0.0.1 and 10.0.0.2
    ///     lab.link(&home, &server); // 10.0.1.1 and 10.0.1.2
    ///     let _net = lab.up().unwrap();
    ///     let socket = server.run(|| UdpSocket::bind("10.0.1.2:53").unwrap());
    ///     laptop.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hello", "10.0.1.2:53").unwrap());
    ///     assert_eq!(socket.recv_from(&mut [0; 8]).unwrap().1.ip().to_string(), "10.0.1.1");
    /// }
    /// ```
    pub fn nat(&self, nat: Nat) -> Self {
        self.0.0.gate().nat = Some(nat);
        self.clone()
    }

    /// Has TCP connections and UDP packets that come from the outside to this port of the router go to a port of a host inside, also of one
    /// behind another router. It takes [`nat`](Self::nat), and the module `nft_nat` in the kernel.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::{Lab, Nat};
    /// # use std::net::{TcpListener, TcpStream};
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// let (web, visitor) = (lab.host("web"), lab.host("visitor"));
    /// let home = lab.router("home").nat(Nat::Masquerade).forward(8080, &web, 80);
    /// lab.link(&web, &home);
    /// lab.link(&home, &visitor); // the router is 10.0.1.1 there
    /// let _net = lab.up().unwrap();
    /// let _server = web.run(|| TcpListener::bind("0.0.0.0:80").unwrap());
    /// visitor.run(|| TcpStream::connect("10.0.1.1:8080").unwrap());
    /// # }
    /// ```
    pub fn forward(&self, port: u16, to: &Host, to_port: u16) -> Self {
        self.0.0.gate().forwards.push(Forward { port, to: to.0.peer(), to_port });
        self.clone()
    }

    /// Has it let nothing pass from the outside but what belongs to a connection that the inside has begun, errors about such a one, and what
    /// [`forward`](Self::forward) lets in. Everything else is dropped, without an answer.
    ///
    /// Packets to the router itself pass. If the router has [`nat`](Self::nat) too, TCP and UDP that the outside begins is dropped there as well.
    ///
    /// It works with [`nat`](Self::nat) and without. Without it, hosts outside have routes to the inside, but get no answer.
    ///
    /// It takes the module `nft_ct` in the kernel.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # use std::net::{TcpListener, TcpStream};
    /// # use std::time::Duration;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// let (office, visitor) = (lab.host("office"), lab.host("visitor"));
    /// let gateway = lab.router("gateway").firewall();
    /// lab.link(&office, &gateway); // 10.0.0.1
    /// lab.link(&gateway, &visitor); // 10.0.1.2
    /// let _net = lab.up().unwrap();
    /// let [_inside, _outside] = [&office, &visitor].map(|host| host.run(|| TcpListener::bind("0.0.0.0:80").unwrap()));
    /// let connect = |address: &str| TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_millis(100));
    /// office.run(|| connect("10.0.1.2:80")).unwrap();
    /// visitor.run(|| connect("10.0.0.1:80")).unwrap_err();
    /// # }
    /// ```
    pub fn firewall(&self) -> Self {
        self.0.0.gate().has_firewall = true;
        self.clone()
    }

    /// Says which of its links leads to the outside, for [`nat`](Self::nat), [`forward`](Self::forward) and [`firewall`](Self::firewall): the
    /// one with this switch, host or router. Without this, it is the last.
    ///
    /// ```
    /// # use belljar::net::{Lab, Nat};
    /// let mut lab = Lab::new();
    /// let internet = lab.switch("internet");
    /// let home = lab.router("home").nat(Nat::Masquerade).outside(&internet);
    /// ```
    pub fn outside(&self, of: &impl End) -> Self {
        self.0.0.gate().outside = Some(of.node().peer());
        self.clone()
    }
}
