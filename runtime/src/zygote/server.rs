//! The zygote's process: it hands each request for a sandbox to the template that can make it.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::{env, fs, mem, ptr};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl::{get_name, set_child_subreaper, set_name, set_pdeathsig};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, getpid, getppid, pipe2, setpgid};

use super::ids;
use super::keeper::Kept;
#[cfg(feature = "images")]
use super::request::decode_image;
use super::request::{MESSAGE_SIZE, Request, RootAt, SWEEPER, decode_root_at};
use super::template::{self, Inherited, TemplateArgs, TemplateKind, raise_oom_score};
use crate::cgroup;
use crate::collect::CollectVec as _;
use crate::frame::moments;
use crate::frame::{Refusal, Step};
use crate::proc::{self, MountWatch, has_capability, has_fakeroot, name_of};
use crate::rootfs::access::closed_above;
use crate::rootfs::context::RunContext;
use crate::rootfs::plan::{self, HostFiles, Responding};
use crate::rootfs::stage::LeftRoot;
use crate::rootfs::sysctl;
use crate::rootfs::unpacked::Unpacked;
use crate::settings::{Variable, settings};
use crate::sorted::Map;
use crate::spec::{Ids, Preparation, Spec, Test};
use crate::sys::{self, Cloned, Disposition, LOOKER, SingleThreaded};

/// What the standard streams of the zygote are, and the standard input of all tests.
const NULL: &str = "/dev/null";

/// See capabilities(7).
const CAP_SYS_RESOURCE: u32 = 24;

/// The zygote's score, see proc_pid_oom_score_adj(5). The kernel kills it before the test binary, which has all verdicts.
const OOM_SCORE_OF_ZYGOTE: i32 = 500;

/// What the zygote does from its birth to its end. It never returns. `for_one`: it is likely to be asked for one sandbox, and no more.
pub(super) fn serve(requests: OwnedFd, owner: Pid, for_one: bool, proof: &SingleThreaded) -> ! {
    let mut server = match Server::settle(&requests, owner, for_one, proof) {
        Ok(server) => server,
        Err(refusal) => refuse_all(&requests, &refusal),
    };
    let mut buffer = [0; MESSAGE_SIZE];
    while let Some((message, descriptors)) = template::next_message(&requests, &mut buffer) {
        #[cfg(feature = "images")]
        if let Some((spec, directory)) = decode_image(message) {
            server.know_image(spec, &directory);
            continue;
        }
        if message == [SWEEPER] {
            descriptors.iter().for_each(|socket| make_sweeper(owner, socket, proof));
        } else if let Some((preparation, place)) = decode_root_at(message) {
            server.keep(preparation, place, descriptors.into_iter().next());
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
fn refuse_all(requests: &OwnedFd, refusal: &Refusal) -> ! {
    let mut message = [0; MESSAGE_SIZE];
    while let Some(request) = template::next_request(requests, &mut message) {
        request.iter().for_each(|request| template::tell(request, refusal));
    }
    sys::exit_now(1)
}

/// Where root finds what only root runs.
const OF_ROOT: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The `PATH` that root needs, if there is one and it lacks something: ordinary users have no `sbin` directories in theirs.
fn path_with_sbin() -> Option<OsString> {
    let path = env::var_os("PATH")?;
    let is_there = |directory: &&str| env::split_paths(&path).any(|there| there == Path::new(directory));
    let lacking = OF_ROOT.iter().filter(|directory| !is_there(directory)).map(PathBuf::from).collect_vec();
    (!lacking.is_empty()).then(|| env::join_paths(env::split_paths(&path).chain(lacking)).ok()).flatten()
}

struct Server {
    inherited: Inherited,
    /// Whether the first request is likely to be the only one. Nothing else depends on that.
    for_one: bool,
    templates: Vec<Template>,
    /// The templates that have not been waited for, those among them that are out of date too.
    children: Vec<Pid>,
    host: Option<KnownHost>,
    /// Which generation of templates the last request needed.
    generation: u32,
    /// What preparations have left.
    kept: Vec<(Preparation, Kept)>,
    /// The images that tests ask for, by the addresses of their specs.
    images: Map<usize, Rc<Unpacked>>,
}

/// What is found out when the first sandbox is asked for.
struct KnownHost {
    context: RunContext,
    /// `None` where there is no `/proc`.
    mounts: Option<MountWatch>,
    /// Of each package that was tested so far, the directories that root of a sandbox could not reach by itself.
    unreachable: Map<PathBuf, Vec<PathBuf>>,
    /// Which file systems answer.
    responding: Responding,
}

/// A template, as the zygote sees it.
struct Template {
    kind: TemplateKind,
    /// When this is closed, it makes no more sandboxes, and ends when those that it has made have ended.
    requests: OwnedFd,
}

impl Server {
    /// Cuts the zygote off from what it has inherited, and ties its life to that of the test binary.
    fn settle(requests: &OwnedFd, owner: Pid, for_one: bool, proof: &SingleThreaded) -> Result<Self, Refusal> {
        let failed = |errno| Refusal::new(Step::Zygote, "", errno);
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
            moments::enable();
        }
        // A test may start a test binary itself, which would go by them.
        for variable in Variable::ALL.into_iter().filter(|variable| !variable.is_for_tests()) {
            sys::set_variable(proof, variable.name(), None);
        }
        if let Some(path) = path_with_sbin() {
            sys::set_variable(proof, "PATH", Some(&path));
        }
        // With this capability, the kernel keeps a new score as the minimum for processes without it.
        let is_kept = has_capability(CAP_SYS_RESOURCE) == Some(true);
        raise_oom_score(if is_kept { 0 } else { OOM_SCORE_OF_ZYGOTE });
        let command = get_name().map_err(failed)?;
        set_name(c"belljar-zygote").map_err(failed)?;
        let null = File::options().read(true).write(true).open(NULL);
        let null = null.map_err(|error| Refusal::new(Step::Zygote, NULL, sys::errno_of(&error)))?;
        for number in 0..=2 {
            sys::redirect(null.as_fd(), number).map_err(failed)?;
        }
        mem::forget(null);
        sys::close_all_but(proof, &mut [requests.as_raw_fd()], None).map_err(failed)?;
        let sigchld = sys::set_disposition(libc::SIGCHLD, Disposition::Default);
        let inherited = Inherited { sigchld, command };
        let (templates, children, kept, images) = (Vec::new(), Vec::new(), Vec::new(), Map::new());
        Ok(Self { inherited, for_one, templates, children, host: None, generation: 0, kept, images })
    }

    /// Hands a request to the template of its kind. If there is none that is up to date, it makes one.
    fn hand_on(&mut self, message: &[u8], request: &Request, proof: &SingleThreaded) {
        while let Ok(Some(waited)) = sys::wait_any(libc::WNOHANG) {
            self.children.retain(|child| *child != waited.pid);
        }
        let host = self.host.get_or_insert_with(KnownHost::gather);
        // Templates are in the cgroup and have the mounts that this process had when it made them.
        let is_outdated = mem::replace(&mut self.generation, request.joining.generation) != request.joining.generation;
        if host.mounts.as_ref().is_some_and(MountWatch::has_changed) || is_outdated {
            self.templates.clear();
        }
        let kind = TemplateKind {
            unreachable: host.unreachable(request.spec),
            root: self.kept.iter().rev().find_map(|(Preparation(test), kept)| match kept {
                Kept::Directory(path) if ptr::eq(&raw const test.spec, request.spec) => Some(path.clone()),
                _ => None,
            }),
            image: self.images.get(&ptr::from_ref(request.spec).addr()).cloned(),
            ..TemplateKind::of(request.spec, &host.context)
        };
        if kind.ids == Ids::Host && !host.context.is_real_root {
            return template::tell(request, &Refusal::new(Step::HostIds, "", Errno::EPERM));
        }
        loop {
            let known = self.templates.iter().position(|template| template.kind == kind);
            let at = match known.map_or_else(|| self.make_template(kind.clone(), proof), Ok) {
                Ok(at) => at,
                Err(refusal) => return template::tell(request, &refusal),
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
                Err(errno) => return template::tell(request, &Refusal::new(Step::Zygote, "", errno)),
                // The template ends as soon as its sandbox does, while the test binary is still judging: nobody has to wait for that later. Who
                // asks a second time may ask a hundred times, and is given a template that stays.
                Ok(()) if mem::take(&mut self.for_one) => return self.templates.clear(),
                Ok(()) => return,
            }
        }
    }

    /// Clones a template, and returns its number.
    fn make_template(&mut self, kind: TemplateKind, proof: &SingleThreaded) -> Result<usize, Refusal> {
        let failed = |errno| Refusal::new(Step::Template, "", errno);
        let sockets = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = sockets.map_err(failed)?;
        let mapper = matches!(kind.ids, Ids::Range(_)).then(|| pipe2(OFlag::O_CLOEXEC)).transpose().map_err(failed)?;
        let owns_kernel_files = self.host.as_ref().is_some_and(|host| host.context.owns_kernel_files);
        // The zygote has the rights of root here, and makes a better one than the template could.
        let proc_sys = owns_kernel_files.then(|| sysctl::tree(kind.net).ok()).flatten();
        let open = |path: &PathBuf| {
            let path = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
            sys::clone_mounts(&path)
        };
        let unreachable_mounts = kind.unreachable.iter().map(open).try_collect_vec().map_err(failed)?;
        let left = self.left(&kind, proof)?;
        let user = if kind.ids == Ids::Host { 0 } else { libc::CLONE_NEWUSER };
        let zygote = getpid();
        match sys::clone_into(proof, user | libc::CLONE_NEWNS, None).map_err(failed)? {
            Cloned::Child(proof) => {
                let Self { inherited, host, .. } = self;
                let context = host.take().map_or_else(RunContext::gather, |host| host.context);
                let mapper = mapper.map(|(told, _)| told);
                let args = TemplateArgs {
                    kind: &kind,
                    context,
                    inherited,
                    zygote,
                    mapper,
                    proc_sys,
                    unreachable_mounts,
                    left,
                };
                template::run(args, &theirs, &proof)
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

    /// Remembers the image that `spec` asks for. If it can't be read, there is none, and the sandbox is refused.
    #[cfg(feature = "images")]
    fn know_image(&mut self, spec: &'static Spec, directory: &Path) {
        let address = ptr::from_ref(spec).addr();
        match Unpacked::read(directory) {
            // Those who have the same share it, and so their templates.
            Ok(image) => {
                let known = self.images.values().find(|known| ***known == image).cloned();
                self.images.insert(address, known.unwrap_or_else(|| image.into()));
            }
            Err(_) => drop(self.images.remove(&address)),
        }
    }

    /// Keeps what `preparation` has left, or remembers where that lies, until the path is empty.
    fn keep(&mut self, preparation: &'static Test, place: RootAt, tmpfs: Option<OwnedFd>) {
        let kept = match place {
            RootAt::Directory(path) if path.as_os_str().is_empty() => {
                return self.kept.retain(|(known, _)| *known != Preparation(preparation));
            }
            RootAt::Directory(path) => Kept::Directory(path),
            RootAt::Descriptor => tmpfs.map_or(Kept::Lost(Errno::EMFILE), Kept::Tmpfs),
        };
        self.kept.push((Preparation(preparation), kept));
    }

    /// What the preparations have left that sandboxes of this kind start from, the last one first.
    fn left(&mut self, kind: &TemplateKind, proof: &SingleThreaded) -> Result<Vec<LeftRoot>, Refusal> {
        let mut copy = |preparation: &'static Test| {
            let known = self.kept.iter_mut().rfind(|(known, _)| *known == Preparation(preparation));
            let root = known.ok_or(Errno::ESRCH).and_then(|(_, kept)| kept.root(proof));
            root.map_err(|errno| Refusal::new(Step::Prepared, preparation.short_name(), errno))
        };
        kind.preparations.iter().map(|Preparation(preparation)| copy(preparation)).try_collect_vec()
    }

    /// Ends all templates, and so all sandboxes, and then the zygote.
    fn end(&mut self) -> ! {
        for child in &self.children {
            // They have not been waited for, so that the numbers are still theirs.
            let _ = kill(*child, Signal::SIGKILL);
        }
        // The inits of a template that has ended are killed, and have become children of this process.
        wait_for_all();
        sys::exit_now(0)
    }
}

/// Waits until all children have ended, except those that look at file systems: not even SIGKILL ends one as long as nobody answers it.
fn wait_for_all() {
    let is_waited_for = |child: u32| name_of(child).is_none_or(|name| name.as_bytes() != LOOKER.to_bytes());
    let some_are = || proc::children().is_none_or(|children| children.into_iter().any(is_waited_for));
    while some_are() && matches!(sys::wait_any(0), Ok(Some(_))) {}
}

impl KnownHost {
    fn gather() -> Self {
        let (mut context, responding) = (RunContext::gather(), Responding::default());
        let profiles = context.profiles.take();
        let mounts = proc::mounts();
        let files = HostFiles::new(&mounts, &responding, context.target.as_deref());
        // The runtime of profiles makes what is missing itself, but could not inside a sandbox.
        let are_there = |path: &PathBuf| files.follow(path) && fs::create_dir_all(path).is_ok();
        context.profiles = profiles.filter(are_there);
        Self { context, mounts: MountWatch::begin().ok(), unreachable: Map::new(), responding }
    }

    /// The directories of what is tested that root of the sandbox could not reach by itself. Only real root has a way there.
    fn unreachable(&mut self, spec: &Spec) -> Vec<PathBuf> {
        let Self { context, unreachable, responding, .. } = self;
        let Some(package) =
            context.package(spec).filter(|_| context.is_real_root && spec.mount && spec.ids == Ids::One)
        else {
            return Vec::new();
        };
        let find = || {
            let mounts = proc::mounts();
            let files = HostFiles::new(&mounts, responding, context.target.as_deref());
            let tested = plan::tested(&files, context, spec).into_iter().map(|path| files.canonical(&path));
            let mut found: Vec<PathBuf> = Vec::new();
            for path in tested.filter(|path| closed_above(path, spec.ids).is_some()) {
                // The outer ones come first.
                if !found.iter().any(|outer| path.starts_with(outer)) {
                    found.push(path);
                }
            }
            found
        };
        unreachable.get_or_insert_with(package.to_path_buf(), find).clone()
    }
}
