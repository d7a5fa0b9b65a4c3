//! A sandbox, as the test binary holds it: two pipes, a socket, and a descriptor for its init.

#[cfg(any(test, fuzzing))]
mod made_up;
mod reports;

use std::io;
use std::mem;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, setsockopt, shutdown, socketpair};
use nix::unistd::pipe2;

use crate::cgroup::{self, Cgroup, Joining, Trouble};
use crate::frame::address;
use crate::frame::changes::Change;
use crate::harness::evidence::Evidence;
use crate::harness::keep_failed;
use crate::harness::output::Stream;
use crate::harness::processes::{self, Process};
use crate::harness::time::{Time, wait};
use crate::harness::trace::{self, Life};
use crate::proc::pid_of;
use crate::rootfs::diff::Tree;
use crate::sandbox::Channel;
use crate::settings::settings;
use crate::spec::{Spec, Test};
use crate::sys::{self};
use crate::zygote::{Zygote, is_ending};

/// How often it is looked whether the kernel has killed a process of a test because its memory was used up.
const MEMORY_CHECK: Duration = Duration::from_millis(20);

/// How many frames are read at once. Whoever sends without end must not keep the rest from being looked at.
const FRAMES_A_TURN: usize = 64;

/// How often sandboxes were planned anew because the host was no longer what they were planned from.
static OUTDATED: AtomicU32 = AtomicU32::new(0);

/// Has the zygote plan all sandboxes to come anew.
pub(in crate::harness) fn plan_anew() {
    OUTDATED.fetch_add(1, Ordering::Relaxed);
}

pub(in crate::harness) struct Sandbox {
    report: OwnedFd,
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
    /// The copy that is its root, if that is one, once it is made.
    copy: Option<nix::Result<Tree>>,
    /// The test that it is to run when it is ready for it.
    waiting: Option<&'static Test>,
    evidence: Evidence,
}

impl Sandbox {
    /// Asks the zygote for a sandbox, which is made while the caller goes on. Fails if there is no room for the request before the `deadline`.
    pub(in crate::harness) fn request(
        zygote: &Zygote,
        spec: &'static Spec,
        deadline: Option<Instant>,
    ) -> Result<Self, NoSandbox> {
        let _span = trace::span("ask for a sandbox");
        let life = trace::life();
        processes::reserve()?;
        let made = {
            let _span = trace::span("make a cgroup");
            cgroup::make(spec, zygote.as_fd())
        };
        // Where that failed, something may have been made too.
        cgroup::see_to_sweeper(|socket| zygote.request_sweeper(socket));
        let (cgroup, joining) = made?;
        let joining = Joining { moves: joining.moves.wrapping_add(OUTDATED.load(Ordering::Relaxed)), ..joining };
        let (report, their_report) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // By what comes with it, a message of no bytes can be told from the other side's end.
        setsockopt(&report, PassCred, &true)?;
        let (stdout, their_stdout) = output_pipe()?;
        let (stderr, their_stderr) = output_pipe()?;
        let has_process_limit = joining.process_limit;
        let channel = Channel { report: their_report, stdout: their_stdout, stderr: their_stderr };
        zygote.request(spec, channel, joining, deadline)?;
        let (stdout, stderr) = (Stream::stdout(stdout), Stream::stderr(stderr));
        let (init, teller, copy, waiting, evidence) = (None, None, None, None, Evidence::default());
        Ok(Self {
            report,
            stdout,
            stderr,
            cgroup,
            has_process_limit,
            spec,
            life,
            init,
            teller,
            copy,
            waiting,
            evidence,
        })
    }

    /// Has the sandbox run `test`, as soon as it is ready.
    pub(in crate::harness) fn begin(&mut self, test: &'static Test) -> nix::Result<()> {
        let _span = trace::span("hand the test over");
        if let Some(life) = &mut self.life {
            life.begin(test);
        }
        self.waiting = Some(test);
        // A sandbox that was prepared has been born.
        while matches!(self.receive()?, Received::Report | Received::Question) {}
        self.hand_over()
    }

    /// Hands over the test that waits, if the sandbox is ready for it. No body begins before this process can end it; and what changes in a
    /// copy is known only if the test begins after this process has seen it.
    fn hand_over(&mut self) -> nix::Result<()> {
        if self.init.is_none() || self.spec.has_copy() && self.copy.is_none() {
            return Ok(());
        }
        match self.waiting.take() {
            Some(test) => sys::send(self.report.as_fd(), &address::encode(test)),
            None => Ok(()),
        }
    }

    /// What the test has changed in the copy that is its root; nothing if that is none.
    pub(in crate::harness) fn changes(&self) -> io::Result<Vec<Change>> {
        match &self.copy {
            Some(Ok(tree)) => tree.changes(),
            Some(Err(errno)) => Err((*errno).into()),
            None => Ok(Vec::new()),
        }
    }

    /// Follows the test to its end, and returns all that became known. Fails if no test was handed over.
    pub(in crate::harness) fn follow(
        &mut self,
        test: &Test,
        zygote: &Zygote,
        deadline: Option<Instant>,
    ) -> Result<Evidence, NoSandbox> {
        let _span = trace::span("follow the test");
        match self.watch(test, zygote, deadline) {
            Err(errno) if self.init.is_none() => return Err(errno.into()),
            Err(errno) => {
                self.evidence.watching_failed = Some(errno);
                // Nobody would end it at its timeout.
                let _ = self.kill_all();
            }
            Ok(()) => {}
        }
        if let Some(life) = &mut self.life {
            life.end();
        }
        let mut evidence = mem::take(&mut self.evidence);
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
        match events().or_else(|_| processes::look(events)) {
            Ok(events) => evidence.events = events,
            Err(trouble) => evidence.watching_failed = evidence.watching_failed.or(trouble.errno()),
        }
        if settings().report.is_some() {
            evidence.usage = self.cgroup.usage();
        }
        Ok(evidence)
    }

    /// Whether the sandbox's output ended in the middle of a line.
    pub(in crate::harness) fn is_mid_line(&self) -> bool {
        self.stdout.is_mid_line() || self.stderr.is_mid_line()
    }

    /// Passes on output and collects reports, until the last report has come, init is dead, or the time is up.
    fn watch(&mut self, test: &Test, zygote: &Zygote, deadline: Option<Instant>) -> nix::Result<()> {
        let mut time = Time::begin(deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())));
        let mut check = self.spec.memory.map(|_| Instant::now() + MEMORY_CHECK);
        let mut report_open = true;
        loop {
            let life = self.init.as_ref().map_or(zygote.as_fd(), |init| init.as_fd());
            let report = report_open.then(|| self.report.as_fd());
            let fds = [report, Some(life), self.stdout.pipe(), self.stderr.pipe()];
            let [report, dead, stdout, stderr] = wait(fds, [time.pulse(), check].into_iter().flatten().min())?;
            time.count();
            self.pump(stdout, stderr)?;
            if check.is_some_and(|check| check <= Instant::now()) {
                check = Some(Instant::now() + MEMORY_CHECK);
                let kills = || self.cgroup.oom_kills();
                if let (Some(init), Ok(1..)) = (&self.init, kills().or_else(|_| processes::look(kills))) {
                    check = None;
                    // The kernel has killed one process, which the others may wait for: none may go on. Init tells who it was.
                    // If it was the test, init is about to say so.
                    if !matches!(processes::kill_test(init.as_fd()), Ok(()) | Err(Errno::ESRCH)) {
                        self.kill_all()?;
                        return Ok(());
                    }
                }
            }
            let was_born = self.init.is_some();
            let heard = if report || dead { self.take_reports()? } else { Heard::More };
            match heard {
                Heard::Ended { stays: false } => return Ok(()),
                Heard::Ended { stays: true } => return self.end_survivors(test, time.deadline()),
                // There may be more to read of what was sent before a death.
                Heard::More => {}
                // If it was the zygote's death, init may have been born before.
                Heard::Silent | Heard::Closed if dead && was_born == self.init.is_some() => {
                    self.evidence.init_ended = self.init.as_ref().and_then(|init| processes::end_of(init.as_fd()));
                    return Ok(());
                }
                Heard::Silent => {}
                Heard::Closed => match &self.init {
                    // The zygote lets go of the socket when init, which tells of its birth, has it, or when there is none.
                    None => {
                        self.evidence.unborn = true;
                        return Ok(());
                    }
                    // Init holds it to its end, but what is in the sandbox can shut it down for all.
                    Some(init) if !dead => {
                        self.evidence.shut_down = !processes::is_dying(init.as_fd());
                        self.kill_all()?;
                        self.evidence.init_ended = processes::end_of(init.as_fd());
                        return Ok(());
                    }
                    // It was born in this turn.
                    Some(_) => report_open = false,
                },
            }
            if time.is_up() {
                return self.end_late(test, zygote);
            }
        }
    }

    /// Takes the reports that have come, and hands the test over if the sandbox has become ready for it.
    fn take_reports(&mut self) -> nix::Result<Heard> {
        for _ in 0..FRAMES_A_TURN {
            match self.receive()? {
                Received::Report => {}
                Received::LastReport { stays } => return Ok(Heard::Ended { stays }),
                Received::Question => return Ok(Heard::More),
                Received::Nothing => return self.hand_over_if_it_lives().map(|()| Heard::Silent),
                Received::End => return Ok(Heard::Closed),
            }
        }
        // There need not be more: it may wait for its test.
        self.hand_over_if_it_lives().map(|()| Heard::More)
    }

    /// The same as [`hand_over`](Self::hand_over). If the sandbox has ended meanwhile, it says why, or its end shows.
    fn hand_over_if_it_lives(&mut self) -> nix::Result<()> {
        match self.hand_over() {
            Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            result => result,
        }
    }

    /// Ends a test whose time is up. A sandbox that has not been born by now ends by itself when it finds the report socket closed.
    fn end_late(&mut self, test: &Test, zygote: &Zygote) -> nix::Result<()> {
        if self.init.is_none() {
            self.evidence.unanswered = Some(processes::makers(zygote.as_fd()));
            return Ok(());
        }
        self.keep(keep_failed::out_of_time(test))?;
        self.evidence.timed_out = Some(self.census(processes::below_or_init));
        self.kill_all()
    }

    /// Ends what the test has left.
    fn end_survivors(&mut self, test: &Test, deadline: Option<Instant>) -> nix::Result<()> {
        self.keep(keep_failed::failure(test, &self.evidence))?;
        self.evidence.survivors = self.census(processes::below);
        let Some(init) = self.init.as_ref().filter(|_| self.spec.memory.is_some()) else { return self.kill_all() };
        // Init kills them, and tells if one of them was the largest.
        shutdown(self.report.as_raw_fd(), Shutdown::Write)?;
        let [is_dead] = wait([Some(init.as_fd())], deadline)?;
        if !is_dead {
            self.kill_all()?;
        }
        while matches!(self.receive()?, Received::Report | Received::Question) {}
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
        keep_failed::tell(&failure, self.spec, pid);
        loop {
            let init = self.init.as_ref().map(|init| init.as_fd());
            let [dead, stdout, stderr] = wait([init, self.stdout.pipe(), self.stderr.pipe()], None)?;
            self.pump(stdout, stderr)?;
            if dead {
                return Ok(());
            }
        }
    }

    /// Kills init, and so all processes below it. When this returns, they are dead.
    fn kill_all(&self) -> nix::Result<()> {
        let Some(init) = &self.init else { return Ok(()) };
        match sys::kill(init.as_fd()) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno),
        }
        wait([Some(init.as_fd())], None).map(drop)
    }

    /// Looks at the processes of the sandbox.
    fn census(&self, look: fn(BorrowedFd<'_>) -> Vec<Process>) -> Vec<Process> {
        self.init.as_ref().map(|init| look(init.as_fd())).unwrap_or_default()
    }

    /// The number that init has in the pid namespace of this process.
    fn init_pid(&self) -> Option<u32> {
        self.init.as_ref().and_then(|init| pid_of(init.as_fd()))
    }
}

/// Why a sandbox could not even be asked for.
#[derive(Debug)]
pub(in crate::harness) enum NoSandbox {
    /// It has limits, and there can be no cgroup for them.
    Cgroup(Trouble),
    /// The way to the zygote.
    Channel(Errno),
}

impl From<Trouble> for NoSandbox {
    fn from(trouble: Trouble) -> Self {
        Self::Cgroup(trouble)
    }
}

impl From<Errno> for NoSandbox {
    fn from(errno: Errno) -> Self {
        Self::Channel(errno)
    }
}

/// What came over the report socket in one turn.
enum Heard {
    /// The last report. `stays`: processes are left, or what is left is wanted.
    Ended { stays: bool },
    /// So much that there may be more.
    More,
    /// No more for now.
    Silent,
    /// No more at all.
    Closed,
}

/// What came over the report socket at a time.
pub(in crate::harness) enum Received {
    Report,
    /// One whose answer may take time. The clock is looked at before the next.
    Question,
    LastReport {
        stays: bool,
    },
    Nothing,
    End,
}

/// A pipe whose first end does not block.
fn output_pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((ours, theirs))
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::MsgFlags;
    use nix::unistd::getpid;

    use super::*;
    use crate::frame::{Buffer, Frame};
    use crate::sandbox::send;

    static TEST: Test = Test::PLAIN;

    /// A trace has many reports before the test, and they may come at once.
    #[test]
    fn a_test_is_handed_over_after_as_many_reports_as_are_read_at_once() {
        let sockets = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (report, theirs) = sockets.expect("socketpair");
        let stream = |new: fn(OwnedFd) -> Stream| new(output_pipe().expect("pipe").0);
        let mut sandbox = Sandbox {
            report,
            stdout: stream(Stream::stdout),
            stderr: stream(Stream::stderr),
            cgroup: Cgroup::default(),
            has_process_limit: false,
            spec: &TEST.spec,
            life: None,
            init: None,
            teller: None,
            copy: None,
            waiting: Some(&TEST),
            evidence: Evidence::default(),
        };
        let pidfd = sys::pidfd_of(getpid()).expect("pidfd");
        sys::send_with_fds(theirs.as_fd(), Frame::Born.encode(&mut Buffer::new()), &[pidfd.as_raw_fd()]).expect("send");
        (1..FRAMES_A_TURN).for_each(|_| send(theirs.as_fd(), &Frame::Exiting).expect("send"));
        assert!(matches!(sandbox.take_reports(), Ok(Heard::More)));
        let mut message = [0; 16];
        let received = sys::receive(theirs.as_fd(), &mut message, MsgFlags::MSG_DONTWAIT).expect("a message");
        assert_eq!(&message[..received.expect("a message").length], address::encode(&TEST));
    }
}
