//! The address of a constant, or of a function, as a message to another process.
//!
//! The test binary, the zygote and the sandboxes are forks of one process, so that its constants and functions have one address in all of
//! them. Not so those of a library that is loaded after `main` began: tests are never in one, and a function may be.
#![expect(unsafe_code, reason = "an address becomes a reference again")]

use std::fmt::Display;
use std::{mem, ptr};

use crate::collect::map_both;
use crate::spec::{Spec, Test};
use crate::sys;

/// How many bytes stand for a constant.
pub(crate) const ADDRESS_SIZE: usize = size_of::<usize>();

/// The bytes that stand for `constant`.
pub(crate) fn encode<T>(constant: &'static T) -> [u8; ADDRESS_SIZE] {
    ptr::from_ref(constant).expose_provenance().to_ne_bytes()
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
    let constant = ptr::with_exposed_provenance::<T>(address);
    // SAFETY: the caller promises that a `T` lies there for good; null and crooked addresses are turned away.
    (constant.is_aligned() && !constant.is_null()).then(|| unsafe { &*constant })
}

/// A function that takes bytes and returns bytes, by its address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    /// Calls it. This alone knows the type of its errors.
    call: Invoke,
    address: usize,
}

type Invoke = fn(usize, &[u8]) -> Result<Vec<u8>, String>;

/// How many bytes stand for a function.
pub(crate) const FUNCTION_SIZE: usize = 2 * ADDRESS_SIZE;

impl Function {
    pub(crate) fn new<E: Display>(function: fn(&[u8]) -> Result<Vec<u8>, E>) -> Self {
        Self { call: call::<E>, address: (function as *const ()).expose_provenance() }
    }

    pub(crate) fn call(self, input: &[u8]) -> Result<Vec<u8>, String> {
        (self.call)(self.address, input)
    }

    /// Whether this process has the code of it.
    pub(crate) fn is_here(self) -> bool {
        [(self.call as *const ()).addr(), self.address].into_iter().all(sys::is_code)
    }

    pub(crate) fn encode(self) -> [u8; FUNCTION_SIZE] {
        let mut bytes = [0; FUNCTION_SIZE];
        bytes[..ADDRESS_SIZE].copy_from_slice(&(self.call as *const ()).expose_provenance().to_ne_bytes());
        bytes[ADDRESS_SIZE..].copy_from_slice(&self.address.to_ne_bytes());
        bytes
    }

    /// The function that a sandbox is told to call.
    pub(crate) fn decode(message: &[u8]) -> Option<Self> {
        let (caller, address) = message.split_at_checked(ADDRESS_SIZE)?;
        let [caller, address] = map_both([caller, address], |bytes| bytes.try_into().ok().map(usize::from_ne_bytes));
        let (caller, address) = (caller.filter(|address| *address != 0)?, address.filter(|address| *address != 0)?);
        // SAFETY: the test binary sends this to the sandbox, and nobody else has the other end of the socket: it comes from `encode`.
        let call = unsafe { mem::transmute::<*const (), Invoke>(ptr::with_exposed_provenance(caller)) };
        Some(Self { call, address })
    }
}

/// Calls the function that has this address.
fn call<E: Display>(address: usize, input: &[u8]) -> Result<Vec<u8>, String> {
    let function = ptr::with_exposed_provenance::<()>(address);
    // SAFETY: `Function::new` alone has put this together with the address of such a function.
    let function = unsafe { mem::transmute::<*const (), fn(&[u8]) -> Result<Vec<u8>, E>>(function) };
    function(input).map_err(|error| format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_called_by_their_addresses() {
        fn reverse(input: &[u8]) -> Result<Vec<u8>, std::num::ParseIntError> {
            Ok(String::from_utf8_lossy(input).parse::<u8>()?.to_string().into_bytes())
        }
        let function = Function::decode(&Function::new(reverse).encode()).expect("a function");
        assert!(function.is_here());
        let data = Function { address: ptr::from_ref(&FUNCTION_SIZE).addr(), ..function };
        assert!(!data.is_here());
        assert_eq!(function.call(b"7"), Ok(b"7".to_vec()));
        assert_eq!(function.call(b"x"), Err("invalid digit found in string".to_owned()));
        for message in [&[][..], &[1; 3], &[0; FUNCTION_SIZE], &[1; FUNCTION_SIZE + 1]] {
            assert!(Function::decode(message).is_none(), "{message:?}");
        }
    }
}
