//! Sandboxes that nobody has made, for [`fuzzed`](crate::harness::fuzzed).

use std::os::fd::{AsFd as _, OwnedFd};
use std::{io, mem};

use super::Sandbox;
use super::progress::Next;
use crate::cgroup::Cgroup;
use crate::harness::evidence::Evidence;
use crate::harness::output::Stream;
use crate::harness::trace::Life;
use crate::spec::Spec;
use crate::sys;

impl Sandbox {
    /// One that nobody has made.
    pub(in crate::harness) fn made_up(spec: &'static Spec, has_trace: bool) -> io::Result<Self> {
        let null = || std::fs::File::open("/dev/null").map(OwnedFd::from);
        let stream = || Ok::<_, io::Error>(Stream::own(null()?.as_fd())?.0);
        let (outputs, life) = ([stream()?, stream()?], has_trace.then(Life::new));
        Ok(Self::new(spec, null()?, outputs, Cgroup::default(), false, life))
    }

    /// Takes a message, as if it had come over the frame socket. Returns whether that was the last frame.
    pub(in crate::harness) fn hear(&mut self, bytes: &[u8], fds: Vec<OwnedFd>, sender: i32) -> nix::Result<bool> {
        let message = sys::Message { length: bytes.len(), fds, sender: Some(sender) };
        let next = self.take(&bytes[..bytes.len().min(crate::frame::FRAME_MAX)], message, None)?;
        Ok(matches!(next, Next::End(_)))
    }

    /// All that became known.
    pub(in crate::harness) fn heard(&mut self) -> Evidence {
        mem::take(&mut self.evidence)
    }
}
