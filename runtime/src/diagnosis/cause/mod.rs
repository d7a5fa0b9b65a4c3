//! Why hosts refuse: the cause, what of it is to be seen, and what to do about it where the tests run.

mod cgroups;
mod files;
mod places;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

use self::places::*;
use super::host_state::{Barrier, HostState, Platform};
use crate::collect::CollectVec as _;
use crate::text::plain;

/// Where subordinate ids begin, by custom; see login.defs(5).
const FIRST_SUBORDINATE: u32 = 100_000;

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
    pub(super) fn new(
        why: impl Into<Cow<'static, str>>,
        seen: impl Into<Cow<'static, str>>,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { why: why.into(), seen: seen.into(), remedy: remedy.into() }
    }

    pub(crate) fn unknown(around: &HostState) -> Self {
        let HostState { platform, kernel, uid, seccomp, barriers, .. } = around;
        let seccomp = seccomp.as_ref().map_or(String::new(), |mode| format!(", Seccomp: {mode} in /proc/self/status"));
        let barriers = barriers.iter().map(|barrier| format!(", {}", seen(barrier))).collect_vec();
        Self::new(
            "unknown",
            format!("Linux {kernel}, {}, user {uid}{seccomp}{}", name_of(*platform), barriers.concat()),
            "none known; the step and the error above are what the host said",
        )
    }

    // ---- What else is in the test binary, or runs it ----

    /// `threads` are the names of those that were there when the zygote was to be forked.
    pub(crate) fn locked_by_threads(threads: &[String]) -> Self {
        let names = threads.iter().map(|name| format!("`{}`", plain(name))).collect_vec();
        Self::new(
            "a thread that runs before `main` keeps a lock of the standard library, which tests would wait for: that of the environment, \
             of a standard stream, or of the panic hook",
            format!("in each fork of this process, that lock was taken; the threads were {}", names.join(", ")),
            "have constructors start no thread that keeps such a lock, or let it begin in `main`",
        )
    }

    pub(crate) fn valgrind() -> Self {
        Self::new(
            "valgrind runs this program, and knows no namespaces",
            "LD_PRELOAD or /proc/self/maps has vgpreload_core",
            "run isolated tests without valgrind",
        )
    }

    pub(crate) fn fakeroot() -> Self {
        Self::new(
            "fakeroot runs this program, and its library can't reach its daemon from a sandbox",
            "FAKEROOTKEY is set, and /proc/self/maps has libfakeroot",
            "run the tests without fakeroot: in their sandboxes they are root in any case",
        )
    }

    // ---- What containers put around processes ----

    /// `barrier` is one of those that there are; where tests run in a container, the remedy is for all of them.
    pub(crate) fn barrier(barrier: &Barrier, around: &HostState) -> Self {
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
    pub(crate) fn apparmor_restricts(profile: &str, around: &HostState) -> Self {
        let setting = "kernel.apparmor_restrict_unprivileged_userns";
        Self::new(
            "AppArmor takes all rights from user namespaces that ordinary users make, as Ubuntu does since 24.04",
            format!("{setting} is 1, and this process is `{}` in /proc/self/attr/current", plain(profile)),
            sysctl(around, &format!("{setting}=0")),
        )
    }

    // ---- Namespaces ----

    pub(crate) fn for_root_only(around: &HostState) -> Self {
        let setting = "kernel.unprivileged_userns_clone";
        let why = "user namespaces are for root only, as Debian and Arch once had it";
        Self::new(why, format!("{setting} is 0"), sysctl(around, &format!("{setting}=1")))
    }

    /// `setting` is the name of the one that limits the number of namespaces, `limit` its value, if that can be known.
    pub(crate) fn too_many_namespaces(setting: &str, limit: Option<u64>, around: &HostState) -> Self {
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

    pub(crate) fn may_not_map_root(around: &HostState) -> Self {
        Self::new(
            "root lacks CAP_SETFCAP here, without which the kernel lets nobody map root (since Linux 5.12)",
            "CapEff in /proc/self/status lacks the bit 31, and the user is 0",
            match around.platform {
                Platform::Docker => "docker run --cap-add SETFCAP, or run the tests as an ordinary user (--user 1000)",
                Platform::Podman => "podman run --cap-add SETFCAP, or run the tests as an ordinary user (--user 1000)",
                Platform::Kubernetes => {
                    "in the container's securityContext: capabilities: {add: [SETFCAP]}, or runAsUser: 1000"
                }
                Platform::Host | Platform::Lxc | Platform::Wsl => {
                    "keep that capability, or run the tests as an ordinary user"
                }
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
            format!("fewer than {count} ids are mapped here, even for root, as in a container or a sandbox"),
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
        let program = plain(program);
        Self::new(
            format!("the program {program} is not installed"),
            format!("{program} is in no directory that PATH names"),
            "sudo apt-get install uidmap",
        )
    }

    pub(crate) fn program_refuses(program: &str, said: &str) -> Self {
        let program = plain(program);
        Self::new(
            format!("{program} refuses"),
            format!("it says: {}", plain(said)),
            "give this user as many subordinate ids in /etc/subuid and /etc/subgid",
        )
    }
}
