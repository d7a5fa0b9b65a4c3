//! The address of a constant, as a message to another process.
//!
//! The test binary, the zygote and the sandboxes are forks of one process, so that its constants and functions have one address in all of
//! them. (A library that is loaded after `main` began is not there; tests are never in one.)
#![expect(unsafe_code, reason = "an address becomes a reference again")]

use crate::spec::{Spec, Test};

/// How many bytes stand for a constant.
pub(crate) const ADDRESS_SIZE: usize = size_of::<usize>();

/// The bytes that stand for `constant`.
pub(crate) fn encode<T>(constant: &'static T) -> [u8; ADDRESS_SIZE] {
    std::ptr::from_ref(constant).expose_provenance().to_ne_bytes()
}

/// The sandbox that the zygote is asked for.
pub(crate) fn decode_spec(message: &[u8]) -> Option<&'static Spec> {
    // SAFETY: the test binary sends this to the zygote, and nobody else has the other end of the socket.
    unsafe { decode(message) }
}

/// The test that a sandbox is told to run, or the preparation that the zygote is told of.
pub(crate) fn decode_test(message: &[u8]) -> Option<&'static Test> {
    // SAFETY: the test binary sends this to the sandbox or to the zygote, and nobody else has the other end of the socket.
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
