//! The network of a sandbox: a loopback, and nothing of the host's.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{env, process, thread};

use belljar::isolated;
use belljar_tests::{body, run_body, this_binary};
use nix::ifaddrs::getifaddrs;

belljar_tests::bodies!();

fn interfaces() -> Vec<String> {
    let mut names: Vec<_> = getifaddrs().expect("getifaddrs").map(|interface| interface.interface_name).collect();
    names.sort();
    names.dedup();
    names
}

fn answers(listener: TcpListener) {
    let address = listener.local_addr().expect("address");
    let server = thread::spawn(move || listener.accept().expect("accept").0.write_all(b"hello"));
    let mut text = String::new();
    TcpStream::connect(address).expect("connect").read_to_string(&mut text).expect("read");
    server.join().expect("join").expect("write");
    assert_eq!(text, "hello");
}

#[isolated]
fn has_a_loopback_and_nothing_else() {
    assert_eq!(interfaces(), ["lo"]);
    answers(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind"));
    answers(TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("bind"));
    let routes = fs::read_to_string("/proc/net/route").expect("read");
    assert_eq!(routes.lines().count(), 1, "{routes}");
}

#[isolated]
fn reaches_nothing_outside() {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    let error = socket.connect("192.0.2.1:9").expect_err("there is no route");
    assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable);
}

#[isolated]
fn shows_its_own_interfaces_in_sysfs() {
    let names: Vec<_> =
        fs::read_dir("/sys/class/net").expect("read").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(names, ["lo"]);
}

#[isolated(net)]
fn shows_its_own_interfaces_in_sysfs_in_the_hosts_tree() {
    let names: Vec<_> =
        fs::read_dir("/sys/class/net").expect("read").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(names, ["lo"]);
}

/// Ports below 1024 are for root; the sandbox's root may have them all, each sandbox for itself.
macro_rules! servers_on_port_80 {
    ($($name:ident)*) => {
        $(#[isolated(net)]
        fn $name() {
            answers(TcpListener::bind("0.0.0.0:80").expect("the port is free"));
        })*
    };
}

servers_on_port_80!(first_on_port_80 second_on_port_80 third_on_port_80 fourth_on_port_80);

#[isolated(net)]
fn without_a_second_sandbox_the_port_is_taken() {
    let _first = TcpListener::bind("0.0.0.0:80").expect("the port is free");
    assert!(TcpListener::bind("0.0.0.0:80").is_err());
}

// ---- The host's sockets ----

const ADDRESSES: &str = "BELLJAR_TESTS_ADDRESSES";

/// Connects to the host's listeners that the environment names: a port and an abstract name.
fn connects() -> (bool, bool) {
    let addresses = env::var(ADDRESSES).expect("addresses");
    let (port, name) = addresses.split_once(' ').expect("two addresses");
    let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse().expect("a port")));
    let unix = SocketAddr::from_abstract_name(name).and_then(|address| UnixStream::connect_addr(&address));
    (tcp.is_ok(), unix.is_ok())
}

#[body]
#[isolated]
fn with_net_and_mount() {
    assert_eq!(connects(), (false, false));
}

#[body]
#[isolated(net)]
fn with_net() {
    assert_eq!(connects(), (false, false));
}

#[body]
#[isolated(mount)]
fn with_mount() {
    assert_eq!(connects(), (true, true));
}

#[body]
#[isolated(uts)]
fn with_uts() {
    assert_eq!(connects(), (true, true));
}

#[test]
fn sockets_of_the_host() {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let name = format!("belljar-tests-{}", process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("address");
    let _unix = UnixListener::bind_addr(&address).expect("bind");
    let port = tcp.local_addr().expect("address").port();
    for test in ["with_net_and_mount", "with_net", "with_mount", "with_uts"] {
        let mut command = this_binary();
        command.args(["--exact", "body", test]).env(ADDRESSES, format!("{port} {name}"));
        let run = belljar_tests::run(&mut command);
        assert!(run.passed(), "{test}: {}", run.output);
    }
}

// ---- What belongs to a network in `/run` ----

/// What there is in a directory, and below.
fn names_below(directory: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).expect("read_dir") {
        let entry = entry.expect("an entry");
        names.push(entry.path());
        if entry.file_type().expect("a type").is_dir() {
            names.extend(names_below(&entry.path()));
        }
    }
    names.sort();
    names
}

#[body]
#[isolated(net)]
fn writes_to_run() {
    for server in ["/run/server", "/run/service/server", "/run/host/server"] {
        UnixStream::connect(server).unwrap_or_else(|error| panic!("{server}: {error}"));
    }
    assert_eq!(fs::read_to_string("/run/service/file").expect("the host's"), "text");
    // What programs write there by habit.
    fs::create_dir("/run/netns").expect("the host's is not there");
    fs::write("/run/netns/one", "").expect("write");
    File::create_new("/run/xtables.lock").expect("the host's is not there");
    fs::write("/run/lock/lock", "").expect("write");
    fs::write("/run/pid", "").expect("write");
    fs::remove_file("/run/file").expect("a link");
    assert_eq!(fs::read_to_string("/run/host/file").expect("the host's"), "text");
}

/// In a sandbox that stands for the host.
#[isolated]
fn run_is_private_where_there_is_a_network() {
    for directory in ["/run/service", "/run/netns", "/run/lock"] {
        fs::create_dir(directory).expect("mkdir");
    }
    for file in ["/run/file", "/run/service/file", "/run/netns/theirs", "/run/xtables.lock"] {
        fs::write(file, "text").expect("write");
    }
    let _servers = ["/run/server", "/run/service/server"].map(|path| UnixListener::bind(path).expect("bind"));
    let before = names_below(Path::new("/run"));
    let run = run_body("writes_to_run");
    assert!(run.passed(), "{}", run.output);
    assert_eq!(names_below(Path::new("/run")), before);
}

#[body]
#[isolated(uts)]
fn finds_the_hosts_run() {
    fs::write("/run/file", "").expect("write");
}

/// The twin.
#[isolated]
fn run_is_the_hosts_where_there_is_none() {
    let run = run_body("finds_the_hosts_run");
    assert!(run.passed(), "{}", run.output);
    assert!(Path::new("/run/file").exists());
}
