//! Tests whose root is an image: Debian, and busybox alone. `tests/lab/images` makes both, and skopeo would copy them from a registry:
//! `skopeo copy docker://debian:12 oci:images:debian`.
//!
//! As plain `#[test]`s, they take Docker, an image in its store, and a mount for what is tested.

use std::process::Command;

use belljar::isolated;

fn shell(line: &str) -> String {
    let output = Command::new("/bin/sh").args(["-c", line]).output().expect("a shell");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

#[isolated(root = "oci:../target/images/layout:debian", env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"])]
#[ignore = "needs an image that tests/lab/images makes: .ci/run runs it"]
fn a_package_is_removed() {
    assert!(shell("dpkg --status nftables").contains("Status: install ok installed"));
    shell("dpkg --remove --force-depends nftables");
    assert!(!std::path::Path::new("/usr/sbin/nft").exists());
}

#[isolated(root = "oci:../target/images/layout:debian", env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"])]
#[ignore = "needs an image that tests/lab/images makes: .ci/run runs it"]
fn the_package_is_there_in_the_next_test() {
    assert!(shell("nft list ruleset").is_empty());
}

#[isolated(root = "../target/images/busybox.tar", env = ["PATH=/bin"])]
#[ignore = "needs an image that tests/lab/images makes: .ci/run runs it"]
fn there_is_nothing_but_busybox() {
    assert_eq!(shell("busybox ls /bin"), "busybox\ncat\nfalse\nls\nsh\ntrue");
}
