//! Makes what was planned.
//!
//! ```text
//! this thread                  a thread for the fabric          a thread for each host
//!                              network namespace                namespaces
//! veth pairs, in the fabric ◄─────────────┴─────────────────────────────┘
//!      ├─────────────────────► the ring                         its name and files
//!      └─────────────────────────────────────────────────────► interfaces, addresses, routes, neighbours
//!      │                       the wire                                 │
//! offloads of the outer ends ◄──────────────────────────────────────────┘
//! the wire begins
//! ```
//!
//! What takes longest is the ring. Before it is there, the kernel waits for all processors (RCU): for a tick of its timer or more, but for half
//! a millisecond only if somebody holds the lock on interfaces at that moment (`synchronize_net`). So the fabric's thread starts on the ring when
//! the first pair is about to be made. It allocates memory, and then waits while this thread makes pairs.
//!
//! If a step fails, `make` returns its error. Dropped senders wake the other threads, which end. The kernel then removes the namespaces.

use std::io;
use std::os::fd::AsFd as _;
use std::thread::{self, Scope, ScopedJoinHandle};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_name;

use super::channel::{Receiver, Sender, channel};
use super::plan::{FIRST_INDEX, Plan, PlannedNode, outer_mac};
use super::{host, settings};
use crate::collect::CollectVec as _;
use crate::net::error::{Error, NETWORK, RING};
use crate::net::netlink::{Messages, Netlink, Refused, VethEnd};
use crate::net::node::Role;
use crate::net::place::HostNamespaces;
use crate::net::wire::{PortPlan, Wire};
use crate::ns::{Kind, Namespace};
use crate::proc::WIRE;
use crate::sys::{Ethernet, errno_of};

/// What errors call the network between the hosts.
const FABRIC: &str = "the network between the hosts";

/// What they call the process that moves frames.
const A_WIRE: &str = "a wire";

/// What was made.
pub(super) struct Made {
    /// Where each host is, by its place among the nodes.
    pub(super) places: Vec<(usize, HostNamespaces)>,
    pub(super) wire: Wire,
    /// The network in which the outer ends are. It is gone with this.
    pub(super) fabric: Namespace,
}

/// The fabric, as its thread hands it to the one that makes pairs.
struct Fabric {
    namespace: Namespace,
    netlink: Netlink,
    ethernet: Ethernet,
}

/// A host, as its thread hands it over.
struct Begun {
    node: usize,
    place: HostNamespaces,
}

/// Makes it, and the wire, whose faults follow from `seed`, and which keeps so many bytes of packets.
pub(super) fn make(plan: &Plan, seed: u64, capture: usize) -> Result<Made, Error> {
    thread::scope(|scope| {
        let (told, fabric) = channel();
        let (make_ring, may_make_ring) = channel();
        let weaver = start(scope, FABRIC, move || weave(plan, (seed, capture), &told, &may_make_ring))?;
        let nodes = || plan.nodes.iter().enumerate().filter(|(_, node)| node.role != Role::Switch);
        let mut threads = Vec::new();
        for (index, node) in nodes() {
            let (begin, begun) = channel();
            let (connect, connected) = channel();
            let thread = start(scope, &node.name, move || furnish(plan, index, &begin, &connected))?;
            threads.push((thread, begun, connect));
        }
        let mut fabric = fabric.recv();
        let (mut places, mut result) = (Vec::new(), Ok(()));
        let mut goes_on = fabric.is_some();
        for (_, begun, connect) in &threads {
            // If one is missing, its thread has the error.
            let (Some(fabric), Some(host)) = (fabric.as_mut().filter(|_| goes_on), begun.recv()) else {
                goes_on = false;
                break;
            };
            if places.is_empty() {
                make_ring.send(());
            }
            result = make_pairs(plan, fabric, &host);
            goes_on = result.is_ok();
            if goes_on {
                connect.send(());
            }
            places.push(host);
        }
        drop(make_ring);
        for (thread, _, connect) in threads {
            drop(connect);
            result = result.and(joined(thread));
        }
        if let (true, Ok(()), Some(fabric)) = (goes_on, &result, &fabric) {
            result = finish_ends(plan, fabric);
        }
        let wire = joined(weaver);
        result?;
        let (wire, fabric) = (wire?, fabric.ok_or_else(lost)?.namespace);
        wire.begin().map_err(of_io(A_WIRE, FABRIC))?;
        let places = places.into_iter().map(|begun: Begun| (begun.node, begun.place)).collect_vec();
        Ok(Made { places, wire, fabric })
    })
}

fn start<'s, 'e, T: Send + 's>(
    scope: &'s Scope<'s, 'e>,
    of: &str,
    body: impl FnOnce() -> T + Send + 's,
) -> Result<ScopedJoinHandle<'s, T>, Error> {
    let thread = thread::Builder::new().name(of.to_owned());
    thread.spawn_scoped(scope, body).map_err(|error| Error::step("a thread", of, errno_of(&error)))
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

/// What ends a thread that others have left without an error of its own.
fn lost() -> Error {
    Error::step("a thread", FABRIC, Errno::ECANCELED)
}

fn of_io(what: &'static str, of: &str) -> impl Fn(io::Error) -> Error {
    move |error| Error::step(what, of, errno_of(&error))
}

/// The fabric's thread: makes its network, and then the ring and the wire, while others make the hosts.
fn weave(
    plan: &Plan,
    (seed, capture): (u64, usize),
    told: &Sender<Fabric>,
    may_make_ring: &Receiver<()>,
) -> Result<Wire, Error> {
    let step = |what| move |errno| Error::step(what, FABRIC, errno);
    unshare(CloneFlags::CLONE_NEWNET).map_err(step(NETWORK))?;
    settings::silence().map_err(of_io("its settings", FABRIC))?;
    let namespace =
        Namespace::current(Kind::Net).map_err(|error| Error::step(NETWORK, FABRIC, Errno::from_raw(error.errno())))?;
    let netlink = Netlink::new().map_err(step("a socket for rtnetlink"))?;
    let ethernet = Ethernet::new().map_err(step("a socket"))?;
    told.send(Fabric { namespace, netlink, ethernet });
    may_make_ring.recv().ok_or_else(lost)?;
    let ring = Wire::prepare(plan.mtu()).map_err(of_io(RING, FABRIC))?;
    let ports = plan.ports.iter().enumerate().map(|(number, port)| PortPlan {
        ifindex: outer_index(number),
        segment: port.segment as u32,
        mac: port.mac,
        mtu: port.mtu,
        name: format!("{}.{}", plan.nodes[port.node].name, port.interface),
    });
    let ports = ports.collect_vec();
    // The process is to bear its name from the beginning, by which init knows it.
    let _ = set_name(WIRE);
    Wire::start(ring, &ports, seed, capture).map_err(of_io(A_WIRE, FABRIC))
}

/// The number of a port's outer end, in the fabric.
fn outer_index(port: usize) -> i32 {
    FIRST_INDEX + port as i32
}

/// The name of a port's outer end.
fn outer_name(port: usize) -> String {
    format!("port{port}")
}

/// A host's thread: makes the host, and when its interfaces are there, their addresses and routes.
fn furnish(plan: &Plan, node: usize, begin: &Sender<Begun>, connected: &Receiver<()>) -> Result<(), Error> {
    let PlannedNode { name, .. } = &plan.nodes[node];
    let place = host::begin(plan, node)?;
    begin.send(Begun { node, place });
    host::fit_out(plan, node)?;
    let step = |what| move |errno| Error::step(what, name, errno);
    let netlink = Netlink::new().map_err(step("a socket for rtnetlink"))?;
    let ethernet = Ethernet::new().map_err(step("a socket"))?;
    if connected.recv().is_none() {
        return Ok(());
    }
    host::connect(plan, node, netlink, &ethernet)
}

/// Makes the pairs of a host: each with one end in the fabric and one on the host.
fn make_pairs(plan: &Plan, fabric: &mut Fabric, host: &Begun) -> Result<(), Error> {
    let [network, ..] = host.place.namespaces() else { return Ok(()) };
    let mut messages = Messages::default();
    for (number, port) in plan.ports.iter().enumerate().filter(|(_, port)| port.node == host.node) {
        let name = outer_name(number);
        let outer = VethEnd {
            name: &name,
            index: outer_index(number),
            mac: outer_mac(number, 1),
            network: fabric.namespace.as_fd(),
        };
        let inner = VethEnd { name: &port.interface, index: port.index, mac: port.mac, network: network.as_fd() };
        messages.pair(&outer, &inner, port.mtu);
    }
    fabric.netlink.run(messages).map_err(|Refused { what, errno }| Error::step(what, FABRIC, errno))
}

/// Turns offloads off at all outer ends, as the wire expects. The kernel need not have seen their carriers: what the wire sends meets no queue that
/// would wait for that.
fn finish_ends(plan: &Plan, fabric: &Fabric) -> Result<(), Error> {
    for number in 0..plan.ports.len() {
        let name = outer_name(number);
        let step = |what| move |errno| Error::step(what, FABRIC, errno);
        fabric.ethernet.disable_offloads(&name).map_err(step("interfaces without offloads"))?;
    }
    Ok(())
}
