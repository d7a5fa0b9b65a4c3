//! What of `/proc` and `/sys` is private: two sandboxes at once set different values, and each finds its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use belljar::isolated;
use belljar_tests::{body, linux_version, this_binary, wait_until};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::unistd::geteuid;

belljar_tests::bodies!();

/// The environment variable that tells two tests where they meet: a name in the host's `/tmp`.
const MEETING: &str = "BELLJAR_TESTS_MEETING";

/// The one that tells them whether the owner of an ipc namespace must be able to change its settings.
const MUST_SET: &str = "BELLJAR_TESTS_MUST_SET";

/// Something that a sandbox has to itself.
struct Own {
    name: &'static str,
    /// Gives it the value that stands for a number.
    set: fn(u16) -> io::Result<()>,
    /// Whether it has that value.
    has: fn(u16) -> bool,
    /// Whether all kernels let everybody set it.
    always: bool,
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A file that holds a number, and the range in which numbers are tried.
macro_rules! setting {
    ($path:literal, $lowest:literal, $always:literal) => {
        Own {
            name: $path,
            set: |number| fs::write($path, (u32::from(number) + $lowest).to_string()),
            has: |number| text($path).split_whitespace().next() == Some(&*(u32::from(number) + $lowest).to_string()),
            always: $always,
        }
    };
}

const OWN: [Own; 12] = [
    setting!("/proc/sys/fs/mqueue/msg_max", 5, false),
    setting!("/proc/sys/fs/mqueue/queues_max", 5, false),
    setting!("/proc/sys/kernel/msgmax", 100, false),
    setting!("/proc/sys/kernel/msgmnb", 100, false),
    setting!("/proc/sys/kernel/msgmni", 100, false),
    setting!("/proc/sys/kernel/shmmni", 100, false),
    setting!("/proc/sys/kernel/shmmax", 100_000, false),
    setting!("/proc/sys/net/ipv4/ip_default_ttl", 50, true),
    setting!("/sys/class/net/lo/mtu", 1500, true),
    Own { name: "/proc/sysvipc/shm", set: make_shared_memory, has: |number| has_shared_memory(number), always: true },
    Own { name: "/proc/self/mounts", set: mount_something, has: has_mount, always: true },
    Own { name: "/proc/net/tcp", set: listen, has: listens, always: true },
];

fn make_shared_memory(number: u16) -> io::Result<()> {
    #[expect(unsafe_code, reason = "nix has no SysV objects")]
    // SAFETY: shmget takes integers.
    let id = unsafe { libc::shmget(0x0be1_17a3, 4096 * usize::from(number), libc::IPC_CREAT | libc::IPC_EXCL | 0o600) };
    Errno::result(id).map(drop).map_err(io::Error::from)
}

/// The line has the key first and the size fourth.
fn has_shared_memory(number: u16) -> bool {
    let table = text("/proc/sysvipc/shm");
    let sizes: Vec<_> = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(3)).collect();
    sizes == [(4096 * usize::from(number)).to_string()]
}

fn mount_something(number: u16) -> io::Result<()> {
    let source = format!("%belljar-{number}%");
    // Is there in every tree.
    mount(Some(&*source), "/sys/kernel", Some("tmpfs"), MsFlags::empty(), None::<&str>).map_err(io::Error::from)
}

fn has_mount(number: u16) -> bool {
    ["mounts", "mountinfo", "mountstats"].iter().all(|name| {
        let table = text(&format!("/proc/self/{name}"));
        table.contains(&format!("%belljar-{number}% ")) && table.matches("%belljar-").count() == 1
    })
}

/// One port, at different addresses.
fn listen(number: u16) -> io::Result<()> {
    TcpListener::bind(format!("127.0.0.{number}:80")).map(std::mem::forget)
}

fn listens(number: u16) -> bool {
    let table = text("/proc/net/tcp");
    let listening: Vec<_> =
        table.lines().filter_map(|line| line.split_whitespace().nth(1)?.strip_suffix(":0050")).collect();
    listening == [format!("{:08X}", u32::from_le_bytes([127, 0, 0, number as u8]))]
}

/// Waits until the other one is here too.
fn meet(number: u16, other: u16, what: &str) {
    let name = env::var_os(MEETING).expect(MEETING);
    let places = ["/srv", "/tmp"].map(|directory| Path::new(directory).join(&name));
    let place = places.iter().find(|place| place.exists()).expect("a place");
    fs::write(place.join(format!("{what}-{number}")), "").expect("write");
    wait_until(|| place.join(format!("{what}-{other}")).exists());
}

fn set_and_look(number: u16, other: u16) {
    let set = |own: &&Own| match (own.set)(number) {
        Ok(()) => true,
        Err(error) => {
            assert!(!own.always && env::var_os(MUST_SET).is_none(), "{}: {error}", own.name);
            false
        }
    };
    let are_set: Vec<_> = OWN.iter().filter(set).collect();
    meet(number, other, "set");
    for own in are_set {
        assert!((own.has)(number) && !(own.has)(other), "{} of {number}", own.name);
    }
    meet(number, other, "seen");
}

#[body]
#[isolated(bind = ["/tmp:/srv:rw"])]
fn at_once_the_one() {
    set_and_look(7, 8);
}

#[body]
#[isolated(bind = ["/tmp:/srv:rw"])]
fn at_once_the_other() {
    set_and_look(8, 7);
}

/// In the host's tree it is the same.
#[body]
#[isolated(net)]
fn tree_of_the_one() {
    set_and_look(7, 8);
}

#[body]
#[isolated(net)]
fn tree_of_the_other() {
    set_and_look(8, 7);
}

fn maps(number: u32, other: u16) {
    for name in ["uid_map", "gid_map"] {
        assert_eq!(text(&format!("/proc/self/{name}")).split_whitespace().next(), Some(&*number.to_string()));
    }
    meet(number as u16, other, "set");
    assert_eq!(text("/proc/self/uid_map").split_whitespace().next(), Some(&*number.to_string()));
}

#[body]
#[isolated(user = 1007, bind = ["/tmp:/srv:rw"])]
fn at_once_the_one_user() {
    maps(1007, 1008);
}

#[body]
#[isolated(user = 1008, bind = ["/tmp:/srv:rw"])]
fn at_once_the_other_user() {
    maps(1008, 1007);
}

/// Runs the tests of this name, which meet.
fn meet_all(name: &str, count: usize) {
    let meeting = tempfile::tempdir_in("/tmp").expect("a temporary directory");
    let place: PathBuf = meeting.path().file_name().expect("a name").into();
    let mut command = this_binary();
    command.args(["body", name, "--exact", "--show-output"]).arg(format!("--test-threads={count}")).env(MEETING, place);
    // Those of ipc namespaces belonged to real root in Linux 5.10.
    if geteuid().is_root() || linux_version() >= (6, 1) {
        command.env(MUST_SET, "yes");
    }
    let run = belljar_tests::run(&mut command);
    assert!(run.status.success() && run.output.contains(&format!("{count} passed")), "{}", run.output);
}

#[test]
fn two_at_once_have_their_own() {
    meet_all("at_once*", 4);
}

#[test]
fn in_the_hosts_tree_too() {
    meet_all("tree_of*", 2);
}

/// The twin: in one sandbox, the second value takes the place of the first, or stands beside it.
#[isolated]
fn one_has_one_of_each() {
    for own in &OWN {
        if (own.set)(7).is_err() {
            assert!(!own.always, "{}", own.name);
            continue;
        }
        assert!((own.has)(7) && !(own.has)(8), "{}", own.name);
        // Some can be had only once.
        let again = (own.set)(8);
        assert!(again.is_err() || !(own.has)(7), "{}", own.name);
    }
}
