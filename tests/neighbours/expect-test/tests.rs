//! Expectations that stand in the source, or in a file beside it. To update them takes a bind that may be written to.

use belljar::isolated;
use expect_test::{expect, expect_file};

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name")
}

#[isolated(hostname = "jar")]
fn in_the_source() {
    expect![[r#"
        jar
    "#]]
    .assert_eq(&hostname());
}

#[isolated(hostname = "jar")]
fn in_a_file() {
    expect_file!["hostname.txt"].assert_eq(&hostname());
}

#[isolated]
#[should_panic]
fn that_is_not_met() {
    expect_file!["hostname.txt"].assert_eq(&hostname());
}

/// As `UPDATE_EXPECT=1` does it.
#[isolated(hostname = "jar", bind = ["written:rw"], env = ["UPDATE_EXPECT=1"])]
fn that_is_updated() {
    std::fs::write("written/hostname.txt", "old").expect("write");
    expect_file!["written/hostname.txt"].assert_eq(&hostname());
    assert_eq!(std::fs::read_to_string("written/hostname.txt").expect("read"), "jar\n");
    std::fs::remove_file("written/hostname.txt").expect("remove");
}
