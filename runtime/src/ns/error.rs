//! What can't be done with a namespace, and why.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use super::kind::Kind;
use crate::sys::errno_of;
use crate::text::{error, error_with_limit, plain};

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
            // A file that somebody has a lease on, see fcntl(2).
            (Action::Open(_), Errno::EAGAIN) => "somebody else holds the file",
            _ => return write!(f, "belljar: {what}: {}.", error_with_limit(self.errno)),
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

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::text::snapshots::page;

    #[test]
    fn each_error_has_its_words() {
        let open = |path: &str| Action::Open(path.into());
        let actions = [
            (open("/proc/7/ns/net"), vec![Errno::ENOENT, Errno::EACCES]),
            (
                open("/run/netns/a\n"),
                vec![Errno::ENOENT, Errno::EINVAL, Errno::ENOTTY, Errno::EPERM, Errno::EAGAIN, Errno::EIO],
            ),
            (Action::Make(Kind::User), vec![Errno::EPERM, Errno::ENOSPC]),
            (Action::Make(Kind::Net), vec![Errno::EPERM, Errno::ENOSPC, Errno::EINVAL, Errno::EIO]),
            (Action::Enter(Kind::Time), vec![Errno::EUSERS, Errno::EPERM]),
            (Action::Enter(Kind::Pid), vec![Errno::EINVAL]),
            (Action::Enter(Kind::Net), vec![Errno::EINVAL, Errno::EIO, Errno::EMFILE]),
            (Action::Parent(Kind::Net), vec![Errno::EINVAL]),
            (Action::Parent(Kind::Pid), vec![Errno::EPERM]),
            (Action::Owner(Kind::Net), vec![Errno::EPERM]),
            (Action::OwnerUid(Kind::Net), vec![Errno::EINVAL]),
            (Action::Map(Kind::Net), vec![Errno::EINVAL]),
            (Action::Map(Kind::User), vec![Errno::EPERM]),
        ];
        let told = actions.iter().flat_map(|(action, errnos)| errnos.iter().map(move |errno| (action, *errno)));
        let names: Vec<_> = told.clone().map(|(action, _)| format!("{action:?}")).collect();
        let texts = told.map(|(action, errno)| Error { action: action.clone(), errno }.to_string());
        assert_snapshot!(page(names.iter().map(String::as_str).zip(texts)), @r#"
        # Open("/proc/7/ns/net")
        belljar: no namespace could be had from /proc/7/ns/net: ENOENT (No such file or directory): there is no such process, or the kernel has no namespaces of this kind.
        # Open("/proc/7/ns/net")
        belljar: no namespace could be had from /proc/7/ns/net: EACCES (Permission denied): it takes the rights to trace the process, see ptrace(2) on access modes.
        # Open("/run/netns/a\n")
        belljar: no namespace could be had from /run/netns/a\n: ENOENT (No such file or directory): there is no such file.
        # Open("/run/netns/a\n")
        belljar: no namespace could be had from /run/netns/a\n: EINVAL (Invalid argument): no path has a NUL in it.
        # Open("/run/netns/a\n")
        belljar: no namespace could be had from /run/netns/a\n: ENOTTY (Not a typewriter): the file stands for something else.
        # Open("/run/netns/a\n")
        belljar: no namespace could be had from /run/netns/a\n: EPERM (Operation not permitted): it takes the rights to trace the process, see ptrace(2) on access modes.
        # Open("/run/netns/a\n")
        belljar: no namespace could be had from /run/netns/a\n: EAGAIN (Try again): somebody else holds the file.
        # Open("/run/netns/a\n")
        belljar: no namespace could be had from /run/netns/a\n: EIO (I/O error).
        # Make(User)
        belljar: a new user namespace could not be made: EPERM (Operation not permitted): this user may make no user namespaces here, is in a chroot, or is 0 without the rights of root.
        # Make(User)
        belljar: a new user namespace could not be made: ENOSPC (No space left on device): no more namespaces of this kind are allowed (/proc/sys/user).
        # Make(Net)
        belljar: a new net namespace could not be made: EPERM (Operation not permitted): it takes CAP_SYS_ADMIN, which root has in a sandbox. Make it in a test of root's.
        # Make(Net)
        belljar: a new net namespace could not be made: ENOSPC (No space left on device): no more namespaces of this kind are allowed (/proc/sys/user).
        # Make(Net)
        belljar: a new net namespace could not be made: EINVAL (Invalid argument): the kernel has no namespaces of this kind, or a filter refuses them.
        # Make(Net)
        belljar: a new net namespace could not be made: EIO (I/O error).
        # Enter(Time)
        belljar: the time namespace could not be entered: EUSERS (Too many users): the kernel lets only processes with one thread in, see setns(2). Begin a process there, by nsenter(1).
        # Enter(Time)
        belljar: the time namespace could not be entered: EPERM (Operation not permitted): it takes CAP_SYS_ADMIN, there and here.
        # Enter(Pid)
        belljar: the pid namespace could not be entered: EINVAL (Invalid argument): a process can enter only a pid namespace below its own, and after that it can start no thread.
        # Enter(Net)
        belljar: the net namespace could not be entered: EINVAL (Invalid argument): a thread that starts processes in another pid namespace can't start the one that this takes. Enter that one last.
        # Enter(Net)
        belljar: the net namespace could not be entered: EIO (I/O error).
        # Enter(Net)
        belljar: the net namespace could not be entered: EMFILE (Too many open files): this process has as many open files as it may have. Raise the limit (`ulimit -n`).
        # Parent(Net)
        belljar: what is above the net namespace is not known: EINVAL (Invalid argument): only pid and user namespaces have something above.
        # Parent(Pid)
        belljar: what is above the pid namespace is not known: EPERM (Operation not permitted): it lies above the caller's own, or belongs there, of which the kernel tells nothing.
        # Owner(Net)
        belljar: the owner of the net namespace is not known: EPERM (Operation not permitted): it lies above the caller's own, or belongs there, of which the kernel tells nothing.
        # OwnerUid(Net)
        belljar: who has made the net namespace is not known: EINVAL (Invalid argument): that is asked of user namespaces only.
        # Map(Net)
        belljar: the ids of the net namespace are not known: EINVAL (Invalid argument): that is asked of user namespaces only.
        # Map(User)
        belljar: the ids of the user namespace are not known: EPERM (Operation not permitted): it takes CAP_SYS_ADMIN there.
        "#);
    }
}
