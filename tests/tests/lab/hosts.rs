//! Being on a host.

use std::net::{IpAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::path::{Path, PathBuf};
use std::{env, fs, thread};

use belljar::isolated;
use belljar::net::{Host, Lab};
use belljar::ns::{Kind, Namespace};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::gethostname;

use crate::{PATIENCE, greets, next, socket};

/// The addresses that a name has where this is called.
fn addresses(name: &str) -> Vec<String> {
    let Ok(found) = (name, 1).to_socket_addrs() else { return Vec::new() };
    let mut found: Vec<_> = found.map(|address| address.ip().to_string()).collect();
    found.sort();
    found.dedup();
    found
}

fn interfaces() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir("/sys/class/net")
        .expect("read")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[isolated]
fn each_has_a_name_a_network_and_files_of_its_own() {
    let hosts_before = fs::read("/etc/hosts").expect("read");
    let mut lab = Lab::new();
    let (server, client) = (lab.host("server"), lab.host("client"));
    let _net = lab.up().expect("up");
    for host in [&server, &client] {
        assert_eq!(host.run(gethostname).expect("name").to_str(), Some(host.name()));
        assert_eq!(host.run(interfaces), ["eth0", "lo"]);
        assert_eq!(host.run(|| addresses("server")), ["10.0.0.1", "fd00::1"]);
        assert_eq!(host.run(|| addresses("client")), ["10.0.0.2", "fd00::2"]);
        assert_eq!(host.run(|| addresses("localhost")), ["127.0.0.1", "::1"]);
    }
    // The test is on none of them.
    assert_eq!(gethostname().expect("name"), "localhost");
    assert_eq!(interfaces(), ["lo"]);
    assert_eq!(addresses("server"), [""; 0]);
    assert_eq!(fs::read("/etc/hosts").expect("read"), hosts_before);
    TcpStream::connect("10.0.0.1:80").expect_err("there is no way from here");
}

/// In the host's tree, nothing of that may be written.
#[isolated(net)]
fn the_hosts_tree_is_left_as_it_is() {
    let before = fs::read("/etc/hosts").expect("read");
    let mut lab = Lab::new();
    let server = lab.host("server");
    let _net = lab.up().expect("up");
    // Whether a name has more than its first address is up to the machine: see `multi` in host.conf(5).
    assert_eq!(server.run(|| addresses("server")).first().map(String::as_str), Some("10.0.0.1"));
    let file = server.run(|| fs::read_to_string("/etc/hosts")).expect("read");
    assert!(file.ends_with("\n10.0.0.1\tserver\nfd00::1\tserver\n"), "{file}");
    assert_eq!(server.run(interfaces), ["eth0", "lo"]);
    assert_eq!(fs::read("/etc/hosts").expect("read"), before);
    assert!(!Path::new("/sys/hosts").exists());
}

/// The machine's part of `/sys` can't be written, whoever runs the test. Files are opened only, so that nothing is changed if they can.
fn finds_a_sysfs_that_is_safe() {
    const OF_MACHINE: [&str; 3] =
        ["/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/uevent_helper", "/sys/kernel/profiling"];
    let mut lab = Lab::new();
    let host = lab.host("host");
    let _net = lab.up().expect("up");
    let opens = |path: &str| fs::OpenOptions::new().write(true).open(path).map(drop);
    for path in OF_MACHINE.into_iter().filter(|path| Path::new(path).exists()) {
        let error = host.run(|| opens(path)).expect_err(path);
        assert!(matches!(error.raw_os_error(), Some(libc::EROFS | libc::EACCES | libc::EPERM)), "{path}: {error}");
        // As in the sandbox itself.
        assert_eq!(error.raw_os_error(), opens(path).expect_err(path).raw_os_error(), "{path}");
    }
    // The twin: interfaces are the host's own.
    let alias = "/sys/class/net/eth0/ifalias";
    host.run(|| fs::write(alias, "uplink")).expect("write");
    assert_eq!(host.run(|| fs::read_to_string(alias)).expect("read"), "uplink\n");
}

#[isolated]
fn hosts_cant_change_the_machine() {
    finds_a_sysfs_that_is_safe();
}

#[isolated(net)]
fn hosts_with_the_hosts_tree_cant_change_the_machine() {
    finds_a_sysfs_that_is_safe();
}

#[isolated(root = "overlay", unsupported = "skip")]
fn there_are_hosts_in_a_copy() {
    let mut lab = Lab::new();
    let (server, client) = (lab.host("server"), lab.host("client"));
    let _net = lab.up().expect("up");
    greets(&server, &client, "server:80").expect("greeting");
}

/// A root without an `/etc`.
#[isolated(root = "./tests/fixture", unsupported = "skip")]
fn there_are_hosts_in_a_bare_directory() {
    let has_file = || Path::new("/etc/hosts").exists();
    assert!(!has_file());
    let mut lab = Lab::new();
    let (server, client) = (lab.host("server"), lab.host("client"));
    let _net = lab.up().expect("up");
    assert!(server.run(has_file));
    greets(&server, &client, "server:80").expect("greeting");
}

#[isolated]
fn values_and_panics_come_back_from_a_run() {
    let mut lab = Lab::new();
    let host = lab.host("host");
    let _net = lab.up().expect("up");
    let text = "a".to_owned();
    assert_eq!(host.run(|| text.as_str()), "a");
    assert_eq!(host.run(|| thread::current().name().map(str::to_owned)).as_deref(), Some("host"));
    let result = std::panic::catch_unwind(|| host.run(|| panic!("on the host")));
    assert_eq!(result.expect_err("a panic").downcast_ref(), Some(&"on the host"));
}

#[isolated]
fn threads_of_a_run_are_on_the_host() {
    let mut lab = Lab::new();
    let host = lab.host("host");
    let _net = lab.up().expect("up");
    let names = host.run(|| thread::spawn(interfaces).join().expect("join"));
    assert_eq!(names, ["eth0", "lo"]);
}

#[isolated]
fn programs_find_the_host_and_the_working_directory() {
    let mut lab = Lab::new();
    let host = lab.host("host");
    let _net = lab.up().expect("up");
    let output = |command: &mut std::process::Command| {
        String::from_utf8(command.output().expect("output").stdout).expect("UTF-8").trim_end().to_owned()
    };
    assert!(output(host.command("cat").arg("/proc/net/dev")).contains("eth0:"));
    assert!(!fs::read_to_string("/proc/net/dev").expect("read").contains("eth0:"));
    assert_eq!(output(host.command("cat").arg("/proc/sys/kernel/hostname")), "host");
    assert_eq!(output(&mut host.command("pwd")), env::current_dir().expect("pwd").display().to_string());
    assert_eq!(output(host.command("pwd").current_dir("/tmp")), "/tmp");
    assert_eq!(host.run(|| env::current_dir().expect("pwd")), env::current_dir().expect("pwd"));
    assert_eq!(host.command("sh").args(["-c", "exit 7"]).status().expect("status").code(), Some(7));
    // A file that the test has written is there too.
    fs::write("/tmp/file", "text").expect("write");
    assert_eq!(output(host.command("cat").arg("/tmp/file")), "text");
}

#[isolated]
fn a_thread_that_enters_goes_back() {
    let mut lab = Lab::new();
    let (first, second) = (lab.host("first"), lab.host("second"));
    let _net = lab.up().expect("up");
    env::set_current_dir("/tmp").expect("chdir");
    {
        let _first = first.enter();
        assert_eq!(gethostname().expect("name"), "first");
        assert_eq!(env::current_dir().expect("pwd"), PathBuf::from("/tmp"));
        env::set_current_dir("/").expect("chdir");
        {
            let _second = second.enter();
            assert_eq!((gethostname().expect("name"), interfaces().len()), ("second".into(), 2));
        }
        assert_eq!(gethostname().expect("name"), "first");
        assert_eq!(thread::spawn(gethostname).join().expect("join").expect("name"), "first");
    }
    assert_eq!((gethostname().expect("name"), interfaces().len()), ("localhost".into(), 1));
    assert_eq!(env::current_dir().expect("pwd"), PathBuf::from("/tmp"));
}

#[isolated]
fn a_thread_goes_back_whichever_guard_is_dropped_first() {
    let mut lab = Lab::new();
    let [first, second, third] = ["first", "second", "third"].map(|name| lab.host(name));
    let _net = lab.up().expect("up");
    let name = || gethostname().expect("name").into_string().expect("UTF-8");
    let [one, two, three] = [&first, &second, &third].map(Host::enter);
    drop(two);
    assert_eq!(name(), "third", "the last one says where the thread is");
    drop(three);
    assert_eq!(name(), "first");
    let two = second.enter();
    drop(one);
    assert_eq!(name(), "second");
    drop(two);
    assert_eq!((name(), interfaces().len()), ("localhost".into(), 1));
}

#[isolated]
fn a_thread_that_cant_enter_stays_where_it_was() {
    let mut lab = Lab::new();
    let host = lab.host("host");
    let _net = lab.up().expect("up");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, 4, hard).expect("setrlimit");
    let entered = std::panic::catch_unwind(|| drop(host.enter()));
    let started = std::panic::catch_unwind(|| drop(host.command("true")));
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("setrlimit");
    for panic in [entered.unwrap_err(), started.unwrap_err()] {
        let words = panic.downcast_ref::<String>().expect("words");
        let words = words.strip_prefix("belljar: nothing can be done on the host `host`: ").expect("what begins it");
        assert!(
            words.contains("EMFILE (Too many open files): ") && words.ends_with("Raise the limit (`ulimit -n`)."),
            "{words}"
        );
        assert!(!words.contains("belljar"), "{words}");
    }
    assert_eq!((gethostname().expect("name"), interfaces().len()), ("localhost".into(), 1));
    // The twin.
    assert!(std::panic::catch_unwind(|| drop(host.enter())).is_ok());
}

#[isolated]
fn a_socket_stays_on_the_host_that_it_was_made_on() {
    let mut lab = Lab::new();
    let (server, client) = (lab.host("server"), lab.host("client"));
    let _net = lab.up().expect("up");
    let (there, here) = (socket(&server, "10.0.0.1:53", PATIENCE), socket(&client, "10.0.0.2:53", PATIENCE));
    // This thread is on neither.
    here.send_to(b"hello", "10.0.0.1:53").expect("send");
    assert_eq!(next(&there).expect("it comes"), b"hello");
    let error = UdpSocket::bind("0.0.0.0:0").expect("bind").send_to(b"hello", "10.0.0.1:53").expect_err("no way");
    assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable);
}

#[isolated]
fn tokio_runs_on_a_host() {
    let mut lab = Lab::new();
    let (server, client) = (lab.host("server"), lab.host("client"));
    let _net = lab.up().expect("up");
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let names = server.run(|| {
        runtime().block_on(async {
            let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(async { gethostname().expect("name") })).collect();
            let mut names = Vec::new();
            for task in tasks {
                names.push(task.await.expect("join"));
            }
            names
        })
    });
    assert!(names.iter().all(|name| name == "server"), "{names:?}");
    assert!(client.run(|| runtime().block_on(async { gethostname().expect("name") })) == "client");
}

#[isolated]
fn its_namespaces_are_values() {
    let mut lab = Lab::new();
    let (host, other) = (lab.host("host"), lab.host("other"));
    let _net = lab.up().expect("up");
    let mut program = host.command("sleep").arg("1000").spawn().expect("sleep");
    let of = |host: &Host| host.namespaces().iter().map(|one| (one.kind(), one.identity())).collect::<Vec<_>>();
    let kinds = of(&host).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
    assert_eq!(kinds, [Kind::Net, Kind::Uts, Kind::Mount]);
    for (kind, identity) in of(&host) {
        assert_eq!(Namespace::of(program.id(), kind).expect("a namespace").identity(), identity);
        assert_ne!(Namespace::current(kind).expect("a namespace").identity(), identity);
        assert!(!of(&other).contains(&(kind, identity)));
    }
    let name = host.namespaces()[1].enter(gethostname).expect("enter");
    assert_eq!(name.expect("name"), "host");
    program.kill().and_then(|()| program.wait()).expect("kill");
}

#[isolated]
fn neighbours_need_not_be_asked_for() {
    let mut lab = Lab::new();
    let (server, client) = (lab.host("server"), lab.host("client"));
    let net = lab.up().expect("up");
    let there = socket(&server, "10.0.0.1:53", PATIENCE);
    let sender = socket(&client, "10.0.0.2:53", PATIENCE);
    net.port(&client).lose_when(belljar::net::Packets::arp());
    sender.send_to(b"hello", "10.0.0.1:53").expect("send");
    assert!(next(&there).is_some());
    // The twin: whoever forgets them has to ask, in vain.
    let forgotten = "10.0.0.1".parse::<IpAddr>().expect("an address");
    let status = client.command("ip").args(["neigh", "del", &forgotten.to_string(), "dev", "eth0"]).status();
    if status.is_ok_and(|status| status.success()) {
        sender.send_to(b"hello", "10.0.0.1:53").expect("send");
        there.set_read_timeout(Some(crate::SHORT)).expect("timeout");
        assert!(next(&there).is_none());
    }
}
