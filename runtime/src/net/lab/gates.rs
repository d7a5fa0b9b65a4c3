//! What routers are to do beside forwarding: which interface of each leads to the outside, and where forwarded ports lead to.

use std::net::IpAddr;
use std::sync::Arc;

use super::plan::{Plan, PlannedNode};
use super::routes::first_hops;
use crate::collect::CollectVec as _;
use crate::net::error::ErrorKind;
use crate::net::gate::{Forward, Gate, Peer};
use crate::net::netfilter::{PlannedForward, PlannedGate};
use crate::net::node::Node;
use crate::sorted::Set;

/// Finds out what was asked for of each node of the laboratory. Addresses are planned by now.
pub(super) fn plan_gates(plan: &mut Plan, nodes: &[Arc<Node>]) -> Result<(), ErrorKind> {
    let gates = nodes.iter().map(|node| node.gate().clone()).collect_vec();
    for (node, (handle, gate)) in nodes.iter().zip(&gates).enumerate() {
        plan.nodes[node].gate = plan_gate(plan, handle.lab, node, gate)?;
    }
    // Which ways lead inside is known when it is known which routers translate addresses.
    for (node, gate) in gates.iter().enumerate() {
        let forwards = plan_forwards(plan, node, gate)?;
        if let Some(planned) = &mut plan.nodes[node].gate {
            planned.forwards = forwards;
        }
    }
    Ok(())
}

/// All but the forwarded ports. `None` for a node that only forwards, or not even that.
fn plan_gate(plan: &Plan, lab: u64, node: usize, gate: &Gate) -> Result<Option<PlannedGate>, ErrorKind> {
    let PlannedNode { name, ports, .. } = &plan.nodes[node];
    let router = || name.clone();
    let mut peers = gate.outside.iter().chain(gate.forwards.iter().map(|forward| &forward.to));
    if let Some(foreign) = peers.find(|peer| peer.lab != lab) {
        return Err(ErrorKind::Foreign(foreign.name.clone()));
    }
    let chosen = match &gate.outside {
        None => None,
        Some(peer) => {
            let leads = |port: &&usize| leads_to(plan, **port, peer);
            let none = || ErrorKind::NotLinked(router(), peer.name.clone());
            Some(*ports.iter().find(leads).ok_or_else(none)?)
        }
    };
    if gate.nat.is_none() && !gate.has_firewall && gate.forwards.is_empty() {
        return Ok(None);
    }
    let [_, .., last] = ports[..] else { return Err(ErrorKind::NoSides(router())) };
    if gate.nat.is_none() && !gate.forwards.is_empty() {
        return Err(ErrorKind::ForwardWithoutNat(router()));
    }
    let outside = chosen.unwrap_or(last);
    Ok(Some(PlannedGate {
        nat: gate.nat,
        outside,
        index: plan.ports[outside].index,
        forwards: Vec::new(),
        has_firewall: gate.has_firewall,
    }))
}

fn plan_forwards(plan: &Plan, node: usize, gate: &Gate) -> Result<Vec<PlannedForward>, ErrorKind> {
    let PlannedNode { name, gate: planned, .. } = &plan.nodes[node];
    let Some(PlannedGate { outside, .. }) = planned else { return Ok(Vec::new()) };
    let router = || name.clone();
    let mut seen = Set::new();
    let mut forwards = Vec::new();
    for Forward { port, to, to_port } in &gate.forwards {
        if *port == 0 || *to_port == 0 {
            return Err(ErrorKind::PortZero(router()));
        }
        if !seen.insert(*port) {
            return Err(ErrorKind::PortTwice(router(), *port));
        }
        if to.index == node {
            return Err(ErrorKind::ForwardToItself(router(), *port));
        }
        let addresses = addresses_inside(plan, node, *outside, to);
        if addresses.is_empty() {
            return Err(ErrorKind::NotInside(router(), to.name.clone()));
        }
        let of = |to| PlannedForward { port: *port, to, to_port: *to_port };
        forwards.extend(addresses.into_iter().map(of));
    }
    Ok(forwards)
}

/// Whether a port is on a switch, or on a segment with a host.
fn leads_to(plan: &Plan, port: usize, peer: &Peer) -> bool {
    let segment = plan.ports[port].segment;
    let is_switch = plan.segments[segment].switch == Some(peer.index);
    let others = &plan.segments[segment].ports;
    is_switch || others.iter().any(|other| *other != port && plan.ports[*other].node == peer.index)
}

/// One address of each kind that a host has on the inside of a router: on a segment with the router itself, if there is one, or on one to which
/// the router's way does not lead over the outside.
fn addresses_inside(plan: &Plan, router: usize, outside: usize, host: &Peer) -> Vec<IpAddr> {
    let segment = |port: &usize| plan.ports[*port].segment;
    let inside: Set<_> = plan.nodes[router].ports.iter().filter(|port| **port != outside).map(segment).collect();
    let ways = first_hops(plan, router);
    let is_near = |port: &usize| inside.contains(&segment(port)) && segment(port) != segment(&outside);
    let is_behind = |port: &usize| ways[segment(port)].is_some_and(|(leaving, _)| leaving != outside);
    let of_host = &plan.nodes[host.index].ports;
    let ports = of_host.iter().filter(|port| is_near(port)).chain(of_host.iter().filter(|port| is_behind(port)));
    let addresses = ports.flat_map(|port| &plan.ports[*port].addresses).map(|(address, _)| *address).collect_vec();
    let first = |is_v4| addresses.iter().find(|address| address.is_ipv4() == is_v4).copied();
    [true, false].into_iter().filter_map(first).collect_vec()
}
