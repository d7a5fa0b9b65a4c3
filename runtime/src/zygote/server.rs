//! The zygote's process: it hands each request for a sandbox to the template that can make it.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs, mem};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl::{get_name, set_child_subreaper, set_name, set_pdeathsig};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, getpid, getppid, pipe2, setpgid};

use super::ids;
use super::request::{REQUEST_SIZE, Request, SWEEPER};
use super::template::{self, Birth, Inherited, Kind, give_way};
use crate::cgroup;
use crate::frame::Step;
use crate::frame::moments;
use crate::frame::refusal::Failure;
use crate::proc::{self, MountWatch, has_capability, has_fakeroot};
use crate::rootfs::access::closed_above;
use crate::rootfs::facts::Facts;
use crate::rootfs::plan::{self, Answers, Known};
use crate::rootfs::sysctl;
use crate::settings::{Variable, settings};
use crate::spec::{Ids, Spec};
use crate::sys::{self, Cloned, Disposition, SingleThreaded};

/// What the standard streams of the zygote are, and the standard input of all tests.
const NULL: &str = "/dev/null";

/// See capabilities(7).
const CAP_SYS_RESOURCE: u32 = 24;

/// From this score on, the memory that there is matters more than what a process has of it: the zygote goes before the test binary, and all
/// verdicts with that.
const SOON: i32 = 500;

/// What the zygote does from its birth to its end. It never returns.
pub(super) fn serve(requests: OwnedFd, owner: Pid, proof: &SingleThreaded) -> ! {
    let mut server = match Server::settle(&requests, owner, proof) {
        Ok(server) => server,
        Err(failure) => refuse_all(&requests, &failure),
    };
    let mut buffer = [0; REQUEST_SIZE];
    while let Some((message, descriptors)) = template::next_message(&requests, &mut buffer) {
        if message == SWEEPER {
            descriptors.iter().for_each(|socket| make_sweeper(owner, socket, proof));
        } else if let Some(request) = Request::decode(message, descriptors) {
            server.hand_on(message, &request, proof);
        }
    }
    server.end()
}

/// Makes the process that removes the cgroups of the test binary if that is ended. It does not die with this one. Where it can't be
/// had, the test binary finds the socket closed.
fn make_sweeper(owner: Pid, socket: &OwnedFd, proof: &SingleThreaded) {
    if let Ok(Cloned::Child(proof)) = sys::clone_sibling(proof) {
        cgroup::sweep_after(owner, socket, &proof)
    }
}

/// Tells all who ask for sandboxes why this zygote can't make any.
fn refuse_all(requests: &OwnedFd, failure: &Failure) -> ! {
    let mut message = [0; REQUEST_SIZE];
    while let Some(request) = template::next_request(requests, &mut message) {
        request.iter().for_each(|request| template::tell(request, failure));
    }
    sys::exit_now(1)
}

/// Where root finds what only root runs.
const OF_ROOT: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The `PATH` that root needs, if there is one and it lacks something: ordinary users have no `sbin` directories in theirs.
fn path_with_roots() -> Option<OsString> {
    let path = env::var_os("PATH")?;
    let is_there = |directory: &&str| env::split_paths(&path).any(|there| there == Path::new(directory));
    let lacking: Vec<_> = OF_ROOT.iter().filter(|directory| !is_there(directory)).map(PathBuf::from).collect();
    (!lacking.is_empty()).then(|| env::join_paths(env::split_paths(&path).chain(lacking)).ok()).flatten()
}

struct Server {
    inherited: Inherited,
    templates: Vec<Template>,
    /// The templates that have not been waited for, those among them that are out of date too.
    children: Vec<Pid>,
    host: Option<Host>,
    /// How often the test binary had moved this process to another cgroup when the last request came.
    moves: u32,
}

/// What is found out when the first sandbox is asked for.
struct Host {
    facts: Facts,
    /// `None` where there is no `/proc`.
    mounts: Option<MountWatch>,
    /// Of each package that was tested so far, the directories that root of a sandbox could not reach by itself.
    closed: BTreeMap<PathBuf, Vec<PathBuf>>,
    /// Which file systems answer.
    known: Known,
}

/// A template, as the zygote sees it.
struct Template {
    kind: Kind,
    /// When this is closed, it makes no more sandboxes, and ends when those that it has made have ended.
    requests: OwnedFd,
}

impl Server {
    /// Cuts the zygote off from what it has inherited, and ties its life to that of the test binary.
    fn settle(requests: &OwnedFd, owner: Pid, proof: &SingleThreaded) -> Result<Self, Failure> {
        let failed = |errno| Failure::new(Step::Zygote, "", errno);
        set_pdeathsig(Signal::SIGKILL).map_err(failed)?;
        if getppid() != owner {
            // It has ended before, and nobody asks for anything.
            sys::exit_now(1);
        }
        if has_fakeroot() {
            return Err(failed(Errno::EPERM));
        }
        // If a template is killed, its inits become children of this process, which waits for them at its end.
        set_child_subreaper(true).map_err(failed)?;
        // Away from the keyboard: whether an interrupt ends the run is for the test binary to say.
        setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(failed)?;
        if settings().trace.is_some() {
            moments::want();
        }
        // A test may start a test binary itself, which would go by them.
        for variable in Variable::ALL.into_iter().filter(|variable| !variable.is_for_tests()) {
            sys::set_variable(proof, variable.name(), None);
        }
        if let Some(path) = path_with_roots() {
            sys::set_variable(proof, "PATH", Some(&path));
        }
        // Who has this right can't lower the score again for those without: the kernel keeps it as the least.
        let is_kept = has_capability(CAP_SYS_RESOURCE) == Some(true);
        give_way(if is_kept { 0 } else { SOON });
        let command = get_name().map_err(failed)?;
        set_name(c"belljar-zygote").map_err(failed)?;
        let null = File::options().read(true).write(true).open(NULL);
        let null = null.map_err(|error| Failure::new(Step::Zygote, NULL, sys::errno_of(&error)))?;
        for number in 0..=2 {
            sys::redirect(null.as_fd(), number).map_err(failed)?;
        }
        mem::forget(null);
        sys::close_all_but(proof, &mut [requests.as_raw_fd()], None).map_err(failed)?;
        let sigchld = sys::set_disposition(libc::SIGCHLD, Disposition::Default);
        let inherited = Inherited { sigchld, command };
        Ok(Self { inherited, templates: Vec::new(), children: Vec::new(), host: None, moves: 0 })
    }

    /// Hands a request to the template of its kind. If there is none that is up to date, it makes one.
    fn hand_on(&mut self, message: &[u8], request: &Request, proof: &SingleThreaded) {
        while let Ok(Some(waited)) = sys::wait_any(libc::WNOHANG) {
            self.children.retain(|child| *child != waited.pid);
        }
        let host = self.host.get_or_insert_with(Host::gather);
        // Templates are in the cgroup and have the mounts that this process had when it made them.
        let has_moved = mem::replace(&mut self.moves, request.joining.moves) != request.joining.moves;
        if host.mounts.as_ref().is_some_and(MountWatch::has_changed) || has_moved {
            self.templates.clear();
        }
        let kind = Kind { closed: host.closed(request.spec), ..Kind::of(request.spec, &host.facts) };
        if kind.ids == Ids::Host && !host.facts.is_real_root {
            return template::tell(request, &Failure::new(Step::HostIds, "", Errno::EPERM));
        }
        loop {
            let known = self.templates.iter().position(|template| template.kind == kind);
            let at = match known.map_or_else(|| self.make_template(kind.clone(), proof), Ok) {
                Ok(at) => at,
                Err(failure) => return template::tell(request, &failure),
            };
            match sys::send_with_fds_now(self.templates[at].requests.as_fd(), message, &request.descriptors()) {
                // It has ended: it was killed, or could not be made ready, and has told those who asked. Or some hundreds wait for it:
                // somebody has stopped it, or several are needed.
                Err(Errno::EPIPE | Errno::ECONNRESET | Errno::EAGAIN) => {
                    self.templates.remove(at);
                    // The next one may fare better. Two in a row are too many: the test binary sees that its channel is closed.
                    if known.is_none() {
                        return;
                    }
                }
                Err(errno) => return template::tell(request, &Failure::new(Step::Zygote, "", errno)),
                Ok(()) => return,
            }
        }
    }

    /// Clones a template, and returns its number.
    fn make_template(&mut self, kind: Kind, proof: &SingleThreaded) -> Result<usize, Failure> {
        let failed = |errno| Failure::new(Step::Template, "", errno);
        let sockets = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = sockets.map_err(failed)?;
        let mapper = matches!(kind.ids, Ids::Range(_)).then(|| pipe2(OFlag::O_CLOEXEC)).transpose().map_err(failed)?;
        let owns_settings = self.host.as_ref().is_some_and(|host| host.facts.owns_kernel_files);
        // Who has the rights of root makes it better than the template could.
        let settings = owns_settings.then(|| sysctl::tree(kind.net).ok()).flatten();
        let open = |path: &PathBuf| {
            let path = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
            sys::clone_mounts(&path)
        };
        let opened = kind.closed.iter().map(open).collect::<Result<_, _>>().map_err(failed)?;
        let user = if kind.ids == Ids::Host { 0 } else { libc::CLONE_NEWUSER };
        let zygote = getpid();
        match sys::clone_into(proof, user | libc::CLONE_NEWNS, None).map_err(failed)? {
            Cloned::Child(proof) => {
                let Self { inherited, host, .. } = self;
                let facts = host.take().map_or_else(Facts::gather, |host| host.facts);
                let mapper = mapper.map(|(told, _)| told);
                let birth = Birth { kind: &kind, facts, inherited, zygote, mapper, settings, opened };
                template::run(birth, &theirs, &proof)
            }
            Cloned::Parent(template) => {
                self.children.push(template);
                if let (Ids::Range(count), Some((_, tell))) = (kind.ids, mapper) {
                    ids::map_in_other_process(template, count, &tell, proof).map_err(failed)?;
                }
                self.templates.push(Template { kind, requests: ours });
                Ok(self.templates.len() - 1)
            }
        }
    }

    /// Ends all templates, and so all sandboxes, and then the zygote.
    fn end(&mut self) -> ! {
        for child in &self.children {
            // They have not been waited for, so that the numbers are still theirs.
            let _ = kill(*child, Signal::SIGKILL);
        }
        // The inits of a template that has ended are killed, and have become children of this process.
        template::wait_for_all();
        sys::exit_now(0)
    }
}

impl Host {
    fn gather() -> Self {
        let (mut facts, known) = (Facts::gather(), Known::default());
        let profiles = facts.profiles.take();
        let answers = Answers { mounts: &proc::mounts(), known: &known, target: facts.target.as_deref() };
        // The runtime of profiles makes what is missing itself, but could not inside a sandbox.
        let are_there = |path: &PathBuf| answers.follow(path) && fs::create_dir_all(path).is_ok();
        facts.profiles = profiles.filter(are_there);
        Self { facts, mounts: MountWatch::begin().ok(), closed: BTreeMap::new(), known }
    }

    /// The directories of what is tested that root of the sandbox could not reach by itself. Only real root has a way there.
    fn closed(&mut self, spec: &Spec) -> Vec<PathBuf> {
        let Self { facts, closed, known, .. } = self;
        let Some(package) = facts.package(spec).filter(|_| facts.is_real_root && spec.mount && spec.ids == Ids::One)
        else {
            return Vec::new();
        };
        let find = || {
            let answers = Answers { mounts: &proc::mounts(), known, target: facts.target.as_deref() };
            let tested = plan::tested(&answers, facts, spec).into_iter().map(|path| answers.canonical(&path));
            let mut found: Vec<PathBuf> = Vec::new();
            for path in tested.filter(|path| closed_above(path, spec.ids).is_some()) {
                // The outer ones come first.
                if !found.iter().any(|outer| path.starts_with(outer)) {
                    found.push(path);
                }
            }
            found
        };
        closed.entry(package.to_path_buf()).or_insert_with(find).clone()
    }
}
