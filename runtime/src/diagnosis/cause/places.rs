//! The kinds of place that tests run in: their names, their signs, and how each remedy is written there.

use std::path::PathBuf;

use crate::diagnosis::host_state::{Barrier, HostState, Platform};
use crate::sys::probe::Answer;
use crate::text::plain;

/// How many paths a cause lists.
const LISTED: usize = 3;

pub(super) fn name_of(platform: Platform) -> &'static str {
    match platform {
        Platform::Host => "no container was detected",
        Platform::Docker => "in Docker",
        Platform::Podman => "in Podman",
        Platform::Kubernetes => "in Kubernetes",
        Platform::Lxc => "in LXC",
        Platform::Wsl => "in WSL",
    }
}

/// How a barrier shows.
pub(super) fn seen(barrier: &Barrier) -> String {
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

pub(super) fn listed(points: &[PathBuf]) -> String {
    let listed: Vec<_> = points.iter().take(LISTED).map(|point| plain(point.display())).collect();
    match points.len().saturating_sub(LISTED) {
        0 => listed.join(" "),
        more => format!("{} and {more} more", listed.join(" ")),
    }
}

/// A map of ids on one line.
pub(super) fn listed_ids(map: &str) -> String {
    let lines: Vec<_> = map.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    if lines.is_empty() { "empty".to_owned() } else { format!("`{}`", lines.join(", ")) }
}

/// Settings belong to the machine, and a container can't change them.
pub(super) fn sysctl(around: &HostState, assignment: &str) -> String {
    let place = match around.platform {
        Platform::Host | Platform::Wsl => "",
        Platform::Docker | Platform::Podman | Platform::Kubernetes | Platform::Lxc => {
            "on the machine that the container runs on: "
        }
    };
    format!("{place}sudo sysctl -w {assignment}")
}

/// What to do about `barrier`, and about the others that stand behind it: a filter may be one that has not shown yet.
pub(super) fn way_past(barrier: &Barrier, around: &HostState) -> String {
    let hidden = around.has_filter().then_some(&Barrier::Filter(None));
    let is_known = |filter: &&Barrier| around.barriers.iter().any(|other| is_same(filter, other));
    let others = around.barriers.iter().chain(hidden.filter(|filter| !is_known(filter)));
    let barriers = || [barrier].into_iter().chain(others.clone().filter(|other| !is_same(barrier, other)));
    let all = |part: fn(&Barrier) -> &'static str, between| barriers().map(part).collect::<Vec<_>>().join(between);
    let right = if around.may_not_map_root { " --cap-add SETFCAP" } else { "" };
    match around.platform {
        Platform::Docker => format!("docker run {}{right}", all(for_docker, " ")),
        Platform::Podman => format!("podman run {}{right}", all(for_podman, " ")),
        Platform::Kubernetes => {
            let of_pod = if barriers().any(|barrier| matches!(barrier, Barrier::Mask(_))) {
                "in the pod's spec: hostUsers: false; "
            } else {
                ""
            };
            let right = if around.may_not_map_root { "; capabilities: {add: [SETFCAP]}" } else { "" };
            format!("{of_pod}in the container's securityContext: {}{right}", all(for_kubernetes, "; "))
        }
        Platform::Lxc => {
            "lxc config set CONTAINER security.nesting=true (or incus config set), and restart it".to_owned()
        }
        Platform::Host | Platform::Wsl => on_host(barrier),
    }
}

pub(super) fn is_same(one: &Barrier, other: &Barrier) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

pub(super) fn for_docker(barrier: &Barrier) -> &'static str {
    match barrier {
        Barrier::Filter(_) => "--security-opt seccomp=unconfined",
        Barrier::Profile(_) => "--security-opt apparmor=unconfined",
        Barrier::Label(_) => "--security-opt label=disable",
        Barrier::Mask(_) => "--security-opt systempaths=unconfined",
    }
}

pub(super) fn for_podman(barrier: &Barrier) -> &'static str {
    match barrier {
        Barrier::Filter(_) => "--security-opt seccomp=unconfined",
        Barrier::Profile(_) => "--security-opt apparmor=unconfined",
        Barrier::Label(_) => "--security-opt label=type:spc_t",
        Barrier::Mask(_) => "--security-opt unmask=ALL",
    }
}

pub(super) fn for_kubernetes(barrier: &Barrier) -> &'static str {
    match barrier {
        Barrier::Filter(_) => "seccompProfile: {type: Unconfined}",
        Barrier::Profile(_) => "appArmorProfile: {type: Unconfined}",
        Barrier::Label(_) => "seLinuxOptions: {type: spc_t}",
        Barrier::Mask(_) => "procMount: Unmasked",
    }
}

pub(super) fn on_host(barrier: &Barrier) -> String {
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
