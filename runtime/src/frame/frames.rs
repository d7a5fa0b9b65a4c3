//! What comes back from a sandbox: one frame a message, over a sequenced-packet socket.
//!
//! Four processes write to it. The zygote and the template: init could not be born. Init: it was born, which comes first, and how the test's
//! process ended, which comes last. The test: how the body ended.
//!
//! It is a socket, and no pipe: init's pidfd comes with the frame of its birth, and the kernel keeps message boundaries. Whatever else a test
//! writes to the descriptor by accident is a message of its own. It can't shift or split a frame.
//!
//! The reader trusts nothing: what it can't decode is counted, and a test that caused it fails.

use nix::errno::Errno;

use super::refusal::{Refusal, RefusalRef};
use super::step::{Moment, Step};
use crate::sys::{Crash, End};

/// Begins every frame. A message without it was not written by us.
pub(crate) const MAGIC: [u8; 4] = *b"\xbeJar";

/// The most bytes that a frame carries besides its head. A longer panic message is sent in pieces.
pub(crate) const PAYLOAD_MAX: usize = 1024;

/// The most bytes that a frame has.
pub(crate) const FRAME_MAX: usize = MAGIC.len() + 1 + PAYLOAD_MAX;

/// The most bytes that the name of a host in a laboratory has.
#[cfg(feature = "net")]
pub(crate) const HOST_NAME_MAX: usize = 63;

/// With this status the test's process ends after it has reported how the body ended.
pub(crate) const REPORTED: i32 = 90;

/// With this status the test's process ends if it could not report, because the body had closed the descriptor.
pub(crate) const UNREPORTED: i32 = 91;

/// The most bytes of a path in a refusal. What was said has the rest of the frame.
const PATH_MAX: usize = 512;

/// What a frame is: the byte behind [`MAGIC`].
mod tag {
    pub(super) const BORN: u8 = 0;
    pub(super) const REFUSED: u8 = 1;
    pub(super) const PANIC_TEXT: u8 = 2;
    pub(super) const FINISHED: u8 = 3;
    pub(super) const EXITING: u8 = 4;
    pub(super) const CRASH: u8 = 5;
    pub(super) const ENDED: u8 = 6;
    pub(super) const ASK_USAGE: u8 = 7;
    pub(super) const ASK_GROUP: u8 = 8;
    pub(super) const LARGEST: u8 = 9;
    pub(super) const MARK: u8 = 10;
    pub(super) const COPIED: u8 = 11;
    pub(super) const ASK_CHANGES: u8 = 12;
    pub(super) const ASK_INIT_PID: u8 = 13;
    pub(super) const CAPTURES: u8 = 14;
    pub(super) const FAULTS: u8 = 15;
    pub(super) const HOST: u8 = 16;
    pub(super) const WIRE_KILLED: u8 = 17;
    pub(super) const CHANGE: u8 = 18;
    pub(super) const UNANSWERED: u8 = 19;
}

// How a body ended.
const RETURNED: u8 = 0;
const PANICKED: u8 = 1;
const VANISHED: u8 = 2;

// What a fault was.
const SENT: u8 = 0;
const STACK_OVERFLOW: u8 = 1;
const SOMEWHERE: u8 = 2;
const AT_ADDRESS: u8 = 3;

// How a process ended.
const EXITED: u8 = 0;
const KILLED: u8 = 1;

/// How the body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It returned a value that stands for this status; 0 is success.
    Returned(u8),
    /// It panicked, with a text (sent before) or with something else.
    Panicked { text: bool },
    /// It did neither, and its thread has ended.
    Vanished,
}

/// A frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// From init, before all else: it lives. Its pidfd comes along.
    Born,
    /// From the zygote, the template, init or the test: the sandbox could not be set up.
    Refused(RefusalRef<'a>),
    /// From the test: the next piece of its panic message.
    PanicText(&'a [u8]),
    /// From the test: the body is over.
    Finished(Outcome),
    /// From the test: `exit` was called and the body is not over.
    Exiting,
    /// From the test: it got SIGSEGV or SIGBUS.
    Crash(Crash),
    /// From init: the test's process has ended. `execed`: another program ran in it. `stays`: init waits, as processes are left, or
    /// what is left is wanted. `cpu`: the CPU time of init and of all that it has reaped, in microseconds.
    Ended { end: End, execed: bool, stays: bool, cpu: u64 },
    /// From the test: it asks what the sandbox has used. With it comes a socket for the answer.
    AskUsage,
    /// From the test: it asks for a group of this name. With it comes a socket for what the cgroup is.
    AskGroup(&'a [u8]),
    /// From init, if the root is a copy: it is made, and nothing is changed yet. With it comes the tmpfs that will hold all changes.
    Copied,
    /// From the test: it asks what has changed in the copy. With it comes a socket for the answer.
    AskChanges,
    /// From the test: it asks for the number that init has outside. With it comes a socket for the answer.
    AskInitPid,
    /// From the test: a laboratory is up. With it come the memory in which its packets are kept, and that which says what went wrong in all of them.
    Captures,
    /// From init: the wire of a laboratory has ended, and not because that was over.
    WireKilled,
    /// From the test, where a trace is wanted: when a fault of a laboratory was changed, as `at` of `Mark`, and how.
    Change { at: u64, what: &'a [u8] },
    /// From the test, if sandboxes are kept: a host of a laboratory has this name. With it come its namespaces, and that of the network in which
    /// the other ends of its interfaces are.
    Host(&'a [u8]),
    /// From the test: its calls are watched. With it come the descriptor by which they are answered, and the memory in which the faults are.
    Faults,
    /// From the test: its calls are watched, but `Faults` could not be sent. So nobody answers them.
    Unanswered(Errno),
    /// From init, if memory is limited: the most memory that one process had at a time, and its name. The test itself has none.
    /// `had_children`: the figure may be that of a child which that process had waited for.
    Largest { bytes: u64, had_children: bool, name: &'a [u8] },
    /// From all of them, where a trace is wanted: when this moment was, in nanoseconds of the monotonic clock, and what was
    /// worked on.
    Mark { moment: Moment, at: u64, path: &'a [u8] },
}

/// Where a frame is put together. It lies on the stack: init and signal handlers must not allocate.
pub(crate) struct Buffer([u8; FRAME_MAX]);

impl Buffer {
    pub(crate) fn new() -> Self {
        Self([0; FRAME_MAX])
    }
}

struct Writer<'b> {
    buffer: &'b mut [u8; FRAME_MAX],
    length: usize,
}

impl Writer<'_> {
    /// Appends as much of `bytes` as there is room for. Only paths, panic texts and changes of faults can be long: each comes
    /// last, and its end is cut off.
    fn put(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(FRAME_MAX - self.length);
        self.buffer[self.length..self.length + count].copy_from_slice(&bytes[..count]);
        self.length += count;
    }
}

impl<'a> Frame<'a> {
    /// Writes the frame into `buffer` and returns the part that is to be sent.
    pub(crate) fn encode<'b>(&self, buffer: &'b mut Buffer) -> &'b [u8] {
        let mut writer = Writer { buffer: &mut buffer.0, length: 0 };
        writer.put(&MAGIC);
        match *self {
            Self::Born => writer.put(&[tag::BORN]),
            Self::Refused(Refusal { step, path, errno, said }) => {
                let path = &path[..path.len().min(PATH_MAX)];
                writer.put(&[tag::REFUSED, step as u8]);
                writer.put(&(errno as i32).to_ne_bytes());
                writer.put(&(path.len() as u16).to_ne_bytes());
                writer.put(path);
                writer.put(said);
            }
            Self::PanicText(text) => {
                writer.put(&[tag::PANIC_TEXT]);
                writer.put(text);
            }
            Self::Finished(Outcome::Returned(status)) => writer.put(&[tag::FINISHED, RETURNED, status]),
            Self::Finished(Outcome::Panicked { text }) => writer.put(&[tag::FINISHED, PANICKED, u8::from(text)]),
            Self::Finished(Outcome::Vanished) => writer.put(&[tag::FINISHED, VANISHED, 0]),
            Self::Exiting => writer.put(&[tag::EXITING]),
            Self::Crash(Crash::Sent) => writer.put(&[tag::CRASH, SENT]),
            Self::Crash(Crash::StackOverflow) => writer.put(&[tag::CRASH, STACK_OVERFLOW]),
            Self::Crash(Crash::Access { address: None }) => writer.put(&[tag::CRASH, SOMEWHERE]),
            Self::Crash(Crash::Access { address: Some(address) }) => {
                writer.put(&[tag::CRASH, AT_ADDRESS]);
                writer.put(&address.to_ne_bytes());
            }
            Self::Ended { end, execed, stays, cpu } => {
                let (kind, number, core) = match end {
                    End::Exited(status) => (EXITED, status, false),
                    End::Killed { signal, core } => (KILLED, signal, core),
                };
                writer.put(&[tag::ENDED, kind, u8::from(core), u8::from(execed), u8::from(stays)]);
                writer.put(&number.to_ne_bytes());
                writer.put(&cpu.to_ne_bytes());
            }
            Self::AskUsage => writer.put(&[tag::ASK_USAGE]),
            Self::Largest { bytes, had_children, name } => {
                writer.put(&[tag::LARGEST, u8::from(had_children)]);
                writer.put(&bytes.to_ne_bytes());
                writer.put(name);
            }
            Self::AskGroup(name) => {
                writer.put(&[tag::ASK_GROUP]);
                writer.put(name);
            }
            Self::Copied => writer.put(&[tag::COPIED]),
            Self::AskChanges => writer.put(&[tag::ASK_CHANGES]),
            Self::AskInitPid => writer.put(&[tag::ASK_INIT_PID]),
            Self::Captures => writer.put(&[tag::CAPTURES]),
            Self::WireKilled => writer.put(&[tag::WIRE_KILLED]),
            Self::Change { at, what } => {
                writer.put(&[tag::CHANGE]);
                writer.put(&at.to_ne_bytes());
                writer.put(what);
            }
            Self::Faults => writer.put(&[tag::FAULTS]),
            Self::Unanswered(errno) => {
                writer.put(&[tag::UNANSWERED]);
                writer.put(&(errno as i32).to_ne_bytes());
            }
            Self::Host(name) => {
                writer.put(&[tag::HOST]);
                writer.put(name);
            }
            Self::Mark { moment, at, path } => {
                writer.put(&[tag::MARK, moment.number()]);
                writer.put(&at.to_ne_bytes());
                writer.put(path);
            }
        }
        let length = writer.length;
        &buffer.0[..length]
    }

    /// Reads a message back. `None` if it is no frame.
    pub(crate) fn decode(message: &'a [u8]) -> Option<Self> {
        let (&kind, payload) = message.strip_prefix(&MAGIC)?.split_first()?;
        match (kind, payload) {
            (tag::BORN, []) => Some(Self::Born),
            (tag::REFUSED, [step, e0, e1, e2, e3, l0, l1, texts @ ..]) => {
                let step = *Step::ALL.get(usize::from(*step))?;
                let errno = Errno::from_raw(i32::from_ne_bytes([*e0, *e1, *e2, *e3]));
                let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
                let (path, said) = texts.split_at_checked(length).filter(|_| length <= PATH_MAX)?;
                Some(Self::Refused(Refusal { step, path, errno, said }))
            }
            (tag::PANIC_TEXT, text) => Some(Self::PanicText(text)),
            (tag::FINISHED, [RETURNED, status]) => Some(Self::Finished(Outcome::Returned(*status))),
            (tag::FINISHED, [PANICKED, text]) => Some(Self::Finished(Outcome::Panicked { text: flag(*text)? })),
            (tag::FINISHED, [VANISHED, 0]) => Some(Self::Finished(Outcome::Vanished)),
            (tag::EXITING, []) => Some(Self::Exiting),
            (tag::CRASH, [SENT]) => Some(Self::Crash(Crash::Sent)),
            (tag::CRASH, [STACK_OVERFLOW]) => Some(Self::Crash(Crash::StackOverflow)),
            (tag::CRASH, [SOMEWHERE]) => Some(Self::Crash(Crash::Access { address: None })),
            (tag::CRASH, [AT_ADDRESS, address @ ..]) => {
                let address = Some(u64::from_ne_bytes(address.try_into().ok()?));
                Some(Self::Crash(Crash::Access { address }))
            }
            (tag::ENDED, [kind, core, execed, stays, n0, n1, n2, n3, cpu @ ..]) => {
                let number = i32::from_ne_bytes([*n0, *n1, *n2, *n3]);
                let cpu = u64::from_ne_bytes(cpu.try_into().ok()?);
                let end = match (*kind, flag(*core)?) {
                    (EXITED, false) => End::Exited(number),
                    (KILLED, core) => End::Killed { signal: number, core },
                    _ => return None,
                };
                Some(Self::Ended { end, execed: flag(*execed)?, stays: flag(*stays)?, cpu })
            }
            (tag::ASK_USAGE, []) => Some(Self::AskUsage),
            (tag::ASK_GROUP, name) => Some(Self::AskGroup(name)),
            (tag::LARGEST, [had_children, payload @ ..]) => {
                let (bytes, name) = payload.split_first_chunk()?;
                Some(Self::Largest { bytes: u64::from_ne_bytes(*bytes), had_children: flag(*had_children)?, name })
            }
            (tag::MARK, [moment, payload @ ..]) => {
                let (at, path) = payload.split_first_chunk()?;
                Some(Self::Mark { moment: Moment::from_number(*moment)?, at: u64::from_ne_bytes(*at), path })
            }
            (tag::COPIED, []) => Some(Self::Copied),
            (tag::ASK_CHANGES, []) => Some(Self::AskChanges),
            (tag::ASK_INIT_PID, []) => Some(Self::AskInitPid),
            (tag::CAPTURES, []) => Some(Self::Captures),
            (tag::WIRE_KILLED, []) => Some(Self::WireKilled),
            (tag::CHANGE, payload) => {
                let (at, what) = payload.split_first_chunk()?;
                Some(Self::Change { at: u64::from_ne_bytes(*at), what })
            }
            (tag::FAULTS, []) => Some(Self::Faults),
            (tag::UNANSWERED, errno) => {
                Some(Self::Unanswered(Errno::from_raw(i32::from_ne_bytes(errno.try_into().ok()?))))
            }
            (tag::HOST, name) => Some(Self::Host(name)),
            _ => None,
        }
    }
}

fn flag(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn examples() -> Vec<Frame<'static>> {
        let mut frames = vec![
            Frame::Born,
            Frame::PanicText(b"left == right"),
            Frame::PanicText(b""),
            Frame::Finished(Outcome::Returned(0)),
            Frame::Finished(Outcome::Returned(7)),
            Frame::Finished(Outcome::Panicked { text: true }),
            Frame::Finished(Outcome::Vanished),
            Frame::Exiting,
            Frame::Crash(Crash::Sent),
            Frame::Crash(Crash::StackOverflow),
            Frame::Crash(Crash::Access { address: None }),
            Frame::Crash(Crash::Access { address: Some(0xdead_beef) }),
            Frame::Ended { end: End::Exited(REPORTED), execed: false, stays: true, cpu: 7 },
            Frame::Ended { end: End::Killed { signal: 11, core: true }, execed: true, stays: false, cpu: u64::MAX },
            Frame::AskUsage,
            Frame::Copied,
            Frame::AskChanges,
            Frame::AskInitPid,
            Frame::Captures,
            Frame::WireKilled,
            Frame::Change { at: 7, what: b"client.eth0: loss 0.1" },
            Frame::Faults,
            Frame::Unanswered(Errno::ETOOMANYREFS),
            Frame::Host(b"server"),
            Frame::AskGroup(b"db"),
            Frame::Largest { bytes: 61 << 20, had_children: true, name: b"sort" },
        ];
        for step in Step::ALL.iter().copied() {
            frames.push(Frame::Refused(Refusal { step, path: b"/proc", errno: Errno::EPERM, said: b"no" }));
        }
        for moment in Step::ALL.iter().copied().map(Moment::Done).chain(Moment::OTHERS) {
            frames.push(Frame::Mark { moment, at: 7, path: b"proc" });
        }
        frames
    }

    #[test]
    fn frames_survive_the_way() {
        for frame in examples() {
            assert_eq!(Frame::decode(frame.encode(&mut Buffer::new())), Some(frame));
        }
    }

    #[test]
    fn nothing_else_is_a_frame() {
        for frame in examples() {
            let mut buffer = Buffer::new();
            let message = frame.encode(&mut buffer);
            for end in 0..message.len() {
                // A text and a path have no length of their own: a shorter message is a shorter text.
                let shorter = Frame::decode(&message[..end]);
                let texts = matches!(
                    shorter,
                    Some(
                        Frame::PanicText(_)
                            | Frame::Refused(_)
                            | Frame::AskGroup(_)
                            | Frame::Host(_)
                            | Frame::Change { .. }
                            | Frame::Largest { .. }
                            | Frame::Mark { .. }
                    )
                );
                assert!(shorter.is_none() || texts, "{end} of {frame:?} became {shorter:?}");
            }
            let mut damaged = message.to_vec();
            damaged[1] ^= 1;
            assert_eq!(Frame::decode(&damaged), None);
        }
        for kind in 20..=255 {
            assert_eq!(Frame::decode(&[&MAGIC[..], &[kind]].concat()), None);
        }
        assert_eq!(Frame::decode(b""), None);
        assert_eq!(Frame::decode(&[0; FRAME_MAX]), None);
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let long = vec![b'x'; 2 * PAYLOAD_MAX];
        let mut buffer = Buffer::new();
        let message = Frame::PanicText(&long).encode(&mut buffer);
        assert_eq!(Frame::decode(message), Some(Frame::PanicText(&long[..PAYLOAD_MAX])));
    }
}
