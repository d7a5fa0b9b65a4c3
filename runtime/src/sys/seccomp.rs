//! Filters of system calls that ask another process, and what that process does. See seccomp(2) and seccomp_unotify(2).

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::fs::File;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::ptr;
use std::time::Duration;

use libc::{seccomp_notif, seccomp_notif_resp, sock_filter, sock_fprog};
use nix::errno::Errno;

use super::{errno_of, is_of_descriptors, page_size};
use crate::collect::map_both;

// Of linux/seccomp.h.
const NOTIF_RECV: u64 = 0xc050_2100;
const NOTIF_SEND: u64 = 0xc018_2101;
/// The number that kernels had before 5.17, and that all understand.
const NOTIF_ID_VALID: u64 = 0x8008_2102;
const NOTIF_SET_FLAGS: u64 = 0x4008_2104;
const SYNC_WAKE_UP: u64 = 1;

/// What is sent along with calls of our own that no fault may meet: a filter compares the sixth argument, which these calls don't have.
pub(crate) type Cookie = u64;

/// Has each watched call of this process wait for an answer, of all of its threads and of what they start, for good. Returns the descriptor by
/// which the calls come, and whether no signal but SIGKILL interrupts one that waits for an answer.
pub(crate) fn install_filter(filter: &mut [sock_filter]) -> nix::Result<(OwnedFd, bool)> {
    match install(filter) {
        // Without CAP_SYS_ADMIN, a process must first give up what programs with the set-user-ID bit have.
        Err(Errno::EACCES) => {
            nix::sys::prctl::set_no_new_privs()?;
            install(filter)
        }
        result => result,
    }
}

fn install(filter: &mut [sock_filter]) -> nix::Result<(OwnedFd, bool)> {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
        | libc::SECCOMP_FILTER_FLAG_TSYNC
        | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
    // Since 5.19. Without it, a signal has a call begin anew that is being decided.
    match install_with(filter, flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(Errno::EINVAL) => install_with(filter, flags).map(|listener| (listener, false)),
        result => result.map(|listener| (listener, true)),
    }
}

fn install_with(filter: &mut [sock_filter], flags: libc::c_ulong) -> nix::Result<OwnedFd> {
    let length = u16::try_from(filter.len()).map_err(|_| Errno::E2BIG)?;
    let program = sock_fprog { len: length, filter: filter.as_mut_ptr() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: `program` refers to the filter, with its length. The kernel copies it.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) })?;
    // SAFETY: the kernel has just made the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Calls the kernel past the filter that has this cookie.
fn own_call(number: c_long, [a, b, c]: [c_long; 3], cookie: Cookie) -> nix::Result<c_long> {
    // SAFETY: callers see to the arguments. The kernel does not look at those that the call doesn't have.
    Errno::result(unsafe { libc::syscall(number, a, b, c, 0_u64, 0_u64, cookie) })
}

/// Sends `bytes` and descriptors past the filter.
pub(crate) fn send_past(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd], cookie: Cookie) -> nix::Result<()> {
    super::fd::with_message(bytes, fds, |header| {
        let arguments = [c_long::from(socket.as_raw_fd()), ptr::from_ref(header) as c_long, libc::MSG_NOSIGNAL.into()];
        own_call(libc::SYS_sendmsg, arguments, cookie).map(drop)
    })
}

/// Closes a descriptor past the filter: by a descriptor that only this process has, nobody would answer.
pub(crate) fn close_past(fd: OwnedFd, cookie: Cookie) {
    let fd = std::os::fd::IntoRawFd::into_raw_fd(fd);
    let _ = own_call(libc::SYS_close, [fd.into(), 0, 0], cookie);
}

/// Sleeps past the filter, for less than a second.
pub(crate) fn sleep_past(time: Duration, cookie: Cookie) {
    // What nanosleep(2) takes, in words of the machine.
    let time: [c_long; 2] = [0, time.subsec_nanos() as c_long];
    let _ = own_call(libc::SYS_nanosleep, [time.as_ptr() as c_long, 0, 0], cookie);
}

/// This process's number, asked for past the filter.
pub(crate) fn own_pid(cookie: Cookie) -> nix::Result<i32> {
    own_call(libc::SYS_getpid, [0; 3], cookie).map(|pid| pid as i32)
}

/// Waits for nothing: the next call that waits for an answer. ENOENT if it has been interrupted.
pub(crate) fn next_call(listener: BorrowedFd<'_>) -> nix::Result<seccomp_notif> {
    // SAFETY: it is integers. The kernel wants zeros.
    let mut call: seccomp_notif = unsafe { mem::zeroed() };
    request(listener, NOTIF_RECV, (&raw mut call).cast())?;
    Ok(call)
}

/// Whether the call still waits: its process lives, and has the number that it had.
pub(crate) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    let mut id = id;
    request(listener, NOTIF_ID_VALID, (&raw mut id).cast()).is_ok()
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The kernel makes it.
    GoOn,
    /// It returns this.
    Returns(i64),
    Fails(c_int),
}

/// Answers a call.
pub(crate) fn reply(listener: BorrowedFd<'_>, id: u64, reply: Reply) -> nix::Result<()> {
    let (val, error, flags) = match reply {
        Reply::GoOn => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Reply::Returns(value) => (value, 0, 0),
        Reply::Fails(errno) => (0, -errno, 0),
    };
    let mut response = seccomp_notif_resp { id, val, error, flags };
    request(listener, NOTIF_SEND, (&raw mut response).cast())
}

/// Has who answers and who is answered run on one processor, as in a function call, where the kernel can: since 6.6.
pub(crate) fn wake_in_turn(listener: BorrowedFd<'_>) {
    // SAFETY: with this number, the argument is flags.
    let _ = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SET_FLAGS as _, SYNC_WAKE_UP) };
}

fn request(listener: BorrowedFd<'_>, number: u64, argument: *mut c_void) -> nix::Result<()> {
    // SAFETY: callers pass what the number says.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), number as _, argument) }).map(drop)
}

/// How much is read or written at a time that must not go beyond a page, behind which there may be nothing.
const PAGE: u64 = 4096;

/// Reads memory of another process, up to where there is none any more. See process_vm_readv(2).
pub(crate) fn read_memory(pid: u32, address: u64, buffer: &mut [u8]) -> nix::Result<usize> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let first = buffer.len().min((PAGE - address % PAGE) as usize);
    let part = |from: u64, length| libc::iovec { iov_base: from as usize as *mut c_void, iov_len: length };
    let remote = [part(address, first), part(address.wrapping_add(first as u64), buffer.len() - first)];
    // SAFETY: `local` is the buffer. What `remote` refers to is not of this process.
    let read = unsafe {
        libc::process_vm_readv(pid as libc::pid_t, &raw const local, 1, remote.as_ptr(), remote.len() as _, 0)
    };
    Errno::result(read).map(|count| count as usize)
}

/// Writes to memory of another process.
pub(crate) fn write_memory(pid: u32, address: u64, bytes: &[u8]) -> nix::Result<usize> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as usize as *mut c_void, iov_len: bytes.len() };
    // SAFETY: `local` is the bytes, which are only read. What `remote` refers to is not of this process.
    let written = unsafe { libc::process_vm_writev(pid as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0) };
    Errno::result(written).map(|count| count as usize)
}

/// Whether the pages that have these bytes are in another process's memory, so that to read them waits for nothing. See proc_pid_pagemap(5). If
/// that can't be known, it is taken for so, but where descriptors are short. `length` is 4096 at most.
pub(crate) fn is_present(pid: u32, address: u64, length: usize) -> bool {
    const PRESENT: u64 = 1 << 63;
    let page = page_size();
    let (first, last) = (address / page, address.saturating_add(length as u64).saturating_sub(1) / page);
    let mut entries = [0; 16];
    let pages = if first == last { &mut entries[..8] } else { &mut entries[..] };
    let read = File::open(format!("/proc/{pid}/pagemap")).and_then(|pagemap| pagemap.read_exact_at(pages, first * 8));
    let is_present = |entry: &[u8]| entry.try_into().is_ok_and(|entry| u64::from_ne_bytes(entry) & PRESENT != 0);
    match read {
        Ok(()) => pages.chunks_exact(8).all(is_present),
        Err(error) => !is_of_descriptors(errno_of(&error)),
    }
}

/// Copies bytes within the kernel, from and to the files' own positions where there is no offset. See copy_file_range(2).
pub(crate) fn copy_file_range(
    from: &OwnedFd,
    from_offset: Option<&mut u64>,
    to: &OwnedFd,
    to_offset: Option<&mut u64>,
    length: usize,
) -> nix::Result<usize> {
    let [from_offset, to_offset] =
        map_both([from_offset, to_offset], |offset| offset.map_or(ptr::null_mut(), ptr::from_mut));
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: each offset is one of this process's, of 64 bits, or null.
    let copied =
        unsafe { libc::syscall(libc::SYS_copy_file_range, from, from_offset, to, to_offset, length, 0 as c_uint) };
    Errno::result(copied).map(|count| count as usize)
}

/// Copies bytes from a file to another one, a pipe or a socket. See sendfile(2).
pub(crate) fn send_file(to: &OwnedFd, from: &OwnedFd, offset: Option<&mut u64>, length: usize) -> nix::Result<usize> {
    let offset = offset.map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: the offset is one of this process's, or null, and has no fewer bits than any kernel writes.
    let copied = unsafe { libc::syscall(libc::SYS_sendfile, to.as_raw_fd(), from.as_raw_fd(), offset, length) };
    Errno::result(copied).map(|count| count as usize)
}

/// A descriptor of another process, for this one too. See pidfd_getfd(2).
pub(crate) fn descriptor_of(process: BorrowedFd<'_>, number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: it takes integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0 as c_uint) };
    // SAFETY: the kernel has just made the descriptor.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to a thread. See tgkill(2).
pub(crate) fn signal_thread(process: u32, thread: u32, signal: c_int) -> nix::Result<()> {
    // SAFETY: it takes integers.
    Errno::result(unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) }).map(drop)
}

/// Blocks all signals of this thread, for good.
pub(crate) fn block_signals() {
    use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
}
