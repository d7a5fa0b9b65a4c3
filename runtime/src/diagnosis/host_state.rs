//! Where the tests run, and what stands in the way there: what remedies depend on.

use std::path::{Path, PathBuf};
use std::{env, fs};

use nix::sys::utsname::uname;

use crate::collect::CollectVec as _;
use crate::proc::{has_capability, has_valgrind, hides_nothing, mount_points, status, text_of};
use crate::sys::geteuid;
use crate::sys::probe::{self, Answer};

/// See capabilities(7).
const CAP_SETFCAP: u32 = 31;

/// The kind of place that the tests run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Platform {
    /// A machine, or a container that was not detected.
    Host,
    Docker,
    Podman,
    Kubernetes,
    /// LXC, LXD or Incus.
    Lxc,
    /// The Windows Subsystem for Linux.
    Wsl,
}

impl Platform {
    /// By the marks that they leave, the innermost first.
    fn find() -> Self {
        let exists = |path: &&str| Path::new(path).exists();
        let holds = |path: &str, word: &str| fs::read(path).is_ok_and(|text| contains(&text, word));
        if env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            Self::Kubernetes
        } else if exists(&"/run/.containerenv") {
            Self::Podman
        } else if exists(&"/.dockerenv") {
            Self::Docker
        } else if ["/dev/lxd", "/dev/incus", "/dev/.lxc"].iter().any(exists)
            || holds("/run/systemd/container", "lxc")
            || holds("/proc/1/environ", "container=lxc")
        {
            Self::Lxc
        } else if holds("/proc/version", "microsoft") {
            Self::Wsl
        } else {
            Self::Host
        }
    }
}

/// Whether a text has a word in it, in whatever case.
fn contains(text: &[u8], word: &str) -> bool {
    text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

/// Something that containers put around processes, and that keeps sandboxes from being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Barrier {
    /// A seccomp filter, with the answer that gave it away. `None`: it shows only by what it refuses and the kernel would not.
    Filter(Option<Answer>),
    /// An AppArmor profile, by its name.
    Profile(String),
    /// An SELinux context.
    Label(String),
    /// What is mounted over parts of `/proc` or `/sys`.
    Mask(Vec<PathBuf>),
}

/// What is to be seen from the test binary.
#[derive(Debug)]
pub(crate) struct HostState {
    pub(crate) platform: Platform,
    pub(crate) barriers: Vec<Barrier>,
    pub(crate) has_proc: bool,
    pub(crate) kernel: String,
    /// Who runs the tests.
    pub(crate) uid: u32,
    /// `Seccomp` in proc_pid_status(5).
    pub(crate) seccomp: Option<String>,
    /// Whether this program runs under valgrind.
    pub(crate) has_valgrind: bool,
    /// Whether this is root, and without the capability that mapping root takes since Linux 5.12.
    pub(crate) may_not_map_root: bool,
}

impl HostState {
    /// Whether there is a filter, whatever it refuses.
    pub(crate) fn has_filter(&self) -> bool {
        self.seccomp.as_deref() == Some("2")
    }
}

impl HostState {
    pub(crate) fn look() -> Self {
        let masks = masks();
        let has_valgrind = has_valgrind();
        // Valgrind ends a program that makes the first call.
        let filter = (!has_valgrind)
            .then(probe::clone_is_filtered)
            .flatten()
            .or_else(|| probe::unshare_is_filtered(libc::CLONE_NEWNS | libc::CLONE_NEWNET))
            .or_else(probe::mount_is_filtered);
        let security = security_context().and_then(|context| barrier_of(&context));
        let mask = (!masks.is_empty()).then_some(Barrier::Mask(masks));
        Self {
            platform: Platform::find(),
            barriers: filter
                .map(|answer| Barrier::Filter(Some(answer)))
                .into_iter()
                .chain(security)
                .chain(mask)
                .collect_vec(),
            has_proc: Path::new("/proc/self/status").exists(),
            kernel: uname().map_or_else(|_| String::new(), |system| system.release().to_string_lossy().into_owned()),
            uid: geteuid().as_raw(),
            seccomp: status("Seccomp"),
            has_valgrind,
            may_not_map_root: geteuid().is_root() && has_capability(CAP_SETFCAP) == Some(false),
        }
    }
}

/// What a security module calls this process; see proc_pid_attr(5).
pub(crate) fn security_context() -> Option<String> {
    let attributes = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];
    let text = attributes.iter().find_map(|path| text_of(path).ok())?;
    let context = text.trim_end_matches(['\0', '\n']);
    (!context.is_empty()).then(|| context.to_owned())
}

/// Whether a process of this context is let do less than others.
pub(crate) fn barrier_of(context: &str) -> Option<Barrier> {
    // AppArmor has a name and a mode, or the name `unconfined` alone.
    if let Some(profile) = context.strip_suffix(" (enforce)") {
        return Some(Barrier::Profile(profile.to_owned()));
    }
    // SELinux has user, role and type, and perhaps a level.
    let kind = context.split(':').nth(2).filter(|_| !context.ends_with(')'))?;
    let is_free = ["unconfined_t", "spc_t", "kernel_t", "init_t", "initrc_t"].contains(&kind);
    let is_permissive = fs::read("/sys/fs/selinux/enforce").is_ok_and(|mode| mode == b"0");
    (!is_free && !is_permissive).then(|| Barrier::Label(context.to_owned()))
}

/// What is mounted over parts of `/proc` and `/sys`.
fn masks() -> Vec<PathBuf> {
    let covers = |point: &PathBuf| {
        ["/proc", "/sys"].iter().any(|whole| point.starts_with(whole) && point != Path::new(whole))
            && !hides_nothing(point)
    };
    mount_points().into_iter().filter(covers).collect_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_read() {
        let profile = |name: &str| Some(Barrier::Profile(name.to_owned()));
        assert_eq!(barrier_of("docker-default (enforce)"), profile("docker-default"));
        assert_eq!(barrier_of("a//&:b:unconfined (enforce)"), profile("a//&:b:unconfined"));
        for free in [
            "unconfined",
            "docker-default (complain)",
            "chrome (unconfined)",
            "u:r:spc_t:s0",
            "u:r:unconfined_t:s0-s0:c0.c1023",
        ] {
            assert_eq!(barrier_of(free), None, "{free}");
        }
        let label = "system_u:system_r:container_t:s0:c1,c2";
        assert_eq!(barrier_of(label), Some(Barrier::Label(label.to_owned())));
    }
}
