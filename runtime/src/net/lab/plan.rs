//! What is to be made of what was asked for: segments, and the ports on them. All that can be wrong with it is found here, before anything is
//! made.

use std::net::IpAddr;

use crate::collect::{CollectVec as _, map_both};
use crate::frame::HOST_NAME_MAX;
use crate::net::error::ErrorKind;
use crate::net::netfilter::PlannedGate;
use crate::net::netlink::Mac;
use crate::net::node::{Choice, MTUS, RESERVED, Role};
use crate::net::subnet::Subnet;
use crate::proc::WIRE;
use crate::sorted::{Map, Set};

/// How large packets are if nobody chooses.
const MTU: u32 = 1500;

/// The number of the first interface that a laboratory makes in a network. Below are the loopback, and what the kernel makes in each new network
/// where modules such as `ipip` and `sit` are there.
pub(super) const FIRST_INDEX: i32 = 1 << 16;

/// What was asked for.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) nodes: Vec<DraftNode>,
    pub(super) links: Vec<[DraftEnd; 2]>,
}

pub(super) struct DraftNode {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) choice: Choice,
}

/// One end of a link: the node, by its place among the nodes.
pub(super) struct DraftEnd {
    pub(super) node: usize,
    pub(super) choice: Choice,
}

/// What is to be made.
pub(in crate::net) struct Plan {
    pub(in crate::net) nodes: Vec<PlannedNode>,
    pub(in crate::net) segments: Vec<Segment>,
    pub(in crate::net) ports: Vec<PlannedPort>,
}

pub(in crate::net) struct PlannedNode {
    pub(in crate::net) name: String,
    pub(in crate::net) role: Role,
    /// Its ports, in the order of its interfaces.
    pub(in crate::net) ports: Vec<usize>,
    /// What it does beside forwarding, if it is a router.
    pub(super) gate: Option<PlannedGate>,
}

/// Ports that reach each other: those of a switch, or the two of a link.
pub(in crate::net) struct Segment {
    /// In the words of an error.
    pub(in crate::net) name: String,
    /// The subnets of IPv4 and of IPv6.
    pub(in crate::net) subnets: [Option<Subnet>; 2],
    pub(in crate::net) ports: Vec<usize>,
    /// The subnets that were chosen for it, as they were written.
    pub(super) chosen: Vec<String>,
    /// The switch that it is, if it has a name.
    pub(super) switch: Option<usize>,
}

/// An interface of a host or a router.
pub(in crate::net) struct PlannedPort {
    pub(in crate::net) node: usize,
    pub(in crate::net) segment: usize,
    /// The number of the interface, on its host.
    pub(in crate::net) index: i32,
    pub(in crate::net) interface: String,
    pub(in crate::net) mac: Mac,
    pub(in crate::net) mtu: u32,
    pub(in crate::net) addresses: Vec<(IpAddr, Subnet)>,
    /// What was chosen for it.
    choice: Choice,
}

impl Plan {
    /// Plans what a draft asks for, but for the addresses.
    pub(super) fn of(draft: Draft) -> Result<Self, ErrorKind> {
        check_names(&draft.nodes)?;
        let mut choices = draft.nodes.iter().map(|node| node.choice.clone()).collect_vec();
        let nodes = draft.nodes.into_iter().map(|node| PlannedNode {
            name: node.name,
            role: node.role,
            ports: vec![],
            gate: None,
        });
        let mut plan = Self { nodes: nodes.collect_vec(), segments: Vec::new(), ports: Vec::new() };
        let mut of_switch = Map::new();
        plan.add_unlinked(&draft.links);
        for (index, node) in plan.nodes.iter().enumerate().filter(|(_, node)| node.role == Role::Switch) {
            of_switch.insert(index, plan.segments.len());
            let mut segment = Segment::new(format!("the switch `{}`", node.name));
            segment.chosen = choices[index].addresses.clone();
            segment.switch = Some(index);
            plan.segments.push(segment);
        }
        for ends in draft.links {
            plan.add_link(ends, &of_switch)?;
        }
        if plan.ports.is_empty() {
            return Err(ErrorKind::NoHosts);
        }
        plan.take_choices(&mut choices);
        plan.name_interfaces()?;
        plan.choose_macs()?;
        for port in &mut plan.ports {
            port.mtu = port.choice.mtu.unwrap_or(MTU);
            if !MTUS.contains(&port.mtu) {
                return Err(ErrorKind::BadMtu { of: plan.nodes[port.node].name.clone(), mtu: port.mtu });
            }
        }
        Ok(plan)
    }

    /// The largest MTU of all ports.
    pub(super) fn mtu(&self) -> u32 {
        self.ports.iter().map(|port| port.mtu).max().unwrap_or(MTU)
    }

    /// Puts the hosts and routers that nothing links on one switch.
    fn add_unlinked(&mut self, links: &[[DraftEnd; 2]]) {
        let linked: Set<_> = links.iter().flatten().map(|end| end.node).collect();
        let is_unlinked = |index: &usize| self.nodes[*index].role != Role::Switch && !linked.contains(index);
        let unlinked = (0..self.nodes.len()).filter(is_unlinked).collect_vec();
        if unlinked.is_empty() {
            return;
        }
        self.segments.push(Segment::new("the switch that is there in any case".to_owned()));
        for node in unlinked {
            self.add_port(node, 0, Choice::default());
        }
    }

    fn add_link(&mut self, ends: [DraftEnd; 2], of_switch: &Map<usize, usize>) -> Result<(), ErrorKind> {
        let name = |plan: &Self, end: &DraftEnd| plan.nodes[end.node].name.clone();
        let [first, second] = ends;
        if first.node == second.node {
            return Err(ErrorKind::Itself(name(self, &first)));
        }
        match (of_switch.get(&first.node), of_switch.get(&second.node)) {
            (Some(_), Some(_)) => return Err(ErrorKind::TwoSwitches(name(self, &first), name(self, &second))),
            (Some(segment), None) => self.add_port(second.node, *segment, second.choice),
            (None, Some(segment)) => self.add_port(first.node, *segment, first.choice),
            (None, None) => {
                let text = format!("the link of `{}` and `{}`", name(self, &first), name(self, &second));
                self.segments.push(Segment::new(text));
                for end in [first, second] {
                    self.add_port(end.node, self.segments.len() - 1, end.choice);
                }
            }
        }
        Ok(())
    }

    fn add_port(&mut self, node: usize, segment: usize, choice: Choice) {
        let number = self.ports.len();
        let on_node = self.nodes[node].ports.len();
        let index = FIRST_INDEX + on_node as i32;
        self.nodes[node].ports.push(number);
        self.segments[segment].ports.push(number);
        let interface = format!("eth{on_node}");
        let (mac, mtu, addresses) = (outer_mac(number, 0), MTU, Vec::new());
        self.ports.push(PlannedPort { node, segment, index, interface, mac, mtu, addresses, choice });
    }

    /// What was chosen for a host is its first interface's, unless its link says otherwise.
    fn take_choices(&mut self, choices: &mut [Choice]) {
        for node in self.nodes.iter().filter_map(|node| node.ports.first()) {
            let port = &mut self.ports[*node];
            let chosen = &mut choices[port.node];
            port.choice.addresses.append(&mut chosen.addresses);
            port.choice.mac = port.choice.mac.take().or(chosen.mac.take());
            port.choice.mtu = port.choice.mtu.or(chosen.mtu);
            port.choice.interface = port.choice.interface.take().or(chosen.interface.take());
        }
    }

    fn name_interfaces(&mut self) -> Result<(), ErrorKind> {
        let mut seen = Set::new();
        for port in &mut self.ports {
            let of = &self.nodes[port.node].name;
            if let Some(name) = port.choice.interface.take() {
                let is_wrong =
                    |char: char| char.is_whitespace() || char.is_control() || matches!(char, '%' | '/' | ':');
                // To the kernel, this byte is a space, also where it is part of a letter, such as `à`.
                let is_wrong_byte = name.bytes().any(|byte| byte == 0xa0);
                let is_taken = [".", "..", "lo", "all", "default"].contains(&name.as_str());
                if is_taken || is_wrong_byte || name.contains(is_wrong) || !(1..16).contains(&name.len()) {
                    return Err(ErrorKind::BadInterface { of: of.clone(), name });
                }
                port.interface = name;
            }
            if !seen.insert((port.node, port.interface.clone())) {
                return Err(ErrorKind::InterfaceTwice { of: of.clone(), name: port.interface.clone() });
            }
        }
        Ok(())
    }

    fn choose_macs(&mut self) -> Result<(), ErrorKind> {
        let mut chosen: Map<Mac, usize> = Map::new();
        for port in &mut self.ports {
            let Some(text) = &port.choice.mac else { continue };
            let bad = || ErrorKind::BadMac { of: self.nodes[port.node].name.clone(), text: text.clone() };
            port.mac = parse_mac(text).ok_or_else(bad)?;
            if let Some(other) = chosen.insert(port.mac, port.node) {
                let [first, second] = map_both([other, port.node], |node| self.nodes[node].name.clone());
                return Err(ErrorKind::MacTwice { text: show_mac(port.mac), first, second });
            }
        }
        // Whoever has not chosen makes room: there is one more number for each that was chosen.
        let count = self.ports.len();
        let mut free = (count..).map(|number| outer_mac(number, 0)).filter(|mac| chosen.get(mac).is_none());
        for port in self.ports.iter_mut().filter(|port| port.choice.mac.is_none()) {
            if chosen.get(&port.mac).is_some() {
                port.mac = free.next().unwrap_or(port.mac);
            }
        }
        Ok(())
    }

    /// Fails if the laboratory has two parts that no way connects, not even one over a host.
    pub(super) fn check_ways(&self) -> Result<(), ErrorKind> {
        let first = self.ports[0].node;
        let (mut reached, mut pending) = (Set::from([first]), vec![first]);
        while let Some(node) = pending.pop() {
            let segments = self.nodes[node].ports.iter().map(|port| &self.segments[self.ports[*port].segment]);
            for port in segments.flat_map(|segment| &segment.ports) {
                let next = self.ports[*port].node;
                if reached.insert(next) {
                    pending.push(next);
                }
            }
        }
        match self.ports.iter().find(|port| !reached.contains(&port.node)) {
            Some(port) => {
                let [first, second] = map_both([first, port.node], |node| self.nodes[node].name.clone());
                Err(ErrorKind::NoRoute { first, second })
            }
            None => Ok(()),
        }
    }
}

impl Segment {
    fn new(name: String) -> Self {
        Self { name, subnets: [None; 2], ports: Vec::new(), chosen: Vec::new(), switch: None }
    }
}

impl PlannedPort {
    /// Whether it has an address of this kind.
    pub(super) fn has(&self, is_v4: bool) -> bool {
        self.addresses.iter().any(|(address, _)| address.is_ipv4() == is_v4)
    }

    /// The addresses that were chosen for it, as they were written.
    pub(super) fn chosen_addresses(&self) -> &[String] {
        &self.choice.addresses
    }
}

/// The address of the outer end of a port, with 1, or of the inner one, with 0.
pub(super) fn outer_mac(port: usize, end: u8) -> Mac {
    let [.., high, low] = (port + 1).to_be_bytes();
    [2, 0, 0, end, high, low]
}

/// Whether a name means something else. Init knows the wire by its name.
fn is_taken(name: &str) -> bool {
    RESERVED.contains(&name) || name.as_bytes() == WIRE.to_bytes()
}

/// Whether getaddrinfo(3) takes a name for an address: `10` is 0.0.0.10, and so is `0xa`.
fn is_number(name: &str) -> bool {
    let is_hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.bytes().all(|byte| byte.is_ascii_digit()) || name.strip_prefix("0x").is_some_and(is_hex)
}

fn check_names(nodes: &[DraftNode]) -> Result<(), ErrorKind> {
    let mut seen = Set::new();
    for DraftNode { name, .. } in nodes {
        let lower = name.to_ascii_lowercase();
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !(name.starts_with('-') || name.ends_with('-'));
        if !is_plain || !(1..=HOST_NAME_MAX).contains(&name.len()) || is_number(&lower) || is_taken(&lower) {
            return Err(ErrorKind::BadName(name.clone()));
        }
        // Names of hosts are the same in capitals.
        if !seen.insert(lower) {
            return Err(ErrorKind::NameTwice(name.clone()));
        }
    }
    Ok(())
}

fn parse_mac(text: &str) -> Option<Mac> {
    let mut mac = Mac::default();
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+'))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let is_group = mac[0] & 1 != 0;
    (parts.next().is_none() && !is_group && mac != Mac::default()).then_some(mac)
}

fn show_mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
