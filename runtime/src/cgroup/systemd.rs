//! belljar asks systemd two things. Does the unit that the tests run in go on when the kernel kills a test that has used up its memory? And can
//! this run have a scope that the user may divide, as `systemd-run --scope -p Delegate=yes` makes one?
//! See systemd.service(5), org.freedesktop.systemd1(5), and systemd's "Control Group APIs and Delegation".
//!
//! Its own clients systemctl(1) and busctl(1) speak to it: wherever there is a manager to be asked, there are those.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::proc::{own_cgroup_v2, text_in};
use crate::sys;
use crate::sys::geteuid;

/// How long a manager may take to make a scope. It answers before it has made it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a manager may take to answer. One that hangs keeps tests with limits waiting no longer than that.
const ANSWER: Duration = Duration::from_secs(5);

/// Moves these processes, of which this is one, to a new scope of this name. Returns whether they are there.
pub(super) fn move_to_scope(name: &str, pids: [u32; 2]) -> bool {
    let manager = if geteuid().is_root() { Manager::System } else { Manager::Own };
    let [own, zygote] = pids.map(|pid| pid.to_string());
    let mut busctl = manager.client("busctl");
    busctl.args(["--quiet", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"]);
    busctl.args(["org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail"]);
    // The properties: how many, and of each the name, the type and the value. No units come with it.
    busctl.args(["3", "Description", "s", "tests in sandboxes of belljar", "Delegate", "b", "true"]);
    busctl.args(["PIDs", "au", "2", &own, &zygote, "0"]);
    if !busctl.stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return false;
    }
    // The scope was empty before it had these processes. A manager that takes note of that too late takes it for over, and
    // removes what is empty below it: what this run has made meanwhile. It does so before it answers what it is asked next.
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match manager.property("ActiveState", OsStr::new(name)).as_deref() {
            Some("active") if is_in(name) => return true,
            Some("active" | "activating" | "reloading") => thread::sleep(Duration::from_millis(1)),
            _ => return false,
        }
    }
    false
}

/// Whether this process is in the scope of this name.
fn is_in(name: &str) -> bool {
    own_cgroup_v2().is_some_and(|own| own.ends_with(name))
}

/// The unit to which the cgroup at `path` belongs, and its `OOMPolicy`, if systemd ends the unit when the kernel kills a process below
/// because memory is used up. It does with all that have no `Delegate` and don't say otherwise.
pub(super) fn unit_that_ends(path: &Path) -> Option<(String, String)> {
    let (cgroup, name) = path.ancestors().find_map(|cgroup| Some((cgroup, unit_name(cgroup)?)))?;
    let policy = match Manager::of(cgroup).property("OOMPolicy", name) {
        Some(policy) => policy,
        // In a container, say, whose engine has asked for the unit.
        None if sys::is_delegated(cgroup) => return None,
        None => "stop, if it is as systemd has it by default: systemd could not be asked".to_owned(),
    };
    // Before systemd 253, scopes have none.
    (!matches!(policy.as_str(), "continue" | "")).then(|| (name.to_string_lossy().into_owned(), policy))
}

/// The name of the unit that has this cgroup for its own, if one has. systemd puts `_` before names that cgroups can't have.
fn unit_name(cgroup: &Path) -> Option<&OsStr> {
    let name = cgroup.file_name()?.as_bytes();
    let name = name.strip_prefix(b"_").unwrap_or(name);
    (name.ends_with(b".service") || name.ends_with(b".scope")).then(|| OsStr::from_bytes(name))
}

/// The manager that has a unit.
#[derive(Debug, PartialEq, Eq)]
enum Manager {
    System,
    /// This user's.
    Own,
    /// That of the user of this number, for root to ask.
    Other(u32),
}

impl Manager {
    /// That of the unit whose cgroup this is.
    fn of(cgroup: &Path) -> Self {
        let user = |above: &Path| {
            let name = above.file_name()?.to_str()?;
            name.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok()
        };
        match cgroup.ancestors().skip(1).find_map(user) {
            None => Self::System,
            Some(user) if user == geteuid().as_raw() => Self::Own,
            Some(user) => Self::Other(user),
        }
    }

    /// A client of systemd's that speaks to it.
    fn client(&self, program: &str) -> Command {
        let mut client = Command::new(program);
        match self {
            Self::System => client.arg("--system"),
            Self::Own => client.arg("--user"),
            Self::Other(user) => client.args(["--user".to_owned(), format!("--machine={user}@.host")]),
        };
        // Services of the system lack this variable, and so do users who come by su(1).
        let directory = format!("/run/user/{}", geteuid());
        if env::var_os("XDG_RUNTIME_DIR").is_none() && fs::exists(&directory).unwrap_or(false) {
            client.env("XDG_RUNTIME_DIR", directory);
        }
        client.stdin(Stdio::null()).stderr(Stdio::null());
        client
    }

    /// What it says of the unit of this name.
    fn property(&self, property: &str, unit: &OsStr) -> Option<String> {
        let mut systemctl = self.client("systemctl");
        let mut client = systemctl
            .args(["show", "--value", "--property", property, "--"])
            .arg(unit)
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        // What it says is short, and waits in the pipe.
        let start = Instant::now();
        let status = loop {
            match client.try_wait().ok()? {
                None if start.elapsed() < ANSWER => thread::sleep(Duration::from_millis(1)),
                None => {
                    let _ = client.kill().and_then(|()| client.wait());
                    return None;
                }
                Some(status) => break status,
            }
        };
        let said = text_in(client.stdout?).ok().filter(|_| status.success())?;
        Some(said.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_found() {
        let of = |path: &str| {
            let found = Path::new(path).ancestors().find_map(|cgroup| Some((unit_name(cgroup)?, Manager::of(cgroup))));
            found.map(|(name, manager)| (name.to_string_lossy().into_owned(), manager))
        };
        let unit = |name: &str, manager| Some((name.to_owned(), manager));
        let (user, other) = (geteuid().as_raw(), geteuid().as_raw() + 1);
        let root = "/sys/fs/cgroup";
        assert_eq!(of(&format!("{root}/system.slice/ci.service")), unit("ci.service", Manager::System));
        assert_eq!(of(&format!("{root}/system.slice/_cpu.service/a/b")), unit("cpu.service", Manager::System));
        assert_eq!(
            of(&format!("{root}/user.slice/user-1.slice/session-4.scope")),
            unit("session-4.scope", Manager::System)
        );
        let below = |user| format!("{root}/user.slice/user-{user}.slice/user@{user}.service/app.slice/run-1.scope");
        assert_eq!(of(&below(user)), unit("run-1.scope", Manager::Own));
        assert_eq!(of(&below(other)), unit("run-1.scope", Manager::Other(other)));
        assert_eq!(
            of(&format!("{root}/user.slice/user@{user}.service/init")),
            unit(&format!("user@{user}.service"), Manager::System)
        );
        assert_eq!(of(&format!("{root}/user.slice/a.scopes")), None);
    }
}
