//! Layers that lie one over another.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use belljar::isolated;
use belljar_tests::body;
use tar::EntryType;

use crate::made::{Layer, TIME, archived, gzip, layout, plain, saved, zstd};
use crate::package::Package;

pub(crate) fn layers() -> Vec<Vec<u8>> {
    let lowest = Layer::new()
        .directory("./")
        .directory("etc/")
        .file("etc/kept", "kept")
        .file("etc/gone", "")
        .file("etc/changed", "long ago")
        .directory("opaque/")
        .file("opaque/lower", "")
        .directory("opaque/below/")
        .file("opaque/below/lower", "")
        .directory("late/")
        .file("late/lower", "")
        .directory("removed/")
        .file("removed/file", "")
        .directory("becomes-a-file/")
        .file("becomes-a-file/file", "")
        .file("becomes-a-directory", "")
        .file("first", "linked")
        .hard_link("second", "first")
        .file("rewritten", "old")
        .hard_link("of-old", "./rewritten")
        .directory("real/")
        .link("link", "real")
        .link("absolute", "/real")
        .link("dangling", "../../nowhere")
        .entry(EntryType::Regular, "setuid", 0o4755, (0, 0), b"", "")
        .entry(EntryType::Regular, "closed", 0o000, (0, 0), b"secret", "")
        .entry(EntryType::Directory, "sticky/", 0o1777, (0, 0), b"", "")
        .entry(EntryType::Directory, "read-only/", 0o555, (0, 0), b"", "")
        .entry(EntryType::Fifo, "fifo", 0o600, (0, 0), b"", "")
        .entry(EntryType::Char, "null", 0o666, (0, 0), b"", "");
    let middle = Layer::new()
        .file("etc/.wh.gone", "")
        .file("etc/changed", "now")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/upper", "")
        .directory("late/")
        .file("late/upper", "")
        .file("late/.wh..wh..opq", "")
        .file("opaque/.wh.never-there", "")
        .file("nowhere/.wh.file", "")
        .file("etc/kept/.wh.file", "")
        .file(".wh.removed", "")
        .file("removed/.wh.file", "")
        .file(".wh.never-there", "")
        .file("becomes-a-file", "file")
        .directory("becomes-a-directory/")
        .file("becomes-a-directory/file", "")
        .hard_link("third", "first")
        .file("rewritten", "new")
        .file("link/through", "a link")
        .file("absolute/through-too", "another")
        .file("read-only/file", "");
    // The same again: nothing changes.
    let middle = middle.bytes();
    vec![lowest.bytes(), middle.clone(), middle]
}

pub(crate) fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).expect(directory);
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(path).expect(path)
}

/// Whether the root is what these layers make.
fn has_layers() {
    assert_eq!(names("/etc"), ["changed", "kept"]);
    assert_eq!((read("/etc/kept").as_str(), read("/etc/changed").as_str()), ("kept", "now"));
    assert_eq!((names("/opaque"), names("/late")), (vec!["upper".into()], vec!["upper".into()]));
    for gone in ["/removed", "/null", "/nowhere"] {
        assert!(!Path::new(gone).exists(), "{gone}");
    }
    assert_eq!(read("/becomes-a-file"), "file");
    assert_eq!(names("/becomes-a-directory"), ["file"]);
    let inode = |path: &str| fs::metadata(path).expect(path).ino();
    assert!(inode("/first") == inode("/second") && inode("/first") == inode("/third"));
    assert_eq!((read("/rewritten").as_str(), read("/of-old").as_str()), ("new", "old"));
    assert_eq!(names("/real"), ["through", "through-too"]);
    assert_eq!(fs::read_link("/dangling").expect("link"), Path::new("../../nowhere"));
    let mode = |path: &str| fs::metadata(path).expect(path).mode() & 0o7777;
    assert_eq!((mode("/setuid"), mode("/closed")), (0o4755, 0));
    assert_eq!((mode("/sticky"), mode("/read-only"), mode("/")), (0o1777, 0o555, 0o755));
    assert_eq!(read("/closed"), "secret");
    assert!(fs::metadata("/fifo").expect("fifo").file_type().is_fifo());
    for path in ["/etc/kept", "/opaque", "/read-only", "/link", "/third"] {
        assert_eq!(fs::symlink_metadata(path).expect(path).mtime(), TIME as i64, "{path}");
    }
}

#[body]
#[isolated(root = "oci:layout")]
fn of_a_layout() {
    has_layers();
}

#[body]
#[isolated(root = "./image.tar")]
fn of_an_archive() {
    has_layers();
}

#[test]
fn layers_lie_one_over_another() {
    for compress in [plain, gzip, zstd] {
        let package = Package::new();
        let layers: Vec<_> = layers().iter().map(|layer| compress(layer)).collect();
        package.add_all("layout", &layout(&layers, "null", "latest"));
        package.passes("layers::of_a_layout");
    }
}

#[test]
fn archives_hold_the_same() {
    for compress in [plain, gzip, zstd] {
        let package = Package::new();
        package.add("image.tar", &compress(&saved(&layers(), "{}")));
        package.passes("layers::of_an_archive");
        package.add("image.tar", &compress(&archived(&layout(&layers(), "{}", "latest"))));
        package.passes("layers::of_an_archive");
    }
}

/// The twin: what is checked is not there in other images.
#[test]
fn other_layers_are_noticed() {
    let package = Package::new();
    package.add("image.tar", &saved(&layers()[..1], "{}"));
    let run = package.run("layers::of_an_archive");
    assert!(run.failed(), "{}", run.output);
}

#[body]
#[isolated(root = "tree.tar")]
fn of_a_tree() {
    assert_eq!(names("/data"), [".wh.file", "file"]);
    assert_eq!(read("/manifest.json"), "[1]");
}

/// An archive of a tree is no layer: nothing in it says that something is gone.
#[test]
fn trees_are_taken_as_they_are() {
    for compress in [plain, gzip, zstd] {
        let package = Package::new();
        let tree = Layer::new().directory("data/").file("data/file", "").file("data/.wh.file", "");
        package.add("tree.tar", &compress(&tree.file("manifest.json", "[1]").bytes()));
        package.passes("layers::of_a_tree");
    }
}
