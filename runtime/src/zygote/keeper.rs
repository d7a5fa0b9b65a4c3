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
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, pivot_root};

use crate::collect::CollectVec as _;
use crate::rootfs::stage::LeftRoot;
use crate::sys::{self, Cloned, SingleThreaded, mount};

const NONE: Option<&CStr> = None;

/// The root that a preparation has left.
pub(super) enum Kept {
    /// A tmpfs that is mounted nowhere, from [`clone_mounts`](sys::clone_mounts). For the first test that needs it, it is attached, and becomes the
    /// next.
    Tmpfs(OwnedFd),
    /// A user namespace, and a mount namespace that consists of that root.
    Namespaces { user: OwnedFd, mounts: OwnedFd },
    /// It is lost, for this reason.
    Lost(Errno),
    /// A directory of the host, for all processes of a run. The root may yet have to be made there.
    Directory(PathBuf),
}

impl Kept {
    /// The root, for a template. Where that fails for want of descriptors, it can be tried again.
    pub(super) fn root(&mut self, proof: &SingleThreaded) -> nix::Result<LeftRoot> {
        if let Self::Tmpfs(tmpfs) = self {
            *self = match attach(tmpfs, proof) {
                Err(errno) if sys::is_of_descriptors(errno) => return Err(errno),
                Err(errno) => Self::Lost(errno),
                Ok(kept) => kept,
            };
        }
        let (user, mounts) = match self {
            Self::Directory(path) => return Ok(LeftRoot::Directory(path.clone())),
            Self::Namespaces { user, mounts } => (user, mounts),
            Self::Lost(errno) => return Err(*errno),
            Self::Tmpfs(_) => return Err(Errno::EINVAL),
        };
        let root = in_clone(0, proof, 1, &|hand_over| {
            setns(&*user, CloneFlags::CLONE_NEWUSER)?;
            setns(&*mounts, CloneFlags::CLONE_NEWNS)?;
            hand_over(&[sys::clone_mounts(c"/")?])
        })?;
        Ok(LeftRoot::Detached(root.into_iter().next().ok_or(Errno::EMFILE)?))
    }
}

/// Attaches this tmpfs, which works only once. If the zygote did not get the descriptors of the namespaces then, the root would be lost. So they
/// are handed over before.
fn attach(tmpfs: &OwnedFd, proof: &SingleThreaded) -> nix::Result<Kept> {
    let handed = in_clone(libc::CLONE_NEWUSER | libc::CLONE_NEWNS, proof, 2, &|hand_over| {
        let namespace = |path| open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        hand_over(&[namespace(c"/proc/self/ns/user")?, namespace(c"/proc/self/ns/mnt")?])?;
        mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        sys::attach_mounts(tmpfs, c"/")?;
        // `/` is still the old root, below the new mount. `/..` leads to what is mounted on it.
        chdir(c"/..")?;
        pivot_root(c".", c".")?;
        umount2(c".", MntFlags::MNT_DETACH)
    })?;
    let [user, mounts] = handed.try_into().map_err(|_| Errno::EMFILE)?;
    Ok(Kept::Namespaces { user, mounts })
}

/// Hands descriptors over.
type HandOver<'h> = &'h dyn Fn(&[OwnedFd]) -> nix::Result<()>;

/// Calls `work` in a clone of this process that is in new namespaces, and returns the descriptors that it hands over, which are `count`. Handing
/// over fails if they do not all come.
fn in_clone(
    flags: libc::c_int,
    proof: &SingleThreaded,
    count: usize,
    work: &dyn Fn(HandOver<'_>) -> nix::Result<()>,
) -> nix::Result<Vec<OwnedFd>> {
    const OK: [u8; 4] = 0_i32.to_ne_bytes();
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    match sys::clone_into(proof, flags, None)? {
        Cloned::Child(_) => {
            drop(ours);
            // This does not try again after ETOOMANYREFS. Descriptors that are on their way may be in the zygote's own socket, and the zygote
            // reads nothing while it waits for this process.
            let hand_over = |fds: &[OwnedFd]| {
                sys::send_with_fds(theirs.as_fd(), &OK, &fds.iter().map(|fd| fd.as_raw_fd()).collect_vec())?;
                sys::receive(theirs.as_fd(), &mut [0], MsgFlags::empty())?.map(drop).ok_or(Errno::EMFILE)
            };
            let errno = work(&hand_over).err().map_or(0, |errno| errno as i32);
            let _ = sys::send(theirs.as_fd(), &errno.to_ne_bytes());
            sys::exit_now(0)
        }
        Cloned::Parent(child) => {
            drop(theirs);
            let told = take_over(ours, count);
            sys::wait_pid(child)?;
            told
        }
    }
}

/// The zygote's side of [`in_clone`]: takes the descriptors, acknowledges them, and waits until the child is done, or fails with the error that the child
/// tells.
fn take_over(socket: OwnedFd, count: usize) -> nix::Result<Vec<OwnedFd>> {
    let next = || {
        let mut errno = [0; size_of::<i32>()];
        let received = sys::receive(socket.as_fd(), &mut errno, MsgFlags::empty())?;
        let message = received.filter(|message| message.length == errno.len()).ok_or(Errno::ESRCH)?;
        match i32::from_ne_bytes(errno) {
            0 => Ok(message.fds),
            errno => Err(Errno::from_raw(errno)),
        }
    };
    let fds = Some(next()?).filter(|fds| fds.len() == count).ok_or(Errno::EMFILE)?;
    sys::send(socket.as_fd(), b"0")?;
    next()?;
    Ok(fds)
}
