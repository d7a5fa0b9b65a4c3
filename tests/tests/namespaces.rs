//! Which namespaces a sandbox has to itself, for each way to ask, and what that keeps from the host and from neighbours.
//!
//! The rows run an isolated test in a process of its own, which prints its namespaces; they are compared with those of
//! this process. A row that expects a namespace to be shared is the twin of those that expect it to be fresh.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use belljar::isolated;
use belljar_tests::{body, body_command, run, run_body};
use nix::errno::Errno;
use nix::unistd::{Gid, Pid, Uid, getgid, getpid, getuid, setgroups, sethostname, setuid};

belljar_tests::bodies!();

const KINDS: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// The namespaces of this process: `kind:[inode]`.
fn namespaces() -> BTreeSet<String> {
    let link = |kind: &str| fs::read_link(Path::new("/proc/self/ns").join(kind)).expect("readlink");
    KINDS.map(|kind| link(kind).display().to_string()).into()
}

fn print_namespaces() {
    for namespace in namespaces() {
        println!("namespace {namespace}");
    }
}

#[body]
#[isolated]
fn with_no_words() {
    print_namespaces();
}

#[body]
#[isolated(hostname = "jar", timeout = "1m")]
fn with_options_only() {
    print_namespaces();
}

#[body]
#[isolated(net, mount)]
fn with_net_and_mount() {
    print_namespaces();
}

#[body]
#[isolated(net)]
fn with_net() {
    print_namespaces();
}

#[body]
#[isolated(mount)]
fn with_mount() {
    print_namespaces();
}

#[body]
#[isolated(uts)]
fn with_uts() {
    print_namespaces();
}

#[body]
#[isolated(user, pid, ipc, uts, cgroup)]
fn with_all_that_is_always_there() {
    print_namespaces();
}

#[test]
fn fresh_namespaces() {
    let all = BTreeSet::from(KINDS);
    let without_net: BTreeSet<_> = all.iter().copied().filter(|kind| *kind != "net").collect();
    for (test, fresh) in [
        ("with_no_words", &all),
        ("with_options_only", &all),
        ("with_net_and_mount", &all),
        ("with_net", &all),
        ("with_mount", &without_net),
        ("with_uts", &without_net),
        ("with_all_that_is_always_there", &without_net),
    ] {
        let run = run_body(test);
        assert!(run.passed(), "{}", run.output);
        let inside: BTreeSet<_> =
            run.output.lines().filter_map(|line| line.strip_prefix("namespace ")).map(str::to_owned).collect();
        assert_eq!(inside.len(), KINDS.len(), "{}", run.output);
        let outside = namespaces();
        let differ: BTreeSet<_> =
            inside.difference(&outside).filter_map(|namespace| Some(namespace.split_once(':')?.0)).collect();
        assert_eq!(&differ, fresh, "{test}");
    }
}

// ---- user ----

#[isolated]
fn root_inside_is_the_runner_outside() {
    assert_eq!((getuid(), getgid()), (Uid::from_raw(0), Gid::from_raw(0)));
    for map in ["/proc/self/uid_map", "/proc/self/gid_map"] {
        let map = fs::read_to_string(map).expect("map");
        let fields: Vec<_> = map.split_whitespace().collect();
        assert_eq!((fields.len(), fields[0], fields[2]), (3, "0", "1"), "{map}");
    }
}

/// A directory of whoever runs the tests.
const OF_RUNNER: &str = "BELLJAR_TESTS_DIRECTORY";

#[body]
#[isolated(net)]
fn sees_what_is_the_runners() {
    let metadata = fs::metadata(env::var(OF_RUNNER).expect(OF_RUNNER)).expect("stat");
    assert_eq!(metadata.uid(), 0);
}

#[test]
fn what_is_the_runners_is_roots_inside() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let run = run(body_command("sees_what_is_the_runners").env(OF_RUNNER, directory.path()));
    assert!(run.passed(), "{}", run.output);
}

#[isolated]
fn root_has_no_more_ids_than_anyone() {
    assert_eq!(setgroups(&[Gid::from_raw(0)]), Err(Errno::EPERM));
    assert_eq!(setuid(Uid::from_raw(1)), Err(Errno::EINVAL));
}

// ---- pid ----

#[isolated]
fn sees_no_process_but_its_own() {
    assert_eq!(getpid(), Pid::from_raw(2));
    assert_eq!(belljar_tests::processes(), BTreeSet::from([1, 2]));
}

#[isolated(uts)]
fn sees_no_process_but_its_own_in_the_hosts_tree() {
    assert_eq!(belljar_tests::processes(), BTreeSet::from([1, 2]));
}

#[test]
fn without_belljar_it_sees_others() {
    assert!(belljar_tests::processes().contains(&1));
    assert!(belljar_tests::processes().len() > 2);
}

// ---- uts ----

fn hostname() -> String {
    nix::unistd::gethostname().expect("gethostname").into_string().expect("UTF-8")
}

#[isolated]
fn is_called_localhost() {
    assert_eq!(hostname(), "localhost");
}

#[isolated(hostname = "web-1.example")]
fn is_called_as_asked() {
    assert_eq!(hostname(), "web-1.example");
    assert_eq!(fs::read_to_string("/etc/hostname").expect("read"), "web-1.example\n");
    let addresses = std::net::ToSocketAddrs::to_socket_addrs(&("web-1.example", 80)).expect("resolved");
    assert!(addresses.into_iter().all(|address| address.ip().is_loopback()));
}

#[isolated(uts)]
fn renames_only_itself() {
    sethostname("renamed").expect("sethostname");
    assert_eq!(hostname(), "renamed");
}

// ---- ipc ----

#[isolated]
fn has_no_ipc_objects_at_first() {
    for kind in ["shm", "sem", "msg"] {
        let table = fs::read_to_string(format!("/proc/sysvipc/{kind}")).expect("read");
        assert_eq!(table.lines().count(), 1, "only the head of the table: {table}");
    }
    assert_eq!(fs::read_dir("/dev/mqueue").expect("mounted").count(), 0);
}

/// Makes a queue by a fixed name and leaves it. In a namespace that is shared, the second one to come fails.
fn make_a_queue() {
    use nix::mqueue::{MQ_OFlag, MqAttr, mq_open};
    use nix::sys::stat::Mode;
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR;
    let attributes = MqAttr::new(0, 1, 64, 0);
    mq_open("/belljar", flags, Mode::from_bits_truncate(0o600), Some(&attributes)).expect("the only one");
    assert!(Path::new("/dev/mqueue/belljar").exists());
}

#[isolated]
fn makes_a_queue() {
    make_a_queue();
}

#[isolated]
fn makes_the_same_queue() {
    make_a_queue();
}

#[isolated]
fn without_a_second_sandbox_the_name_is_taken() {
    make_a_queue();
    assert!(std::panic::catch_unwind(make_a_queue).is_err());
}

// ---- cgroup ----

#[isolated]
fn stands_at_the_root_of_its_cgroups() {
    let cgroups = fs::read_to_string("/proc/self/cgroup").expect("read");
    assert!(cgroups.lines().all(|line| line.ends_with(":/")), "{cgroups}");
}

// ---- Which sandbox this is ----

#[body]
#[isolated(net, mount, hostname = "enter-me")]
fn waits_to_be_entered() {
    let here = belljar::whereabouts().expect("a sandbox");
    assert_eq!(here.test, "namespaces::waits_to_be_entered");
    assert_eq!(here.arguments, "net, mount, hostname = \"enter-me\"");
    println!("init {}", here.init.expect("a number"));
    belljar_tests::hang();
}

/// Starts a test, waits for the number of its init, and has `see` look at that.
fn with_init<T>(see: impl FnOnce(&str) -> T) -> T {
    let mut command = belljar_tests::this_binary();
    command.args(["--exact", "body", "waits_to_be_entered", "--nocapture"]).stdout(Stdio::piped());
    let mut child = command.spawn().expect("spawn");
    let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let told = lines.map_while(Result::ok).find_map(|line| line.split("init ").nth(1).map(str::to_owned));
    let seen = told.map(|init| see(init.trim()));
    child.kill().and_then(|()| child.wait()).expect("kill");
    seen.expect("the number of init")
}

#[test]
fn sandboxes_can_be_entered() {
    let output = with_init(|init| {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--user", "--uts", "--pid", "--preserve-credentials", "--target", init, "uname", "-n"]);
        nsenter.output().expect("nsenter")
    });
    assert_eq!(String::from_utf8_lossy(&output.stdout), "enter-me\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert!(belljar::whereabouts().is_none());
}
