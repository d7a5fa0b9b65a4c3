//! Programs of the package, run in a sandbox.

use assert_cmd::Command;
use belljar::isolated;

#[isolated(hostname = "jar")]
fn by_its_path() {
    Command::new(env!("CARGO_BIN_EXE_assert-cmd-hostname")).assert().success().stdout("jar\n");
}

#[isolated(hostname = "jar")]
fn by_its_name() {
    assert_cmd::cargo::cargo_bin_cmd!("assert-cmd-hostname").assert().success().stdout("jar\n");
}

#[isolated(hostname = "jar", net)]
fn in_the_hosts_tree() {
    assert_cmd::cargo::cargo_bin_cmd!("assert-cmd-hostname").assert().success().stdout("jar\n");
}
