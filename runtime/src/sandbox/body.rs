//! The test's process: PID 2, in which the body runs on a thread that bears the test's name.

use std::any::Any;
use std::env;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_dumpable, set_name};
use nix::sys::socket::MsgFlags;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Gid, Pid, Uid, chown, setgroups, setpgid, setresgid, setresuid};

use super::call::Call;
use super::channel::{self, FrameSocket, INODE, InitArgs, SOCKET, check, frame_socket};
use super::ids::{ROOT, map_ids};
#[cfg(feature = "net")]
use super::lab;
use super::words;
#[cfg(feature = "faults")]
use crate::faults;
use crate::frame::address::{ADDRESS_SIZE, FUNCTION_SIZE, Function, decode_test};
use crate::frame::changes::{self, Change};
use crate::frame::moments::{self, record};
use crate::frame::usage::{USAGE_SIZE, Usage};
use crate::frame::{Frame, Moment, OrRefuse as _, Outcome, PAYLOAD_MAX, REPORTED, RefusalRef, Step, UNREPORTED};
use crate::rootfs::paths::c_string;
use crate::spec::{DEFAULT_HOME, Ids, Root, Spec, Test};
use crate::sys::{self, Crash, Disposition, Message, SingleThreaded};
use crate::text;
use crate::whereabouts::Whereabouts;

/// With this status a process ends that the body forked and that returned from it, if it panicked: what Rust programs
/// end with.
const PANICKED: i32 = 101;

/// The test that runs here.
static TEST: OnceLock<&'static Test> = OnceLock::new();

/// Whether the body is over, so that `exit` is ours.
static OVER: AtomicBool = AtomicBool::new(false);

/// Waits for the test that this sandbox is for, runs its body, reports, and ends.
pub(super) fn run(socket: FrameSocket, args: &InitArgs<'_>, proof: &SingleThreaded) -> ! {
    // A process group of its own, so that a signal to the group does not reach init.
    if let Err(errno) = setpgid(Pid::from_raw(0), Pid::from_raw(0)) {
        give_up(&socket, RefusalRef::of_call(Step::Process, c"", errno))
    }
    let _ = set_name(args.command);
    sys::set_action(libc::SIGCHLD, args.sigchld);
    // What the `main` of every Rust program does.
    sys::set_disposition(libc::SIGPIPE, Disposition::Ignore);
    if let Some([monotonic, _]) = args.spec.time {
        moments::set_clock_offset(monotonic);
    }
    record(Moment::Waits, c"");
    let (test, call) = match receive(&socket) {
        Ok(Some((test, call))) => (*TEST.get_or_init(|| test), call),
        // The test binary wants no test of this sandbox any more.
        Ok(None) => sys::exit_now(0),
        Err(errno) => give_up(&socket, RefusalRef::of_call(Step::Process, c"", errno)),
    };
    record(Moment::Told, c"");
    let socket = SOCKET.get_or_init(|| socket);
    let ready = sys::mark_process().and_then(|()| sys::at_exit(at_exit)).and_then(|()| sys::on_crash(on_crash));
    match ready.and_then(|()| fstat(&socket.0)) {
        Ok(stat) => drop(INODE.set(stat.st_ino)),
        Err(errno) => give_up(socket, RefusalRef::of_call(Step::Process, c"", errno)),
    }
    if let Some(user) = args.spec.user.filter(|user| *user != ROOT) {
        if let Err(refusal) = become_user(user, args.spec) {
            give_up(socket, refusal)
        }
    }
    #[cfg(feature = "net")]
    lab::prepare(args.spec);
    #[cfg(feature = "faults")]
    faults::set_inside(|| frame_socket().map(|socket| socket.0.as_fd()).zip(INODE.get().copied()));
    sys::change_environment(proof, args.spec.env, args.spec.clear_env);
    let run_body = || {
        let ended = run_body(test, call);
        *result() = Some(ended);
    };
    let body = match sys::spawn(thread::Builder::new().name(test.short_name().to_owned()), Box::new(run_body)) {
        Ok(body) => body,
        Err(error) => {
            let errno = error.raw_os_error().map_or(Errno::EAGAIN, Errno::from_raw);
            give_up(socket, RefusalRef::of_call(Step::Thread, c"", errno))
        }
    };
    // The thread is joined, so that the destructors of its locals belong to the body. The standard library's own way has no answer for a
    // thread that was ended by exit(2) or by a filter.
    let _ = sys::join(body);
    let result = result().take();
    #[cfg(feature = "net")]
    let result = lab::finish(test, result);
    let Some(result) = result else {
        let reported = check(socket).and_then(|()| socket.send(&Frame::Finished(Outcome::Vanished)));
        // The thread may have held any lock.
        sys::exit_now(if reported.is_ok() { REPORTED } else { UNREPORTED })
    };
    OVER.store(true, Ordering::Release);
    end(finish(socket, result))
}

/// How the body ended.
fn result() -> MutexGuard<'static, Option<thread::Result<u8>>> {
    static RESULT: Mutex<Option<thread::Result<u8>>> = Mutex::new(None);
    RESULT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends this process, after the report.
fn end(reported: nix::Result<()>) -> ! {
    match reported {
        Ok(()) => process::exit(REPORTED),
        Err(_) => process::exit(UNREPORTED),
    }
}

/// Tells which step has failed, and ends this process.
fn give_up(socket: &FrameSocket, refusal: RefusalRef<'_>) -> ! {
    channel::give_up(socket.0.as_fd(), refusal)
}

/// Becomes this user and this group, without root's powers. Only root can set a sandbox up. So if the sandbox has one id only, which is
/// root's, the test enters a user namespace below, in which that id has another number.
fn become_user((uid, gid): (u32, u32), spec: &Spec) -> Result<(), RefusalRef<'static>> {
    if spec.ids != Ids::One {
        return leave_root((uid, gid), spec).or_refuse(Step::User, c"");
    }
    unshare(CloneFlags::CLONE_NEWUSER).or_refuse(Step::User, c"")?;
    let proc = open(c"/proc", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).or_refuse(Step::MapIds, c"/proc")?;
    map_ids(proc.as_fd(), [&format!("{uid} 0 1\n"), &format!("{gid} 0 1\n")])?;
    sys::drop_capabilities().or_refuse(Step::User, c"")
}

/// Becomes another user than root, for good.
fn leave_root((uid, gid): (u32, u32), spec: &Spec) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if spec.mount && spec.root == Root::Tmpfs {
        // In that root there is nobody else whose home it could be.
        let own = spec.variable("HOME").map_or_else(|| env::var_os("HOME"), |home| Some(home.into()));
        let home = own.map(PathBuf::from).filter(|home| home.is_absolute()).unwrap_or_else(|| DEFAULT_HOME.into());
        match chown(&*c_string(&home), Some(uid), Some(gid)) {
            // The home is the host's, and read-only; or on a file system of the kernel's; or missing; or below a file.
            Err(Errno::EROFS | Errno::EPERM | Errno::ENOENT | Errno::ENOTDIR) => {}
            result => result?,
        }
    }
    setgroups(&[gid])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // The kernel takes a process that was root for one that has secrets, and its part of `/proc` from it.
    set_dumpable(true)
}

/// The test that is sent when there is one, and what its body is called with, if that takes bytes. `None` if there will be none.
fn receive(socket: &FrameSocket) -> nix::Result<Option<(&'static Test, Option<Call>)>> {
    let mut message = [0; ADDRESS_SIZE + FUNCTION_SIZE + 1];
    let Some(Message { length, fds, .. }) = sys::receive(socket.0.as_fd(), &mut message, MsgFlags::empty())? else {
        return Ok(None);
    };
    let Some((test, function)) = message.get(..length).and_then(|message| message.split_at_checked(ADDRESS_SIZE))
    else {
        return Ok(None);
    };
    let Some(test) = decode_test(test) else { return Ok(None) };
    if function.is_empty() {
        return Ok(Some((test, None)));
    }
    let call = Function::decode(function).and_then(|function| Call::new(function, fds)).ok_or(Errno::EMFILE)?;
    Ok(Some((test, Some(call))))
}

/// Runs the body, on its thread.
fn run_body(test: &'static Test, call: Option<Call>) -> thread::Result<u8> {
    // Without a signal stack, an overflow is reported less well, and as reliably.
    let _ = sys::install_signal_stack();
    if cfg!(panic = "abort") {
        report_panics_that_abort();
    }
    record(Moment::BodyBegins, c"");
    let result = match call {
        None => catch_unwind(AssertUnwindSafe(test.body)),
        Some(call) => catch_unwind(AssertUnwindSafe(|| call.run())),
    };
    if sys::is_marked_process() {
        return result;
    }
    // The body forked, and this is the child, which returned from it as well. It has no say.
    match result {
        Ok(0) => process::exit(0),
        Ok(status) => process::exit(status.into()),
        Err(_) => process::exit(PANICKED),
    }
}

/// Where a panic aborts, of whichever thread, only its hook runs. So that one reports it, as the harness's does in other tests.
fn report_panics_that_abort() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        let Some(socket) = SOCKET.get().filter(|_| sys::is_marked_process()) else { return };
        OVER.store(true, Ordering::Release);
        record(Moment::BodyEnds, c"");
        let reported = check(socket).and_then(|()| send_text(socket, info.payload()));
        end(reported.and_then(|outcome| socket.send(&Frame::Finished(outcome))))
    }));
}

/// Ends the process unless it is a sandbox's: a body that came here by another way than ours is not to run, and is no pass, whatever
/// its test expects.
pub fn must_be_inside(test: &str) {
    if TEST.get().is_none() {
        // Past the harness, which could not print it any more.
        let _ = io::stderr().write_all(words::outside(test).as_bytes());
        process::exit(PANICKED)
    }
}

/// Ends the process if it is a sandbox's: the body has called an isolated test, which can't have a sandbox of its own. That is no panic,
/// so that no test may expect it.
pub(crate) fn must_be_outside(test: &str) {
    if let Some(outer) = TEST.get() {
        let _ = io::stderr().write_all(words::called_inside(test, outer.short_name()).as_bytes());
        process::exit(PANICKED)
    }
}

/// The test in whose sandbox this is.
pub(crate) fn outer() -> Option<&'static Test> {
    TEST.get().copied()
}

/// Asks the test binary, outside, what has changed in the copy that is the root.
pub(crate) fn changes() -> io::Result<Vec<Change>> {
    let unsupported = |text| io::Error::new(io::ErrorKind::Unsupported, text);
    let socket = frame_socket().ok_or_else(|| unsupported(words::no_changes()))?;
    let answer = sys::send_in_time(|| {
        let mut errno = [0; size_of::<i32>()];
        let Some(answer) = socket.ask(&Frame::AskChanges, &mut errno)? else { return Ok(None) };
        match (i32::from_ne_bytes(errno), answer.fds.into_iter().next()) {
            (0, Some(file)) => Ok(Some(file)),
            // This process had no room for it.
            (0, None) => Err(Errno::EMFILE),
            (errno, _) => Err(Errno::from_raw(errno)),
        }
    });
    match answer {
        Ok(Some(file)) => {
            let (mut file, mut list) = (File::from(file), Vec::new());
            file.rewind()?;
            file.read_to_end(&mut list)?;
            changes::decode(&list).ok_or_else(|| Errno::EPROTO.into())
        }
        Ok(None) => Err(unsupported(words::no_changes())),
        Err(Errno::ENODATA) => Err(unsupported(words::no_copy())),
        Err(errno) => Err(errno.into()),
    }
}

/// Tells which sandbox this is.
pub(crate) fn whereabouts() -> Option<Whereabouts> {
    let (socket, test) = (frame_socket()?, TEST.get()?);
    let mut pid = [0; size_of::<u32>()];
    let known = socket.ask(&Frame::AskInitPid, &mut pid).ok().flatten().map(|_| u32::from_ne_bytes(pid));
    Some(Whereabouts { test: test.name, arguments: test.arguments, init: known.filter(|pid| *pid != 0) })
}

/// Asks the test binary, outside, what this sandbox has used.
pub(crate) fn usage() -> Option<Usage> {
    let socket = frame_socket()?;
    let mut bytes = [0; USAGE_SIZE];
    let received = socket.ask(&Frame::AskUsage, &mut bytes).ok()??;
    (received.length == USAGE_SIZE).then(|| Usage::decode(&bytes))
}

fn finish(socket: &FrameSocket, result: thread::Result<u8>) -> nix::Result<()> {
    check(socket)?;
    record(Moment::BodyEnds, c"");
    let outcome = match result {
        Ok(status) => Outcome::Returned(status),
        Err(payload) => {
            let outcome = send_text(socket, &*payload)?;
            // The payload may be of a type whose destructor panics.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            outcome
        }
    };
    socket.send(&Frame::Finished(outcome))
}

/// Sends the text that a panic has, if it has one.
fn send_text(socket: &FrameSocket, payload: &(dyn Any + Send)) -> nix::Result<Outcome> {
    let text = text::of_panic(payload);
    for piece in text.unwrap_or_default().as_bytes().chunks(PAYLOAD_MAX) {
        socket.send(&Frame::PanicText(piece))?;
    }
    Ok(Outcome::Panicked { text: text.is_some() })
}

extern "C" fn at_exit() {
    if !OVER.load(Ordering::Acquire) && sys::is_marked_process() {
        send(&Frame::Exiting);
    }
}

fn on_crash(crash: Crash) {
    if sys::is_marked_process() {
        send(&Frame::Crash(crash));
    }
}

fn send(frame: &Frame<'_>) {
    if let Some(socket) = SOCKET.get() {
        let _ = socket.send(frame);
    }
}
