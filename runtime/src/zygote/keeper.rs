//! Keeps what preparations have left, until the test binary ends.
//!
//! A preparation's root is a tmpfs that is mounted nowhere any more. The kernel copies no such mount (before 6.15), and attaches it once.
//! So it becomes the root of a mount namespace in which there is nothing else and no process. Whoever enters that can copy it, for each
//! template that needs it.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, pivot_root};

use crate::collect::CollectVec as _;
use crate::rootfs::stage::LeftRoot;
use crate::sys::{self, Cloned, SingleThreaded};

const NONE: Option<&CStr> = None;

/// The root that a preparation has left.
pub(super) enum Kept {
    /// A user namespace, and a mount namespace that consists of that root.
    Namespaces { user: OwnedFd, mounts: OwnedFd },
    /// A directory of the host, for all processes of a run. The root may yet have to be made there.
    Directory(PathBuf),
}

impl Kept {
    /// Keeps this tmpfs, which [`clone_mounts`](sys::clone_mounts) has made. Nobody can attach it elsewhere any more.
    pub(super) fn new(tmpfs: &OwnedFd, proof: &SingleThreaded) -> nix::Result<Self> {
        let enter = || {
            let namespace = |path| open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
            let namespaces = vec![namespace(c"/proc/self/ns/user")?, namespace(c"/proc/self/ns/mnt")?];
            mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
            sys::attach_mounts(tmpfs, c"/")?;
            // At the root, `..` stays where it is, and then follows what is mounted there.
            chdir(c"/..")?;
            pivot_root(c".", c".")?;
            umount2(c".", MntFlags::MNT_DETACH)?;
            Ok(namespaces)
        };
        let namespaces = in_clone(libc::CLONE_NEWUSER | libc::CLONE_NEWNS, proof, enter)?;
        let [user, mounts] = namespaces.try_into().map_err(|_| Errno::EMFILE)?;
        Ok(Self::Namespaces { user, mounts })
    }

    /// The root, for a template.
    pub(super) fn root(&self, proof: &SingleThreaded) -> nix::Result<LeftRoot> {
        let (user, mounts) = match self {
            Self::Directory(path) => return Ok(LeftRoot::Directory(path.clone())),
            Self::Namespaces { user, mounts } => (user, mounts),
        };
        let copy = || {
            setns(user, CloneFlags::CLONE_NEWUSER)?;
            setns(mounts, CloneFlags::CLONE_NEWNS)?;
            Ok(vec![sys::clone_mounts(c"/")?])
        };
        in_clone(0, proof, copy)?.pop().map(LeftRoot::Detached).ok_or(Errno::EMFILE)
    }
}

/// Calls `work` in a clone of this process that is in new namespaces, and returns the descriptors that it has made there.
fn in_clone(
    flags: libc::c_int,
    proof: &SingleThreaded,
    work: impl FnOnce() -> nix::Result<Vec<OwnedFd>>,
) -> nix::Result<Vec<OwnedFd>> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    match sys::clone_into(proof, flags, None)? {
        Cloned::Child(_) => {
            let (errno, fds) = match work() {
                Ok(fds) => (0, fds),
                Err(errno) => (errno as i32, Vec::new()),
            };
            let numbers = fds.iter().map(|fd| fd.as_raw_fd()).collect_vec();
            let told = sys::send_in_time(|| sys::send_with_fds(theirs.as_fd(), &errno.to_ne_bytes(), &numbers));
            if let Err(errno) = told {
                let _ = sys::send(theirs.as_fd(), &(errno as i32).to_ne_bytes());
            }
            sys::exit_now(0)
        }
        Cloned::Parent(child) => {
            drop(theirs);
            let mut errno = [0; size_of::<i32>()];
            let received = sys::receive(ours.as_fd(), &mut errno, MsgFlags::empty());
            sys::wait_pid(child)?;
            let message = received?.filter(|message| message.length == errno.len()).ok_or(Errno::ESRCH)?;
            match i32::from_ne_bytes(errno) {
                0 => Ok(message.fds),
                errno => Err(Errno::from_raw(errno)),
            }
        }
    }
}
