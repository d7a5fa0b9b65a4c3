//! What proc(5) tells: of a process, from wherever it is asked, and of what is mounted.

use std::borrow::Cow;
use std::env;
use std::ffi::{CStr, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::collect::{CollectVec as _, map_both};
use crate::sorted::{Map, Set};
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::utsname::uname;

use crate::sys::{self, above_standard_streams};

/// The name of the process that a laboratory has between its hosts. It is none of the test's.
pub(crate) const WIRE: &CStr = c"belljar-wire";

/// A line of proc_pid_stat(5).
pub(crate) struct Stat<'t> {
    /// At most 15 bytes.
    pub(crate) name: Cow<'t, [u8]>,
    /// What follows the name.
    fields: Cow<'t, str>,
}

impl<'t> Stat<'t> {
    /// The name stands in parentheses and may hold anything, parentheses too. This allocates nothing.
    pub(crate) fn parse(line: &'t [u8]) -> Option<Self> {
        let begin = line.iter().position(|byte| *byte == b'(')?;
        let end = line.iter().rposition(|byte| *byte == b')')?;
        let (name, fields) = (line.get(begin + 1..end)?, std::str::from_utf8(line.get(end + 1..)?).ok()?);
        Some(Self { name: name.into(), fields: fields.into() })
    }

    pub(crate) fn state(&self) -> Option<char> {
        self.fields.split_ascii_whitespace().next()?.chars().next()
    }

    pub(crate) fn parent(&self) -> Option<u32> {
        self.number(4).and_then(|parent| u32::try_from(parent).ok())
    }

    /// The kernel's marks, `PF_*`.
    pub(crate) fn flags(&self) -> Option<u64> {
        self.number(9)
    }

    /// The page faults of the children that it has waited for.
    pub(crate) fn faults_of_children(&self) -> Option<u64> {
        self.number(11)
    }

    /// When it began, in clock ticks since the machine was started.
    pub(crate) fn began(&self) -> Option<u64> {
        self.number(22)
    }

    /// How it has ended, if it has, and the reader may trace it: what wait(2) would tell. Otherwise 0.
    pub(crate) fn wait_status(&self) -> Option<i32> {
        self.number(52).and_then(|status| i32::try_from(status).ok())
    }

    /// The number in a field, as the manual counts them: the name is the second.
    fn number(&self, field: usize) -> Option<u64> {
        self.fields.split_ascii_whitespace().nth(field - 3)?.parse().ok()
    }
}

/// Reads a file as text, to look for words and numbers in it. What is no UTF-8, such as in the name of a process or of a directory, becomes
/// U+FFFD, so that the rest can still be read.
pub(crate) fn text_of(path: impl AsRef<Path>) -> io::Result<String> {
    File::open(path).and_then(text_in)
}

/// The same, of an open file.
pub(crate) fn text_in(file: impl Read) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&bytes_in(file)?).into_owned())
}

/// What a file of the kernel's holds. How long it is, nobody knows before: [`fs::read`] begins with 32 bytes, and doubles them.
pub(crate) fn bytes_of(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    File::open(path).and_then(bytes_in)
}

fn bytes_in(mut file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The line of the process or thread whose `directory` this is. `None` if it has ended.
pub(crate) fn stat(directory: &Path) -> Option<Stat<'static>> {
    let line = bytes_of(directory.join("stat")).ok()?;
    let Stat { name, fields } = Stat::parse(&line)?;
    Some(Stat { name: name.into_owned().into(), fields: fields.into_owned().into() })
}

/// The directory of a process.
pub(crate) fn directory(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// The arguments that this process was started with. Before `main`, the standard library knows them only where the C library is glibc; but it
/// does without `/proc`.
pub(crate) fn arguments() -> Vec<OsString> {
    let Ok(mut line) = bytes_of("/proc/self/cmdline") else { return env::args_os().collect_vec() };
    // A NUL stands behind each.
    line.pop();
    parts(&line, 0).into_iter().map(|argument| OsString::from_vec(argument.to_vec())).collect_vec()
}

/// Whether this process has a library whose path has these words in it.
fn has_library(words: &[u8]) -> bool {
    fs::read("/proc/self/maps").is_ok_and(|maps| sys::contains(&maps, words))
}

/// Whether valgrind(1) runs this program. It names its library to each program. A static one does not load it, and a test may have cleared
/// the environment.
pub(crate) fn has_valgrind() -> bool {
    let library = b"/vgpreload_core-";
    env::var_os("LD_PRELOAD").is_some_and(|named| sys::contains(named.as_bytes(), library)) || has_library(library)
}

/// Whether fakeroot(1) runs this program, so that the C library asks a daemon about files.
pub(crate) fn has_fakeroot() -> bool {
    env::var_os("FAKEROOTKEY").is_some() && has_library(b"/libfakeroot")
}

/// The process that made this one, or that took it over. 0 for one from elsewhere. `None` if it has ended.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    stat(&directory(pid))?.parent()
}

/// The children of this thread. `None` where the kernel doesn't tell: see CONFIG_PROC_CHILDREN in proc_tid_children(5).
pub(crate) fn children() -> Option<Vec<u32>> {
    let children = text_of("/proc/thread-self/children").ok()?;
    Some(children.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect_vec())
}

/// The name of a process. `None` if it has ended.
pub(crate) fn name_of(pid: u32) -> Option<String> {
    name_in(&directory(pid))
}

/// The name of the process or thread whose `directory` this is.
pub(crate) fn name_in(directory: &Path) -> Option<String> {
    Some(String::from_utf8_lossy(&stat(directory)?.name).into_owned())
}

/// The process that a pidfd refers to; see pidfd_open(2) on fdinfo. `None` if it is gone.
pub(crate) fn pid_of(pidfd: BorrowedFd<'_>) -> Option<u32> {
    pid_in(File::open(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?).ok()
}

/// The same of what `/proc` tells of a pidfd. ESRCH: it tells of no process.
pub(crate) fn pid_in(info: impl Into<File>) -> nix::Result<u32> {
    let info = text_in(info.into()).map_err(|error| sys::errno_of(&error))?;
    field_of(&info, "Pid").and_then(|pid| pid.parse().ok()).ok_or(Errno::ESRCH)
}

/// The directories of a process's threads, in the order of their ids.
pub(crate) fn threads_of(pid: u32) -> Vec<PathBuf> {
    let tasks = directory(pid).join("task");
    numbers_in(&tasks).iter().map(|tid| tasks.join(tid.to_string())).collect_vec()
}

/// All processes that there are.
pub(crate) fn all() -> Set<u32> {
    numbers_in(Path::new("/proc"))
}

/// All processes below this one.
pub(crate) fn descendants(of: u32) -> Set<u32> {
    let mut children: Map<u32, Vec<u32>> = Map::new();
    for pid in all() {
        if let Some(parent) = parent_of(pid) {
            children.get_or_insert_with(parent, Vec::new).push(pid);
        }
    }
    let (mut found, mut pending) = (Set::new(), vec![of]);
    while let Some(parent) = pending.pop() {
        let below = children.remove(&parent).unwrap_or_default();
        found.extend(below.iter().copied());
        pending.extend(below);
    }
    found
}

/// The entries of a directory that are numbers, in order.
fn numbers_in(directory: &Path) -> Set<u32> {
    let mut numbers = Set::new();
    let Ok(entries) = fs::read_dir(directory) else { return numbers };
    for entry in entries.flatten() {
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            numbers.insert(number);
        }
    }
    numbers
}

/// The version of the kernel that this runs on, if uname(2) tells it.
pub(crate) fn own_kernel() -> Option<(u32, u32)> {
    kernel_version(&uname().ok()?.release().to_string_lossy())
}

/// The two numbers that a release of the kernel begins with, as uname(2) tells it.
pub(crate) fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map_while(|number| number.parse().ok());
    numbers.next().zip(numbers.next())
}

/// The cgroup of this process in one hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OwnCgroup {
    /// The names of the hierarchy's controllers, with commas between them. Version 2 has none here.
    pub(crate) controllers: String,
    pub(crate) is_v2: bool,
    pub(crate) path: PathBuf,
}

/// The table of this process's cgroups.
pub(crate) const OWN_CGROUPS: &str = "/proc/self/cgroup";

/// The cgroups in a table like [`OWN_CGROUPS`], see cgroups(7). It has lines like `4:cpu,cpuacct:/path`, and `0::/path` for version 2.
pub(crate) fn own_cgroups_in(table: &[u8]) -> Vec<OwnCgroup> {
    let cgroup = |line: &[u8]| {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (number, names, path) = (fields.next()?, String::from_utf8_lossy(fields.next()?), fields.next()?);
        let is_v2 = number == b"0" && names.is_empty();
        Some(OwnCgroup { controllers: names.into_owned(), is_v2, path: OsStr::from_bytes(path).into() })
    };
    parts(table, b'\n').into_iter().filter_map(cgroup).collect_vec()
}

/// The cgroup of version 2 that this process is in.
pub(crate) fn own_cgroup_v2() -> Option<PathBuf> {
    let own = own_cgroups_in(&bytes_of(OWN_CGROUPS).ok()?);
    own.into_iter().find(|cgroup| cgroup.is_v2).map(|cgroup| cgroup.path)
}

/// What is mounted in the mount namespace of this process.
pub(crate) const MOUNTINFO: &str = "/proc/self/mountinfo";

/// A line of [`MOUNTINFO`]; see proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u32,
    /// The mount that it lies on.
    pub(crate) parent: u32,
    /// The directory of its file system that it shows.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
    /// The type of its file system.
    pub(crate) kind: OsString,
    /// The options of its file system, with commas between them.
    pub(crate) options: OsString,
    /// Whether the mount or its file system is read-only.
    pub(crate) is_read_only: bool,
    /// The flags of the mount that a remount must repeat, see mount(2). How times of access are kept, it must not: what a remount says
    /// nothing of stays as it is.
    pub(crate) flags: MsFlags,
}

/// All mounts that this process sees, what lies on top last.
pub(crate) fn mounts() -> Vec<Mount> {
    mounts_in(&bytes_of(MOUNTINFO).unwrap_or_default())
}

/// The mounts in a table like [`MOUNTINFO`].
pub(crate) fn mounts_in(mountinfo: &[u8]) -> Vec<Mount> {
    parts(mountinfo, b'\n').into_iter().filter_map(mount_in).collect_vec()
}

fn mount_in(line: &[u8]) -> Option<Mount> {
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let fields = parts(line, b' ');
    let [id, parent, _, root, point, options, rest @ ..] = &fields[..] else { return None };
    // What follows are marks, as many as there are, and a hyphen.
    let rest = &rest[rest.iter().position(|field| *field == b"-").unwrap_or(rest.len())..];
    let [kind, of_all] = map_both([1, 3], |at| rest.get(at).copied().unwrap_or_default());
    let options = parts(options, b',');
    let is_read_only = options.contains(&&b"ro"[..]) || parts(of_all, b',').contains(&&b"ro"[..]);
    let mut flags = MsFlags::empty();
    for option in options {
        flags |= flag_of(option);
    }
    let [kind, options] = map_both([kind, of_all], |field| OsString::from_vec(field.to_vec()));
    let [root, point] = map_both([root, point], |field| PathBuf::from(unescaped(field)));
    Some(Mount { id: number(id)?, parent: number(parent)?, root, point, kind, options, is_read_only, flags })
}

/// What stands between the separators.
fn parts(text: &[u8], separator: u8) -> Vec<&[u8]> {
    text.split(|byte| *byte == separator).collect_vec()
}

/// The flag that an option of a mount stands for.
fn flag_of(option: &[u8]) -> MsFlags {
    match option {
        b"ro" => MsFlags::MS_RDONLY,
        b"nosuid" => MsFlags::MS_NOSUID,
        b"nodev" => MsFlags::MS_NODEV,
        b"noexec" => MsFlags::MS_NOEXEC,
        _ => MsFlags::empty(),
    }
}

/// All mount points that this process sees.
pub(crate) fn mount_points() -> Set<PathBuf> {
    mounts().into_iter().map(|mount| mount.point).collect()
}

/// Places at which, or below which, the kernel has empty directories to mount other file systems on: these hide nothing of a proc or a sysfs.
const MOUNT_POINTS: [&str; 11] = [
    "/proc/fs/nfsd",
    "/proc/sys/fs/binfmt_misc",
    "/sys/firmware/efi/efivars",
    "/sys/fs/bpf",
    "/sys/fs/cgroup",
    "/sys/fs/fuse/connections",
    "/sys/fs/pstore",
    "/sys/fs/resctrl",
    "/sys/fs/selinux",
    "/sys/fs/smackfs",
    "/sys/kernel",
];

/// Whether what is mounted there hides nothing of a proc or a sysfs.
pub(crate) fn hides_nothing(point: &Path) -> bool {
    MOUNT_POINTS.iter().any(|harmless| point.starts_with(harmless))
}

/// Tells when what is mounted has changed: in the mount namespace that this process was in when it began to watch.
pub(crate) struct MountWatch(File);

impl MountWatch {
    /// Begins to watch. Fails where there is no `/proc`.
    pub(crate) fn begin() -> io::Result<Self> {
        // It may be before `main`, where the standard library has not yet seen to closed standard streams.
        Ok(Self(File::from(above_standard_streams(File::open(MOUNTINFO)?.into())?)))
    }

    /// Whether something was mounted, unmounted or changed since this was last asked, or since the watch began.
    /// See proc_pid_mountinfo(5) on poll(2).
    pub(crate) fn has_changed(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)];
        // What can't be asked may have changed.
        !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
    }
}

/// What proc_pid_status(5) has under this name for this process.
pub(crate) fn status(name: &str) -> Option<String> {
    let status = text_of("/proc/self/status").ok()?;
    field_of(&status, name).map(str::to_owned)
}

/// What a text like `/proc/self/status` has under this name.
pub(crate) fn field_of<'t>(file: &'t str, name: &str) -> Option<&'t str> {
    file.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// Whether this process has a capability, by its number in capabilities(7). Not known without `/proc`.
pub(crate) fn has_capability(number: u32) -> Option<bool> {
    let effective = u64::from_str_radix(&status("CapEff")?, 16).ok()?;
    Some(effective & (1 << number) != 0)
}

/// Resolves the octal escapes of a mount table, which stand for white space and backslashes.
fn unescaped(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = octal.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cgroups_are_read() {
        let table = b"5:cpu,cpuacct:/a\n4:memory:/b c:d\n1:name=systemd:/x\n0::/Z\xfcrich\n";
        let cgroup = |controllers: &str, is_v2, path: &[u8]| OwnCgroup {
            controllers: controllers.to_owned(),
            is_v2,
            path: OsStr::from_bytes(path).into(),
        };
        let expected = [
            cgroup("cpu,cpuacct", false, b"/a"),
            cgroup("memory", false, b"/b c:d"),
            cgroup("name=systemd", false, b"/x"),
            cgroup("", true, b"/Z\xfcrich"),
        ];
        assert_eq!(own_cgroups_in(table), expected);
    }

    #[test]
    fn versions_of_kernels_are_read() {
        assert_eq!(
            ["5.10.0-30-amd64", "6.18", "7.3-rc1"].map(kernel_version),
            [Some((5, 10)), Some((6, 18)), Some((7, 3))]
        );
        assert_eq!(["", "6", "six.one"].map(kernel_version), [None; 3]);
    }

    #[test]
    fn mount_tables_are_read() {
        let table = b"22 27 0:21 / /proc rw - proc proc rw\n\
                      40 27 0:9 / /mnt/a\\040b\\134 rw,relatime,nosuid shared:1 - tmpfs t\\011t ro,size=1\n\
                      1 1 0:2 / / rw";
        let mount = |(id, parent), [point, kind, options]: [&str; 3], is_read_only, flags| Mount {
            id,
            parent,
            root: "/".into(),
            point: point.into(),
            kind: kind.into(),
            options: options.into(),
            is_read_only,
            flags,
        };
        let expected = [
            mount((22, 27), ["/proc", "proc", "rw"], false, MsFlags::empty()),
            mount((40, 27), ["/mnt/a b\\", "tmpfs", "ro,size=1"], true, MsFlags::MS_NOSUID),
            mount((1, 1), ["/", "", ""], false, MsFlags::empty()),
        ];
        assert_eq!(mounts_in(table), expected);
        assert_eq!(unescaped(b"\\9x\\04"), "\\9x\\04");
    }

    #[test]
    fn names_may_hold_anything() {
        let stat = Stat::parse(b"12 (a) (\xff) S 7 12 12 0 -1 64 5 6 7 8").expect("a stat line");
        assert_eq!((&*stat.name, stat.state(), stat.parent()), (&b"a) (\xff"[..], Some('S'), Some(7)));
        assert_eq!((stat.flags(), stat.faults_of_children()), (Some(64), Some(6)));
        assert!(["", "12 )a( S 7", "12 a"].iter().all(|line| Stat::parse(line.as_bytes()).is_none()));
        assert_eq!(Stat::parse(b"12 (a) S").and_then(|stat| stat.parent()), None);
    }
}
