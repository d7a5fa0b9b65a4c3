//! Namespaces as values: the calls of namespaces(7).
//!
//! A [`Namespace`] is a reference to one, which lives for as long as something refers to it. It is one that is there already
//! ([`of`](Namespace::of) a process, [`current`](Namespace::current), [`open`](Namespace::open)), or a [`fresh`](Namespace::fresh)
//! one. It tells what it is and whose, and [`enter`](Namespace::enter) runs a closure in it.
//!
//! ```test_harness
//! # use belljar::isolated;
//! use belljar::ns::{Kind, Namespace};
//!
//! #[isolated]
//! fn both_ends_have_port_80() -> Result<(), Box<dyn std::error::Error>> {
//!     let there = Namespace::fresh(Kind::Net)?;
//!     let here = std::net::TcpListener::bind("0.0.0.0:80")?;
//!     let other = there.enter(|| std::net::TcpListener::bind("0.0.0.0:80"))??;
//!     # drop((here, other));
//!     Ok(())
//! }
//! ```

mod error;
mod kind;

use std::fmt::{self, Debug, Display, Formatter};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};

use crate::collect::CollectVec as _;
use crate::proc::text_of;
use crate::sys::namespaces::{self, Keeper};
use crate::sys::stat;
use error::Action;
pub use error::Error;
pub use kind::Kind;

/// What tells a namespace from all others that there are at the same time.
///
/// ```
/// # use belljar::ns::{Kind, Namespace};
/// let identity = Namespace::current(Kind::Net)?.identity();
/// let link = std::fs::read_link("/proc/thread-self/ns/net")?;
/// assert_eq!(link, std::path::PathBuf::from(format!("net:[{}]", identity.inode)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The device that its file is on.
    pub device: u64,
    /// The inode of its file, which `readlink /proc/PID/ns/KIND` shows.
    pub inode: u64,
}

/// Ids that a user namespace maps. See user_namespaces(7).
///
/// ```
/// # use belljar::ns::{Kind, Namespace};
/// # use belljar::ns::IdRange;
/// /// The number that user `uid` of a namespace has outside.
/// fn outside(map: &[IdRange], uid: u32) -> Option<u32> {
///     let range = map.iter().find(|range| (range.inside..range.inside + range.count).contains(&uid))?;
///     Some(range.outside + (uid - range.inside))
/// }
/// let map = Namespace::fresh(Kind::User)?.uid_map()?;
/// assert_eq!(outside(&map, 0), Some(nix::unistd::geteuid().as_raw()));
/// assert_eq!(outside(&map, 1), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdRange {
    /// The first, inside.
    pub inside: u32,
    /// The first, as whoever asks numbers them: in its own namespace, or, of that one, in the one above.
    pub outside: u32,
    /// How many follow each other.
    pub count: u32,
}

/// A reference to a namespace. Two are equal if they refer to the same.
///
/// ```test_harness
/// # use belljar::isolated;
/// use belljar::ns::{Kind, Namespace};
///
/// #[isolated]
/// fn a_daemon_has_its_own_network() -> Result<(), Box<dyn std::error::Error>> {
///     let daemon = std::process::Command::new("unshare").args(["--net", "sleep", "1000"]).spawn()?;
///     while Namespace::of(daemon.id(), Kind::Net)? == Namespace::current(Kind::Net)? {
///         std::thread::yield_now();
///     }
///     Ok(())
/// }
/// ```
pub struct Namespace {
    file: OwnedFd,
    kind: Kind,
    identity: Identity,
    /// The first process of a pid namespace that was made here, with which it ends.
    _keeper: Option<Keeper>,
}

impl Namespace {
    /// The namespace that a process is in, by its number in `/proc`. That takes the rights to trace it, see ptrace(2).
    ///
    /// # Errors
    ///
    /// If there is no such process, or this one may not look at it, or the kernel has no namespaces of this kind.
    ///
    /// ```
    /// # use belljar::ns::{Kind, Namespace};
    /// let mine = Namespace::of(std::process::id(), Kind::Net)?;
    /// assert_eq!(mine, Namespace::current(Kind::Net)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(pid: u32, kind: Kind) -> Result<Self, Error> {
        let path = format!("/proc/{pid}/ns/{}", kind.name());
        Self::open(path)
    }

    /// The namespace that this thread is in.
    ///
    /// # Errors
    ///
    /// If the kernel has no namespaces of this kind, or `/proc` is not mounted.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::ns::{Kind, Namespace};
    /// # #[isolated]
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let here = Namespace::current(Kind::Net)?;
    /// let there = Namespace::fresh(Kind::Net)?;
    /// assert_ne!(here, there);
    /// assert_eq!(there.enter(|| Namespace::current(Kind::Net))??, there);
    /// # Ok(())
    /// # }
    /// ```
    pub fn current(kind: Kind) -> Result<Self, Error> {
        Self::open(Path::new("/proc/thread-self/ns").join(kind.name()))
    }

    /// The namespace that a file stands for, such as those that `ip netns add` makes in `/run/netns`.
    ///
    /// # Errors
    ///
    /// If there is no such file, it can't be opened, or stands for something else.
    ///
    /// ```
    /// # use belljar::ns::{Kind, Namespace};
    /// assert_eq!(Namespace::open("/proc/self/ns/net")?.kind(), Kind::Net);
    /// let error = Namespace::open("/etc/passwd").unwrap_err();
    /// println!("{error}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let action = Action::Open(path.as_ref().to_path_buf());
        // Whoever opens a pipe by its name is not to wait for its other end.
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(path).map_err(|error| Error::of(action.clone(), &error))?;
        Self::from_file(file.into()).map_err(|errno| Error { action, errno })
    }

    /// A new namespace, with nothing in it. Nobody is in it, but for a pid namespace, whose first process does nothing and ends when
    /// this is dropped, and all others in it with it. In a user namespace, the user of this process is root.
    ///
    /// # Errors
    ///
    /// All but user namespaces take CAP_SYS_ADMIN, which root has in a sandbox.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::ns::{Kind, Namespace};
    /// # #[isolated]
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let there = Namespace::fresh(Kind::Uts)?;
    /// there.enter(|| nix::unistd::sethostname("other"))??;
    /// assert_eq!(nix::unistd::gethostname()?, "localhost");
    /// # Ok(())
    /// # }
    /// ```
    pub fn fresh(kind: Kind) -> Result<Self, Error> {
        let refused = |errno| Error { action: Action::Make(kind), errno };
        let keeper = Keeper::start(kind.flag(), None).map_err(refused)?;
        let directory = PathBuf::from(format!("/proc/{}", keeper.pid()));
        if kind == Kind::User {
            map_own_ids(&directory).map_err(|error| Error::of(Action::Make(kind), &error))?;
        }
        let namespace = Self::open(directory.join("ns").join(kind.name()))?;
        Ok(Self { _keeper: (kind == Kind::Pid).then_some(keeper), ..namespace })
    }

    fn from_file(file: OwnedFd) -> nix::Result<Self> {
        let flag = namespaces::kind(file.as_fd())?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.flag() == flag).ok_or(Errno::EINVAL)?;
        let stat = stat(&file, c"")?;
        Ok(Self { file, kind, identity: Identity { device: stat.st_dev, inode: stat.st_ino }, _keeper: None })
    }

    /// Its kind: NS_GET_NSTYPE in ioctl_ns(2).
    ///
    /// ```
    /// # use belljar::ns::{Kind, Namespace};
    /// let file = Namespace::open("/proc/self/ns/mnt")?;
    /// assert_eq!(file.kind(), Kind::Mount);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What tells it from others.
    ///
    /// ```
    /// # use belljar::ns::{Kind, Namespace};
    /// let mut seen = std::collections::BTreeSet::new();
    /// for pid in [std::process::id(), std::process::id()] {
    ///     seen.insert(Namespace::of(pid, Kind::Net)?.identity());
    /// }
    /// seen.insert(Namespace::current(Kind::Uts)?.identity());
    /// assert_eq!(seen.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The namespace above a pid or user namespace: NS_GET_PARENT in ioctl_ns(2).
    ///
    /// # Errors
    ///
    /// The other kinds have none, and of what lies above the caller's own, nothing is told.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::ns::{Kind, Namespace};
    /// # #[isolated]
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let below = Namespace::fresh(Kind::Pid)?;
    /// assert_eq!(below.parent()?, Namespace::current(Kind::Pid)?);
    /// assert!(Namespace::current(Kind::Net)?.parent().is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn parent(&self) -> Result<Self, Error> {
        let found = namespaces::parent(self.file.as_fd()).and_then(Self::from_file);
        found.map_err(|errno| Error { action: Action::Parent(self.kind), errno })
    }

    /// The user namespace that owns it, and in which its rights are; of a user namespace, the one above: NS_GET_USERNS in ioctl_ns(2).
    ///
    /// # Errors
    ///
    /// Of what lies above the caller's own, nothing is told.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::ns::{Kind, Namespace};
    /// # #[isolated]
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let network = Namespace::current(Kind::Net)?;
    /// assert_eq!(network.owner()?, Namespace::current(Kind::User)?);
    /// assert!(network.owner()?.owner().is_err(), "that is the host's");
    /// # Ok(())
    /// # }
    /// ```
    pub fn owner(&self) -> Result<Self, Error> {
        let found = namespaces::owner(self.file.as_fd()).and_then(Self::from_file);
        found.map_err(|errno| Error { action: Action::Owner(self.kind), errno })
    }

    /// The user who has made a user namespace, as the caller numbers users: NS_GET_OWNER_UID in ioctl_ns(2).
    ///
    /// # Errors
    ///
    /// If it is of another kind.
    ///
    /// ```
    /// # use belljar::ns::{Kind, Namespace};
    /// let mine = Namespace::fresh(Kind::User)?;
    /// assert_eq!(mine.owner_uid()?, nix::unistd::geteuid().as_raw());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn owner_uid(&self) -> Result<u32, Error> {
        let found = namespaces::owner_uid(self.file.as_fd());
        found.map_err(|errno| Error { action: Action::OwnerUid(self.kind), errno })
    }

    /// The users that a user namespace maps.
    ///
    /// # Errors
    ///
    /// If it is of another kind, or the caller may not enter it.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::ns::{Kind, Namespace};
    /// # #[isolated]
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let map = Namespace::current(Kind::User)?.uid_map()?;
    /// assert_eq!((map[0].inside, map[0].count), (0, 1), "there is root alone");
    /// # Ok(())
    /// # }
    /// ```
    pub fn uid_map(&self) -> Result<Vec<IdRange>, Error> {
        self.map("uid_map")
    }

    /// The groups that a user namespace maps.
    ///
    /// # Errors
    ///
    /// As [`uid_map`](Self::uid_map).
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::ns::{Kind, Namespace};
    /// # #[isolated]
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let map = Namespace::fresh(Kind::User)?.gid_map()?;
    /// assert_eq!((map[0].inside, map[0].outside), (0, nix::unistd::getegid().as_raw()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn gid_map(&self) -> Result<Vec<IdRange>, Error> {
        self.map("gid_map")
    }

    fn map(&self, name: &'static str) -> Result<Vec<IdRange>, Error> {
        let refused = |errno| Error { action: Action::Map(self.kind), errno };
        if self.kind != Kind::User {
            return Err(refused(Errno::EINVAL));
        }
        // The kernel shows the map of a process's namespace. Nobody can enter the one that he is in.
        let (keeper, directory);
        let directory = if *self == Self::current(Kind::User)? {
            "/proc/self"
        } else {
            keeper = Keeper::start(0, Some(self.file.as_fd())).map_err(refused)?;
            directory = format!("/proc/{}", keeper.pid());
            &directory
        };
        let text = text_of(Path::new(directory).join(name));
        let text = text.map_err(|error| Error::of(Action::Map(self.kind), &error))?;
        text.lines().map(|line| IdRange::parse(line).ok_or(refused(Errno::EPROTO))).try_collect_vec()
    }

    /// Runs `body` in it, on a thread of its own, which setns(2) moves there, and returns what `body` returns. If that panics, so does
    /// this.
    ///
    /// A thread stays in the pid namespace that it is in: it is the *processes* that `body` starts which are in another, and it can
    /// start no threads, nor enter another namespace, as long as it is to do that. In another mount namespace, the working directory
    /// is its root.
    ///
    /// # Errors
    ///
    /// It takes CAP_SYS_ADMIN, in the user namespace that owns it and in the caller's. User and time namespaces are for processes
    /// with one thread only: begin a process there, by nsenter(1), or give the test another one by `user` or `time`. In a pid
    /// namespace whose first process has ended, no other can be started: fork(2) then fails with ENOMEM.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::ns::{Kind, Namespace};
    /// # #[isolated]
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let network = Namespace::fresh(Kind::Net)?;
    /// let interfaces = network.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
    /// assert!(interfaces.contains("lo:"));
    /// let error = network.enter(|| std::net::TcpStream::connect("127.0.0.1:80"))?.unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable, "lo is down");
    /// # Ok(())
    /// # }
    /// ```
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let enter = || {
            if self.kind == Kind::Mount {
                // Root and working directory are the thread's own from now on.
                unshare(CloneFlags::CLONE_FS)?;
            }
            setns(&self.file, CloneFlags::from_bits_retain(self.kind.flag()))
        };
        let refused = |errno| Error { action: Action::Enter(self.kind), errno };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name(format!("in {self}"));
            let running = thread.spawn_scoped(scope, || enter().map(|()| body()));
            let running = running.map_err(|error| Error::of(Action::Enter(self.kind), &error))?;
            running.join().unwrap_or_else(|payload| resume_unwind(payload)).map_err(refused)
        })
    }
}

impl AsFd for Namespace {
    /// The descriptor that refers to it, for setns(2).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Namespace {}

impl Display for Namespace {
    /// As `readlink /proc/PID/ns/KIND` shows it: `net:[4026531840]`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:[{}]", self.kind.name(), self.identity.inode)
    }
}

impl Debug for Namespace {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({self})")
    }
}

impl IdRange {
    /// Reads a line of a map.
    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse().ok());
        Some(Self { inside: numbers.next()??, outside: numbers.next()??, count: numbers.next()?? })
    }
}

/// Makes the user and the group of this process root in the namespace of another.
fn map_own_ids(process: &Path) -> io::Result<()> {
    fs::write(process.join("setgroups"), "deny")?;
    fs::write(process.join("uid_map"), format!("0 {} 1\n", geteuid()))?;
    fs::write(process.join("gid_map"), format!("0 {} 1\n", getegid()))
}
