//! System calls that `nix` lacks, or wraps in a way that doesn't fit here. All `unsafe` code of the crate is in this module, but for the
//! fork of the zygote, the constructor that calls it, and the addresses that become references again.
#![expect(unsafe_code, reason = "raw system calls")]

mod code;
mod errno;
#[cfg(feature = "net")]
mod ethernet;
mod fd;
#[cfg(feature = "faults")]
mod fork;
mod look;
mod mount;
pub(crate) mod namespaces;
#[cfg(feature = "net")]
pub(crate) mod packet;
pub(crate) mod probe;
mod process;
#[cfg(feature = "faults")]
pub(crate) mod seccomp;
#[cfg(any(feature = "net", feature = "faults"))]
#[cfg_attr(not(all(feature = "net", feature = "faults")), expect(dead_code, reason = "each uses its part"))]
pub(crate) mod shared;
mod signal;
mod thread_id;
pub(crate) mod threads;

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Gid, Uid};

// The first calls of these names had 16 bits.
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{SYS_getegid as GETEGID, SYS_geteuid as GETEUID};
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{SYS_getegid32 as GETEGID, SYS_geteuid32 as GETEUID};

pub(crate) use code::*;
pub(crate) use errno::*;
#[cfg(feature = "net")]
pub(crate) use ethernet::*;
pub(crate) use fd::*;
#[cfg(feature = "faults")]
pub(crate) use fork::*;
pub(crate) use look::*;
pub(crate) use mount::*;
pub(crate) use process::*;
pub(crate) use signal::*;

/// Whether these bytes are somewhere among those, as memmem(3) finds it: at some gigabytes a second in debug builds too.
pub(crate) fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    // SAFETY: both slices are valid for their lengths.
    !unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), wanted.as_ptr().cast(), wanted.len()) }.is_null()
}

/// The monotonic clock, in nanoseconds. It is the same for all processes of one time namespace.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Who this process is, in the kernel's own words. The C library's may be another's, such as those of fakeroot(1).
pub(crate) fn geteuid() -> Uid {
    // SAFETY: it takes nothing, and never fails.
    Uid::from_raw(unsafe { libc::syscall(GETEUID) } as libc::uid_t)
}

/// The same of its group.
pub(crate) fn getegid() -> Gid {
    // SAFETY: as above.
    Gid::from_raw(unsafe { libc::syscall(GETEGID) } as libc::gid_t)
}

/// Random bytes, of the kernel's generator. See getrandom(2).
pub(crate) fn random() -> nix::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    // SAFETY: the buffer has this size, and outlives the call. So few bytes come as a whole.
    Errno::result(unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), 0) })?;
    Ok(bytes)
}

/// Starts a thread. What it does is in a box, so that the compiler makes this once, and not anew for each thread: that is 900 lines of LLVM's
/// language in the build of a user.
pub(crate) fn spawn(thread: thread::Builder, work: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    thread.spawn(work)
}
