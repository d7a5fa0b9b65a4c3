//! Why there is no fault.

use std::fmt::{self, Display, Formatter};
use std::io;

use nix::errno::Errno;

use super::board::SLOTS;
use super::pattern::LENGTH_MAX;
use crate::text::{error, plain};

/// Why a [`Fault`](super::Fault) was not started. It says what to write instead, if what was asked for can't be.
///
/// ```test_harness
/// # use belljar::{Fault, isolated};
/// # #[isolated]
/// # fn example() {
/// let error = Fault::new("fsink").errno(libc::EIO).start().unwrap_err();
/// assert!(error.to_string().contains("did you mean `fsync`?"), "{error}");
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultError(pub(super) ErrorKind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    NoSandbox,
    UnknownArch,
    Unknown { call: String, near: Option<&'static str> },
    NotOnThisArch { call: String, advice: Option<&'static str> },
    NothingHappens(String),
    BadErrno(i32),
    BadSignal(i32),
    BadCount(&'static str),
    BadProbability(String),
    ShortOfNothing,
    NoShort(String),
    NoPath(String),
    NoAddress(String),
    BadAddress(String),
    NulInPath,
    LongPath(usize),
    TooMany,
    NotWatched(String),
    Board(Errno),
    Filter(Errno),
    HandOver(Errno),
}

impl Display for FaultError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        use ErrorKind as T;
        f.write_str("belljar: ")?;
        match &self.0 {
            T::NoSandbox => f.write_str(
                "no fault can be started here: this is no sandbox, or it has closed the descriptor that leads to the test binary. Write \
                 `#[isolated]` above the test.",
            ),
            T::UnknownArch => f.write_str("faults are for x86_64 and aarch64, and this is another machine."),
            T::Unknown { call, near } => {
                write!(f, "there is no system call `{}`", plain(call))?;
                match near {
                    Some(near) => write!(f, ": did you mean `{near}`?"),
                    None => f.write_str(". See syscalls(2)."),
                }
            }
            T::NotOnThisArch { call, advice } => {
                write!(f, "other machines have the system call `{call}`, this one has not.")?;
                advice.map_or(Ok(()), |advice| write!(f, " {advice}"))
            }
            T::NothingHappens(call) => write!(
                f,
                "the fault on {call} does nothing: add `.errno(libc::EIO)`, `.short(3)`, `.delay(Duration)`, `.kill()`, `.signal(..)` or \
                 `.returns(..)`."
            ),
            T::BadErrno(number) => write!(f, "{number} is no error: expected a constant such as `libc::EIO`, 1 to 4095."),
            T::BadSignal(number) => write!(f, "{number} is no signal: expected a constant such as `libc::SIGTERM`, 1 to 64."),
            T::BadCount(method) => write!(f, "`.{method}(0)` means no call: calls are counted from 1."),
            T::BadProbability(value) => write!(f, "{value} is no probability: expected 0.0 to 1.0."),
            T::ShortOfNothing => f.write_str("`.short(0)` would do nothing: write `.returns(0)`."),
            T::NoShort(call) => write!(
                f,
                "{call} can't be short: expected read, write, or one of their kind, such as pread64, writev, recvfrom, sendto, sendfile and copy_file_range."
            ),
            T::NoPath(call) => write!(f, "{call} has no path, so that the fault can't have one."),
            T::NoAddress(call) => {
                write!(f, "{call} has no address, so that the fault can't have a port or an address: expected connect, bind, sendto or sendmsg.")
            }
            T::BadAddress(text) => {
                write!(f, "`{}` is no address: expected one such as `10.0.0.1` or `fd00::1`.", plain(text))
            }
            T::NulInPath => f.write_str("a path can't have a NUL."),
            T::LongPath(length) => write!(f, "a path of {length} bytes is too long: expected up to {LENGTH_MAX}."),
            T::TooMany => write!(f, "there are {SLOTS} faults already, and there can't be more at a time."),
            T::NotWatched(call) => write!(
                f,
                "{call} is not watched, and that can't be changed any more: start this fault before all others of the test."
            ),
            T::Board(errno) => write!(f, "there is no memory for faults: {}.", error(*errno)),
            T::Filter(errno) => {
                let why = match errno {
                    Errno::ESRCH => " Threads of this process have filters of their own.",
                    Errno::EBUSY => " A filter is there already by which another program is asked.",
                    Errno::ENOSYS | Errno::EINVAL => " The kernel is too old for this: it takes Linux 5.10, with CONFIG_SECCOMP_FILTER.",
                    Errno::EPERM | Errno::EACCES => " A filter of this process, or of a container around it, forbids seccomp(2).",
                    _ => "",
                };
                write!(f, "the system calls of this process can't be watched: {}.{why}", error(*errno))
            }
            T::HandOver(errno) => write!(f, "the test binary could not be told of the fault: {}.", error(*errno)),
        }
    }
}

impl std::error::Error for FaultError {}

impl From<FaultError> for io::Error {
    fn from(error: FaultError) -> Self {
        let kind = match &error.0 {
            ErrorKind::Board(errno) | ErrorKind::Filter(errno) | ErrorKind::HandOver(errno) => {
                Self::from(*errno).kind()
            }
            ErrorKind::NoSandbox | ErrorKind::UnknownArch | ErrorKind::NotWatched(_) => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
