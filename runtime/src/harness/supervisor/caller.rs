//! Who waits for an answer: what its call names, as far as it can be known without waiting.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use libc::seccomp_notif;
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::collect::CollectVec as _;
use crate::faults::PRINTED;
use crate::faults::calls::{Calls, Operand, operands};
use crate::faults::definition::{Definition, Peer};
use crate::faults::pattern::absolute;
use crate::faults::table;
use crate::harness::spare;
use crate::proc::WIRE;
use crate::sys::seccomp::{self, read_memory};
use crate::sys::{self, errno_of, is_of_descriptors};

/// The longest path that calls take, with its end. See path_resolution(7).
const PATH_MAX: usize = 4096;

/// How much of a path is read at first.
const SHORT: usize = 128;

/// The longest address: sockaddr_storage(3type).
const ADDRESS_MAX: usize = 128;

/// How much of a `msghdr` says what its address is.
const HEADER: usize = 16;

/// A call that waits.
pub(super) struct Caller {
    /// What the kernel calls the waiting.
    pub(super) id: u64,
    /// The thread, as this process's pid namespace numbers it.
    pub(super) thread: u32,
    pub(super) number: u32,
    pub(super) call: Option<&'static str>,
    operands: &'static [Operand],
    pub(super) arguments: [u64; 6],
    named: OnceCell<Vec<(Operand, Named)>>,
    root: OnceCell<PathBuf>,
}

/// What an argument names. `Err` if that can't be read.
type Named = io::Result<Thing>;

#[derive(Debug)]
pub(super) enum Thing {
    Path(PathBuf),
    Peer(Peer),
    /// A null pointer, or a kind of address that has no name here.
    Nothing,
}

/// What `/proc/PID/status` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) name: String,
    pub(super) process: Option<u32>,
    /// The number that the process has in its own pid namespace.
    pub(super) inner: Option<u32>,
    /// Whether there is a signal that the thread would have if its call didn't wait for an answer.
    pub(super) is_interrupted: bool,
}

/// What a call is called, and which of its arguments name something.
type NameAndOperands = (Option<&'static str>, &'static [Operand]);

/// What is known of system calls, by their numbers. It is asked for each call that is watched, and looked up once for each number.
pub(super) struct Known(Vec<Option<NameAndOperands>>);

impl Known {
    pub(super) fn new() -> Self {
        Self(vec![None; Calls::COUNT])
    }

    fn of(&mut self, number: u32) -> NameAndOperands {
        let look_up = || {
            let call = table::name(number);
            (call, call.map_or(&[][..], operands))
        };
        let kept = usize::try_from(number).ok().and_then(|number| self.0.get_mut(number));
        kept.map_or_else(look_up, |kept| *kept.get_or_insert_with(look_up))
    }
}

impl Caller {
    pub(super) fn new(call: &seccomp_notif, known: &mut Known) -> Self {
        let number = call.data.nr as u32;
        let (name, operands) = known.of(number);
        Self {
            id: call.id,
            thread: call.pid,
            number,
            call: name,
            operands,
            arguments: call.data.args,
            named: OnceCell::new(),
            root: OnceCell::new(),
        }
    }

    pub(super) fn argument(&self, at: usize) -> u64 {
        self.arguments.get(at).copied().unwrap_or_default()
    }

    fn link(&self, what: &str) -> io::Result<PathBuf> {
        fs::read_link(format!("/proc/{}/{what}", self.thread))
    }

    /// What a descriptor refers to.
    fn file(&self, at: usize) -> io::Result<PathBuf> {
        self.link(&format!("fd/{}", self.argument(at) as i32))
    }

    fn root(&self) -> io::Result<&Path> {
        if let Some(root) = self.root.get() {
            return Ok(root);
        }
        let root = self.link("root")?;
        Ok(self.root.get_or_init(|| root))
    }

    /// The bytes at an address, up to the first that is 0.
    fn string(&self, address: u64) -> io::Result<Vec<u8>> {
        // Most are short, and are read from one page.
        let mut bytes = Vec::new();
        for most in [SHORT, PATH_MAX] {
            bytes.resize(most, 0);
            let length = read_memory(self.thread, address, &mut bytes)?;
            bytes.truncate(length);
            if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
                bytes.truncate(end);
                break;
            }
        }
        Ok(bytes)
    }

    /// A path that begins at `base`.
    fn path(&self, base: impl FnOnce() -> io::Result<PathBuf>, at: usize) -> Named {
        let address = self.argument(at);
        if address == 0 {
            return Ok(Thing::Nothing);
        }
        let path = PathBuf::from(OsString::from_vec(self.string(address)?));
        if path.is_absolute() {
            // Below the caller's root, which `..` doesn't leave.
            let root = self.root()?;
            let inner = absolute(Path::new("/"), &path);
            return Ok(Thing::Path(root.join(inner.strip_prefix("/").unwrap_or(&inner))));
        }
        if path.as_os_str().is_empty() {
            return Ok(Thing::Path(base()?));
        }
        // The base is what the kernel says, and may have a deleted directory's mark.
        Ok(Thing::Path(absolute(&base()?, &path)))
    }

    fn path_at(&self, directory: usize, at: usize) -> Named {
        let base = || match self.argument(directory) as i32 {
            libc::AT_FDCWD => self.link("cwd"),
            _ => self.file(directory),
        };
        self.path(base, at)
    }

    /// An address in the caller's memory.
    fn address(&self, address: u64, length: u64) -> Named {
        if address == 0 {
            return Ok(Thing::Nothing);
        }
        let mut bytes = vec![0; ADDRESS_MAX.min(usize::try_from(length).unwrap_or(ADDRESS_MAX))];
        let length = read_memory(self.thread, address, &mut bytes)?;
        bytes.truncate(length);
        Ok(thing_of_address(&bytes, || self.link("cwd")))
    }

    /// The address of a `msghdr`, of which it is the beginning, and its length.
    fn name_of_message(&self, address: u64) -> io::Result<(u64, u64)> {
        let mut header = [0; HEADER];
        if read_memory(self.thread, address, &mut header)? < header.len() {
            return Ok((0, 0));
        }
        let word = |at: usize| header.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
        // The length has four bytes, and four that mean nothing follow.
        Ok((word(0).unwrap_or_default(), word(8).unwrap_or_default() & 0xffff_ffff))
    }

    fn thing(&self, operand: Operand) -> Named {
        match operand {
            Operand::Path(at) => self.path(|| self.link("cwd"), at),
            Operand::PathAt(directory, at) => self.path_at(directory, at),
            // An anonymous mapping has none.
            Operand::File(at) if self.argument(at) as i32 == -1 => Ok(Thing::Nothing),
            Operand::File(at) | Operand::Source(at) | Operand::Target(at) => self.file(at).map(Thing::Path),
            Operand::Address(at, length) => self.address(self.argument(at), self.argument(length)),
            Operand::Message(at) => {
                let (address, length) = self.name_of_message(self.argument(at))?;
                self.address(address, length)
            }
        }
    }

    /// Whether what the call names can be read without waiting for anybody: the memory that it is in is there. What is not may be served by a process
    /// of the sandbox, see userfaultfd(2) and fuse(4), whose calls may be watched too.
    pub(super) fn is_at_hand(&self) -> bool {
        self.named.get().is_some() || self.operands.iter().all(|operand| self.has_at_hand(*operand))
    }

    fn has_at_hand(&self, operand: Operand) -> bool {
        let has = |address, length| address == 0 || seccomp::is_present(self.thread, address, length);
        match operand {
            Operand::Path(at) | Operand::PathAt(_, at) => {
                let (address, mut bytes) = (self.argument(at), [0; SHORT]);
                let mut is_short = || {
                    let length = read_memory(self.thread, address, &mut bytes).unwrap_or_default();
                    length < SHORT || bytes.contains(&0)
                };
                has(address, SHORT) && (address == 0 || is_short() || has(address, PATH_MAX))
            }
            Operand::Address(at, _) => has(self.argument(at), ADDRESS_MAX),
            Operand::Message(at) => {
                let address = self.argument(at);
                has(address, HEADER)
                    && self.name_of_message(address).is_ok_and(|(address, _)| has(address, ADDRESS_MAX))
            }
            Operand::File(_) | Operand::Source(_) | Operand::Target(_) => true,
        }
    }

    /// Finds out what the call names, however long that takes.
    pub(super) fn look(&self) {
        let _ = self.named();
    }

    /// What the call names.
    fn named(&self) -> &[(Operand, Named)] {
        self.named.get_or_init(|| self.operands.iter().map(|operand| (*operand, self.thing(*operand))).collect_vec())
    }

    /// Whether a fault of this call is for what it names. Fails if that can't be known.
    pub(super) fn is_meant(&self, definition: &Definition) -> io::Result<bool> {
        if definition.path.is_none() && definition.port.is_none() && definition.address.is_none() {
            return Ok(true);
        }
        let mut trouble = None;
        let mut is_of_path = definition.path.is_none();
        let mut peer = None;
        for (operand, named) in self.named().iter().filter(|(operand, _)| definition.side.has(*operand)) {
            match named {
                Ok(Thing::Path(path)) => {
                    is_of_path |= definition.is_of_path(path, || self.root().unwrap_or(Path::new("/")));
                }
                Ok(Thing::Peer(other)) => peer = Some(*other),
                Ok(Thing::Nothing) => {}
                // A descriptor that is none, and a pointer that leads nowhere, have no name.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EFAULT)) => {}
                Err(error) => trouble = Some((*operand, error)),
            }
        }
        let is_meant = is_of_path && definition.is_of_peer(peer);
        match trouble {
            Some((_, error)) if !is_meant => Err(io::Error::from(error.kind())),
            _ => Ok(is_meant),
        }
    }

    /// What the call names, for a person.
    pub(super) fn subject(&self) -> Option<OsString> {
        self.named().iter().find_map(|(_, named)| match named {
            Ok(Thing::Path(path)) if !path.as_os_str().as_bytes().starts_with(b"socket:") => Some(path.clone().into()),
            Ok(Thing::Peer((address, port))) => Some(std::net::SocketAddr::new(*address, *port).to_string().into()),
            _ => None,
        })
    }

    /// Whether no fault is for the call: it is on the socket or on a pipe that leads to the test binary, or of the wire of a laboratory. Fails if that
    /// can't be known.
    pub(super) fn is_ours(&self, [socket, output, errors]: [u64; 3]) -> nix::Result<bool> {
        let is_of_file = matches!(self.operands, [Operand::File(0) | Operand::Target(0) | Operand::Source(0), ..]);
        let link = match self.named.get().map(Vec::as_slice) {
            _ if !is_of_file => None,
            Some([(_, Ok(Thing::Path(link))), ..]) => Some(Cow::Borrowed(link)),
            _ => self.file(0).ok().map(Cow::Owned),
        };
        let is_printed = link.as_ref().is_some_and(|link| link.as_os_str() == PRINTED);
        // A file's is absolute.
        let is_ours = is_printed
            || link.filter(|link| !link.is_absolute()).is_some_and(|link| {
                let links = [format!("socket:[{socket}]"), format!("pipe:[{output}]"), format!("pipe:[{errors}]")];
                links.iter().any(|ours| link.as_os_str() == ours.as_str())
            });
        // A wire makes few calls, of which these are watched, or may be.
        let is_of_wire = matches!(self.call, Some("sendto" | "read" | "poll" | "ppoll"));
        if is_ours || !is_of_wire {
            return Ok(is_ours);
        }
        let name = self.read("comm").map_err(|error| errno_of(&error))?;
        Ok(name.strip_suffix(b"\n") == Some(WIRE.to_bytes()))
    }

    /// The caller's descriptor, for this process too.
    pub(super) fn descriptor(&self, at: usize) -> nix::Result<OwnedFd> {
        let number = self.argument(at) as i32;
        match sys::pidfd_of_thread(self.thread) {
            Ok(thread) => return seccomp::descriptor_of(thread.as_fd(), number),
            Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
        // Before Linux 6.9, processes alone have such descriptors: one whose first thread has ended has no files, it seems.
        let process = self.process()? as i32;
        match seccomp::descriptor_of(sys::pidfd_of(Pid::from_raw(process))?.as_fd(), number) {
            Err(Errno::EBADF) if self.file(at).is_ok() => Err(Errno::ESRCH),
            result => result,
        }
    }

    /// What a file in `/proc` says of the thread. It is read with the descriptor that is kept for such things, if there is no other.
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let read = || fs::read(format!("/proc/{}/{name}", self.thread));
        read().or_else(|error| if is_of_descriptors(errno_of(&error)) { spare::look(read) } else { Err(error) })
    }

    pub(super) fn status(&self) -> nix::Result<Status> {
        let status = self.read("status").map_err(|error| errno_of(&error))?;
        Ok(parse_status(&String::from_utf8_lossy(&status)))
    }

    /// The process, as this process's pid namespace numbers it.
    pub(super) fn process(&self) -> nix::Result<u32> {
        self.status()?.process.ok_or(Errno::ESRCH)
    }
}

fn parse_status(text: &str) -> Status {
    let mut status = Status::default();
    let (mut pending, mut held) = (0, 0);
    let signals = |mask: &str| u64::from_str_radix(mask.trim(), 16).unwrap_or_default();
    for line in text.lines() {
        match line.split_once(":\t") {
            Some(("Name", name)) => name.clone_into(&mut status.name),
            Some(("Tgid", number)) => status.process = number.trim().parse().ok(),
            Some(("NStgid", numbers)) => {
                status.inner = numbers.split_ascii_whitespace().last().and_then(|number| number.parse().ok());
            }
            Some(("SigPnd" | "ShdPnd", mask)) => pending |= signals(mask),
            Some(("SigBlk" | "SigIgn", mask)) => held |= signals(mask),
            _ => {}
        }
    }
    status.is_interrupted = pending & !held != 0;
    status
}

/// What a `sockaddr` names.
fn thing_of_address(bytes: &[u8], cwd: impl FnOnce() -> io::Result<PathBuf>) -> Thing {
    let Some((family, rest)) = bytes.split_first_chunk() else { return Thing::Nothing };
    let port = |rest: &[u8]| rest.first_chunk().map(|port| u16::from_be_bytes(*port));
    let peer = match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => rest.get(2..6).and_then(|ip| <[u8; 4]>::try_from(ip).ok()).map(|ip| Ipv4Addr::from(ip).into()),
        libc::AF_INET6 => {
            rest.get(6..22).and_then(|ip| <[u8; 16]>::try_from(ip).ok()).map(|ip| Ipv6Addr::from(ip).into())
        }
        libc::AF_UNIX => {
            let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            let name = rest
                .get(..end)
                .filter(|name| !name.is_empty())
                .map(|name| PathBuf::from(OsString::from_vec(name.into())));
            let path =
                name.and_then(|name| if name.is_absolute() { Some(name) } else { Some(absolute(&cwd().ok()?, &name)) });
            return path.map_or(Thing::Nothing, Thing::Path);
        }
        _ => None,
    };
    peer.zip(port(rest)).map_or(Thing::Nothing, |(address, port): (IpAddr, u16)| Thing::Peer((address, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let thing = |bytes: &[u8]| format!("{:?}", thing_of_address(bytes, || Ok("/run".into())));
        let family = |family: i32| (family as u16).to_ne_bytes();
        let v4 = [&family(libc::AF_INET)[..], &[0, 80, 127, 0, 0, 1]].concat();
        assert_eq!(thing(&v4), "Peer((127.0.0.1, 80))");
        assert_eq!(thing(&v4[..7]), "Nothing");
        let v6 = [&family(libc::AF_INET6)[..], &[1, 0, 0, 0, 0, 0], &Ipv6Addr::LOCALHOST.octets()].concat();
        assert_eq!(thing(&v6), "Peer((::1, 256))");
        assert_eq!(thing(&[&family(libc::AF_UNIX)[..], b"a.sock\0x"].concat()), r#"Path("/run/a.sock")"#);
        assert_eq!(thing(&[&family(libc::AF_UNIX)[..], b"\0abstract"].concat()), "Nothing");
        assert_eq!(thing(&[1]), "Nothing");
        assert_eq!(thing(&family(99)), "Nothing");
    }

    #[test]
    fn status_is_read() {
        let text = "Name:\ta: b\nTgid:\t812\nNStgid:\t812\t7\nSpare:\tx\n";
        let expected = Status { name: "a: b".into(), process: Some(812), inner: Some(7), is_interrupted: false };
        assert_eq!(parse_status(text), expected);
        assert_eq!(parse_status("Tgid:\n\0"), Status::default());
        let is_interrupted = |pending, of_process, blocked, ignored| {
            let text = format!("SigPnd:\t{pending}\nShdPnd:\t{of_process}\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\n");
            parse_status(&text).is_interrupted
        };
        assert!(is_interrupted("0000000000004000", "0", "0", "0") && is_interrupted("0", "4000", "2", "0"));
        assert!(!is_interrupted("4000", "0", "4000", "0") && !is_interrupted("4000", "4000", "0", "4000"));
    }
}
