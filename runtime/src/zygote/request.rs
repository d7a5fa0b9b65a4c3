//! What goes from the test binary to the zygote and to a sandbox: the address of a constant, and what comes with it.
//!
//! All three are forks of one process, so that the constants and functions of the test binary have one address in all
//! of them. (A library that is loaded after `main` began is not there; tests are never in one.)
#![expect(unsafe_code, reason = "an address becomes a reference again")]

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};

use crate::cgroup::{Joining, Tree};
use crate::sandbox::Channel;
use crate::spec::{Spec, Test};

const SIZE: usize = size_of::<usize>();

/// The bytes that stand for `constant`.
pub(crate) fn encode<T>(constant: &'static T) -> [u8; SIZE] {
    std::ptr::from_ref(constant).expose_provenance().to_ne_bytes()
}

/// A sandbox that the zygote is asked for.
pub(super) struct Request {
    pub(super) spec: &'static Spec,
    pub(super) channel: Channel,
    pub(super) joining: Joining,
}

/// The most bytes of a request: the address of the spec, how often the zygote was moved, two flags, and the mount points of v1.
pub(super) const REQUEST_SIZE: usize = SIZE + size_of::<u32>() + 2 + 1024;

impl Request {
    /// The message that stands for this, but for its descriptors.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Joining { trees, unified, process_limit, moves } = &self.joining;
        let flags = [u8::from(unified.is_some()), u8::from(*process_limit)];
        let mount_points = trees.iter().map(|tree| tree.mount_point.as_bytes_with_nul());
        let head = [&encode(self.spec)[..], &moves.to_ne_bytes(), &flags];
        head.into_iter().chain(mount_points).collect::<Vec<_>>().concat()
    }

    /// Its descriptors, in their order: the channel, v1's files, v2's directory and file.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        let Channel { report, stdout, stderr } = &self.channel;
        let channel = [report, stdout, stderr].map(|fd| fd.as_fd());
        channel.into_iter().chain(self.joining.descriptors()).map(|fd| fd.as_raw_fd()).collect()
    }

    /// `None` if the message or one of the descriptors got lost.
    pub(super) fn decode(message: &[u8], descriptors: Vec<OwnedFd>) -> Option<Self> {
        let (address, rest) = message.split_at_checked(SIZE)?;
        let (moves, &[has_unified, process_limit, ref mount_points @ ..]) = rest.split_first_chunk()? else {
            return None;
        };
        // SAFETY: the test binary sends this to the zygote, and nobody else has the other end of the socket.
        let spec = unsafe { decode(address) }?;
        let mut descriptors = descriptors.into_iter();
        let channel = Channel { report: descriptors.next()?, stdout: descriptors.next()?, stderr: descriptors.next()? };
        let mount_points = mount_points.split_inclusive(|byte| *byte == 0);
        let tree = |path| {
            Some(Tree { mount_point: CString::from_vec_with_nul(Vec::from(path)).ok()?, procs: descriptors.next()? })
        };
        let trees = mount_points.map(tree).collect::<Option<_>>()?;
        let unified = if has_unified == 0 { None } else { Some((descriptors.next()?, descriptors.next()?)) };
        let moves = u32::from_ne_bytes(*moves);
        let joining = Joining { trees, unified, process_limit: process_limit != 0, moves };
        Some(Self { spec, channel, joining })
    }
}

/// The test that a sandbox is told to run.
pub(crate) fn decode_test(message: &[u8]) -> Option<&'static Test> {
    // SAFETY: the test binary sends this to the sandbox, and nobody else has the other end of the socket.
    unsafe { decode(message) }
}

/// # Safety
///
/// The message must come from [`encode`] for the same type, in a process of this family.
unsafe fn decode<T>(message: &[u8]) -> Option<&'static T> {
    let address = usize::from_ne_bytes(message.try_into().ok()?);
    let constant = std::ptr::with_exposed_provenance::<T>(address);
    // SAFETY: the caller promises that a `T` lies there for good; null and crooked addresses are turned away.
    (constant.is_aligned() && !constant.is_null()).then(|| unsafe { &*constant })
}
