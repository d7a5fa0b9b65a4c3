//! Why there is no laboratory.

#[cfg(test)]
mod tests;

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::IpAddr;

use nix::errno::Errno;

use super::node::{MTUS, RESERVED};
use super::subnet::Subnet;
use crate::frame::HOST_NAME_MAX;
use crate::text::{error, error_with_limit, plain};

/// Steps of which it is known what their errors mean.
pub(super) const NAMESPACES: &str = "namespaces";
pub(super) const NETWORK: &str = "a network namespace";
pub(super) const PAIR: &str = "a veth pair";
pub(super) const RING: &str = "a ring for packets";

/// Why a [`Lab`](super::Lab) is not up. It says what to write instead, if what was asked for can't be.
///
/// ```test_harness
/// # use belljar::isolated;
/// # use belljar::net::Lab;
/// # #[isolated]
/// # fn example() {
/// let mut lab = Lab::new();
/// lab.host("server");
/// lab.host("server");
/// let error = lab.up().unwrap_err();
/// assert!(error.to_string().contains("two are called `server`"), "{error}");
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub(super) ErrorKind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    Outside,
    NoNetwork,
    NoRoot(u32),
    Forked,
    UpTwice,
    NoHosts,
    BadName(String),
    NameTwice(String),
    Foreign(String),
    Itself(String),
    TwoSwitches(String, String),
    NoEnd {
        link: String,
        node: String,
    },
    /// A choice at one end of a link is for a switch, which has no interface.
    OfSwitch(String),
    BadAddress {
        of: String,
        text: String,
    },
    NotForHosts {
        of: String,
        address: IpAddr,
        subnet: Subnet,
    },
    Unusable {
        of: String,
        address: IpAddr,
        what: &'static str,
    },
    TooSmallForV6 {
        of: String,
        address: IpAddr,
        mtu: u32,
    },
    OtherPrefix {
        of: String,
        address: IpAddr,
        prefix: u8,
        segment: String,
        subnet: Subnet,
    },
    Elsewhere {
        of: String,
        address: IpAddr,
        segment: String,
        subnet: Subnet,
    },
    SubnetTwice {
        of: String,
        first: Subnet,
        second: Subnet,
    },
    AddressTwice {
        address: IpAddr,
        first: String,
        second: String,
    },
    /// Each with its segment.
    Overlap {
        first: String,
        second: String,
    },
    /// To a subnet that begins like this, the kernel makes no way.
    BeginsWithZero {
        segment: String,
        subnet: Subnet,
    },
    Full {
        segment: String,
        subnet: Subnet,
    },
    NoSubnet(String),
    BadMac {
        of: String,
        text: String,
    },
    MacTwice {
        text: String,
        first: String,
        second: String,
    },
    BadMtu {
        of: String,
        mtu: u32,
    },
    BadInterface {
        of: String,
        name: String,
    },
    InterfaceTwice {
        of: String,
        name: String,
    },
    NoRoute {
        first: String,
        second: String,
    },
    /// A router that is to tell an outside from an inside, and has one interface.
    NoSides(String),
    /// The router, and what is to be its outside.
    NotLinked(String, String),
    ForwardWithoutNat(String),
    PortZero(String),
    PortTwice(String, u16),
    ForwardToItself(String, u16),
    NotInside(String, String),
    NoModule {
        of: String,
        what: &'static str,
        module: &'static str,
        errno: Errno,
    },
    Step {
        what: &'static str,
        of: String,
        errno: Errno,
    },
}

impl Error {
    /// A step that the kernel has refused.
    pub(super) fn step(what: &'static str, of: &str, errno: Errno) -> Self {
        Self(ErrorKind::Step { what, of: of.to_owned(), errno })
    }

    /// The kernel's error number, as errno(3) lists them, if it has refused a step.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// assert_eq!(Lab::new().up().unwrap_err().errno(), None, "a laboratory takes a host");
    /// # }
    /// ```
    pub fn errno(&self) -> Option<i32> {
        match &self.0 {
            ErrorKind::Step { errno, .. } | ErrorKind::NoModule { errno, .. } => Some(*errno as i32),
            _ => None,
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        use ErrorKind as T;
        write!(f, "belljar: the laboratory is not up: ")?;
        match &self.0 {
            T::Outside => write!(f, "this is no sandbox. Write `#[isolated]` above the test."),
            T::NoNetwork => write!(
                f,
                "this sandbox has the host's network. Write `#[isolated]`, or name `net` among its words: `#[isolated(net)]`."
            ),
            T::NoRoot(user) => write!(
                f,
                "EPERM: the test is user {user}, and it takes root inside to make networks. Leave out `user`: programs on hosts can \
                 give up root's powers by themselves."
            ),
            T::Forked => write!(f, "the test has forked this process. Call `up` in the test's own."),
            T::UpTwice => write!(f, "`up` was called before. Make another `Lab`."),
            T::NoHosts => write!(f, "it has no host. Call `host`."),
            T::BadName(name) => write!(
                f,
                "`{}` is no name of a host: expected 1 to {HOST_NAME_MAX} letters, digits and `-`, with no `-` at its ends. It must be no number, \
                 and none of `{}` and `belljar-wire`.",
                plain(name),
                RESERVED.join("`, `")
            ),
            T::NameTwice(name) => write!(f, "two are called `{}`.", plain(name)),
            T::Foreign(name) => write!(f, "`{}` belongs to another `Lab`.", plain(name)),
            T::Itself(name) => write!(f, "`{}` is linked with itself.", plain(name)),
            T::TwoSwitches(first, second) => {
                write!(
                    f,
                    "the switches `{first}` and `{second}` are linked. Put a router between them, or use one switch."
                )
            }
            T::NoEnd { link, node } => write!(f, "`{node}` is no end of the link {link}."),
            T::OfSwitch(switch) => write!(
                f,
                "the switch `{switch}` has neither addresses nor interfaces of its own. Name the other end of the link, or choose a subnet by \
                 `Switch::subnet`."
            ),
            addressing => Self::write_addressing(addressing, f),
        }
    }
}

impl Error {
    fn write_addressing(trouble: &ErrorKind, f: &mut Formatter<'_>) -> fmt::Result {
        use ErrorKind as T;
        match trouble {
            T::BadAddress { of, text } => write!(
                f,
                "`{}`, chosen for {of}, is no address with a subnet: expected one like `192.0.2.7/24` or `fd00::7/64`.",
                plain(text)
            ),
            T::NotForHosts { of, address, subnet } => {
                write!(f, "`{of}` can't have {address}: it stands for the subnet {subnet} as a whole.")
            }
            T::Unusable { of, address, what } => write!(f, "`{of}` can't have {address}: that is {what}."),
            T::TooSmallForV6 { of, address, mtu } => write!(
                f,
                "`{of}` can't have {address}: its packets have at most {mtu} bytes, and IPv6 takes 1280. Choose a larger `mtu`."
            ),
            T::OtherPrefix { of, address, prefix, segment, subnet } => write!(
                f,
                "`{of}` was given {address}/{prefix} on {segment}, whose subnet is {subnet}. Write `{address}/{}`.",
                subnet.prefix()
            ),
            T::Elsewhere { of, address, segment, subnet } => {
                write!(f, "`{of}` can't have {address} on {segment}, whose subnet is {subnet}.")
            }
            T::SubnetTwice { of, first, second } => {
                write!(f, "{of} was given two subnets of one kind, {first} and {second}.")
            }
            T::AddressTwice { address, first, second } if first == second => {
                write!(f, "`{first}` was given the address {address} twice.")
            }
            T::AddressTwice { address, first, second } => {
                write!(f, "`{first}` and `{second}` were both given the address {address}.")
            }
            T::Overlap { first, second } => {
                write!(f, "the subnets {first} and {second} overlap.")
            }
            T::BeginsWithZero { segment, subnet } => write!(
                f,
                "{segment} can't have the subnet {subnet}: the kernel makes no route to one that begins with 0. Choose another subnet, or more bits if \
                 the address does not begin with 0."
            ),
            T::Full { segment, subnet } => {
                write!(f, "{segment} has more ports than its subnet {subnet} has addresses.")
            }
            T::NoSubnet(segment) => {
                write!(f, "all subnets of 10.0.0.0/8 or of fd00::/48 are taken: choose one for {segment}.")
            }
            T::BadMac { of, text } => write!(
                f,
                "`{}`, chosen for `{of}`, is no address of an interface: expected one like `02:00:00:00:00:07`, which is no group's.",
                plain(text)
            ),
            T::MacTwice { text, first, second } => {
                write!(f, "`{first}` and `{second}` were both given the address {text}.")
            }
            T::BadMtu { of, mtu } => {
                write!(f, "`{of}` can't have packets of {mtu} bytes: expected {} to {}.", MTUS.start(), MTUS.end())
            }
            T::BadInterface { of, name } => write!(
                f,
                "`{}`, chosen for `{of}`, is no name of an interface: expected 1 to 15 bytes, no space, `%`, `/` or `:`, and none of `.`, `..`, \
                 `lo`, `all` and `default`.",
                plain(name)
            ),
            T::InterfaceTwice { of, name } => write!(f, "`{of}` has two interfaces that are called `{}`.", plain(name)),
            T::NoRoute { first, second } => write!(
                f,
                "there is nobody to route through between `{first}` and `{second}`: no way of links leads from one to the other. Link a \
                 router with the networks of both."
            ),
            T::Step { what, of, errno } => {
                write!(f, "`{of}` could not have {what}: {}.{}", error_with_limit(*errno), Self::why(what, *errno))
            }
            gates => Self::write_gates(gates, f),
        }
    }

    /// What an error of a step may mean, if somebody can do something about it.
    fn why(what: &str, errno: Errno) -> &'static str {
        match (errno, what) {
            (Errno::EPERM, _) => {
                " It takes root inside, and CAP_SYS_ADMIN and CAP_NET_ADMIN, which the test may have given up."
            }
            (Errno::ENOSPC, NAMESPACES | NETWORK) => {
                " No more namespaces of this kind are allowed: see /proc/sys/user."
            }
            (Errno::EOPNOTSUPP, PAIR) => " The kernel lacks the module veth: modprobe veth.",
            (Errno::EAFNOSUPPORT, RING) => " The kernel lacks the module af_packet: modprobe af_packet.",
            _ => "",
        }
    }

    fn write_gates(trouble: &ErrorKind, f: &mut Formatter<'_>) -> fmt::Result {
        use ErrorKind as T;
        match trouble {
            T::NoSides(router) => write!(
                f,
                "`{router}` has no outside and inside: NAT and a firewall take a router with two links at least."
            ),
            T::NotLinked(router, other) => {
                write!(f, "`{other}` is not the outside of `{router}`: no link connects them.")
            }
            T::ForwardWithoutNat(router) => write!(f, "`{router}` forwards a port, but has no NAT. Call `nat` too."),
            T::PortZero(router) => write!(f, "`{router}` can't forward the port 0: expected 1 to 65535."),
            T::PortTwice(router, port) => write!(f, "`{router}` was told twice where to forward the port {port}."),
            T::ForwardToItself(router, port) => write!(f, "`{router}` can't forward the port {port} to itself."),
            T::NotInside(router, other) => write!(
                f,
                "`{router}` can't forward a port to `{other}`: no way leads there but over the outside, or over another router with NAT."
            ),
            T::NoModule { of, what, module, errno } => write!(
                f,
                "`{of}` could not have {what}: {}. The kernel lacks the module {module}: modprobe {module}.",
                error(*errno)
            ),
            // The others are in `fmt`.
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error.0 {
            ErrorKind::Step { errno, .. } => Self::from(*errno).kind(),
            ErrorKind::NoModule { .. } => io::ErrorKind::Unsupported,
            ErrorKind::Outside | ErrorKind::NoNetwork | ErrorKind::Forked => io::ErrorKind::Unsupported,
            ErrorKind::NoRoot(_) => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
