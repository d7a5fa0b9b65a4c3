//! Snapshots of data and of programs.

use belljar::isolated;
use snapbox::cmd::Command;
use snapbox::{assert_data_eq, file, str};

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name")
}

#[isolated(hostname = "jar")]
fn in_the_source() {
    assert_data_eq!(
        hostname(),
        str![[r#"
jar

"#]]
    );
}

#[isolated(hostname = "jar")]
fn in_a_file() {
    assert_data_eq!(hostname(), file!["hostname.txt"]);
}

#[isolated]
#[should_panic]
fn that_is_not_met() {
    assert_data_eq!(hostname(), file!["hostname.txt"]);
}

#[isolated(hostname = "jar")]
fn of_a_program() {
    Command::new(snapbox::cmd::cargo_bin!("snapbox-hostname")).assert().success().stdout_eq(file!["hostname.txt"]);
}
