//! The kernel's settings of a network, below `/proc/sys/net`: those of the network that the thread is in.

use std::fs;
use std::io;
use std::path::Path;

const SETTINGS: &str = "/proc/sys/net";

/// Whether the kernel has IPv6.
pub(super) fn has_v6() -> bool {
    Path::new(SETTINGS).join("ipv6/conf/default").exists()
}

/// Has interfaces that are made from now on send nothing by themselves.
pub(super) fn silence() -> io::Result<()> {
    if has_v6() { set("ipv6/conf/default/disable_ipv6", "1") } else { Ok(()) }
}

/// Settings that a new network may have from the machine's, and the value without which hosts don't answer as they should: whether packets are taken
/// for strays by their source, and whether ARP is answered.
const OF_MACHINE: [&str; 3] = ["rp_filter", "arp_ignore", "arp_filter"];

/// Has interfaces that are made from now on be usable at once. `forwards`: for a router.
pub(super) fn prepare(forwards: bool) -> io::Result<()> {
    // ICMP sockets are for everybody, as in the sandbox itself.
    set("ipv4/ping_group_range", "0 2147483647").or_else(|_| set("ipv4/ping_group_range", "0 0"))?;
    let forwarding = if forwards { "1" } else { "0" };
    // It changes others, so that it comes first.
    set("ipv4/ip_forward", forwarding)?;
    for which in ["all", "default"] {
        for name in OF_MACHINE {
            set(&format!("ipv4/conf/{which}/{name}"), "0")?;
        }
    }
    if has_v6() {
        set("ipv6/conf/all/forwarding", forwarding)?;
        for which in ["all", "default"] {
            set(&format!("ipv6/conf/{which}/disable_ipv6"), "0")?;
        }
        // Nobody else can have the same address, and nobody advertises routes.
        set("ipv6/conf/default/accept_dad", "0")?;
        set("ipv6/conf/default/router_solicitations", "0")?;
    }
    Ok(())
}

fn set(name: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new(SETTINGS).join(name), value)
}
