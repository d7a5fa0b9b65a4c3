//! A sandbox, as the test binary holds it: two pipes, a socket, and a descriptor for its init.

#[cfg(any(test, fuzzing))]
mod made_up;
mod progress;
mod received;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, setsockopt, shutdown, socketpair};

use crate::cgroup::{self, Cgroup, NoCgroup};
use crate::frame::address;
use crate::frame::changes::Change;
use crate::harness::evidence::{Evidence, Unanswered};
use crate::harness::keep_failed;
use crate::harness::output::Stream;
use crate::harness::processes::{self, Process};
use crate::harness::run_by::{Call, RunBy};
use crate::harness::spare;
use crate::harness::supervisor::{Report, Supervisor};
use crate::harness::time::{Time, wait};
use crate::harness::trace::{self, Life};
use crate::harness::words;
use crate::proc::pid_of;
use crate::rootfs::diff::Tree;
use crate::sandbox::Channel;
use crate::settings::settings;
use crate::spec::{Spec, Test};
use crate::sys;
use crate::zygote::{Zygote, is_ending};

use progress::{Ending, Next, Progress};

/// How often it is looked whether the kernel has killed a process of a test because its memory was used up.
const MEMORY_CHECK: Duration = Duration::from_millis(20);

/// How long processes may take to end after SIGKILL. One that waits in the kernel for a server that does not answer may take for ever.
const DEATH: Duration = Duration::from_secs(5);

/// How long the pause is before a thread is asked for again that could not be had.
const THREAD_PAUSE: Duration = Duration::from_millis(10);

/// How many frames are read at once. Whoever sends without end must not keep the rest from being looked at.
const FRAMES_AT_ONCE: usize = 64;

pub(in crate::harness) struct Sandbox {
    socket: OwnedFd,
    stdout: Stream,
    stderr: Stream,
    cgroup: Cgroup,
    /// Whether RLIMIT_NPROC stands in for a cgroup.
    has_process_limit: bool,
    spec: &'static Spec,
    life: Option<Life>,
    /// Its init, once that is born.
    init: Option<OwnedFd>,
    /// The process that has told of the birth: init itself, as the kernel knows the sender of a message.
    teller: Option<i32>,
    /// Its root, once that is made, if it is a copy or tests are to start from it.
    root: Option<nix::Result<Tree>>,
    /// What the body is called with, if it takes bytes.
    call: Option<Arc<Call>>,
    /// Spare descriptors. They keep places for its init's pidfd, and for its root if that is handed out.
    places: Vec<OwnedFd>,
    progress: Progress,
    /// Who answers its calls that are watched.
    supervisors: Vec<Supervisor>,
    /// It is large, and handed from function to function: so it lies by itself.
    evidence: Box<Evidence>,
}

impl Sandbox {
    /// Asks the zygote for a sandbox, which is made while the caller goes on. Fails if there is no room for the request before the `deadline`.
    pub(in crate::harness) fn request(
        zygote: &Zygote,
        spec: &'static Spec,
        deadline: Option<Instant>,
        caller: &RunBy,
    ) -> Result<Box<Self>, NoSandbox> {
        let _span = trace::span("ask for a sandbox");
        let life = trace::life();
        let reserved = spare::reserve()?;
        let made = {
            let _span = trace::span("make a cgroup");
            cgroup::make(spec, zygote.as_fd())
        };
        // Where that failed, something may have been made too.
        cgroup::see_to_sweeper(|socket| zygote.request_sweeper(socket));
        let (cgroup, joining) = made?;
        let (socket, their_socket) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // Each message then comes with its sender. So an empty message is not taken for the end of the stream.
        setsockopt(&socket, PassCred, &true)?;
        let (stdout, their_stdout) = caller.stdout()?;
        let (stderr, their_stderr) = caller.stderr()?;
        spare::note_number(&their_stderr);
        let mut places = vec![spare::make()?];
        if spec.hands_out_root() {
            places.push(spare::make()?);
        }
        drop(reserved);
        let has_process_limit = joining.process_limit;
        let channel = Channel { socket: their_socket, stdout: their_stdout, stderr: their_stderr };
        zygote.request(spec, channel, joining, deadline)?;
        let asked_for = Self::new(spec, socket, [stdout, stderr], cgroup, has_process_limit, life);
        Ok(Box::new(Self { places, ..asked_for }))
    }

    /// One of which nothing is known yet.
    fn new(
        spec: &'static Spec,
        socket: OwnedFd,
        [stdout, stderr]: [Stream; 2],
        cgroup: Cgroup,
        has_process_limit: bool,
        life: Option<Life>,
    ) -> Self {
        Self {
            socket,
            stdout,
            stderr,
            cgroup,
            has_process_limit,
            spec,
            life,
            init: None,
            teller: None,
            root: None,
            call: None,
            places: Vec::new(),
            progress: Progress::default(),
            supervisors: Vec::new(),
            evidence: Box::default(),
        }
    }

    /// Has the sandbox run `test`, as soon as it is ready.
    pub(in crate::harness) fn begin(&mut self, test: &'static Test, caller: &RunBy) -> nix::Result<()> {
        let _span = trace::span("hand the test over");
        if let Some(life) = &mut self.life {
            life.begin(test);
        }
        self.progress.begin(test);
        self.call = caller.call().cloned();
        // A sandbox that was prepared has been born.
        self.take_frames().map(drop)
    }

    /// The tmpfs of its root, for tests that start from it.
    pub(in crate::harness) fn root(&self) -> nix::Result<BorrowedFd<'_>> {
        match &self.root {
            Some(Ok(tree)) => Ok(tree.tmpfs()),
            Some(Err(errno)) => Err(*errno),
            None => Err(Errno::ENOENT),
        }
    }

    /// What the test has changed in the copy that is its root; nothing if that is none.
    pub(in crate::harness) fn changes(&self) -> std::io::Result<Vec<Change>> {
        match self.root.as_ref().filter(|_| self.spec.has_copy()) {
            Some(Ok(tree)) => tree.changes(),
            Some(Err(errno)) => Err((*errno).into()),
            None => Ok(Vec::new()),
        }
    }

    /// Follows the test to its end, and notes all that becomes known. Fails if something went wrong before the test was handed over, and the
    /// sandbox has not said why.
    pub(in crate::harness) fn follow(
        &mut self,
        test: &Test,
        zygote: &Zygote,
        deadline: Option<Instant>,
    ) -> Result<(), NoSandbox> {
        let _span = trace::span("follow the test");
        let mut time = Time::until(deadline, Instant::now());
        let watched = self.watch(zygote.as_fd(), &mut time);
        match watched.and_then(|ending| self.finish(ending, test, zygote.as_fd(), &time)) {
            Err(errno) if !self.progress.has_begun() && self.evidence.says_nothing() => {
                let _ = self.kill_all();
                return Err(errno.into());
            }
            Err(errno) => {
                self.evidence.watching_failed = Some(errno);
                // Nobody would end it at its timeout.
                let _ = self.kill_all();
            }
            Ok(()) => {}
        }
        if self.supervisors.iter().any(Supervisor::waits) {
            self.evidence.unanswered_calls = Some(Unanswered::Failed(Errno::EAGAIN));
        }
        self.evidence.faults = self.supervisors.iter().map(Supervisor::report).fold(Report::default(), Report::with);
        if let Some(life) = &mut self.life {
            words::met_when(&self.evidence.faults).into_iter().for_each(|(at, text)| life.meet(at, text));
            life.end();
        }
        let evidence = &mut self.evidence;
        if evidence.ended.is_none() {
            evidence.binary_ends = is_ending();
            evidence.zygote_gone = processes::is_dying(zygote.as_fd());
            evidence.zygote_ended = evidence.zygote_gone.then(|| processes::end_of(zygote.as_fd())).flatten();
        }
        self.stdout.finish();
        self.stderr.finish();
        evidence.last_line = self.stderr.last_line().to_owned();
        evidence.has_process_limit = self.has_process_limit;
        let events = || self.cgroup.events(self.spec);
        match events().or_else(|_| spare::look(events)) {
            Ok(events) => evidence.events = events,
            Err(trouble) => evidence.watching_failed = evidence.watching_failed.or(trouble.errno()),
        }
        if settings().report.is_some() {
            evidence.usage = self.cgroup.usage();
        }
        Ok(())
    }

    /// All that has become known.
    pub(in crate::harness) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The same, when the sandbox is given up.
    pub(in crate::harness) fn into_evidence(self: Box<Self>) -> Box<Evidence> {
        self.evidence
    }

    /// Whether the sandbox's output ended in the middle of a line.
    pub(in crate::harness) fn is_mid_line(&self) -> bool {
        self.stdout.is_mid_line() || self.stderr.is_mid_line()
    }

    /// Passes on output and takes frames, until the last one has come, no more can come, or the time is up.
    fn watch(&mut self, zygote: BorrowedFd<'_>, time: &mut Time) -> nix::Result<Ending> {
        let mut check = self.spec.memory.map(|_| Instant::now() + MEMORY_CHECK);
        // Until when the end of a test that was killed is waited for.
        let mut death = None;
        loop {
            let retry = self.supervisors.iter().any(Supervisor::waits).then(|| Instant::now() + THREAD_PAUSE);
            let life = self.init().unwrap_or(zygote);
            let fds = [Some(self.socket.as_fd()), Some(life), self.stdout.pipe(), self.stderr.pipe()];
            let [received, dead, stdout, stderr] =
                wait(fds, [time.pulse(), check, death, retry].iter().flatten().min().copied())?;
            time.count(Instant::now());
            self.pump(stdout, stderr)?;
            if retry.is_some() {
                self.start_supervisors();
            }
            if check.is_some_and(|check| check <= Instant::now()) {
                match self.kill_if_memory_is_used_up()? {
                    true => (check, death) = (None, Some(Instant::now() + DEATH)),
                    false => check = Some(Instant::now() + MEMORY_CHECK),
                }
            }
            if dead {
                self.progress.died();
            }
            if received || dead {
                match self.take_frames() {
                    Ok(Some(ending)) => return Ok(ending),
                    // If the sandbox has ended before it was handed the test, it says why, or its end shows.
                    Ok(None) | Err(Errno::EPIPE | Errno::ECONNRESET) => {}
                    Err(errno) => return Err(errno),
                }
            }
            if death.is_some_and(|death| death <= Instant::now()) {
                return Ok(Ending::Silent);
            }
            if time.is_up() {
                return Ok(self.progress.time_is_up());
            }
        }
    }

    /// Takes the frames that have come, or some of them; and hands the test over if one of them says that the sandbox is ready.
    fn take_frames(&mut self) -> nix::Result<Option<Ending>> {
        for _ in 0..FRAMES_AT_ONCE {
            match self.receive()? {
                Next::Read => {}
                Next::Wait => break,
                // What comes after this is not for `begin`, and may be the last frame.
                Next::HandOver(test) => {
                    self.hand_over(test)?;
                    self.progress.handed_over();
                    return Ok(None);
                }
                Next::End(ending) => return Ok(Some(ending)),
            }
        }
        Ok(None)
    }

    fn hand_over(&self, test: &'static Test) -> nix::Result<()> {
        let (socket, test) = (self.socket.as_fd(), address::encode(test));
        match &self.call {
            None => sys::send(socket, &test),
            Some(call) => {
                let memory = call.descriptors().ok_or(Errno::EBADF)?;
                sys::send_with_fds(socket, &[&test[..], &call.function()].concat(), &memory)
            }
        }
    }

    /// Kills the test if the kernel has killed one process, which the others may wait for. Returns whether that is so.
    fn kill_if_memory_is_used_up(&mut self) -> nix::Result<bool> {
        let kills = || self.cgroup.oom_kills();
        let has_killed = matches!(kills().or_else(|_| spare::look(kills)), Ok(1..));
        let Some(init) = self.init().filter(|_| has_killed) else { return Ok(false) };
        // Init tells who it was. If it was the test, init is about to say so.
        if !matches!(processes::kill_test(init), Ok(()) | Err(Errno::ESRCH)) {
            self.kill_all()?;
        }
        Ok(true)
    }

    /// Does what is left to do when the watching has ended.
    fn finish(&mut self, ending: Ending, test: &Test, zygote: BorrowedFd<'_>, time: &Time) -> nix::Result<()> {
        match ending {
            Ending::Over => {}
            Ending::Left => self.end_survivors(test, time.deadline())?,
            Ending::Late => {
                self.keep(keep_failed::out_of_time(test))?;
                self.evidence.timed_out = Some(self.census(processes::below_or_init));
                self.kill_all()?;
            }
            // A sandbox that is made later ends by itself when its init finds the frame socket closed.
            Ending::Unanswered => self.evidence.unanswered = Some(processes::makers(zygote)),
            Ending::Unborn => self.evidence.unborn = true,
            Ending::Silent => {
                // If init lives, the socket was shut down.
                self.evidence.shut_down = self.init().is_some_and(|init| !processes::is_dying(init));
                self.kill_all()?;
                self.evidence.init_ended = self.init().and_then(processes::end_of);
            }
        }
        Ok(())
    }

    /// Ends what the test has left.
    fn end_survivors(&mut self, test: &Test, deadline: Option<Instant>) -> nix::Result<()> {
        self.keep(keep_failed::failure(test, &self.evidence))?;
        self.evidence.survivors = self.census(processes::below);
        if self.spec.memory.is_none() {
            return self.kill_all();
        }
        // Init kills them, and tells if one of them was the largest.
        shutdown(self.socket.as_raw_fd(), Shutdown::Write)?;
        let patience = Instant::now() + DEATH;
        let patience = deadline.map_or(patience, |deadline| deadline.min(patience));
        let is_dead = self.init().map_or(Ok(false), |init| sys::is_ready_by(init, patience))?;
        if !is_dead {
            self.kill_all()?;
        }
        self.progress.died();
        while !matches!(self.receive()?, Next::End(_)) {}
        Ok(())
    }

    /// Passes on what standard output and standard error have, if they have something.
    fn pump(&mut self, stdout: bool, stderr: bool) -> nix::Result<()> {
        if stdout {
            self.stdout.pump()?;
        }
        if stderr {
            self.stderr.pump()?;
        }
        Ok(())
    }

    /// Lets the sandbox be until somebody ends its init, if there is a failure and failures are to be looked at.
    fn keep(&mut self, failure: Option<String>) -> nix::Result<()> {
        let Some((failure, pid)) = failure.zip(self.init_pid()) else { return Ok(()) };
        keep_failed::tell(&failure, self.spec, pid, &self.evidence.hosts);
        loop {
            let [dead, stdout, stderr, _] = wait([self.init(), self.stdout.pipe(), self.stderr.pipe(), None], None)?;
            self.pump(stdout, stderr)?;
            if dead {
                return Ok(());
            }
        }
    }

    /// Kills init, and so all processes below it. When this returns, they are dead, or it is known that they can't be killed.
    fn kill_all(&mut self) -> nix::Result<()> {
        let Some(init) = self.init() else { return Ok(()) };
        match sys::kill(init) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno),
        }
        self.evidence.are_unkillable |= !sys::is_ready_by(init, Instant::now() + DEATH)?;
        Ok(())
    }

    /// Looks at the processes of the sandbox.
    fn census(&self, look: fn(BorrowedFd<'_>) -> Vec<Process>) -> Vec<Process> {
        self.init().map(look).unwrap_or_default()
    }

    /// The number that init has in the pid namespace of this process.
    fn init_pid(&self) -> Option<u32> {
        self.init().and_then(pid_of)
    }

    /// Its init, if that is born.
    fn init(&self) -> Option<BorrowedFd<'_>> {
        self.init.as_ref().map(OwnedFd::as_fd)
    }
}

/// Why a sandbox could not even be asked for.
#[derive(Debug)]
pub(in crate::harness) enum NoSandbox {
    /// It has limits, and there can be no cgroup for them.
    Cgroup(NoCgroup),
    /// The way to the zygote.
    Channel(Errno),
    /// What its body is to be called with.
    Input(Errno),
}

impl From<NoCgroup> for NoSandbox {
    fn from(trouble: NoCgroup) -> Self {
        Self::Cgroup(trouble)
    }
}

impl From<Errno> for NoSandbox {
    fn from(errno: Errno) -> Self {
        Self::Channel(errno)
    }
}
