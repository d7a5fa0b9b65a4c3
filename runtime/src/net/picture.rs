//! A laboratory, as a failure shows it.

use std::fmt::Write as _;

use super::lab::plan::Plan;
use super::node::Role;
use crate::collect::CollectVec as _;

/// Each segment, and below it its ports with their addresses. `None` for laboratories of one or two hosts, which need no
/// picture.
pub(super) fn picture(plan: &Plan) -> Option<String> {
    if plan.nodes.iter().filter(|node| node.role != Role::Switch).count() < 3 {
        return None;
    }
    let mut text = "its laboratory:".to_owned();
    for segment in plan.segments.iter().filter(|segment| !segment.ports.is_empty()) {
        let subnets = segment.subnets.iter().flatten().map(ToString::to_string).collect_vec();
        // Text can always be written to a string.
        let _ = write!(text, "\n  {}: {}", segment.name, subnets.join(", "));
        for (position, port) in segment.ports.iter().enumerate() {
            let branch = if position + 1 == segment.ports.len() { '└' } else { '├' };
            let port = &plan.ports[*port];
            let node = &plan.nodes[port.node];
            let addresses = port.addresses.iter().map(|(address, _)| address.to_string()).collect_vec();
            let role = if node.role == Role::Router { " (router)" } else { "" };
            let _ = write!(text, "\n  {branch}── {}.{}{role}: {}", node.name, port.interface, addresses.join(", "));
        }
    }
    Some(text)
}
