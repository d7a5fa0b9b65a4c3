//! Which subnet a segment has, and which address a port: what was chosen, or by default.
//!
//! The segments are counted, and so are the ports of each. The third port of the first segment has 10.0.0.3 and fd00::3, that of the second
//! 10.0.1.3 and fd00:0:0:1::3.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::plan::Plan;
use crate::net::error::Trouble;
use crate::net::subnet::Subnet;

/// Below this MTU, an interface has no IPv6: see RFC 8200.
const LOWEST_V6_MTU: u32 = 1280;

/// How many segments there can be that have not chosen a subnet.
const SUBNETS: u32 = 1 << 16;

/// Gives each port its addresses. `has_v6`: the kernel has IPv6.
pub(super) fn assign(plan: &mut Plan, has_v6: bool) -> Result<(), Trouble> {
    for segment in &mut plan.segments {
        let of = || segment.name.clone();
        for text in &segment.chosen {
            let bad = || Trouble::BadAddress { of: of(), text: text.clone() };
            let (_, subnet) = Subnet::parse(text).ok_or_else(bad)?;
            match segment.subnets[kind(&subnet)].replace(subnet) {
                Some(first) if first != subnet => {
                    return Err(Trouble::SubnetTwice { of: of(), first, second: subnet });
                }
                _ => {}
            }
        }
    }
    take_chosen(plan)?;
    check_overlaps(plan)?;
    for kind in 0..if has_v6 { 2 } else { 1 } {
        choose_subnets(plan, kind)?;
        for segment in 0..plan.segments.len() {
            number_ports(plan, segment, kind)?;
        }
    }
    Ok(())
}

/// 0 for IPv4 and 1 for IPv6.
fn kind(subnet: &Subnet) -> usize {
    usize::from(!subnet.is_v4())
}

/// Gives ports the addresses that were chosen for them. The first one decides on the subnet of a segment that has none.
fn take_chosen(plan: &mut Plan) -> Result<(), Trouble> {
    let mut owners: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for index in 0..plan.ports.len() {
        let node = plan.ports[index].node;
        let of = plan.nodes[node].name.clone();
        for text in plan.ports[index].chosen_addresses().to_vec() {
            let bad = || Trouble::BadAddress { of: format!("`{of}`"), text: text.clone() };
            let (address, written) = Subnet::parse(&text).ok_or_else(bad)?;
            let segment = &mut plan.segments[plan.ports[index].segment];
            let subnet = *segment.subnets[kind(&written)].get_or_insert(written);
            if !subnet.contains(address) || written.prefix() != subnet.prefix() {
                return Err(Trouble::Elsewhere { of, address, segment: segment.name.clone(), subnet });
            }
            if !subnet.is_for_hosts(address) {
                return Err(Trouble::NotForHosts { of, address, subnet });
            }
            if let Some(other) = owners.insert(address, node) {
                let first = plan.nodes[other].name.clone();
                return Err(Trouble::AddressTwice { address, first, second: of });
            }
            plan.ports[index].addresses.push((address, subnet));
        }
    }
    Ok(())
}

/// The subnets that segments have by now, with the segments.
fn taken(plan: &Plan) -> Vec<(usize, Subnet)> {
    let of =
        |(index, subnets): (usize, [Option<Subnet>; 2])| subnets.into_iter().flatten().map(move |one| (index, one));
    plan.segments.iter().map(|segment| segment.subnets).enumerate().flat_map(of).collect()
}

fn check_overlaps(plan: &Plan) -> Result<(), Trouble> {
    let taken = taken(plan);
    for (at, (first, one)) in taken.iter().enumerate() {
        if let Some((second, other)) =
            taken[at + 1..].iter().find(|(second, other)| second != first && other.overlaps(one))
        {
            let [first, second] = [(first, one), (second, other)]
                .map(|(segment, subnet)| format!("{subnet} of {}", plan.segments[*segment].name));
            return Err(Trouble::Overlap { first, second });
        }
    }
    Ok(())
}

/// Chooses a subnet of this kind for each segment that has none.
fn choose_subnets(plan: &mut Plan, kind: usize) -> Result<(), Trouble> {
    let taken = taken(plan);
    let is_free = |subnet: &Subnet| !taken.iter().any(|(_, other)| other.overlaps(subnet));
    let mut free = (0..SUBNETS).filter_map(|number| default_subnet(number, kind)).filter(is_free);
    for segment in plan.segments.iter_mut().filter(|segment| segment.subnets[kind].is_none()) {
        let subnet = free.next().ok_or_else(|| Trouble::NoSubnet(segment.name.clone()))?;
        segment.subnets[kind] = Some(subnet);
    }
    Ok(())
}

/// The subnet of this number of those that segments have by default.
fn default_subnet(number: u32, kind: usize) -> Option<Subnet> {
    let [.., high, low] = number.to_be_bytes();
    match kind {
        0 => Subnet::of(Ipv4Addr::new(10, high, low, 0).into(), 24),
        _ => Subnet::of(Ipv6Addr::new(0xfd00, 0, 0, number as u16, 0, 0, 0, 0).into(), 64),
    }
}

/// Gives each port of a segment that has no address of this kind the one of its number, or the first one behind all numbers that is free.
fn number_ports(plan: &mut Plan, segment: usize, kind: usize) -> Result<(), Trouble> {
    let Some(subnet) = plan.segments[segment].subnets[kind] else { return Ok(()) };
    let ports = plan.segments[segment].ports.clone();
    let of_kind = |address: &IpAddr| usize::from(address.is_ipv6()) == kind;
    let addresses = |plan: &Plan, port: usize| {
        let all: Vec<_> = plan.ports[port].addresses.iter().map(|(address, _)| *address).collect();
        all.into_iter().filter(of_kind).collect::<Vec<_>>()
    };
    let mut used: Vec<_> = ports.iter().flat_map(|port| addresses(plan, *port)).collect();
    let mut next = ports.len() as u128 + 1;
    for (position, port) in ports.iter().enumerate() {
        let has_no_v6 = kind == 1 && plan.ports[*port].mtu < LOWEST_V6_MTU;
        if !addresses(plan, *port).is_empty() || has_no_v6 {
            continue;
        }
        let mut address = subnet.address(position as u128 + 1);
        while address.is_none_or(|address| used.contains(&address)) {
            address = subnet.address(next);
            if address.is_none() && next > ports.len() as u128 + used.len() as u128 + 1 {
                return Err(Trouble::Full { segment: plan.segments[segment].name.clone(), subnet });
            }
            next += 1;
        }
        if let Some(address) = address {
            used.push(address);
            plan.ports[*port].addresses.push((address, subnet));
        }
    }
    Ok(())
}
