//! Causes that lie in cgroups and in devices.

use std::path::Path;

use nix::errno::Errno;

use super::Cause;
use crate::collect::CollectVec as _;
use crate::diagnosis::host_state::{HostState, Platform};
use crate::text::{error, plain};

const DELEGATE: &str = "systemd-run --user --scope -p Delegate=yes -- cargo test (as root, without --user), or Delegate=yes in the unit \
                        of the service that runs them, or give belljar the feature `systemd`, which asks for such a scope";

impl Cause {
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
        Self::new(
            "this user may not make cgroups where the tests run, or other processes use that cgroup too",
            seen,
            DELEGATE,
        )
    }

    /// `kind` is the type of this cgroup, as it names it itself, and `on` are the controllers that it gives to those below.
    pub(crate) fn threaded_cgroup(directory: &Path, kind: &str, on: &str) -> Self {
        let directory = plain(directory.display());
        let off = on.split_ascii_whitespace().map(|controller| format!("-{controller}")).collect_vec().join(" ");
        Self::new(
            "the cgroup that the tests run in is threaded: it has processes, and gives controllers to the cgroups below it. There, the \
             kernel limits threads only",
            format!("cgroup.type of {directory} is {}", plain(kind)),
            format!("echo '{off}' | sudo tee {directory}/cgroup.subtree_control, or run the tests in another cgroup"),
        )
    }

    /// `policy` is the unit's `OOMPolicy`.
    pub(crate) fn unit_ends(unit: &str, policy: &str) -> Self {
        Self::new(
            "systemd ends the unit that the tests run in when the kernel kills a process in it because memory is used up",
            format!("the OOMPolicy of {} is {}", plain(unit), plain(policy)),
            DELEGATE,
        )
    }

    pub(crate) fn cgroups_v1(uid: u32) -> Self {
        Self::new(
            "cgroups are of version 1 here, which are for root only",
            format!("there is no /sys/fs/cgroup/cgroup.controllers, and the user is {uid}"),
            "run the tests as root, or boot with systemd.unified_cgroup_hierarchy=1",
        )
    }

    pub(crate) fn read_only_cgroups(around: &HostState) -> Self {
        Self::new(
            "the cgroups are mounted read-only, as in a container",
            "/proc/self/mountinfo has them as ro",
            match around.platform {
                Platform::Podman => "podman run --security-opt unmask=/sys/fs/cgroup",
                Platform::Kubernetes => {
                    "containerd 2.1 or later with `cgroup_writable = true` for the runtime, or in the container's securityContext: \
                     privileged: true"
                }
                Platform::Docker => "docker run --security-opt writable-cgroups=true",
                Platform::Host | Platform::Lxc | Platform::Wsl => {
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
            "this kernel does not count swap, so that a test could exceed its limit on memory by swapping",
            "the cgroup lacks that file, and /proc/swaps lists a device",
            "boot with swapaccount=1, or turn swap off (sudo swapoff --all)",
        )
    }

    pub(crate) fn device_is_closed(path: &str, mode: u32, owner: &str, group: &str) -> Self {
        Self::new(
            "this user may not open the device",
            format!("it belongs to {owner}:{group}, with the mode {mode:04o}"),
            format!("sudo chmod 0666 {path}, or a rule of udev that says so for good"),
        )
    }

    pub(crate) fn device_is_forbidden(path: &str, around: &HostState) -> Self {
        Self::new(
            "the devices that a container, or a unit of systemd's, may open are listed, and this one is not among them",
            "the device is there, and open(2) says EPERM",
            match around.platform {
                Platform::Docker => format!("docker run --device {path}"),
                Platform::Podman => format!("podman run --device {path}"),
                Platform::Host | Platform::Kubernetes | Platform::Lxc | Platform::Wsl => {
                    format!("allow it where the tests run (systemd: -p DeviceAllow={path})")
                }
            },
        )
    }

    pub(crate) fn device_is_missing(path: &str, errno: Errno, around: &HostState) -> Self {
        let module = path.rsplit('/').next().unwrap_or(path);
        Self::new(
            "there is no such device, or the kernel has nothing to serve it with",
            format!("open(2) says {}", error(errno)),
            match around.platform {
                Platform::Docker => format!("docker run --device {path}"),
                Platform::Podman => format!("podman run --device {path}"),
                Platform::Host | Platform::Kubernetes | Platform::Lxc | Platform::Wsl => {
                    format!("sudo modprobe {module}")
                }
            },
        )
    }
}
