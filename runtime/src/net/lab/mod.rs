//! What a laboratory is to be, as a test says it.

mod addresses;
mod channel;
mod gates;
mod host;
mod make;
pub(in crate::net) mod plan;
mod routes;
mod settings;

use std::fmt::{self, Debug, Formatter};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::collect::CollectVec as _;
use crate::net::error::{Error, ErrorKind};
use crate::net::host::{Host, Router};
use crate::net::inside::{self, Inside, LEAST_CAPTURE, MOST_CAPTURE};
use crate::net::network::Net;
use crate::net::node::sealed::Sealed;
use crate::net::node::{Choice, End, Node, Role};
use crate::sys::is_marked_process;

use plan::{Draft, DraftEnd, DraftNode, Plan};

/// A laboratory that is being put together: hosts, and what is between them. [`up`](Self::up) makes it.
///
/// | | |
/// | --- | --- |
/// | [`host`](Self::host) | A host. Those that nothing links are on one switch. |
/// | [`switch`](Self::switch) | Connects any number of hosts and routers, which are linked with it. |
/// | [`router`](Self::router) | Forwards packets between its links. The others find their ways through routers by themselves. |
/// | [`link`](Self::link) | A link of a host or a router with another, or with a switch. |
///
/// Each switch, and each link without a switch, has a subnet. They are counted, the switch for those without a link first, then the switches
/// and then the links: 10.0.0.0/24 and fd00::/64 is the first, 10.0.1.0/24 and fd00:0:0:1::/64 the second. The addresses in each are given in
/// the order of the links: 10.0.0.1 and fd00::1, 10.0.0.2 and fd00::2. All can be chosen. The names are in `/etc/hosts` on every host.
///
/// The test itself is on no host, and reaches none.
///
/// ```test_harness
/// # use belljar::isolated;
/// use std::net::UdpSocket;
///
/// use belljar::net::Lab;
///
/// #[isolated]
/// fn a_datagram_crosses_the_switch() {
///     let mut lab = Lab::new();
///     let server = lab.host("server"); // 10.0.0.1 and fd00::1
///     let client = lab.host("client"); // 10.0.0.2 and fd00::2
///     let _net = lab.up().unwrap();
///     let socket = server.run(|| UdpSocket::bind("10.0.0.1:53").unwrap());
///     client.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hello", "10.0.0.1:53").unwrap());
///     let mut text = [0; 8];
///     assert_eq!(socket.recv_from(&mut text).unwrap().1.ip().to_string(), "10.0.0.2");
/// }
/// ```
pub struct Lab {
    /// What tells it from others.
    number: u64,
    nodes: Vec<Arc<Node>>,
    links: Vec<Link>,
    seed: u64,
    /// How many bytes of packets are kept, if that was chosen.
    capture: Option<usize>,
    was_up: bool,
}

/// A switch: it connects all that are linked with it. [`Lab::switch`] makes one.
///
/// ```test_harness
/// # use belljar::isolated;
/// # use belljar::net::Lab;
/// # #[isolated]
/// # fn example() {
/// let mut lab = Lab::new();
/// let lan = lab.switch("lan").subnet("192.0.2.0/24");
/// let server = lab.host("server");
/// lab.link(&server, &lan);
/// let _net = lab.up().unwrap();
/// server.run(|| std::net::TcpListener::bind("192.0.2.1:80").unwrap());
/// # }
/// ```
#[derive(Clone)]
pub struct Switch(Arc<Node>);

impl Sealed for Switch {
    fn node(&self) -> &Arc<Node> {
        &self.0
    }
}

impl End for Switch {}

impl Switch {
    /// Chooses its subnet: `192.0.2.0/24`. It has one for IPv4 and one for IPv6, and that of the other kind is as without this.
    ///
    /// ```
    /// # use belljar::net::Lab;
    /// let mut lab = Lab::new();
    /// let lan = lab.switch("lan").subnet("192.0.2.0/24").subnet("2001:db8::/64");
    /// ```
    pub fn subnet(&self, subnet: &str) -> Self {
        self.0.choice().addresses.push(subnet.to_owned());
        self.clone()
    }

    /// Its name.
    ///
    /// ```
    /// # use belljar::net::Lab;
    /// assert_eq!(Lab::new().switch("lan").name(), "lan");
    /// ```
    pub fn name(&self) -> &str {
        &self.0.name
    }
}

impl Debug for Switch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Switch({})", self.name())
    }
}

/// A link, whose ends have what is chosen here. [`Lab::link`] makes one.
///
/// ```test_harness
/// # use belljar::isolated;
/// # use belljar::net::Lab;
/// # #[isolated]
/// # fn example() {
/// let mut lab = Lab::new();
/// let (home, gateway) = (lab.host("home"), lab.router("gateway"));
/// lab.link(&home, &gateway).address(&gateway, "192.0.2.254/24").interface(&gateway, "lan0").mtu(1400);
/// let _net = lab.up().unwrap();
/// home.run(|| std::net::UdpSocket::bind("192.0.2.1:0").unwrap());
/// # }
/// ```
#[derive(Clone)]
pub struct Link(Arc<LinkParts>);

struct LinkParts {
    ends: [Arc<Node>; 2],
    choices: Mutex<[Choice; 2]>,
    /// What is wrong with a choice for it.
    wrong: Mutex<Option<ErrorKind>>,
}

impl Link {
    fn new(first: &impl End, second: &impl End) -> Self {
        let ends = [first.node().clone(), second.node().clone()];
        Self(Arc::new(LinkParts { ends, choices: Mutex::default(), wrong: Mutex::default() }))
    }

    fn choices(&self) -> MutexGuard<'_, [Choice; 2]> {
        self.0.choices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self) -> MutexGuard<'_, Option<ErrorKind>> {
        self.0.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing can be chosen for this one.
    fn no_end(&self, node: &Arc<Node>) -> ErrorKind {
        if self.0.ends.iter().any(|own| Arc::ptr_eq(own, node)) {
            return ErrorKind::OfSwitch(node.name.clone());
        }
        let [first, second] = self.0.ends.each_ref().map(|end| &end.name);
        ErrorKind::NoEnd { link: format!("of `{first}` and `{second}`"), node: node.name.clone() }
    }

    fn choose(&self, end: &impl End, choose: impl FnOnce(&mut Choice)) -> Self {
        let node = end.node();
        match self.0.ends.iter().position(|own| Arc::ptr_eq(own, node) && node.role != Role::Switch) {
            Some(index) => choose(&mut self.choices()[index]),
            None => *self.wrong() = Some(self.no_end(node)),
        }
        self.clone()
    }

    /// Chooses an address of one end, with the bits of its subnet: `192.0.2.7/24`.
    ///
    /// ```
    /// # use belljar::net::Lab;
    /// # let mut lab = Lab::new();
    /// # let (home, gateway) = (lab.host("home"), lab.router("gateway"));
    /// lab.link(&home, &gateway).address(&gateway, "192.0.2.254/24").address(&gateway, "2001:db8::1/64");
    /// ```
    pub fn address(&self, end: &impl End, address: &str) -> Self {
        self.choose(end, |choice| choice.addresses.push(address.to_owned()))
    }

    /// Chooses the MAC address of one end: `02:00:00:00:00:07`.
    ///
    /// ```
    /// # use belljar::net::Lab;
    /// # let mut lab = Lab::new();
    /// # let (home, gateway) = (lab.host("home"), lab.router("gateway"));
    /// lab.link(&home, &gateway).mac(&gateway, "02:00:00:00:00:07");
    /// ```
    pub fn mac(&self, end: &impl End, mac: &str) -> Self {
        self.choose(end, |choice| choice.mac = Some(mac.to_owned()))
    }

    /// Chooses the name of the interface at one end. Without this, they are `eth0`, `eth1` and so on.
    ///
    /// ```
    /// # use belljar::net::Lab;
    /// # let mut lab = Lab::new();
    /// # let (home, gateway) = (lab.host("home"), lab.router("gateway"));
    /// lab.link(&home, &gateway).interface(&gateway, "lan0");
    /// ```
    pub fn interface(&self, end: &impl End, name: &str) -> Self {
        self.choose(end, |choice| choice.interface = Some(name.to_owned()))
    }

    /// Chooses how many bytes packets on it can have: 68 to 9000, and 1500 without this. Below 1280, there is no IPv6.
    ///
    /// ```
    /// # use belljar::net::Lab;
    /// # let mut lab = Lab::new();
    /// # let (home, gateway) = (lab.host("home"), lab.router("gateway"));
    /// lab.link(&home, &gateway).mtu(1400);
    /// ```
    pub fn mtu(&self, bytes: u32) -> Self {
        self.choices().iter_mut().for_each(|choice| choice.mtu = Some(bytes));
        self.clone()
    }
}

impl Debug for Link {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [first, second] = self.0.ends.each_ref().map(|end| &end.name);
        write!(f, "Link({first}, {second})")
    }
}

impl Lab {
    /// One with nothing in it.
    ///
    /// ```
    /// let lab = belljar::net::Lab::new();
    /// ```
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { number, nodes: Vec::new(), links: Vec::new(), seed: 0, capture: None, was_up: false }
    }

    /// A host. Its name has 1 to 63 letters, digits and `-`, with no `-` at its ends. It is no number, and no other node has it.
    ///
    /// ```
    /// let mut lab = belljar::net::Lab::new();
    /// let server = lab.host("server");
    /// ```
    pub fn host(&mut self, name: &str) -> Host {
        Host(self.node(name, Role::Host))
    }

    /// A router: a host that forwards packets.
    ///
    /// ```
    /// let mut lab = belljar::net::Lab::new();
    /// let gateway = lab.router("gateway");
    /// ```
    pub fn router(&mut self, name: &str) -> Router {
        Router(Host(self.node(name, Role::Router)))
    }

    /// A switch.
    ///
    /// ```
    /// let mut lab = belljar::net::Lab::new();
    /// let lan = lab.switch("lan");
    /// ```
    pub fn switch(&mut self, name: &str) -> Switch {
        Switch(self.node(name, Role::Switch))
    }

    fn node(&mut self, name: &str, role: Role) -> Arc<Node> {
        let node = Arc::new(Node::new(self.number, self.nodes.len(), name, role));
        self.nodes.push(node.clone());
        node
    }

    /// Links two: each host or router has one more interface.
    ///
    /// ```
    /// let mut lab = belljar::net::Lab::new();
    /// let (home, gateway, lan) = (lab.host("home"), lab.router("gateway"), lab.switch("lan"));
    /// lab.link(&home, &lan);
    /// lab.link(&gateway, &lan);
    /// ```
    pub fn link(&mut self, first: &impl End, second: &impl End) -> Link {
        let link = Link::new(first, second);
        self.links.push(link.clone());
        link
    }

    /// What the faults follow from: with the same seed, the same packets are lost in every run. Without this, it is 0.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # #[isolated]
    /// # fn example() {
    /// let mut lab = belljar::net::Lab::new();
    /// lab.host("server");
    /// let net = lab.seed(7).up().unwrap();
    /// # drop(net);
    /// # }
    /// ```
    pub fn seed(&mut self, seed: u64) -> &mut Self {
        self.seed = seed;
        self
    }

    /// How many bytes of packets are kept for [`Net::capture`] and for a failure: the oldest go. They count for the test's `memory`. By default,
    /// it is 64 MiB, or an eighth of `memory` if that is less, but at least 64 KiB. A value is kept between 64 KiB and 1 GiB.
    ///
    /// ```
    /// let mut lab = belljar::net::Lab::new();
    /// lab.capture_size(1 << 20);
    /// ```
    pub fn capture_size(&mut self, bytes: usize) -> &mut Self {
        self.capture = Some(bytes.clamp(LEAST_CAPTURE, MOST_CAPTURE));
        self
    }

    /// Makes it: from now on, things can be done on its hosts. They stay for as long as what this returns, or until the sandbox ends.
    ///
    /// # Errors
    ///
    /// If what was asked for can't be: then nothing was made. Outside of sandboxes, in a sandbox with the host's network, and where the test is
    /// not root inside. And if the kernel refuses a step.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// let mut lab = Lab::new();
    /// let (left, right) = (lab.switch("left"), lab.switch("right"));
    /// let (server, client) = (lab.host("server"), lab.host("client"));
    /// lab.link(&server, &left);
    /// lab.link(&client, &right);
    /// let error = lab.up().unwrap_err();
    /// assert!(error.to_string().contains("there is nobody to route through"), "{error}");
    /// # }
    /// ```
    pub fn up(&mut self) -> Result<Net, Error> {
        let inside = check_place()?;
        if self.was_up {
            return Err(Error(ErrorKind::UpTwice));
        }
        let mut plan = Plan::of(self.draft()?).map_err(Error)?;
        addresses::assign(&mut plan, settings::has_v6()).and_then(|()| plan.check_ways()).map_err(Error)?;
        gates::plan_gates(&mut plan, &self.nodes).map_err(Error)?;
        if inside.mount {
            host::have_hosts_file();
        }
        let made = make::make(&plan, self.seed, self.capture.unwrap_or_else(|| inside.capture()))?;
        self.was_up = true;
        (inside.hand_over)(&[made.wire.capture_file(), made.wire.trouble_file()]);
        for (node, place) in made.places {
            if let Some(hand_over) = inside.hand_over_host {
                let namespaces = place.namespaces().iter().chain([&made.fabric]).map(AsFd::as_fd);
                hand_over(&self.nodes[node].name, &namespaces.collect_vec());
            }
            self.nodes[node].set_place(place);
        }
        Ok(Net::new(plan, self.nodes.clone(), made.wire, made.fabric))
    }

    /// What was asked for until now.
    fn draft(&self) -> Result<Draft, Error> {
        let node =
            |node: &Arc<Node>| DraftNode { name: node.name.clone(), role: node.role, choice: node.choice().clone() };
        let mut draft = Draft { nodes: self.nodes.iter().map(node).collect_vec(), links: Vec::new() };
        for link in &self.links {
            if let Some(foreign) = link.0.ends.iter().find(|end| end.lab != self.number) {
                return Err(Error(ErrorKind::Foreign(foreign.name.clone())));
            }
            if let Some(trouble) = link.wrong().clone() {
                return Err(Error(trouble));
            }
            let [first, second] = link.choices().clone();
            let [one, other] = link.0.ends.each_ref().map(|end| end.index);
            draft.links.push([DraftEnd { node: one, choice: first }, DraftEnd { node: other, choice: second }]);
        }
        Ok(draft)
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Debug for Lab {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes.iter().map(|node| &node.name).collect_vec();
        f.debug_struct("Lab").field("nodes", &nodes).field("links", &self.links).field("seed", &self.seed).finish()
    }
}

/// Fails if there can be no laboratory where this is called.
fn check_place() -> Result<Inside, Error> {
    let trouble = match inside::get() {
        None => ErrorKind::Outside,
        Some(Inside { net: false, .. }) => ErrorKind::NoNetwork,
        Some(Inside { user: Some(user), .. }) => ErrorKind::NoRoot(user),
        Some(_) if !is_marked_process() => ErrorKind::Forked,
        Some(inside) => return Ok(inside),
    };
    Err(Error(trouble))
}
