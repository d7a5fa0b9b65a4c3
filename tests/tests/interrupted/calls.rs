//! The calls that fail, and with which errors.

use std::ffi::c_long;

use belljar_tests::supervisor::{Answer, Role};

use nix::errno::Errno;
use nix::errno::Errno::*;

/// Calls that can't fail, or whose failure changes nothing: close(2) has closed the descriptor by then.
pub(crate) const SAFE: &[c_long] = &[
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getpgid,
    libc::SYS_uname,
    libc::SYS_clock_gettime,
    libc::SYS_execve,
    libc::SYS_mprotect,
    libc::SYS_umask,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
];

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
pub(crate) const POLL: c_long = libc::SYS_ppoll;
#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
pub(crate) const POLL: c_long = libc::SYS_poll;

/// What makes directories, and which of its arguments is the path.
#[cfg(target_arch = "x86_64")]
pub(crate) const MKDIR: (c_long, usize) = (libc::SYS_mkdir, 0);
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const MKDIR: (c_long, usize) = (libc::SYS_mkdirat, 1);

/// The errors that calls may give.
const ERRORS: &[(&[c_long], &[Errno])] = &[
    (&[libc::SYS_openat, libc::SYS_openat2], &[EMFILE, ENFILE, ENOMEM, EACCES, EINTR]),
    (&[libc::SYS_read, libc::SYS_pread64], &[EIO, EINTR, ENOMEM]),
    (&[libc::SYS_write], &[EIO, EINTR, ENOMEM, ENOSPC, EPERM]),
    (
        &[
            libc::SYS_statx,
            libc::SYS_readlinkat,
            libc::SYS_faccessat,
            libc::SYS_faccessat2,
            libc::SYS_getdents64,
            libc::SYS_statfs,
            libc::SYS_fgetxattr,
        ],
        &[EIO, ENOMEM, EACCES],
    ),
    (&[libc::SYS_lseek], &[EINVAL]),
    (&[libc::SYS_getcwd], &[ENOENT, ENOMEM]),
    (&[libc::SYS_recvmsg, libc::SYS_recvfrom], &[EINTR, ENOMEM]),
    (&[libc::SYS_sendmsg, libc::SYS_sendto], &[EINTR, ENOBUFS, ENOMEM, ETOOMANYREFS]),
    (&[libc::SYS_ppoll], &[EINTR, ENOMEM]),
    (
        &[
            libc::SYS_socketpair,
            libc::SYS_socket,
            libc::SYS_pipe2,
            libc::SYS_memfd_create,
            libc::SYS_eventfd2,
            libc::SYS_pidfd_open,
        ],
        &[EMFILE, ENFILE, ENOMEM],
    ),
    (&[libc::SYS_connect], &[ENOENT, EINTR]),
    (&[libc::SYS_setsockopt, libc::SYS_getsockname, libc::SYS_shutdown], &[ENOMEM]),
    (&[libc::SYS_fcntl], &[EMFILE, EINVAL]),
    (&[libc::SYS_ioctl], &[ENOTTY]),
    (&[libc::SYS_clone, libc::SYS_clone3], &[EAGAIN, ENOMEM, EPERM, ENOSPC]),
    (
        &[libc::SYS_waitid, libc::SYS_wait4, libc::SYS_clock_nanosleep, libc::SYS_nanosleep, libc::SYS_rt_sigtimedwait],
        &[EINTR],
    ),
    (&[libc::SYS_pidfd_send_signal, libc::SYS_kill, libc::SYS_tkill], &[EPERM]),
    (&[libc::SYS_mkdirat, libc::SYS_mknodat, libc::SYS_symlinkat], &[EACCES, ENOSPC, EROFS, ENOMEM]),
    (&[libc::SYS_unlinkat], &[EBUSY, EIO]),
    (&[libc::SYS_flock], &[EINTR, ENOLCK, ENOMEM]),
    (&[libc::SYS_brk, libc::SYS_mremap], &[ENOMEM]),
    (
        &[
            libc::SYS_prctl,
            libc::SYS_setpgid,
            libc::SYS_prlimit64,
            libc::SYS_fchownat,
            libc::SYS_fchown,
            libc::SYS_fchmodat,
        ],
        &[EPERM],
    ),
    (&[libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_chroot, libc::SYS_pivot_root], &[EACCES, ENOMEM]),
    (
        &[libc::SYS_mount, libc::SYS_mount_setattr, libc::SYS_move_mount, libc::SYS_umount2, libc::SYS_fsconfig],
        &[EPERM, EINVAL, ENOMEM],
    ),
    (&[libc::SYS_open_tree, libc::SYS_fsopen, libc::SYS_fsmount], &[EPERM, EMFILE, ENOMEM]),
    (&[libc::SYS_dup3], &[EBUSY, EINTR]),
    (&[libc::SYS_close_range], &[EPERM, ENOMEM]),
    (&[libc::SYS_keyctl], &[EDQUOT, EPERM, ENOSYS]),
    (&[libc::SYS_getrandom], &[EINTR, ENOSYS]),
    #[cfg(target_arch = "x86_64")]
    (&[libc::SYS_open], &[EMFILE, ENFILE, ENOMEM, EACCES, EINTR]),
    #[cfg(target_arch = "x86_64")]
    (
        &[libc::SYS_newfstatat, libc::SYS_stat, libc::SYS_lstat, libc::SYS_fstat, libc::SYS_readlink, libc::SYS_access],
        &[EIO, ENOMEM, EACCES],
    ),
    #[cfg(target_arch = "x86_64")]
    (&[libc::SYS_poll], &[EINTR, ENOMEM]),
    #[cfg(target_arch = "x86_64")]
    (&[libc::SYS_mmap], &[ENOMEM]),
    #[cfg(target_arch = "x86_64")]
    (&[libc::SYS_fork, libc::SYS_vfork], &[EAGAIN, ENOMEM]),
    #[cfg(target_arch = "x86_64")]
    (&[libc::SYS_mkdir, libc::SYS_mknod, libc::SYS_symlink], &[EACCES, ENOSPC, EROFS, ENOMEM]),
    #[cfg(target_arch = "x86_64")]
    (&[libc::SYS_rmdir, libc::SYS_unlink], &[EBUSY, EIO]),
    #[cfg(target_arch = "x86_64")]
    (&[libc::SYS_dup2], &[EBUSY, EINTR]),
];

pub(crate) fn errors_of(number: c_long) -> Option<&'static [Errno]> {
    ERRORS.iter().find(|(numbers, _)| numbers.contains(&number)).map(|(_, errors)| *errors)
}

/// A call that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) role: Role,
    pub(crate) number: c_long,
    /// How many of this number the same process has made before.
    pub(crate) at: usize,
}

impl Call {
    /// What may become of it. A read of a pipe or of `/proc` may be short, where a message or a small write is taken as a whole.
    pub(crate) fn faults(&self) -> impl Iterator<Item = Answer> {
        let errors = errors_of(self.number).unwrap_or_default().iter().map(|errno| Answer::Fails(*errno));
        errors.chain((self.number == libc::SYS_read).then_some(Answer::Short))
    }
}

/// How many calls of a number are of interest: all processes of the machine may be looked at, one like the other.
const ALIKE: usize = 40;

/// Whether it is among the first of its number that its process makes, or among the last.
pub(crate) fn is_edge(call: &Call, calls: &[Call]) -> bool {
    let alike = calls.iter().filter(|other| (other.role, other.number) == (call.role, call.number)).count();
    call.at < ALIKE || call.at + ALIKE / 2 >= alike
}

/// A call, and what becomes of it.
pub(crate) type Fault = (Call, Answer);
