//! What a test says of a fault.

use std::fmt::{self, Display, Formatter};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use super::active::{self, ActiveFault, Words};
use super::calls::{self, Calls, Operand};
use super::definition::{Definition, Effect, Side, When};
use super::error::{ErrorKind, FaultError};
use super::{pattern, table};
use crate::chance::odds;

/// A system call that fails, for tests of what a program does then.
///
/// ```test_harness
/// # use belljar::isolated;
/// use std::fs::File;
///
/// use belljar::Fault;
///
/// #[isolated]
/// fn a_write_that_is_not_safe_is_told() -> std::io::Result<()> {
///     std::fs::create_dir("/data")?;
///     let wal = File::create("/data/wal")?;
///     let fault = Fault::new("fsync").errno(libc::EIO).path("/data/*").nth(2).start()?;
///     wal.sync_all()?;
///     assert_eq!(wal.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
///     assert_eq!(fault.hits(), 1);
///     drop(fault); // Calls go through again.
///     wal.sync_all()
/// }
/// ```
///
/// Say of which call, what happens, and, if not always, when: [`nth`](Self::nth), [`first`](Self::first), [`every`](Self::every),
/// [`after`](Self::after) or [`seeded`](Self::seeded), of which the last one that is said holds. Calls are counted from its start, those alone that have
/// the path, the port and the address. [`start`](Self::start) has it happen, until what that returns is dropped.
///
/// It is for the whole sandbox: the body, its threads, and all programs that are started after the first fault of the test, statically linked ones
/// included. Several may be active. Each counts the calls that it is for; if several would happen to one call, that which was started first does.
///
/// No fault is for what leads to the test binary: the test's own standard output and standard error, unless they were redirected.
///
/// What it can't see: work that is given to an io_uring(7), writes to memory that is mapped, the clocks of vdso(7), calls of programs with 32 bits, and
/// those that a filter of the program's own forbids.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// As it is written.
    written: String,
    /// What it is called in messages.
    name: String,
    calls: Calls,
    side: Side,
    effect: Option<Effect>,
    delay: Option<Duration>,
    when: When,
    path: Option<Vec<u8>>,
    port: Option<u16>,
    address: Option<String>,
    /// The first thing that can't be.
    trouble: Option<ErrorKind>,
}

impl Fault {
    /// Of the system call with this name, such as `fsync`. See syscalls(2). What a program calls may be another one: Rust's `File::create` is
    /// `openat`. See the functions below for all ways to do a thing.
    pub fn new(call: &str) -> Self {
        let mut fault = Self::of(format!("new({call:?})"), format!("`{call}`"), "", Side::Any);
        match table::number(call) {
            Some(Some(number)) => fault.calls.add(number),
            Some(None) => fault.fail(ErrorKind::NotOnThisArch { call: call.to_owned(), advice: calls::advice(call) }),
            None => fault.fail(ErrorKind::Unknown { call: call.to_owned(), near: table::near(call) }),
        }
        fault
    }

    /// Of all calls that write to files, pipes and sockets. A path is that of the file which is written.
    pub fn writing() -> Self {
        Self::of("writing()".to_owned(), "writing".to_owned(), calls::WRITING, Side::Written)
    }

    /// Of all calls that read from files, pipes and sockets. A path is that of the file which is read.
    pub fn reading() -> Self {
        Self::of("reading()".to_owned(), "reading".to_owned(), calls::READING, Side::Read)
    }

    /// Of all calls that open files.
    pub fn opening() -> Self {
        Self::of("opening()".to_owned(), "opening".to_owned(), calls::OPENING, Side::Any)
    }

    /// Of connect(2).
    pub fn connecting() -> Self {
        Self::of("connecting()".to_owned(), "connecting".to_owned(), calls::CONNECTING, Side::Any)
    }

    /// Of all calls that bring data to the disk: fsync(2), fdatasync(2), sync_file_range(2), syncfs(2), sync(2) and msync(2). sync(2) and msync(2)
    /// name no file: a fault with a path never meets them.
    pub fn syncing() -> Self {
        Self::of("syncing()".to_owned(), "syncing".to_owned(), calls::SYNCING, Side::Any)
    }

    fn of(written: String, name: String, names: &str, side: Side) -> Self {
        Self {
            written,
            name,
            calls: Calls::of(names),
            side,
            effect: None,
            delay: None,
            when: When::Always,
            path: None,
            port: None,
            address: None,
            trouble: None,
        }
    }

    /// Whether it is of one call, and of no kind.
    fn is_of_one_call(&self) -> bool {
        self.written.starts_with("new(")
    }

    fn fail(&mut self, trouble: ErrorKind) {
        self.trouble.get_or_insert(trouble);
    }

    fn with(mut self, effect: Effect) -> Self {
        self.effect = Some(effect);
        self
    }

    /// The call does nothing and fails with this error, such as `libc::EIO`. See errno(3).
    pub fn errno(mut self, errno: i32) -> Self {
        if !(1..4096).contains(&errno) {
            self.fail(ErrorKind::BadErrno(errno));
        }
        self.with(Effect::Errno(errno))
    }

    /// The call does nothing and returns this value.
    pub fn returns(self, value: i64) -> Self {
        self.with(Effect::Returns(value))
    }

    /// So many bytes are read, written or copied, and no more, if the call is for more: on files, pipes and stream sockets. Datagrams are whole, and so is
    /// what splice(2), sendmsg(2), sendmmsg(2), recvmsg(2) and recvmmsg(2) move.
    pub fn short(mut self, bytes: usize) -> Self {
        if bytes == 0 {
            self.fail(ErrorKind::ShortOfNothing);
        }
        self.with(Effect::Short(bytes as u64))
    }

    /// The process is killed by SIGKILL, and the call is not made.
    pub fn kill(self) -> Self {
        self.signal(libc::SIGKILL)
    }

    /// The calling thread gets this signal, such as `libc::SIGTERM`, and then the call is made, if the thread lives. So a call that waits is
    /// interrupted.
    pub fn signal(mut self, signal: i32) -> Self {
        if !(1..=64).contains(&signal) {
            self.fail(ErrorKind::BadSignal(signal));
        }
        self.with(Effect::Signal(signal))
    }

    /// The call takes so much longer. It may be said besides what else happens, which comes after that time.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Only calls on files of this path, as the sandbox or the caller sees it. `*` and `?` stand for any characters and for one character, but for
    /// slashes, `**` for any characters. A pattern that doesn't begin with a slash means the end of the path: `*.log` is any such file.
    ///
    /// For calls on descriptors, it is the path that the file has now, as `/proc/PID/fd` tells it: a file that was renamed has its new one, and one that was
    /// deleted is called `/data/wal (deleted)`. For calls with a path, it is that path, from the root or the caller's working directory; links in it are not
    /// followed. Of a call with two paths, such as rename(2), one is enough.
    pub fn path(mut self, pattern: impl AsRef<Path>) -> Self {
        self.set_path(pattern.as_ref());
        self
    }

    fn set_path(&mut self, pattern: &Path) {
        let bytes = pattern.as_os_str().as_bytes();
        if bytes.contains(&0) {
            self.fail(ErrorKind::NulInPath);
        } else if bytes.len() > pattern::LENGTH_MAX {
            self.fail(ErrorKind::LongPath(bytes.len()));
        }
        self.path = Some(bytes.to_vec());
    }

    /// Only calls with this port in an address, such as connect(2), bind(2) and sendto(2).
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Only calls with this IP address, such as `10.0.0.1`.
    pub fn address(mut self, address: &str) -> Self {
        self.address = Some(address.to_owned());
        self
    }

    fn at(mut self, method: &'static str, number: u64, when: When) -> Self {
        if number == 0 {
            self.fail(ErrorKind::BadCount(method));
        }
        self.when = when;
        self
    }

    /// Only the call of this number, from 1.
    pub fn nth(self, number: u64) -> Self {
        self.at("nth", number, When::Nth(number))
    }

    /// Only the first so many calls.
    pub fn first(self, count: u64) -> Self {
        self.at("first", count, When::First(count))
    }

    /// Each call whose number can be divided by this one.
    pub fn every(self, number: u64) -> Self {
        self.at("every", number, When::Every(number))
    }

    /// All calls but the first so many.
    pub fn after(mut self, count: u64) -> Self {
        self.when = When::After(count);
        self
    }

    /// By lot, with a probability from 0.0 to 1.0. What the lot says follows from the seed and from the call's number among those of its thread: it is
    /// the same in every run.
    pub fn seeded(mut self, seed: u64, probability: f64) -> Self {
        if !(0.0..=1.0).contains(&probability) {
            self.fail(ErrorKind::BadProbability(format!("{probability:?}")));
        }
        self.when = When::Seeded { seed, odds: odds(probability) };
        self
    }

    /// Has it happen from now on, until what this returns is dropped.
    ///
    /// # Errors
    ///
    /// If this is no sandbox; if what was said can't be; if 64 faults are active; if the call is one of those that are not watched unless the test's
    /// first fault is for them, such as futex(2), mmap(2) and poll(2); if the kernel, or a filter, does not let calls be watched.
    pub fn start(self) -> Result<ActiveFault, FaultError> {
        let start = || {
            let definition = self.definition()?;
            let advice = definition.calls.names().find_map(calls::advice).filter(|_| self.is_of_one_call());
            active::start(&definition, Words { name: self.name.clone(), written: self.to_string(), advice })
        };
        start().map_err(FaultError)
    }

    /// The same calls, which are counted, and go through.
    pub(crate) fn counting(&self) -> Self {
        Self { when: When::Nth(u64::MAX), ..self.clone() }
    }

    /// Whether a call that it happens to is not made as it was meant, so that a sync syncs nothing.
    pub(crate) fn undoes(&self) -> bool {
        self.kills() || matches!(self.effect, Some(Effect::Errno(_) | Effect::Returns(_) | Effect::Short(_)))
    }

    /// Whether it kills who makes the call.
    pub(crate) fn kills(&self) -> bool {
        self.effect == Some(Effect::Signal(libc::SIGKILL))
    }

    /// Has what fsync(2) and fdatasync(2) sync copied to [`KEPT`](super::KEPT), to files that [`kept_name`](super::kept_name) names.
    pub(crate) fn keeping() -> Self {
        Self::of(String::new(), "keeping".to_owned(), "fsync fdatasync", Side::Any).with(Effect::Keep)
    }

    fn definition(&self) -> Result<Definition, ErrorKind> {
        if let Some(trouble) = &self.trouble {
            return Err(trouble.clone());
        }
        if !table::ARE_KNOWN {
            return Err(ErrorKind::UnknownArch);
        }
        let has = |is_wanted: fn(&Operand) -> bool| {
            self.calls.names().any(|name| calls::operands(name).iter().any(is_wanted))
        };
        if self.path.is_some() && !has(|_| true) {
            return Err(ErrorKind::NoPath(self.name.clone()));
        }
        let has_address = has(|operand| matches!(operand, Operand::Address(..) | Operand::Message(_)));
        if (self.port.is_some() || self.address.is_some()) && !has_address {
            return Err(ErrorKind::NoAddress(self.name.clone()));
        }
        let is_short = matches!(self.effect, Some(Effect::Short(_)));
        let can_be_short = Calls::of(calls::SHORT);
        if is_short && !self.calls.numbers().any(|number| can_be_short.has(number)) {
            return Err(ErrorKind::NoShort(self.name.clone()));
        }
        let effect = match (self.effect, self.delay) {
            (None, None) => return Err(ErrorKind::NothingHappens(self.name.clone())),
            (effect, _) => effect.unwrap_or(Effect::GoOn),
        };
        let address = self.address.as_ref().map(|text| text.parse().map_err(|_| ErrorKind::BadAddress(text.clone())));
        Ok(Definition {
            calls: self.calls,
            side: self.side,
            when: self.when,
            effect,
            delay: self.delay.map_or(0, |delay| u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)),
            path: self.path.clone(),
            port: self.port,
            address: address.transpose()?,
        })
    }
}

/// As it is written in a test: `Fault::new("fsync").errno(libc::EIO).path("/data/*").nth(2)`.
impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Fault::{}", self.written)?;
        match self.effect {
            None | Some(Effect::GoOn | Effect::Keep) => {}
            Some(Effect::Errno(errno)) => match nix::errno::Errno::from_raw(errno) {
                nix::errno::Errno::UnknownErrno => write!(f, ".errno({errno})")?,
                name => write!(f, ".errno(libc::{name:?})")?,
            },
            Some(Effect::Returns(value)) => write!(f, ".returns({value})")?,
            Some(Effect::Short(bytes)) => write!(f, ".short({bytes})")?,
            Some(Effect::Signal(libc::SIGKILL)) => f.write_str(".kill()")?,
            Some(Effect::Signal(signal)) => write!(f, ".signal({signal})")?,
        }
        if let Some(delay) = self.delay {
            write!(f, ".delay(Duration::from_nanos({}))", delay.as_nanos())?;
        }
        if let Some(path) = &self.path {
            write!(f, ".path({:?})", String::from_utf8_lossy(path))?;
        }
        if let Some(port) = self.port {
            write!(f, ".port({port})")?;
        }
        if let Some(address) = &self.address {
            write!(f, ".address({address:?})")?;
        }
        match self.when {
            When::Always => Ok(()),
            When::Nth(n) => write!(f, ".nth({n})"),
            When::First(n) => write!(f, ".first({n})"),
            When::Every(n) => write!(f, ".every({n})"),
            When::After(n) => write!(f, ".after({n})"),
            When::Seeded { seed, odds } => write!(f, ".seeded({seed}, {})", odds as f64 / 2_f64.powi(64)),
        }
    }
}
