//! What can't be is told before anything is made.

use std::io::{self, ErrorKind};

use belljar::isolated;
use belljar::net::{Error, Host, Lab, Nat, Router};
use belljar_tests::fork;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;

/// The error of a laboratory, without what each says.
fn refused(fill: impl FnOnce(&mut Lab)) -> String {
    let mut lab = Lab::new();
    lab.host("one");
    fill(&mut lab);
    let error = lab.up().expect_err("it can't be");
    assert_eq!(io::Error::from(error.clone()).kind(), ErrorKind::InvalidInput, "{error}");
    text(&error)
}

fn text(error: &Error) -> String {
    error.to_string().strip_prefix("belljar: the laboratory is not up: ").expect("what begins each").to_owned()
}

/// The same, where a host `host`, a router `gateway` and a switch `lan` with the router and a host `two` are there too.
fn refused_link(fill: impl FnOnce(&mut Lab, &Host, &Router)) -> String {
    refused(|lab| {
        let (host, gateway, lan, two) = (lab.host("host"), lab.router("gateway"), lab.switch("lan"), lab.host("two"));
        lab.link(&two, &lan);
        lab.link(&gateway, &lan);
        fill(lab, &host, &gateway);
    })
}

#[isolated]
fn what_is_wrong_with_a_node_is_told() {
    let told = [
        (refused(|lab| drop(lab.host("one"))), "two are called `one`"),
        (refused(|lab| drop(lab.switch("ONE"))), "two are called `ONE`"),
        (refused(|lab| drop(lab.host("a_b"))), "`a_b` is no name"),
        (refused(|lab| drop(lab.host(""))), "`` is no name"),
        (refused(|lab| drop(lab.host("-a"))), "`-a` is no name"),
        (refused(|lab| drop(lab.host("a-"))), "`a-` is no name"),
        (refused(|lab| drop(lab.host("localhost"))), "`localhost` is no name"),
        (refused(|lab| drop(lab.host("two").address("10.0.0.2"))), "`10.0.0.2`, chosen for `two`, is no address"),
        (refused(|lab| drop(lab.host("two").address("10.0.0.255/24"))), "`two` can't have 10.0.0.255"),
        (refused(|lab| drop(lab.host("two").mac("01:00:00:00:00:01"))), "`01:00:00:00:00:01`, chosen for `two`"),
        (
            refused(|lab| drop([lab.host("two"), lab.host("three")].map(|host| host.mac("02:00:00:00:00:07")))),
            "`two` and `three` were both given",
        ),
        (refused(|lab| drop(lab.host("two").mtu(67))), "can't have packets of 67 bytes"),
        (refused(|lab| drop(lab.host("two").interface("a b"))), "`a b`, chosen for `two`"),
        (refused(|lab| drop(lab.host("10"))), "`10` is no name"),
        (refused(|lab| drop(lab.host("0xa"))), "`0xa` is no name"),
        (refused(|lab| drop(lab.host("ip6-Localhost"))), "`ip6-Localhost` is no name"),
        (refused(|lab| drop(lab.host("belljar-wire"))), "`belljar-wire` is no name"),
        (refused(|lab| drop(lab.host("two").interface("eth%d"))), "`eth%d`, chosen for `two`"),
        (refused(|lab| drop(lab.host("two").interface("à"))), "`à`, chosen for `two`"),
        (refused(|lab| drop(lab.host("two").interface("sixteen-letters-"))), "`sixteen-letters-`, chosen for `two`"),
        (refused(|lab| drop(lab.host("two").mtu(1279).address("fd00::7/64"))), "and IPv6 takes 1280"),
        (refused(|lab| drop(lab.host("two").address("10.0.0.9/24").address("10.0.0.9/24"))), "10.0.0.9 twice"),
        (text(&Lab::new().up().expect_err("no host")), "it has no host"),
    ];
    for (text, words) in told {
        assert!(text.contains(words), "{text}");
    }
}

#[isolated]
fn addresses_that_no_host_can_have_are_told() {
    for (address, what) in [
        ("127.0.0.2/8", "a loopback's"),
        ("::1/64", "a loopback's"),
        ("224.0.0.1/24", "a group's"),
        ("ff02::1/64", "a group's"),
        ("0.0.0.0/8", "nobody's"),
        ("::/64", "nobody's"),
        ("255.255.255.255/24", "everybody's"),
        ("fe80::1/64", "link-local"),
        ("::ffff:10.0.0.1/120", "IPv4"),
    ] {
        let text = refused(|lab| drop(lab.host("two").address(address)));
        assert!(text.contains("`two` can't have ") && text.contains(what), "{address}: {text}");
    }
    for (address, subnet) in [("10.0.0.9/4", "0.0.0.0/4"), ("192.0.2.7/0", "0.0.0.0/0"), ("1.2.3.4/7", "0.0.0.0/7")] {
        let text = refused(|lab| drop(lab.host("two").address(address)));
        assert!(text.contains(&format!("can't have the subnet {subnet}: the kernel makes no route")), "{text}");
    }
    let text = refused_link(|lab, host, gateway| {
        let lan = lab.switch("loop").subnet("127.0.0.0/24");
        lab.link(host, &lan);
        lab.link(gateway, &lan);
    });
    assert!(text.contains("a loopback's"), "{text}");
}

#[isolated]
fn what_is_wrong_with_a_link_is_told() {
    let other = || Lab::new().host("other");
    let (one, same) = ("10.1.2.3/24", "`host` and `gateway` were both given the address 10.1.2.3");
    let told = [
        (refused_link(|lab, host, _| drop(lab.link(host, host))), "`host` is linked with itself"),
        (refused_link(|lab, host, to| drop(lab.link(host, to).mac(&other(), "-"))), "`other` is no end of the link of"),
        (refused_link(|lab, host, _| drop(lab.link(host, &other()))), "`other` belongs to another `Lab`"),
        (refused_link(|lab, host, to| drop(lab.link(host, to).address(host, one).address(to, one))), same),
        (
            refused_link(|lab, host, to| drop(lab.link(host, to).address(host, one).address(to, "10.1.3.3/24"))),
            "`gateway` can't have 10.1.3.3 on the link of `host` and `gateway`, whose subnet is 10.1.2.0/24",
        ),
        (
            refused_link(|lab, host, to| drop(lab.link(host, to).address(host, one).address(to, "10.1.2.9/16"))),
            "10.1.2.9/16 on the link of `host` and `gateway`, whose subnet is 10.1.2.0/24. Write `10.1.2.9/24`",
        ),
        (
            refused_link(|lab, host, _| {
                let other = lab.switch("other");
                drop(lab.link(host, &other).address(&other, "10.1.2.9/24"));
            }),
            "the switch `other` has neither addresses nor interfaces",
        ),
        (refused_link(|lab, host, to| drop(lab.link(host, to).interface(to, "eth0"))), "`gateway` has two interfaces"),
    ];
    for (text, words) in told {
        assert!(text.contains(words), "{text}");
    }
}

#[isolated]
fn what_is_wrong_with_networks_is_told() {
    let two_switches = refused(|lab| {
        let [a, b] = ["a", "b"].map(|name| lab.switch(name));
        lab.link(&a, &b);
    });
    let overlap = refused_link(|lab, host, gateway| {
        lab.link(host, gateway).address(host, "10.1.2.3/24");
        let third = lab.host("third");
        lab.link(&third, gateway).address(&third, "10.1.0.1/16");
    });
    let full = refused_link(|lab, host, gateway| {
        let small = lab.switch("small").subnet("192.0.2.0/30");
        let third = lab.host("third");
        lab.link(host, &small);
        lab.link(gateway, &small);
        lab.link(&third, &small);
    });
    let twice = refused(|lab| drop(lab.switch("b").subnet("192.0.2.0/24").subnet("198.51.100.0/24")));
    // `one` is on the switch that is there in any case.
    let no_way = refused_link(|lab, host, gateway| drop(lab.link(host, gateway)));
    let told = [
        (two_switches, "the switches `a` and `b` are linked"),
        (
            overlap,
            "10.1.2.0/24 of the link of `host` and `gateway` and 10.1.0.0/16 of the link of `third` and `gateway` overlap",
        ),
        (full, "the switch `small` has more ports than its subnet 192.0.2.0/30 has addresses"),
        (twice, "was given two subnets of one kind"),
        (no_way, "nobody to route through between `one` and"),
    ];
    for (text, words) in told {
        assert!(text.contains(words), "{text}");
    }
}

#[isolated]
#[should_panic(expected = "`one` is not there yet: its laboratory is not up")]
fn nothing_is_made_if_something_is_wrong() {
    let mut lab = Lab::new();
    let one = lab.host("one");
    lab.host("one");
    lab.up().expect_err("two are called alike");
    one.run(|| ());
}

#[isolated]
fn it_is_up_once() {
    let mut lab = Lab::new();
    lab.host("host");
    let _net = lab.up().expect("up");
    assert!(text(&lab.up().expect_err("again")).contains("`up` was called before"));
}

fn one_host() -> Result<(), Error> {
    let mut lab = Lab::new();
    lab.host("host");
    lab.up().map(drop)
}

/// The kind of an error, and whether it says this.
fn says(result: Result<(), Error>, kind: ErrorKind, words: &str) {
    let error = result.expect_err("it can't be");
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(io::Error::from(error).kind(), kind);
}

#[test]
fn there_is_none_outside_of_sandboxes() {
    says(one_host(), ErrorKind::Unsupported, "this is no sandbox. Write `#[isolated]`");
}

#[isolated(mount)]
fn there_is_none_in_the_hosts_network() {
    says(one_host(), ErrorKind::Unsupported, "`#[isolated(net)]`");
}

#[isolated(user = 1000)]
fn there_is_none_for_another_user() {
    says(one_host(), ErrorKind::PermissionDenied, "EPERM: the test is user 1000");
}

/// The twins.
#[isolated]
fn there_is_one_in_a_sandbox() {
    one_host().expect("up");
}

#[isolated(net, user = 0)]
fn there_is_one_for_root_with_the_hosts_tree() {
    one_host().expect("up");
}

#[isolated]
fn there_is_none_in_a_fork() {
    match fork() {
        ForkResult::Child => {
            let refused = one_host().is_err_and(|error| error.to_string().contains("has forked this process"));
            std::process::exit(if refused { 0 } else { 1 });
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).expect("wait"), WaitStatus::Exited(child, 0));
        }
    }
}

/// Whoever gives up root's powers by himself is told by the kernel.
#[isolated(uids = 2000, unsupported = "skip")]
fn there_is_none_without_the_powers_of_root() {
    nix::unistd::setuid(nix::unistd::Uid::from_raw(1000)).expect("setuid");
    says(one_host(), ErrorKind::PermissionDenied, "EPERM (Operation not permitted). It takes root inside");
}

/// A laboratory of eight hosts takes a thread for each, while it is made. One of one host takes six tasks: init, the two threads of the test's
/// process, one for the fabric, one for the host, and the wire.
#[isolated(pids = 6, unsupported = "skip")]
fn a_lack_of_threads_is_told() {
    let mut lab = Lab::new();
    (0..8).for_each(|host| drop(lab.host(&format!("host{host}"))));
    let error = lab.up().expect_err("there are too few");
    assert_eq!(error.errno(), Some(libc::EAGAIN), "{error}");
    assert!(error.to_string().contains("raise the limit (`ulimit -u`"), "{error}");
    // A thread that has been joined still lets go of its namespaces, and counts until it has.
    belljar_tests::wait_until(|| std::fs::read_dir("/proc/self/task").expect("task").count() == 2);
    one_host().expect("of one there is room");
}

#[isolated]
fn a_lack_of_descriptors_is_told() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    let mut refused = 0;
    for limit in 8..30 {
        setrlimit(Resource::RLIMIT_NOFILE, limit, hard).expect("setrlimit");
        match one_host() {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.errno(), Some(libc::EMFILE), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 3, "{refused}");
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("setrlimit");
    one_host().expect("up");
}

#[isolated]
fn what_a_router_can_not_do_is_told() {
    type Change<'c> = &'c dyn Fn(&mut Lab, Router, &Host);
    let told = |change: Change<'_>, text: &str| {
        let mut lab = Lab::new();
        let (inside, outside, router) = (lab.host("inside"), lab.host("outside"), lab.router("gw"));
        lab.link(&inside, &router);
        lab.link(&router, &outside);
        change(&mut lab, router, &inside);
        let told = lab.up().expect_err("an error").to_string();
        assert!(told.contains(text), "{told}");
    };
    let nat = |gw: Router| gw.nat(Nat::Masquerade);
    let elsewhere = Lab::new().switch("elsewhere");
    told(&|_, gw, inside| drop(gw.forward(80, inside, 80)), "`gw` forwards a port, but has no NAT");
    told(
        &|_, gw, inside| drop(nat(gw).forward(80, inside, 80).forward(80, inside, 81)),
        "twice where to forward the port 80",
    );
    told(&|_, gw, inside| drop(nat(gw).forward(0, inside, 80)), "`gw` can't forward the port 0");
    told(
        &|_, gw, inside| drop(nat(gw).outside(inside).forward(80, inside, 80)),
        "`inside`: no way leads there but over the outside",
    );
    told(
        &|lab, gw, _| drop(gw.firewall().outside(&lab.switch("other"))),
        "`other` is not the outside of `gw`: no link",
    );
    told(&|_, gw, _| drop(gw.firewall().outside(&elsewhere)), "`elsewhere` belongs to another `Lab`");
    // What is wrong is told also where nothing takes it.
    told(&|_, gw, _| drop(gw.outside(&elsewhere)), "`elsewhere` belongs to another `Lab`");
    told(&|_, gw, _| drop(nat(gw.clone()).forward(80, &gw, 81)), "`gw` can't forward the port 80 to itself");
    told(
        &|lab, gw, _| {
            let (isp, server) = (lab.router("isp"), lab.host("server"));
            lab.link(&isp, &server);
            lab.link(&gw, &isp);
            drop(nat(gw).forward(80, &server, 80));
        },
        "`gw` can't forward a port to `server`: no way leads there but over the outside",
    );
    told(
        &|lab, gw, inside| {
            let (hidden, home) = (lab.host("hidden"), lab.router("home"));
            lab.link(&hidden, &home);
            lab.link(&home, &gw);
            drop(nat(home));
            drop(nat(gw).outside(inside).forward(80, &hidden, 80));
        },
        "`gw` can't forward a port to `hidden`: no way leads there but over the outside, or over another router with NAT",
    );
    told(
        &|lab, gw, _| {
            let alone = lab.router("alone").firewall();
            lab.link(&alone, &gw);
        },
        "`alone` has no outside and inside",
    );
}
