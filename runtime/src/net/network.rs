//! A laboratory that is up, as a test has it.

use std::fmt::{self, Debug, Formatter};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, mem};

use super::host::Host;
use super::inside;
use super::lab::plan::Plan;
use super::node::{Node, Role};
use super::picture::picture;
use super::port::Port;
use super::wire::Wire;
use crate::collect::{CollectVec as _, map_both};
use crate::ns::Namespace;
use crate::sorted::Set;
use crate::sys::is_marked_process;

/// A laboratory that is up: what is between its hosts. When this is dropped, nothing connects them any more.
///
/// ```test_harness
/// # use belljar::isolated;
/// use std::net::UdpSocket;
/// use std::time::Duration;
///
/// use belljar::net::Lab;
///
/// #[isolated]
/// fn an_answer_is_lost() {
///     let mut lab = Lab::new();
///     let (server, client) = (lab.host("server"), lab.host("client"));
///     let net = lab.seed(7).up().unwrap();
///     net.port(&client).delay(Duration::from_millis(20)).to_host().lose_nth(1);
///
///     let [there, here] = [&server, &client].map(|host| host.run(|| UdpSocket::bind("0.0.0.0:53").unwrap()));
///     let mut text = [0; 8];
///     for _ in 0..2 {
///         here.send_to(b"ask", "10.0.0.1:53").unwrap();
///         let (length, client) = there.recv_from(&mut text).unwrap();
///         there.send_to(&text[..length], client).unwrap();
///     }
///     assert_eq!(here.recv(&mut text).unwrap(), 3, "the second answer");
///     assert_eq!(net.port(&client).stats().lost, 1);
/// }
/// ```
pub struct Net {
    // Before the network that it is in.
    wire: Wire,
    plan: Plan,
    lab: u64,
    /// The pairs of ports between which nothing passes.
    blocked: Mutex<Set<(usize, usize)>>,
    _fabric: Namespace,
    /// The hosts, which are there also if the test has dropped its handle of one, such as a router.
    _nodes: Vec<Arc<Node>>,
}

impl Net {
    pub(super) fn new(plan: Plan, nodes: Vec<Arc<Node>>, wire: Wire, fabric: Namespace) -> Self {
        let lab = nodes.first().map_or(0, |node| node.lab);
        Self { wire, plan, lab, blocked: Mutex::default(), _fabric: fabric, _nodes: nodes }
    }

    /// Where the first interface of a host is connected, for faults and for figures. A host with several links has a port for each: see
    /// [`port_to`](Self::port_to).
    ///
    /// # Panics
    ///
    /// If the host belongs to another laboratory.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// # let client = lab.host("client");
    /// # let net = lab.up().unwrap();
    /// net.port(&client).loss(0.1).from_host().rate(20_000_000);
    /// # }
    /// ```
    #[track_caller]
    pub fn port(&self, host: &Host) -> Port<'_> {
        // A plan has a port for each host.
        let index = self.ports(host).first().copied().unwrap_or_default();
        self.port_at(index)
    }

    fn port_at(&self, index: usize) -> Port<'_> {
        let port = &self.plan.ports[index];
        Port::new(&self.wire, index, [&self.plan.nodes[port.node].name, &port.interface])
    }

    /// Where the interface of a host is connected by which it is linked with another host, or on one switch with it.
    ///
    /// # Panics
    ///
    /// If there is none, or one of both belongs to another laboratory.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// # let (home, gateway, server) = (lab.host("home"), lab.router("gateway"), lab.host("server"));
    /// lab.link(&home, &gateway);
    /// lab.link(&gateway, &server);
    /// let net = lab.up().unwrap();
    /// net.port_to(&gateway, &server).loss(0.1);
    /// # }
    /// ```
    #[track_caller]
    pub fn port_to(&self, host: &Host, other: &Host) -> Port<'_> {
        match self.shared(host, other).first() {
            Some((index, _)) => self.port_at(*index),
            None => panic!("belljar: `{}` and `{}` are neither linked nor on one switch.", host.name(), other.name()),
        }
    }

    /// Divides the hosts: nothing passes between those on the left and those on the right, in neither direction, until [`heal`](Self::heal). Others
    /// reach both.
    ///
    /// Packets that are on their way, because of a delay or a rate, are lost too.
    ///
    /// # Panics
    ///
    /// If there is still a way, over a router that is on no side. Name the router on the side that it is on.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// let [a, b, c] = ["a", "b", "c"].map(|name| lab.host(name));
    /// let net = lab.up().unwrap();
    /// net.partition([&a], [&b, &c]);
    /// // b and c elect a leader ...
    /// net.heal();
    /// # }
    /// ```
    #[track_caller]
    pub fn partition(
        &self,
        left: impl IntoIterator<Item = impl AsRef<Host>>,
        right: impl IntoIterator<Item = impl AsRef<Host>>,
    ) {
        let (left, right) = (left.into_iter().collect_vec(), right.into_iter().collect_vec());
        let left = left.iter().map(AsRef::as_ref).collect_vec();
        let right = right.iter().map(AsRef::as_ref).collect_vec();
        let mut blocked = Set::new();
        for (one, other) in left.iter().flat_map(|one| right.iter().map(move |other| (*one, *other))) {
            blocked.extend(self.shared(one, other).into_iter().flat_map(|(from, to)| [(from, to), (to, from)]));
        }
        self.block(&blocked, &left, &right);
        inside::tell_change(|| format!("partition: {} | {}", names(&left), names(&right)));
    }

    /// Makes a way a one-way street: from now on, packets get from the first host to the second, and none gets back, until [`heal`](Self::heal).
    ///
    /// # Panics
    ///
    /// If there is a way back over a router, as for [`partition`](Self::partition).
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// # let (client, server) = (lab.host("client"), lab.host("server"));
    /// # let net = lab.up().unwrap();
    /// net.oneway(&client, &server); // requests arrive, and answers don't
    /// # }
    /// ```
    #[track_caller]
    pub fn oneway(&self, from: impl AsRef<Host>, to: impl AsRef<Host>) {
        let (from, to) = (from.as_ref(), to.as_ref());
        let blocked = self.shared(to, from).into_iter().collect();
        self.block(&blocked, &[to], &[from]);
        inside::tell_change(|| format!("oneway: {} → {}", from.name(), to.name()));
    }

    /// Has everything pass again that a [`partition`](Self::partition), a [`oneway`](Self::oneway) or a [`cut`](Port::cut) keeps back. Other faults
    /// stay.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// # let client = lab.host("client");
    /// # let net = lab.up().unwrap();
    /// net.port(&client).cut();
    /// net.heal();
    /// # }
    /// ```
    pub fn heal(&self) {
        let mut blocked = self.blocked();
        self.wire.heal();
        *blocked = Set::new();
        inside::tell_change(|| "heal".to_owned());
    }

    /// Writes the packets that have passed, and those that were lost, to a file that Wireshark and tcpdump read. Each port is an interface in it.
    ///
    /// # Errors
    ///
    /// If the file can't be written. A path that is relative begins at the package, which is read-only where the sandbox has a root of its
    /// own. A file below `/tmp` goes with the sandbox; one below a path that `bind` shows with `:rw` stays.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() -> std::io::Result<()> {
    /// # let mut lab = Lab::new();
    /// # lab.host("client");
    /// # let net = lab.up()?;
    /// net.capture("/tmp/packets.pcapng")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn capture(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.wire.capture(path.as_ref())
    }

    /// The ports of a host of this laboratory.
    #[track_caller]
    fn ports(&self, host: &Host) -> &[usize] {
        assert!(host.0.lab == self.lab, "belljar: `{}` belongs to another laboratory.", host.name());
        &self.plan.nodes[host.0.index].ports
    }

    /// The pairs of ports of two hosts that are on one segment.
    #[track_caller]
    fn shared(&self, one: &Host, other: &Host) -> Vec<(usize, usize)> {
        let [first, second] = map_both([one, other], |host| self.ports(host));
        let pairs = first.iter().flat_map(|one| second.iter().map(move |other| (*one, *other)));
        pairs.filter(|(one, other)| one != other && self.segment(*one) == self.segment(*other)).collect_vec()
    }

    fn segment(&self, port: usize) -> usize {
        self.plan.ports[port].segment
    }

    fn blocked(&self) -> MutexGuard<'_, Set<(usize, usize)>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has nothing pass from one port to another, of these pairs. Panics if there still is a way from `sources` to `targets`.
    #[track_caller]
    fn block(&self, pairs: &Set<(usize, usize)>, sources: &[&Host], targets: &[&Host]) {
        let mut blocked = self.blocked();
        let mut all = blocked.clone();
        all.extend(pairs.iter().copied());
        for source in sources {
            let reached = self.reached(source.0.index, &all);
            if let Some(target) = targets.iter().find(|target| reached.contains(&target.0.index)) {
                panic!(
                    "belljar: packets still get from `{}` to `{}`, over a router. Name that among the hosts of one side.",
                    source.name(),
                    target.name()
                );
            }
        }
        self.wire.at_once(|wire| pairs.iter().for_each(|(from, to)| wire.block(*from, *to, true)));
        *blocked = all;
    }

    /// The nodes that packets of one get to, over routers too.
    fn reached(&self, node: usize, blocked: &Set<(usize, usize)>) -> Set<usize> {
        let (mut reached, mut pending) = (Set::from([node]), vec![node]);
        while let Some(next) = pending.pop() {
            if next != node && self.plan.nodes[next].role != Role::Router {
                continue;
            }
            for from in &self.plan.nodes[next].ports {
                // On its own segments, a host sends to the others itself, and over no router.
                if next != node
                    && self.plan.nodes[node].ports.iter().any(|own| self.segment(*own) == self.segment(*from))
                {
                    continue;
                }
                let others = &self.plan.segments[self.segment(*from)].ports;
                for to in others.iter().filter(|to| !blocked.contains(&(*from, **to))) {
                    if reached.insert(self.plan.ports[*to].node) {
                        pending.push(self.plan.ports[*to].node);
                    }
                }
            }
        }
        reached.remove(&node);
        reached
    }
}

fn names(hosts: &[&Host]) -> String {
    hosts.iter().map(|host| host.name()).collect_vec().join(", ")
}

impl Drop for Net {
    fn drop(&mut self) {
        // In a process that the body has forked, it is not this one's.
        if is_marked_process() {
            all_notes().extend(picture(&self.plan));
        }
    }
}

/// What a failure is to show of the laboratories that there were: a picture of each that is not small.
pub(crate) fn notes() -> Vec<String> {
    mem::take(&mut *all_notes())
}

fn all_notes() -> MutexGuard<'static, Vec<String>> {
    static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    NOTES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Debug for Net {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let nodes = self.plan.nodes.iter().map(|node| &node.name).collect_vec();
        f.debug_struct("Net").field("nodes", &nodes).finish_non_exhaustive()
    }
}
