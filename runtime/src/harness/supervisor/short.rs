//! Reads and writes of fewer bytes than a call asks for: they are made here, on the caller's behalf, with its file. That may take as long as the
//! file likes, so that each has a thread of its own.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{MsgFlags, getsockopt, recv, send};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::uio::{readv, writev};
use nix::unistd::Pid;

use super::caller::Caller;
use super::shared::Shared;
use super::told::Hit;
use crate::faults::definition::Effect;
use crate::sys::seccomp::{self, Reply};
use crate::sys::{self, errno_of};

/// The most bytes that such a call reads or writes.
const BYTES_MAX: usize = 1 << 20;

/// The most parts that a call has: see readv(2).
const PARTS_MAX: u64 = 1024;

/// How often it is looked whether the caller still waits.
const LOOK: u16 = 50;

/// What a call does to a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

/// What is left of a call when it is short.
struct Work {
    way: Way,
    /// Addresses and lengths in the caller's memory.
    parts: Vec<(u64, usize)>,
    /// Where in the file, if that is said.
    offset: Option<u64>,
    flags: MsgFlags,
}

/// Has a call be short, if it can be. `None` if it goes on as it is.
pub(super) fn perform(shared: &Shared, caller: &Caller, hit: Hit) -> Option<Reply> {
    let Effect::Short(most) = hit.effect else { return None };
    let most = usize::try_from(most).unwrap_or(BYTES_MAX).min(BYTES_MAX);
    let work = work(caller, most)?;
    let process = sys::pidfd_of(Pid::from_raw(i32::try_from(caller.process()?).ok()?)).ok()?;
    let file = seccomp::descriptor_of(process.as_fd(), caller.argument(0) as i32).ok()?;
    if !shared.still_waits(caller) {
        return None;
    }
    let mut bytes = vec![0; work.parts.iter().map(|(_, length)| length).sum()];
    if work.way == Way::Write {
        let mut rest = &mut bytes[..];
        for (address, length) in &work.parts {
            let (part, after) = rest.split_at_mut(*length);
            if seccomp::read_memory(caller.thread, *address, part).ok()? < *length {
                return None;
            }
            rest = after;
        }
    }
    let count = transfer(shared, caller, &work, file, &mut bytes)?;
    if work.way == Way::Read {
        let mut rest = bytes.get(..count)?;
        for (address, length) in &work.parts {
            let (part, after) = rest.split_at(rest.len().min(*length));
            if !part.is_empty() && seccomp::write_memory(caller.thread, *address, part).is_err() {
                return Some(Reply::Fails(libc::EFAULT));
            }
            rest = after;
        }
    }
    shared.hit(caller, &hit);
    Some(Reply::Returns(count as i64))
}

/// What the call is to do. `None` if it is for no more bytes than it may have, or for what can't be done here.
fn work(caller: &Caller, most: usize) -> Option<Work> {
    use Way::{Read, Write};
    let [_, address, length, fourth, _, sixth] = caller.arguments;
    let at = Some(fourth);
    // Flags, and addresses of datagrams, are left to the kernel.
    let (way, is_vector, offset, flags) = match caller.call? {
        "read" => (Read, false, None, 0),
        "write" => (Write, false, None, 0),
        "pread64" => (Read, false, at, 0),
        "pwrite64" => (Write, false, at, 0),
        "readv" => (Read, true, None, 0),
        "writev" => (Write, true, None, 0),
        "preadv" => (Read, true, at, 0),
        "pwritev" => (Write, true, at, 0),
        "preadv2" if sixth == 0 => (Read, true, at.filter(|at| *at != u64::MAX), 0),
        "pwritev2" if sixth == 0 => (Write, true, at.filter(|at| *at != u64::MAX), 0),
        "recvfrom" if caller.argument(4) == 0 => (Read, false, None, fourth as i32),
        "sendto" if caller.argument(4) == 0 => (Write, false, None, fourth as i32),
        _ => return None,
    };
    let all = if is_vector { vector(caller, address, length)? } else { vec![(address, length)] };
    let total = all.iter().fold(0_u64, |sum, (_, length)| sum.saturating_add(*length));
    if total <= most as u64 {
        return None;
    }
    let mut left = most;
    let parts = all.into_iter().map(|(address, length)| {
        let length = usize::try_from(length).unwrap_or(left).min(left);
        left -= length;
        (address, length)
    });
    Some(Work { way, parts: parts.collect(), offset, flags: MsgFlags::from_bits_retain(flags) })
}

/// Reads an array of `iovec`.
fn vector(caller: &Caller, address: u64, count: u64) -> Option<Vec<(u64, u64)>> {
    let mut bytes = vec![0; usize::try_from(count).ok().filter(|_| count <= PARTS_MAX)? * 16];
    let is_whole = seccomp::read_memory(caller.thread, address, &mut bytes).ok()? == bytes.len();
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    is_whole.then(|| bytes.chunks_exact(16).map(|part| (word(&part[..8]), word(&part[8..]))).collect())
}

/// Moves bytes from or to the file. `None` stands for any error: the call itself will have the same.
fn transfer(shared: &Shared, caller: &Caller, work: &Work, file: OwnedFd, bytes: &mut [u8]) -> Option<usize> {
    let kind = SFlag::from_bits_truncate(fstat(&file).ok()?.st_mode) & SFlag::S_IFMT;
    match (kind, work.offset) {
        (SFlag::S_IFREG, Some(offset)) => {
            let file = File::from(file);
            let moved = if work.way == Way::Read { file.read_at(bytes, offset) } else { file.write_at(bytes, offset) };
            moved.ok()
        }
        (SFlag::S_IFREG, None) => move_now(&file, work, bytes).ok(),
        (SFlag::S_IFIFO | SFlag::S_IFSOCK, None) => {
            let never_waits = work.flags.contains(MsgFlags::MSG_DONTWAIT)
                || fcntl(&file, FcntlArg::F_GETFL).map(OFlag::from_bits_retain).ok()?.contains(OFlag::O_NONBLOCK);
            // The caller's file may be one that waits: so a pipe is opened anew, and a socket told not to.
            let own = if kind == SFlag::S_IFIFO { reopen(&file, work.way).ok()? } else { file.try_clone().ok()? };
            let has_timeout = kind == SFlag::S_IFSOCK && has_timeout(&own, work.way);
            loop {
                let moved =
                    if kind == SFlag::S_IFIFO { move_now(&own, work, bytes) } else { exchange(&own, work, bytes) };
                match moved {
                    // The kernel knows for how long.
                    Err(Errno::EAGAIN) if has_timeout => return None,
                    Err(Errno::EAGAIN) if !never_waits => wait(shared, caller, &own, work.way)?,
                    moved => return moved.ok(),
                }
            }
        }
        _ => None,
    }
}

/// Whether a socket waits for a time only: SO_RCVTIMEO and SO_SNDTIMEO in socket(7).
fn has_timeout(socket: &OwnedFd, way: Way) -> bool {
    let time = match way {
        Way::Read => getsockopt(socket, ReceiveTimeout),
        Way::Write => getsockopt(socket, SendTimeout),
    };
    time.is_ok_and(|time| (time.tv_sec(), time.tv_usec()) != (0, 0))
}

fn move_now(file: &OwnedFd, work: &Work, bytes: &mut [u8]) -> nix::Result<usize> {
    match work.way {
        Way::Read => readv(file, &mut [IoSliceMut::new(bytes)]),
        Way::Write => writev(file, &[IoSlice::new(bytes)]),
    }
}

fn exchange(socket: &OwnedFd, work: &Work, bytes: &mut [u8]) -> nix::Result<usize> {
    let flags = work.flags | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match work.way {
        Way::Read => recv(socket.as_raw_fd(), bytes, flags),
        Way::Write => send(socket.as_raw_fd(), bytes, flags),
    }
}

/// A file of this process's own for the same pipe, that never waits.
fn reopen(pipe: &OwnedFd, way: Way) -> nix::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let mut options = File::options();
    options.read(way == Way::Read).write(way == Way::Write).custom_flags(libc::O_NONBLOCK);
    options.open(path).map(OwnedFd::from).map_err(|error: io::Error| errno_of(&error))
}

/// Waits until the file can be read or written. `None` if the caller, or the sandbox, is gone meanwhile.
fn wait(shared: &Shared, caller: &Caller, file: &OwnedFd, way: Way) -> Option<()> {
    let flags = if way == Way::Read { PollFlags::POLLIN } else { PollFlags::POLLOUT };
    let mut fds = [PollFd::new(file.as_fd(), flags), PollFd::new(shared.over.as_fd(), PollFlags::POLLIN)];
    let polled = poll(&mut fds, PollTimeout::from(LOOK));
    let is_over = fds[1].any().unwrap_or(true);
    (polled.is_ok() && !is_over && shared.still_waits(caller)).then_some(())
}
