//! What a preparation has left is there, and whole.

use std::env;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use belljar::{isolated, prepared};
use belljar_tests::{MIB, body, linux_version};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chown, mkfifo};

use crate::{bodies, passes, see};

/// A time with nanoseconds.
const TIME: Duration = Duration::new(1_000_000_000, 123_456_789);

#[prepared]
fn whole() -> io::Result<()> {
    nix::sys::stat::umask(Mode::empty());
    fs::create_dir("/data")?;
    let path = |name: &str| Path::new("/data").join(name);
    for (name, mode) in [("setuid", 0o4755), ("secret", 0o600), ("script", 0o711)] {
        fs::write(path(name), name)?;
        fs::set_permissions(path(name), Permissions::from_mode(mode))?;
    }
    fs::create_dir(path("sticky"))?;
    fs::set_permissions(path("sticky"), Permissions::from_mode(0o1777))?;
    fs::hard_link(path("secret"), path("same"))?;
    symlink("../data/secret", path("link"))?;
    symlink("nowhere", path("dangling"))?;
    let sparse = File::create(path("sparse"))?;
    sparse.write_all_at(b"end", 1 << 30)?;
    mkfifo(&path("fifo"), Mode::from_bits_truncate(0o640))?;
    drop(UnixListener::bind(path("socket"))?);
    let old = File::create(path("old"))?;
    old.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + TIME))?;
    // Parts of the small system.
    fs::remove_file("/etc/hosts")?;
    fs::write("/etc/hostname", "prepared\n")?;
    fs::remove_dir("/mnt")?;
    fs::write("/tmp/file", "in a private directory")?;
    fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/file"), "in the directory of the target")?;
    fs::write(home().join("file"), "at home")?;
    File::create(path("dropped")).and_then(|_| fs::remove_file(path("dropped")))
}

fn home() -> PathBuf {
    PathBuf::from(env::var_os("HOME").unwrap_or("/root".into()))
}

fn finds_all() {
    let path = |name: &str| Path::new("/data").join(name);
    let metadata = |name: &str| fs::symlink_metadata(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for (name, mode) in [("setuid", 0o4755), ("secret", 0o600), ("script", 0o711), ("sticky", 0o1777)] {
        assert_eq!(metadata(name).mode() & 0o7777, mode, "{name}");
    }
    assert_eq!((metadata("secret").nlink(), metadata("same").ino()), (2, metadata("secret").ino()));
    assert_eq!(fs::read_link(path("link")).expect("link"), Path::new("../data/secret"));
    assert_eq!(fs::read_to_string(path("link")).expect("the link's file"), "secret");
    assert_eq!(fs::read_link(path("dangling")).expect("link"), Path::new("nowhere"));
    let sparse = metadata("sparse");
    assert!(sparse.len() == (1 << 30) + 3 && sparse.blocks() * 512 < MIB as u64, "{sparse:?}");
    let mut end = [0; 3];
    File::open(path("sparse")).and_then(|file| file.read_exact_at(&mut end, 1 << 30)).expect("read");
    assert_eq!(&end, b"end");
    assert!(metadata("fifo").file_type().is_fifo() && metadata("fifo").mode() & 0o777 == 0o640);
    assert!(metadata("socket").file_type().is_socket());
    assert_eq!(metadata("old").modified().expect("time"), SystemTime::UNIX_EPOCH + TIME);
    assert!(!path("dropped").exists());
    assert!(!Path::new("/etc/hosts").exists() && !Path::new("/mnt").exists());
    assert_eq!(fs::read_to_string("/etc/hostname").expect("hostname"), "prepared\n");
    assert_eq!(fs::read_to_string("/tmp/file").expect("tmp"), "in a private directory");
    let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/file");
    assert_eq!(fs::read_to_string(target).expect("target"), "in the directory of the target");
    assert_eq!(fs::read_to_string(home().join("file")).expect("home"), "at home");
    // All of it can be changed.
    fs::write(path("secret"), "told").expect("write");
    fs::write(target, "").expect("write");
    fs::create_dir("/mnt").expect("mkdir");
    // What is not left is as in any sandbox.
    for path in ["/proc/self/status", "/dev/null", "/sys/class/net/lo", "/usr"] {
        assert!(Path::new(path).exists(), "{path}");
    }
    assert!(Command::new("true").status().expect("a program").success());
}

#[body]
#[isolated(from = whole)]
fn starts_from_it() {
    finds_all();
}

#[body]
#[isolated(from = whole, uts)]
fn starts_from_it_with_the_hosts_network() {
    finds_all();
}

#[body]
#[isolated(from = whole, hostname = "other", env = ["NAME=value"], timeout = "60s")]
fn starts_from_it_with_options() {
    finds_all();
    assert_eq!(nix::unistd::gethostname().expect("hostname"), "other");
}

#[body]
#[isolated(from = whole, user = 1000)]
fn starts_from_it_as_somebody() {
    assert_eq!(fs::metadata("/data/secret").expect("stat").uid(), 1000);
    finds_all();
}

#[test]
fn all_is_as_it_was_left() {
    let names =
        ["left::starts_from_it", "left::starts_from_it_with_the_hosts_network", "left::starts_from_it_with_options"];
    let Some(run) = see(bodies(&[&names[..], &["left::starts_from_it_as_somebody"]].concat())) else {
        return;
    };
    assert!(run.output.contains("4 passed; 0 failed"), "{}", run.output);
}

#[prepared]
fn with_attributes() {
    fs::write("/file", "").expect("write");
    let set = Command::new("setfattr").args(["-n", "user.colour", "-v", "blue", "/file"]).status();
    assert!(set.expect("setfattr").success());
}

#[body]
#[isolated(from = with_attributes)]
fn finds_attributes() {
    let told = Command::new("getfattr").args(["--only-values", "-n", "user.colour", "/file"]).output();
    assert_eq!(told.expect("getfattr").stdout, b"blue");
}

#[test]
#[ignore = "takes setfattr and getfattr, and Linux 6.6: before, a tmpfs has no attributes of users; .ci/run runs it"]
fn attributes_of_users_are_left() {
    assert!(linux_version() >= (6, 6));
    passes("left::finds_attributes");
}

#[prepared(uids = 2000)]
fn with_owners() -> io::Result<()> {
    fs::create_dir("/data")?;
    for (name, owner) in [("ann", 1000), ("bob", 1001)] {
        let path = Path::new("/data").join(name);
        fs::write(&path, name)?;
        chown(&path, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner + 1)))?;
    }
    chown("/data", Some(Uid::from_raw(1000)), None)?;
    Ok(())
}

#[body]
#[isolated(from = with_owners, user = 1000)]
fn finds_owners() {
    let owner = |path: &str| fs::metadata(path).map(|metadata| (metadata.uid(), metadata.gid())).expect("stat");
    assert_eq!(owner("/data").0, 1000);
    assert_eq!([owner("/data/ann"), owner("/data/bob")], [(1000, 1001), (1001, 1002)]);
    fs::write("/data/ann", "mine").expect("write");
    assert!(fs::write("/data/bob", "").is_err());
    fs::remove_file("/data/bob").expect("the directory is mine");
    chown("/data/ann", None, Some(Gid::from_raw(1000))).expect("one of my groups");
}

#[test]
#[ignore = "takes several ids, which ordinary users have by newuidmap; .ci/run runs it"]
fn owners_are_left() {
    passes("left::finds_owners");
}
