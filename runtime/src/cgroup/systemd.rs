//! Has systemd make a scope for this test run, which the user may divide: what `systemd-run --scope -p Delegate=yes` does before
//! the run begins. See org.freedesktop.systemd1(5), and systemd's "Control Group APIs and Delegation".
//!
//! systemd's own client busctl(1) speaks to it: wherever there is a manager to be asked, there is that.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use crate::proc::text_of;

/// How long a manager may take to do it. It answers before it has.
const PATIENCE: Duration = Duration::from_secs(10);

/// Moves these processes, of which this is one, to a new scope of this name. Returns whether they are there.
pub(super) fn move_to_scope(name: &str, pids: [u32; 2]) -> bool {
    let manager = if geteuid().is_root() { "--system" } else { "--user" };
    let [own, zygote] = pids.map(|pid| pid.to_string());
    let mut busctl = Command::new("busctl");
    busctl.args([manager, "--quiet", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"]);
    busctl.args(["org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail"]);
    // The properties: how many, and of each the name, the type and the value. No units come with it.
    busctl.args(["3", "Description", "s", "tests in sandboxes of belljar", "Delegate", "b", "true"]);
    busctl.args(["PIDs", "au", "2", &own, &zygote, "0"]);
    busctl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !busctl.status().is_ok_and(|status| status.success()) {
        return false;
    }
    // The scope was empty before it had these processes. A manager that takes note of that too late takes it for over, and
    // removes what is empty below it: what this run has made meanwhile. It does so before it answers what it is asked next.
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match state(manager, name).as_deref() {
            Some("active") if is_in(name) => return true,
            Some("active" | "activating" | "reloading") => thread::sleep(Duration::from_millis(1)),
            _ => return false,
        }
    }
    false
}

/// What the manager says of the scope of this name.
fn state(manager: &str, name: &str) -> Option<String> {
    let mut systemctl = Command::new("systemctl");
    systemctl.args([manager, "show", "--property=ActiveState", "--value", name]);
    let output = systemctl.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether this process is in the scope of this name.
fn is_in(name: &str) -> bool {
    let own = text_of("/proc/self/cgroup").unwrap_or_default();
    own.lines().any(|line| line.starts_with("0::") && line.ends_with(&format!("/{name}")))
}
