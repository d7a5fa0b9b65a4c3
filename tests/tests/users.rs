//! Tests that are not root, tests that have several users, and tests that are real root.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::{env, fs};

use belljar::isolated;
use belljar_tests::{body, run_body};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, chown, getegid, geteuid, getgid, getgroups, getuid, setgroups, sethostname, setuid};

belljar_tests::bodies!();

fn capabilities() -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").expect("status");
    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"];
    status.lines().filter(|line| sets.iter().any(|set| line.starts_with(set))).map(str::to_owned).collect()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

#[isolated(user = 1000)]
fn the_test_is_an_ordinary_user() {
    assert_eq!([getuid(), geteuid()], [Uid::from_raw(1000); 2]);
    assert_eq!([getgid(), getegid()], [Gid::from_raw(1000); 2]);
    assert!(capabilities().iter().all(|set| set.ends_with("\t0000000000000000")), "{:?}", capabilities());
    assert_eq!(output("id", &["-un"]), "user");
    // What root may do, it may not.
    assert_eq!(sethostname("web"), Err(Errno::EPERM));
    assert_eq!(unshare(CloneFlags::CLONE_NEWUTS), Err(Errno::EPERM));
    assert_eq!(setuid(Uid::from_raw(0)), Err(Errno::EINVAL));
    let refused = TcpListener::bind("127.0.0.1:80").expect_err("a port of root's").raw_os_error();
    assert_eq!(refused, Some(Errno::EACCES as i32));
    // What anybody may do, it may.
    TcpListener::bind("127.0.0.1:8080").expect("bind");
    let home = env::var("HOME").expect("HOME");
    for directory in ["/tmp", "/dev/shm", &home] {
        let file = format!("{directory}/file");
        fs::write(&file, "").expect(&file);
        let metadata = fs::metadata(&file).expect("stat");
        assert_eq!((metadata.uid(), metadata.gid()), (1000, 1000));
    }
    chown("/tmp/file", Some(Uid::from_raw(1)), None).expect_err("nobody else is there");
}

#[isolated(user = "33:44", net)]
fn user_and_group_may_differ() {
    assert_eq!((getuid().as_raw(), getgid().as_raw()), (33, 44));
    assert_eq!(output("id", &["-u"]), "33");
    assert_eq!(output("id", &["-g"]), "44");
    assert_eq!(sethostname("web"), Err(Errno::EPERM));
}

/// The twins.
#[isolated]
fn the_test_is_root() {
    assert!(getuid().is_root() && !capabilities().iter().any(|set| set == "CapEff:\t0000000000000000"));
    sethostname("web").expect("sethostname");
    TcpListener::bind("127.0.0.1:80").expect("bind");
}

#[isolated(user = 0)]
fn root_may_be_asked_for() {
    assert!(getuid().is_root());
    sethostname("web").expect("sethostname");
}

// ---- Several users ----

/// Runs a test that asks for a range of ids. Who has no such range must be told so.
fn run_with_ids(test: &str) {
    let run = run_body(test);
    let maps = fs::read_to_string("/proc/self/uid_map").expect("uid_map");
    if getuid().is_root()
        && maps.split_whitespace().nth(2).is_some_and(|count| count.parse::<u32>().is_ok_and(|count| count >= 65536))
    {
        assert!(run.passed(), "{}", run.output);
        return;
    }
    // Others may have subordinate ids.
    if run.passed() {
        assert!(!getuid().is_root(), "{}", run.output);
        return;
    }
    assert!(run.failed(), "{}", run.output);
    assert!(run.output.contains("map the ids of the user namespace"), "{}", run.output);
    let causes = ["subordinate ids are needed", "newuidmap is not installed", "fewer than 65536 ids are mapped here"];
    assert!(causes.iter().any(|cause| run.output.contains(cause)), "{}", run.output);
}

#[body]
#[isolated(uids = 65536)]
fn drops_privileges() {
    assert!(getuid().is_root());
    for (path, uid, gid) in [("/tmp/a", 33, 44), ("/tmp/b", 65535, 1)] {
        fs::write(path, "").expect("write");
        chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).expect("chown");
        let metadata = fs::metadata(path).expect("stat");
        assert_eq!((metadata.uid(), metadata.gid()), (uid, gid));
    }
    chown("/tmp/a", Some(Uid::from_raw(65536)), None).expect_err("nobody has this number");
    // Not even root's group is left.
    let output = Command::new("id").uid(33).gid(44).output().expect("id");
    let id = String::from_utf8(output.stdout).expect("text");
    assert!(id.starts_with("uid=33") && id.contains("gid=44") && !id.contains("0(root)"), "{id}");
    setgroups(&[Gid::from_raw(7)]).expect("setgroups");
    setuid(Uid::from_raw(1000)).expect("setuid");
    assert_eq!(setuid(Uid::from_raw(0)), Err(Errno::EPERM));
    fs::write("/tmp/a", "").expect_err("it is another user's");
}

#[body]
#[isolated(uids = 65536, user = "1000:100")]
fn is_one_of_many() {
    assert_eq!([getuid(), geteuid()], [Uid::from_raw(1000); 2]);
    assert_eq!([getgid(), getegid()], [Gid::from_raw(100); 2]);
    assert!(capabilities().iter().all(|set| set.ends_with("\t0000000000000000")), "{:?}", capabilities());
    assert_eq!(getgroups().expect("getgroups"), [Gid::from_raw(100)]);
    assert_eq!(setuid(Uid::from_raw(0)), Err(Errno::EPERM));
    assert_eq!(output("id", &["-un"]), "user");
    // It has a home, and its part of proc.
    fs::write(format!("{}/file", env::var("HOME").expect("HOME")), "").expect("write");
    fs::write("/tmp/file", "").expect("write");
    assert_eq!(fs::metadata("/tmp/file").expect("stat").uid(), 1000);
    assert!(fs::read_link("/proc/self/fd/1").is_ok());
    fs::write("/etc/hosts", "").expect_err("it is root's");
}

#[body]
#[isolated(uids = 65536, net)]
fn maps_so_many() {
    for map in ["uid_map", "gid_map"] {
        let map = fs::read_to_string(format!("/proc/self/{map}")).expect(map);
        let count: u32 =
            map.split_whitespace().skip(2).step_by(3).map(|count| count.parse::<u32>().expect("count")).sum();
        assert_eq!(count, 65536, "{map}");
    }
}

#[test]
fn users_can_be_had() {
    ["drops_privileges", "is_one_of_many", "maps_so_many"].into_iter().for_each(run_with_ids);
}

/// In a sandbox that stands for a machine on which an ordinary user has subordinate ids.
#[isolated(uids = 200_000)]
#[ignore = "needs root and newuidmap(1): .ci/run runs it"]
fn ordinary_users_can_have_users() {
    for table in ["/etc/subuid", "/etc/subgid"] {
        // Two ranges, which are taken together.
        fs::write(table, "1000:70000:30000\nann:100000:65536\n").expect("write");
    }
    fs::write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\n").expect("write");
    for test in ["drops_privileges", "is_one_of_many", "maps_so_many"] {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid=1000", "--regid=1000", "--clear-groups"]).arg(env::current_exe().expect("this binary"));
        setpriv.args(["--exact", "body", test, "--show-output"]).env("HOME", "/home/ordinary");
        let run = belljar_tests::run(&mut setpriv);
        assert!(run.passed(), "{}", run.output);
    }
}

/// The twin.
#[isolated]
fn there_is_root_alone() {
    fs::write("/tmp/a", "").expect("write");
    chown("/tmp/a", Some(Uid::from_raw(33)), None).expect_err("nobody else is there");
    assert_eq!(setgroups(&[]), Err(Errno::EPERM));
    assert_eq!(setuid(Uid::from_raw(33)), Err(Errno::EINVAL));
}

// ---- Real root ----

#[body]
#[isolated(user = "host")]
fn is_real_root() {
    assert!(getuid().is_root());
    mknod("/tmp/null", SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).expect("mknod");
    fs::write("/tmp/null", "gone").expect("a device that can be used");
    chown("/tmp/null", Some(Uid::from_raw(4711)), None).expect("chown");
    // All else is as in other sandboxes.
    sethostname("web").expect("sethostname");
    assert_eq!(std::process::id(), 2);
    fs::write("/etc/hosts", "").expect("write");
    assert_eq!(fs::read_dir("/sys/class/net").expect("interfaces").count(), 1);
    let panic = fs::read("/proc/sys/kernel/panic").expect("a setting");
    let refused = fs::write("/proc/sys/kernel/panic", panic).expect_err("the machine's").raw_os_error();
    assert_eq!(refused, Some(Errno::EROFS as i32));
    println!("namespace {}", fs::read_link("/proc/self/ns/user").expect("a namespace").display());
}

#[test]
fn root_may_be_real() {
    let run = run_body("is_real_root");
    let map = fs::read_to_string("/proc/self/uid_map").expect("uid_map");
    if getuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"]) {
        assert!(run.passed(), "{}", run.output);
        let own = fs::read_link("/proc/self/ns/user").expect("a namespace");
        assert!(run.output.contains(&format!("namespace {}\n", own.display())), "{}", run.output);
        return;
    }
    assert!(run.failed(), "{}", run.output);
    for words in ["do without a user namespace", "the machine's own root", "sudo -E cargo test"] {
        assert!(run.output.contains(words), "{words:?} is not in this:\n{}", run.output);
    }
}

/// The twin.
#[isolated]
fn root_is_not_real() {
    let made = mknod("/tmp/null", SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3));
    assert_eq!(made, Err(Errno::EPERM));
}
