//! The calls that fail, and a run in which one does.

use std::collections::BTreeMap;
use std::ffi::c_long;

use belljar_tests::supervisor::{Answer, Calls, Role, run_supervised};
use belljar_tests::{Run, this_binary};
use nix::errno::Errno;
use nix::errno::Errno::*;

/// A system call of the set-up.
pub(crate) struct Kind {
    pub(crate) number: c_long,
    pub(crate) name: &'static str,
    /// Who makes it for the set-up.
    pub(crate) roles: &'static [Role],
    /// Which of its arguments is the path that it is about.
    pub(crate) path: Option<usize>,
    pub(crate) errors: &'static [Errno],
    /// Words of the steps that do it. Without any, all will do.
    pub(crate) steps: &'static [&'static str],
}

const fn kind(
    (number, name): (c_long, &'static str),
    roles: &'static [Role],
    path: Option<usize>,
    errors: &'static [Errno],
    steps: &'static [&'static str],
) -> Kind {
    Kind { number, name, roles, path, errors, steps }
}

#[cfg(target_arch = "x86_64")]
const MKDIR: ((c_long, &str), usize) = ((libc::SYS_mkdir, "mkdir"), 0);
#[cfg(not(target_arch = "x86_64"))]
const MKDIR: ((c_long, &str), usize) = ((libc::SYS_mkdirat, "mkdirat"), 1);
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
const POLL: (c_long, &str) = (libc::SYS_ppoll, "ppoll");
#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
const POLL: (c_long, &str) = (libc::SYS_poll, "poll");
#[cfg(target_arch = "x86_64")]
const DUP: (c_long, &str) = (libc::SYS_dup2, "dup2");
#[cfg(not(target_arch = "x86_64"))]
const DUP: (c_long, &str) = (libc::SYS_dup3, "dup3");

const INIT: &[Role] = &[Role::Init];
const TEST: &[Role] = &[Role::Test];
const MAKERS: &[Role] = &[Role::Template, Role::Init];
const ALL: &[Role] = &[Role::Zygote, Role::Template, Role::Init];
const BINARY: &[Role] = &[Role::Binary];

const ZYGOTE_IS_PREPARED: &str = "prepare the zygote";
const PROC_IS_MOUNTED: &str = "mount a file system in the sandbox: /proc";
const ROOT_IS_MADE: &str = "make the new root the root";
const STARTS_THREAD: &str = "start the thread";

const OPEN_ERRORS: &[Errno] = &[EMFILE, ENFILE, ENOMEM, EACCES, ENOENT, ENOSPC];

pub(crate) const KINDS: &[Kind] = &[
    kind(
        (libc::SYS_clone, "clone"),
        &[Role::Binary, Role::Zygote, Role::Template, Role::Init, Role::Test],
        None,
        &[EAGAIN, ENOMEM, EPERM, ENOSPC, ENOSYS],
        &["fork the zygote", "make the user and mount namespaces", "clone init", "fork the test", STARTS_THREAD],
    ),
    kind((libc::SYS_clone3, "clone3"), TEST, None, &[EAGAIN, ENOMEM], &[STARTS_THREAD]),
    #[cfg(all(target_arch = "x86_64", target_env = "musl"))]
    kind((libc::SYS_fork, "fork"), INIT, None, &[EAGAIN, ENOMEM, EPERM, ENOSYS], &["fork the test"]),
    #[cfg(all(target_arch = "x86_64", target_env = "musl"))]
    kind((libc::SYS_open, "open"), ALL, Some(0), OPEN_ERRORS, &[]),
    kind((libc::SYS_socketpair, "socketpair"), BINARY, None, &[EMFILE, ENFILE, ENOMEM], &["fork the zygote"]),
    kind(
        (libc::SYS_setpgid, "setpgid"),
        &[Role::Zygote, Role::Test],
        None,
        &[EPERM, EACCES],
        &[ZYGOTE_IS_PREPARED, "prepare the test's process"],
    ),
    kind((libc::SYS_prctl, "prctl"), ALL, None, &[EPERM, EINVAL], &[ZYGOTE_IS_PREPARED, "begin a session"]),
    kind(
        (libc::SYS_pidfd_open, "pidfd_open"),
        ALL,
        None,
        &[EMFILE, ENOMEM, EPERM, ENOSYS],
        &[ZYGOTE_IS_PREPARED, "send a descriptor of init to the test binary"],
    ),
    kind(DUP, ALL, None, &[EBADF, EMFILE], &[ZYGOTE_IS_PREPARED, "put the standard streams"]),
    kind((libc::SYS_fcntl, "fcntl"), INIT, None, &[EMFILE, EINVAL], &["put the standard streams"]),
    kind(
        (libc::SYS_close_range, "close_range"),
        ALL,
        None,
        &[EPERM, EACCES, ENOSYS, ENOMEM],
        &[ZYGOTE_IS_PREPARED, "put the standard streams"],
    ),
    kind((libc::SYS_setsid, "setsid"), INIT, None, &[EPERM], &["begin a session"]),
    kind(POLL, INIT, None, &[ENOMEM], &["begin a session"]),
    kind(
        (libc::SYS_prlimit64, "prlimit64"),
        INIT,
        None,
        &[EPERM, EINVAL],
        &["limit processes", "put the standard streams"],
    ),
    kind((libc::SYS_openat, "openat"), ALL, Some(1), OPEN_ERRORS, &[]),
    kind(
        (libc::SYS_write, "write"),
        MAKERS,
        None,
        &[EPERM, EINVAL, ENOSPC, EIO],
        &["map the ids", "join the cgroup", "write a file", "set its clocks"],
    ),
    kind(
        (libc::SYS_unshare, "unshare"),
        &[Role::Init, Role::Test],
        None,
        &[EPERM, ENOSPC, ENOMEM, EINVAL, ENOSYS],
        &["enter new mount, network", "time namespace", "become the user"],
    ),
    kind(
        (libc::SYS_keyctl, "keyctl"),
        ALL,
        None,
        &[EDQUOT, ENOMEM, EPERM, ENOSYS],
        &["begin an empty session keyring"],
    ),
    kind((libc::SYS_sethostname, "sethostname"), INIT, None, &[EPERM, EINVAL], &["set the host name"]),
    kind(
        (libc::SYS_socket, "socket"),
        INIT,
        None,
        &[EMFILE, ENOMEM, EPERM, EAFNOSUPPORT],
        &["bring up the interface lo"],
    ),
    kind((libc::SYS_ioctl, "ioctl"), INIT, None, &[EPERM, ENODEV], &["bring up the interface lo"]),
    kind(
        (libc::SYS_mount, "mount"),
        MAKERS,
        Some(1),
        &[EPERM, EACCES, ENOMEM, EINVAL, EBUSY, ENODEV, ENOENT, ENOSPC],
        &["make the mount table private", "mount a", "show a path", "read-only", "lay a private copy"],
    ),
    kind(
        (libc::SYS_mount_setattr, "mount_setattr"),
        MAKERS,
        Some(1),
        &[EPERM, ENOSYS, EACCES, EINVAL, ENOMEM],
        &["read-only", PROC_IS_MOUNTED],
    ),
    kind(
        (libc::SYS_open_tree, "open_tree"),
        INIT,
        None,
        &[EPERM, ENOSYS, EMFILE, ENOMEM],
        &["show a path", "lay a private copy"],
    ),
    kind((libc::SYS_move_mount, "move_mount"), INIT, Some(3), &[EPERM, ENOSYS, EINVAL, ENOMEM], &["show a path"]),
    kind((libc::SYS_umount2, "umount2"), INIT, None, &[EPERM, EINVAL, EBUSY], &[ROOT_IS_MADE]),
    kind((libc::SYS_pivot_root, "pivot_root"), MAKERS, None, &[EPERM, EACCES, EINVAL, EBUSY], &[ROOT_IS_MADE]),
    kind(
        (libc::SYS_chdir, "chdir"),
        MAKERS,
        Some(0),
        &[EACCES, ENOMEM, ENOENT],
        &["mount a tmpfs for the root", "enter the working directory", ZYGOTE_IS_PREPARED, PROC_IS_MOUNTED],
    ),
    kind(
        (libc::SYS_chroot, "chroot"),
        MAKERS,
        None,
        &[EPERM, EACCES],
        &["mount a tmpfs for the root", ZYGOTE_IS_PREPARED],
    ),
    kind((libc::SYS_fchdir, "fchdir"), &[Role::Template], None, &[EACCES], &[ZYGOTE_IS_PREPARED, PROC_IS_MOUNTED]),
    kind(
        MKDIR.0,
        MAKERS,
        Some(MKDIR.1),
        &[EACCES, ENOSPC, EROFS, EEXIST, ENOENT],
        &["make a directory", "mount a tmpfs for the root", "lay a private copy", PROC_IS_MOUNTED],
    ),
    kind((libc::SYS_symlinkat, "symlinkat"), INIT, Some(2), &[EPERM, EACCES, ENOSPC, EROFS], &["make a symbolic link"]),
    kind((libc::SYS_mknodat, "mknodat"), INIT, Some(1), &[EPERM, EACCES, ENOSPC, EROFS], &["write a file"]),
    kind((libc::SYS_capset, "capset"), TEST, None, &[EPERM], &["become the user"]),
    kind((libc::SYS_madvise, "madvise"), BINARY, None, &[EINVAL, ENOMEM], &["fork the zygote"]),
    kind(
        (libc::SYS_sendmsg, "sendmsg"),
        INIT,
        None,
        &[ENOBUFS, ENOMEM, EPERM],
        &["send a descriptor of init to the test binary", "lay a private copy"],
    ),
    kind((libc::SYS_recvmsg, "recvmsg"), TEST, None, &[ENOMEM, EPERM], &["prepare the test's process"]),
];

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) role: Role,
    pub(crate) number: c_long,
    /// How many of this number the same process has made before.
    pub(crate) at: usize,
    pub(crate) path: Option<String>,
    /// What is mounted there.
    pub(crate) source: Option<String>,
}

impl Call {
    /// Whether both are the same call, made in two runs: processes have other numbers in each.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let numbered = |path: &String| {
            let below =
                path.strip_prefix("/proc/").filter(|below| below.starts_with(|first: char| first.is_ascii_digit()));
            below.map_or_else(
                || path.clone(),
                |below| below.trim_start_matches(|digit: char| digit.is_ascii_digit()).into(),
            )
        };
        let [own, others] = [self, other].map(|call| call.path.as_ref().map(numbered));
        (self.role, self.number, self.at, &self.source, own)
            == (other.role, other.number, other.at, &other.source, others)
    }

    pub(crate) fn kind(&self) -> &'static Kind {
        KINDS.iter().find(|kind| kind.number == self.number).expect("one of ours")
    }
}

/// Runs a victim, one of whose calls fails. Returns how that went, and the calls of its set-up.
pub(crate) fn run_with(victim: &str, failing: Option<(&Call, Errno)>) -> (Run, Vec<Call>) {
    let mut command = this_binary();
    command.args(["--exact", "body", victim, "--show-output", "--test-threads=1"]);
    let numbers: Vec<_> = KINDS.iter().map(|kind| kind.number).collect();
    let (mut calls, mut counts) = (Vec::new(), BTreeMap::new());
    let run = run_supervised(command, victim, Calls::These(&numbers), |asked| {
        let kind = KINDS.iter().find(|kind| kind.number == asked.number).expect("one of ours");
        let Some(role) = asked.role.filter(|role| kind.roles.contains(role)) else { return Answer::Made };
        let count = counts.entry((role, asked.number)).or_insert(0_usize);
        *count += 1;
        let path = kind.path.and_then(|argument| asked.text(argument));
        let source = (asked.number == libc::SYS_mount).then(|| asked.text(0)).flatten();
        let call = Call { role, number: asked.number, at: *count - 1, path, source };
        let errno = failing.filter(|(failing, _)| call.is_same(failing)).map(|(_, errno)| errno);
        calls.push(call);
        errno.map_or(Answer::Made, Answer::Fails)
    });
    (run.unwrap_or_else(|output| panic!("{victim} hangs when this fails: {failing:?}\n{output}")), calls)
}
