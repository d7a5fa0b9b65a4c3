//! What a sandbox tells over its frame socket, and what a body asks there.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use crate::frame::{FRAME_MAX, Frame, Outcome, RefusalRef};
use crate::harness::captures;
use crate::harness::evidence::{Ended, Largest, PANIC_TEXT_MAX, Unanswered};
use crate::harness::kept_host::{HOSTS_MAX, KeptHost};
use crate::harness::prepared;
use crate::harness::replies::{self, discard};
use crate::harness::spare::Freed;
use crate::harness::supervisor::{SUPERVISORS_MAX, Supervisor};
use crate::rootfs::build::COPY;
use crate::rootfs::diff::Tree;
use crate::sys::{self, Message};

use super::Sandbox;
use super::progress::Next;

impl Sandbox {
    /// Takes one frame, if there is one.
    pub(super) fn receive(&mut self) -> nix::Result<Next> {
        let mut buffer = [0; FRAME_MAX];
        let freed = Freed::where_scarce();
        match sys::receive(self.socket.as_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(Some(message)) => self.take(&buffer, message, freed),
            Ok(None) => Ok(self.progress.closed()),
            Err(Errno::EAGAIN) => Ok(self.progress.nothing_more()),
            Err(errno) => Err(errno),
        }
    }

    /// Takes the frame that a message is, which begins in `buffer`. A message counts as rubbish if it is no frame, or if such a frame comes from another process.
    /// `freed` is room for what has come with it.
    pub(super) fn take(&mut self, buffer: &[u8], message: Message, freed: Option<Freed>) -> nix::Result<Next> {
        let is_of_init = message.sender == self.teller;
        let mut next = Next::Read;
        let mut fds = message.fds.into_iter();
        match buffer.get(..message.length).and_then(Frame::decode) {
            // Without the descriptor, this process could not end the sandbox. So no test is handed over.
            Some(Frame::Born) if self.init.is_none() => {
                self.init = Some(fds.next().ok_or(Errno::EMFILE)?);
                self.places.pop();
                self.teller = message.sender;
                next = self.progress.born(self.spec.hands_out_root());
            }
            Some(Frame::Copied) if is_of_init && self.root.is_none() && self.spec.hands_out_root() => {
                self.take_root(fds.next())?;
                next = self.progress.ready();
            }
            Some(question @ (Frame::AskUsage | Frame::AskChanges | Frame::AskInitPid | Frame::AskGroup(_))) => {
                // Others may need it before the answer is given.
                drop(freed);
                if let Some(socket) = fds.next() {
                    // Once its process has ended, nobody waits for this.
                    if self.evidence.ended.is_none() {
                        self.answer(question, &socket);
                    }
                    discard(socket);
                }
                // The answer may have taken time. The clock is looked at before the next.
                next = Next::Wait;
            }
            Some(Frame::Refused(refusal)) if is_of_init || self.evidence.outcome.is_none() => {
                let path = Path::new(OsStr::from_bytes(refusal.path));
                let path = if self.spec.hands_out_root() { path.strip_prefix(COPY).unwrap_or(path) } else { path };
                self.evidence.refused = Some(RefusalRef { path: path.as_os_str().as_bytes(), ..refusal }.into());
            }
            Some(Frame::PanicText(text)) => {
                let room = PANIC_TEXT_MAX.saturating_sub(self.evidence.panic_text.len());
                self.evidence.panic_text.extend_from_slice(&text[..text.len().min(room)]);
            }
            Some(Frame::Finished(outcome)) if self.may_have_finished(outcome) => self.evidence.outcome = Some(outcome),
            Some(Frame::Exiting) => self.evidence.exiting = true,
            Some(Frame::Crash(crash)) => self.evidence.crash = Some(crash),
            Some(Frame::Largest { bytes, had_children, name }) if is_of_init => {
                let name = (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned());
                self.evidence.largest = Some(Largest { bytes, name, had_children });
            }
            Some(Frame::Ended { end, execed, stays, cpu }) if is_of_init => {
                // The CPU time of processes that are still alive is not in this figure.
                let cpu = (!stays).then(|| Duration::from_micros(cpu));
                self.evidence.ended = Some(Ended { end, execed, cpu });
                next = self.progress.ended(stays);
            }
            Some(Frame::Captures) => {
                let [packets, trouble] = [fds.next(), fds.next()];
                self.evidence.has_lost_captures |= packets.is_none() || trouble.is_none();
                captures::take(packets, trouble, &mut self.evidence);
            }
            Some(Frame::WireKilled) if is_of_init => {
                self.evidence.wires_killed = self.evidence.wires_killed.saturating_add(1);
            }
            Some(Frame::Host(name)) => {
                let is_room = self.evidence.hosts.len() < HOSTS_MAX;
                self.evidence.hosts.extend(is_room.then(|| KeptHost::taken(name, &mut fds)).flatten());
            }
            Some(Frame::Faults) => {
                // Others may have taken all that is left since.
                let _freed = freed.unwrap_or_else(Freed::now);
                self.take_faults(fds.next().zip(fds.next()));
            }
            Some(Frame::Unanswered(errno)) => self.evidence.unanswered_calls = Some(Unanswered::Failed(errno)),
            Some(Frame::Mark { moment, at, path }) => {
                if !self.life.as_mut().is_some_and(|life| life.mark(moment, at, path)) {
                    self.evidence.throw_away(message.length);
                }
            }
            Some(Frame::Change { at, what }) => match &mut self.life {
                Some(life) => life.change(at, what),
                None => self.evidence.throw_away(message.length),
            },
            Some(
                Frame::Born
                | Frame::Copied
                | Frame::Refused(_)
                | Frame::Finished(_)
                | Frame::WireKilled
                | Frame::Largest { .. }
                | Frame::Ended { .. },
            )
            | None => self.evidence.throw_away(message.length),
        }
        fds.for_each(discard);
        Ok(next)
    }

    /// Takes the root of the sandbox, before a body begins. Fails where there is no room for it: the test can run where there is.
    fn take_root(&mut self, tmpfs: Option<OwnedFd>) -> nix::Result<()> {
        let tree = |tmpfs| Tree::new(tmpfs, prepared::left_for(self.spec));
        let root = tmpfs.ok_or(Errno::EMFILE).and_then(tree);
        if let Some(errno) = root.as_ref().err().filter(|errno| sys::is_of_descriptors(**errno)) {
            return Err(*errno);
        }
        self.root = Some(root);
        self.places.pop();
        Ok(())
    }

    /// Has a supervisor answer the calls that are watched from now on: by the listener, and by the memory of the faults. If there is none, the
    /// listener is closed, and the calls fail.
    fn take_faults(&mut self, descriptors: Option<(OwnedFd, OwnedFd)>) {
        let has_trace = self.life.is_some();
        let started = match descriptors {
            Some(_) if self.supervisors.len() >= SUPERVISORS_MAX => Err(Unanswered::TooMany),
            Some((listener, memory)) => Supervisor::new(listener, memory, has_trace).map_err(Unanswered::Failed),
            None => Err(Unanswered::Failed(Errno::EMFILE)),
        };
        match started {
            Ok(supervisor) => self.supervisors.push(supervisor),
            Err(why) => self.evidence.unanswered_calls = Some(why),
        }
        self.start_supervisors();
    }

    /// Starts those supervisors that have no thread yet. Where there can be none in the end, the calls fail.
    pub(super) fn start_supervisors(&mut self) {
        self.supervisors.retain_mut(|supervisor| match supervisor.start() {
            Ok(()) => true,
            Err(errno) => {
                self.evidence.unanswered_calls = Some(Unanswered::Failed(errno));
                false
            }
        });
    }

    /// Whether this does not contradict what has been told. A refused sandbox reports no end of a body. Any other reports one end; where panics
    /// abort, two threads of the body may report the same.
    fn may_have_finished(&self, outcome: Outcome) -> bool {
        self.evidence.refused.is_none() && self.evidence.outcome.is_none_or(|first| first == outcome)
    }

    /// Answers a question of the test, which waits at the other end of a socket.
    fn answer(&mut self, question: Frame<'_>, socket: &OwnedFd) {
        match question {
            Frame::AskUsage => replies::tell(socket, &self.cgroup.usage().encode()),
            Frame::AskInitPid => replies::tell(socket, &self.init_pid().unwrap_or_default().to_ne_bytes()),
            Frame::AskChanges => replies::tell_changes(socket, self.spec.has_copy().then(|| self.changes())),
            Frame::AskGroup(name) => replies::hand_group(socket, name, &mut self.cgroup),
            _ => {}
        }
    }
}
