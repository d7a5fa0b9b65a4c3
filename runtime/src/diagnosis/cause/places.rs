//! The kinds of place that tests run in: their names, their signs, and how each remedy is written there.

use std::path::PathBuf;

use crate::collect::CollectVec as _;
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
    let listed = points.iter().take(LISTED).map(|point| plain(point.display())).collect_vec();
    match points.len().saturating_sub(LISTED) {
        0 => listed.join(" "),
        more => format!("{} and {more} more", listed.join(" ")),
    }
}

/// A map of ids on one line.
pub(super) fn listed_ids(map: &str) -> String {
    let lines = map.lines().map(|line| line.split_whitespace().collect_vec().join(" ")).collect_vec();
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
    let all = |part: fn(&Barrier) -> &'static str, between| barriers().map(part).collect_vec().join(between);
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
            points.iter().map(|point| plain(point.display())).collect_vec().join(" ")
        ),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use insta::assert_snapshot;
    use nix::errno::Errno;

    use super::*;
    use crate::diagnosis::cause::Cause;
    use crate::text::snapshots::page;

    const PLATFORMS: [Platform; 6] =
        [Platform::Host, Platform::Docker, Platform::Podman, Platform::Kubernetes, Platform::Lxc, Platform::Wsl];

    /// Such a place, with nothing in the way.
    pub(crate) fn around(platform: Platform) -> HostState {
        HostState {
            platform,
            barriers: Vec::new(),
            has_proc: true,
            kernel: "6.1.0".to_owned(),
            uid: 1000,
            seccomp: Some("0".to_owned()),
            has_valgrind: false,
            may_not_map_root: false,
        }
    }

    /// One of each kind.
    pub(crate) fn barriers() -> [Barrier; 4] {
        let answer = Answer { call: "unshare(CLONE_NEWUSER)", errno: Errno::EPERM, expected: Errno::EINVAL };
        [
            Barrier::Filter(Some(answer)),
            Barrier::Profile("docker-default\n".to_owned()),
            Barrier::Label("u:r:container_t:s0".to_owned()),
            Barrier::Mask(["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"].map(Into::into).to_vec()),
        ]
    }

    /// The remedies of a cause, one for each place that has one of its own.
    fn remedies(cause: impl Fn(&HostState) -> Cause) -> String {
        let remedy = |platform: &Platform| (*platform, cause(&around(*platform)).remedy.into_owned());
        let mut told: Vec<(Platform, String)> = Vec::new();
        for (place, remedy) in PLATFORMS.iter().map(remedy) {
            if told.iter().all(|(_, other)| *other != remedy) {
                told.push((place, remedy));
            }
        }
        told.into_iter().map(|(place, remedy)| format!("{place:?}: {remedy}\n")).collect()
    }

    #[test]
    fn remedies_are_those_of_the_place() {
        let with_barriers =
            |around: &HostState| HostState { barriers: barriers().to_vec(), ..self::around(around.platform) };
        let told = [
            ("barrier", remedies(|around| Cause::barrier(&barriers()[0], around))),
            ("barrier, of all", remedies(|around| Cause::barrier(&barriers()[3], &with_barriers(around)))),
            (
                "barrier, and no right to map root",
                remedies(|around| {
                    let around = HostState { may_not_map_root: true, ..self::around(around.platform) };
                    Cause::barrier(&barriers()[0], &around)
                }),
            ),
            (
                "barrier, beside a filter that has not shown",
                remedies(|around| {
                    let around = HostState { seccomp: Some("2".to_owned()), ..self::around(around.platform) };
                    Cause::barrier(&barriers()[1], &around)
                }),
            ),
            ("apparmor_restricts", remedies(|around| Cause::apparmor_restricts("unconfined", around))),
            ("may_not_map_root", remedies(Cause::may_not_map_root)),
            ("read_only_cgroups", remedies(Cause::read_only_cgroups)),
            ("device_is_forbidden", remedies(|around| Cause::device_is_forbidden("/dev/fuse", around))),
            ("device_is_missing", remedies(|around| Cause::device_is_missing("/dev/fuse", Errno::ENOENT, around))),
            ("memory_used_up", remedies(|around| Cause::memory_used_up(Path::new("/max"), 4096, around))),
            ("too_many_in_cgroup", remedies(|around| Cause::too_many_in_cgroup(Path::new("/max"), 64, 63, around))),
        ];
        assert_snapshot!(page(told), @r#"
        # barrier
        Host: run the tests without that filter: in a container, --security-opt seccomp=unconfined (docker run, podman run); in a unit of systemd's, without SystemCallFilter and RestrictNamespaces
        Docker: docker run --security-opt seccomp=unconfined
        Podman: podman run --security-opt seccomp=unconfined
        Kubernetes: in the container's securityContext: seccompProfile: {type: Unconfined}
        Lxc: lxc config set CONTAINER security.nesting=true (or incus config set), and restart it
        # barrier, of all
        Host: sudo umount /proc/acpi /proc/kcore /proc/keys /sys/firmware; in a container, --security-opt systempaths=unconfined (docker run) or unmask=ALL (podman run)
        Docker: docker run --security-opt systempaths=unconfined --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt label=disable
        Podman: podman run --security-opt unmask=ALL --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt label=type:spc_t
        Kubernetes: in the pod's spec: hostUsers: false; in the container's securityContext: procMount: Unmasked; seccompProfile: {type: Unconfined}; appArmorProfile: {type: Unconfined}; seLinuxOptions: {type: spc_t}
        Lxc: lxc config set CONTAINER security.nesting=true (or incus config set), and restart it
        # barrier, and no right to map root
        Host: run the tests without that filter: in a container, --security-opt seccomp=unconfined (docker run, podman run); in a unit of systemd's, without SystemCallFilter and RestrictNamespaces
        Docker: docker run --security-opt seccomp=unconfined --cap-add SETFCAP
        Podman: podman run --security-opt seccomp=unconfined --cap-add SETFCAP
        Kubernetes: in the container's securityContext: seccompProfile: {type: Unconfined}; capabilities: {add: [SETFCAP]}
        Lxc: lxc config set CONTAINER security.nesting=true (or incus config set), and restart it
        # barrier, beside a filter that has not shown
        Host: add `userns,`, `mount,`, `umount,` and `pivot_root,` to the profile docker-default\n in /etc/apparmor.d, or run the tests outside it
        Docker: docker run --security-opt apparmor=unconfined --security-opt seccomp=unconfined
        Podman: podman run --security-opt apparmor=unconfined --security-opt seccomp=unconfined
        Kubernetes: in the container's securityContext: appArmorProfile: {type: Unconfined}; seccompProfile: {type: Unconfined}
        Lxc: lxc config set CONTAINER security.nesting=true (or incus config set), and restart it
        # apparmor_restricts
        Host: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0
        Docker: on the machine that the container runs on: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0
        # may_not_map_root
        Host: keep that capability, or run the tests as an ordinary user
        Docker: docker run --cap-add SETFCAP, or run the tests as an ordinary user (--user 1000)
        Podman: podman run --cap-add SETFCAP, or run the tests as an ordinary user (--user 1000)
        Kubernetes: in the container's securityContext: capabilities: {add: [SETFCAP]}, or runAsUser: 1000
        # read_only_cgroups
        Host: sudo mount -o remount,rw /sys/fs/cgroup, or, for a container, docker run --security-opt writable-cgroups=true
        Docker: docker run --security-opt writable-cgroups=true
        Podman: podman run --security-opt unmask=/sys/fs/cgroup
        Kubernetes: containerd 2.1 or later with `cgroup_writable = true` for the runtime, or in the container's securityContext: privileged: true
        # device_is_forbidden
        Host: allow it where the tests run (systemd: -p DeviceAllow=/dev/fuse)
        Docker: docker run --device /dev/fuse
        Podman: podman run --device /dev/fuse
        # device_is_missing
        Host: sudo modprobe fuse
        Docker: docker run --device /dev/fuse
        Podman: podman run --device /dev/fuse
        # memory_used_up
        Host: raise it (systemd: systemctl set-property UNIT MemoryMax=4G), or run fewer tests at once (`--test-threads`)
        Docker: docker run --memory 4g, or run fewer tests at once (`--test-threads`)
        Podman: podman run --memory 4g, or run fewer tests at once (`--test-threads`)
        Kubernetes: raise limits.memory of the container, or run fewer tests at once (`--test-threads`)
        # too_many_in_cgroup
        Host: raise it (systemd: systemctl set-property UNIT TasksMax=infinity), run fewer tests at once (`--test-threads`), or write `pids = ..` on a test that starts many processes
        Docker: docker run --pids-limit -1
        Podman: podman run --pids-limit -1
        Kubernetes: raise podPidsLimit of the kubelet, or run fewer tests at once (`--test-threads`)
        "#);
    }

    #[test]
    fn places_have_their_names() {
        assert_snapshot!(PLATFORMS.map(name_of).join("\n"), @"
        no container was detected
        in Docker
        in Podman
        in Kubernetes
        in LXC
        in WSL
        ");
    }
}
