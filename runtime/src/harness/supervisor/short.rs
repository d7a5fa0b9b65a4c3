//! Reads and writes of fewer bytes than a call asks for: they are made here, on the caller's behalf, with its file. That may take as long as the
//! file likes, so that each has a thread of its own.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{MsgFlags, getsockopt, recv, send};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::uio::{readv, writev};

use super::caller::Caller;
use super::copy::Copy;
use super::shared::Shared;
use super::told::Hit;
use crate::collect::CollectVec as _;
use crate::faults::definition::Effect;
use crate::sys::seccomp::{self, Reply};
use crate::sys::{errno_of, is_of_descriptors};

/// The most bytes that such a call reads or writes.
const BYTES_MAX: usize = 1 << 20;

/// The most parts that a call has: see readv(2).
const PARTS_MAX: u64 = 1024;

/// What a call may ask for besides. Other flags change what it reads or writes, and are left to the kernel.
const FLAGS: MsgFlags = MsgFlags::MSG_PEEK
    .union(MsgFlags::MSG_DONTWAIT)
    .union(MsgFlags::MSG_WAITALL)
    .union(MsgFlags::MSG_NOSIGNAL)
    .union(MsgFlags::MSG_CMSG_CLOEXEC)
    .union(MsgFlags::MSG_EOR)
    .union(MsgFlags::from_bits_retain(libc::MSG_MORE));

/// What a call does to a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl Access {
    /// What poll(2) calls a file that is ready for it.
    fn ready(self) -> PollFlags {
        match self {
            Self::Read => PollFlags::POLLIN,
            Self::Write => PollFlags::POLLOUT,
        }
    }
}

/// What is left of a call when it is short.
struct Work {
    way: Access,
    /// Addresses and lengths in the caller's memory.
    parts: Vec<(u64, usize)>,
    /// Where in the file, if that is said.
    offset: Option<u64>,
    flags: MsgFlags,
}

/// Has a call be short, if it can be. `None` if it goes on as it is.
pub(super) fn perform(shared: &Shared, caller: &Caller, hit: Hit) -> Option<Reply> {
    let reply = make_short(shared, caller, &hit).unwrap_or_else(|errno| {
        // Of any other error, the call itself will have the same.
        if is_of_descriptors(errno) || errno == Errno::ENOMEM {
            shared.miss(caller, errno);
        }
        None
    });
    if reply.is_some() {
        shared.hit(caller, &hit);
    }
    reply
}

fn make_short(shared: &Shared, caller: &Caller, hit: &Hit) -> nix::Result<Option<Reply>> {
    let Effect::Short(most) = hit.effect else { return Ok(None) };
    let most = usize::try_from(most).unwrap_or(BYTES_MAX).min(BYTES_MAX);
    match Copy::of(caller, most) {
        Some(copy) => copy.map_or(Ok(None), |copy| copy.perform(shared, caller, most)),
        None => shorten(shared, caller, most),
    }
}

/// Has a read or a write be short.
fn shorten(shared: &Shared, caller: &Caller, most: usize) -> nix::Result<Option<Reply>> {
    let Some(work) = work(caller, most) else { return Ok(None) };
    let file = caller.descriptor(0)?;
    if !shared.still_waits(caller) {
        return Ok(None);
    }
    let mut bytes = vec![0; work.parts.iter().map(|(_, length)| length).sum()];
    if work.way == Access::Write {
        let mut rest = &mut bytes[..];
        for (address, length) in &work.parts {
            let (part, after) = rest.split_at_mut(*length);
            if seccomp::read_memory(caller.thread, *address, part)? < *length {
                return Ok(None);
            }
            rest = after;
        }
    }
    let Some(count) = transfer(shared, caller, &work, file, &mut bytes)? else { return Ok(None) };
    if work.way == Access::Read {
        let mut rest = &bytes[..bytes.len().min(count)];
        for (address, length) in &work.parts {
            let (part, after) = rest.split_at(rest.len().min(*length));
            if !part.is_empty() && seccomp::write_memory(caller.thread, *address, part).is_err() {
                return Ok(Some(Reply::Fails(libc::EFAULT)));
            }
            rest = after;
        }
    }
    Ok(Some(Reply::Returns(count as i64)))
}

/// What the call is to do. `None` if it is for no more bytes than it may have, or for what can't be done here.
fn work(caller: &Caller, most: usize) -> Option<Work> {
    use Access::{Read, Write};
    let [_, address, length, fourth, _, sixth] = caller.arguments;
    let at = Some(fourth);
    // Some flags, and addresses, are left to the kernel.
    let (way, is_vector, offset, flags) = match caller.call? {
        "read" => (Read, false, None, 0),
        "write" => (Write, false, None, 0),
        "pread64" => (Read, false, at, 0),
        "pwrite64" => (Write, false, at, 0),
        "readv" => (Read, true, None, 0),
        "writev" => (Write, true, None, 0),
        "preadv" => (Read, true, at, 0),
        "pwritev" => (Write, true, at, 0),
        "preadv2" if sixth as u32 == 0 => (Read, true, at.filter(|at| *at != u64::MAX), 0),
        "pwritev2" if sixth as u32 == 0 => (Write, true, at.filter(|at| *at != u64::MAX), 0),
        "recvfrom" if caller.argument(4) == 0 => (Read, false, None, fourth as i32),
        "sendto" if caller.argument(4) == 0 => (Write, false, None, fourth as i32),
        _ => return None,
    };
    let flags = MsgFlags::from_bits_retain(flags);
    if !FLAGS.contains(flags) {
        return None;
    }
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
    Some(Work { way, parts: parts.collect_vec(), offset, flags })
}

/// Reads an array of `iovec`.
fn vector(caller: &Caller, address: u64, count: u64) -> Option<Vec<(u64, u64)>> {
    let mut bytes = vec![0; usize::try_from(count).ok().filter(|_| count <= PARTS_MAX)? * 16];
    let is_whole = seccomp::read_memory(caller.thread, address, &mut bytes).ok()? == bytes.len();
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    is_whole.then(|| bytes.chunks_exact(16).map(|part| (word(&part[..8]), word(&part[8..]))).collect_vec())
}

/// Moves bytes from or to the file. `None` if that can't be done here.
fn transfer(
    shared: &Shared,
    caller: &Caller,
    work: &Work,
    file: OwnedFd,
    bytes: &mut [u8],
) -> nix::Result<Option<usize>> {
    let kind = SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT;
    match (kind, work.offset) {
        (SFlag::S_IFREG, Some(offset)) => {
            let file = File::from(file);
            let moved =
                if work.way == Access::Read { file.read_at(bytes, offset) } else { file.write_at(bytes, offset) };
            moved.map(Some).map_err(|error| errno_of(&error))
        }
        (SFlag::S_IFREG, None) => move_now(&file, work, bytes).map(Some),
        // A datagram that is read or written in part is one that loses the rest: no kernel has it so.
        (SFlag::S_IFSOCK, None) if !shared.is_stream(&file) => Ok(None),
        (SFlag::S_IFIFO | SFlag::S_IFSOCK, None) => {
            let never_waits = work.flags.contains(MsgFlags::MSG_DONTWAIT)
                || fcntl(&file, FcntlArg::F_GETFL).map(OFlag::from_bits_retain)?.contains(OFlag::O_NONBLOCK);
            // The caller's file may be one that waits: so a pipe is opened anew, and a socket told not to.
            let own = if kind == SFlag::S_IFIFO { reopen(&file, work.way)? } else { file };
            let has_timeout = kind == SFlag::S_IFSOCK && has_timeout(&own, work.way);
            loop {
                let moved =
                    if kind == SFlag::S_IFIFO { move_now(&own, work, bytes) } else { exchange(&own, work, bytes) };
                match moved {
                    // The kernel knows for how long.
                    Err(Errno::EAGAIN) if has_timeout => return Ok(None),
                    Err(Errno::EAGAIN) if !never_waits => {
                        if shared.wait(caller, &own, work.way.ready()).is_none() {
                            return Ok(None);
                        }
                    }
                    moved => return moved.map(Some),
                }
            }
        }
        _ => Ok(None),
    }
}

/// Whether a socket waits for a time only: SO_RCVTIMEO and SO_SNDTIMEO in socket(7).
fn has_timeout(socket: &OwnedFd, way: Access) -> bool {
    let time = match way {
        Access::Read => getsockopt(socket, ReceiveTimeout),
        Access::Write => getsockopt(socket, SendTimeout),
    };
    time.is_ok_and(|time| (time.tv_sec(), time.tv_usec()) != (0, 0))
}

fn move_now(file: &OwnedFd, work: &Work, bytes: &mut [u8]) -> nix::Result<usize> {
    match work.way {
        Access::Read => readv(file, &mut [IoSliceMut::new(bytes)]),
        Access::Write => writev(file, &[IoSlice::new(bytes)]),
    }
}

fn exchange(socket: &OwnedFd, work: &Work, bytes: &mut [u8]) -> nix::Result<usize> {
    let flags = work.flags | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match work.way {
        Access::Read => recv(socket.as_raw_fd(), bytes, flags),
        Access::Write => send(socket.as_raw_fd(), bytes, flags),
    }
}

/// A file of this process's own for the same pipe, that never waits.
fn reopen(pipe: &OwnedFd, way: Access) -> nix::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let mut options = File::options();
    options.read(way == Access::Read).write(way == Access::Write).custom_flags(libc::O_NONBLOCK);
    options.open(path).map(OwnedFd::from).map_err(|error: io::Error| errno_of(&error))
}
