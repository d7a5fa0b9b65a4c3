//! The host stays as it was, whatever tests do to their sandboxes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use belljar::isolated;
use belljar_tests::body;
use nix::ifaddrs::getifaddrs;
use nix::mount::{MsFlags, mount};
use nix::sys::socket::SockaddrStorage;
use nix::unistd::sethostname;

belljar_tests::bodies!();

/// What can be seen of a host, by the name of the kind.
type Snapshot = BTreeMap<&'static str, Vec<String>>;

/// Takes a snapshot. Processes are those that bear `mark`; cgroups are the directories below `cgroups`.
fn snapshot(mark: &str, cgroups: &Path) -> Snapshot {
    let lines =
        |path: &str| fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let names = |path: &str| {
        let mut names: Vec<_> =
            fs::read_dir(path).expect(path).flatten().map(|entry| entry.path().display().to_string()).collect();
        names.sort();
        names
    };
    let interfaces = getifaddrs().expect("getifaddrs");
    let interfaces =
        interfaces.map(|i| format!("{} {:?} {} {}", i.interface_name, i.flags, shown(i.address), shown(i.netmask)));
    let routes = [lines("/proc/net/route"), lines("/proc/net/ipv6_route")].concat();
    let sysv = ["shm", "sem", "msg"].map(|kind| ids_of(&lines(&format!("/proc/sysvipc/{kind}"))));
    Snapshot::from([
        ("hostname", lines("/proc/sys/kernel/hostname")),
        ("mounts", lines("/proc/self/mountinfo")),
        ("interfaces", interfaces.collect()),
        ("routes", routes.iter().map(|route| without_counters(route)).collect()),
        ("sysv", sysv.concat()),
        ("processes", belljar_tests::marked(mark).into_iter().map(|pid| pid.to_string()).collect()),
        (
            "cgroups",
            directories_below(cgroups)
                .iter()
                .map(|path| path.display().to_string())
                .filter(|path| is_left(path))
                .collect(),
        ),
        // Others use it too.
        ("tmp", names("/tmp").into_iter().filter(|name| name.contains("vandal")).collect()),
        ("descriptors", vec![names("/proc/self/fd").len().to_string()]),
    ])
}

/// An address as a person reads it. Its `Debug` form shows bytes that were never written.
fn shown(address: Option<SockaddrStorage>) -> String {
    address.map_or(String::new(), |address| address.to_string())
}

/// A route without what use changes: how many hold it, and how often it was taken. In `/proc/net/route`, whose lines have one
/// field more, they stand behind the flags; in `/proc/net/ipv6_route`, behind the metric.
fn without_counters(route: &str) -> String {
    let words: Vec<_> = route.split_whitespace().collect();
    let counters = if words.len() > 10 { 4..6 } else { 6..8 };
    let kept = words.iter().enumerate().filter(|(at, _)| !counters.contains(at));
    kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
}

/// Whether belljar may have made this cgroup, and not for sandboxes of a test binary that runs: those are gone when it has ended, as
/// `limits` shows. Others make cgroups of other names at any time.
fn is_left(cgroup: &str) -> bool {
    cgroup.contains("/belljar") && !cgroup.contains("/belljar-run-") && !cgroup.contains("/belljar-tests-")
}

/// The keys and ids of a table of SysV objects; what follows them changes with use.
fn ids_of(table: &[String]) -> Vec<String> {
    table.iter().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect()
}

fn directories_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(directories_below(&entry.path()));
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// The kinds in which two snapshots differ.
fn differences<'s>(before: &'s Snapshot, after: &Snapshot) -> Vec<&'s str> {
    before.iter().filter(|(kind, seen)| after.get(*kind) != Some(*seen)).map(|(kind, _)| *kind).collect()
}

// ---- Vandals ----

fn make_shared_memory() {
    #[expect(unsafe_code, reason = "nix has no SysV objects")]
    // SAFETY: shmget takes integers.
    let id = unsafe { libc::shmget(0x0be1_17a2, 4096, libc::IPC_CREAT | 0o600) };
    assert_ne!(id, -1);
}

fn take_loopback_down() {
    #[expect(unsafe_code, reason = "nix has no such ioctl")]
    // SAFETY: the request is an `ifreq` with a name and no flags, and outlives the call.
    let result = unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
        libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request)
    };
    assert_eq!(result, 0);
}

fn start_a_process() {
    #[expect(clippy::zombie_processes, reason = "it is to be left")]
    Command::new("sleep").arg("1000").spawn().expect("spawn");
}

fn mount_something() {
    mount(Some("tmpfs"), "/sys/kernel", Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mount");
}

/// Changes all that a snapshot shows.
fn vandalise() {
    sethostname("vandalised").expect("sethostname");
    mount_something();
    make_shared_memory();
    start_a_process();
    File::create_new("/tmp/vandalised").expect("create");
    std::mem::forget(File::open("/").expect("open"));
    take_loopback_down();
}

#[body]
#[isolated]
fn vandal() {
    vandalise();
}

#[body]
#[isolated]
#[should_panic]
fn vandal_that_panics() {
    vandalise();
    panic!("on purpose");
}

#[body]
#[isolated(timeout = "100ms")]
fn vandal_that_hangs() {
    vandalise();
    belljar_tests::hang();
}

#[body]
#[isolated(net)]
fn vandal_in_the_hosts_tree() {
    sethostname("vandalised").expect("sethostname");
    mount_something();
    make_shared_memory();
    start_a_process();
    take_loopback_down();
}

/// A process of its own, so that what other tests open and start doesn't count.
#[test]
fn the_host_stays_as_it_was() {
    let run = belljar_tests::run_body("calls_the_vandals");
    assert!(run.passed(), "{}", run.output);
    assert!(run.left.is_empty(), "{:?}", run.left);
}

#[body]
fn calls_the_vandals() {
    let vandals = || {
        vandal();
        vandal_in_the_hosts_tree();
        assert!(std::panic::catch_unwind(vandal_that_panics).is_err());
        assert!(std::panic::catch_unwind(vandal_that_hangs).is_err());
    };
    // Processes are looked for when this one has ended: until then, spare sandboxes wait for tests.
    let take = || snapshot("none", Path::new("/sys/fs/cgroup"));
    (0..3).for_each(|_| vandals());
    let before = take();
    (0..10).for_each(|_| vandals());
    let after = take();
    if let Some(kind) = differences(&before, &after).first() {
        panic!("{kind}, before: {:#?}\n{kind}, after: {:#?}", before[kind], after[kind]);
    }
}

/// The twin: in a sandbox that stands for the host, each kind of leak is noticed.
#[isolated]
fn the_comparison_notices_each_leak() {
    let cgroups = Path::new("/mnt/cgroups");
    fs::create_dir(cgroups).expect("mkdir");
    let mut command = Command::new("sleep");
    let mark = belljar_tests::mark(command.arg("1000"));
    let mut before = snapshot(&mark, cgroups);
    let mut notices = |kinds: &[&str]| {
        let after = snapshot(&mark, cgroups);
        assert_eq!(differences(&before, &after), kinds, "before: {before:#?}\nafter: {after:#?}");
        before = after;
    };
    notices(&[]);
    sethostname("vandalised").expect("sethostname");
    notices(&["hostname"]);
    fs::create_dir(cgroups.join("belljar")).expect("mkdir");
    notices(&["cgroups"]);
    mount(Some("tmpfs"), "/var/tmp", Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mount");
    notices(&["mounts"]);
    make_shared_memory();
    notices(&["sysv"]);
    let mut child = command.spawn().expect("spawn");
    notices(&["processes"]);
    child.kill().and_then(|()| child.wait()).expect("kill");
    notices(&["processes"]);
    File::create_new("/tmp/vandalised").expect("create");
    notices(&["tmp"]);
    std::mem::forget(File::open("/").expect("open"));
    notices(&["descriptors"]);
    take_loopback_down();
    // Its addresses and its routes go with it.
    notices(&["descriptors", "interfaces", "routes"]);
}
