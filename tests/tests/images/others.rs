//! Images of other programs.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use belljar::isolated;
use belljar_tests::{body, rounds};

use crate::package::Package;

#[body]
#[isolated(root = "oci:layout", user = "host")]
fn a_layout_as_root() {
    assert!(Path::new("/bin/sh").exists());
}

#[body]
#[isolated(root = "./image.tar", user = "host")]
fn an_archive_as_root() {
    assert!(Path::new("/bin/sh").exists());
}

#[body]
#[isolated(root = "./image.tar", uids = 65536)]
fn says_who_it_is() {
    let output = Command::new("/bin/sh").args(["-c", "id -un; pwd; echo $KIND; cat data"]).output().expect("sh");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "app\n/home/app\nchanged\ndata\n");
}

/// All that is in a tree, a line each: the path, type and mode, owners, size, time, content, and which names are one file.
fn listed(tree: &Path) -> Vec<String> {
    let script = r#"
        find . -printf '%P\t%y %m %U:%G %T@ %l\n' | sort
        find . -type f -printf '%P\0' | sort -z | xargs -0 sha256sum
        find . -type f -links +1 -printf '%i %P\n' | sort -k 2 | awk '!n[$1] { n[$1] = ++c } { $1 = n[$1]; print }'
        getfattr --recursive --no-dereference --match '^user[.]kind' --dump .
    "#;
    let output = Command::new("sh").args(["-c", script]).current_dir(tree).output().expect("sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // umoci keeps parts of seconds, which archives of that kind have not.
    let whole = |line: &str| line.replace(".0000000000", "");
    String::from_utf8_lossy(&output.stdout).lines().map(whole).collect()
}

/// What umoci has unpacked, and what belljar unpacks: of its layout, and of two archives that skopeo has made of that.
#[test]
#[ignore = "needs root and what lab/images makes: .ci/run runs it"]
fn others_unpack_the_same() {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images");
    for image in ["debian", "changed", "busybox"] {
        // Device nodes are left out.
        let is_no_device = |line: &String| !line.contains("\tc ") && !line.contains("\tb ");
        let expected: Vec<_> = listed(&made.join(image).join("rootfs")).into_iter().filter(is_no_device).collect();
        assert!(expected.len() > 5);
        // With BELLJAR_TESTS_ROUNDS, all. Without, the largest is left out, and of the next the archives.
        let forms = [("layout", ""), ("image.tar", ".tar"), ("image.tar", "-oci.tar")];
        let count = match image {
            _ if rounds(0) > 0 => 3,
            "debian" => 0,
            "changed" => 1,
            _ => 3,
        };
        for (name, end) in &forms[..count] {
            let package = Package::new();
            let (body, file) = match *name {
                "layout" => ("others::a_layout_as_root", "layout".to_owned()),
                _ => ("others::an_archive_as_root", format!("{image}{end}")),
            };
            if *name == "layout" {
                package.take_tag(&made.join(file), image);
            } else {
                symlink(made.join(file), package.path(name)).expect("symlink");
            }
            package.passes(body);
            let found = listed(&package.unpacked()[0].join("tree"));
            let missing: Vec<_> = expected.iter().filter(|line| !found.contains(line)).take(10).collect();
            let added: Vec<_> = found.iter().filter(|line| !expected.contains(line)).take(10).collect();
            assert!(missing.is_empty() && added.is_empty(), "{image}{end}: {missing:#?}\n{added:#?}");
        }
    }
    let package = Package::new();
    symlink(made.join("changed.tar"), package.path("image.tar")).expect("symlink");
    package.passes("others::says_who_it_is");
}
