//! Why hosts refuse: the cause, what of it is to be seen, and what to do about it where the tests run.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::environment::{Barrier, Place, Surroundings};
use crate::sys::probe::Answer;
use crate::text::{error, plain};

const DELEGATE: &str = "systemd-run --user --scope -p Delegate=yes -- cargo test (as root, without --user), or give belljar the \
                        feature `systemd`, which does that";

/// Where subordinate ids begin, by custom; see login.defs(5).
const FIRST_SUBORDINATE: u32 = 100_000;

/// How many paths a cause lists.
const LISTED: usize = 3;

/// Why a host refuses, how that shows, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) why: Cow<'static, str>,
    pub(crate) seen: Cow<'static, str>,
    pub(crate) remedy: Cow<'static, str>,
}

impl Display for Cause {
    /// On one line, without how it shows.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "the cause: {}; the remedy: {}", self.why, self.remedy)
    }
}

impl Cause {
    fn new(
        why: impl Into<Cow<'static, str>>,
        seen: impl Into<Cow<'static, str>>,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { why: why.into(), seen: seen.into(), remedy: remedy.into() }
    }

    pub(crate) fn unknown(around: &Surroundings) -> Self {
        let Surroundings { place, kernel, uid, seccomp, barriers, .. } = around;
        let seccomp = seccomp.as_ref().map_or(String::new(), |mode| format!(", Seccomp: {mode} in /proc/self/status"));
        let barriers: Vec<_> = barriers.iter().map(|barrier| format!(", {}", seen(barrier))).collect();
        Self::new(
            "unknown",
            format!("Linux {kernel}, {}, user {uid}{seccomp}{}", name_of(*place), barriers.concat()),
            "none known; the step and the error above are what the host said",
        )
    }

    // ---- What containers put around processes ----

    /// `barrier` is one of those that there are; where tests run in a container, the remedy is for all of them.
    pub(crate) fn barrier(barrier: &Barrier, around: &Surroundings) -> Self {
        let why = match barrier {
            Barrier::Filter(_) => "a seccomp filter refuses this call, as those of containers do".into(),
            Barrier::Profile(name) => format!("the AppArmor profile {} forbids this", plain(name)),
            Barrier::Label(_) => "SELinux forbids this to containers".into(),
            Barrier::Mask(_) => {
                "parts of /proc or /sys are masked, as in a container, and then the kernel refuses a new one".into()
            }
        };
        Self::new(why, seen(barrier), way_past(barrier, around))
    }

    /// `profile` is how AppArmor calls this process.
    pub(crate) fn apparmor_restricts(profile: &str, around: &Surroundings) -> Self {
        let setting = "kernel.apparmor_restrict_unprivileged_userns";
        Self::new(
            "AppArmor takes all rights from user namespaces that ordinary users make, as Ubuntu does since 24.04",
            format!("{setting} is 1, and this process is `{}` in /proc/self/attr/current", plain(profile)),
            sysctl(around, &format!("{setting}=0")),
        )
    }

    // ---- Namespaces ----

    pub(crate) fn for_root_only(around: &Surroundings) -> Self {
        let setting = "kernel.unprivileged_userns_clone";
        let why = "user namespaces are for root only, as Debian and Arch once had it";
        Self::new(why, format!("{setting} is 0"), sysctl(around, &format!("{setting}=1")))
    }

    /// `setting` is the name of the one that limits the number of namespaces, `limit` its value, if that can be known.
    pub(crate) fn too_many_namespaces(setting: &str, limit: Option<u64>, around: &Surroundings) -> Self {
        let seen = limit.map_or_else(|| format!("{setting} can't be read"), |limit| format!("{setting} is {limit}"));
        match limit {
            // What user namespaces begin with: it is not this one that limits.
            Some(limit) if limit >= i32::MAX as u64 => Self::new(
                "a user namespace around this one has as many namespaces of this kind as it may have, or 32 lie in each other already",
                seen,
                format!(
                    "run the tests in fewer user namespaces, or, outside of them all, sudo sysctl -w {setting}=100000"
                ),
            ),
            Some(0) => {
                Self::new("no namespaces of this kind are allowed", seen, sysctl(around, &format!("{setting}=10000")))
            }
            _ => Self::new(
                "there are as many namespaces of this kind as are allowed",
                seen,
                sysctl(around, &format!("{setting}={}", limit.unwrap_or_default().max(5000) * 2)),
            ),
        }
    }

    pub(crate) fn no_time_namespaces() -> Self {
        Self::new(
            "this kernel has no time namespaces",
            "there is no /proc/self/ns/time",
            "a kernel with CONFIG_TIME_NS, as distributions have it",
        )
    }

    /// `seen` is how that shows.
    pub(crate) fn chroot(seen: &'static str) -> Self {
        Self::new(
            "the tests run in a chroot, where the kernel lets nobody make a user namespace",
            seen,
            "enter the tree with pivot_root, as `bwrap --dev-bind TREE /` or `systemd-nspawn -D TREE` do",
        )
    }

    pub(crate) fn user_is_unmapped(map: &str) -> Self {
        Self::new(
            "the user or the group that the tests run as has no number in this user namespace",
            format!("/proc/self/uid_map or gid_map lacks it: {}", listed_ids(map)),
            "run them as one that has, such as its root: unshare --map-root-user, or docker run --user 0",
        )
    }

    pub(crate) fn may_not_map_root(around: &Surroundings) -> Self {
        Self::new(
            "root lacks CAP_SETFCAP here, without which the kernel lets nobody map root (since Linux 5.12)",
            "CapEff in /proc/self/status lacks the bit 31, and the user is 0",
            match around.place {
                Place::Docker => "docker run --cap-add SETFCAP, or run the tests as an ordinary user (--user 1000)",
                Place::Podman => "podman run --cap-add SETFCAP, or run the tests as an ordinary user (--user 1000)",
                Place::Kubernetes => {
                    "in the container's securityContext: capabilities: {add: [SETFCAP]}, or runAsUser: 1000"
                }
                Place::Host | Place::Lxc | Place::Wsl => "keep that capability, or run the tests as an ordinary user",
            },
        )
    }

    pub(crate) fn not_real_root(uid: u32, map: &str) -> Self {
        Self::new(
            "`user = \"host\"` stands for the machine's own root, and the tests run as an ordinary user or in a user namespace",
            format!("the user is {uid}, and /proc/self/uid_map is {}", listed_ids(map)),
            "sudo -E cargo test, or leave `user` out: most of what root does can be done without",
        )
    }

    // ---- Ids ----

    pub(crate) fn ids_are_missing(count: u32, map: &str) -> Self {
        Self::new(
            format!("root here has less than {count} ids itself, as in a container or a sandbox"),
            format!("/proc/self/uid_map is {}", listed_ids(map)),
            "run the tests where root has them all, or give the sandbox around them as many (`uids`)",
        )
    }

    pub(crate) fn no_subordinate_ids(user: &str, table: &str, present: u32, wanted: u32) -> Self {
        Self::new(
            format!("{wanted} subordinate ids are needed, and the user {user} has fewer"),
            format!("{table} gives {present} to {user}"),
            match FIRST_SUBORDINATE.checked_add(wanted - 1).filter(|last| *last < u32::MAX) {
                Some(last) => format!(
                    "sudo usermod --add-subuids {FIRST_SUBORDINATE}-{last} --add-subgids {FIRST_SUBORDINATE}-{last} {user}"
                ),
                None => "lower `uids`: there are not so many ids beside those of the host".to_owned(),
            },
        )
    }

    pub(crate) fn mapper_gone() -> Self {
        Self::new(
            "the process that maps the ids was killed",
            "it has ended, and has said nothing",
            "run the tests again. If it was not you, look for the out-of-memory killer in the kernel's log (`dmesg`)",
        )
    }

    pub(crate) fn no_program(program: &str) -> Self {
        Self::new(
            format!("the program {program} is not installed"),
            format!("{program} is in no directory that PATH names"),
            "sudo apt-get install uidmap",
        )
    }

    pub(crate) fn program_refuses(program: &str, said: &str) -> Self {
        Self::new(
            format!("{program} refuses"),
            format!("it says: {}", plain(said)),
            "give this user as many subordinate ids in /etc/subuid and /etc/subgid",
        )
    }

    // ---- Files ----

    /// `errno` is what the kernel says of the path, if that is it.
    pub(crate) fn no_directory(errno: Option<Errno>) -> Self {
        let seen =
            errno.map_or_else(|| "it is no directory".to_owned(), |errno| format!("stat(2) says {}", error(errno)));
        Self::new(
            "there is no such directory, or this user can't see it",
            seen,
            "name one that is there: root = \"/dir\"",
        )
    }

    pub(crate) fn no_path(errno: Errno) -> Self {
        Self::new(
            "there is no such path on the host, or this user can't see it",
            format!("stat(2) says {}", error(errno)),
            "name one that is there: bind = [\"/path\"]",
        )
    }

    /// There is no place for what is to be shown. It would lie in a directory of the host's.
    pub(crate) fn no_place(path: &Path) -> Self {
        Self::new(
            "the place for what is to be shown does not exist, and none can be made in a directory of the host's",
            format!("{} is missing in a directory that is shown", plain(path.display())),
            "name another place: bind = [\"/path:/mnt/path\"]",
        )
    }

    /// `directory` lets nobody in whom its mode keeps out. `is_root`: real root runs the tests.
    pub(crate) fn closed(directory: &Path, mode: u32, owner: &str, is_root: bool) -> Self {
        let directory = plain(directory.display());
        Self::new(
            format!("root of the sandbox may not enter the directory {directory}, which belongs to {owner}"),
            format!("the mode of {directory} is {mode:03o}"),
            if is_root {
                format!(
                    "run the tests as {owner}, or write uids = 65536: root has power over the users that a sandbox has"
                )
            } else {
                format!("run the tests as {owner} or as root, or open the directory: chmod o+x {directory}")
            },
        )
    }

    pub(crate) fn no_device(device: &str) -> Self {
        Self::new(
            "the host lacks a device that every program may count on",
            format!("{device} can't be opened, or is not there"),
            "sudo mount -t devtmpfs dev /dev, or bind the machine's /dev there",
        )
    }

    pub(crate) fn no_overlay() -> Self {
        Self::new(
            "this kernel has no overlayfs, or has not loaded it",
            "/proc/filesystems does not list overlay",
            "sudo modprobe overlay",
        )
    }

    pub(crate) fn no_overlay_for_users(kernel: &str) -> Self {
        Self::new(
            "this kernel lets nobody mount overlayfs in a user namespace",
            format!("it is Linux {kernel}"),
            "Linux 5.11 or later",
        )
    }

    /// `kind` is the type of the file system.
    pub(crate) fn can_not_be_copied(kind: &str) -> Self {
        Self::new(
            "overlayfs can't be laid over this file system: it may lie on two others already, as in a sandbox in a container, or tell \
             no upper from lower case",
            format!("the directory is on {}", if kind.is_empty() { "an unknown file system" } else { kind }),
            "name a directory on another file system: root = \"/dir\"",
        )
    }

    pub(crate) fn root_of_initramfs() -> Self {
        Self::new(
            "the root is the kernel's first, that of an initramfs, which nothing can take the place of",
            "/proc/self/mountinfo has a rootfs at /",
            "switch to another root before the tests run: copy the system to a tmpfs, and exec switch_root TMPFS /init",
        )
    }

    pub(crate) fn no_proc() -> Self {
        Self::new("there is no /proc", "there is no /proc/self/status", "sudo mount -t proc proc /proc")
    }

    pub(crate) fn read_only_proc() -> Self {
        Self::new(
            "/proc is mounted read-only",
            "/proc/self/mountinfo has it as ro",
            "sudo mount -o remount,rw /proc, or, in a container, let it have a /proc of its own that is writable",
        )
    }

    pub(crate) fn no_sysfs() -> Self {
        Self::new(
            "there is no sysfs: the kernel makes another only where there is one",
            "/proc/self/mountinfo has none",
            "sudo mount -t sysfs sysfs /sys",
        )
    }

    // ---- Limits on what there may be ----

    pub(crate) fn too_many_descriptors(limit: u64) -> Self {
        Self::new(
            "a process may not have so many files open",
            format!("RLIMIT_NOFILE is {limit}"),
            "raise the limit on open files (`ulimit -n`), or run fewer tests at once (`--test-threads`)",
        )
    }

    pub(crate) fn file_too_large(limit: u64) -> Self {
        Self::new("files may not become so large", format!("RLIMIT_FSIZE is {limit}"), "ulimit -f unlimited")
    }

    /// `name` is the limit's, and `command` sets it.
    pub(crate) fn too_little_memory(name: &str, limit: u64, command: &str) -> Self {
        Self::new(
            "a process may not have so much memory",
            format!("{name} is {limit}"),
            format!("{command} unlimited, or run fewer tests at once (`--test-threads`)"),
        )
    }

    pub(crate) fn small_stack(limit: u64) -> Self {
        Self::new("a process may not have so large a stack", format!("RLIMIT_STACK is {limit}"), "ulimit -s 8192")
    }

    /// `file` has the limit of a cgroup, in which `kills` processes were killed so far.
    pub(crate) fn memory_used_up(file: &Path, limit: u64, kills: u64, around: &Surroundings) -> Self {
        Self::new(
            "the cgroup that the tests run in has used up its memory, so that the kernel has killed some of its processes",
            format!("{} is {limit}, and oom_kill was {kills}", file.display()),
            match around.place {
                Place::Docker => "docker run --memory 4g, or run fewer tests at once (`--test-threads`)",
                Place::Podman => "podman run --memory 4g, or run fewer tests at once (`--test-threads`)",
                Place::Kubernetes => {
                    "raise limits.memory of the container, or run fewer tests at once (`--test-threads`)"
                }
                Place::Host | Place::Lxc | Place::Wsl => {
                    "raise it (systemd: systemctl set-property UNIT MemoryMax=4G), or run fewer tests at once (`--test-threads`)"
                }
            },
        )
    }

    /// `count` is how many this user has now.
    pub(crate) fn too_many_processes(limit: u64, count: u64) -> Self {
        Self::new(
            "this user has as many processes and threads as it may have",
            format!("RLIMIT_NPROC is {limit}, and /proc shows {count} processes and threads of this user now"),
            "ulimit -u unlimited (or raise `nproc` in /etc/security/limits.conf)",
        )
    }

    /// `file` is the cgroup's pids.max.
    pub(crate) fn too_many_in_cgroup(file: &Path, limit: u64, count: u64, around: &Surroundings) -> Self {
        Self::new(
            "the cgroup that the tests run in has as many processes and threads as it may have",
            format!("{} is {limit}, and pids.current was {count}", file.display()),
            match around.place {
                Place::Docker => "docker run --pids-limit -1",
                Place::Podman => "podman run --pids-limit -1",
                Place::Kubernetes => "raise podPidsLimit of the kubelet, or run fewer tests at once (`--test-threads`)",
                Place::Host | Place::Lxc | Place::Wsl => {
                    "raise it (systemd: systemctl set-property UNIT TasksMax=infinity), or run fewer tests at once (`--test-threads`)"
                }
            },
        )
    }

    /// `stack` is what RUST_MIN_STACK asks for.
    pub(crate) fn has_threads() -> Self {
        Self::new(
            "the test's process has a second thread before its body begins, as ThreadSanitizer's have, and enters no user namespace",
            "EINVAL, which unshare(2) has for such processes",
            "write uids = 65536 beside user: users that are there already take no namespace of their own",
        )
    }

    pub(crate) fn no_thread(stack: &str) -> Self {
        Self::new(
            "the thread is to have a larger stack than there is memory for, or there are as many threads as there may be",
            format!("RUST_MIN_STACK is {}", plain(stack)),
            "lower RUST_MIN_STACK, or raise the limit on processes and threads (`ulimit -u`)",
        )
    }

    /// `line` is this user's in /proc/key-users.
    pub(crate) fn too_many_keys(line: &str) -> Self {
        Self::new(
            "this user has as many keys as it may have (`keyctl show` lists some)",
            format!("/proc/key-users has `{}`", plain(line)),
            "sudo sysctl -w kernel.keys.maxkeys=2000 kernel.keys.maxbytes=200000",
        )
    }

    // ---- Cgroups ----

    pub(crate) fn bad_choice(chosen: &str) -> Self {
        Self::new(
            "BELLJAR_CGROUP names no cgroup that can be seen here, or one without this controller",
            format!("BELLJAR_CGROUP is `{}`", plain(chosen)),
            "set it to the path of one, as /proc/self/cgroup writes them, or to nothing",
        )
    }

    pub(crate) fn choice_of_others(chosen: &str) -> Self {
        Self::new(
            "BELLJAR_CGROUP names a cgroup that others use",
            format!("BELLJAR_CGROUP is `{}`", plain(chosen)),
            "set it to one with no processes in it, or to nothing",
        )
    }

    /// `seen` is how that shows.
    pub(crate) fn cgroup_of_others(seen: String) -> Self {
        Self::new("this user may not make cgroups where the tests run, or not by themselves", seen, DELEGATE)
    }

    pub(crate) fn cgroups_v1(uid: u32) -> Self {
        Self::new(
            "cgroups are of version 1 here, which are for root only",
            format!("there is no /sys/fs/cgroup/cgroup.controllers, and the user is {uid}"),
            "run the tests as root, or boot with systemd.unified_cgroup_hierarchy=1",
        )
    }

    pub(crate) fn read_only_cgroups(around: &Surroundings) -> Self {
        Self::new(
            "the cgroups are mounted read-only, as in a container",
            "/proc/self/mountinfo has them as ro",
            match around.place {
                Place::Podman => "podman run --security-opt unmask=/sys/fs/cgroup",
                Place::Kubernetes => {
                    "containerd 2.1 or later with `cgroup_writable = true` for the runtime, or in the container's securityContext: \
                     privileged: true"
                }
                Place::Docker => "docker run --security-opt writable-cgroups=true",
                Place::Host | Place::Lxc | Place::Wsl => {
                    "sudo mount -o remount,rw /sys/fs/cgroup, or, for a container, docker run --security-opt writable-cgroups=true"
                }
            },
        )
    }

    pub(crate) fn no_cgroups() -> Self {
        Self::new(
            "no cgroups are mounted",
            "/proc/self/mountinfo has no cgroup or cgroup2",
            "sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        )
    }

    pub(crate) fn no_controllers_in_wsl() -> Self {
        Self::new(
            "WSL gives the controllers to cgroups of version 1",
            "/proc/version tells of Microsoft, and no cgroup of version 2 has the controller",
            "in %UserProfile%\\.wslconfig, below [wsl2]: kernelCommandLine=cgroup_no_v1=all; then wsl --shutdown",
        )
    }

    pub(crate) fn swap_is_not_counted() -> Self {
        Self::new(
            "this kernel has swap and does not count it, so that a limit on memory would be got round",
            "the cgroup lacks that file, and /proc/swaps lists some",
            "boot with swapaccount=1, or turn swap off (sudo swapoff --all)",
        )
    }

    // ---- Devices ----

    pub(crate) fn device_is_closed(path: &str, mode: u32, owner: &str, group: &str) -> Self {
        Self::new(
            "this user may not open the device",
            format!("it belongs to {owner}:{group}, with the mode {mode:04o}"),
            format!("sudo chmod 0666 {path}, or a rule of udev that says so for good"),
        )
    }

    pub(crate) fn device_is_forbidden(path: &str, around: &Surroundings) -> Self {
        Self::new(
            "the devices that a container, or a unit of systemd's, may open are listed, and this one is not among them",
            "the device is there, and open(2) says EPERM",
            match around.place {
                Place::Docker => format!("docker run --device {path}"),
                Place::Podman => format!("podman run --device {path}"),
                Place::Host | Place::Kubernetes | Place::Lxc | Place::Wsl => {
                    format!("allow it where the tests run (systemd: -p DeviceAllow={path})")
                }
            },
        )
    }

    pub(crate) fn device_is_missing(path: &str, errno: Errno, around: &Surroundings) -> Self {
        let module = path.rsplit('/').next().unwrap_or(path);
        Self::new(
            "there is no such device, or the kernel has nothing to serve it with",
            format!("open(2) says {}", error(errno)),
            match around.place {
                Place::Docker => format!("docker run --device {path}"),
                Place::Podman => format!("podman run --device {path}"),
                Place::Host | Place::Kubernetes | Place::Lxc | Place::Wsl => format!("sudo modprobe {module}"),
            },
        )
    }
}

fn name_of(place: Place) -> &'static str {
    match place {
        Place::Host => "no container that gives itself away",
        Place::Docker => "in Docker",
        Place::Podman => "in Podman",
        Place::Kubernetes => "in Kubernetes",
        Place::Lxc => "in LXC",
        Place::Wsl => "in WSL",
    }
}

/// How a barrier shows.
fn seen(barrier: &Barrier) -> String {
    match barrier {
        Barrier::Filter(None) => {
            "Seccomp: 2 in /proc/self/status, and the kernel itself lets root of a namespace do this".to_owned()
        }
        Barrier::Filter(Some(Answer { call, errno, expected })) => format!(
            "Seccomp: 2 in /proc/self/status, and {call} is refused with {errno:?}, where the kernel itself says {expected:?}"
        ),
        Barrier::Profile(name) => format!("/proc/self/attr/current is `{} (enforce)`", plain(name)),
        Barrier::Label(context) => format!("/proc/self/attr/current is `{}`", plain(context)),
        Barrier::Mask(points) => format!("/proc/self/mountinfo has {}", listed(points)),
    }
}

fn listed(points: &[PathBuf]) -> String {
    let listed: Vec<_> = points.iter().take(LISTED).map(|point| plain(point.display())).collect();
    match points.len().saturating_sub(LISTED) {
        0 => listed.join(" "),
        more => format!("{} and {more} more", listed.join(" ")),
    }
}

/// A map of ids on one line.
fn listed_ids(map: &str) -> String {
    let lines: Vec<_> = map.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    if lines.is_empty() { "empty".to_owned() } else { format!("`{}`", lines.join(", ")) }
}

/// Settings belong to the machine, and a container can't change them.
fn sysctl(around: &Surroundings, assignment: &str) -> String {
    let place = match around.place {
        Place::Host | Place::Wsl => "",
        Place::Docker | Place::Podman | Place::Kubernetes | Place::Lxc => "on the machine that the container runs on: ",
    };
    format!("{place}sudo sysctl -w {assignment}")
}

/// What to do about `barrier`, and about the others that stand behind it: a filter may be one that has not shown yet.
fn way_past(barrier: &Barrier, around: &Surroundings) -> String {
    let hidden = around.has_filter().then_some(&Barrier::Filter(None));
    let is_known = |filter: &&Barrier| around.barriers.iter().any(|other| is_same(filter, other));
    let others = around.barriers.iter().chain(hidden.filter(|filter| !is_known(filter)));
    let barriers = || [barrier].into_iter().chain(others.clone().filter(|other| !is_same(barrier, other)));
    let all = |part: fn(&Barrier) -> &'static str, between| barriers().map(part).collect::<Vec<_>>().join(between);
    let right = if around.may_not_map_root { " --cap-add SETFCAP" } else { "" };
    match around.place {
        Place::Docker => format!("docker run {}{right}", all(for_docker, " ")),
        Place::Podman => format!("podman run {}{right}", all(for_podman, " ")),
        Place::Kubernetes => {
            let of_pod = if barriers().any(|barrier| matches!(barrier, Barrier::Mask(_))) {
                "in the pod's spec: hostUsers: false; "
            } else {
                ""
            };
            let right = if around.may_not_map_root { "; capabilities: {add: [SETFCAP]}" } else { "" };
            format!("{of_pod}in the container's securityContext: {}{right}", all(for_kubernetes, "; "))
        }
        Place::Lxc => "lxc config set CONTAINER security.nesting=true (or incus config set), and restart it".to_owned(),
        Place::Host | Place::Wsl => on_host(barrier),
    }
}

fn is_same(one: &Barrier, other: &Barrier) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

fn for_docker(barrier: &Barrier) -> &'static str {
    match barrier {
        Barrier::Filter(_) => "--security-opt seccomp=unconfined",
        Barrier::Profile(_) => "--security-opt apparmor=unconfined",
        Barrier::Label(_) => "--security-opt label=disable",
        Barrier::Mask(_) => "--security-opt systempaths=unconfined",
    }
}

fn for_podman(barrier: &Barrier) -> &'static str {
    match barrier {
        Barrier::Filter(_) => "--security-opt seccomp=unconfined",
        Barrier::Profile(_) => "--security-opt apparmor=unconfined",
        Barrier::Label(_) => "--security-opt label=type:spc_t",
        Barrier::Mask(_) => "--security-opt unmask=ALL",
    }
}

fn for_kubernetes(barrier: &Barrier) -> &'static str {
    match barrier {
        Barrier::Filter(_) => "seccompProfile: {type: Unconfined}",
        Barrier::Profile(_) => "appArmorProfile: {type: Unconfined}",
        Barrier::Label(_) => "seLinuxOptions: {type: spc_t}",
        Barrier::Mask(_) => "procMount: Unmasked",
    }
}

fn on_host(barrier: &Barrier) -> String {
    match barrier {
        Barrier::Filter(_) => {
            "run the tests without that filter: in a container, --security-opt seccomp=unconfined (docker run, podman \
                               run); in a unit of systemd's, without SystemCallFilter and RestrictNamespaces"
                .to_owned()
        }
        Barrier::Profile(name) => format!(
            "add `userns,`, `mount,`, `umount,` and `pivot_root,` to the profile {} in /etc/apparmor.d, or run the tests outside it",
            plain(name)
        ),
        Barrier::Label(_) => {
            "run the tests as unconfined_t (runcon -t unconfined_t cargo test), or see with `ausearch -m avc` which \
                              rule they need"
                .to_owned()
        }
        Barrier::Mask(points) => format!(
            "sudo umount {}; in a container, --security-opt systempaths=unconfined (docker run) or unmask=ALL (podman run)",
            points.iter().map(|point| plain(point.display())).collect::<Vec<_>>().join(" ")
        ),
    }
}
