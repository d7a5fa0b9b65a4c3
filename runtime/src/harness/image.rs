//! Makes sure that the image of a test is unpacked, and that the zygote knows where.

use nix::errno::Errno;

use super::judge::Verdict;
use super::{trace, words};
use crate::images::{Image, image};
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
    if let (Some((uid, gid)), Ids::Range(count), None) = (found.unpacked.user, spec.ids, spec.user) {
        if uid.max(gid) >= count {
            return Err(failed(words::no_such_user((uid, gid), count)));
        }
    }
    found.notes.call_once(|| {
        let (lost, needed) = lost_owners(&found, spec);
        if lost > 0 || found.devices > 0 {
            eprintln!("{}", words::image_differs(argument, (lost, needed), found.devices));
        }
    });
    match zygote() {
        Some(Ok(zygote)) => match zygote.image(spec, &found.directory) {
            // If there is no zygote any more, the request for a sandbox says so.
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => Err(failed(words::not_told(errno))),
        },
        _ => Ok(()),
    }
}

/// How many files of the image belong to root in these sandboxes, and to somebody else in the image. And how many ids it would take to keep
/// all owners.
fn lost_owners(image: &Image, spec: &Spec) -> (usize, u32) {
    let is_inside = |(uid, gid): (u32, u32)| match spec.ids {
        Ids::One => false,
        Ids::Range(count) => uid.max(gid) < count,
        Ids::Host => true,
    };
    let lost: Vec<_> = image.unpacked.owned.iter().filter(|owned| !is_inside(owned.owner)).collect();
    let largest = lost.iter().map(|owned| owned.owner.0.max(owned.owner.1)).max().unwrap_or_default();
    (lost.len(), largest.saturating_add(1))
}
