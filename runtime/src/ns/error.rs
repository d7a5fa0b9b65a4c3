//! What can't be done with a namespace, and why.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use super::kind::Kind;
use crate::sys::errno_of;
use crate::text::{error, plain};

/// What was to be done with a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Open(PathBuf),
    Make(Kind),
    Enter(Kind),
    Parent(Kind),
    Owner(Kind),
    OwnerUid(Kind),
    Map(Kind),
}

/// What can't be done with a namespace. It says why.
///
/// ```
/// # use belljar::ns::Namespace;
/// let error = Namespace::open("/run/netns/none").unwrap_err();
/// assert!(error.to_string().contains("/run/netns/none"), "{error}");
/// assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::NotFound);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub(super) action: Action,
    pub(super) errno: Errno,
}

impl Error {
    pub(super) fn of(action: Action, error: &io::Error) -> Self {
        Self { action, errno: errno_of(error) }
    }

    /// The kernel's error number, as errno(3) lists them.
    ///
    /// ```
    /// # use belljar::ns::Namespace;
    /// let error = Namespace::open("/run/netns/none").unwrap_err();
    /// assert_eq!(error.errno(), libc::ENOENT);
    /// ```
    pub fn errno(&self) -> i32 {
        self.errno as i32
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let what = match &self.action {
            Action::Open(path) => format!("no namespace could be had from {}", plain(path.display())),
            Action::Make(kind) => format!("a new {} namespace could not be made", kind.name()),
            Action::Enter(kind) => format!("the {} namespace could not be entered", kind.name()),
            Action::Parent(kind) => format!("what is above the {} namespace is not known", kind.name()),
            Action::Owner(kind) => format!("the owner of the {} namespace is not known", kind.name()),
            Action::OwnerUid(kind) => format!("who has made the {} namespace is not known", kind.name()),
            Action::Map(kind) => format!("the ids of the {} namespace are not known", kind.name()),
        };
        let why = match (&self.action, self.errno) {
            (Action::Open(path), Errno::ENOENT) if path.starts_with("/proc") => {
                "there is no such process, or the kernel has no namespaces of this kind"
            }
            (Action::Open(_), Errno::ENOENT) => "there is no such file",
            (Action::Open(_), Errno::EINVAL) => "no path has a NUL in it",
            (Action::Open(_), Errno::ENOTTY) => "the file stands for something else",
            (Action::Open(_), Errno::EACCES | Errno::EPERM) => {
                "it takes the rights to trace the process, see ptrace(2) on access modes"
            }
            (Action::Make(Kind::User), Errno::EPERM) => {
                "this user may make no user namespaces here, is in a chroot, or is 0 without the rights of root"
            }
            (Action::Make(_), Errno::EPERM) => {
                "it takes CAP_SYS_ADMIN, which root has in a sandbox. Make it in a test of root's"
            }
            (Action::Make(_), Errno::ENOSPC) => "no more namespaces of this kind are allowed (/proc/sys/user)",
            (Action::Make(_), Errno::EINVAL | Errno::ENOSYS) => {
                "the kernel has no namespaces of this kind, or a filter refuses them"
            }
            (Action::Enter(Kind::User | Kind::Time), Errno::EINVAL | Errno::EUSERS) => {
                "the kernel lets only processes with one thread in, see setns(2). Begin a process there, by nsenter(1)"
            }
            (Action::Enter(_), Errno::EPERM) => "it takes CAP_SYS_ADMIN, there and here",
            (Action::Enter(Kind::Pid), Errno::EINVAL) => {
                "a process can enter only a pid namespace below its own, and after that it can start no thread"
            }
            (Action::Enter(_), Errno::EINVAL) => {
                "a thread that starts processes in another pid namespace can't start the one that this takes. Enter that one last"
            }
            (Action::Parent(_), Errno::EINVAL) => "only pid and user namespaces have something above",
            (Action::OwnerUid(_) | Action::Map(_), Errno::EINVAL) => "that is asked of user namespaces only",
            (Action::Parent(_) | Action::Owner(_), Errno::EPERM) => {
                "it lies above the caller's own, or belongs there, of which the kernel tells nothing"
            }
            (Action::Map(_), Errno::EPERM) => "it takes CAP_SYS_ADMIN there",
            _ => return write!(f, "belljar: {what}: {}.", error(self.errno)),
        };
        write!(f, "belljar: {what}: {}: {why}.", error(self.errno))
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(Self::from_raw_os_error(error.errno()).kind(), error)
    }
}
