//! All messages about images.

use nix::errno::Errno;

use super::failed::failed;
use crate::images::Trouble;
use crate::text::{error, plain};

pub(in crate::harness) fn image_failed(test: &str, image: &str, why: &str) -> String {
    format!("{}: its root is the image `{}`, and {why}.", failed(test), plain(image))
}

pub(in crate::harness) fn not_unpacked(trouble: &Trouble) -> String {
    format!("that can't be unpacked: {}", plain(trouble))
}

/// Its processes are somebody whom the sandbox does not have.
pub(in crate::harness) fn no_such_user((uid, gid): (u32, u32), count: u32) -> String {
    let last = count.saturating_sub(1);
    format!(
        "says that its processes are the user {uid} and the group {gid}, and of {count} ids the last is {last}: raise `uids`, or write `user`"
    )
}

pub(in crate::harness) fn not_told(errno: Errno) -> String {
    format!("the zygote can't be told of it: {}", error(errno))
}

/// What is not as it is in the image: owners, and device nodes.
pub(in crate::harness) fn image_differs(image: &str, owners: usize, devices: u32) -> String {
    let owners = match owners {
        0 => None,
        1 => Some("1 file is root's here, and somebody else's in the image (`uids = 65536` keeps owners)".to_owned()),
        count => Some(format!("{count} files are root's here, and others' in the image (`uids = 65536` keeps owners)")),
    };
    let devices = match devices {
        0 => None,
        1 => Some("1 device node was left out".to_owned()),
        count => Some(format!("{count} device nodes were left out")),
    };
    let both: Vec<_> = owners.into_iter().chain(devices).collect();
    format!("belljar: of the image `{}`, {}.", plain(image), both.join(", and "))
}
