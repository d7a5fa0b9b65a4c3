#![cfg_attr(any(miri, not(target_os = "linux")), allow(dead_code, unused_imports))]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use belljar::isolated;

#[isolated(env = ["PATH=/tmp/bin:/usr/sbin:/usr/bin:/sbin:/bin"])]
fn installs() {
    fs::create_dir("/tmp/bin").unwrap();
    fs::write("/tmp/bin/sudo", "#!/bin/sh\nexec \"$@\"\n").unwrap();
    fs::set_permissions("/tmp/bin/sudo", Permissions::from_mode(0o755)).unwrap();
    let script = "sudo install --owner=0 /dev/null /tmp/installed";
    assert!(Command::new("sh").args(["-c", script]).status().unwrap().success());
}

#[cfg(test)]
#[belljar::isolated]
fn beside_the_code() {}
