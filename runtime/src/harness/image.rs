//! Makes sure that the image of a test is unpacked, and that the zygote knows where.

use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::judge::Verdict;
use super::{trace, words};
use crate::images::{Image, Lost, image};
use crate::spec::{Ids, Root, Spec, Test};
use crate::zygote::zygote;

/// Provides the image that `test` asks for, if it asks for one. Fails with the verdict if the test can't run in it.
pub(super) fn provide(test: &'static Test) -> Result<(), Verdict> {
    let (name, spec) = (test.short_name(), &test.spec);
    let Root::Image(argument) = spec.root else { return Ok(()) };
    let _span = trace::span("provide the image");
    let Some(found) = image(spec) else { return Ok(()) };
    let failed = |why: String| Verdict::Failed(words::image_failed(name, argument, &why));
    let found = found.map_err(|trouble| failed(words::not_unpacked(&trouble)))?;
    if let (Some(user), Ids::Range(count), None) = (found.unpacked.user, spec.ids, spec.user) {
        if !spec.ids.has(user) {
            return Err(failed(words::no_such_user(user, count)));
        }
    }
    if !found.are_noted.swap(true, Ordering::Relaxed) {
        let lost = lost(&found, spec);
        if lost.owners > 0 || lost.devices > 0 {
            eprintln!("{}", words::image_differs(argument, lost));
        }
    }
    match zygote() {
        Some(Ok(zygote)) => match zygote.image(spec, &found.directory) {
            // If there is no zygote any more, the request for a sandbox says so.
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => Err(failed(words::not_told(errno))),
        },
        _ => Ok(()),
    }
}

/// What the image has and this sandbox lacks: it was lost when the image was unpacked, or the sandbox has no such ids.
fn lost(image: &Image, spec: &Spec) -> Lost {
    let owners = image.unpacked.owned.iter().map(|owned| owned.owner).filter(|owner| !spec.ids.has(*owner));
    owners.fold(image.lost, |lost, (uid, gid)| Lost {
        owners: lost.owners + 1,
        needed: lost.needed.max(uid.max(gid).saturating_add(1)),
        ..lost
    })
}
