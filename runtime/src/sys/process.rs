//! Processes: how they are cloned, waited for, ended and known again.

use std::ffi::{OsStr, c_char, c_int, c_long};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::os::unix::thread::JoinHandleExt as _;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread::JoinHandle;
use std::{hint, mem};

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};

use super::thread_id::BeforeClone;

/// Proof that this process has one thread and that no lock is held by another. Only a process that was cloned before
/// `main` has it, and it hands it on to its clones.
pub(crate) struct SingleThreaded(pub(super) ());

/// See clone(2). In `libc` its type is too narrow.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Clones this process by clone(2), as fork(2) does: 0 in the child, and its number in the parent. With CLONE_PIDFD the kernel writes a
/// descriptor for the child to `pidfd`.
///
/// # Safety
///
/// `flags` has no CLONE_VM: the child gets a copy of the address space, and goes on with a copy of this stack. If this process has other
/// threads, the child uses no lock that one of them may hold.
pub(super) unsafe fn clone(flags: c_int, pidfd: Option<&mut c_int>) -> c_long {
    const NONE: c_long = 0;
    let before = BeforeClone::look();
    let place = before.place.expose_provenance() as c_long;
    let flags = c_long::from(flags | if before.place.is_null() { 0 } else { libc::CLONE_CHILD_SETTID });
    // The flags and the stack are the other way round there.
    let [first, second] = if cfg!(target_arch = "s390x") { [NONE, flags] } else { [flags, NONE] };
    // Of two that are left, the place for the child's id is the first here, and the second elsewhere.
    let is_first = cfg!(any(target_arch = "x86_64", target_arch = "s390x"));
    let [fourth, fifth] = if is_first { [place, NONE] } else { [NONE, place] };
    let pidfd = pidfd.map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: the caller promises it; `pidfd` outlives the call, and so does the place, of which the child has a copy.
    let child = unsafe { libc::syscall(libc::SYS_clone, first, second, pidfd, fourth, fifth) };
    if child == 0 {
        before.renew();
    }
    child
}

/// The same by clone3(2), which can do more, and which filters refuse that are older.
///
/// # Safety
///
/// As for [`clone`].
pub(super) unsafe fn clone3(flags: u64, pidfd: Option<&mut c_int>, signal: c_int, cgroup: RawFd) -> c_long {
    let pidfd = pidfd.map_or(0, |pidfd| ptr::from_mut(pidfd).expose_provenance() as u64);
    let before = BeforeClone::look();
    let place = before.place.expose_provenance() as u64;
    let flags = flags | if before.place.is_null() { 0 } else { libc::CLONE_CHILD_SETTID as u64 };
    // The kernel's `clone_args`, which `libc` has for some targets only. A zero stands for what is not used.
    let arguments: [u64; 11] = [flags, pidfd, place, 0, signal as u64, 0, 0, 0, 0, 0, cgroup as u64];
    // SAFETY: the caller promises it; `arguments` and `pidfd` outlive the call, and so does the place, of which the child has a copy.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
    if child == 0 {
        before.renew();
    }
    child
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

/// Clones this process into one that has the same parent, and so is no child of this one.
pub(crate) fn clone_sibling(_: &SingleThreaded) -> nix::Result<Cloned<()>> {
    // SAFETY: as in `clone_into`.
    let result = unsafe { clone(libc::CLONE_PARENT, None) };
    Ok(if Errno::result(result)? == 0 { Cloned::Child(SingleThreaded(())) } else { Cloned::Parent(()) })
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

/// Gives up all capabilities of this thread. See capset(2).
pub(crate) fn drop_capabilities() -> nix::Result<()> {
    // `libc` has no types for it: the header is a version and a thread, 0 for this one; the data three sets in two halves.
    const VERSION_3: u32 = 0x2008_0522;
    let (header, sets) = ([VERSION_3, 0], [0_u32; 6]);
    // SAFETY: header and data have the layout that this version asks for, and outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }).map(drop)
}

/// Waits until a thread has ended, in whatever way. See pthread_join(3).
pub(crate) fn join(thread: JoinHandle<()>) -> nix::Result<()> {
    // C libraries differ in what stands for a thread.
    // SAFETY: a handle stands for a thread that nobody else waits for, and is used up here.
    match unsafe { libc::pthread_join(thread.into_pthread_t() as _, ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    }
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
pub(crate) fn wait_pid(child: Pid) -> nix::Result<Option<Waited>> {
    wait_for(libc::P_PID, child.as_raw() as libc::id_t, 0)
}

/// Waits until the child with this id has ended, and leaves it to be waited for.
pub(crate) fn await_end_of(child: Pid) -> nix::Result<()> {
    wait_for(libc::P_PID, child.as_raw() as libc::id_t, libc::WNOWAIT).map(drop)
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
    open_pidfd(process.as_raw(), 0)
}

/// One for a thread: PIDFD_THREAD is O_EXCL. EINVAL before Linux 6.9.
#[cfg(feature = "faults")]
pub(crate) fn pidfd_of_thread(thread: u32) -> nix::Result<OwnedFd> {
    open_pidfd(thread as libc::pid_t, libc::O_EXCL)
}

fn open_pidfd(id: libc::pid_t, flags: c_int) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, id, flags) })?;
    // SAFETY: the kernel has just made the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Kills the process that `pidfd` refers to, however little it likes that.
pub(crate) fn kill(pidfd: BorrowedFd<'_>) -> nix::Result<()> {
    signal(pidfd, libc::SIGKILL)
}

/// Has the process that `pidfd` refers to go on, if it is stopped.
pub(crate) fn resume(pidfd: BorrowedFd<'_>) -> nix::Result<()> {
    signal(pidfd, libc::SIGCONT)
}

/// See pidfd_send_signal(2).
pub(super) fn signal(pidfd: BorrowedFd<'_>, signal: c_int) -> nix::Result<()> {
    let info = ptr::null::<libc::siginfo_t>();
    // SAFETY: with no siginfo, all arguments are integers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    Errno::result(result).map(drop)
}

/// Marks this process: [`is_marked_process`] is true in it, and false in everything that it forks, which may mark itself.
///
/// The mark is a page that the kernel wipes in a fork (MADV_WIPEONFORK in madvise(2)). A pid alone would not do: in a
/// pid namespace of its own, a fork may have the same again.
pub(crate) fn mark_process() -> nix::Result<()> {
    let mark = MARK.load(Ordering::Acquire);
    if !mark.is_null() {
        // SAFETY: it is the page that this process, or one that it was forked from, has mapped for good.
        unsafe { mark.write_volatile(1) };
        return Ok(());
    }
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
    // SAFETY: where it isn't null, it is the page that `mark_process` mapped for good, and writes to before anybody looks.
    !page.is_null() && unsafe { page.read_volatile() } == 1
}

static MARK: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// An entry of `.init_array`, which the C library calls like `main`.
pub(crate) type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// The arguments of `main`, as constructors get them.
#[derive(Clone, Copy)]
pub(crate) struct MainArguments(pub(crate) c_int, pub(crate) *const *const c_char, pub(crate) *const *const c_char);

/// How many bytes a page has.
pub(crate) fn page_size() -> u64 {
    // SAFETY: sysconf takes an integer.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Runs the constructors of this program that stand behind `own` before it is their turn. At their turn, the C library finds others in
/// their places, which do nothing.
///
/// # Safety
///
/// `own` must lie in `.init_array`, and it must be its turn.
pub(crate) unsafe fn run_constructors_behind(own: *const Constructor, arguments: MainArguments) -> nix::Result<()> {
    unsafe extern "C" {
        /// Where `.init_array` ends. The linker defines it.
        static __init_array_end: [Constructor; 0];
    }
    extern "C" fn nothing(_: c_int, _: *const *const c_char, _: *const *const c_char) {}
    let MainArguments(argc, argv, envp) = arguments;
    let end = (&raw const __init_array_end).expose_provenance();
    // The array is the linker's: to the compiler, nothing lies behind `own`. So it is not to know where this address comes from.
    let mut next =
        ptr::with_exposed_provenance_mut::<Constructor>(hint::black_box(own.addr() + size_of::<Constructor>()));
    if next.addr() < end {
        let page_size = page_size() as usize;
        let first = next.map_addr(|address| address - address % page_size);
        let (length, access) = (end - first.addr(), libc::PROT_READ | libc::PROT_WRITE);
        // The dynamic linker has made the array read-only, as a rule: "RELRO".
        // SAFETY: these pages are data of the program, and stay readable.
        Errno::result(unsafe { libc::mprotect(first.cast(), length, access) })?;
    }
    while next.addr() < end {
        // SAFETY: `next` is an entry, which is writable by now, and which nobody but the C library reads.
        let constructor = unsafe { next.replace(nothing) };
        constructor(argc, argv, envp);
        next = next.wrapping_add(1);
    }
    Ok(())
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

/// Has `command` enter these namespaces before it becomes the program that it is to run, in its working directory, if that is there too. See
/// setns(2).
#[cfg(feature = "net")]
pub(crate) fn enter_before_exec(command: &mut Command, namespaces: Vec<OwnedFd>) {
    let enter = move || {
        let mut directory = [0_u8; libc::PATH_MAX as usize];
        // SAFETY: the buffer has this size, and outlives the call.
        let length = unsafe { libc::syscall(libc::SYS_getcwd, directory.as_mut_ptr(), directory.len()) };
        for namespace in &namespaces {
            // SAFETY: setns takes integers.
            Errno::result(unsafe { libc::setns(namespace.as_raw_fd(), 0) })?;
        }
        // What is not below the root begins with `(unreachable)`.
        if length > 0 && directory[0] == b'/' {
            // SAFETY: the kernel has ended the path by a NUL.
            unsafe { libc::chdir(directory.as_ptr().cast()) };
        }
        Ok(())
    };
    // SAFETY: in the child, `enter` makes system calls and nothing else.
    unsafe { command.pre_exec(enter) };
}

/// How a process ended, as wait(2) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exited(i32),
    Killed { signal: i32, core: bool },
}

impl End {
    pub(crate) fn of_wait_status(status: i32) -> Self {
        match libc::WIFEXITED(status) {
            true => Self::Exited(libc::WEXITSTATUS(status)),
            false => Self::Killed { signal: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) },
        }
    }

    /// The reverse.
    #[cfg(feature = "faults")]
    pub(crate) fn wait_status(self) -> i32 {
        match self {
            Self::Exited(status) => libc::W_EXITCODE(status, 0),
            Self::Killed { signal, core } => signal | if core { 0x80 } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// musl's would end this process.
    #[test]
    fn a_clone_that_aborts_ends_itself() {
        // SAFETY: the clone calls abort alone, whose lock nobody else in this binary takes.
        let by_clone = || unsafe { clone(libc::SIGCHLD, None) };
        // SAFETY: as above.
        let by_clone3 = || unsafe { clone3(0, None, libc::SIGCHLD, 0) };
        let ends_itself = |clone: fn() -> c_long| {
            let child = clone();
            if child == 0 {
                // SAFETY: abort has no preconditions.
                unsafe { libc::abort() }
            }
            let waited = wait_for(libc::P_PID, child as libc::id_t, 0);
            matches!(waited, Ok(Some(Waited { end: End::Killed { signal: libc::SIGABRT, .. }, .. })))
        };
        for first in [by_clone as fn() -> c_long, by_clone3] {
            assert!(ends_itself(first));
            // The kernel puts the ids of a clone's clones in their place.
            let child = first();
            if child == 0 {
                exit_now(i32::from(ends_itself(by_clone)) + i32::from(ends_itself(by_clone3)));
            }
            let waited = wait_for(libc::P_PID, child as libc::id_t, 0).expect("wait").expect("it has ended");
            assert_eq!(waited.end, End::Exited(2));
        }
    }
}
