//! Init: PID 1 of a sandbox.
//!
//! It was cloned from the template, has one thread, and must not use what needs the C library to know its thread: it
//! makes system calls, on data that the template has prepared, and allocates nothing. Each step that fails ends it with a
//! frame that says which, on what path, and why. When all steps are done it forks the test and becomes the [`reaper`].

use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_name, set_pdeathsig};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, getpid, read, sethostname, setsid, write};

use super::channel::{Channel, FrameSocket, InitArgs, give_up};
use super::ids::map_ids;
use super::{body, reaper};
use crate::cgroup;
use crate::collect::map_both;
use crate::frame::moments::{self, record};
use crate::frame::{Buffer, Frame, Moment, OrRefuse as _, RefusalRef, Step};
use crate::rootfs::build;
use crate::spec::{DEFAULT_HOSTNAME, Ids, Spec};
use crate::sys::{self, Disposition, SingleThreaded};

/// Where the frame socket goes: out of the way of tests that expect their descriptors to begin at 3.
const SOCKET_FD: RawFd = 255;

/// What init does, from its birth to its end, which is the end of everything in the sandbox.
pub(crate) fn init(args: &InitArgs<'_>, proof: SingleThreaded) -> ! {
    // Before all else: whatever happens to this process from now on, it ends with the template.
    let tied = set_pdeathsig(Signal::SIGKILL);
    record(Moment::Begins, c"");
    let begun = live_no_longer_than(args.template, tied)
        .and_then(|()| tell_of_birth(args))
        .and_then(|()| join_cgroup(args))
        .and_then(|()| map_ids_of(args))
        .and_then(|()| set_clocks(args));
    let socket = match begun.and_then(|()| put_descriptors_in_place(args, &proof)) {
        Ok(socket) => socket,
        Err(refusal) => give_up(args.channel.socket.as_fd(), refusal),
    };
    match set_up(args) {
        Ok(None) => {}
        Ok(Some(copy)) => {
            if let Err(refusal) = hand_out_root(&socket, &copy) {
                give_up(socket.0.as_fd(), refusal);
            }
        }
        Err(refusal) => give_up(socket.0.as_fd(), refusal),
    }
    let procfs = match open(c"/proc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(procfs) => procfs,
        Err(errno) => give_up(socket.0.as_fd(), RefusalRef::of_call(Step::Wait, c"/proc", errno)),
    };
    match sys::fork(&proof) {
        Ok(ForkResult::Child) => {
            drop(procfs);
            body::run(socket, args, &proof)
        }
        Ok(ForkResult::Parent { child }) => reaper::run(&socket, &procfs, child, args.spec.memory.is_some()),
        Err(errno) => give_up(socket.0.as_fd(), RefusalRef::of_call(Step::Fork, c"", errno)),
    }
}

/// The numbered steps. Returns the tmpfs of a root that is a copy.
fn set_up<'b>(args: &'b InitArgs<'_>) -> Result<Option<OwnedFd>, RefusalRef<'b>> {
    // 1. The other namespaces. Here and not in the template's clone, so that several can be made at once, and so that what is in
    //    them belongs to ids that are mapped.
    unshare(namespaces(args.spec)).or_refuse(Step::Namespaces, c"")?;
    // 2. The keys, which namespaces don't divide.
    leave_session_keyring(args.has_no_keyring)?;
    // 3. The names.
    let hostname = args.spec.hostname.unwrap_or(DEFAULT_HOSTNAME);
    sethostname(hostname).or_refuse(Step::Hostname, c"")?;
    // 4. The network.
    if args.spec.net {
        sys::bring_up_loopback().or_refuse(Step::Loopback, c"")?;
    }
    // 5. The file system.
    build::build(args.plan, args.joining)
}

/// Sends the tmpfs of a root to the test binary.
fn hand_out_root(socket: &FrameSocket, tmpfs: &OwnedFd) -> Result<(), RefusalRef<'static>> {
    let mut buffer = Buffer::new();
    let message = Frame::Copied.encode(&mut buffer);
    let sent = sys::send_in_time(|| sys::send_with_fds(socket.0.as_fd(), message, &[tmpfs.as_raw_fd()]));
    sent.or_refuse(Step::Copy, c"")
}

fn leave_session_keyring(has_none: bool) -> Result<(), RefusalRef<'static>> {
    match sys::join_new_session_keyring() {
        // To a kernel without keys, or in a container whose filter refuses them, there is nothing to leave.
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        // An ordinary user may have two hundred keys, and those of tests that are over are counted for a while.
        Err(Errno::EDQUOT) if has_none => Ok(()),
        result => result.or_refuse(Step::Keyring, c""),
    }
}

/// If the test has clocks of its own, has all processes that init will fork run in a time namespace whose clocks show so much more. See
/// time_namespaces(7).
fn set_clocks(args: &InitArgs<'_>) -> Result<(), RefusalRef<'static>> {
    let Some([monotonic, boottime]) = args.spec.time else { return Ok(()) };
    unshare(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME)).or_refuse(Step::Clocks, c"")?;
    let mut line = [0; 128];
    let room = line.len();
    let mut rest = &mut line[..];
    let [m, b] = map_both([monotonic, boottime], |offset| (offset.as_secs(), offset.subsec_nanos()));
    // Offsets have at most 20 digits and nanoseconds 9, so that there is room.
    let formatted = write!(rest, "monotonic {} {}\nboottime {} {}\n", m.0, m.1, b.0, b.1);
    let length = room - rest.len();
    let written = match formatted {
        Ok(()) => openat(args.proc, c"self/timens_offsets", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
            .and_then(|file| write(&file, &line[..length]).map(drop)),
        Err(_) => Err(Errno::EOVERFLOW),
    };
    written.or_refuse(Step::Clocks, c"/proc/self/timens_offsets")
}

/// What init enters besides the namespaces that it was born in.
fn namespaces(spec: &Spec) -> CloneFlags {
    let always =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP;
    if spec.net { always | CloneFlags::CLONE_NEWNET } else { always }
}

/// Sends init's pidfd to the test binary. That comes first, when there is nobody yet who could spoil the socket.
fn tell_of_birth(args: &InitArgs<'_>) -> Result<(), RefusalRef<'static>> {
    let mut buffer = Buffer::new();
    let message = Frame::Born.encode(&mut buffer);
    let sent = sys::pidfd_of(getpid())
        .and_then(|pidfd| sys::send_with_fds(args.channel.socket.as_fd(), message, &[pidfd.as_raw_fd()]));
    sent.or_refuse(Step::Birth, c"")
}

/// Moves init, and with it all that it will fork, to the sandbox's cgroup, before there is a cgroup namespace to make that
/// its root.
fn join_cgroup(args: &InitArgs<'_>) -> Result<(), RefusalRef<'static>> {
    let InitArgs { spec, joining, born_in_cgroup, .. } = args;
    let v2 = joining.v2.iter().filter(|_| !born_in_cgroup).map(|(_, procs)| procs);
    for file in joining.v1.iter().map(|tree| &tree.tasks).chain(v2) {
        // 0 stands for whoever writes it.
        match write(file, b"0") {
            Err(errno) if spec.has_limits() => return Err(RefusalRef::of_call(Step::JoinCgroup, c"", errno)),
            _ => {}
        }
    }
    if joining.process_limit {
        // Init is one more. A limit that is lower already does as well.
        let wanted = rlim_t::from(spec.pids.unwrap_or(cgroup::DEFAULT_PIDS)).saturating_add(1);
        let set = getrlimit(Resource::RLIMIT_NPROC)
            .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NPROC, wanted.min(soft), wanted.min(hard)));
        set.or_refuse(Step::ProcessLimit, c"")?;
    }
    Ok(())
}

/// Leaves init no descriptors but the standard streams and the frame socket.
fn put_descriptors_in_place(args: &InitArgs<'_>, proof: &SingleThreaded) -> Result<FrameSocket, RefusalRef<'static>> {
    let _ = set_name(c"belljar-init");
    sys::set_disposition(libc::SIGCHLD, Disposition::Default);
    let Channel { socket, stdout, stderr } = args.channel;
    let place = || {
        sys::redirect(stdout.as_fd(), libc::STDOUT_FILENO)?;
        sys::redirect(stderr.as_fd(), libc::STDERR_FILENO)?;
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let lowest = RawFd::try_from(limit).map_or(SOCKET_FD, |limit| SOCKET_FD.min(limit - 1));
        sys::duplicate_above(socket, lowest)
    };
    let socket = FrameSocket(place().or_refuse(Step::Descriptors, c"")?);
    if let Err(errno) = sys::close_all_but(proof, &mut [socket.0.as_raw_fd()], Some(args.proc)) {
        // The channel's descriptor of the socket may be closed by now.
        give_up(socket.0.as_fd(), RefusalRef::of_call(Step::Descriptors, c"", errno));
    }
    moments::set_socket(socket.0.as_fd());
    Ok(socket)
}

/// Makes this process, which is `tied` to the template's life, the leader of a session. If the template has ended already, so does this
/// process.
///
/// The order matters. If the template ends before prctl(2), no signal comes; setsid(2) then waits for the lock under which
/// the kernel ends processes, so that the template's descriptor says so for certain.
fn live_no_longer_than(template: BorrowedFd<'_>, tied: nix::Result<()>) -> Result<(), RefusalRef<'static>> {
    let look = || {
        tied?;
        setsid()?;
        let mut fds = [PollFd::new(template, PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO)
    };
    match look().or_refuse(Step::Session, c"")? {
        0 => Ok(()),
        // The test binary sees that for itself.
        _ => sys::exit_now(1),
    }
}

/// Maps the ids, without which nothing else may be done. To map more than one takes rights that init doesn't have: then it waits for
/// the template. If that can't, it tells why, and this process ends.
fn map_ids_of(args: &InitArgs<'_>) -> Result<(), RefusalRef<'static>> {
    match (args.spec.ids, args.mapped) {
        // Root of the template's user namespace is whoever runs the tests.
        (Ids::One, _) => map_ids(args.proc, ["0 0 1\n", "0 0 1\n"]),
        (Ids::Range(_), Some(mapped)) => match read(mapped, &mut [0; size_of::<u64>()]) {
            Ok(_) => {
                record(Moment::Done(Step::MapIds), c"");
                Ok(())
            }
            Err(_) => sys::exit_now(1),
        },
        (Ids::Range(_), None) | (Ids::Host, _) => Ok(()),
    }
}
