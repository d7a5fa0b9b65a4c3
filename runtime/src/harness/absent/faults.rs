//! In the place of the messages about faults, without the feature `faults`.

use nix::errno::Errno;

use crate::diagnosis::Cause;
use crate::harness::evidence::Evidence;
use crate::harness::supervisor::Report;

pub(in crate::harness) fn met_when(_: &Report) -> Vec<(u64, String)> {
    Vec::new()
}

pub(in crate::harness) fn faults(_: &str, _: &Evidence, _: impl Fn(Errno) -> Option<Cause>) -> Vec<String> {
    Vec::new()
}
