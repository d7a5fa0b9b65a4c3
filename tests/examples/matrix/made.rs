//! What places are made with.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{self, Command};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, chdir, getegid, geteuid, getpid, pipe, pivot_root};

/// Where each place has the test binary, and room for files.
pub(crate) const ROOM: &str = "/mnt/room";

/// The test binary there.
pub(crate) const CELL: &str = "/mnt/room/cell";

/// The number of the ordinary user: one that nobody else has, as some limits are on all that a user has in the whole machine, and what
/// was run before in another place may be about to end.
pub(crate) fn ordinary() -> u32 {
    50_000 + process::id() % 10_000
}

/// Where the lab says that a directory with the system of a container is.
pub(crate) const IMAGE: &str = "BELLJAR_TESTS_IMAGE";

macro_rules! docker {
    ($($flag:expr),*) => {
        &[
            "docker", "run", "--rm", "--network=none", "--env", "BELLJAR_DOCTOR", "--env", "RUST_BACKTRACE", "--user", "USER", $($flag,)*
            "FLAGS", "belljar-cell", "/cell/cell",
        ]
    };
}

macro_rules! podman {
    ($($flag:expr),*) => {
        &[
            "podman", "--cgroup-manager=cgroupfs", "--log-level=error", "run", "--rm", "--network=none", "--cgroups=disabled", "--env",
            "BELLJAR_DOCTOR", "--env", "RUST_BACKTRACE", $($flag,)* "FLAGS", "--rootfs", "/mnt/room/image", "/cell/cell",
        ]
    };
}

pub(crate) use {docker, podman};

/// The test binary, by the name that `lab/restricted.apparmor` is for.
pub(crate) const CONFINED: &str = "/mnt/room/confined";

const NONE: Option<&CStr> = None;

// See capabilities(7).
pub(crate) const CAP_SYS_RESOURCE: u32 = 24;
pub(crate) const CAP_SETFCAP: u32 = 31;

/// Gives this process a mount table of its own, with the program in [`ROOM`].
pub(crate) fn prepare(program: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).expect("make the mounts private");
    // Read first: it may lie where the room will be.
    let program = fs::read(program).expect("the program");
    cover("/mnt", MsFlags::empty());
    fs::create_dir(ROOM).expect("mkdir");
    fs::write(CELL, program).expect("a copy of the program");
    fs::set_permissions(CELL, fs::Permissions::from_mode(0o755)).expect("chmod");
    // The system of a machine may have begun as an image for containers, and still bear the mark of them.
    if Path::new("/.dockerenv").exists() {
        let tree = tree("unmarked");
        bind(&tree, &tree);
        enter(&tree);
    }
    if Path::new("/run/.containerenv").exists() {
        cover("/run", MsFlags::empty());
    }
}

/// Applies a remedy: the first command in it.
pub(crate) fn apply(remedy: &str) {
    let end = [" (", "; ", ", or"].iter().filter_map(|end| remedy.find(end)).min().unwrap_or(remedy.len());
    let command = remedy[..end].trim_start_matches("sudo ");
    if let Some((name, value)) = command.strip_prefix("sysctl -w ").and_then(|setting| setting.split_once('=')) {
        write(&format!("/proc/sys/{}", name.replace('.', "/")), value);
    } else if command == "ulimit -u unlimited" {
        limit_processes(None);
    } else {
        let status = Command::new("sh").args(["-c", command]).status().expect("sh");
        assert!(status.success(), "{command}: {status}");
    }
}

pub(crate) fn write(path: &str, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
}

pub(crate) fn bind(from: &str, to: &str) {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, NONE, flags, NONE).unwrap_or_else(|error| panic!("{from}, {to}: {error}"));
}

/// Allows so many processes, or as many as can be.
pub(crate) fn limit_processes(count: Option<rlim_t>) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NPROC, count.unwrap_or(hard), hard).expect("setrlimit");
}

/// Lays an empty tmpfs over a directory.
pub(crate) fn cover(path: &str, flags: MsFlags) {
    let tmpfs = Some(c"tmpfs");
    mount(tmpfs, path, tmpfs, flags, Some(c"mode=1777")).unwrap_or_else(|error| panic!("{path}: {error}"));
}

pub(crate) fn unmount(path: &str) {
    umount2(path, MntFlags::MNT_DETACH).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Makes one mount read-only for those who see it here.
pub(crate) fn make_read_only(path: &str) {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(NONE, path, NONE, flags, NONE).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Where cgroups are mounted, in order.
pub(crate) fn cgroups() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("the mount table");
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|fields| fields[2].starts_with("cgroup")).map(|fields| fields[1].to_owned()).collect()
}

/// Makes a directory by this name with all directories of the root, which is not a mount itself.
pub(crate) fn tree(name: &str) -> String {
    let tree = format!("{ROOM}/{name}");
    fs::create_dir(&tree).expect("mkdir");
    for entry in fs::read_dir("/").expect("the root").map(|entry| entry.expect("an entry")) {
        let place = Path::new(&tree).join(entry.file_name());
        if let Ok(target) = fs::read_link(entry.path()) {
            symlink(target, place).expect("a link");
        } else if entry.path().is_dir() {
            fs::create_dir(&place).expect("mkdir");
            // The tree itself lies below the room, and is not to have another `/proc`.
            let flags =
                if entry.path() == Path::new("/mnt") { MsFlags::MS_BIND } else { MsFlags::MS_BIND | MsFlags::MS_REC };
            mount(Some(&entry.path()), &place, NONE, flags, NONE).expect("bind");
        }
    }
    tree
}

/// Makes a mount the root.
pub(crate) fn enter(tree: &str) {
    chdir(tree).and_then(|()| pivot_root(".", ".")).expect("pivot_root");
    umount2(".", MntFlags::MNT_DETACH).and_then(|()| chdir("/")).expect("umount");
}

/// From now on, these system calls fail.
pub(crate) fn filter(json: &[u8]) {
    let arch = std::env::consts::ARCH.try_into().expect("an architecture");
    let filters = seccompiler::compile_from_json(json, arch).expect("filters");
    filters.values().for_each(|filter| seccompiler::apply_filter(filter).expect("seccomp"));
}

/// Files that make a user namespace have this one's users and groups, with the same numbers.
pub(crate) fn all_ids() -> Vec<(&'static str, String)> {
    let map = |name: &'static str| {
        let map = fs::read_to_string(format!("/proc/self/{name}")).expect("a map");
        let fields = map.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        (name, fields.map(|fields| format!("{first} {first} {}\n", fields[2], first = fields[0])).collect())
    };
    ["uid_map", "gid_map"].map(map).into()
}

/// The same, with nobody but this process's own user, as root.
pub(crate) fn one_id() -> Vec<(&'static str, String)> {
    let map = |id: u32| format!("0 {id} 1");
    vec![("setgroups", "deny".to_owned()), ("uid_map", map(geteuid().as_raw())), ("gid_map", map(getegid().as_raw()))]
}

/// Enters a new user namespace. Its files are written by a process outside, as that may take rights there.
pub(crate) fn nest(files: &[(&str, String)]) {
    let process = getpid();
    let (begun, begin) = pipe().expect("pipe");
    match belljar_tests::fork() {
        ForkResult::Child => {
            drop(begin);
            let _ = File::from(begun).read(&mut [0]);
            files.iter().for_each(|(name, text)| write(&format!("/proc/{process}/{name}"), text));
            process::exit(0)
        }
        ForkResult::Parent { child } => {
            unshare(CloneFlags::CLONE_NEWUSER).expect("unshare");
            drop((begun, begin));
            assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
        }
    }
}

/// Takes rights from root, and from all that it runs.
pub(crate) fn drop_rights(rights: std::ops::RangeInclusive<u32>) {
    for right in rights {
        #[expect(unsafe_code, reason = "nix has no call for it")]
        // SAFETY: it takes integers, and fails if there is no such right.
        let _ = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(right), 0, 0, 0) };
    }
}

/// Whether root may have a right on this machine.
pub(crate) fn has_right(right: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("the status");
    let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("the bounding set");
    u64::from_str_radix(bounds.trim(), 16).expect("a set") & (1 << right) != 0
}

/// Gives the ordinary user a name, a home, subordinate ids, and the system of a container.
pub(crate) fn prepare_podman() {
    let uid = ordinary();
    let line = format!("ordinary:x:{uid}:{uid}::{ROOM}/home:/bin/sh\n");
    for (path, line) in [
        ("/etc/passwd", line),
        ("/etc/group", format!("ordinary:x:{uid}:\n")),
        ("/etc/subuid", "ordinary:200000:65536\n".to_owned()),
        ("/etc/subgid", "ordinary:200000:65536\n".to_owned()),
    ] {
        let new = format!("{ROOM}/{}", path.replace('/', "-"));
        write(&new, &(fs::read_to_string(path).unwrap_or_default() + &line));
        bind(&new, path);
    }
    let image = std::env::var(IMAGE).expect(IMAGE);
    let command = format!("cd {ROOM} && mkdir home && cp -a \"$0\" image && chown -R {uid}:{uid} home image");
    assert!(Command::new("sh").args(["-c", &command, &image]).status().expect("sh").success());
    // It keeps its state there otherwise.
    cover("/tmp", MsFlags::empty());
    // Its runtime knows either version of cgroups, and not both at once.
    if Path::new("/sys/fs/cgroup/unified").exists() {
        unmount("/sys/fs/cgroup/unified");
    }
    chdir(&*format!("{ROOM}/home")).expect("chdir");
}
