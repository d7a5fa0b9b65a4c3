//! The directory `/proc/sys` of sandboxes whose root is the machine's own.
//!
//! The kernel's settings belong to root, whatever namespace that is in. So a sandbox of real root is to see all of them, and to change
//! those of its own namespaces only. Those can't be shown one by one: the kernel finds the settings of a namespace by their names in a
//! directory that it shares with others, so that in a namespace below, the same name is another file.
//!
//! So `/proc/sys` is a tmpfs of links, the same for all sandboxes. They lead to the settings of the machine in `.own/machine`, which is
//! mounted read-only, and to those of namespaces in `.own/sys`, which is mounted as it is. Nobody finds what else is there: `.own` can be
//! passed, but not listed, since its owner has no number in a sandbox.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Uid, fchownat, symlinkat};

use crate::frame::{Refusal, Step};
use crate::rootfs::paths::c_string;
use crate::sys::{self, errno_of};

/// The kernel's settings.
const SETTINGS: &str = "/proc/sys";

/// Where the settings of namespaces are mounted in the tree.
pub(crate) const OWN: &str = ".own/sys";

/// Where those of the machine are.
pub(crate) const MACHINE: &str = ".own/machine";

/// A user that no sandbox has a number for: the last that there can be.
const NOBODY: u32 = u32::MAX - 1;

/// The settings of namespaces that are not in a directory of their own, below `kernel`.
const OF_IPC_AND_PID: [&str; 13] = [
    "auto_msgmni",
    "msg_next_id",
    "msgmax",
    "msgmnb",
    "msgmni",
    "ns_last_pid",
    "sem",
    "sem_next_id",
    "shm_next_id",
    "shm_rmid_forced",
    "shmall",
    "shmmax",
    "shmmni",
];

/// Makes the tree, attached nowhere. `net`: the sandbox has a network of its own, and may change its settings. This takes real root.
pub(crate) fn tree(net: bool) -> Result<OwnedFd, Refusal> {
    let failed = |errno| Refusal::new(Step::Mount, SETTINGS, errno);
    let tree = sys::new_tmpfs(c"0755").map_err(failed)?;
    let directory = |path: &str, mode| mkdirat(&tree, &*c_string(Path::new(path)), Mode::from_bits_truncate(mode));
    let make = || {
        directory(".own", 0o711)?;
        directory(OWN, 0o555)?;
        directory(MACHINE, 0o555)?;
        match fchownat(&tree, c".own", Some(Uid::from_raw(NOBODY)), None, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // In a user namespace, nobody has that number. There it can be listed.
            Err(Errno::EINVAL) => {}
            result => result?,
        }
        link_all(&tree, "", if net { &["user", "net"] } else { &["user"] }, &["fs", "kernel"])?;
        link_all(&tree, "fs", &["mqueue"], &[])?;
        link_all(&tree, "kernel", &OF_IPC_AND_PID, &[])
    };
    make().map_err(failed)?;
    Ok(tree)
}

/// Makes a link for each entry of a directory of settings: to those of namespaces if it is one of `own`, otherwise to those of the machine. Those
/// that are `divided` become directories.
fn link_all(tree: &OwnedFd, directory: &str, own: &[&str], divided: &[&str]) -> nix::Result<()> {
    let errno = |error: io::Error| errno_of(&error);
    let up = if directory.is_empty() { "" } else { "../" };
    for entry in fs::read_dir(Path::new(SETTINGS).join(directory)).map_err(errno)? {
        let name = entry.map_err(errno)?.file_name();
        // The kernel's names are ASCII.
        let name = name.to_str().ok_or(Errno::EILSEQ)?;
        if name.starts_with('.') {
            // In a sandbox within another, these are our own.
            continue;
        }
        let path = Path::new(directory).join(name);
        let place = c_string(&path);
        if divided.contains(&name) {
            mkdirat(tree, &*place, Mode::from_bits_truncate(0o555))?;
        } else {
            let part = if own.contains(&name) { OWN } else { MACHINE };
            symlinkat(&*c_string(&Path::new(up).join(part).join(&path)), tree, &*place)?;
        }
    }
    Ok(())
}
