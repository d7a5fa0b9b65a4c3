//! Finds the likely cause of a refusal: in what the host says about itself, never by guessing from the errno alone.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::cgroup::{self, Trouble};
use crate::message::Cause;
use crate::proc::mount_points;
use crate::report::Step;

/// The most likely cause of `step` failing on `path` with `errno`, if the host shows one.
pub(super) fn explain(step: Step, errno: Errno, path: &str) -> Option<Cause> {
    let refused = errno == Errno::EPERM || errno == Errno::EACCES;
    match step {
        Step::Clone if errno == Errno::ENOSPC => too_many_namespaces(&["user", "pid"]),
        Step::Namespaces if errno == Errno::ENOSPC => too_many_namespaces(&["mnt", "net", "ipc", "uts", "cgroup"]),
        Step::Clone if refused && setting("kernel/unprivileged_userns_clone") == Some(0) => {
            Some(Cause::for_root_only())
        }
        Step::Clone if (refused || errno == Errno::ENOSYS) && is_filtered() => Some(Cause::seccomp()),
        _ if refused && setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1) => {
            Some(Cause::apparmor_restricts())
        }
        Step::Clone if refused && is_chroot() => Some(Cause::chroot()),
        Step::HostIds => Some(Cause::not_real_root()),
        Step::Copy if !path.is_empty() && !Path::new(path).is_dir() => Some(Cause::no_directory()),
        Step::Bind if errno == Errno::ENOENT && !Path::new(path).exists() => Some(Cause::no_path()),
        Step::Copy if errno == Errno::ENODEV => Some(Cause::no_overlay()),
        // In the kernel's own words, which it had to be taught: it knew no other way before Linux 5.11.
        Step::Copy if errno == Errno::EPERM => Some(Cause::no_overlay_for_users()),
        Step::Copy if errno == Errno::EINVAL => Some(Cause::can_not_be_copied()),
        Step::User if errno == Errno::ENOSPC => too_many_namespaces(&["user"]),
        Step::Clocks if errno == Errno::ENOSPC => too_many_namespaces(&["time"]),
        Step::Clocks if !fs::exists("/proc/self/ns/time").unwrap_or(true) => Some(Cause::no_time_namespaces()),
        Step::Keyring if errno == Errno::EDQUOT => Some(Cause::too_many_keys()),
        Step::Thread => Some(Cause::no_thread()),
        Step::Mount if refused && is_proc_masked() => Some(Cause::masked_proc()),
        _ => None,
    }
}

/// The most likely cause of there being no cgroup for the limits that a test has written.
pub(super) fn explain_cgroup(trouble: &Trouble) -> Option<Cause> {
    if let Trouble::Refused { path, errno: Errno::ENOENT } = trouble {
        if path.ends_with("memory.swap.max") || path.ends_with("memory.memsw.limit_in_bytes") {
            return Some(Cause::swap_is_not_counted());
        }
    }
    if let Some(chosen) = cgroup::chosen() {
        let chosen = chosen.to_string_lossy();
        match trouble {
            Trouble::Foreign { .. } => return Some(Cause::choice_of_others(&chosen)),
            Trouble::Refused { errno: Errno::EROFS | Errno::EACCES | Errno::EPERM, .. } => {}
            Trouble::Missing(_) | Trouble::Refused { .. } => return Some(Cause::bad_choice(&chosen)),
        }
    }
    // In the root of the unified hierarchy, or of one that came with cgroups of version 1.
    let unified = fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or(false);
    match trouble {
        Trouble::Refused { errno: Errno::EROFS, .. } => Some(Cause::read_only_cgroups()),
        Trouble::Refused { errno: Errno::EACCES | Errno::EPERM, .. } if !unified => Some(Cause::cgroups_v1()),
        Trouble::Missing(_) if !mount_points().iter().any(|point| point.starts_with("/sys/fs/cgroup")) => {
            Some(Cause::no_cgroups())
        }
        Trouble::Refused { errno: Errno::EACCES | Errno::EPERM, .. } | Trouble::Foreign { .. } => {
            Some(Cause::cgroup_of_others())
        }
        Trouble::Missing(_) if unified => Some(Cause::cgroup_of_others()),
        _ => None,
    }
}

/// The lowest limit on the numbers of namespaces of these kinds, one of which was reached.
fn too_many_namespaces(kinds: &[&str]) -> Option<Cause> {
    let limit = |kind| Some((setting(&format!("user/max_{kind}_namespaces"))?, kind));
    let (limit, kind) = kinds.iter().filter_map(limit).min()?;
    Some(Cause::too_many_namespaces(&format!("user.max_{kind}_namespaces"), limit))
}

/// A number below `/proc/sys`.
fn setting(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok()
}

/// Whether this process is under a seccomp filter.
fn is_filtered() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

/// Whether this process has another root than its mount namespace, or, where all can't be seen, than the first process.
fn is_chroot() -> bool {
    let root = |process| fs::metadata(format!("/proc/{process}/root/")).map(|root| (root.dev(), root.ino())).ok();
    let namespace = |process| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let first_has_another_root = namespace("1").is_some_and(|first| Some(first) == namespace("self"))
        && root("1").is_some_and(|first| Some(first) != root("self"));
    first_has_another_root || !mount_points().contains(Path::new("/"))
}

/// Whether something is mounted over a part of `/proc`.
fn is_proc_masked() -> bool {
    let covers = |point: &PathBuf| point.starts_with("/proc") && point != Path::new("/proc");
    let is_harmless = |point: &PathBuf| point.starts_with("/proc/sys/fs/binfmt_misc");
    mount_points().iter().any(|point| covers(point) && !is_harmless(point))
}
