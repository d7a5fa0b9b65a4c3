//! What code a process has: that of its program and of its libraries.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::slice;

/// An address, and whether it has been found.
struct Wanted {
    address: usize,
    is_found: bool,
}

/// Whether `address` lies in the code of the program, or of a library that is loaded. A fork goes by those that were loaded when it was made.
/// See dl_iterate_phdr(3).
pub(crate) fn is_code(address: usize) -> bool {
    let mut wanted = Wanted { address, is_found: false };
    // SAFETY: `look` is called before this returns, and with a pointer to `wanted`, which nobody else uses meanwhile.
    unsafe { libc::dl_iterate_phdr(Some(look), ptr::from_mut(&mut wanted).cast()) };
    wanted.is_found
}

/// Looks through the segments of the program, or of one library. Another number than 0 says that this is enough.
///
/// # Safety
///
/// `info` is of the C library's, and `wanted` a pointer to a [`Wanted`] that nobody else uses meanwhile.
unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _: usize, wanted: *mut c_void) -> c_int {
    // SAFETY: the C library passes on what `is_code` has given it.
    let (info, wanted) = unsafe { (&*info, &mut *wanted.cast::<Wanted>()) };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the C library says that there are so many headers.
    let segments = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    wanted.is_found = segments.iter().any(|segment| {
        // The sum of both wraps where the C library's does.
        let begin = info.dlpi_addr.wrapping_add(segment.p_vaddr) as usize;
        let is_code = segment.p_type == libc::PT_LOAD && segment.p_flags & libc::PF_X != 0;
        is_code && wanted.address.wrapping_sub(begin) < segment.p_memsz as usize
    });
    wanted.is_found.into()
}
