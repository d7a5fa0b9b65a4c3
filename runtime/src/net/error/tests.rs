//! What each error says.

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
    let step = |what, errno| ErrorKind::Step { what, of: of(), errno };
    let troubles = [
        ErrorKind::Outside,
        ErrorKind::NoNetwork,
        ErrorKind::NoRoot(1000),
        ErrorKind::Forked,
        ErrorKind::UpTwice,
        ErrorKind::NoHosts,
        ErrorKind::BadName(text()),
        ErrorKind::NameTwice(of()),
        ErrorKind::Foreign(of()),
        ErrorKind::Itself(of()),
        ErrorKind::TwoSwitches(first(), second()),
        ErrorKind::NoEnd { link: "of `one` and `two`".to_owned(), node: of() },
        ErrorKind::OfSwitch("lan".to_owned()),
        ErrorKind::BadAddress { of: segment(), text: text() },
        ErrorKind::NotForHosts { of: of(), address, subnet: net },
        ErrorKind::Unusable { of: of(), address, what: "nobody's" },
        ErrorKind::TooSmallForV6 { of: of(), address: IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 7]), mtu: 1000 },
        ErrorKind::OtherPrefix { of: of(), address, prefix: 16, segment: segment(), subnet: net },
        ErrorKind::Elsewhere { of: of(), address, segment: segment(), subnet: net },
        ErrorKind::SubnetTwice { of: segment(), first: net, second: subnet("198.51.100.0/24") },
        ErrorKind::AddressTwice { address, first: first(), second: second() },
        ErrorKind::AddressTwice { address, first: first(), second: first() },
        ErrorKind::Overlap { first: format!("{net} of A"), second: "192.0.0.0/16 of B".to_owned() },
        ErrorKind::BeginsWithZero { segment: segment(), subnet: subnet("0.0.0.0/4") },
        ErrorKind::Full { segment: segment(), subnet: net },
        ErrorKind::NoSubnet(segment()),
        ErrorKind::BadMac { of: of(), text: text() },
        ErrorKind::MacTwice { text: "02:00:00:00:00:01".to_owned(), first: first(), second: second() },
        ErrorKind::BadMtu { of: of(), mtu: 9001 },
        ErrorKind::BadInterface { of: of(), name: text() },
        ErrorKind::InterfaceTwice { of: of(), name: "eth0".to_owned() },
        ErrorKind::NoRoute { first: first(), second: second() },
        ErrorKind::NoSides(of()),
        ErrorKind::NotLinked(of(), second()),
        ErrorKind::ForwardWithoutNat(of()),
        ErrorKind::PortZero(of()),
        ErrorKind::PortTwice(of(), 80),
        ErrorKind::ForwardToItself(of(), 80),
        ErrorKind::NotInside(of(), second()),
        ErrorKind::NoModule { of: of(), what: "a rule", module: "nft_masq", errno: Errno::ENOENT },
        step("a route", Errno::EPERM),
        step(NAMESPACES, Errno::ENOSPC),
        step(NETWORK, Errno::ENOSPC),
        step("a route", Errno::ENOSPC),
        step(PAIR, Errno::EOPNOTSUPP),
        step(RING, Errno::EAFNOSUPPORT),
        step("a route", Errno::EOPNOTSUPP),
        step("a route", Errno::EEXIST),
        step("a thread", Errno::EAGAIN),
        step("a route", Errno::EMFILE),
    ];
    let texts: Vec<_> = troubles.into_iter().map(|trouble| Error(trouble).to_string()).collect();
    let texts: Vec<_> = texts.iter().map(|text| text.strip_prefix("belljar: the laboratory is not up: ")).collect();
    assert!(texts.iter().all(|text| text.is_some_and(|text| text.ends_with('.'))));
    assert_snapshot!(texts.into_iter().flatten().collect::<Vec<_>>().join("\n"), @r"
    this is no sandbox. Write `#[isolated]` above the test.
    this sandbox has the host's network. Write `#[isolated]`, or name `net` among its words: `#[isolated(net)]`.
    EPERM: the test is user 1000, and it takes root inside to make networks. Leave out `user`: programs on hosts can give up root's powers by themselves.
    the test has forked this process. Call `up` in the test's own.
    `up` was called before. Make another `Lab`.
    it has no host. Call `host`.
    `a\nb` is no name of a host: expected 1 to 63 letters, digits and `-`, with no `-` at its ends. It must be no number, and none of `localhost`, `ip6-localhost`, `ip6-loopback` and `belljar-wire`.
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
    the switch `lan` can't have the subnet 0.0.0.0/4: the kernel makes no route to one that begins with 0. Choose another subnet, or more bits if the address does not begin with 0.
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
    `host` can't forward the port 80 to itself.
    `host` can't forward a port to `two`: no way leads there but over the outside, or over another router with NAT.
    `host` could not have a rule: ENOENT (No such file or directory). The kernel lacks the module nft_masq: modprobe nft_masq.
    `host` could not have a route: EPERM (Operation not permitted). It takes root inside, and CAP_SYS_ADMIN and CAP_NET_ADMIN, which the test may have given up.
    `host` could not have namespaces: ENOSPC (No space left on device). No more namespaces of this kind are allowed: see /proc/sys/user.
    `host` could not have a network namespace: ENOSPC (No space left on device). No more namespaces of this kind are allowed: see /proc/sys/user.
    `host` could not have a route: ENOSPC (No space left on device).
    `host` could not have a veth pair: EOPNOTSUPP (Operation not supported on transport endpoint). The kernel lacks the module veth: modprobe veth.
    `host` could not have a ring for packets: EAFNOSUPPORT (Address family not supported by protocol). The kernel lacks the module af_packet: modprobe af_packet.
    `host` could not have a route: EOPNOTSUPP (Operation not supported on transport endpoint).
    `host` could not have a route: EEXIST (File exists).
    `host` could not have a thread: EAGAIN (Try again): perhaps there are as many processes and threads as there may be, or there is no memory for one more. For more, raise the limit (`ulimit -u`, or the test's `pids`).
    `host` could not have a route: EMFILE (Too many open files): this process has as many open files as it may have. Raise the limit (`ulimit -n`).
    ");
}
