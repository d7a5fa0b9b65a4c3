//! What may come of the test in a place, and the words for it.

use crate::places::PLAIN;

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

pub(crate) const EPERM: &str = "EPERM (Operation not permitted)";
const ENOENT: &str = "ENOENT (No such file or directory)";
pub(crate) const ENOSPC: &str = "ENOSPC (No space left on device)";
pub(crate) const CLONE: &str = "make the user and mount namespaces that sandboxes begin in";
pub(crate) const LIMITS: &str = "make a cgroup with the limits of the test";
pub(crate) const NONE_ALLOWED: &str = "no namespaces of this kind are allowed";
pub(crate) const FILTERED: &str = "a seccomp filter refuses this call, as those of containers do";
pub(crate) const MASKED: &str =
    "parts of /proc or /sys are masked, as in a container, and then the kernel refuses a new one";
const NO_RIGHTS: &str = "root lacks CAP_SETFCAP here, without which the kernel lets nobody map root (since Linux 5.12)";

pub(crate) const HOSTNAME: &str = "set the host name";
pub(crate) const MOUNT: &str = "mount a file system in the sandbox: /";

pub(crate) fn in_engine(step: &'static str, cause: &'static str, remedy: &'static str) -> Expected {
    Expected::Refused(Refusal { step, error: EPERM, cause, remedy, applied: Applied::Flags })
}

pub(crate) fn limit_is_kept(given: &Given) -> Expected {
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

pub(crate) fn proc_is_missing(_: &Given) -> Expected {
    Expected::Refused(Refusal {
        step: "map the ids of the user namespace: /proc/self/setgroups",
        error: ENOENT,
        cause: "there is no /proc",
        remedy: "sudo mount -t proc proc /proc",
        applied: Applied::Command,
    })
}

pub(crate) fn rights_are_missing(_: &Given) -> Expected {
    Expected::Refused(Refusal {
        step: "map the ids of the user namespace: /proc/self/uid_map",
        error: EPERM,
        cause: NO_RIGHTS,
        remedy: "keep that capability, or run the tests as an ordinary user",
        applied: Applied::As(PLAIN),
    })
}
