use std::fs;
use std::process::Command;

use belljar::isolated;

fn address_of(name: &str) -> String {
    let output = Command::new("getent").args(["hosts", name]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or("none").to_owned()
}

#[isolated]
fn a_name_can_be_added() {
    fs::write("/etc/hosts", "10.0.0.5 db\n").unwrap();
    assert_eq!(address_of("db"), "10.0.0.5");
}

#[isolated]
fn another_test_has_another_file() {
    fs::write("/etc/hosts", "10.0.0.6 db\n").unwrap();
    assert_eq!(address_of("db"), "10.0.0.6");
}
