//! The small system that a test finds is one that programs know.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::ToSocketAddrs as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

use belljar::isolated;
use belljar_tests::{body, this_binary};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{User, geteuid};

belljar_tests::bodies!();

/// The environment variable that tells what the host has in `/etc`.
const ETC: &str = "BELLJAR_TESTS_ETC";

// ---- /etc ----

const SHOWN: [&str; 14] = [
    "alternatives",
    "ethertypes",
    "iproute2",
    "ld.so.cache",
    "localtime",
    "login.defs",
    "os-release",
    "pam.d",
    "pki",
    "protocols",
    "services",
    "shells",
    "ssl",
    "timezone",
];

/// What there is in `/etc` by these names: of a directory the entries, of a file the size.
fn seen_in_etc() -> BTreeMap<&'static str, String> {
    let seen = |name: &'static str| {
        let path = Path::new("/etc").join(name);
        let metadata = fs::metadata(&path).ok()?;
        let names = || {
            let entries = fs::read_dir(&path).expect("read_dir").map(|entry| entry.expect("an entry").file_name());
            let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
            names.sort();
            names.join(" ")
        };
        Some((name, if metadata.is_dir() { names() } else { metadata.len().to_string() }))
    };
    SHOWN.into_iter().filter_map(seen).collect()
}

#[body]
#[isolated]
fn compares_etc() {
    assert_eq!(format!("{:?}", seen_in_etc()), env::var(ETC).expect(ETC));
    // Time zones are known by what the link holds.
    let outside = env::var("BELLJAR_TESTS_LOCALTIME").expect("the link of the host");
    assert_eq!(format!("{:?}", fs::read_link("/etc/localtime").ok()), outside);
}

#[test]
fn etc_has_what_programs_look_up() {
    assert!(seen_in_etc().len() > 3, "a host without any of these shows nothing");
    let mut command = this_binary();
    command.args(["--exact", "body", "compares_etc", "--show-output"]);
    command.env("BELLJAR_TESTS_LOCALTIME", format!("{:?}", fs::read_link("/etc/localtime").ok()));
    let run = belljar_tests::run(command.env(ETC, format!("{:?}", seen_in_etc())));
    assert!(run.passed(), "{}", run.output);
}

/// A copy of `/etc` leads to the same.
#[isolated]
fn links_in_etc_are_relative() {
    let target = fs::read_link("/etc/services").expect("a link");
    assert!(target.is_relative(), "{}", target.display());
    for name in SHOWN {
        // Others can be put in their places.
        let path = Path::new("/etc").join(name);
        if path.exists() {
            fs::remove_file(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
            fs::create_dir(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

#[body]
#[isolated]
fn prints_its_machine() {
    println!("machine {}", fs::read_to_string("/etc/machine-id").expect("machine-id").trim());
}

#[test]
fn machines_have_ids_of_their_own() {
    let id = || {
        let run = belljar_tests::run_body("prints_its_machine");
        assert!(run.passed(), "{}", run.output);
        run.output.lines().find_map(|line| line.strip_prefix("machine ")).expect("an id").to_owned()
    };
    let (one, other) = (id(), id());
    assert_ne!(one, other);
    assert_ne!(Some(one.as_str()), fs::read_to_string("/etc/machine-id").ok().as_deref().map(str::trim));
    // See machine-id(5): a UUID of version 4, without the hyphens.
    assert_eq!(one.len(), 32, "{one}");
    assert!(one.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)), "{one}");
    assert!(one.as_bytes()[12] == b'4' && b"89ab".contains(&one.as_bytes()[16]), "{one}");
}

// ---- Names ----

#[isolated]
fn localhost_has_both_addresses() {
    let addresses = ("localhost", 80).to_socket_addrs().expect("resolved");
    let mut addresses: Vec<_> = addresses.map(|address| address.ip().to_string()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses, ["127.0.0.1", "::1"]);
    std::net::TcpListener::bind("[::1]:80").expect("bind");
}

/// The twin: the resolver takes the first line by itself.
#[isolated]
fn without_host_conf_there_is_one() {
    fs::remove_file("/etc/host.conf").expect("remove");
    let addresses = ("localhost", 80).to_socket_addrs().expect("resolved");
    let kinds: Vec<_> = addresses.map(|address| address.is_ipv4()).collect();
    assert!(kinds.iter().all(|is_ipv4| *is_ipv4) || kinds.iter().all(|is_ipv4| !is_ipv4) || cfg!(target_env = "musl"));
}

// ---- Programs ----

#[body]
#[isolated]
fn prints_its_path() {
    println!("path {}", env::var("PATH").expect("PATH"));
}

#[test]
fn root_finds_its_programs() {
    let path_of = |path: &str| {
        let mut command = this_binary();
        command.args(["--exact", "body", "prints_its_path", "--show-output"]).env("PATH", path);
        let run = belljar_tests::run(&mut command);
        assert!(run.passed(), "{}", run.output);
        run.output.lines().find_map(|line| line.strip_prefix("path ")).expect("a path").to_owned()
    };
    assert_eq!(path_of("/usr/bin:/bin"), "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin");
    assert_eq!(path_of("/sbin:/usr/sbin:/usr/local/sbin"), "/sbin:/usr/sbin:/usr/local/sbin");
}

#[isolated(env = ["PATH=/usr/bin"])]
fn a_path_that_is_given_stays() {
    assert_eq!(env::var("PATH").as_deref(), Ok("/usr/bin"));
}

/// The recipe of the guide.
#[isolated(env = ["PATH=/tmp/bin:/usr/sbin:/usr/bin:/sbin:/bin"])]
fn scripts_may_call_sudo() {
    fs::create_dir("/tmp/bin").expect("mkdir");
    fs::write("/tmp/bin/sudo", "#!/bin/sh\nexec \"$@\"\n").expect("write");
    fs::set_permissions("/tmp/bin/sudo", Permissions::from_mode(0o755)).expect("chmod");
    let output = Command::new("sh").args(["-c", "sudo id -u"]).output().expect("sh");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n");
}

// ---- Home ----

fn home_is(path: &str) {
    let root = User::from_uid(geteuid()).expect("getpwuid").expect("this user");
    assert_eq!(root.dir, Path::new(path));
    assert_eq!(env::var("HOME").as_deref(), Ok(path));
    fs::write(root.dir.join("file"), "").expect("write");
    // Programs ask both ways.
    let shell = Command::new("sh").args(["-c", "cd && pwd"]).output().expect("sh");
    assert_eq!(String::from_utf8_lossy(&shell.stdout).trim(), path);
}

#[isolated(env = ["HOME=/home/somebody"])]
fn home_is_what_the_environment_says() {
    home_is("/home/somebody");
}

#[isolated(env = ["HOME=/srv/home"], user = 1000)]
fn so_it_is_for_others() {
    home_is("/srv/home");
}

#[isolated(env = ["TMPDIR=/scratch", "XDG_RUNTIME_DIR=/run/user/0"])]
fn other_directories_are_there_too() {
    for directory in ["/scratch", "/run/user/0"] {
        fs::write(Path::new(directory).join("file"), "").expect(directory);
    }
    drop(tempfile::tempdir().expect("a temporary directory"));
}

#[body]
#[isolated]
fn prints_its_home() {
    let root = User::from_uid(geteuid()).expect("getpwuid").expect("root");
    println!("home {}", root.dir.display());
    assert!(root.dir.is_dir());
}

#[test]
fn home_is_the_runners() {
    for (home, expected) in [("/home/ann", "/home/ann"), ("relative", "/root")] {
        let mut command = this_binary();
        command.args(["--exact", "body", "prints_its_home", "--show-output"]).env("HOME", home);
        let run = belljar_tests::run(&mut command);
        assert!(run.passed() && run.output.contains(&format!("home {expected}\n")), "{}", run.output);
    }
}

// ---- ICMP ----

fn ping_socket() -> Result<OwnedFd, Errno> {
    #[expect(unsafe_code, reason = "nix has no such protocol")]
    // SAFETY: socket takes integers, and returns a descriptor that nobody has.
    unsafe {
        let socket = Errno::result(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP))?;
        Ok(OwnedFd::from_raw_fd(socket))
    }
}

#[isolated]
fn root_may_ping() {
    assert!(ping_socket().expect("a socket").as_raw_fd() > 2);
}

#[isolated(user = 1000)]
fn so_may_others() {
    ping_socket().expect("a socket");
}

#[isolated(net)]
fn so_may_root_in_the_hosts_tree() {
    ping_socket().expect("a socket");
}

/// The twin: in a new network, nobody may.
#[isolated]
fn in_a_network_of_its_own_nobody_may() {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
    assert_eq!(ping_socket().map(drop), Err(Errno::EACCES));
}

// ---- A home that is closed ----

#[body]
#[isolated]
fn finds_its_project() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR"));
    assert_eq!(env::current_dir().expect("cwd"), package);
    assert_eq!(fs::read_to_string("Cargo.toml").expect("the manifest"), "manifest");
    let refused = fs::write("Cargo.toml", "").expect_err("read-only").kind();
    assert!([io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied].contains(&refused), "{refused}");
    // Whatever root does to the mount.
    let none: Option<&str> = None;
    let flags = nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(none, &package, none, flags, none).expect_err("locked");
}

/// `sudo cargo test` in somebody's home.
#[test]
#[ignore = "takes real root: .ci/run runs it"]
fn a_project_may_lie_in_a_closed_home() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let project = home.path().join("project");
    fs::create_dir(&project).expect("mkdir");
    fs::write(project.join("Cargo.toml"), "manifest").expect("write");
    fs::write(project.join("Cargo.lock"), "").expect("write");
    let ann = Some(nix::unistd::Uid::from_raw(1000));
    for path in [home.path(), &project, &project.join("Cargo.toml")] {
        nix::unistd::chown(path, ann, None).expect("chown");
    }
    fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
    let run = || {
        let mut command = this_binary();
        command.args(["--exact", "body", "finds_its_project", "--show-output"]).current_dir(&project);
        belljar_tests::run(command.env("CARGO_MANIFEST_DIR", &project))
    };
    let open = run();
    assert!(open.passed(), "{}", open.output);
    // The project itself may be closed, too.
    fs::set_permissions(&project, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
    let closed = run();
    assert!(closed.failed(), "{}", closed.output);
    for words in ["EACCES", "may not enter the directory", "the mode of", "is 700", "uids = 65536"] {
        assert!(closed.output.contains(words), "{words:?}: {}", closed.output);
    }
}
