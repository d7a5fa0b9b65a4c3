//! All messages about images.

use nix::errno::Errno;

use super::beginning::failed;
use crate::collect::CollectVec as _;
use crate::images::{ImageError, Lost};
use crate::text::{error, plain};

pub(in crate::harness) fn image_failed(test: &str, image: &str, why: &str) -> String {
    format!("{}: its root is the image `{}`: {why}.", failed(test), plain(image))
}

pub(in crate::harness) fn not_unpacked(trouble: &ImageError) -> String {
    format!("it can't be unpacked: {}", plain(trouble))
}

/// Its processes are somebody whom the sandbox does not have.
pub(in crate::harness) fn no_such_user((uid, gid): (u32, u32), count: u32) -> String {
    let last = count.saturating_sub(1);
    format!(
        "the image says that its processes run as user {uid} and group {gid}, but the sandbox has the ids 0 to {last} alone: raise `uids`, or write `user`"
    )
}

pub(in crate::harness) fn not_told(errno: Errno) -> String {
    format!("the zygote can't be told of it: {}", error(errno))
}

/// What is not as it is in the image.
pub(in crate::harness) fn image_differs(image: &str, lost: Lost) -> String {
    let Lost { devices, owners, needed } = lost;
    let count = |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    let are = |count: usize, one: &'static str, more: &'static str| if count == 1 { one } else { more };
    let owners = (owners > 0).then(|| {
        let (files, are) = (count(owners, "file"), are(owners, "is", "are"));
        format!("{files} {are} root's here, and somebody else's in the image (`uids = {needed}` keeps the owners)")
    });
    let devices =
        (devices > 0).then(|| format!("{} {} left out", count(devices, "device node"), are(devices, "was", "were")));
    let both = owners.into_iter().chain(devices).collect_vec();
    format!("belljar: of the image `{}`, {}.", plain(image), both.join(", and "))
}
