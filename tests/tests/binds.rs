//! Paths of the host that tests ask for by name.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::{env, fs, thread};

use belljar::isolated;
use belljar_tests::{Run, as_runner, body, runners, this_binary};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{Uid, chown, mkfifo};

belljar_tests::bodies!();

fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().and_then(|error| error.raw_os_error()).map(Errno::from_raw)
}

#[isolated(bind = ["lab:/srv/lab", "Cargo.toml:/etc/manifest", "/var/tmp", "examples/filter.rs:/var/run/a/b.rs:ro"])]
fn paths_are_shown_read_only() {
    assert!(Path::new("/srv/lab/boot").is_file());
    assert!(fs::read_to_string("/etc/manifest").expect("the manifest").starts_with("[package]"));
    assert!(Path::new("/run/a/b.rs").is_file());
    assert_eq!(errno(fs::write("/srv/lab/new", "")), Some(Errno::EROFS));
    assert_eq!(errno(fs::write("/var/tmp/new", "")), Some(Errno::EROFS));
    // Beside them, the root is as it always is.
    fs::write("/srv/new", "").expect("write");
    fs::write("/etc/hosts", "").expect("write");
}

#[isolated(bind = ["lab:/srv", "Cargo.toml:/srv/boot", "examples/filter.rs:/etc/hosts"])]
fn later_ones_lie_on_earlier_ones() {
    assert!(fs::read_to_string("/srv/boot").expect("a file").starts_with("[package]"));
    assert!(Path::new("/srv/kernel").is_file());
    assert!(fs::read_to_string("/etc/hosts").expect("a file").starts_with("//!"));
}

#[isolated(bind = ["../examples/daemon.rs:rw", "lab/../../macros:ro", ".:rw"])]
fn paths_without_another_are_where_they_are_outside() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_read_only = |path: &str| {
        let flags = nix::sys::statvfs::statvfs(&package.join(path)).expect("statvfs").flags();
        flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY)
    };
    assert!(fs::read_to_string(package.join("../examples/daemon.rs")).expect("a file").contains("isolated"));
    assert!(package.parent().expect("the workspace").join("macros/Cargo.toml").is_file());
    let read_only = ["..", "../macros", "../examples/daemon.rs", "."].map(is_read_only);
    assert_eq!(read_only, [true, true, false, false]);
}

#[isolated(net, bind = ["Cargo.toml:/etc/passwd", "/var/tmp:/mnt"])]
fn in_the_hosts_tree_too() {
    assert!(fs::read_to_string("/etc/passwd").expect("a file").starts_with("[package]"));
    assert_eq!(errno(fs::write("/mnt/new", "")), Some(Errno::EROFS));
}

/// The environment variable that tells a test the name of a file.
const NAME: &str = "BELLJAR_TESTS_NAME";

fn writes_in(directory: &str) {
    let path = Path::new(directory).join(env::var_os(NAME).expect(NAME));
    fs::write(path, "written inside").expect("write");
}

#[body]
#[isolated(bind = ["/var/tmp:rw"])]
fn writes_in_its_place() {
    writes_in("/var/tmp");
}

#[body]
#[isolated(bind = ["/var/tmp:/srv:rw"])]
fn writes_where_it_may() {
    writes_in("/srv");
}

#[body]
#[isolated]
fn writes_where_nothing_is_bound() {
    writes_in("/var/tmp");
}

/// What `test` writes to a file in the host's `/var/tmp`.
fn written_by(test: &str) -> Option<String> {
    let name = format!("belljar-{}-{test}", std::process::id());
    let mut command = this_binary();
    let run = belljar_tests::run(command.args(["--exact", "body", test]).env(NAME, &name));
    assert!(run.passed(), "{}", run.output);
    let path = Path::new("/var/tmp").join(name);
    let written = fs::read_to_string(&path).ok();
    let _ = fs::remove_file(path);
    written
}

#[test]
fn what_is_writable_is_the_hosts() {
    assert_eq!(written_by("writes_where_it_may").as_deref(), Some("written inside"));
    assert_eq!(written_by("writes_in_its_place").as_deref(), Some("written inside"));
}

/// The twin.
#[test]
fn what_is_not_asked_for_is_private() {
    assert_eq!(written_by("writes_where_nothing_is_bound"), None);
}

#[body]
#[isolated(bind = ["/nonexistent/belljar"])]
fn binds_what_is_missing() {}

#[body]
#[isolated(bind = ["Cargo.toml:/usr/nonexistent"])]
fn binds_where_nothing_can_be_made() {}

#[body]
#[isolated(bind = ["lab:/etc/hosts"])]
fn binds_a_directory_on_a_file() {}

#[body]
#[isolated(uts, bind = ["lab:/nonexistent/place"])]
fn binds_where_the_host_has_nothing() {}

#[test]
fn what_can_not_be_had_is_named() {
    let (show, place) = ("show a path of the host", "find the place in the sandbox");
    for (test, step, path, error) in [
        ("binds_what_is_missing", show, "/nonexistent/belljar", "ENOENT"),
        ("binds_where_nothing_can_be_made", place, "none can be made in a directory of the host's", "ENOENT"),
        ("binds_a_directory_on_a_file", show, "/lab", "ENOTDIR"),
        ("binds_where_the_host_has_nothing", place, "/nonexistent/place is missing in a directory", "ENOENT"),
    ] {
        let run = belljar_tests::run_body(test);
        assert!(run.failed(), "{}", run.output);
        assert!(!run.output.contains("this host does not let"), "{test}: {}", run.output);
        for part in [step, "what it asks for can't be had", path, error] {
            assert!(run.output.contains(part), "{test} lacks {part:?}: {}", run.output);
        }
    }
}

/// What is replaced, and what is written to, before each test.
const PLACE: &str = "/srv/replaced";

#[body]
#[isolated(bind = ["/srv/replaced/file:/mnt/file", "/srv/replaced/written:/mnt/written"])]
fn finds_what_lies_there() {
    let read = |path| fs::read_to_string(path).expect("read");
    assert_eq!(read("/mnt/file"), read("/mnt/written"));
}

#[body]
fn replaces_a_file_before_each_of_many() {
    let place = Path::new(PLACE);
    for round in 0..20 {
        fs::write(place.join("new"), round.to_string()).expect("write");
        fs::rename(place.join("new"), place.join("file")).expect("rename");
        fs::write(place.join("written"), round.to_string()).expect("write");
        finds_what_lies_there();
    }
}

/// Sandboxes that were made before would have the file that was replaced.
#[isolated]
fn what_is_bound_is_what_lies_there_now() {
    fs::create_dir_all(PLACE).expect("mkdir");
    let run = belljar_tests::run_body("replaces_a_file_before_each_of_many");
    assert!(run.passed(), "{}", run.output);
}

// ---- Every kind of file ----

/// A package with a file of each kind, which belongs to whoever runs the tests.
fn make_package(runner: Option<&str>) -> tempfile::TempDir {
    let package = tempfile::tempdir().expect("a temporary directory");
    let path = package.path();
    fs::create_dir(path.join("closed")).expect("mkdir");
    fs::write(path.join("closed/file"), "").expect("write");
    fs::write(path.join("file"), "text").expect("write");
    symlink("file", path.join("link")).expect("symlink");
    mkfifo(&path.join("fifo"), Mode::from_bits_truncate(0o600)).expect("mkfifo");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("chmod");
    if runner.is_some() {
        for name in ["", "closed", "closed/file", "file", "fifo"] {
            chown(&path.join(name), Some(Uid::from_raw(65534)), None).expect("chown");
        }
    }
    package
}

fn run_for(package: &Path, runner: Option<&str>, test: &str) -> Run {
    let mut command = as_runner(runner, &this_binary());
    command.args(["--exact", "body", test, "--show-output"]).current_dir(package);
    belljar_tests::run(command.env("CARGO_MANIFEST_DIR", package))
}

fn kind_of(path: &str) -> fs::FileType {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path}: {error}")).file_type()
}

#[body]
#[isolated(bind = [
    "socket:/srv/socket",
    "socket:/srv/not/there/socket:rw",
    "fifo:/srv/fifo:rw",
    "/dev/null:/srv/null",
    "link:/srv/file",
    "socket:/tmp/socket",
])]
fn uses_every_kind() {
    assert!(kind_of("/srv/socket").is_socket() && kind_of("/srv/fifo").is_fifo());
    assert!(kind_of("/srv/null").is_char_device() && kind_of("/srv/file").is_file());
    for socket in ["/srv/socket", "/srv/not/there/socket", "/tmp/socket"] {
        let mut answer = String::new();
        let mut stream = UnixStream::connect(socket).unwrap_or_else(|error| panic!("{socket}: {error}"));
        stream.read_to_string(&mut answer).expect("read");
        assert_eq!(answer, "the host's");
    }
    fs::write("/srv/fifo", "inside").expect("write");
    fs::write("/srv/null", "gone").expect("write");
    assert_eq!(fs::read_to_string("/srv/file").expect("read"), "text");
}

#[test]
fn every_kind_of_file_can_be_bound() {
    for runner in runners() {
        let package = make_package(*runner);
        let socket = package.path().join("socket");
        let server = UnixListener::bind(&socket).expect("bind");
        fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("chmod");
        let fifo = package.path().join("fifo");
        let run = thread::scope(|scope| {
            scope.spawn(move || {
                for stream in server.incoming().take(3) {
                    stream.expect("a client").write_all(b"the host's").expect("write");
                }
            });
            let reader = scope.spawn(move || fs::read_to_string(fifo).expect("read"));
            let run = run_for(package.path(), *runner, "uses_every_kind");
            assert!(run.passed(), "{runner:?}: {}", run.output);
            assert_eq!(reader.join().expect("join"), "inside");
            run
        });
        assert!(run.left.is_empty());
    }
}

#[body]
#[isolated(bind = ["closed/file:/srv/file"])]
fn binds_what_is_closed() {}

/// A directory that belongs to somebody else, who lets nobody in.
#[isolated(uids = 65536)]
#[ignore = "takes real root: .ci/run runs it"]
fn what_this_user_may_not_reach_is_told() {
    let package = make_package(None);
    let closed = package.path().join("closed");
    chown(&closed, Some(Uid::from_raw(7)), None).expect("chown");
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("chmod");
    for (runner, remedy) in [
        (None, "uids = 65536: root has power over"),
        (Some("setpriv --reuid=1000 --regid=1000 --clear-groups"), "or open the directory: chmod o+x"),
    ] {
        let run = run_for(package.path(), runner, "binds_what_is_closed");
        assert!(run.failed(), "{runner:?}: {}", run.output);
        for words in ["EACCES", "may not enter the directory", "closed, which belongs to", "is 700", remedy] {
            assert!(run.output.contains(words), "{runner:?}: {words:?}: {}", run.output);
        }
        fs::set_permissions(&closed, Permissions::from_mode(0o711)).expect("chmod");
        let run = run_for(package.path(), runner, "binds_what_is_closed");
        assert!(run.passed(), "the twin: {runner:?}: {}", run.output);
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("chmod");
    }
}
