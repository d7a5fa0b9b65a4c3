//! Why there is no laboratory.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::IpAddr;

use nix::errno::Errno;

use super::node::{MTUS, RESERVED};
use super::subnet::Subnet;
use crate::frame::HOST_NAME_MAX;
use crate::text::{error, plain};

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
pub struct Error(pub(super) Trouble);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
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
        Self(Trouble::Step { what, of: of.to_owned(), errno })
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
            Trouble::Step { errno, .. } | Trouble::NoModule { errno, .. } => Some(*errno as i32),
            _ => None,
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        use Trouble as T;
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
                "`{}` is no name of a host: expected 1 to {HOST_NAME_MAX} letters, digits and `-`, not beginning with `-`. It must be no number, \
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
    fn write_addressing(trouble: &Trouble, f: &mut Formatter<'_>) -> fmt::Result {
        use Trouble as T;
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
                let why = match errno {
                    Errno::EPERM => {
                        " It takes root inside, and CAP_SYS_ADMIN and CAP_NET_ADMIN, which the test may have given up."
                    }
                    Errno::ENOSPC => " No more namespaces of this kind are allowed: see /proc/sys/user.",
                    Errno::EOPNOTSUPP => " The kernel has no veth interfaces: modprobe veth.",
                    _ => "",
                };
                write!(f, "`{of}` could not have {what}: {}.{why}", error(*errno))
            }
            gates => Self::write_gates(gates, f),
        }
    }

    fn write_gates(trouble: &Trouble, f: &mut Formatter<'_>) -> fmt::Result {
        use Trouble as T;
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
            T::NotInside(router, other) => {
                write!(f, "`{router}` can't forward a port to `{other}`, which has no address on the inside.")
            }
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
            Trouble::Step { errno, .. } => Self::from(*errno).kind(),
            Trouble::NoModule { .. } => io::ErrorKind::Unsupported,
            Trouble::Outside | Trouble::NoNetwork | Trouble::Forked => io::ErrorKind::Unsupported,
            Trouble::NoRoot(_) => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).expect(text).1
    }

    #[test]
    fn each_error_has_its_words() {
        let (of, text) = (|| "host".to_owned(), || "a\nb".to_owned());
        let (first, second, address) = (|| "one".to_owned(), || "two".to_owned(), IpAddr::from([192, 0, 2, 7]));
        let (segment, net) = (|| "the switch `lan`".to_owned(), subnet("192.0.2.0/24"));
        let step = |errno| Trouble::Step { what: "a route", of: of(), errno };
        let troubles = [
            Trouble::Outside,
            Trouble::NoNetwork,
            Trouble::NoRoot(1000),
            Trouble::Forked,
            Trouble::UpTwice,
            Trouble::NoHosts,
            Trouble::BadName(text()),
            Trouble::NameTwice(of()),
            Trouble::Foreign(of()),
            Trouble::Itself(of()),
            Trouble::TwoSwitches(first(), second()),
            Trouble::NoEnd { link: "of `one` and `two`".to_owned(), node: of() },
            Trouble::OfSwitch("lan".to_owned()),
            Trouble::BadAddress { of: segment(), text: text() },
            Trouble::NotForHosts { of: of(), address, subnet: net },
            Trouble::Unusable { of: of(), address, what: "nobody's" },
            Trouble::TooSmallForV6 { of: of(), address: IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 7]), mtu: 1000 },
            Trouble::OtherPrefix { of: of(), address, prefix: 16, segment: segment(), subnet: net },
            Trouble::Elsewhere { of: of(), address, segment: segment(), subnet: net },
            Trouble::SubnetTwice { of: segment(), first: net, second: subnet("198.51.100.0/24") },
            Trouble::AddressTwice { address, first: first(), second: second() },
            Trouble::AddressTwice { address, first: first(), second: first() },
            Trouble::Overlap { first: format!("{net} of A"), second: "192.0.0.0/16 of B".to_owned() },
            Trouble::Full { segment: segment(), subnet: net },
            Trouble::NoSubnet(segment()),
            Trouble::BadMac { of: of(), text: text() },
            Trouble::MacTwice { text: "02:00:00:00:00:01".to_owned(), first: first(), second: second() },
            Trouble::BadMtu { of: of(), mtu: 9001 },
            Trouble::BadInterface { of: of(), name: text() },
            Trouble::InterfaceTwice { of: of(), name: "eth0".to_owned() },
            Trouble::NoRoute { first: first(), second: second() },
            Trouble::NoSides(of()),
            Trouble::NotLinked(of(), second()),
            Trouble::ForwardWithoutNat(of()),
            Trouble::PortZero(of()),
            Trouble::PortTwice(of(), 80),
            Trouble::NotInside(of(), second()),
            Trouble::NoModule { of: of(), what: "a rule", module: "nft_masq", errno: Errno::ENOENT },
            step(Errno::EPERM),
            step(Errno::ENOSPC),
            step(Errno::EOPNOTSUPP),
            step(Errno::EEXIST),
        ];
        let texts: Vec<_> = troubles.into_iter().map(|trouble| Error(trouble).to_string()).collect();
        let texts: Vec<_> = texts.iter().map(|text| text.strip_prefix("belljar: the laboratory is not up: ")).collect();
        assert!(
            texts.iter().all(|text| text.is_some_and(|text| text.ends_with(['.', ')']) || text.ends_with("veth.")))
        );
        assert_snapshot!(texts.into_iter().flatten().collect::<Vec<_>>().join("\n"), @r"
        this is no sandbox. Write `#[isolated]` above the test.
        this sandbox has the host's network. Write `#[isolated]`, or name `net` among its words: `#[isolated(net)]`.
        EPERM: the test is user 1000, and it takes root inside to make networks. Leave out `user`: programs on hosts can give up root's powers by themselves.
        the test has forked this process. Call `up` in the test's own.
        `up` was called before. Make another `Lab`.
        it has no host. Call `host`.
        `a\nb` is no name of a host: expected 1 to 63 letters, digits and `-`, not beginning with `-`. It must be no number, and none of `localhost`, `ip6-localhost`, `ip6-loopback` and `belljar-wire`.
        two are called `host`.
        `host` belongs to another `Lab`.
        `host` is linked with itself.
        the switches `one` and `two` are linked. Put a router between them, or use one switch.
        `host` is no end of the link of `one` and `two`.
        the switch `lan` has neither addresses nor interfaces of its own. Name the other end of the link, or choose a subnet by `Switch::subnet`.
        `a\nb`, chosen for the switch `lan`, is no address with a subnet: expected one like `192.0.2.7/24` or `fd00::7/64`.
        `host` can't have 192.0.2.7: it stands for the subnet 192.0.2.0/24 as a whole.
        `host` can't have 192.0.2.7: that is nobody's.
        `host` can't have fd00::7: its packets have at most 1000 bytes, and IPv6 takes 1280. Choose a larger `mtu`.
        `host` was given 192.0.2.7/16 on the switch `lan`, whose subnet is 192.0.2.0/24. Write `192.0.2.7/24`.
        `host` can't have 192.0.2.7 on the switch `lan`, whose subnet is 192.0.2.0/24.
        the switch `lan` was given two subnets of one kind, 192.0.2.0/24 and 198.51.100.0/24.
        `one` and `two` were both given the address 192.0.2.7.
        `one` was given the address 192.0.2.7 twice.
        the subnets 192.0.2.0/24 of A and 192.0.0.0/16 of B overlap.
        the switch `lan` has more ports than its subnet 192.0.2.0/24 has addresses.
        all subnets of 10.0.0.0/8 or of fd00::/48 are taken: choose one for the switch `lan`.
        `a\nb`, chosen for `host`, is no address of an interface: expected one like `02:00:00:00:00:07`, which is no group's.
        `one` and `two` were both given the address 02:00:00:00:00:01.
        `host` can't have packets of 9001 bytes: expected 68 to 9000.
        `a\nb`, chosen for `host`, is no name of an interface: expected 1 to 15 bytes, no space, `%`, `/` or `:`, and none of `.`, `..`, `lo`, `all` and `default`.
        `host` has two interfaces that are called `eth0`.
        there is nobody to route through between `one` and `two`: no way of links leads from one to the other. Link a router with the networks of both.
        `host` has no outside and inside: NAT and a firewall take a router with two links at least.
        `two` is not the outside of `host`: no link connects them.
        `host` forwards a port, but has no NAT. Call `nat` too.
        `host` can't forward the port 0: expected 1 to 65535.
        `host` was told twice where to forward the port 80.
        `host` can't forward a port to `two`, which has no address on the inside.
        `host` could not have a rule: ENOENT (No such file or directory). The kernel lacks the module nft_masq: modprobe nft_masq.
        `host` could not have a route: EPERM (Operation not permitted). It takes root inside, and CAP_SYS_ADMIN and CAP_NET_ADMIN, which the test may have given up.
        `host` could not have a route: ENOSPC (No space left on device). No more namespaces of this kind are allowed: see /proc/sys/user.
        `host` could not have a route: EOPNOTSUPP (Operation not supported on transport endpoint). The kernel has no veth interfaces: modprobe veth.
        `host` could not have a route: EEXIST (File exists).
        ");
    }
}
