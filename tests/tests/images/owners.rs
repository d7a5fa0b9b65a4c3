//! Whose the files of an image are.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use belljar::{Change, isolated};
use belljar_tests::{as_runner, body, run};
use tar::EntryType;

use crate::layers::read;
use crate::made::Layer;
use crate::package::Package;

fn with_owners() -> Vec<u8> {
    let tree = Layer::new()
        .entry(EntryType::Regular, "web", 0o640, (33, 34), b"web", "")
        .hard_link("web-too", "web")
        .entry(EntryType::Regular, "setgid", 0o2755, (0, 34), b"", "")
        .entry(EntryType::Directory, "home/", 0o700, (33, 33), b"", "")
        .entry(EntryType::Regular, "far", 0o644, (70_000, 0), b"", "");
    tree.bytes()
}

fn owner(path: &str) -> (u32, u32, u32) {
    let metadata = fs::symlink_metadata(path).expect(path);
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

#[body]
#[isolated(root = "tree.tar")]
fn owners_are_root() {
    assert_eq!((owner("/web"), owner("/setgid")), ((0, 0, 0o640), (0, 0, 0o2755)));
    assert_eq!((owner("/home"), owner("/far")), ((0, 0, 0o700), (0, 0, 0o644)));
}

#[body]
#[isolated(root = "tree.tar", uids = 65536)]
fn owners_are_kept() {
    assert_eq!(
        (owner("/web"), owner("/web-too"), owner("/setgid")),
        ((33, 34, 0o640), (33, 34, 0o640), (0, 34, 0o2755))
    );
    assert_eq!((owner("/home"), owner("/far")), ((33, 33, 0o700), (0, 0, 0o644)));
    assert_eq!(read("/web"), "web");
    // What was given back is no change of the test's.
    fs::write("/new", "").expect("write");
    assert_eq!(belljar::changes().expect("changes").last(), Some(&Change::Created("/new".into())));
}

#[test]
fn owners_become_root_and_that_is_said() {
    let package = Package::new();
    package.add("tree.tar", &with_owners());
    let output = package.passes("owners::owners_are_root");
    let note = "of the image `tree.tar`, 5 files are root's here, and somebody else's in the image (`uids = 70001` keeps the owners)";
    assert!(output.contains(note), "{output}");
}

#[body]
#[isolated(root = "tree.tar", user = "host")]
fn owners_are_the_hosts() {
    assert_eq!((owner("/web"), owner("/far")), ((33, 34, 0o640), (70_000, 0, 0o644)));
}

#[test]
#[ignore = "needs root"]
fn owners_are_kept_with_more_ids() {
    let package = Package::new();
    package.add("tree.tar", &with_owners());
    let output = package.passes("owners::owners_are_kept");
    assert!(output.contains("1 file is root's here, and somebody else's in the image (`uids = 70001`"), "{output}");
    package.passes("owners::owners_are_the_hosts");
    package.passes("owners::owners_are_root");
}

/// In a sandbox that stands for a machine on which an ordinary user has subordinate ids.
#[isolated(uids = 200_000)]
#[ignore = "needs root and newuidmap(1): .ci/run runs it"]
fn owners_are_kept_for_ordinary_users() {
    for table in ["/etc/subuid", "/etc/subgid"] {
        fs::write(table, "ann:100000:65536\n").expect("write");
    }
    fs::write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\n").expect("write");
    let package = Package::new();
    package.add("tree.tar", &with_owners());
    for path in ["", "target"] {
        chown(package.path(path), Some(1000), Some(1000)).expect("chown");
    }
    for body in ["owners::owners_are_kept", "owners::owners_are_root"] {
        let bodies = package.bodies(&[body]);
        let mut command = as_runner(Some("setpriv --reuid=1000 --regid=1000 --clear-groups"), &bodies);
        let run = run(&mut command);
        assert!(run.passed() && run.output.contains(" root's here"), "{}", run.output);
    }
    // Both have the same files, which that user can remove.
    assert_eq!(package.unpacked().len(), 1);
    let is_own = |path: &Path| fs::symlink_metadata(path).expect("stat").uid() == 1000;
    assert!(is_own(&package.unpacked()[0].join("tree/home")) && is_own(&package.unpacked()[0].join("tree/web")));
}
