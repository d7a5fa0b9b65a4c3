//! The zygote: a fork of the test binary from before `main`, which makes all sandboxes.
//!
//! It has one thread and has run no test. So it may do what a test's thread can't: fork without inheriting a lock that
//! another thread holds, and enter a user namespace. What it forks finds all statics as they were at the start, and
//! needs no exec: a test's `fn` pointer is as good there as here.
//!
//! 1. A constructor forks it, after all constructors before ours; it runs those behind ours itself.
//! 2. It waits for requests. For each it clones init, and goes on; it never waits for a test.
//! 3. When the test binary is gone, or asks for nothing any more, it ends, and all sandboxes with it.
#![expect(unsafe_code, reason = "the fork itself")]

pub(crate) mod facts;
mod plan;
pub(crate) mod request;

use std::ffi::{CString, c_char, c_int};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;
use std::{env, io, mem};

use nix::errno::Errno;
use nix::sys::prctl::{get_name, set_name, set_pdeathsig};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, shutdown, socketpair};
use nix::unistd::{Pid, getpid, getppid, setpgid};

use crate::cgroup::{self, Joining};
use crate::host::{account, doctor, policy, repeats, trace};
use crate::proc::MOUNTINFO;
use crate::report::{Frame, Moment, Refusal, Step};
use crate::sandbox::{self, Birth, Channel, mark};
use crate::settings::{BELLJAR_CGROUP, BELLJAR_REPORT, BELLJAR_TRACE, settings};
use crate::spec::{Ids, Spec};
use crate::sys::{self, Cloned, Constructor, Disposition, MainArguments, SingleThreaded};
use facts::Facts;
use request::{REQUEST_SIZE, Request};

// ---- In the test binary ----

/// The zygote, as the test binary sees it.
#[derive(Debug)]
pub(crate) struct Zygote {
    requests: OwnedFd,
    pidfd: OwnedFd,
    /// The process whose zygote it is. A fork of the test binary must leave it alone.
    owner: Pid,
}

static ZYGOTE: OnceLock<nix::Result<Zygote>> = OnceLock::new();

/// Set when this process begins to end.
static ENDING: OnceLock<()> = OnceLock::new();

/// Has the C library call [`enter`] before `main`. Without a priority it comes after all that have one.
/// Miri can't fork.
#[used]
#[cfg_attr(not(miri), unsafe(link_section = ".init_array"))]
static ENTRY: Constructor = enter;

extern "C" fn enter(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) {
    if runs_tests() {
        // Before the fork, so that both processes go by the same.
        settings();
        let zygote = start(MainArguments(argc, argv, envp));
        // Nobody else sets it: constructors run once.
        let _ = ZYGOTE.set(zygote);
        doctor::answer();
    }
}

/// Whether the arguments leave a libtest harness anything to run.
fn runs_tests() -> bool {
    !env::args_os().skip(1).any(|argument| argument == "--list" || argument == "--help" || argument == "-h")
}

fn start(arguments: MainArguments) -> nix::Result<Zygote> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let (ours, theirs) = (sys::above_standard_streams(ours)?, sys::above_standard_streams(theirs)?);
    let owner = getpid();
    let cloned = if is_single_threaded() {
        // SAFETY: there is one thread, and it is here.
        unsafe { sys::clone_zygote() }
    } else {
        // SAFETY: of locks, the zygote uses the allocator's, those of the C library, and some of the standard library's,
        // which other threads hold for moments while they start threads or print.
        unsafe { sys::fork_zygote() }
    };
    match cloned? {
        Cloned::Parent(pidfd) => {
            sys::at_exit(end_zygote)?;
            Ok(Zygote { requests: ours, pidfd: sys::above_standard_streams(pidfd)?, owner })
        }
        Cloned::Child(proof) => {
            drop(ours);
            serve(theirs, owner, arguments, &proof)
        }
    }
}

/// Whether constructors have started no threads. A process's directory of threads has one link for each, and two for itself.
fn is_single_threaded() -> bool {
    fs::metadata("/proc/self/task").is_ok_and(|threads| threads.nlink() == 3)
}

/// Lets the zygote end, and waits until it has, so that nothing is left when the test binary is gone.
extern "C" fn end_zygote() {
    if let Some(Ok(zygote)) = ZYGOTE.get() {
        if zygote.is_own() {
            let _ = ENDING.set(());
            let _ = shutdown(zygote.requests.as_raw_fd(), Shutdown::Both);
            let _ = sys::wait_pidfd(zygote.pidfd.as_fd());
            cgroup::clean_up();
            account::print();
            trace::print();
            policy::print();
            repeats::print();
        }
    }
}

/// Whether this process has begun to end, and so to end the zygote and all sandboxes.
pub(crate) fn is_ending() -> bool {
    ENDING.get().is_some()
}

/// The zygote of this test binary. `None` if it was started with arguments that say to run no test.
pub(crate) fn zygote() -> Option<&'static nix::Result<Zygote>> {
    ZYGOTE.get()
}

impl Zygote {
    /// Whether this process has started it, and was not forked by one that has.
    pub(crate) fn is_own(&self) -> bool {
        self.owner == getpid()
    }

    /// Asks for a sandbox, which is to have these ends of the channel, and to join its cgroup.
    pub(crate) fn request(&self, spec: &'static Spec, channel: Channel, joining: Joining) -> nix::Result<()> {
        let request = Request { spec, channel, joining };
        sys::send_with_fds(self.requests.as_fd(), &request.encode(), &request.descriptors())
    }
}

impl AsFd for Zygote {
    /// The zygote's pidfd.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

// ---- In the zygote ----

fn serve(requests: OwnedFd, owner: Pid, arguments: MainArguments, proof: &SingleThreaded) -> ! {
    let mut server = match Server::settle(&requests, owner, proof) {
        Ok(server) => server,
        Err(refused) => refuse_all(&requests, refused),
    };
    // SAFETY: `ENTRY` lies in `.init_array`, and it is its turn.
    unsafe { sys::run_constructors_behind(&raw const ENTRY, arguments) };
    let mut message = [0; REQUEST_SIZE];
    loop {
        match next_request(&requests, &mut message) {
            Some(Some(request)) => server.clone_init(request, proof),
            Some(None) => {}
            None => server.end(),
        }
    }
}

/// The next request, which may be none that can be read. `None` if there will be no more.
fn next_request(requests: &OwnedFd, message: &mut [u8]) -> Option<Option<Request>> {
    let received = sys::receive(requests.as_fd(), message, MsgFlags::empty()).ok()??;
    Some(Request::decode(message.get(..received.length).unwrap_or_default(), received.fds))
}

/// Tells all who ask for sandboxes why this zygote can't make any.
fn refuse_all(requests: &OwnedFd, Unsettled { path, errno }: Unsettled) -> ! {
    let mut message = [0; REQUEST_SIZE];
    while let Some(request) = next_request(requests, &mut message) {
        if let Some(Request { channel, .. }) = request {
            let refusal = Refusal { step: Step::Zygote, path: path.as_bytes(), errno };
            let _ = sandbox::send(channel.report.as_fd(), &Frame::Refused(refusal));
        }
    }
    sys::exit_now(1)
}

/// Why a zygote can't make sandboxes, and the path that this is about, if it is about one.
struct Unsettled {
    path: &'static str,
    errno: Errno,
}

impl From<Errno> for Unsettled {
    fn from(errno: Errno) -> Self {
        Self { path: "", errno }
    }
}

/// What the standard streams of the zygote are, and the standard input of all tests.
const NULL: &str = "/dev/null";

/// How much sooner or later than others the kernel kills this process when memory is used up. See proc_pid_oom_score_adj(5).
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

struct Server {
    /// Refers to the zygote itself. Each init looks at it once.
    pidfd: OwnedFd,
    sigchld: Disposition,
    /// What this process was called before it was named a zygote.
    command: CString,
    inits: Vec<Pid>,
    host: Option<Host>,
}

/// What is found out when the first sandbox is asked for.
struct Host {
    facts: Facts,
    /// Whether what the zygote hands on as a session keyring is one that nobody can use.
    has_no_keyring: bool,
    id_maps: [String; 2],
    plans: Vec<(&'static Spec, sandbox::rootfs::Plan)>,
}

impl Server {
    /// Cuts the zygote off from what it has inherited, and ties its life to that of the test binary.
    fn settle(requests: &OwnedFd, owner: Pid, proof: &SingleThreaded) -> Result<Self, Unsettled> {
        set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != owner {
            return Err(Errno::ESRCH.into());
        }
        // Away from the keyboard: whether an interrupt ends the run is for the test binary to say.
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        if settings().trace.is_some() {
            mark::want();
        }
        // Where tests of nested test binaries would look for them, there is neither that cgroup nor that file.
        for name in [BELLJAR_CGROUP, BELLJAR_REPORT, BELLJAR_TRACE] {
            // SAFETY: this process has one thread.
            unsafe { env::remove_var(name) };
        }
        // The kernel is to take tests, which may have limits, before what it was told to spare.
        if fs::read_to_string(OOM_SCORE).is_ok_and(|score| score.starts_with('-')) {
            let _ = fs::write(OOM_SCORE, "0");
        }
        let command = get_name()?;
        set_name(c"belljar-zygote")?;
        let null = File::options().read(true).write(true).open(NULL);
        let null = null.map_err(|error| Unsettled { path: NULL, errno: sys::errno_of(&error) })?;
        for number in 0..=2 {
            sys::redirect(null.as_fd(), number)?;
        }
        mem::forget(null);
        sys::close_all_but(proof, requests.as_raw_fd())?;
        Ok(Self {
            pidfd: sys::pidfd_of(getpid())?,
            sigchld: sys::set_disposition(libc::SIGCHLD, Disposition::Default),
            command,
            inits: Vec::new(),
            host: None,
        })
    }

    /// Clones init, which tells the test binary of its birth; or tells it why there was none.
    fn clone_init(&mut self, request: Request, proof: &SingleThreaded) {
        self.reap();
        let Request { spec, channel, joining } = request;
        mark::tell(channel.report.as_fd());
        mark::mark(Moment::Requested, c"");
        // Where even this fails, the test binary is gone, or sees that all ends of the channel are closed.
        let refuse = |step, path: &str, errno| {
            let refusal = Refusal { step, path: path.as_bytes(), errno };
            let _ = sandbox::send(channel.report.as_fd(), &Frame::Refused(refusal));
        };
        let host = match self.host.take().map_or_else(Host::gather, Ok) {
            Ok(host) => self.host.insert(host),
            Err(error) => return refuse(Step::Zygote, MOUNTINFO, sys::errno_of(&error)),
        };
        if spec.ids == Ids::Host && !host.facts.is_real_root {
            return refuse(Step::HostIds, "", Errno::EPERM);
        }
        let plan = host.plan(spec);
        let user = if spec.ids == Ids::Host { 0 } else { libc::CLONE_NEWUSER };
        let clone = |cgroup| sys::clone_init(proof, user | libc::CLONE_NEWPID, cgroup);
        // Where it can't be born in its cgroup, it joins by itself.
        let mut unified = joining.unified.as_ref().map(|(directory, _)| directory.as_fd());
        let mut cloned = clone(unified);
        if cloned.is_err() && unified.take().is_some() {
            cloned = clone(None);
        }
        let born_in_cgroup = unified.is_some();
        match cloned {
            Ok(Cloned::Parent(child)) => self.inits.push(child),
            Err(errno) => refuse(Step::Clone, "", errno),
            Ok(Cloned::Child(proof)) => {
                let Host { id_maps, plans, has_no_keyring, .. } = &*host;
                let birth = Birth {
                    spec,
                    plan: &plans[plan].1,
                    id_maps,
                    zygote: self.pidfd.as_fd(),
                    has_no_keyring: *has_no_keyring,
                    sigchld: self.sigchld,
                    command: &self.command,
                    channel,
                    joining,
                    born_in_cgroup,
                };
                sandbox::init(&birth, proof)
            }
        }
    }

    /// Forgets the inits that have ended.
    fn reap(&mut self) {
        while let Ok(Some(waited)) = sys::wait_any(libc::WNOHANG) {
            self.inits.retain(|init| *init != waited.pid);
        }
    }

    /// Ends all sandboxes, and then the zygote.
    fn end(&mut self) -> ! {
        self.reap();
        for init in &self.inits {
            // They are children that have not been waited for, so that the number is still theirs.
            let _ = kill(*init, Signal::SIGKILL);
        }
        while let Ok(Some(_)) = sys::wait_any(0) {}
        sys::exit_now(0)
    }
}

impl Host {
    fn gather() -> io::Result<Self> {
        let facts = Facts::gather()?;
        let id_maps = [facts.uid.as_raw(), facts.gid.as_raw()].map(|id| format!("0 {id} 1\n"));
        let has_no_keyring = sys::join_new_session_keyring().and_then(|()| sys::revoke_session_keyring()).is_ok();
        Ok(Self { facts, has_no_keyring, id_maps, plans: Vec::new() })
    }

    /// The number of the plan for `spec`, which is made if there is none.
    fn plan(&mut self, spec: &'static Spec) -> usize {
        let known = self.plans.iter().position(|(planned, _)| *planned == spec);
        known.unwrap_or_else(|| {
            self.plans.push((spec, plan::plan(&self.facts, spec)));
            self.plans.len() - 1
        })
    }
}
