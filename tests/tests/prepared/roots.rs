//! Roots of other kinds, and preparations upon preparations.

use std::env;
use std::fs::{self};
use std::io::{self};
use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::process::Command;

use belljar::{Change, isolated, prepared};
use belljar_tests::body;

use crate::{PREPARED, bodies, passes, see};

#[prepared(root = "overlay")]
fn changed_tree() -> io::Result<()> {
    fs::write("/etc/made", "prepared")?;
    fs::remove_file("/etc/passwd")?;
    fs::write("/created", "created")?;
    fs::write("/tmp/created", "created")?;
    fs::create_dir_all("/var/lib")?;
    fs::write("/var/lib/created", "created")
}

#[body]
#[isolated(from = changed_tree)]
fn starts_from_a_changed_tree() {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    for path in ["/created", "/tmp/created", "/var/lib/created"] {
        assert_eq!(read(path), "created");
    }
    assert_eq!(read("/etc/made"), "prepared");
    assert!(!Path::new("/etc/passwd").exists() && Path::new("/etc/group").exists());
    assert_eq!(belljar::changes().expect("changes"), []);
    fs::write("/created", "changed").expect("write");
    fs::remove_file("/etc/made").expect("remove");
    fs::write("/etc/passwd", "root:x:0:0:::\n").expect("write");
    let changes = [
        Change::Changed("/created".into()),
        Change::Removed("/etc/made".into()),
        Change::Created("/etc/passwd".into()),
    ];
    assert_eq!(belljar::changes().expect("changes"), changes);
    assert!(Command::new("true").status().expect("a program").success());
}

#[test]
fn a_changed_tree_is_left() {
    passes("roots::starts_from_a_changed_tree");
}

#[prepared(root = "/etc")]
fn changed_directory() -> io::Result<()> {
    fs::write("/created", "created")?;
    fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/file"), "kept")
}

#[body]
#[isolated(from = changed_directory)]
fn starts_from_a_changed_directory() {
    assert_eq!(fs::read_to_string("/created").expect("read"), "created");
    assert_eq!(fs::read_to_string(concat!(env!("CARGO_TARGET_TMPDIR"), "/file")).expect("read"), "kept");
    fs::remove_file("/created").expect("remove");
    assert_eq!(belljar::changes().expect("changes"), [Change::Removed("/created".into())]);
}

#[test]
fn a_changed_directory_is_left() {
    passes("roots::starts_from_a_changed_directory");
}

#[prepared]
fn lowest() -> io::Result<()> {
    println!("{PREPARED}");
    for name in ["kept", "changed", "removed"] {
        fs::create_dir_all(Path::new("/data").join(name))?;
        fs::write(Path::new("/data").join(name).join("file"), "lowest")?;
    }
    fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/lowest"), "")
}

#[prepared(from = lowest)]
fn middle() -> io::Result<()> {
    println!("{PREPARED}");
    fs::write("/data/changed/file", "middle")?;
    fs::remove_file("/data/removed/file")?;
    fs::write("/data/removed/other", "middle")?;
    fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/middle"), "")
}

/// Of which two start from the same.
#[prepared(from = middle)]
fn upper() -> io::Result<()> {
    println!("{PREPARED}");
    fs::write("/data/upper", "upper")?;
    fs::remove_file("/data/kept/file")
}

mod stacked {
    #[belljar_tests::body]
    #[belljar::isolated(from = super::upper)]
    fn from_the_uppermost() {
        use std::fs;
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        assert_eq!(["/data/kept/file", "/data/changed/file"].map(read), ["", "middle"]);
        assert_eq!(["/data/removed/file", "/data/removed/other", "/data/upper"].map(read), ["", "middle", "upper"]);
        for name in ["lowest", "middle"] {
            assert!(fs::exists(format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"))).expect("stat"), "{name}");
        }
        fs::remove_dir_all("/data/changed").expect("remove");
        fs::write("/data/kept/file", "").expect("write");
        let (changed, kept) = ("/data/changed".into(), "/data/kept/file".into());
        let changes = belljar::changes().expect("changes");
        assert_eq!(changes, [belljar::Change::Removed(changed), belljar::Change::Created(kept)]);
    }

    #[belljar_tests::body]
    #[belljar::isolated(from = super::middle)]
    fn from_the_middle() {
        assert!(!std::fs::exists("/data/upper").expect("stat"));
        assert!(std::fs::exists("/data/kept/file").expect("stat"));
    }

    #[belljar_tests::body]
    #[belljar::isolated(from = super::lowest)]
    fn from_the_lowest() {
        assert_eq!(std::fs::read_to_string("/data/removed/file").expect("read"), "lowest");
    }
}

#[test]
fn preparations_stack() {
    let Some(run) = see(bodies(&["roots::stacked::*", "--test-threads=16"])) else { return };
    assert!(run.output.contains("3 passed; 0 failed"), "{}", run.output);
    assert_eq!(run.output.matches(PREPARED).count(), 3, "{}", run.output);
}

// ---- What a test asks for that has a file in /etc ----

#[prepared]
fn plain() -> io::Result<()> {
    fs::write("/var/lib/kept", "kept")
}

#[body]
#[isolated(from = plain, hostname = "web1")]
fn has_a_name_of_its_own() {
    assert_eq!(fs::read_to_string("/etc/hostname").expect("hostname"), "web1\n");
    assert!(("web1", 80).to_socket_addrs().expect("it is in /etc/hosts").count() > 0);
    assert_eq!(belljar::changes().expect("changes"), []);
}

#[body]
#[isolated(from = plain, user = 1000)]
fn is_a_user_of_its_own() {
    assert!(fs::read_to_string("/etc/passwd").expect("passwd").contains("user:x:1000:1000:"));
    assert!(fs::read_to_string("/etc/group").expect("group").contains("user:x:1000:"));
}

/// The twins: another test sees nothing of that, and what a preparation has written itself stays.
#[body]
#[isolated(from = plain)]
fn has_what_was_prepared() {
    assert_eq!(fs::read_to_string("/etc/hostname").expect("hostname"), "localhost\n");
    assert!(!fs::read_to_string("/etc/passwd").expect("passwd").contains("user:x:"));
}

#[prepared(hostname = "db")]
fn with_other_hosts() -> io::Result<()> {
    fs::write("/etc/hosts", "192.0.2.7 elsewhere\n")
}

#[body]
#[isolated(from = with_other_hosts, hostname = "web1")]
fn has_the_hosts_that_were_written() {
    assert_eq!(fs::read_to_string("/etc/hosts").expect("hosts"), "192.0.2.7 elsewhere\n");
    assert_eq!(fs::read_to_string("/etc/hostname").expect("hostname"), "web1\n");
}

#[test]
fn names_and_users_are_each_tests_own() {
    let names = [
        "roots::has_a_name_of_its_own",
        "roots::is_a_user_of_its_own",
        "roots::has_what_was_prepared",
        "roots::has_the_hosts_that_were_written",
    ];
    if let Some(run) = see(bodies(&names)) {
        assert!(run.output.contains("4 passed; 0 failed"), "{}", run.output);
    }
}
