//! Nothing of one test can be seen by another, also where sandboxes are prepared while other tests run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, thread};

use belljar::isolated;
use belljar_tests::body;
use nix::ifaddrs::getifaddrs;
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::sethostname;
use serde_json::{from_str, to_string};

belljar_tests::bodies!();

/// What a test can see, by the name of the kind.
type Stock = BTreeMap<String, Vec<String>>;

/// What a line of output begins with that is a stock.
const STOCK: &str = "stock: ";

/// What a line of output begins with that says when a vandal ended, or when the sandbox of a stock was born.
const ENDED: &str = "ended: ";
const BORN: &str = "born: ";

static COUNTER: AtomicU32 = AtomicU32::new(0);

fn take_stock() -> Stock {
    let lines = |path: &str| fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect();
    // Without the ids, which are new each time.
    let mounts = |line: &str| line.split(' ').skip(3).collect::<Vec<_>>().join(" ");
    // Of this thread: the other one has all signals blocked while it starts one.
    let status = fs::read_to_string("/proc/thread-self/status").expect("status");
    let of_status =
        ["Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"];
    let of_status = status.lines().filter(|line| of_status.iter().any(|name| line.split(':').next() == Some(name)));
    let interfaces = getifaddrs().expect("getifaddrs").map(|interface| {
        let address = interface.address.map_or(String::new(), |address| address.to_string());
        format!("{} {:?} {address}", interface.interface_name, interface.flags)
    });
    let limits = [Resource::RLIMIT_NOFILE, Resource::RLIMIT_CORE, Resource::RLIMIT_NPROC, Resource::RLIMIT_STACK];
    let settings = ["kernel/sem", "kernel/shmmax", "fs/mqueue/msg_max", "net/ipv4/ip_forward"];
    let mut tree = Vec::new();
    list(Path::new("/"), fs::metadata("/").expect("/").dev(), &mut tree);
    let mut processes: Vec<_> = belljar_tests::processes().into_iter().map(|pid| pid.to_string()).collect();
    processes.sort();
    let stock = [
        ("names", ["hostname", "domainname"].map(|name| read(&format!("/proc/sys/kernel/{name}"))).to_vec()),
        ("mounts", fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").lines().map(mounts).collect()),
        ("tree", tree),
        ("environment", env::vars_os().map(|(name, value)| format!("{name:?}={value:?}")).collect()),
        ("directory", vec![env::current_dir().expect("cwd").display().to_string()]),
        ("status", of_status.map(str::to_owned).collect()),
        ("limits", limits.map(|limit| format!("{:?}", getrlimit(limit))).to_vec()),
        ("interfaces", interfaces.collect()),
        (
            "sockets",
            ["tcp", "udp", "unix"]
                .map(|kind| {
                    fs::read_to_string(format!("/proc/net/{kind}")).map_or(0, |text| text.lines().count()).to_string()
                })
                .to_vec(),
        ),
        (
            "sysv",
            ["shm", "sem", "msg"]
                .into_iter()
                .flat_map(|kind| -> Vec<_> { lines(&format!("/proc/sysvipc/{kind}")) })
                .collect(),
        ),
        (
            "queues",
            fs::read_dir("/dev/mqueue")
                .expect("mqueue")
                .flatten()
                .map(|entry| format!("{:?}", entry.file_name()))
                .collect(),
        ),
        ("settings", settings.map(|name| read(&format!("/proc/sys/{name}"))).to_vec()),
        ("processes", processes),
        (
            "descriptors",
            (0..300).filter(|fd| Path::new(&format!("/proc/self/fd/{fd}")).exists()).map(|fd| fd.to_string()).collect(),
        ),
        ("keys", keys()),
        ("statics", vec![COUNTER.load(Ordering::Relaxed).to_string()]),
    ];
    stock.into_iter().map(|(kind, seen)| (kind.to_owned(), seen)).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// All that lies in a file system, and is not of the kernel's.
fn list(directory: &Path, device: u64, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("readable").flatten() {
        let (path, metadata) = (entry.path(), entry.metadata().expect("stat"));
        if metadata.dev() == device {
            found.push(format!("{} {:o} {}", path.display(), metadata.permissions().mode(), metadata.uid()));
            if metadata.is_dir() {
                list(&path, device, found);
            }
        }
    }
    found.sort();
}

/// Whether the session's keyring has the key that [`add_a_key`] adds. See session-keyring(7).
fn keys() -> Vec<String> {
    #[expect(unsafe_code, reason = "neither libc nor nix has it")]
    // SAFETY: the strings outlive the call.
    let found = unsafe {
        let (kind, description) = (c"user".as_ptr(), c"belljar-vandal".as_ptr());
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SEARCH, libc::KEY_SPEC_SESSION_KEYRING, kind, description, 0)
    };
    vec![(found != -1).to_string()]
}

/// Adds a key to the session's keyring. See add_key(2).
fn add_a_key() {
    #[expect(unsafe_code, reason = "neither libc nor nix has it")]
    // SAFETY: the strings outlive the call, and the payload has the length that is told.
    let added = unsafe {
        let (kind, description, payload) = (c"user".as_ptr(), c"belljar-vandal".as_ptr(), c"x".as_ptr());
        libc::syscall(libc::SYS_add_key, kind, description, payload, 1, libc::KEY_SPEC_SESSION_KEYRING)
    };
    assert_ne!(added, -1, "{}", std::io::Error::last_os_error());
}

/// Changes all that a stock shows.
fn vandalise() {
    sethostname("vandalised").expect("sethostname");
    mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mount");
    File::create_new("/tmp/vandalised").expect("create");
    fs::write("/etc/hosts", "").expect("write");
    env::set_current_dir("/proc").expect("chdir");
    umask(Mode::from_bits_truncate(0o070));
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None).expect("sigprocmask");
    let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, 64, 64).expect("setrlimit");
    setrlimit(Resource::RLIMIT_CORE, soft / 2, hard / 2).expect("setrlimit");
    let socket = std::net::UdpSocket::bind("127.0.0.1:5353").expect("bind");
    std::mem::forget(socket);
    File::create_new("/dev/mqueue/vandalised").expect("create");
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("ip_forward");
    #[expect(clippy::zombie_processes, reason = "it is to be left")]
    Command::new("sleep").arg("1000").spawn().expect("spawn");
    add_a_key();
    COUNTER.store(7, Ordering::Relaxed);
    #[expect(unsafe_code, reason = "the environment, signals, SysV objects and interfaces")]
    // SAFETY: no other thread reads the environment; ignoring a signal runs no code; the rest are system calls, whose
    // arguments outlive them.
    unsafe {
        env::set_var("BELLJAR_TESTS_VANDAL", "1");
        nix::sys::signal::signal(Signal::SIGUSR1, SigHandler::SigIgn).expect("signal");
        assert_eq!(libc::setdomainname(c"vandalised".as_ptr(), 10), 0);
        assert_ne!(libc::shmget(0x0be1_17a2, 4096, libc::IPC_CREAT | 0o600), -1);
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
        assert_eq!(libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request), 0);
    }
}

/// The time since the machine was started.
fn now() -> f64 {
    read("/proc/uptime").split(' ').next().and_then(|seconds| seconds.parse().ok()).expect("the uptime")
}

/// When the sandbox that this runs in was born.
fn born() -> f64 {
    let stat = read("/proc/1/stat");
    let ticks: f64 = stat.split(' ').nth(21).and_then(|ticks| ticks.parse().ok()).expect("the start time");
    ticks / 100.0
}

#[body]
#[isolated]
fn stock_taker() {
    println!("{BORN}{}", born());
    println!("{STOCK}{}", to_string(&take_stock()).expect("JSON"));
}

#[body]
#[isolated]
fn vandal() {
    vandalise();
    // Long enough for the sandbox of the next test to be made.
    thread::sleep(Duration::from_millis(100));
    println!("{ENDED}{}", now());
}

#[body]
#[isolated]
fn vandal_who_takes_stock() {
    vandalise();
    println!("{STOCK}{}", to_string(&take_stock()).expect("JSON"));
}

/// The first stock is taken in a sandbox that no other came before.
#[body]
fn calls_both() {
    stock_taker();
    for _ in 0..5 {
        vandal();
        stock_taker();
    }
}

/// The stocks in an output.
fn stocks(output: &str) -> Vec<Stock> {
    output.lines().filter_map(|line| from_str(line.strip_prefix(STOCK)?).ok()).collect()
}

fn times(output: &str, what: &str) -> Vec<f64> {
    output.lines().filter_map(|line| line.strip_prefix(what)?.parse().ok()).collect()
}

#[test]
fn a_test_sees_nothing_of_another() {
    let run = belljar_tests::run_body("calls_both");
    assert!(run.passed(), "{}", run.output);
    let stocks = stocks(&run.output);
    assert_eq!(stocks.len(), 6);
    for stock in &stocks {
        for (kind, seen) in stock {
            assert_eq!(seen, &stocks[0][kind], "{kind}");
        }
    }
    // These sandboxes were prepared while a vandal was at work.
    let (born, ended) = (times(&run.output, BORN), times(&run.output, ENDED));
    assert!(born.iter().skip(1).zip(&ended).any(|(born, ended)| born < ended), "{born:?} {ended:?}");
}

/// The twin: who takes stock in the same sandbox sees each of the changes.
#[test]
fn each_change_would_be_seen() {
    let [pristine, vandalised] = ["stock_taker", "vandal_who_takes_stock"].map(|test| {
        let run = belljar_tests::run_body(test);
        assert!(run.passed(), "{}", run.output);
        stocks(&run.output).remove(0)
    });
    let unchanged: Vec<_> = pristine.iter().filter(|(kind, seen)| vandalised[*kind] == **seen).collect();
    assert!(unchanged.is_empty(), "{unchanged:?}");
}
