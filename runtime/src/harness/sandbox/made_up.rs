//! Sandboxes that nobody has made, for [`fuzzed`](crate::harness::fuzzed).

use std::os::fd::OwnedFd;
use std::{io, mem};

use super::{Received, Sandbox};
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
        Ok(Self {
            report: null()?,
            stdout: Stream::stdout(null()?),
            stderr: Stream::stderr(null()?),
            cgroup: Cgroup::default(),
            has_process_limit: false,
            spec,
            life: has_trace.then(Life::new),
            init: None,
            teller: None,
            copy: None,
            waiting: None,
            evidence: Evidence::default(),
        })
    }

    /// Takes a message, as if it had come over the report socket.
    pub(in crate::harness) fn hear(&mut self, bytes: &[u8], fds: Vec<OwnedFd>, sender: i32) -> nix::Result<Received> {
        let message = sys::Message { length: bytes.len(), fds, sender: Some(sender) };
        self.take(&bytes[..bytes.len().min(crate::frame::FRAME_MAX)], message)
    }

    /// All that became known.
    pub(in crate::harness) fn heard(&mut self) -> Evidence {
        mem::take(&mut self.evidence)
    }
}
