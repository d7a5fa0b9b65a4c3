//! The places in which tests may find themselves: how each is made, and what belljar must say there.
//!
//! A place is made in the process that then becomes the test binary, and is gone with it. Nothing of the host changes.

use std::fs;

use nix::mount::MsFlags;
use nix::unistd::{chdir, chroot};

use crate::expected::{
    Applied, CLONE, ENOSPC, EPERM, Expected, FILTERED, Given, HOSTNAME, LIMITS, MASKED, MOUNT, NONE_ALLOWED, Refusal,
    User, in_engine, limit_is_kept, proc_is_missing, rights_are_missing,
};
use crate::made::{
    CAP_SETFCAP, CAP_SYS_RESOURCE, CELL, CONFINED, all_ids, bind, cgroups, cover, docker, drop_rights, enter, filter,
    has_right, limit_processes, make_read_only, nest, one_id, podman, prepare_podman, tree, unmount, write,
};

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
pub(crate) const PLAIN: &str = "nothing special";

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
