//! Answers to what a body asks. Each goes to a socket that came with the question. The test binary never waits for the body.

use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::thread;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, getsockname, send, sendmsg};

use crate::cgroup::{Cgroup, GroupHandle, NoGroup, refused};
use crate::collect::CollectVec as _;
use crate::diagnosis::explain_cgroup;
use crate::frame::changes::{self, Change};
use crate::sys::{errno_of, spawn};
use crate::text::error;

/// The socket that came from the sandbox has room for an answer. Whatever else somebody has sent in its place is not waited for.
const FLAGS: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

/// Answers with these bytes.
pub(super) fn tell(socket: &OwnedFd, bytes: &[u8]) {
    let _ = send(socket.as_raw_fd(), bytes, FLAGS);
}

/// Answers what has changed: with an error, or with 0 and a file. `None` stands for a root that is no copy.
pub(super) fn tell_changes(socket: &OwnedFd, changes: Option<io::Result<Vec<Change>>>) {
    let list = || {
        let changes = changes.ok_or(Errno::ENODATA)?.map_err(|error| errno_of(&error))?;
        let mut file = File::from(memfd_create(c"changes", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&changes::encode(&changes)).map_err(|error| errno_of(&error))?;
        Ok::<_, Errno>(file)
    };
    let told = match list() {
        Ok(file) => reply(socket, &0_i32.to_ne_bytes(), &[file.as_raw_fd()]),
        Err(errno) => Err(errno),
    };
    if let Err(errno) = told {
        tell(socket, &(errno as i32).to_ne_bytes());
    }
}

/// Makes a group, and answers with its directories.
pub(super) fn hand_group(socket: &OwnedFd, name: &[u8], cgroup: &mut Cgroup) {
    let Some(name) = std::str::from_utf8(name).ok().filter(|name| GroupHandle::is_name(name)) else { return };
    let made = cgroup.make_group(name).map_err(|trouble| {
        let text = refused(name, &trouble, explain_cgroup(&trouble).map(|cause| cause.to_string()).as_deref());
        NoGroup { errno: trouble.errno(), text }
    });
    let fds = made.iter().flat_map(GroupHandle::descriptors).map(|fd| fd.as_raw_fd()).collect_vec();
    if let Err(errno) = reply(socket, &GroupHandle::encode(&made), &fds) {
        // If none was made, an older group may have this name, and stays.
        if made.is_ok() {
            cgroup.remove_group(name);
        }
        let text = format!("belljar: no group `{name}`: its descriptors could not be sent: {}.", error(errno));
        tell(socket, &GroupHandle::encode(&Err(NoGroup { errno: Some(errno), text })));
    }
}

/// Answers with descriptors. Fails if too many are on their way, or if the asker has put another socket in the place of its own.
fn reply(socket: &OwnedFd, bytes: &[u8], fds: &[RawFd]) -> nix::Result<()> {
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &[ControlMessage::ScmRights(fds)], FLAGS, None).map(drop)
}

/// Closes a descriptor that came from the sandbox. With some, such as a socket that lingers, that takes as long as the sandbox
/// likes, so that nobody waits for it.
pub(super) fn discard(descriptor: OwnedFd) {
    if getsockname::<UnixAddr>(descriptor.as_raw_fd()).is_err() {
        // Where no thread can be had, it is closed here.
        let _ = spawn(thread::Builder::new(), Box::new(move || drop(descriptor)));
    }
}
