//! What routers are to do beside forwarding: which interface of each leads to the outside, and where forwarded ports lead to.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::plan::{Plan, PlannedNode};
use crate::net::error::Trouble;
use crate::net::gate::{Forward, Gate, Peer};
use crate::net::netfilter::{PlannedForward, PlannedGate};
use crate::net::node::Node;

/// Finds out what was asked for of each node of the laboratory. Addresses are planned by now.
pub(super) fn plan_gates(plan: &mut Plan, nodes: &[Arc<Node>]) -> Result<(), Trouble> {
    for (node, handle) in nodes.iter().enumerate() {
        let gate = handle.gate();
        if gate.nat.is_some() || gate.has_firewall || !gate.forwards.is_empty() {
            let planned = plan_gate(plan, handle.lab, node, &gate)?;
            plan.nodes[node].gate = Some(planned);
        }
    }
    Ok(())
}

fn plan_gate(plan: &Plan, lab: u64, node: usize, gate: &Gate) -> Result<PlannedGate, Trouble> {
    let PlannedNode { name, ports, .. } = &plan.nodes[node];
    let router = || name.clone();
    let peers = gate.outside.iter().chain(gate.forwards.iter().map(|forward| &forward.to));
    if let Some(foreign) = peers.clone().find(|peer| peer.lab != lab) {
        return Err(Trouble::Foreign(foreign.name.clone()));
    }
    let [_, .., last] = ports[..] else { return Err(Trouble::NoSides(router())) };
    let outside = match &gate.outside {
        None => last,
        Some(peer) => {
            let leads = |port: &&usize| leads_to(plan, **port, peer);
            let none = || Trouble::NotLinked(router(), peer.name.clone());
            *ports.iter().find(leads).ok_or_else(none)?
        }
    };
    if gate.nat.is_none() && !gate.forwards.is_empty() {
        return Err(Trouble::ForwardWithoutNat(router()));
    }
    let mut seen = BTreeSet::new();
    let mut forwards = Vec::new();
    for Forward { port, to, to_port } in &gate.forwards {
        if *port == 0 || *to_port == 0 {
            return Err(Trouble::PortZero(router()));
        }
        if !seen.insert(*port) {
            return Err(Trouble::PortTwice(router(), *port));
        }
        let addresses = addresses_inside(plan, node, outside, to);
        if addresses.is_empty() {
            return Err(Trouble::NotInside(router(), to.name.clone()));
        }
        let of = |to| PlannedForward { port: *port, to, to_port: *to_port };
        forwards.extend(addresses.into_iter().map(of));
    }
    Ok(PlannedGate {
        nat: gate.nat,
        outside,
        index: plan.ports[outside].index,
        forwards,
        has_firewall: gate.has_firewall,
    })
}

/// Whether a port is on a switch, or on a segment with a host.
fn leads_to(plan: &Plan, port: usize, peer: &Peer) -> bool {
    let segment = plan.ports[port].segment;
    let is_switch = plan.segments[segment].switch == Some(peer.index);
    let others = &plan.segments[segment].ports;
    is_switch || others.iter().any(|other| *other != port && plan.ports[*other].node == peer.index)
}

/// One address of each kind that a host has on the inside of a router: on a segment with the router itself, if there is one.
fn addresses_inside(plan: &Plan, router: usize, outside: usize, host: &Peer) -> Vec<IpAddr> {
    let segment = |port: &usize| plan.ports[*port].segment;
    let inside: BTreeSet<_> = plan.nodes[router].ports.iter().filter(|port| **port != outside).map(segment).collect();
    let mut ports: Vec<_> =
        plan.nodes[host.index].ports.iter().filter(|port| segment(port) != segment(&outside)).collect();
    ports.sort_by_key(|port| !inside.contains(&segment(port)));
    let addresses: Vec<_> =
        ports.iter().flat_map(|port| &plan.ports[**port].addresses).map(|(address, _)| *address).collect();
    let first = |is_v4| addresses.iter().find(|address| address.is_ipv4() == is_v4).copied();
    [true, false].into_iter().filter_map(first).collect()
}
