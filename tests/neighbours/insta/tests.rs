//! Snapshots: they are read where they are, and written with `bind = ["snapshots:rw"]`.

use std::path::Path;

use belljar::isolated;

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name")
}

#[isolated(hostname = "jar")]
fn read() {
    insta::assert_snapshot!(hostname());
}

#[isolated(hostname = "jar")]
fn in_the_source() {
    insta::assert_snapshot!(hostname(), @"jar");
}

/// What it would write is named, where it may not. (Where `CI` is set, insta of itself writes nothing.)
#[isolated(env = ["INSTA_UPDATE=new"])]
#[should_panic(expected = "snapshots/beside_insta__read.snap.new")]
fn that_differs() {
    insta::assert_snapshot!("read", hostname());
}

#[isolated(hostname = "web1", bind = ["snapshots:rw"], env = ["INSTA_UPDATE=new"])]
fn written() {
    std::panic::catch_unwind(|| insta::assert_snapshot!("read", hostname())).expect_err("it differs");
    let new = Path::new("snapshots/beside_insta__read.snap.new");
    assert!(std::fs::read_to_string(new).expect("it is written").contains("web1"));
    std::fs::remove_file(new).expect("remove");
}
