//! Causes that lie in files and in resource limits.

use std::path::Path;

use nix::errno::Errno;

use super::Cause;
use crate::diagnosis::host_state::{HostState, Platform};
use crate::text::{error, plain};

impl Cause {
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

    /// `kind` is the type of the file system.
    pub(crate) fn does_not_answer(kind: &str) -> Self {
        Self::new(
            "whoever serves the file system there does not answer: a machine that can't be reached, or a process that hangs",
            format!("within a second, nobody answered; the path, or what it leads through, is on {kind}"),
            "make it answer, or unmount it: umount --lazy",
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
            "overlayfs can't use this file system: two overlays lie below it already, as in a sandbox in a container, or it ignores \
             the case of letters",
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

    pub(crate) fn foreign_proc() -> Self {
        Self::new(
            "the /proc here is that of a pid namespace in which the tests do not run",
            "there is /proc/stat, and no /proc/self/status",
            "mount -t proc proc /proc, where the tests run",
        )
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

    /// `file` has the limit of a cgroup.
    pub(crate) fn memory_used_up(file: &Path, limit: u64, around: &HostState) -> Self {
        Self::new(
            "the cgroup that the tests run in has used up its memory, and the kernel then kills processes in it, or refuses them more",
            format!("{} is {limit}, and was reached", plain(file.display())),
            match around.platform {
                Platform::Docker => "docker run --memory 4g, or run fewer tests at once (`--test-threads`)",
                Platform::Podman => "podman run --memory 4g, or run fewer tests at once (`--test-threads`)",
                Platform::Kubernetes => {
                    "raise limits.memory of the container, or run fewer tests at once (`--test-threads`)"
                }
                Platform::Host | Platform::Lxc | Platform::Wsl => {
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
    pub(crate) fn too_many_in_cgroup(file: &Path, limit: u64, count: u64, around: &HostState) -> Self {
        Self::new(
            "the cgroup that the tests run in has as many processes and threads as it may have",
            format!("{} is {limit}, and pids.current was {count}", plain(file.display())),
            match around.platform {
                Platform::Docker => "docker run --pids-limit -1",
                Platform::Podman => "podman run --pids-limit -1",
                Platform::Kubernetes => {
                    "raise podPidsLimit of the kubelet, or run fewer tests at once (`--test-threads`)"
                }
                Platform::Host | Platform::Lxc | Platform::Wsl => {
                    "raise it (systemd: systemctl set-property UNIT TasksMax=infinity), run fewer tests at once (`--test-threads`), or write \
                     `pids = ..` on a test that starts many processes"
                }
            },
        )
    }

    pub(crate) fn has_threads() -> Self {
        Self::new(
            "the test's process has a second thread before its body begins, as with ThreadSanitizer, so that it can't enter a user namespace",
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
}
