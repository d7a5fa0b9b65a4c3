//! System calls with wrong arguments, which the kernel always refuses with the same error, before it looks at who calls. If another error
//! comes back, a seccomp filter gave it.

use std::ffi::{c_int, c_long};
use std::ptr;

use nix::errno::Errno;

use super::process::{clone, exit_now};

/// The answer to a call that no kernel grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The call, as a person writes it.
    pub(crate) call: &'static str,
    pub(crate) errno: Errno,
    /// What the kernel answers.
    pub(crate) expected: Errno,
}

impl Answer {
    /// The answer, if it was not the kernel's.
    fn of_filter(call: &'static str, result: c_long, expected: Errno) -> Option<Self> {
        let errno = Errno::result(result).err()?;
        (errno != expected).then_some(Self { call, errno, expected })
    }
}

/// Whether a filter refuses to clone processes into new user namespaces. See clone(2): CLONE_FS excludes these.
pub(crate) fn clone_is_filtered() -> Option<Answer> {
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_FS | libc::SIGCHLD;
    // SAFETY: nothing is cloned: the flags exclude each other. Should there be a child all the same, it ends at once.
    let result = unsafe { clone(flags, None) };
    if result == 0 {
        exit_now(0);
    }
    Answer::of_filter("clone(CLONE_NEWUSER|CLONE_FS)", result, Errno::EINVAL)
}

/// Whether a filter refuses to unshare these namespaces. See unshare(2): it knows no signals, which the lowest bits are to clone(2).
pub(crate) fn unshare_is_filtered(flags: c_int) -> Option<Answer> {
    // SAFETY: nothing is unshared: the lowest bit is no flag.
    let result = unsafe { libc::syscall(libc::SYS_unshare, flags | 1) };
    let call = match flags {
        libc::CLONE_NEWUSER => "unshare(CLONE_NEWUSER|1)",
        libc::CLONE_NEWTIME => "unshare(CLONE_NEWTIME|1)",
        _ => "unshare(CLONE_NEWNS|CLONE_NEWNET|1)",
    };
    Answer::of_filter(call, result, Errno::EINVAL)
}

/// Whether a filter refuses to mount. See mount(2).
pub(crate) fn mount_is_filtered() -> Option<Answer> {
    let (nothing, nowhere) = (ptr::null::<u8>(), ptr::without_provenance::<u8>(1));
    // SAFETY: nothing is mounted: nothing can be at that address, as the kernel will find.
    let result = unsafe { libc::syscall(libc::SYS_mount, nothing, nowhere, nothing, 0 as c_long, nothing) };
    Answer::of_filter("mount(2) with a bad address", result, Errno::EFAULT)
}

/// Whether a filter refuses to change roots, which only who has CAP_SYS_ADMIN can find out. See pivot_root(2).
pub(crate) fn pivot_root_is_filtered() -> Option<Answer> {
    let nowhere = ptr::without_provenance::<u8>(1);
    // SAFETY: no root is changed: nothing can be at that address, as the kernel will find.
    let result = unsafe { libc::syscall(libc::SYS_pivot_root, nowhere, nowhere) };
    Answer::of_filter("pivot_root(2) with a bad address", result, Errno::EFAULT)
}

/// Whether a filter refuses descriptors for processes. See pidfd_open(2): no process has a negative number.
pub(crate) fn pidfd_open_is_filtered() -> Option<Answer> {
    // SAFETY: pidfd_open takes two integers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, -1, 0) };
    Answer::of_filter("pidfd_open(-1)", result, Errno::EINVAL)
}
