//! Which subnet a segment has, and which address a port: what was chosen, or by default.
//!
//! The segments are counted, and so are the ports of each. The third port of the first segment has 10.0.0.3 and fd00::3, that of the second
//! 10.0.1.3 and fd00:0:0:1::3.

use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::plan::Plan;
use crate::collect::CollectVec as _;
use crate::net::error::ErrorKind;
use crate::net::subnet::Subnet;
use crate::sorted::Map;

/// Below this MTU, an interface has no IPv6: see RFC 8200.
const LOWEST_V6_MTU: u32 = 1280;

/// How many segments there can be that have not chosen a subnet.
const SUBNETS: u32 = 1 << 16;

/// Gives each port its addresses. `has_v6`: the kernel has IPv6.
pub(super) fn assign(plan: &mut Plan, has_v6: bool) -> Result<(), ErrorKind> {
    for segment in &mut plan.segments {
        let of = || segment.name.clone();
        for text in &segment.chosen {
            let bad = || ErrorKind::BadAddress { of: of(), text: text.clone() };
            let (_, subnet) = Subnet::parse(text).ok_or_else(bad)?;
            match segment.subnets[kind(&subnet)].replace(subnet) {
                Some(first) if first != subnet => {
                    return Err(ErrorKind::SubnetTwice { of: of(), first, second: subnet });
                }
                _ => {}
            }
        }
    }
    take_chosen(plan, has_v6)?;
    check_routes(plan)?;
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

/// What an address is that no interface of a host can have.
fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_loopback() => Some("a loopback's"),
        _ if address.is_multicast() => Some("a group's"),
        IpAddr::V4(address) if address.is_broadcast() => Some("everybody's"),
        // All of 0.0.0.0/8.
        IpAddr::V4(address) if address.octets()[0] == 0 => Some("nobody's"),
        IpAddr::V6(address) if address.is_unspecified() => Some("nobody's"),
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Some("a link-local one, of which each interface has one by itself")
        }
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => Some("an IPv4 address in the form of IPv6"),
        _ => None,
    }
}

/// Gives ports the addresses that were chosen for them. The first one decides on the subnet of a segment that has none.
fn take_chosen(plan: &mut Plan, has_v6: bool) -> Result<(), ErrorKind> {
    let mut owners: Map<IpAddr, usize> = Map::new();
    for index in 0..plan.ports.len() {
        let node = plan.ports[index].node;
        let of = plan.nodes[node].name.clone();
        for text in plan.ports[index].chosen_addresses().to_vec() {
            let bad = || ErrorKind::BadAddress { of: format!("`{of}`"), text: text.clone() };
            let (address, written) = Subnet::parse(&text).ok_or_else(bad)?;
            let segment = &mut plan.segments[plan.ports[index].segment];
            let subnet = *segment.subnets[kind(&written)].get_or_insert(written);
            let no_v6 = (address.is_ipv6() && !has_v6).then_some("one of IPv6, which the kernel lacks");
            if let Some(what) = unusable(address).or(no_v6) {
                return Err(ErrorKind::Unusable { of, address, what });
            }
            if subnet.contains(address) && written.prefix() != subnet.prefix() {
                let (prefix, segment) = (written.prefix(), segment.name.clone());
                return Err(ErrorKind::OtherPrefix { of, address, prefix, segment, subnet });
            }
            if !subnet.contains(address) {
                return Err(ErrorKind::Elsewhere { of, address, segment: segment.name.clone(), subnet });
            }
            if !subnet.is_for_hosts(address) {
                return Err(ErrorKind::NotForHosts { of, address, subnet });
            }
            let mtu = plan.ports[index].mtu;
            if address.is_ipv6() && mtu < LOWEST_V6_MTU {
                return Err(ErrorKind::TooSmallForV6 { of, address, mtu });
            }
            if let Some(other) = owners.insert(address, node) {
                let first = plan.nodes[other].name.clone();
                return Err(ErrorKind::AddressTwice { address, first, second: of });
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
    plan.segments.iter().map(|segment| segment.subnets).enumerate().flat_map(of).collect_vec()
}

/// Fails if there is a subnet of IPv4 to which the kernel makes no route when an interface gets an address of it.
fn check_routes(plan: &Plan) -> Result<(), ErrorKind> {
    let begins_with_zero =
        |subnet: &Subnet| matches!(subnet.network(), IpAddr::V4(network) if network.octets()[0] == 0);
    match taken(plan).into_iter().find(|(_, subnet)| begins_with_zero(subnet)) {
        Some((segment, subnet)) => {
            Err(ErrorKind::BeginsWithZero { segment: plan.segments[segment].name.clone(), subnet })
        }
        None => Ok(()),
    }
}

fn check_overlaps(plan: &Plan) -> Result<(), ErrorKind> {
    let taken = taken(plan);
    for (at, (first, one)) in taken.iter().enumerate() {
        if let Some((second, other)) =
            taken[at + 1..].iter().find(|(second, other)| second != first && other.overlaps(one))
        {
            let [first, second] = [(first, one), (second, other)]
                .map(|(segment, subnet)| format!("{subnet} of {}", plan.segments[*segment].name));
            return Err(ErrorKind::Overlap { first, second });
        }
    }
    Ok(())
}

/// Chooses a subnet of this kind for each segment that has none.
fn choose_subnets(plan: &mut Plan, kind: usize) -> Result<(), ErrorKind> {
    let taken = taken(plan);
    let is_free = |subnet: &Subnet| !taken.iter().any(|(_, other)| other.overlaps(subnet));
    let mut free = (0..SUBNETS).filter_map(|number| default_subnet(number, kind)).filter(is_free);
    for segment in plan.segments.iter_mut().filter(|segment| segment.subnets[kind].is_none()) {
        let subnet = free.next().ok_or_else(|| ErrorKind::NoSubnet(segment.name.clone()))?;
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

/// Gives each port of a segment that has no address of this kind the one of its number, or another one that is free.
fn number_ports(plan: &mut Plan, segment: usize, kind: usize) -> Result<(), ErrorKind> {
    let Some(subnet) = plan.segments[segment].subnets[kind] else { return Ok(()) };
    let ports = plan.segments[segment].ports.clone();
    let of_kind = |address: &IpAddr| usize::from(address.is_ipv6()) == kind;
    let addresses = |plan: &Plan, port: usize| {
        let all = plan.ports[port].addresses.iter().map(|(address, _)| *address).collect_vec();
        all.into_iter().filter(of_kind).collect_vec()
    };
    let mut used = ports.iter().flat_map(|port| addresses(plan, *port)).collect_vec();
    for (position, port) in ports.iter().enumerate() {
        let has_no_v6 = kind == 1 && plan.ports[*port].mtu < LOWEST_V6_MTU;
        if !addresses(plan, *port).is_empty() || has_no_v6 {
            continue;
        }
        // That of its number, or one behind all numbers. In a small subnet those may end before all are taken: then the first that is left.
        let behind = ports.len() as u128 + 1;
        let as_many = used.len() as u128 + 3;
        let numbers = iter::once(position as u128 + 1).chain(behind..behind + as_many).chain(0..as_many);
        let address = numbers.filter_map(|number| subnet.address(number)).find(|address| !used.contains(address));
        let full = || ErrorKind::Full { segment: plan.segments[segment].name.clone(), subnet };
        let address = address.ok_or_else(full)?;
        if let Some(what) = unusable(address) {
            return Err(ErrorKind::Unusable { of: plan.nodes[plan.ports[*port].node].name.clone(), address, what });
        }
        used.push(address);
        plan.ports[*port].addresses.push((address, subnet));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::lab::plan::{Draft, DraftEnd, DraftNode};
    use crate::net::node::{Choice, Role};

    /// The IPv4 addresses of hosts on a switch with this subnet, of which each has chosen one or none.
    fn addresses(subnet: &str, chosen: &[Option<&str>]) -> Result<Vec<String>, ErrorKind> {
        let choice = |text: Option<&str>| Choice {
            addresses: text.map(str::to_owned).into_iter().collect(),
            ..Choice::default()
        };
        let node = |name: String, role, text| DraftNode { name, role, choice: choice(text) };
        let mut draft = Draft { nodes: vec![node("lan".to_owned(), Role::Switch, Some(subnet))], links: Vec::new() };
        for (number, text) in chosen.iter().enumerate() {
            draft.nodes.push(node(format!("host{number}"), Role::Host, *text));
            draft.links.push([0, number + 1].map(|node| DraftEnd { node, choice: Choice::default() }));
        }
        let mut plan = Plan::of(draft)?;
        assign(&mut plan, false)?;
        Ok(plan.ports.iter().map(|port| port.addresses[0].0.to_string()).collect())
    }

    #[test]
    fn no_address_is_chosen_that_the_kernel_lacks() {
        let what = "one of IPv6, which the kernel lacks";
        let refused = addresses("192.0.2.0/24", &[Some("fd00::7/64")]).expect_err("there is no IPv6");
        let (of, address) = ("host0".to_owned(), "fd00::7".parse().expect("an address"));
        assert_eq!(refused, ErrorKind::Unusable { of, address, what });
    }

    #[test]
    fn ports_are_numbered_while_there_are_addresses() {
        for (subnet, chosen, expected) in [
            ("192.0.2.0/24", &[None, None, None][..], &["192.0.2.1", "192.0.2.2", "192.0.2.3"][..]),
            ("192.0.2.0/24", &[None, Some("192.0.2.1/24")], &["192.0.2.3", "192.0.2.1"]),
            ("192.0.2.0/30", &[None, None], &["192.0.2.1", "192.0.2.2"]),
            ("192.0.2.0/30", &[None, Some("192.0.2.1/30")], &["192.0.2.2", "192.0.2.1"]),
            ("192.0.2.0/31", &[None, None], &["192.0.2.1", "192.0.2.0"]),
            ("192.0.2.0/31", &[Some("192.0.2.0/31"), None], &["192.0.2.0", "192.0.2.1"]),
            ("192.0.2.7/32", &[None], &["192.0.2.7"]),
        ] {
            assert_eq!(addresses(subnet, chosen).expect(subnet), expected, "{subnet}");
        }
        for (subnet, count) in [("192.0.2.0/30", 3), ("192.0.2.0/31", 3), ("192.0.2.7/32", 2)] {
            assert!(matches!(addresses(subnet, &vec![None; count]), Err(ErrorKind::Full { .. })), "{subnet}");
        }
        assert_eq!(addresses("192.0.2.0/28", &[None; 14]).expect("there are 14").len(), 14);
    }
}
