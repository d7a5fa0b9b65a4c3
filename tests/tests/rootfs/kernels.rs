//! The kernel's files.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use belljar::isolated;

use crate::output;

/// Opens all files below `directory` for writing, and returns those that it could open.
fn writable_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_process =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !(directory == Path::new("/proc") && is_process) => {
                writable_below(&path, found)
            }
            Ok(kind) if kind.is_file() && can_be_written(&path) => found.push(path),
            // Of root's settings, some are links.
            Ok(kind) if kind.is_symlink() && path.starts_with("/proc/sys") => {
                if path.is_dir() {
                    writable_below(&path, found);
                } else if can_be_written(&path) {
                    found.push(path);
                }
            }
            _ => {}
        }
    }
}

/// Whether the file has somebody who may write to it, and is opened for that. Whoever has CAP_DAC_OVERRIDE can open the
/// others too, and then not write.
fn can_be_written(path: &Path) -> bool {
    let has_writer = fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o222 != 0);
    has_writer && OpenOptions::new().write(true).open(path).is_ok()
}

fn assert_only_own_settings_are_writable() {
    let mut found = Vec::new();
    for directory in ["/proc", "/sys"] {
        writable_below(Path::new(directory), &mut found);
    }
    let own = ["/proc/sys/net/", "/proc/sys/user/", "/proc/sys/fs/mqueue/", "/sys/devices/virtual/net/"];
    let kernel = [
        "auto_msgmni",
        "msgmax",
        "msgmnb",
        "msgmni",
        "ns_last_pid",
        "pid_max",
        "sem",
        "shm_rmid_forced",
        "shmall",
        "shmmax",
        "shmmni",
    ];
    let kernel: Vec<_> = kernel.map(|name| Path::new("/proc/sys/kernel").join(name)).into();
    let is_own = |path: &&PathBuf| {
        let pressure = path.starts_with("/proc/pressure");
        own.iter().any(|prefix| path.starts_with(prefix)) || kernel.contains(path) || pressure
    };
    let (own, others): (Vec<_>, Vec<_>) = found.iter().partition(is_own);
    assert!(others.is_empty(), "{others:?}");
    assert!(own.iter().any(|path| path.starts_with("/proc/sys/user")), "the test finds what is writable");
}

/// Real root owns the kernel's files, whatever namespace it is in. It must not be able to use them.
#[isolated]
fn the_machine_can_not_be_changed_through_kernel_files() {
    assert_only_own_settings_are_writable();
    assert!(OpenOptions::new().write(true).open("/proc/sys/net/ipv4/ip_forward").is_ok());
}

#[isolated(net)]
fn the_machine_can_not_be_changed_through_kernel_files_in_the_hosts_tree() {
    assert_only_own_settings_are_writable();
}

#[isolated]
fn own_processes_can_be_changed_through_proc() {
    fs::write("/proc/self/oom_score_adj", "500").expect("write");
    assert_eq!(fs::metadata("/proc/self").expect("stat").uid(), 0);
}

/// What a nested sandbox needs: a whole /proc and sysfs that the kernel lets it copy.
#[isolated]
fn a_sandbox_within_can_mount_its_own_proc_and_sysfs() {
    let script = "mount -t proc proc /proc && mount -t sysfs sysfs /sys && ls /proc/self/comm";
    assert_eq!(output("unshare", &["-U", "-r", "-m", "-n", "-p", "-f", "sh", "-c", script]), "/proc/self/comm\n");
}

/// The same in the host's tree.
#[isolated(net)]
fn a_sandbox_within_can_mount_its_own_proc_without_a_root() {
    let script = "mount -t proc proc /proc && ls /proc/self/comm";
    assert_eq!(output("unshare", &["-U", "-r", "-m", "-p", "-f", "sh", "-c", script]), "/proc/self/comm\n");
}
