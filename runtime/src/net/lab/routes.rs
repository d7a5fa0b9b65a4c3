//! The ways through routers.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::plan::Plan;
use crate::net::node::Role;
use crate::net::subnet::Subnet;

/// A route of one host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// `None`: wherever there is no other route.
    pub(super) to: Option<Subnet>,
    pub(super) gateway: IpAddr,
    /// The port by which it leaves.
    pub(super) port: usize,
}

/// The routes of a host or a router to all subnets that it is not on itself, each the shortest.
///
/// A host all of whose routes have one gateway has a default route in their place.
pub(super) fn routes(plan: &Plan, node: usize) -> Vec<Route> {
    let hops = first_hops(plan, node);
    let one = hops.iter().flatten().next().copied();
    let is_one = plan.nodes[node].role == Role::Host && hops.iter().flatten().all(|hop| Some(*hop) == one);
    let mut routes = Vec::new();
    match one.filter(|_| is_one) {
        Some((port, gateway)) => add(plan, &mut routes, [None, None], port, gateway),
        None => {
            for (segment, hop) in plan.segments.iter().zip(&hops) {
                if let Some((port, gateway)) = *hop {
                    add(plan, &mut routes, segment.subnets.map(Some), port, gateway);
                }
            }
        }
    }
    routes
}

/// Adds a route for IPv4 and one for IPv6. Of `to`, `Some(subnet)` is where the route leads, and `None` makes it the default route. For
/// `Some(None)`, the segment has no subnet of that kind: no route is added.
fn add(plan: &Plan, routes: &mut Vec<Route>, to: [Option<Option<Subnet>>; 2], port: usize, gateway: usize) {
    let has =
        |port: usize, is_v4: bool| plan.ports[port].addresses.iter().find(|(address, _)| address.is_ipv4() == is_v4);
    for (to, is_v4) in to.into_iter().zip([true, false]) {
        let wanted = match to {
            Some(None) => continue,
            Some(to) => to,
            None => None,
        };
        if let (Some(_), Some((gateway, _))) = (has(port, is_v4), has(gateway, is_v4)) {
            routes.push(Route { to: wanted, gateway: *gateway, port });
        }
    }
}

/// Whether a port is the outside of a router that translates addresses: nobody there knows of those inside.
fn hides_inside(plan: &Plan, port: usize) -> bool {
    let gate = plan.nodes[plan.ports[port].node].gate.as_ref();
    gate.is_some_and(|gate| gate.nat.is_some() && gate.outside == port)
}

/// For each segment that `node` is not on and that routers lead to: the port by which the way begins, and the port of the first router on it.
pub(super) fn first_hops(plan: &Plan, node: usize) -> Vec<Option<(usize, usize)>> {
    let mut hops: Vec<Option<(usize, usize)>> = vec![None; plan.segments.len()];
    let own = |port: &usize| plan.ports[*port].segment;
    let mut seen = vec![false; plan.segments.len()];
    let mut pending: VecDeque<_> = plan.nodes[node].ports.iter().map(|port| (own(port), *port)).collect();
    for (segment, _) in &pending {
        seen[*segment] = true;
    }
    while let Some((segment, leaving)) = pending.pop_front() {
        let routers = plan.segments[segment].ports.iter().filter(|port| {
            let next = plan.ports[**port].node;
            next != node && plan.nodes[next].role == Role::Router && !hides_inside(plan, **port)
        });
        for router in routers {
            let hop = hops[segment].unwrap_or((leaving, *router));
            for beyond in plan.nodes[plan.ports[*router].node].ports.iter().map(own) {
                if !seen[beyond] {
                    seen[beyond] = true;
                    hops[beyond] = Some(hop);
                    pending.push_back((beyond, leaving));
                }
            }
        }
    }
    hops
}
