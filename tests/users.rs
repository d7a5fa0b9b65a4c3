//! Tests that are not root.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::{env, fs};

use belljar::isolated;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, chown, getegid, geteuid, getgid, getuid, sethostname, setuid};

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
