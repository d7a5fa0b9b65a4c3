//! What a test is shown to read, nobody in its sandbox can write to: not by remounting, binding, unmounting, or in namespaces below.
//!
//! Each attack goes through all mounts of a sandbox that show something of the host, and tries to make each writable in each way. Then the
//! host is looked at. The package that is tested lies in a directory that belongs to whoever runs the tests, so that no owner or mode is in
//! the way.

mod programs;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::{env, process};

use belljar::isolated;
use belljar_tests::{Run, as_runner, body, fork, refusal_of_copies, runners, this_binary};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::time::TimeSpec;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Uid, chown, geteuid, pipe};

belljar_tests::bodies!();

const NONE: Option<&str> = None;

/// The environment variable that lists the devices of the host's file systems.
const DEVICES: &str = "BELLJAR_TESTS_DEVICES";

// ---- Attacks, in a sandbox ----

/// A mount, as `/proc/self/mountinfo` has it.
struct Mount {
    device: String,
    point: PathBuf,
    kind: String,
}

fn mounts() -> Vec<Mount> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let mount = |line: &str| {
        let fields: Vec<_> = line.split(' ').collect();
        let separator = fields.iter().position(|field| *field == "-").expect("a separator");
        let point = fields[4].replace("\\040", " ").into();
        Mount { device: fields[2].to_owned(), point, kind: fields[separator + 1].to_owned() }
    };
    table.lines().map(mount).collect()
}

/// Changes what is at `path` in every way that is noticed, and harms nothing. Returns the ways that worked.
fn change(path: &Path) -> Vec<&'static str> {
    let mut worked = Vec::new();
    let mut note = |what, result: io::Result<()>| {
        if result.is_ok() {
            worked.push(what);
        }
    };
    let Ok(metadata) = fs::metadata(path) else { return worked };
    if is_private(path, metadata.dev()) {
        return worked;
    }
    if metadata.is_dir() {
        let file = path.join("belljar-was-here");
        note("create a file", File::create_new(&file).and_then(|_| fs::remove_file(&file)));
    }
    if metadata.is_file() {
        note("open to append", OpenOptions::new().append(true).open(path).map(drop));
    }
    note("chmod", fs::set_permissions(path, Permissions::from_mode(metadata.mode() & 0o7777)));
    note("chown", chown(path, Some(geteuid()), None).map_err(io::Error::from));
    let now = utimensat(
        nix::fcntl::AT_FDCWD,
        path,
        &TimeSpec::UTIME_NOW,
        &TimeSpec::UTIME_NOW,
        UtimensatFlags::FollowSymlink,
    );
    note("touch", now.map_err(io::Error::from));
    worked
}

/// Whether what lies on this device is the sandbox's own, a tmpfs or a copy: what was mounted over it is gone.
fn is_private(path: &Path, device: u64) -> bool {
    let device = format!("{}:{}", libc::major(device), libc::minor(device));
    let kind = statfs(path).map(|statfs| statfs.filesystem_type());
    kind.is_ok_and(|kind| kind == TMPFS_MAGIC || kind == OVERLAYFS_SUPER_MAGIC)
        && !env::var(DEVICES).expect(DEVICES).split(',').any(|other| other == device)
}

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

/// Makes the mount at `path` writable by mount_setattr(2).
#[expect(unsafe_code, reason = "mount_setattr(2) has no wrapper")]
fn set_writable(directory: i32, path: &Path, flags: i32) -> nix::Result<()> {
    let attributes = libc::mount_attr { attr_set: 0, attr_clr: libc::MOUNT_ATTR_RDONLY, propagation: 0, userns_fd: 0 };
    let (path, flags) = (c_string(path), flags | libc::AT_RECURSIVE);
    let size = size_of_val(&attributes);
    // SAFETY: the path and the attributes outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_mount_setattr, directory, path.as_ptr(), flags, &raw const attributes, size) };
    Errno::result(result).map(drop)
}

fn remount(path: &Path) -> nix::Result<()> {
    mount(NONE, path, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, NONE)
}

/// A new place of the same kind as what is at `path`.
fn place(path: &Path) -> PathBuf {
    let place = PathBuf::from(if path.is_dir() { "/tmp/place" } else { "/tmp/place-for-a-file" });
    if path.is_dir() {
        drop(fs::create_dir(&place))
    } else {
        drop(File::create_new(&place))
    }
    place
}

fn bind_elsewhere(path: &Path) -> PathBuf {
    let place = place(path);
    let _ = mount(Some(path), &place, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE);
    let _ = remount(&place);
    place
}

/// Clones the mount at `path` by open_tree(2), makes the clone writable, and attaches it elsewhere.
#[expect(unsafe_code, reason = "open_tree(2) and move_mount(2) have no wrappers")]
fn clone_elsewhere(path: &Path) -> PathBuf {
    let (place, from) = (place(path), c_string(path));
    let flags = libc::OPEN_TREE_CLONE | libc::AT_RECURSIVE as u32;
    // SAFETY: the path outlives the call.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, from.as_ptr(), flags) };
    let Ok(tree) = Errno::result(tree) else { return place };
    // SAFETY: the kernel has just made the descriptor.
    let tree = unsafe { OwnedFd::from_raw_fd(tree as i32) };
    let _ = set_writable(tree.as_raw_fd(), Path::new(""), libc::AT_EMPTY_PATH);
    let (empty, to) = (c"".as_ptr(), c_string(&place));
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH;
    // SAFETY: the paths outlive the call.
    let _ = unsafe { libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), empty, libc::AT_FDCWD, to.as_ptr(), flags) };
    place
}

/// Enters a user namespace below this one as its root, with a mount table of its own.
fn go_below() -> nix::Result<()> {
    let (uid, gid) = (geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    let write = |path: &str, text: String| fs::write(path, text).map_err(|_| Errno::EPERM);
    let _ = write("/proc/self/setgroups", "deny".to_owned());
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// A way to make what is at a path writable, by its name. It returns the path where it may be so then.
type Way = (&'static str, fn(&Path) -> PathBuf);

const WAYS: [Way; 10] = [
    ("as it is", Path::to_path_buf),
    ("remounted", |path| {
        let _ = remount(path);
        path.to_path_buf()
    }),
    ("remounted with all of the file system", |path| {
        let _ = mount(NONE, path, NONE, MsFlags::MS_REMOUNT, NONE);
        path.to_path_buf()
    }),
    ("by mount_setattr", |path| {
        let _ = set_writable(libc::AT_FDCWD, path, 0);
        path.to_path_buf()
    }),
    ("bound elsewhere", bind_elsewhere),
    ("cloned elsewhere", clone_elsewhere),
    ("in a mount namespace", |path| {
        let _ = unshare(CloneFlags::CLONE_NEWNS);
        let _ = remount(path);
        path.to_path_buf()
    }),
    ("in a user namespace below", |path| {
        let _ = go_below();
        let _ = remount(path);
        bind_elsewhere(path)
    }),
    ("in the mount namespace of init", |path| {
        let _ = File::open("/proc/1/ns/mnt").map(|namespace| setns(namespace, CloneFlags::CLONE_NEWNS));
        let _ = remount(path);
        path.to_path_buf()
    }),
    ("unmounted", |path| {
        let _ = unshare(CloneFlags::CLONE_NEWNS);
        while umount2(path, MntFlags::MNT_DETACH).is_ok() {
            let _ = remount(path);
        }
        path.to_path_buf()
    }),
];

/// Runs `attack` in a process of its own, and returns what it tells.
fn in_child(attack: impl FnOnce() -> String) -> String {
    let (reader, writer) = pipe().expect("pipe");
    match fork() {
        ForkResult::Child => {
            let _ = File::from(writer).write_all(attack().as_bytes());
            process::exit(0)
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let told = io::read_to_string(File::from(reader)).expect("read");
            assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
            told
        }
    }
}

/// Attacks all that is mounted of the host, but for what is `given` to write, in each of these ways. Prints how much that was.
fn attack(ways: &[Way], given: &[&Path]) {
    let devices = env::var(DEVICES).expect(DEVICES);
    let devices: BTreeSet<_> = devices.split(',').collect();
    let is_hosts = |mount: &Mount| devices.contains(mount.device.as_str()) && !given.contains(&mount.point.as_path());
    let attacked: Vec<_> = mounts().into_iter().filter(is_hosts).collect();
    let mut wrong = Vec::new();
    for Mount { point, kind, .. } in &attacked {
        for (name, way) in ways {
            let told = in_child(|| change(&way(point)).join(", "));
            if !told.is_empty() {
                wrong.push(format!("{} ({kind}), {name}: {told}", point.display()));
            }
        }
    }
    println!("attacked {}", attacked.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

macro_rules! attacked {
    ($($name:ident ($($arguments:tt)*) $ways:expr;)*) => {
        $(#[body]
        #[isolated($($arguments)*)]
        fn $name() {
            attack($ways, &[]);
        })*
        /// The names of all of them.
        const ATTACKED: &[&str] = &[$(stringify!($name)),*];
    };
}

attacked! {
    plain() &WAYS;
    without_a_network(mount) &WAYS;
    with_binds(bind = ["directory:/srv/directory", "file:/etc/file", "closed", "directory/below:/mnt"]) &WAYS;
    as_somebody(user = 1000) &WAYS;
    with_a_copy(root = "overlay") &WAYS;
    with_a_copy_of_a_directory(root = "./directory") &WAYS;
}

/// Whether this kernel can run the test of that name. Where it can't, `copies` looks at what is said.
fn can_run(test: &str) -> bool {
    !test.contains("copy") || refusal_of_copies().is_none()
}

#[body]
#[isolated(uids = 65536)]
fn with_users() {
    attack(&WAYS, &[]);
}

/// Whoever is real root can undo what real root has done: the documentation says so.
#[body]
#[isolated(user = "host")]
fn as_the_hosts_root() {
    attack(&WAYS[..1], &[]);
}

#[body]
#[isolated(bind = ["directory:/srv/directory:rw", "file:rw"])]
fn beside_what_is_given() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR"));
    attack(&WAYS, &[Path::new("/srv/directory"), &package.join("file")]);
    // Where it lies on the host, it stays as it is.
    assert_eq!(change(&package.join("directory")), [""; 0]);
}

/// The twin: what can be changed is noticed.
#[body]
#[isolated(bind = ["directory:/srv/directory:rw", "file:rw"])]
fn with_what_is_given() {
    attack(&WAYS[..1], &[]);
}

// ---- The host ----

/// A package that belongs to whoever runs the tests.
fn make_package(runner: Option<&str>) -> tempfile::TempDir {
    let package = tempfile::tempdir().expect("a temporary directory");
    let path = package.path();
    fs::create_dir_all(path.join("directory/below")).expect("mkdir");
    fs::create_dir(path.join("closed")).expect("mkdir");
    for file in ["Cargo.lock", "Cargo.toml", "file", "directory/file", "directory/below/file", "closed/file"] {
        fs::write(path.join(file), file).expect("write");
    }
    fs::set_permissions(path.join("closed"), Permissions::from_mode(0o700)).expect("chmod");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("chmod");
    if runner.is_some() {
        let owner = Some(Uid::from_raw(65534));
        let mut pending = vec![path.to_path_buf()];
        while let Some(path) = pending.pop() {
            chown(&path, owner, None).expect("chown");
            pending.extend(fs::read_dir(path).into_iter().flatten().map(|entry| entry.expect("an entry").path()));
        }
    }
    package
}

/// All that would change if somebody wrote to `path`, and to what lies below it.
fn look_at(path: &Path) -> Vec<String> {
    let metadata = fs::symlink_metadata(path).expect("stat");
    let (mode, owner) = (metadata.mode(), (metadata.uid(), metadata.gid()));
    let (changed, modified) = ((metadata.ctime(), metadata.ctime_nsec()), (metadata.mtime(), metadata.mtime_nsec()));
    let mut seen = vec![format!("{} {mode:o} {owner:?} {changed:?} {modified:?}", path.display())];
    if metadata.is_dir() {
        let mut below: Vec<_> =
            fs::read_dir(path).expect("read_dir").map(|entry| entry.expect("an entry").path()).collect();
        below.sort();
        seen.extend(below.iter().flat_map(|path| look_at(path)));
    }
    seen
}

/// What attacks could reach of the host, and nobody else changes meanwhile.
fn look_at_host(package: &Path) -> Vec<String> {
    let devices = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
    // Whoever writes to a device changes a time of it.
    let modes = devices.map(|path| fs::metadata(path).map(|metadata| format!("{path} {:o}", metadata.mode())));
    let times = |path: &str| {
        let metadata = fs::metadata(path).expect("stat");
        format!("{path} {:o} {} {}", metadata.mode(), metadata.ctime(), metadata.ctime_nsec())
    };
    let tested = env!("CARGO_MANIFEST_DIR");
    let binary = env::current_exe().expect("current_exe");
    let binary = binary.to_str().expect("UTF-8");
    let others = ["/", "/usr", "/etc", "/etc/passwd", binary].map(times);
    // What tests are shown besides, where it is there: tools, the toolchain among them.
    let tools = env::var_os("PATH").unwrap_or_default();
    let tools: Vec<_> = env::split_paths(&tools).chain([PathBuf::from("/usr/bin/env")]).collect();
    let tools = tools.iter().filter(|path| path.exists()).map(|path| times(path.to_str().expect("UTF-8")));
    // Whoever works on the tests makes files there. In the lab there is no such directory.
    let tested = fs::metadata(tested).map(|metadata| format!("{tested} {:o}", metadata.mode()));
    let others = others.into_iter().chain(tools.collect::<Vec<_>>()).chain(tested);
    look_at(package).into_iter().chain(modes.into_iter().flatten()).chain(others).collect()
}

/// The devices of all file systems of the host but those of the kernel's own data.
fn devices() -> String {
    let own = |mount: &Mount| ["proc", "sysfs", "cgroup", "cgroup2", "mqueue"].contains(&mount.kind.as_str());
    let devices: BTreeSet<_> = mounts().into_iter().filter(|mount| !own(mount)).map(|mount| mount.device).collect();
    devices.into_iter().collect::<Vec<_>>().join(",")
}

/// Runs `test` for a package of its own.
fn run_for(package: &Path, runner: Option<&str>, test: &str) -> Run {
    belljar_tests::run(&mut command_for(package, runner, test))
}

fn command_for(package: &Path, runner: Option<&str>, test: &str) -> process::Command {
    let mut command = as_runner(runner, &this_binary());
    command.args(["--exact", "body", test, "--show-output"]).current_dir(package);
    command.env("CARGO_MANIFEST_DIR", package).env(DEVICES, devices());
    command
}

/// How many mounts of the host the run has attacked.
fn attacked(run: &Run) -> usize {
    let line = run.output.lines().find_map(|line| line.strip_prefix("attacked "));
    line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{}", run.output))
}

fn nothing_changes(tests: &[&str], runner: Option<&str>) {
    for test in tests.iter().filter(|test| can_run(test)) {
        let package = make_package(runner);
        let before = look_at_host(package.path());
        let run = run_for(package.path(), runner, test);
        assert!(run.passed(), "{test} {runner:?}: {}", run.output);
        assert!(attacked(&run) > 5, "{test} {runner:?}: {}", run.output);
        assert_eq!(look_at_host(package.path()), before, "{test} {runner:?}");
    }
}

#[test]
fn nothing_of_the_host_can_be_made_writable() {
    for runner in runners() {
        nothing_changes(ATTACKED, *runner);
        nothing_changes(&["beside_what_is_given"], *runner);
    }
    if geteuid().is_root() {
        nothing_changes(&["with_users", "as_the_hosts_root"], None);
    }
}

/// The twin.
#[test]
fn what_is_given_can_be_changed() {
    for runner in runners() {
        let package = make_package(*runner);
        let before = look_at(package.path());
        let run = run_for(package.path(), *runner, "with_what_is_given");
        assert!(run.failed(), "{}", run.output);
        for words in
            ["/srv/directory (", "as it is: create a file, chmod, chown, touch", "open to append, chmod, chown, touch"]
        {
            assert!(run.output.contains(words), "{words:?}: {}", run.output);
        }
        assert_ne!(look_at(package.path()), before);
    }
}
