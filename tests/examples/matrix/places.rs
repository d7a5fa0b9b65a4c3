//! The places in which tests may find themselves: how each is made, and what belljar must say there.
//!
//! A place is made in the process that then becomes the test binary, and is gone with it. Nothing of the host changes.

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
use nix::unistd::{ForkResult, chdir, chroot, getegid, geteuid, getpid, pipe, pivot_root};

/// Where each place has the test binary, and room for files.
pub(crate) const ROOM: &str = "/mnt/room";

/// The test binary there.
const CELL: &str = "/mnt/room/cell";

/// The number of the ordinary user: one that nobody else has, as some limits are on all that a user has in the whole machine, and what
/// was run before in another place may be about to end.
pub(crate) fn ordinary() -> u32 {
    50_000 + process::id() % 10_000
}

/// Where the lab says that a directory with the system of a container is.
pub(crate) const IMAGE: &str = "BELLJAR_TESTS_IMAGE";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    Ordinary,
}

/// What an expectation depends on.
pub(crate) struct Given {
    pub(crate) user: User,
    pub(crate) site: &'static str,
    pub(crate) linux: (u32, u32),
}

/// What must come of the test.
pub(crate) enum Expected {
    Works,
    Refused(Refusal),
    /// It can't be tried, for this reason.
    NotTried(&'static str),
}

/// What the page must say. The step begins so, the others are whole.
pub(crate) struct Refusal {
    pub(crate) step: &'static str,
    pub(crate) error: &'static str,
    pub(crate) cause: &'static str,
    pub(crate) remedy: &'static str,
    pub(crate) applied: Applied,
}

/// How the remedy is applied, after which the test must pass.
#[derive(Clone, Copy)]
pub(crate) enum Applied {
    /// As it is printed: the first command that it has, by root, in the place.
    Command,
    /// As it is printed: its flags go to the program that makes the place.
    Flags,
    /// In words. What this makes of the place is another one, which has rows of its own.
    As(&'static str),
    /// Not at all, for this reason.
    Not(&'static str),
}

pub(crate) struct Place {
    pub(crate) name: &'static str,
    /// On which machines it is made: see `lab/matrix`.
    pub(crate) sites: &'static [&'static str],
    /// Whose tests run there.
    pub(crate) users: &'static [User],
    /// What root does before it becomes the user.
    pub(crate) before: fn(),
    /// What the user does.
    pub(crate) after: fn(),
    /// The program that is run, and its arguments. `USER` stands for the number of the user, `FLAGS` for those of a remedy.
    pub(crate) program: &'static [&'static str],
    /// Which of the tests in `cell`.
    pub(crate) test: &'static str,
    pub(crate) expected: fn(&Given) -> Expected,
}

const PLACE: Place = Place {
    name: "",
    sites: &["here", "guest"],
    users: &[User::Root, User::Ordinary],
    before: || {},
    after: || {},
    program: &[CELL],
    test: "sandbox",
    expected: |_| Expected::Works,
};

/// What rows have whose remedy is to be in no such place.
const PLAIN: &str = "nothing special";

const EPERM: &str = "EPERM (Operation not permitted)";
const ENOENT: &str = "ENOENT (No such file or directory)";
const ENOSPC: &str = "ENOSPC (No space left on device)";
const CLONE: &str = "make the user and mount namespaces that sandboxes begin in";
const LIMITS: &str = "make a cgroup with the limits of the test";
const NONE_ALLOWED: &str = "no namespaces of this kind are allowed";
const FILTERED: &str = "a seccomp filter refuses this call, as those of containers do";
const MASKED: &str = "parts of /proc or /sys are masked, as in a container, and then the kernel refuses a new one";
const NO_RIGHTS: &str = "root lacks CAP_SETFCAP here, without which the kernel lets nobody map root (since Linux 5.12)";

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

pub(crate) static PLACES: &[Place] = &[
    Place { name: PLAIN, ..PLACE },
    Place { name: "a limit on memory", test: "limit", expected: limit_is_kept, ..PLACE },
    Place {
        name: "`user.max_user_namespaces` is 0",
        before: || {
            nest(&all_ids());
            write("/proc/sys/user/max_user_namespaces", "0");
        },
        expected: |_| {
            Expected::Refused(Refusal {
                step: CLONE,
                error: ENOSPC,
                cause: NONE_ALLOWED,
                remedy: "sudo sysctl -w user.max_user_namespaces=10000",
                applied: Applied::Command,
            })
        },
        ..PLACE
    },
    Place {
        name: "`user.max_net_namespaces` is 0",
        before: || {
            nest(&all_ids());
            write("/proc/sys/user/max_net_namespaces", "0");
        },
        expected: |_| {
            Expected::Refused(Refusal {
                step: "enter new mount, network, ipc, uts and cgroup namespaces",
                error: ENOSPC,
                cause: NONE_ALLOWED,
                remedy: "sudo sysctl -w user.max_net_namespaces=10000",
                applied: Applied::Command,
            })
        },
        ..PLACE
    },
    Place {
        name: "as many user namespaces in one another as there may be",
        after: || (0..33).for_each(|_| nest(&one_id())),
        expected: |_| {
            Expected::Refused(Refusal {
                step: CLONE,
                error: ENOSPC,
                cause: "a user namespace around this one has as many namespaces of this kind as it may have, or 32 lie in each other \
                        already",
                remedy: "run the tests in fewer user namespaces, or, outside of them all, sudo sysctl -w \
                         user.max_user_namespaces=100000",
                applied: Applied::As("a user namespace with one user"),
            })
        },
        ..PLACE
    },
    Place { name: "a user namespace with one user", after: || nest(&one_id()), ..PLACE },
    Place { name: "a user namespace with all users", before: || nest(&all_ids()), ..PLACE },
    Place {
        name: "a user namespace with no user",
        after: || nest(&[]),
        expected: |_| {
            Expected::Refused(Refusal {
                step: CLONE,
                error: EPERM,
                cause: "the user or the group that the tests run as has no number in this user namespace",
                remedy: "run them as one that has, such as its root: unshare --map-root-user, or docker run --user 0",
                applied: Applied::As("a user namespace with one user"),
            })
        },
        ..PLACE
    },
    Place {
        name: "a seccomp filter like Docker's",
        before: || filter(include_bytes!("../../lab/docker.json")),
        expected: |_| {
            Expected::Refused(Refusal {
                step: CLONE,
                error: EPERM,
                cause: FILTERED,
                remedy: "run the tests without that filter: in a container, --security-opt seccomp=unconfined (docker run, podman run); \
                         in a unit of systemd's, without SystemCallFilter and RestrictNamespaces",
                applied: Applied::As(PLAIN),
            })
        },
        ..PLACE
    },
    Place {
        name: "a seccomp filter that knows no clone3(2)",
        before: || filter(include_bytes!("../../lab/no-clone3.json")),
        ..PLACE
    },
    Place {
        name: "AppArmor takes all rights from the tests",
        sites: &["guest"],
        users: &[User::Ordinary],
        // The profile is for a program by this name.
        before: || {
            fs::rename(CELL, CONFINED).expect("rename");
        },
        program: &[CONFINED],
        expected: |_| {
            Expected::Refused(Refusal {
                step: CLONE,
                error: EPERM,
                cause: "the AppArmor profile unprivileged_userns forbids this",
                remedy: "add `userns,`, `mount,`, `umount,` and `pivot_root,` to the profile unprivileged_userns in /etc/apparmor.d, or \
                         run the tests outside it",
                applied: Applied::As(PLAIN),
            })
        },
        ..PLACE
    },
    Place {
        name: "parts of `/proc` are masked",
        before: || bind("/dev/null", "/proc/interrupts"),
        expected: |_| {
            Expected::Refused(Refusal {
                step: "mount a file system in the sandbox: /",
                error: EPERM,
                cause: MASKED,
                remedy: "sudo umount /proc/interrupts; in a container, --security-opt systempaths=unconfined (docker run) or unmask=ALL \
                         (podman run)",
                applied: Applied::Command,
            })
        },
        ..PLACE
    },
    Place { name: "no `/proc`", before: || unmount("/proc"), expected: proc_is_missing, ..PLACE },
    Place {
        name: "an empty `/proc`",
        before: || cover("/proc", MsFlags::MS_RDONLY),
        expected: proc_is_missing,
        ..PLACE
    },
    Place { name: "`/sys` is read-only", before: || make_read_only("/sys"), ..PLACE },
    Place { name: "`/` is read-only", before: || make_read_only("/"), ..PLACE },
    Place { name: "`/tmp` is noexec", before: || cover("/tmp", MsFlags::MS_NOEXEC), ..PLACE },
    Place {
        name: "cgroups are mounted read-only, and a limit on memory",
        test: "limit",
        before: || cgroups().iter().for_each(|path| make_read_only(path)),
        expected: |given| {
            Expected::Refused(Refusal {
                step: LIMITS,
                error: "EROFS (Read-only file system)",
                cause: "the cgroups are mounted read-only, as in a container",
                remedy: "sudo mount -o remount,rw /sys/fs/cgroup, or, for a container, docker run --security-opt writable-cgroups=true",
                applied: match given {
                    Given { site: "guest", user: User::Root, .. } => Applied::Command,
                    Given { site: "guest", .. } => Applied::Not("the cgroup is root's"),
                    _ => Applied::Not("which cgroups there are depends on the machine"),
                },
            })
        },
        ..PLACE
    },
    Place {
        name: "no cgroups are mounted, and a limit on memory",
        test: "limit",
        before: || cgroups().iter().rev().for_each(|path| unmount(path)),
        expected: |given| {
            Expected::Refused(Refusal {
                step: LIMITS,
                error: "no hierarchy that could be reached has the controller `memory`",
                cause: "no cgroups are mounted",
                remedy: "sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup",
                applied: match given {
                    Given { site: "guest", user: User::Root, .. } => Applied::Command,
                    Given { site: "guest", .. } => Applied::Not("the cgroup is root's"),
                    _ => Applied::Not("which cgroups there are depends on the machine"),
                },
            })
        },
        ..PLACE
    },
    Place {
        name: "three processes are allowed (`ulimit -u 3`)",
        before: || limit_processes(Some(3)),
        expected: |given| match given.user {
            User::Root => Expected::Works,
            User::Ordinary => Expected::Refused(Refusal {
                step: "",
                error: "EAGAIN (Try again)",
                cause: "this user has as many processes and threads as it may have",
                remedy: "ulimit -u unlimited (or raise `nproc` in /etc/security/limits.conf)",
                applied: Applied::Command,
            }),
        },
        ..PLACE
    },
    Place {
        name: "a chroot",
        before: || {
            chroot(&*tree("tree")).and_then(|()| chdir("/")).expect("chroot");
        },
        expected: |_| {
            Expected::Refused(Refusal {
                step: CLONE,
                error: EPERM,
                cause: "the tests run in a chroot, where the kernel lets nobody make a user namespace",
                remedy: "enter the tree with pivot_root, as `bwrap --dev-bind TREE /` or `systemd-nspawn -D TREE` do",
                applied: Applied::As("the same tree, entered with pivot_root"),
            })
        },
        ..PLACE
    },
    Place {
        name: "the same tree, entered with pivot_root",
        before: || {
            let tree = tree("tree");
            bind(&tree, &tree);
            enter(&tree);
        },
        ..PLACE
    },
    Place {
        name: "root without CAP_SETFCAP",
        users: &[User::Root],
        before: || drop_rights(CAP_SETFCAP..=CAP_SETFCAP),
        expected: rights_are_missing,
        ..PLACE
    },
    Place {
        name: "root without any rights",
        users: &[User::Root],
        before: || drop_rights(0..=63),
        expected: rights_are_missing,
        ..PLACE
    },
    Place { name: "a sandbox of belljar's", test: "sandbox_in_a_sandbox", ..PLACE },
    Place {
        name: "the root is an initramfs",
        sites: &["initramfs"],
        expected: |given| match given.linux {
            // Since then, it is mounted on another one.
            (7.., _) => Expected::Works,
            _ => Expected::Refused(Refusal {
                step: "make the new root the root",
                error: "EINVAL (Invalid argument)",
                cause: "the root is the kernel's first, that of an initramfs, which nothing can take the place of",
                remedy: "switch to another root before the tests run: copy the system to a tmpfs, and exec switch_root TMPFS /init",
                applied: Applied::As(PLAIN),
            }),
        },
        ..PLACE
    },
    // The last in a guest, whose own setting it is.
    Place {
        name: "`kernel.unprivileged_userns_clone` is 0",
        sites: &["guest"],
        before: || write("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        expected: |given| match given.user {
            User::Root => Expected::Works,
            User::Ordinary => Expected::Refused(Refusal {
                step: CLONE,
                error: EPERM,
                cause: "user namespaces are for root only, as Debian and Arch once had it",
                remedy: "sudo sysctl -w kernel.unprivileged_userns_clone=1",
                applied: Applied::Command,
            }),
        },
        ..PLACE
    },
    Place {
        name: "bubblewrap (`--unshare-all`, and its own `/proc`)",
        sites: &["engines"],
        program: &[
            "bwrap",
            "--unshare-all",
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "--tmpfs",
            "/tmp",
            CELL,
        ],
        expected: |given| match given.user {
            User::Ordinary => Expected::Works,
            // What root could write to is covered.
            User::Root => Expected::Refused(Refusal {
                step: MOUNT,
                error: EPERM,
                cause: MASKED,
                remedy: "sudo umount /proc/bus /proc/irq; in a container, --security-opt systempaths=unconfined (docker run) or \
                         unmask=ALL (podman run)",
                applied: Applied::Not("root has no rights there"),
            }),
        },
        ..PLACE
    },
    Place {
        name: "bubblewrap (`--dev-bind / /`)",
        sites: &["engines"],
        program: &["bwrap", "--dev-bind", "/", "/", CELL],
        ..PLACE
    },
    Place {
        name: "Docker",
        sites: &["engines"],
        program: docker!(),
        expected: |_| {
            in_engine(
                CLONE,
                FILTERED,
                "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined",
            )
        },
        ..PLACE
    },
    Place {
        name: "Docker, `--security-opt seccomp=unconfined`",
        sites: &["engines"],
        program: docker!("--security-opt", "seccomp=unconfined"),
        expected: |_| in_engine(MOUNT, MASKED, "docker run --security-opt systempaths=unconfined"),
        ..PLACE
    },
    Place {
        name: "Docker, `--security-opt` `seccomp=unconfined`, `apparmor=unconfined` and `systempaths=unconfined`",
        sites: &["engines"],
        program: docker!(
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt",
            "apparmor=unconfined",
            "--security-opt",
            "systempaths=unconfined"
        ),
        ..PLACE
    },
    Place {
        name: "Docker, `--cap-add SYS_ADMIN`",
        sites: &["engines"],
        program: docker!("--cap-add", "SYS_ADMIN"),
        expected: |_| {
            in_engine(
                MOUNT,
                MASKED,
                "docker run --security-opt systempaths=unconfined --security-opt seccomp=unconfined",
            )
        },
        ..PLACE
    },
    Place {
        name: "Docker, `--cap-drop ALL`",
        sites: &["engines"],
        program: docker!("--cap-drop", "ALL"),
        expected: |given| {
            let remedy = match given.user {
                User::Root => {
                    "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined --cap-add SETFCAP"
                }
                User::Ordinary => "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined",
            };
            in_engine(CLONE, FILTERED, remedy)
        },
        ..PLACE
    },
    Place {
        name: "Docker, `--privileged`",
        sites: &["engines"],
        program: docker!("--privileged"),
        expected: |given| match given.user {
            User::Root if !has_right(CAP_SYS_RESOURCE) => {
                Expected::NotTried("root lacks CAP_SYS_RESOURCE on this machine, and can't give it to a container")
            }
            _ => Expected::Works,
        },
        ..PLACE
    },
    Place {
        name: "Podman, of an ordinary user",
        sites: &["engines"],
        users: &[User::Ordinary],
        before: prepare_podman,
        program: podman!(),
        expected: |_| {
            in_engine(HOSTNAME, FILTERED, "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL")
        },
        ..PLACE
    },
    Place {
        name: "Podman, of an ordinary user, `--security-opt unmask=ALL`",
        sites: &["engines"],
        users: &[User::Ordinary],
        before: prepare_podman,
        program: podman!("--security-opt", "unmask=ALL"),
        expected: |_| in_engine(HOSTNAME, FILTERED, "podman run --security-opt seccomp=unconfined"),
        ..PLACE
    },
    Place {
        name: "Podman, of an ordinary user, `--privileged`",
        sites: &["engines"],
        users: &[User::Ordinary],
        before: prepare_podman,
        program: podman!("--privileged"),
        ..PLACE
    },
];

const HOSTNAME: &str = "set the host name";
const MOUNT: &str = "mount a file system in the sandbox: /";

/// The test binary, by the name that `lab/restricted.apparmor` is for.
const CONFINED: &str = "/mnt/room/confined";

// ---- What is expected ----

fn in_engine(step: &'static str, cause: &'static str, remedy: &'static str) -> Expected {
    Expected::Refused(Refusal { step, error: EPERM, cause, remedy, applied: Applied::Flags })
}

fn limit_is_kept(given: &Given) -> Expected {
    match given {
        Given { site: "guest", user: User::Root, .. } => Expected::Works,
        Given { site: "guest", .. } => Expected::Refused(Refusal {
            step: LIMITS,
            error: "EACCES (Permission denied)",
            cause: "this user may not make cgroups where the tests run, or other processes use that cgroup too",
            remedy: "systemd-run --user --scope -p Delegate=yes -- cargo test (as root, without --user), or Delegate=yes in the unit \
                     of the service that runs them, or give belljar the feature `systemd`, which asks for such a scope",
            applied: Applied::Not("`lab/session` shows it"),
        }),
        _ => Expected::NotTried("which cgroups there are depends on the machine"),
    }
}

fn proc_is_missing(_: &Given) -> Expected {
    Expected::Refused(Refusal {
        step: "map the ids of the user namespace: /proc/self/setgroups",
        error: ENOENT,
        cause: "there is no /proc",
        remedy: "sudo mount -t proc proc /proc",
        applied: Applied::Command,
    })
}

fn rights_are_missing(_: &Given) -> Expected {
    Expected::Refused(Refusal {
        step: "map the ids of the user namespace: /proc/self/uid_map",
        error: EPERM,
        cause: NO_RIGHTS,
        remedy: "keep that capability, or run the tests as an ordinary user",
        applied: Applied::As(PLAIN),
    })
}

// ---- What places are made with ----

const NONE: Option<&CStr> = None;

// See capabilities(7).
const CAP_SYS_RESOURCE: u32 = 24;
const CAP_SETFCAP: u32 = 31;

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

fn write(path: &str, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn bind(from: &str, to: &str) {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, NONE, flags, NONE).unwrap_or_else(|error| panic!("{from}, {to}: {error}"));
}

/// Allows so many processes, or as many as can be.
fn limit_processes(count: Option<rlim_t>) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NPROC, count.unwrap_or(hard), hard).expect("setrlimit");
}

/// Lays an empty tmpfs over a directory.
fn cover(path: &str, flags: MsFlags) {
    let tmpfs = Some(c"tmpfs");
    mount(tmpfs, path, tmpfs, flags, Some(c"mode=1777")).unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn unmount(path: &str) {
    umount2(path, MntFlags::MNT_DETACH).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Makes one mount read-only for those who see it here.
fn make_read_only(path: &str) {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(NONE, path, NONE, flags, NONE).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Where cgroups are mounted, in order.
fn cgroups() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("the mount table");
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|fields| fields[2].starts_with("cgroup")).map(|fields| fields[1].to_owned()).collect()
}

/// Makes a directory by this name with all directories of the root, which is not a mount itself.
fn tree(name: &str) -> String {
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
fn enter(tree: &str) {
    chdir(tree).and_then(|()| pivot_root(".", ".")).expect("pivot_root");
    umount2(".", MntFlags::MNT_DETACH).and_then(|()| chdir("/")).expect("umount");
}

/// From now on, these system calls fail.
fn filter(json: &[u8]) {
    let arch = std::env::consts::ARCH.try_into().expect("an architecture");
    let filters = seccompiler::compile_from_json(json, arch).expect("filters");
    filters.values().for_each(|filter| seccompiler::apply_filter(filter).expect("seccomp"));
}

/// Files that make a user namespace have this one's users and groups, with the same numbers.
fn all_ids() -> Vec<(&'static str, String)> {
    let map = |name: &'static str| {
        let map = fs::read_to_string(format!("/proc/self/{name}")).expect("a map");
        let fields = map.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        (name, fields.map(|fields| format!("{first} {first} {}\n", fields[2], first = fields[0])).collect())
    };
    ["uid_map", "gid_map"].map(map).into()
}

/// The same, with nobody but this process's own user, as root.
fn one_id() -> Vec<(&'static str, String)> {
    let map = |id: u32| format!("0 {id} 1");
    vec![("setgroups", "deny".to_owned()), ("uid_map", map(geteuid().as_raw())), ("gid_map", map(getegid().as_raw()))]
}

/// Enters a new user namespace. Its files are written by a process outside, as that may take rights there.
fn nest(files: &[(&str, String)]) {
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
fn drop_rights(rights: std::ops::RangeInclusive<u32>) {
    for right in rights {
        #[expect(unsafe_code, reason = "nix has no call for it")]
        // SAFETY: it takes integers, and fails if there is no such right.
        let _ = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(right), 0, 0, 0) };
    }
}

/// Whether root may have a right on this machine.
fn has_right(right: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("the status");
    let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("the bounding set");
    u64::from_str_radix(bounds.trim(), 16).expect("a set") & (1 << right) != 0
}

/// Gives the ordinary user a name, a home, subordinate ids, and the system of a container.
fn prepare_podman() {
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
