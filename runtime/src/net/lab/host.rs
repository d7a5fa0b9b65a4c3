//! Makes a host, from the inside: its namespaces, its files, and what its interfaces have.

use std::ffi::CStr;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::sethostname;

use super::plan::Plan;
use super::routes::routes;
use super::settings;
use crate::collect::CollectVec as _;
use crate::net::error::{Error, NAMESPACES};
use crate::net::netfilter;
use crate::net::netlink::{Messages, Netlink, Refused};
use crate::net::node::{RESERVED, Role};
use crate::net::place::HostNamespaces;
use crate::proc::text_of;
use crate::sorted::sort_by;
use crate::sys::{self, Ethernet, errno_of, mount};

const HOSTS: &str = "/etc/hosts";
const SYSFS: &CStr = c"/sys";

/// What in sysfs is the host's own.
const INTERFACES: &CStr = c"/sys/devices/virtual/net";

/// How long a worker of the kernel may take, and how often it is looked whether it is done.
const PATIENCE: Duration = Duration::from_secs(10);
const PULSE: Duration = Duration::from_micros(100);

/// Where other file systems are mounted in sysfs.
const IN_SYSFS: [&CStr; 1] = [c"/sys/fs/cgroup"];

/// Makes an `/etc/hosts` in a root that has none, for those of hosts to be mounted there. If that fails, the mounts tell.
pub(super) fn have_hosts_file() {
    let _ = fs::create_dir_all("/etc");
    let _ = OpenOptions::new().append(true).create(true).open(HOSTS);
}

/// Has this thread become the host's first: in namespaces of its own, of which the network is ready for interfaces.
pub(super) fn begin(plan: &Plan, node: usize) -> Result<HostNamespaces, Error> {
    let planned = &plan.nodes[node];
    let step = |what| move |errno| Error::step(what, &planned.name, errno);
    HostNamespaces::enter_new().map_err(step(NAMESPACES))?;
    let set = settings::prepare(planned.role == Role::Router);
    set.map_err(|error| Error::step("its settings in /proc/sys/net", &planned.name, errno_of(&error)))?;
    HostNamespaces::current().map_err(|error| Error::step(NAMESPACES, &planned.name, Errno::from_raw(error.errno())))
}

/// Gives the host, whose thread this is, all that it has without interfaces: its name and its files.
pub(super) fn fit_out(plan: &Plan, node: usize) -> Result<(), Error> {
    let planned = &plan.nodes[node];
    let step = |what| move |errno| Error::step(what, &planned.name, errno);
    sethostname(&planned.name).map_err(step("a name"))?;
    mount_files(&hosts_file(plan, node)).map_err(|(what, errno)| Error::step(what, &planned.name, errno))?;
    sys::bring_up_loopback().map_err(step("a loopback"))
}

/// Mounts an `/etc/hosts` and a `/sys` of the host's own.
fn mount_files(hosts: &str) -> Result<(), (&'static str, Errno)> {
    let none = None::<&CStr>;
    let step = |what| move |errno| (what, errno);
    // What the body mounts later is seen here, and what is mounted here is not seen there.
    mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(step("a mount table"))?;
    let others = IN_SYSFS.map(sys::clone_mounts);
    let is_shielded = statvfs(SYSFS).is_ok_and(|sysfs| sysfs.flags().contains(FsFlags::ST_RDONLY));
    // The file needs a file system that nobody finds: one that is attached for as long as it takes to bind the file.
    let files = sys::new_tmpfs(c"0755").map_err(step("a file system for /etc/hosts"))?;
    let written = fs::write(Path::new("/proc/thread-self/fd").join(files.as_raw_fd().to_string()).join("hosts"), hosts);
    written.map_err(|error| ("an /etc/hosts", errno_of(&error)))?;
    sys::attach_mounts(&files, c"/sys").map_err(step("a file system at /sys"))?;
    let bound = mount(Some(c"/sys/hosts"), c"/etc/hosts", none, MsFlags::MS_BIND, none);
    umount2(SYSFS, MntFlags::MNT_DETACH).map_err(step("a file system at /sys"))?;
    bound.map_err(step("an /etc/hosts"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(c"sysfs"), SYSFS, Some(c"sysfs"), flags, none).map_err(step("a /sys"))?;
    if is_shielded {
        shield_sysfs(flags).map_err(step("a /sys that is read-only"))?;
    }
    for (path, other) in IN_SYSFS.into_iter().zip(others) {
        // Where there is none, there is none to be shown.
        let _ = other.and_then(|other| sys::attach_mounts(&other, path));
    }
    Ok(())
}

/// Keeps real root from changing the machine through `/sys` by accident, as the sandbox's own does. Interfaces are the host's.
fn shield_sysfs(flags: MsFlags) -> nix::Result<()> {
    let none = None::<&CStr>;
    mount(Some(INTERFACES), INTERFACES, none, MsFlags::MS_BIND, none)?;
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(none, SYSFS, none, read_only | flags, none)
}

/// What the file `/etc/hosts` of a host says: of each host, the addresses that are on a segment with this one come first.
fn hosts_file(plan: &Plan, node: usize) -> String {
    let mut text = format!("127.0.0.1\t{}\n::1\t{}\n", RESERVED[0], RESERVED.join(" "));
    let own = plan.nodes[node].ports.iter().map(|port| plan.ports[*port].segment).collect_vec();
    for other in &plan.nodes {
        let mut ports = other.ports.iter().map(|port| &plan.ports[*port]).collect_vec();
        sort_by(&mut ports, |a, b| own.contains(&b.segment).cmp(&own.contains(&a.segment)));
        for (address, _) in ports.iter().flat_map(|port| &port.addresses) {
            let _ = writeln!(text, "{address}\t{}", other.name);
        }
    }
    text
}

/// Gives the host's interfaces, which are there by now, what they need: the thread is the host's.
pub(super) fn connect(plan: &Plan, node: usize, mut netlink: Netlink, ethernet: &Ethernet) -> Result<(), Error> {
    let planned = &plan.nodes[node];
    let ports = || planned.ports.iter().map(|port| &plan.ports[*port]);
    let refused = |Refused { what, errno }| Error::step(what, &planned.name, errno);
    let step = |what| move |errno| Error::step(what, &planned.name, errno);
    for port in ports() {
        ethernet.disable_offloads(&port.interface).map_err(step("interfaces without offloads"))?;
    }
    let mut messages = Messages::default();
    for port in ports() {
        messages.raise(port.index);
        for (address, subnet) in &port.addresses {
            messages.address(port.index, *address, subnet);
        }
    }
    netlink.run(messages).map_err(refused)?;
    for port in ports() {
        ethernet.see_carrier(&port.interface).map_err(step("interfaces with a carrier"))?;
    }
    let mut messages = Messages::default();
    for port in ports() {
        let others = plan.segments[port.segment].ports.iter().map(|other| &plan.ports[*other]);
        let others = others.filter(|other| other.mac != port.mac).collect_vec();
        // Where it has no address of a kind, the kernel may have nothing of that kind at all.
        for is_v4 in [true, false].into_iter().filter(|is_v4| port.has(*is_v4)) {
            messages.remember_neighbours(port.index, is_v4);
            let addresses =
                others.iter().flat_map(|other| other.addresses.iter().map(|(address, _)| (address, other.mac)));
            for (address, mac) in addresses.filter(|(address, _)| address.is_ipv4() == is_v4) {
                messages.neighbour(port.index, *address, mac);
            }
        }
    }
    for route in routes(plan, node) {
        messages.route(route.to.as_ref(), route.gateway, plan.ports[route.port].index);
    }
    netlink.run(messages).map_err(refused)?;
    if let Some(gate) = &planned.gate {
        netfilter::set_up(&planned.name, gate)?;
    }
    let addresses = ports().flat_map(|port| port.addresses.iter().map(|(address, _)| *address)).collect_vec();
    wait_for_v6(&addresses).map_err(|error| Error::step("IPv6 addresses that answer", &planned.name, errno_of(&error)))
}

/// Waits until the kernel takes packets for these addresses. Those of IPv6 are given at once, but a worker of the kernel does the rest at its
/// time: what comes before is dropped.
fn wait_for_v6(addresses: &[IpAddr]) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        // By their digits, with the length of the subnet: those for which this host is the end.
        let routes = text_of("/proc/thread-self/net/ipv6_route").or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(String::new()),
            _ => Err(error),
        })?;
        let is_taken = |address: &IpAddr| match address {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) => {
                routes.lines().any(|line| line.starts_with(&format!("{:032x} 80 ", address.to_bits())))
            }
        };
        if addresses.iter().all(is_taken) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(Errno::ETIMEDOUT.into());
        }
        thread::sleep(PULSE);
    }
}
