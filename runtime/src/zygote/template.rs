//! A template: a fork of the zygote that is in namespaces of its own, of which each init gets copies.
//!
//! It is root of a user namespace, and in a mount namespace in which the host's tree is read-only. Each init is cloned into a user
//! namespace below. So the mounts that it has are those of another user namespace, and the kernel locks their flags: root of a sandbox
//! can't make them writable again. See mount_namespaces(7), "Restrictions on mount namespaces", and `lock_mnt_tree` in the kernel's
//! `fs/namespace.c`.
//!
//! What is mounted in it is what the host had mounted when it was made, and stays so. When the host mounts something, the
//! zygote makes another template for the sandboxes to come.
//!
//! A real root without a user namespace (`user = "host"`) has a template too. There the kernel locks nothing.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl::{set_name, set_pdeathsig};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, Shutdown, shutdown};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpid, getppid};

use super::ids::{self, Maps};
use super::request::{MESSAGE_SIZE, Request};
use crate::collect::{CollectVec as _, map_both};
use crate::frame::Refusal;
use crate::frame::moments;
use crate::frame::{Frame, Moment, Step};
use crate::proc::{Mount, text_of};
use crate::rootfs::context::RunContext;
use crate::rootfs::plan::{self, Host, HostFiles, Planned, Responding};
use crate::rootfs::stage::{self, LeftRoot, Stage, StageParts};
use crate::rootfs::sysctl;
use crate::rootfs::unpacked::Unpacked;
use crate::sandbox;
use crate::spec::{Ids, Preparation, Root, Spec};
use crate::sys::{self, Action, Cloned, SingleThreaded};

/// What the templates of different sandboxes differ in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TemplateKind {
    pub(super) ids: Ids,
    /// Whether its sandboxes have networks of their own.
    pub(super) net: bool,
    /// Whether its sandboxes have roots of their own. Otherwise they have the host's tree as it is.
    pub(super) mount: bool,
    /// The paths of the host that they may write to.
    pub(super) writable_binds: Vec<PathBuf>,
    /// The paths of what is tested that its sandboxes could not reach by themselves.
    pub(super) unreachable: Vec<PathBuf>,
    /// The preparations that its sandboxes start from, the last one first.
    pub(super) preparations: Vec<Preparation>,
    /// The directory of the host that its one sandbox has for a root.
    pub(super) root: Option<PathBuf>,
    /// The image that is their root.
    pub(super) image: Option<Rc<Unpacked>>,
}

impl TemplateKind {
    pub(super) fn of(spec: &Spec, context: &RunContext) -> Self {
        let writable_binds = spec.binds.iter().filter(|bind| spec.mount && bind.writable);
        let writable_binds = writable_binds.map(|bind| context.absolute(spec, bind.from)).collect_vec();
        let preparations = spec.preparations().map(Preparation).collect_vec();
        let Spec { ids, net, mount, .. } = *spec;
        Self { ids, net, mount, writable_binds, unreachable: Vec::new(), preparations, root: None, image: None }
    }
}

/// What the zygote has inherited from the test binary, for the test's process.
pub(super) struct Inherited {
    /// How the test binary took SIGCHLD when all constructors had run.
    pub(super) sigchld: Action,
    /// What it was called.
    pub(super) command: CString,
}

/// Tells the test binary why it gets no sandbox. If even this fails, the test binary is gone, or sees that all ends of the channel are
/// closed.
pub(super) fn tell(request: &Request, refusal: &Refusal) {
    let _ = sandbox::send(request.channel.socket.as_fd(), &Frame::Refused(refusal.as_ref()));
}

/// The next message, and the descriptors that came with it. `None` if there will be no more.
pub(super) fn next_message<'m>(requests: &OwnedFd, buffer: &'m mut [u8]) -> Option<(&'m [u8], Vec<OwnedFd>)> {
    let received = sys::receive(requests.as_fd(), buffer, MsgFlags::empty()).ok()??;
    Some((buffer.get(..received.length).unwrap_or_default(), received.fds))
}

/// The next request, which may be one that can't be read. `None` if there will be no more.
pub(super) fn next_request(requests: &OwnedFd, buffer: &mut [u8]) -> Option<Option<Request>> {
    next_message(requests, buffer).map(|(message, descriptors)| Request::decode(message, descriptors))
}

/// What a template is born with.
pub(super) struct TemplateArgs<'i> {
    pub(super) kind: &'i TemplateKind,
    pub(super) context: RunContext,
    pub(super) inherited: &'i Inherited,
    pub(super) zygote: Pid,
    /// Tells when the ids are mapped, if another process does that.
    pub(super) mapper: Option<OwnedFd>,
    /// What is to be `/proc/sys`, if the zygote could make that.
    pub(super) proc_sys: Option<OwnedFd>,
    /// What the host has mounted at the unreachable paths, in their order.
    pub(super) unreachable_mounts: Vec<OwnedFd>,
    /// What the preparations have left.
    pub(super) left: Vec<LeftRoot>,
}

/// What a template does from its birth to its end. It never returns.
pub(super) fn run(args: TemplateArgs<'_>, requests: &OwnedFd, proof: &SingleThreaded) -> ! {
    let mut template = match Template::prepare(args, requests, proof) {
        Ok(template) => template,
        Err(refusal) => give_up(requests, &refusal),
    };
    let mut message = [0; MESSAGE_SIZE];
    // The inits that have not been waited for.
    let mut inits = Vec::new();
    while let Some(request) = next_request(requests, &mut message) {
        while let Ok(Some(waited)) = sys::wait_any(libc::WNOHANG) {
            inits.retain(|init| *init != waited.pid);
        }
        inits.extend(request.and_then(|request| template.clone_init(request, proof)));
    }
    // It is out of date, or was for one sandbox. Its sandboxes live as long as it does. The test binary is about to read how their inits
    // have ended, which it can until somebody has waited for them: so that is left to the zygote.
    for init in inits {
        let _ = sys::await_end_of(init);
    }
    sys::exit_now(0)
}

/// Tells whoever asks why there is no template, and ends. Who asks later gets another one.
fn give_up(requests: &OwnedFd, refusal: &Refusal) -> ! {
    let mut message = [0; MESSAGE_SIZE];
    while let Some(request) = next_request(requests, &mut message) {
        request.iter().for_each(|request| tell(request, refusal));
        // From now on nobody can ask. Who has asked before is told.
        let _ = shutdown(requests.as_raw_fd(), Shutdown::Read);
    }
    sys::exit_now(1)
}

/// How much sooner or later than others the kernel kills this process when memory is used up. See proc_pid_oom_score_adj(5).
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// The score by which the kernel kills tests first when memory is used up: before the zygote and the test binary, which has all verdicts.
const OOM_SCORE_OF_TEMPLATE: i32 = 1000;

/// Raises the score of this process to this one, unless it is as high already.
pub(super) fn raise_oom_score(score: i32) {
    let own = text_of(OOM_SCORE).ok().and_then(|own| own.trim().parse().ok());
    if own.is_some_and(|own: i32| own < score) {
        let _ = fs::write(OOM_SCORE, score.to_string());
    }
}

/// How long keys of sandboxes that are over may be counted.
const KEYS_ARE_COUNTED: Duration = Duration::from_secs(5);

/// Leaves the session keyring for one that nobody can use. Returns whether that is so.
///
/// An ordinary user may have two hundred keys, and the kernel puts away those that nobody has any more when it finds the time.
fn leave_session_keyring() -> bool {
    let start = Instant::now();
    loop {
        match sys::join_new_session_keyring() {
            Err(Errno::EDQUOT) if start.elapsed() < KEYS_ARE_COUNTED => thread::sleep(Duration::from_millis(2)),
            joined => return joined.and_then(|()| sys::revoke_session_keyring()).is_ok(),
        }
    }
}

struct Template<'i> {
    context: RunContext,
    inherited: &'i Inherited,
    /// How it gives its ids to inits, if there are more than one.
    maps: Option<Maps>,
    /// What inits find besides the host's tree.
    stage: Option<Stage>,
    /// What the host had mounted.
    mounts: Vec<Mount>,
    /// The directory `/proc` of the host.
    proc: OwnedFd,
    /// Refers to the template itself. Each init looks at it once.
    pidfd: OwnedFd,
    /// Whether what it hands on as a session keyring is one that nobody can use.
    has_no_keyring: bool,
    plans: Vec<KnownPlan>,
    /// The image that is the root of its sandboxes.
    image: Option<Rc<Unpacked>>,
    /// Which file systems answer.
    responding: Responding,
}

/// How the sandboxes are made that a spec asks for.
struct KnownPlan {
    asked: &'static Spec,
    /// The same, with what an image adds to it.
    spec: &'static Spec,
    planned: Planned,
}

impl<'i> Template<'i> {
    fn prepare(args: TemplateArgs<'i>, requests: &OwnedFd, proof: &SingleThreaded) -> Result<Self, Refusal> {
        let TemplateArgs { kind, context, inherited, zygote, mapper, proc_sys, unreachable_mounts, left } = args;
        let failed = |errno| Refusal::new(Step::Zygote, "", errno);
        set_pdeathsig(Signal::SIGKILL).map_err(failed)?;
        if getppid() != zygote {
            // It has ended before, which the test binary sees for itself.
            sys::exit_now(1);
        }
        set_name(c"belljar-tmpl").map_err(failed)?;
        raise_oom_score(OOM_SCORE_OF_TEMPLATE);
        let mut kept = vec![requests.as_raw_fd()];
        for fd in mapper.iter().chain(&proc_sys).chain(&unreachable_mounts) {
            kept.push(fd.as_raw_fd());
        }
        kept.extend(left.iter().filter_map(LeftRoot::descriptor).map(AsRawFd::as_raw_fd));
        sys::close_all_but(proof, &mut kept, None).map_err(failed)?;
        let pidfd = sys::pidfd_of(getpid()).map_err(failed)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let proc = open(c"/proc", flags, Mode::empty()).map_err(|errno| Refusal::new(Step::Zygote, "/proc", errno))?;
        match (kind.ids, mapper) {
            (Ids::One, _) => {
                let [uids, gids] = map_both([context.uid.as_raw(), context.gid.as_raw()], |id| format!("0 {id} 1\n"));
                let proc = proc.as_fd();
                sandbox::give_up_setgroups(proc)?;
                sandbox::map_ids(proc, [&uids, &gids])?;
            }
            (Ids::Range(_), Some(mapper)) => ids::wait_for(mapper)?,
            (Ids::Range(_), None) | (Ids::Host, _) => {}
        }
        let maps = if matches!(kind.ids, Ids::Range(_)) { Some(Maps::of_template(proc.as_fd())?) } else { None };
        let proc_sys = match proc_sys {
            None if context.owns_kernel_files => Some(sysctl::tree(kind.net)?),
            proc_sys => proc_sys,
        };
        let mounts = stage::make_mounts_private()?;
        let responding = Responding::default();
        let files = HostFiles::new(&mounts, &responding, context.target.as_deref());
        // If a file system does not respond, the plan says so.
        let mut writable = context.profiles.iter().chain(&kind.writable_binds).map(PathBuf::as_path).collect_vec();
        writable.retain(|path| files.follow(path));
        let unreachable_mounts = kind.unreachable.iter().cloned().zip(unreachable_mounts).collect_vec();
        let root = kind.root.as_deref();
        let parts = StageParts { writable, unreachable_mounts, proc_sys, left, root, net: kind.net };
        let stage = if kind.mount { Some(Stage::enter(&mounts, parts)?) } else { Stage::lay_over_proc(&parts)? };
        let has_no_keyring = leave_session_keyring();
        let (plans, image) = (Vec::new(), kind.image.clone());
        Ok(Self { context, inherited, maps, stage, mounts, proc, pidfd, has_no_keyring, plans, image, responding })
    }

    /// Clones init, which tells the test binary of its birth; or tells it why there was none.
    fn clone_init(&mut self, request: Request, proof: &SingleThreaded) -> Option<Pid> {
        moments::set_socket(request.channel.socket.as_fd());
        moments::record(Moment::Requested, c"");
        let cloned = self.try_to_clone_init(&request, proof);
        cloned.inspect_err(|refusal| tell(&request, refusal)).ok()
    }

    fn try_to_clone_init(&mut self, request: &Request, proof: &SingleThreaded) -> Result<Pid, Refusal> {
        let Request { spec, channel, joining } = request;
        let plan = self.plan(spec)?;
        let KnownPlan { spec, planned, .. } = &self.plans[plan];
        // Init waits for it to be set.
        let mapped = self.maps.as_ref().map(|_| EventFd::from_flags(EfdFlags::EFD_CLOEXEC)).transpose();
        let mapped = mapped.map_err(|errno| Refusal::new(Step::MapIds, "", errno))?;
        let user = if spec.ids == Ids::Host { 0 } else { libc::CLONE_NEWUSER };
        let clone = |cgroup| sys::clone_into(proof, user | libc::CLONE_NEWPID, cgroup);
        // Where it can't be born in its cgroup, it joins by itself.
        let mut v2 = joining.v2.as_ref().map(|(directory, _)| directory.as_fd());
        let mut cloned = clone(v2);
        if cloned.is_err() && v2.take().is_some() {
            cloned = clone(None);
        }
        let born_in_cgroup = v2.is_some();
        match cloned {
            Err(errno) => Err(Refusal::new(Step::Clone, "", errno)),
            Ok(Cloned::Parent(init)) => {
                let Some((maps, mapped)) = self.maps.as_ref().zip(mapped) else { return Ok(init) };
                let set = |()| mapped.write(1).map_err(|errno| Refusal::new(Step::MapIds, "", errno));
                if let Err(refusal) = maps.write_for(self.proc.as_fd(), init).and_then(set) {
                    // Before init's death, which says less.
                    tell(request, &refusal);
                    // Init waits, and has not been waited for.
                    let _ = kill(init, Signal::SIGKILL);
                }
                Ok(init)
            }
            Ok(Cloned::Child(proof)) => {
                let args = sandbox::InitArgs {
                    spec,
                    plan: &planned.plan,
                    proc: self.proc.as_fd(),
                    template: self.pidfd.as_fd(),
                    mapped: mapped.as_ref().map(|mapped| mapped.as_fd()),
                    has_no_keyring: self.has_no_keyring,
                    sigchld: self.inherited.sigchld,
                    command: &self.inherited.command,
                    channel,
                    joining,
                    born_in_cgroup,
                };
                sandbox::init(&args, proof)
            }
        }
    }

    /// The number of the plan for `spec`, which is made if there is none that holds.
    fn plan(&mut self, spec: &'static Spec) -> Result<usize, Refusal> {
        if let Some(known) = self.plans.iter().position(|known| *known.asked == *spec) {
            let basis = &self.plans[known].planned.basis;
            if basis.is_empty() || self.on_host(|| basis.holds())? {
                return Ok(known);
            }
            self.plans.swap_remove(known);
        }
        self.make_plan(spec)
    }

    /// Makes the plan for `asked`, and returns its number.
    #[inline(never)] // Each clone copies the stack that was written to since the last one.
    fn make_plan(&mut self, asked: &'static Spec) -> Result<usize, Refusal> {
        let spec = match (asked.root, self.image.as_ref().map(|image| image.spec(asked))) {
            (Root::Image(image), None | Some(None)) => return Err(Refusal::new(Step::Copy, image, Errno::ENOENT)),
            (_, Some(Some(spec))) => spec,
            _ => asked,
        };
        let Self { context, mounts, stage, responding, image, .. } = &*self;
        let files = HostFiles::new(mounts, responding, context.target.as_deref());
        let host = Host { context, mounts, files, stage: stage.as_ref(), image: image.as_deref() };
        let planned = self.on_host(|| plan::plan(&host, spec))??;
        self.plans.push(KnownPlan { asked, spec, planned });
        Ok(self.plans.len() - 1)
    }

    /// Looks at the host's tree.
    fn on_host<T>(&self, look: impl FnOnce() -> T) -> Result<T, Refusal> {
        let Some(stage) = &self.stage else { return Ok(look()) };
        stage.on_host(look).map_err(|errno| Refusal::new(Step::Zygote, "", errno))
    }
}
