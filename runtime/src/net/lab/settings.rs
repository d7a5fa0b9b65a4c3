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

/// Has interfaces that are made from now on be usable at once. `forwards`: for a router.
pub(super) fn prepare(forwards: bool) -> io::Result<()> {
    // ICMP sockets are for everybody, as in the sandbox itself.
    set("ipv4/ping_group_range", "0 2147483647").or_else(|_| set("ipv4/ping_group_range", "0 0"))?;
    if forwards {
        set("ipv4/ip_forward", "1")?;
    }
    if has_v6() {
        // Nobody else can have the same address, and nobody advertises routes.
        set("ipv6/conf/default/accept_dad", "0")?;
        set("ipv6/conf/default/router_solicitations", "0")?;
        if forwards {
            set("ipv6/conf/all/forwarding", "1")?;
        }
    }
    Ok(())
}

fn set(name: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new(SETTINGS).join(name), value)
}
