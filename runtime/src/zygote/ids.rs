//! Maps a range of ids for a template, which takes rights that the template itself doesn't have: root's, or those that /etc/subuid
//! and /etc/subgid give, by newuidmap(1) and newgidmap(1). See user_namespaces(7).
//!
//! A helper process in the user namespace of the test binary does it, and tells the template how that went. If newuidmap hangs, only the tests with
//! `uids` wait.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, User, write};

use crate::collect::CollectVec as _;
use crate::frame::{Buffer, FRAME_MAX, Frame, Refusal, Step};
use crate::proc::{field_of, pid_in, text_in};
use crate::rootfs::paths::c_string;
use crate::sys::{self, Cloned, SingleThreaded, errno_of, getegid, geteuid};

/// A kind of ids, users or groups, and how it is mapped.
struct IdKind {
    /// The name of the file of the process.
    map: &'static str,
    /// Who writes it for ordinary users.
    program: &'static str,
    /// Which ids they may use.
    table: &'static str,
}

const ID_KINDS: [IdKind; 2] = [
    IdKind { map: "uid_map", program: "newuidmap", table: "/etc/subuid" },
    IdKind { map: "gid_map", program: "newgidmap", table: "/etc/subgid" },
];

/// What the template is told when its ids are mapped. Otherwise it is told the frame of a refusal.
const MAPPED: &[u8] = b"mapped";

/// Has another process map the ids from 0 to `count` for the template, and tell it how that went.
pub(super) fn map_in_other_process(
    template: Pid,
    count: u32,
    tell: &OwnedFd,
    proof: &SingleThreaded,
) -> nix::Result<()> {
    match sys::clone_into(proof, 0, None)? {
        Cloned::Parent(_) => Ok(()),
        Cloned::Child(_) => {
            let _ = set_pdeathsig(Signal::SIGKILL);
            let mut buffer = Buffer::new();
            let mapped = map(template, count);
            let told = match &mapped {
                Ok(()) => MAPPED,
                Err(refusal) => Frame::Refused(refusal.as_ref()).encode(&mut buffer),
            };
            // If it is dead, nobody waits.
            let _ = write(tell, told);
            sys::exit_now(0)
        }
    }
}

/// Waits, in the template, until its ids are mapped.
pub(super) fn wait_for(mapper: OwnedFd) -> Result<(), Refusal> {
    let mut told = Vec::new();
    // It is never more, and comes in one piece.
    let read = File::from(mapper).take(FRAME_MAX as u64).read_to_end(&mut told);
    match (read, Frame::decode(&told)) {
        (Ok(_), _) if told == MAPPED => Ok(()),
        (Ok(_), Some(Frame::Refused(refusal))) => Err(refusal.into()),
        (Ok(_), _) => Err(Refusal::new(Step::MapIds, "", Errno::ESRCH)),
        (Err(error), _) => Err(Refusal::new(Step::MapIds, "", errno_of(&error))),
    }
}

/// Gives a template the ids from 0 to `count`. If root runs the tests, ids are the same inside and outside. Otherwise 0 is the user, and
/// the rest are subordinate ids.
fn map(template: Pid, count: u32) -> Result<(), Refusal> {
    let failed = |errno| Refusal::new(Step::MapIds, "/proc", errno);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let proc = open(c"/proc", flags, Mode::empty()).map_err(failed)?;
    let template = number_in(proc.as_fd(), template).map_err(failed)?;
    for (kind, own) in ID_KINDS.iter().zip([geteuid().as_raw(), getegid().as_raw()]) {
        if geteuid().is_root() {
            let path = format!("/proc/{template}/{}", kind.map);
            let written = fs::write(&path, format!("0 0 {count}\n"));
            written.map_err(|error| Refusal::new(Step::MapIds, path, errno_of(&error)))?;
        } else {
            map_by_program(kind, template, own, count)?;
        }
    }
    Ok(())
}

fn map_by_program(kind: &IdKind, template: u32, own: u32, count: u32) -> Result<(), Refusal> {
    let (mut arguments, mut inside) = (vec![template, 0, own, 1], 1);
    for (start, length) in own_ranges(kind.table) {
        let length = length.min(count - inside);
        arguments.extend([inside, start, length]);
        inside += length;
        if inside == count {
            break;
        }
    }
    if inside < count {
        return Err(Refusal::new(Step::MapIds, kind.table, Errno::ENOENT));
    }
    let mut command = Command::new(kind.program);
    let output = command.args(arguments.iter().map(u32::to_string)).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Refusal::of_program(Step::MapIds, kind.program, Errno::EPERM, output.stderr)),
        Err(error) => Err(Refusal::new(Step::MapIds, kind.program, errno_of(&error))),
    }
}

/// The number that a process has in the pid namespace which `proc` shows: it need not be that of this process.
fn number_in(proc: BorrowedFd<'_>, process: Pid) -> nix::Result<u32> {
    let pidfd = sys::pidfd_of(process)?;
    let path = format!("self/fdinfo/{}", pidfd.as_raw_fd());
    let file = openat(proc, &*c_string(Path::new(&path)), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    match pid_in(file)? {
        0 => Err(Errno::ESRCH),
        pid => Ok(pid),
    }
}

/// The maps that a template writes for its inits.
pub(super) struct Maps {
    /// Of users, and of groups.
    lines: [String; 2],
    /// Whether `/proc` shows the pid namespace of the template, and not one above.
    numbers_are_own: bool,
}

impl Maps {
    /// Those of this process, a template. Each range of ids that it has takes a line of its own. `proc` is a directory `/proc`.
    pub(super) fn of_template(proc: BorrowedFd<'_>) -> Result<Self, Refusal> {
        let own = |kind: &IdKind| {
            let failed = |error| Refusal::new(Step::MapIds, Path::new("/proc/self").join(kind.map), error);
            let path = format!("self/{}", kind.map);
            let file = openat(proc, &*c_string(Path::new(&path)), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(failed)?;
            let own = text_in(File::from(file)).map_err(|error| failed(errno_of(&error)))?;
            Ok::<_, Refusal>(lines_for_init(&own))
        };
        let [uids, gids] = &ID_KINDS;
        let status = openat(proc, c"self/status", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let status = status.map_err(|errno| Refusal::new(Step::MapIds, "/proc/self/status", errno))?;
        let status = text_in(File::from(status)).unwrap_or_default();
        // One for each of these namespaces, from that of `/proc` down.
        let numbers = field_of(&status, "NSpid").unwrap_or_default();
        let numbers_are_own = numbers.split_ascii_whitespace().count() == 1;
        Ok(Self { lines: [own(uids)?, own(gids)?], numbers_are_own })
    }

    /// Gives the ids to `init`.
    pub(super) fn write_for(&self, proc: BorrowedFd<'_>, init: Pid) -> Result<(), Refusal> {
        let number = if self.numbers_are_own { Ok(init.as_raw() as u32) } else { number_in(proc, init) };
        let number = number.map_err(|errno| Refusal::new(Step::MapIds, "/proc", errno))?;
        for (kind, map) in ID_KINDS.iter().zip(&self.lines) {
            let path = format!("{number}/{}", kind.map);
            let file = openat(proc, &*c_string(Path::new(&path)), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
            let written = file.and_then(|file| write(&file, map.as_bytes()));
            written.map_err(|errno| Refusal::new(Step::MapIds, Path::new("/proc").join(path), errno))?;
        }
        Ok(())
    }
}

/// The map by which an init gets all ids that a process with this map has.
pub(crate) fn lines_for_init(own: &str) -> String {
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        Some(format!("{0} {0} {1}\n", fields.next()?, fields.nth(1)?))
    };
    own.lines().filter_map(line).collect()
}

/// The name of the user who runs the tests, or the number if there is no name.
pub(crate) fn user() -> String {
    let uid = geteuid();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// The ranges of subordinate ids that `table`, a file as of subuid(5), gives to this user: where each begins, and how long it is.
pub(crate) fn own_ranges(table: &str) -> Vec<(u32, u32)> {
    let text = fs::read(table).unwrap_or_default();
    ranges(&String::from_utf8_lossy(&text), &user(), geteuid().as_raw())
}

pub(crate) fn ranges(table: &str, user: &str, uid: u32) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let (start, length) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (name == user || name == uid).then_some((start, length))
    };
    table.lines().filter_map(range).filter(|(_, length)| *length > 0).collect_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let table = "root:1:2\nann:100000:65536\n# ann:1\n1000:7:1\nanna:5:5\nann:9:0\n";
        assert_eq!(ranges(table, "ann", 1000), [(100_000, 65536), (7, 1)]);
        assert!(ranges(table, "nobody", 65534).is_empty());
    }
}
