//! Tells the test binary when something was done, where a trace is wanted. It takes some microseconds each time, and otherwise
//! nothing.

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send};

use super::frames::{Buffer, Frame};
use super::refusal::RefusalRef;
use super::step::{Moment, Step};
use crate::sys;

/// Whether a trace is wanted. The zygote sets it for all that it will fork.
static WANTED: AtomicBool = AtomicBool::new(false);

/// The frame socket of the sandbox that is being made, or that this is.
static SOCKET: AtomicI32 = AtomicI32::new(-1);

/// From now on moments are told.
pub(crate) fn enable() {
    WANTED.store(true, Ordering::Relaxed);
}

/// From now on moments are told over this socket, if a trace is wanted. Otherwise nothing is written: to write to memory that a fork shares
/// costs a page.
pub(crate) fn set_socket(socket: BorrowedFd<'_>) {
    if is_wanted() {
        SOCKET.store(socket.as_raw_fd(), Ordering::Relaxed);
    }
}

/// How much more the clock shows here than outside, in nanoseconds.
static AHEAD: AtomicU64 = AtomicU64::new(0);

/// From now on this process is in a time namespace of its own.
pub(crate) fn set_clock_offset(offset: Duration) {
    AHEAD.store(u64::try_from(offset.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Whether a trace is wanted.
pub(crate) fn is_wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}

/// What the clock shows outside, in nanoseconds.
pub(crate) fn clock() -> u64 {
    sys::now().saturating_sub(AHEAD.load(Ordering::Relaxed))
}

/// Records that `moment` is reached now.
pub(crate) fn record(moment: Moment, path: &CStr) {
    if is_wanted() {
        let mut buffer = Buffer::new();
        let frame = Frame::Mark { moment, at: clock(), path: path.to_bytes() };
        // What gets lost is missing in the trace.
        let _ = send(SOCKET.load(Ordering::Relaxed), frame.encode(&mut buffer), MsgFlags::MSG_NOSIGNAL);
    }
}

/// Names the step that an error belongs to, and tells of one that is done.
pub(crate) trait OrRefuse<T> {
    fn or_refuse(self, step: Step, path: &CStr) -> Result<T, RefusalRef<'_>>;
}

impl<T> OrRefuse<T> for nix::Result<T> {
    fn or_refuse(self, step: Step, path: &CStr) -> Result<T, RefusalRef<'_>> {
        let value = self.map_err(|errno| RefusalRef::of_call(step, path, errno))?;
        record(Moment::Done(step), path);
        Ok(value)
    }
}
