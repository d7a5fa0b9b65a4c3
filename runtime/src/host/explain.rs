//! Finds the likely cause of a refusal: in what the host says about itself, never by guessing from the errno alone.

use std::fs;

use nix::errno::Errno;

use crate::message::{self, Cause};
use crate::report::Step;

/// The most likely cause of `step` failing with `errno`, if the host shows one.
pub(super) fn explain(step: Step, errno: Errno) -> Option<&'static Cause> {
    let refused = errno == Errno::EPERM || errno == Errno::EACCES;
    match step {
        Step::Clone if errno == Errno::ENOSPC && setting("user/max_user_namespaces") == Some(0) => {
            Some(&message::NO_USER_NAMESPACES)
        }
        Step::Clone if refused && setting("kernel/unprivileged_userns_clone") == Some(0) => {
            Some(&message::USERNS_CLONE_OFF)
        }
        Step::Clone if (refused || errno == Errno::ENOSYS) && is_filtered() => Some(&message::SECCOMP),
        _ if refused && setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1) => {
            Some(&message::APPARMOR_RESTRICTS)
        }
        Step::Mount if refused && is_proc_masked() => Some(&message::MASKED_PROC),
        _ => None,
    }
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

/// Whether something is mounted over a part of `/proc`.
fn is_proc_masked() -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.any(|point| point.starts_with("/proc/") && !point.starts_with("/proc/sys/fs/binfmt_misc"))
}
