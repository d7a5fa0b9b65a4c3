//! System calls that `nix` lacks, or wraps in a way that doesn't fit here. All `unsafe` code of the crate is in this
//! module and in [`zygote`](crate::zygote).
#![expect(unsafe_code, reason = "raw system calls")]

pub(crate) mod namespaces;
pub(crate) mod probe;

use std::ffi::{CStr, OsStr, c_char, c_int, c_long, c_void};
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::time::Duration;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, Pid};

use crate::report::{End, Fault};

/// The kernel's number for an error. Of those that did not come from there, EINVAL stands for a path with a NUL in it, and EIO for the
/// rest.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    let other = if error.kind() == io::ErrorKind::InvalidInput { Errno::EINVAL } else { Errno::EIO };
    error.raw_os_error().map_or(other, Errno::from_raw)
}

/// Whether a call has failed because there are too many descriptors: in a process, on the machine, or on their way through sockets.
pub(crate) fn is_of_descriptors(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ETOOMANYREFS)
}

// ---- Processes ----

/// Proof that this process has one thread and that no lock is held by another. Only a process that was cloned before
/// `main` has it, and it hands it on to its clones.
pub(crate) struct SingleThreaded(());

/// See clone(2). In `libc` its type is too narrow.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Clones this process by clone(2), as fork(2) does: 0 in the child, and its number in the parent. With CLONE_PIDFD the kernel writes a
/// descriptor for the child to `pidfd`.
///
/// # Safety
///
/// `flags` has no CLONE_VM: the child gets a copy of the address space, and goes on with a copy of this stack. If this process has other
/// threads, the child uses no lock that one of them may hold.
unsafe fn clone(flags: c_int, pidfd: Option<&mut c_int>) -> c_long {
    const NONE: c_long = 0;
    let flags = c_long::from(flags);
    // The flags and the stack are the other way round there.
    let [first, second] = if cfg!(target_arch = "s390x") { [NONE, flags] } else { [flags, NONE] };
    let pidfd = pidfd.map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: the caller promises it; `pidfd` outlives the call.
    unsafe { libc::syscall(libc::SYS_clone, first, second, pidfd, NONE, NONE) }
}

/// The same by clone3(2), which can do more, and which filters refuse that are older.
///
/// # Safety
///
/// As for [`clone`].
unsafe fn clone3(flags: u64, pidfd: Option<&mut c_int>, signal: c_int, cgroup: RawFd) -> c_long {
    let pidfd = pidfd.map_or(0, |pidfd| ptr::from_mut(pidfd).expose_provenance() as u64);
    // The kernel's `clone_args`, which `libc` has for some targets only. A zero stands for what is not used.
    let arguments: [u64; 11] = [flags, pidfd, 0, 0, signal as u64, 0, 0, 0, 0, 0, cgroup as u64];
    // SAFETY: the caller promises it; `arguments` and `pidfd` outlive the call.
    unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) }
}

/// What [`clone_zygote`] and [`clone_into`] return, once in each process. The parent is told of the child.
pub(crate) enum Cloned<C> {
    Parent(C),
    Child(SingleThreaded),
}

/// Forks this process into one that `wait` doesn't find: with no signal at its end it is what wait(2) calls a "clone"
/// child. A test binary whose code waits for *any* child must not meet ours. See clone(2).
///
/// # Safety
///
/// No other thread may run, as before `main`.
pub(crate) unsafe fn clone_zygote() -> nix::Result<Cloned<OwnedFd>> {
    let mut pidfd: c_int = -1;
    // SAFETY: the caller promises that there is no other thread.
    let result = unsafe { clone(libc::CLONE_PIDFD, Some(&mut pidfd)) };
    Ok(match Errno::result(result)? {
        0 => Cloned::Child(SingleThreaded(())),
        // SAFETY: the kernel has just made the descriptor.
        _ => Cloned::Parent(unsafe { OwnedFd::from_raw_fd(pidfd) }),
    })
}

/// Forks this process although it may have other threads, which constructors have started. The C library sees to its own
/// locks, and allocators to theirs, by pthread_atfork(3); `wait` finds this child.
///
/// # Safety
///
/// The child must use no lock that such a thread may have held, besides those.
pub(crate) unsafe fn fork_zygote() -> nix::Result<Cloned<OwnedFd>> {
    // SAFETY: the caller promises it.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Cloned::Child(SingleThreaded(()))),
        ForkResult::Parent { child } => pidfd_of(child).map(Cloned::Parent),
    }
}

/// Clones this process into new namespaces, `flags` being a set of CLONE_NEW*, and into the v2 cgroup with this directory, if there
/// is one. That takes clone3(2), which filters refuse that are older; all else clone(2) can do as well.
///
/// The clone's C library still has the thread id of its parent cached. It must not use threads; [`fork`] puts that
/// right for its children.
pub(crate) fn clone_into(_: &SingleThreaded, flags: c_int, cgroup: Option<BorrowedFd<'_>>) -> nix::Result<Cloned<Pid>> {
    // SAFETY: the proof says that there is one thread, so that no lock can be held by one that is missing in the child.
    let result = unsafe {
        match cgroup {
            None => clone(flags | libc::SIGCHLD, None),
            Some(cgroup) => clone3(flags as u64 | CLONE_INTO_CGROUP, None, libc::SIGCHLD, cgroup.as_raw_fd()),
        }
    };
    Ok(match Errno::result(result)? {
        0 => Cloned::Child(SingleThreaded(())),
        child => Cloned::Parent(Pid::from_raw(child as libc::pid_t)),
    })
}

/// Forks through the C library, whose state is then right in the child: that one may start threads.
pub(crate) fn fork(_: &SingleThreaded) -> nix::Result<ForkResult> {
    // SAFETY: the proof says that there is one thread, so no lock can be held by one that is missing in the child.
    unsafe { nix::unistd::fork() }
}

/// Changes the environment of this process: removes all variables, if `clear` says so, and sets these. See environ(7).
pub(crate) fn change_environment(_: &SingleThreaded, set: &[(&str, &str)], clear: bool) {
    // SAFETY: the proof says that there is no other thread, which might read the environment meanwhile.
    unsafe {
        if clear {
            libc::clearenv();
        }
        set.iter().for_each(|(name, value)| std::env::set_var(name, value));
    }
}

/// Sets a variable in the environment of this process, or removes it.
pub(crate) fn set_variable(_: &SingleThreaded, name: &str, value: Option<&OsStr>) {
    // SAFETY: the proof says that there is no other thread, which might read the environment meanwhile.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
}

/// Whether these bytes are somewhere among those, as memmem(3) finds it: at some gigabytes a second in debug builds too.
pub(crate) fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    // SAFETY: both slices are valid for their lengths.
    !unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), wanted.as_ptr().cast(), wanted.len()) }.is_null()
}

/// The monotonic clock, in nanoseconds. It is the same for all processes of one time namespace.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Gives up all capabilities of this thread. See capset(2).
pub(crate) fn drop_capabilities() -> nix::Result<()> {
    // `libc` has no types for it: the header is a version and a thread, 0 for this one; the data three sets in two halves.
    const VERSION_3: u32 = 0x2008_0522;
    let (header, sets) = ([VERSION_3, 0], [0_u32; 6]);
    // SAFETY: header and data have the layout that this version asks for, and outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }).map(drop)
}

/// Random bytes, of the kernel's generator. See getrandom(2).
pub(crate) fn random() -> nix::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    // SAFETY: the buffer has this size, and outlives the call. So few bytes come as a whole.
    Errno::result(unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), 0) })?;
    Ok(bytes)
}

/// Ends this process at once, with no handlers and no flushing. See _exit(2).
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Has `handler` run by exit(3), after all handlers that are registered later.
pub(crate) fn at_exit(handler: extern "C" fn()) -> nix::Result<()> {
    // SAFETY: a plain function pointer is all that atexit(3) asks for.
    let result = unsafe { libc::atexit(handler) };
    if result == 0 { Ok(()) } else { Err(Errno::ENOMEM) }
}

/// A child that has ended.
pub(crate) struct Waited {
    pub(crate) pid: Pid,
    pub(crate) end: End,
    /// The most memory that it, or one that it had waited for, had at a time, in bytes: `ru_maxrss` in getrusage(2).
    pub(crate) peak: u64,
}

/// Waits for any child to end, "clone" children included; `flags` are WNOHANG and WNOWAIT. With WNOHANG, `None` means
/// that no child has ended. Unlike nix's, it knows real-time signals. See waitid(2).
pub(crate) fn wait_any(flags: c_int) -> nix::Result<Option<Waited>> {
    wait_for(libc::P_ALL, 0, flags)
}

/// Waits for the child with this id.
pub(crate) fn wait_pid(child: Pid) -> nix::Result<()> {
    wait_for(libc::P_PID, child.as_raw() as libc::id_t, 0).map(drop)
}

/// Waits for the "clone" child that `pidfd` refers to.
pub(crate) fn wait_pidfd(pidfd: BorrowedFd<'_>) -> nix::Result<()> {
    wait_for(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, 0).map(drop)
}

fn wait_for(kind: libc::idtype_t, id: libc::id_t, flags: c_int) -> nix::Result<Option<Waited>> {
    // SAFETY: `siginfo_t` is integers and pointers, for which zero is a value. If no child has ended, it stays zero.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // The kernel's `rusage`: two times, of two words each, and fourteen figures. C libraries may have larger times.
    let mut usage: [c_long; 18] = [0; 18];
    const MAXRSS: usize = 4;
    let flags = flags | libc::WEXITED | libc::__WALL;
    loop {
        // The C library's has no place for the usage.
        // SAFETY: `info` and `usage` outlive the call.
        let result = unsafe { libc::syscall(libc::SYS_waitid, kind, id, &raw mut info, flags, &raw mut usage) };
        match Errno::result(result) {
            Err(Errno::EINTR) => {}
            result => {
                result?;
                break;
            }
        }
    }
    // SAFETY: waitid fills in the fields that belong to SIGCHLD, which these are.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let end = match info.si_code {
        libc::CLD_EXITED => End::Exited(status),
        code => End::Killed { signal: status, core: code == libc::CLD_DUMPED },
    };
    let peak = u64::try_from(usage[MAXRSS]).unwrap_or_default() * 1024;
    Ok(Some(Waited { pid: Pid::from_raw(pid), end, peak }))
}

/// A descriptor for a process, which becomes readable when that ends. See pidfd_open(2).
pub(crate) fn pidfd_of(process: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) })?;
    // SAFETY: the kernel has just made the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Kills the process that `pidfd` refers to, however little it likes that.
pub(crate) fn kill(pidfd: BorrowedFd<'_>) -> nix::Result<()> {
    signal(pidfd, libc::SIGKILL)
}

/// Has the process that `pidfd` refers to go on, if it is stopped.
pub(crate) fn go_on(pidfd: BorrowedFd<'_>) -> nix::Result<()> {
    signal(pidfd, libc::SIGCONT)
}

/// See pidfd_send_signal(2).
fn signal(pidfd: BorrowedFd<'_>, signal: c_int) -> nix::Result<()> {
    let info = ptr::null::<libc::siginfo_t>();
    // SAFETY: with no siginfo, all arguments are integers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    Errno::result(result).map(drop)
}

/// Marks this process: [`is_marked_process`] is true in it, and false in everything that it forks.
///
/// The mark is a page that the kernel wipes in a fork (MADV_WIPEONFORK in madvise(2)). A pid alone would not do: in a
/// pid namespace of its own, a grandchild has the test's pid again.
pub(crate) fn mark_process() -> nix::Result<()> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping disturbs nothing.
    let page = unsafe { libc::mmap(ptr::null_mut(), 1, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the page was mapped above and is never unmapped.
    Errno::result(unsafe { libc::madvise(page, 1, libc::MADV_WIPEONFORK) })?;
    // SAFETY: it is writable, and nobody else knows of it yet.
    unsafe { page.cast::<u8>().write(1) };
    MARK.store(page.cast(), Ordering::Release);
    Ok(())
}

/// Whether this very process called [`mark_process`]. Async-signal-safe.
pub(crate) fn is_marked_process() -> bool {
    let page = MARK.load(Ordering::Acquire);
    // SAFETY: where it isn't null, it is the page that `mark_process` mapped for good, and nobody writes to it any more.
    !page.is_null() && unsafe { page.read_volatile() } == 1
}

static MARK: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

// ---- Constructors ----

/// An entry of `.init_array`, which the C library calls like `main`.
pub(crate) type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// The arguments of `main`, as constructors get them.
#[derive(Clone, Copy)]
pub(crate) struct MainArguments(pub(crate) c_int, pub(crate) *const *const c_char, pub(crate) *const *const c_char);

/// Runs the constructors of this program that stand behind `own`.
///
/// # Safety
///
/// `own` must lie in `.init_array`, those before it must have run, and those behind it must not.
pub(crate) unsafe fn run_constructors_behind(own: *const Constructor, arguments: MainArguments) {
    unsafe extern "C" {
        /// Where `.init_array` ends. The linker defines it.
        static __init_array_end: [Constructor; 0];
    }
    let MainArguments(argc, argv, envp) = arguments;
    let end = (&raw const __init_array_end).cast::<Constructor>();
    // SAFETY: `own` is an entry of the array, so the entry behind it begins in the array or at its end.
    let mut next = unsafe { own.add(1) };
    while next < end {
        // SAFETY: `next` is an entry, which the C library would call the same way.
        unsafe { (*next)(argc, argv, envp) };
        // SAFETY: as above.
        next = unsafe { next.add(1) };
    }
}

/// Has `command` join cgroups, by these files `cgroup.procs`, before it becomes the program that it is to run.
pub(crate) fn join_before_exec(command: &mut Command, procs: Vec<OwnedFd>) {
    let join = move || {
        for procs in &procs {
            // 0 stands for whoever writes it.
            nix::unistd::write(procs, b"0")?;
        }
        Ok(())
    };
    // SAFETY: in the child, `join` makes system calls and nothing else.
    unsafe { command.pre_exec(join) };
}

// ---- Descriptors ----

/// Sends `bytes` with at most [`FDS_MAX`] `fds` as one message. See unix(7) on SCM_RIGHTS. Unlike nix's, it does not allocate.
pub(crate) fn send_with_fds(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> nix::Result<()> {
    if fds.len() > FDS_MAX {
        return Err(Errno::EINVAL);
    }
    let size = size_of_val(fds) as u32;
    let mut control = Control([0; CONTROL_SIZE]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: `msghdr` is integers and pointers, for which zero is a value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    // SAFETY: CMSG_SPACE computes.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as _;
    // SAFETY: `control` is aligned for a control message, and has room for this one; `fds` are as many as are copied.
    unsafe {
        let rights = libc::CMSG_FIRSTHDR(&raw const header);
        (*rights).cmsg_level = libc::SOL_SOCKET;
        (*rights).cmsg_type = libc::SCM_RIGHTS;
        (*rights).cmsg_len = libc::CMSG_LEN(size) as _;
        ptr::copy_nonoverlapping(fds.as_ptr().cast(), libc::CMSG_DATA(rights), size_of_val(fds));
    }
    loop {
        // SAFETY: `header` refers to `bytes` and `control`, with their lengths, and they outlive the call, which writes to neither.
        match Errno::result(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) }) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop),
        }
    }
}

/// Sends `bytes` as one message. It waits for room even if somebody made the socket one that does not wait.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<()> {
    loop {
        match nix::sys::socket::send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => match poll(&mut [PollFd::new(socket, PollFlags::POLLOUT)], PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                result => drop(result?),
            },
            result => return result.map(drop),
        }
    }
}

/// The most descriptors that come with one message.
pub(crate) const FDS_MAX: usize = 8;

/// A message that was received.
pub(crate) struct Message {
    /// How many bytes it had; the part that exceeds the buffer is lost.
    pub(crate) length: usize,
    /// The descriptors that came with it.
    pub(crate) fds: Vec<OwnedFd>,
}

/// Room for the descriptors and the credentials that come with a message, aligned as cmsg(3) asks for.
#[repr(C, align(8))]
struct Control([u8; CONTROL_SIZE]);

// SAFETY: CMSG_SPACE computes.
const CONTROL_SIZE: usize = unsafe {
    libc::CMSG_SPACE((FDS_MAX * size_of::<RawFd>()) as u32) + libc::CMSG_SPACE(size_of::<libc::ucred>() as u32)
} as usize;

/// Receives one message into `buffer`. `None` if the other side is gone. `flags` may be MSG_DONTWAIT.
///
/// A message of no bytes looks like the other side's end, unless the socket has SO_PASSCRED: then something comes with it. Unlike
/// nix's, it also returns the descriptors of a message that had more of them than this process may have.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], flags: MsgFlags) -> nix::Result<Option<Message>> {
    let flags = (flags | MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_TRUNC).bits();
    let mut has_ended = false;
    loop {
        let mut control = Control([0; CONTROL_SIZE]);
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: `msghdr` is integers and pointers, for which zero is a value.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = CONTROL_SIZE as _;
        // SAFETY: `header` refers to `buffer` and `control`, with their lengths, and they outlive the call.
        let received = Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) });
        let length = match received {
            // ECONNRESET says that the other side left without reading all that we had sent; what it sent itself
            // still comes.
            Err(Errno::EINTR | Errno::ECONNRESET) => continue,
            length => length? as usize,
        };
        let mut fds = Vec::new();
        let mut is_message = length > 0;
        // SAFETY: the kernel has filled in `header` and what it refers to, and both are still there.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        while !next.is_null() {
            is_message = true;
            // SAFETY: it is a control message, of the length that it says, in `control`.
            let libc::cmsghdr { cmsg_len, cmsg_level, cmsg_type, .. } = unsafe { next.read() };
            if (cmsg_level, cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                // SAFETY: CMSG_LEN computes, and CMSG_DATA points to what follows the head of the message.
                let (head, data) = unsafe { (libc::CMSG_LEN(0) as usize, libc::CMSG_DATA(next).cast::<RawFd>()) };
                #[expect(clippy::unnecessary_cast, reason = "other C libraries have another type")]
                let length = cmsg_len as usize - head;
                for at in 0..length / size_of::<RawFd>() {
                    // SAFETY: there are so many, and the kernel has just made these descriptors for us.
                    fds.push(unsafe { OwnedFd::from_raw_fd(data.add(at).read_unaligned()) });
                }
            }
            // SAFETY: `next` is one of the control messages of `header`.
            next = unsafe { libc::CMSG_NXTHDR(&raw const header, next) };
        }
        if is_message || has_ended {
            return Ok(is_message.then_some(Message { length, fds }));
        }
        // The kernel looks for a message first, and then whether the other side has ended. A message that came in between is
        // still there, and after the end no other comes.
        has_ended = true;
    }
}

/// What there is at `path` in a directory, a link itself if it is one; for an empty path, the directory, or whatever file it is. Unlike nix's,
/// it knows large files and file systems on 32-bit targets. See fstatat(2).
pub(crate) fn stat<P: NixPath + ?Sized>(directory: &OwnedFd, path: &P) -> nix::Result<libc::stat64> {
    // SAFETY: `stat64` is integers, for which zero is a value.
    let mut stat: libc::stat64 = unsafe { mem::zeroed() };
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    // SAFETY: the path and the result outlive the call.
    let call = |path: &CStr| unsafe { libc::fstatat64(directory.as_raw_fd(), path.as_ptr(), &raw mut stat, flags) };
    Errno::result(path.with_nix_path(call)?)?;
    Ok(stat)
}

/// Makes the standard stream `number` another name of `fd`. See dup2(2).
pub(crate) fn redirect(fd: BorrowedFd<'_>, number: RawFd) -> nix::Result<()> {
    debug_assert!((0..=2).contains(&number));
    // SAFETY: the standard streams are owned by nobody: whoever writes to them finds what is there.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// `fd`, or another name for it, with a number above those of the standard streams: if one of those is closed, its number
/// is the next that the kernel gives.
pub(crate) fn above_standard_streams(fd: OwnedFd) -> nix::Result<OwnedFd> {
    if fd.as_raw_fd() > libc::STDERR_FILENO { Ok(fd) } else { duplicate_above(&fd, libc::STDERR_FILENO + 1) }
}

/// Another name for what `fd` refers to, numbered `lowest` or higher, and closed by exec. See F_DUPFD_CLOEXEC in
/// fcntl(2).
pub(crate) fn duplicate_above(fd: &OwnedFd, lowest: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: the command takes an integer.
    let fd = Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) })?;
    // SAFETY: the kernel has just made the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes all descriptors behind the standard streams, except those that are `kept`, which this sorts. `proc` is a directory `/proc`,
/// if there is another than at that path.
///
/// Whoever owned one of them must not use it any more, as is so in a process that was just cloned and forgets what its
/// parent was doing.
pub(crate) fn close_all_but(_: &SingleThreaded, kept: &mut [RawFd], proc: Option<BorrowedFd<'_>>) -> nix::Result<()> {
    kept.sort_unstable();
    // SAFETY: that nobody misses what is closed is said above.
    unsafe { close_from_but(libc::STDERR_FILENO + 1, kept, proc) }
}

/// Closes all descriptors from `first` on, except those that are `kept`, in ascending order: by close_range(2), or, where a filter that
/// is older refuses that, one by one. `proc` is as for [`close_all_but`]. Async-signal-safe.
///
/// # Safety
///
/// Nobody who owns one of them may use it any more.
unsafe fn close_from_but(first: RawFd, kept: &[RawFd], proc: Option<BorrowedFd<'_>>) -> nix::Result<()> {
    let mut first = first as u32;
    // Set where they are closed one by one.
    let mut end = None;
    for kept in kept.iter().map(|fd| *fd as u32).chain([u32::MAX]) {
        if first < kept {
            // SAFETY: it takes integers; about the descriptors, the caller promises.
            match Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, kept - 1, 0) }) {
                Err(errno @ (Errno::ENOSYS | Errno::EPERM | Errno::EACCES)) => {
                    // The first time, none is closed yet.
                    let known = end.or_else(|| descriptors_end(proc)).ok_or(errno)?;
                    end = Some(known);
                    for fd in first..known.min(kept) {
                        // SAFETY: as above. What is not open needs no closing.
                        unsafe { libc::close(fd as RawFd) };
                    }
                }
                result => drop(result?),
            }
        }
        first = first.max(kept.saturating_add(1));
    }
    Ok(())
}

/// A number that is above those of all descriptors of this process: how many it has room for now, see proc_pid_status(5). The limit
/// on them may be a billion.
fn descriptors_end(proc: Option<BorrowedFd<'_>>) -> Option<u32> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let status = match proc {
        Some(proc) => nix::fcntl::openat(proc, c"self/status", flags, Mode::empty()),
        None => nix::fcntl::open(c"/proc/self/status", flags, Mode::empty()),
    };
    let mut text = [0; 4096];
    let length = nix::unistd::read(&status.ok()?, &mut text).ok()?;
    let mut lines = text.get(..length)?.split(|byte| *byte == b'\n');
    let size = lines.find_map(|line| line.strip_prefix(b"FDSize:"))?;
    std::str::from_utf8(size).ok()?.trim().parse().ok()
}

// ---- Mounts and network ----

/// Makes the mount at `path` read-only, and, if `recursive`, all mounts below it. It triggers no automount. See mount_setattr(2),
/// Linux 5.12.
pub(crate) fn set_read_only(path: &CStr, recursive: bool) -> nix::Result<()> {
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_NO_AUTOMOUNT | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path and the attributes outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    Errno::result(result).map(drop)
}

/// Makes a tmpfs that is attached nowhere: see fsopen(2), fsconfig(2) and fsmount(2). [`attach_mounts`] attaches it.
pub(crate) fn new_tmpfs(mode: &CStr) -> nix::Result<OwnedFd> {
    const NONE: c_long = 0;
    let owned = |result: c_long| {
        let fd = Errno::result(result)?;
        // SAFETY: the kernel has just made the descriptor.
        Ok::<_, Errno>(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    };
    // SAFETY: the name outlives the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), libc::FSOPEN_CLOEXEC) })?;
    let (fd, key, value) = (context.as_raw_fd(), c"mode".as_ptr(), mode.as_ptr());
    // SAFETY: key and value outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, fd, libc::FSCONFIG_SET_STRING, key, value, NONE) })?;
    // SAFETY: this command takes neither key nor value.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, fd, libc::FSCONFIG_CMD_CREATE, NONE, NONE, NONE) })?;
    let flags = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    // SAFETY: fsmount takes integers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, libc::FSMOUNT_CLOEXEC, flags) })
}

/// Calls `each` with the name of each entry of a directory, `.` and `..` aside. See getdents64(2). It allocates nothing.
pub(crate) fn entries(directory: &OwnedFd, mut each: impl FnMut(&CStr) -> nix::Result<()>) -> nix::Result<()> {
    /// What stands before the name: inode, offset, length and kind.
    const HEAD: usize = 8 + 8 + 2 + 1;
    let mut buffer = [0_u8; 4096];
    loop {
        let (pointer, size) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the buffer has this size, and outlives the call.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), pointer, size) };
        let mut rest = buffer.get(..Errno::result(read)? as usize).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        while let Some(length) = rest.get(16..18).map(|bytes| usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]))) {
            let name =
                rest.get(HEAD..length).and_then(|name| CStr::from_bytes_until_nul(name).ok()).ok_or(Errno::EIO)?;
            if name != c"." && name != c".." {
                each(name)?;
            }
            rest = &rest[length..];
        }
    }
}

/// Copies what is mounted at `path` and below it, attached nowhere. See open_tree(2).
pub(crate) fn clone_mounts(path: &CStr) -> nix::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as u32;
    // SAFETY: the path outlives the call.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just made the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches what [`clone_mounts`] copied at `path`. See move_mount(2).
pub(crate) fn attach_mounts(mounts: &OwnedFd, path: &CStr) -> nix::Result<()> {
    let (from, empty, flags) = (mounts.as_raw_fd(), c"".as_ptr(), libc::MOVE_MOUNT_F_EMPTY_PATH);
    // SAFETY: the paths outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, from, empty, libc::AT_FDCWD, path.as_ptr(), flags) };
    Errno::result(result).map(drop)
}

/// Whether this directory of an overlay's upper layer hides what the lower one has in its place: its attribute `opaque`. See the
/// kernel's overlayfs.rst.
pub(crate) fn hides_lower(directory: BorrowedFd<'_>) -> bool {
    let (name, mut value) = (c"user.overlay.opaque", [0_u8; 1]);
    // SAFETY: the name and the value, which has this size, outlive the call.
    let length =
        unsafe { libc::fgetxattr(directory.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    length == 1 && value == *b"y"
}

/// Gives this process an empty session keyring of its own in place of the one that it shares with what started it. See
/// session-keyring(7) and keyctl_join_session_keyring(3).
pub(crate) fn join_new_session_keyring() -> nix::Result<()> {
    let no_name = ptr::null::<c_char>();
    // SAFETY: the operation takes a name, or null.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, no_name) };
    Errno::result(result).map(drop)
}

/// Makes this process's session keyring one that nobody can use. See keyctl_revoke(3).
pub(crate) fn revoke_session_keyring() -> nix::Result<()> {
    // SAFETY: the operation takes an integer.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_REVOKE, libc::KEY_SPEC_SESSION_KEYRING) };
    Errno::result(result).map(drop)
}

/// Brings up the interface `lo` of this network namespace; the kernel then gives it 127.0.0.1 and ::1. See
/// netdevice(7).
pub(crate) fn bring_up_loopback() -> nix::Result<()> {
    // SAFETY: socket takes integers.
    let socket = Errno::result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just made the descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: `ifreq` is integers, and pointers for which null is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    request.ifr_name[0] = b'l' as c_char;
    request.ifr_name[1] = b'o' as c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq` with a name and flags.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }).map(drop)
}

// ---- Signals ----

/// How a process takes a signal it has no handler for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    Default,
    Ignore,
}

/// Sets how this process takes `signal`, and returns how it did before. A handler counts as the default.
pub(crate) fn set_disposition(signal: c_int, disposition: Disposition) -> Disposition {
    let handler = match disposition {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignore => libc::SIG_IGN,
    };
    // SAFETY: neither of the two runs code of ours.
    let before = unsafe { libc::signal(signal, handler) };
    if before == libc::SIG_IGN { Disposition::Ignore } else { Disposition::Default }
}

/// Told why the process gets SIGSEGV or SIGBUS, before it dies of it. It must be async-signal-safe.
pub(crate) type FaultHook = fn(Fault);

static FAULT_HOOK: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static GUARD: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// Has `hook` called on SIGSEGV and SIGBUS. The process still dies of the signal, and of nothing else.
///
/// Where a thread without a signal stack has overflowed its stack, the kernel can't call anything, and the process dies
/// with the hook unheard. Rust's own handler, which gives each thread such a stack, is installed by the `main` of the
/// test binary, which never runs here.
pub(crate) fn on_fault(hook: FaultHook) -> nix::Result<()> {
    FAULT_HOOK.store(hook as *mut c_void, Ordering::Release);
    // SAFETY: `sigaction` is integers and pointers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handle_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: `handle_fault` has the signature that SA_SIGINFO asks for, and is async-signal-safe.
        Errno::result(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })?;
    }
    Ok(())
}

extern "C" fn handle_fault(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let errno = Errno::last_raw();
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo, whose address is set for these signals.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    let [start, end] = [0, 1].map(|index| GUARD[index].load(Ordering::Acquire));
    let fault = match code {
        ..=0 => Fault::Sent,
        libc::SI_KERNEL => Fault::Access { address: None },
        _ if (start..end).contains(&address) => Fault::StackOverflow,
        _ => Fault::Access { address: Some(address as u64) },
    };
    let hook = FAULT_HOOK.load(Ordering::Acquire);
    // SAFETY: only `on_fault` stores here, and before it installs this handler.
    let hook = unsafe { mem::transmute::<*mut c_void, FaultHook>(hook) };
    hook(fault);
    if fault == Fault::Sent {
        // No instruction will fault again. SA_RESETHAND has put the default back, and the signal stays blocked until
        // this handler returns.
        // SAFETY: raise has no preconditions.
        unsafe { libc::raise(signal) };
    }
    Errno::set_raw(errno);
}

/// Gives this thread a signal stack, and tells [`on_fault`] where its stack ends.
pub(crate) fn watch_stack() -> nix::Result<()> {
    let guard = stack_guard()?;
    GUARD[0].store(guard.start, Ordering::Release);
    GUARD[1].store(guard.end, Ordering::Release);
    let mut present = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: `present` outlives the call.
    Errno::result(unsafe { libc::sigaltstack(ptr::null(), &raw mut present) })?;
    if present.ss_flags & libc::SS_DISABLE == 0 {
        // AddressSanitizer has given it one, which it will unmap.
        return Ok(());
    }
    let stack = libc::stack_t { ss_sp: (&raw mut SIGNAL_STACK).cast(), ss_flags: 0, ss_size: SIGNAL_STACK_SIZE };
    // SAFETY: the memory is there for good, and a process has one thread that runs a body.
    Errno::result(unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) }).map(drop)
}

/// Enough for the registers of any processor, and for a frame that is put together on it.
const SIGNAL_STACK_SIZE: usize = 64 * 1024;
static mut SIGNAL_STACK: [u8; SIGNAL_STACK_SIZE] = [0; SIGNAL_STACK_SIZE];

/// The addresses at the end of this thread's stack that fault when it overflows.
fn stack_guard() -> nix::Result<Range<usize>> {
    let check = |result: c_int| if result == 0 { Ok(()) } else { Err(Errno::from_raw(result)) };
    let mut attributes = mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: pthread_getattr_np initialises the attributes of a thread that exists.
    check(unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) })?;
    let (mut lowest, mut stack_size, mut guard_size) = (ptr::null_mut(), 0, 0);
    // SAFETY: the attributes are initialised, and the results outlive the calls.
    let results = unsafe {
        [
            libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut stack_size),
            libc::pthread_attr_getguardsize(attributes.as_ptr(), &raw mut guard_size),
            libc::pthread_attr_destroy(attributes.as_mut_ptr()),
        ]
    };
    results.into_iter().try_for_each(check)?;
    // C libraries differ in whether the guard lies below the stack or at its bottom.
    Ok(lowest.addr().saturating_sub(guard_size)..lowest.addr() + guard_size)
}

#[cfg(test)]
mod tests {
    use std::hint;
    use std::os::fd::AsFd as _;
    use std::sync::{Barrier, Mutex};
    use std::thread;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    /// The kernel tells of the end before the message about once in five thousand rounds.
    #[test]
    fn a_message_comes_before_the_end() {
        const ROUNDS: u32 = 40_000;
        let (turn, theirs) = (Barrier::new(2), Mutex::new(None));
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0.. {
                    turn.wait();
                    let Some(theirs) = theirs.lock().expect("lock").take() else { break };
                    (0..round % 400).for_each(|spin| _ = hint::black_box(spin));
                    send(OwnedFd::as_fd(&theirs), b"x").expect("send");
                }
            });
            let lost = (0..ROUNDS).find(|_| {
                let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
                let (ours, other) = pair.expect("socketpair");
                *theirs.lock().expect("lock") = Some(other);
                turn.wait();
                loop {
                    match receive(ours.as_fd(), &mut [0], MsgFlags::MSG_DONTWAIT) {
                        Err(Errno::EAGAIN) => {}
                        received => break received.expect("receive").is_none(),
                    }
                }
            });
            // There is no socket any more.
            turn.wait();
            assert_eq!(lost, None);
        });
    }
}
