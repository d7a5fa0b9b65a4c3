//! Copies within the kernel of fewer bytes than a call asks for: copy_file_range(2) and sendfile(2), made here with the caller's files and offsets.

use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::stat::{SFlag, fstat};

use super::caller::Caller;
use super::shared::Shared;
use crate::collect::map_both;
use crate::sys::seccomp::{self, Reply};

/// Which call it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    CopyFileRange,
    SendFile,
}

/// What is read, or written: which argument is the descriptor, and which refers to the offset, if one does.
#[derive(Clone, Copy)]
struct Side(usize, Option<usize>);

/// A call that copies.
pub(super) struct Copy {
    call: Call,
    from: Side,
    to: Side,
}

impl Copy {
    /// `None` if it is another call. `Some(None)` if it is for no more bytes than it may have, or for what can't be done here.
    pub(super) fn of(caller: &Caller, most: usize) -> Option<Option<Self>> {
        let (call, from, to, length) = match caller.call? {
            "copy_file_range" => (Call::CopyFileRange, Side(0, Some(1)), Side(2, Some(3)), 4),
            "sendfile" => (Call::SendFile, Side(1, Some(2)), Side(0, None), 3),
            _ => return None,
        };
        // There are no flags yet. They have 32 bits.
        let is_known = call == Call::SendFile || caller.argument(5) as u32 == 0;
        Some((is_known && caller.argument(length) > most as u64).then_some(Self { call, from, to }))
    }

    /// Copies so many bytes. `None` if that can't be done here.
    pub(super) fn perform(&self, shared: &Shared, caller: &Caller, most: usize) -> nix::Result<Option<Reply>> {
        let [from, to] = map_both([self.from.0, self.to.0], |at| caller.descriptor(at));
        let (from, to) = (from?, to?);
        let [mut from_offset, mut to_offset] = map_both([self.from, self.to], |end| offset(caller, end));
        if !shared.still_waits(caller) {
            return Ok(None);
        }
        if self.wait(shared, caller, &to).is_none() {
            return Ok(None);
        }
        let (Ok(from_at), Ok(to_at)) = (from_offset.as_mut(), to_offset.as_mut()) else { return Ok(None) };
        let (from_at, to_at) = (from_at.as_mut(), to_at.as_mut());
        let copied = match self.call {
            Call::CopyFileRange => seccomp::copy_file_range(&from, from_at, &to, to_at, most),
            Call::SendFile => seccomp::send_file(&to, &from, from_at, most),
        };
        let copied = copied?;
        for (Side(_, place), offset) in [(self.from, from_offset), (self.to, to_offset)] {
            let (Some(place), Ok(Some(offset))) = (place, offset) else { continue };
            if seccomp::write_memory(caller.thread, caller.argument(place), &offset.to_ne_bytes()).is_err() {
                return Ok(Some(Reply::Fails(libc::EFAULT)));
            }
        }
        Ok(Some(Reply::Returns(copied as i64)))
    }

    /// Waits until something can be written, if the caller would: a call that waits here would not end when the caller does.
    fn wait(&self, shared: &Shared, caller: &Caller, to: &OwnedFd) -> Option<()> {
        let kind = SFlag::from_bits_truncate(fstat(to).ok()?.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFREG {
            return Some(());
        }
        let is_stream = kind == SFlag::S_IFIFO || kind == SFlag::S_IFSOCK && shared.is_stream(to);
        if self.call == Call::CopyFileRange || !is_stream {
            return None;
        }
        let flags = fcntl(to, FcntlArg::F_GETFL).map(OFlag::from_bits_retain).ok()?;
        while !flags.contains(OFlag::O_NONBLOCK) && !shared.wait(caller, to, PollFlags::POLLOUT)? {}
        Some(())
    }
}

/// The offset that an end has. `Ok(None)` if it is the file's own, `Err` if it can't be read.
fn offset(caller: &Caller, Side(_, place): Side) -> nix::Result<Option<u64>> {
    let address = place.map_or(0, |place| caller.argument(place));
    let mut bytes = [0; 8];
    if address == 0 {
        Ok(None)
    } else if seccomp::read_memory(caller.thread, address, &mut bytes)? < bytes.len() {
        Err(nix::errno::Errno::EFAULT)
    } else {
        Ok(Some(u64::from_ne_bytes(bytes)))
    }
}
