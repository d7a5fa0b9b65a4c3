//! Mistakes, and a lack of descriptors.

use std::fs::File;
use std::io::ErrorKind;

use belljar::{Group, isolated};
use belljar_tests::body;
use nix::errno::Errno;
use nix::sys::wait::WaitStatus;

use crate::{forked, group, passes};

/// What can't be is an error that says so.
#[body]
#[isolated]
fn makes_mistakes() {
    let kind = |result: std::io::Result<Group>| result.expect_err("an error").kind();
    let Some(first) = group("a") else { return };
    assert_eq!(kind(Group::new("a")), ErrorKind::AlreadyExists);
    for name in ["", ".", "..", "a/b", "/", "a\nb", "a\0b", "belljar.leaf", &"x".repeat(256)] {
        assert_eq!(kind(Group::new(name)), ErrorKind::InvalidInput, "{name:?}");
    }
    let kind = |result: std::io::Result<()>| result.expect_err("an error").kind();
    for name in ["cgroup.procs", "memory.stat", "pids.max"] {
        assert_eq!(kind(Group::new(name).map(drop)), ErrorKind::AlreadyExists, "{name}");
    }
    for cores in [0.0, -1.0, 0.009, 1000.1, f64::NAN, f64::INFINITY] {
        assert_eq!(kind(first.limit_cpu(cores)), ErrorKind::InvalidInput, "{cores}");
    }
    for weight in [0, 10_001] {
        assert_eq!(kind(first.weigh_cpu(weight)), ErrorKind::InvalidInput, "{weight}");
    }
    for pid in [0, 1, 1 << 31, u32::MAX] {
        assert_eq!(kind(first.add(pid)), ErrorKind::InvalidInput, "{pid}");
    }
    assert_eq!(kind(first.limit_pids(5_000_000)), ErrorKind::InvalidInput);
    // No process of this sandbox has that id.
    assert_eq!(first.add(4_000_000).expect_err("an error").kind(), std::io::Error::from(Errno::ESRCH).kind());
    let end = forked(&first, || i32::from(first.freeze().expect_err("an error").kind() != ErrorKind::Deadlock));
    assert!(matches!(end, WaitStatus::Exited(_, 0)), "{end:?}");
    first.kill().expect("nobody to kill");
    first.freeze().and_then(|()| first.thaw()).expect("nobody to freeze");
}

#[test]
fn what_cant_be_is_named() {
    passes("wrong::makes_mistakes");
    let error = Group::new("outside").expect_err("no sandbox");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("this is no sandbox"), "{error}");
}

/// A group that can't be used is none.
#[body]
#[isolated(timeout = "1m")]
fn has_no_descriptors() {
    if group("first").is_none() {
        return;
    }
    let mut files = Vec::new();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 64, 64).expect("setrlimit");
    while let Ok(file) = File::open("/") {
        files.push(file);
    }
    // With each round, there is room for one more. What has come in vain takes none.
    let mut names = (0..20).map(|number| number.to_string());
    let mut tries = names.by_ref().map(|name| {
        files.pop();
        Group::new(&name)
    });
    assert!(tries.next().is_some_and(|group| group.is_err()));
    let group = tries.find_map(Result::ok).expect("a group at last");
    drop(files);
    let mut child = group.command("sleep").expect("command").arg("1000").spawn().expect("spawn");
    assert_eq!(group.pids().expect("pids"), [child.id()]);
    group.kill().expect("kill");
    assert!(!child.wait().expect("wait").success());
}

#[test]
fn no_group_without_descriptors() {
    passes("wrong::has_no_descriptors");
}

/// What lacks a descriptor says so, and nothing else.
#[body]
#[isolated(timeout = "1m")]
fn has_few_descriptors() {
    let Some(group) = group("few") else { return };
    let mut child = group.command("sleep").expect("command").arg("1000").spawn().expect("spawn");
    for spare in 0..4 {
        let mut taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        taken.truncate(taken.len() - spare);
        let result = group.pids();
        drop(taken);
        match result {
            Ok(pids) => assert_eq!(pids, [child.id()], "{spare}"),
            Err(error) => {
                let is_told =
                    error.raw_os_error() == Some(Errno::EMFILE as i32) || error.to_string().contains("EMFILE");
                assert!(is_told, "{spare}: {error}");
            }
        }
    }
    group.kill().expect("kill");
    child.wait().expect("wait");
}

#[test]
fn a_lack_of_descriptors_is_told() {
    passes("wrong::has_few_descriptors");
}
