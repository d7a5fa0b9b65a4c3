//! Inside a test: groups of processes that are limited, stopped, killed and measured together.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::ops::RangeInclusive;
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use libc::ino_t;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::channel::frame_socket;
use super::words;
use crate::cgroup::{Controller, Directory, GroupHandle, NoCgroup, NoGroup, refused, usage_of};
use crate::collect::CollectVec as _;
use crate::frame::usage::Usage;
use crate::frame::{Frame, PAYLOAD_MAX};
use crate::proc::{directory, stat, threads_of};
use crate::sys;
use crate::sys::namespaces::own_pid_namespace;

/// A part of a test's processes, in a cgroup of its own below that of the sandbox: a server that is to run out of memory, say, or
/// to hang while its clients wait. See cgroups(7).
///
/// ```test_harness
/// # use belljar::isolated;
/// #[isolated(memory = "1GiB", unsupported = "skip")]
/// fn clients_give_up() -> std::io::Result<()> {
///     let server = belljar::Group::new("server")?;
///     server.limit_memory(64 << 20)?;
///     let mut child = server.command("sleep")?.arg("1000").spawn()?;
///     server.freeze()?;
///     // ... here every request runs into its timeout ...
///     server.thaw()?;
///     server.kill()?;
///     child.wait().map(drop)
/// }
/// ```
///
/// What these methods can't do is an error of the kind [`Unsupported`](io::ErrorKind::Unsupported), which says why, and is never
/// passed over. A group needs a host on which the sandbox can have a cgroup: of version 2 in a cgroup that the user may divide,
/// or of version 1 as root. It is gone with the sandbox. Dropping this changes nothing.
///
/// With version 2, the first group moves the test's own processes to the cgroup `belljar.leaf`: the kernel divides no cgroup that holds
/// processes.
#[derive(Debug)]
pub struct Group {
    name: String,
    directories: Vec<Directory>,
    /// The pid namespace that it was made in, where the kernel tells.
    namespace: Option<ino_t>,
}

/// The weights that the kernel knows.
const WEIGHTS: RangeInclusive<u32> = 1..=10_000;

/// The ids of processes that may be in a group.
const PIDS: RangeInclusive<u32> = 2..=i32::MAX as u32;

/// The most processes that the kernel has a number for: PID_MAX_LIMIT.
const MOST_PIDS: u32 = 1 << 22;

impl Group {
    /// Makes a group of this name, with no process in it.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if a directory can't have this name. `AlreadyExists` if this sandbox has a group of this name. `Unsupported`
    /// if this is no sandbox, or the host lets it have no cgroup.
    ///
    /// ```test_harness
    /// # use belljar::{Group, isolated};
    /// # #[isolated(memory = "1GiB", unsupported = "skip")]
    /// # fn example() -> std::io::Result<()> {
    /// let server = Group::new("server")?;
    /// assert!(server.pids()?.is_empty());
    /// assert!(Group::new("server").is_err(), "there is one");
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(name: &str) -> io::Result<Self> {
        if !GroupHandle::is_name(name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words::bad_name(name)));
        }
        let outside = || io::Error::new(io::ErrorKind::Unsupported, words::no_group(name));
        let socket = frame_socket().ok_or_else(outside)?;
        let answer = sys::send_in_time(|| {
            let mut buffer = [0; PAYLOAD_MAX];
            let Some(received) = socket.ask(&Frame::AskGroup(name.as_bytes()), &mut buffer)? else { return Ok(None) };
            match buffer.get(..received.length).and_then(|message| GroupHandle::decode(message, received.fds)) {
                Some(Err(NoGroup { errno: Some(Errno::ETOOMANYREFS), .. })) => Err(Errno::ETOOMANYREFS),
                answer => answer.map(Some).ok_or(Errno::EPROTO),
            }
        });
        match answer?.ok_or_else(outside)? {
            Ok(directories) => Ok(Self { name: name.to_owned(), directories, namespace: own_pid_namespace()? }),
            Err(NoGroup { errno, text }) => Err(io::Error::new(kind_of(errno), text)),
        }
    }

    /// Limits the memory of the group, in bytes. If it needs more, the kernel kills all of its processes; with version 1, one of them.
    ///
    /// # Errors
    ///
    /// `ResourceBusy`, with version 1, if more is in use. With version 2, who uses more is killed.
    ///
    /// ```test_harness
    /// # use belljar::{Group, isolated};
    /// # #[isolated(memory = "1GiB", unsupported = "skip")]
    /// # fn example() -> std::io::Result<()> {
    /// let greedy = Group::new("greedy")?;
    /// greedy.limit_memory(16 << 20)?;
    /// // It keeps what it reads until a line ends.
    /// let status = greedy.command("sed")?.args(["", "/dev/zero"]).status()?;
    /// assert!(!status.success());
    /// # Ok(())
    /// # }
    /// ```
    pub fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        self.with(Controller::Memory, |directory| directory.limit_memory(bytes).and_then(|()| directory.die_as_one()))
    }

    /// Lets the group have so many processes and threads. fork(2) then fails with EAGAIN.
    ///
    /// ```test_harness
    /// # use belljar::{Group, isolated};
    /// # #[isolated(memory = "1GiB", unsupported = "skip")]
    /// # fn example() -> std::io::Result<()> {
    /// let forks = Group::new("forks")?;
    /// forks.limit_pids(1)?;
    /// let status = forks.command("sh")?.args(["-c", "true & wait"]).status()?;
    /// assert!(!status.success());
    /// # Ok(())
    /// # }
    /// ```
    pub fn limit_pids(&self, most: u32) -> io::Result<()> {
        if most > MOST_PIDS {
            return Err(self.bad_value(most, "a number of processes up to 4194304"));
        }
        self.with(Controller::Pids, |directory| directory.limit_pids(most))
    }

    /// Lets the group have this much CPU time, in cores, from 0.01 to 1000.
    ///
    /// ```test_harness
    /// # use belljar::{Group, isolated};
    /// # #[isolated(memory = "1GiB", unsupported = "skip")]
    /// # fn example() -> std::io::Result<()> {
    /// let slow = Group::new("slow")?;
    /// slow.limit_cpu(0.5)?;
    /// slow.command("sh")?.args(["-c", "exit"]).status()?;
    /// assert!(slow.limit_cpu(0.0).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn limit_cpu(&self, cores: f64) -> io::Result<()> {
        if !(0.01..=1000.0).contains(&cores) {
            return Err(self.bad_value(cores, "a number of cores from 0.01 to 1000"));
        }
        self.with(Controller::Cpu, |directory| directory.limit_cpu((cores * 1000.0).round() as u32))
    }

    /// The share of CPU time that the group gets beside other groups where there is too little: 100 by default, from 1 to 10,000.
    ///
    /// ```test_harness
    /// # use belljar::{Group, isolated};
    /// # #[isolated(memory = "1GiB", unsupported = "skip")]
    /// # fn example() -> std::io::Result<()> {
    /// let [server, noise] = [Group::new("server")?, Group::new("noise")?];
    /// server.weigh_cpu(10_000)?;
    /// noise.weigh_cpu(1)?;
    /// assert!(noise.weigh_cpu(0).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn weigh_cpu(&self, weight: u32) -> io::Result<()> {
        if !WEIGHTS.contains(&weight) {
            return Err(self.bad_value(weight, "a weight from 1 to 10000"));
        }
        self.with(Controller::Cpu, |directory| directory.weigh_cpu(weight))
    }

    /// A command that will run in the group, with all that it starts. While the group is frozen, the command waits, and so does the
    /// thread that spawns it. With version 1, a new process is not frozen, and nobody waits.
    ///
    /// ```test_harness
    /// # use belljar::{Group, isolated};
    /// # #[isolated(memory = "1GiB", unsupported = "skip")]
    /// # fn example() -> std::io::Result<()> {
    /// let server = Group::new("server")?;
    /// let child = server.command("sleep")?.arg("1000").spawn()?;
    /// assert_eq!(server.pids()?, [child.id()]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn command(&self, program: impl AsRef<OsStr>) -> io::Result<Command> {
        let procs = self.directories.iter().map(Directory::open_procs).try_collect_vec();
        let mut command = Command::new(program);
        sys::join_before_exec(&mut command, procs.map_err(|trouble| self.refused(&trouble))?);
        Ok(command)
    }

    /// Moves a process into the group. What it has started already stays where it is.
    ///
    /// ```test_harness
    /// # use belljar::{Group, isolated};
    /// # #[isolated(memory = "1GiB", unsupported = "skip")]
    /// # fn example() -> std::io::Result<()> {
    /// let child = std::process::Command::new("sleep").arg("1000").spawn()?;
    /// let server = Group::new("server")?;
    /// server.add(child.id())?;
    /// assert_eq!(server.pids()?, [child.id()]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn add(&self, pid: u32) -> io::Result<()> {
        // 0 would stand for the caller; and without init nobody tells how the test ends.
        if !PIDS.contains(&pid) {
            return Err(self.bad_value(pid, "the id of a process other than the sandbox's init, which is 1"));
        }
        let add = |directory: &Directory| directory.add(pid);
        self.directories.iter().try_for_each(add).map_err(|trouble| self.refused(&trouble))
    }

    /// The ids of the processes in the group.
    ///
    /// # Errors
    ///
    /// `Unsupported` in another pid namespace than that in which the group was made. Before Linux 6.11 that is not noticed with
    /// version 1.
    ///
    /// ```test_harness
    /// # use belljar::{Group, isolated};
    /// # #[isolated(memory = "1GiB", unsupported = "skip")]
    /// # fn example() -> std::io::Result<()> {
    /// let server = Group::new("server")?;
    /// let [first, second] = [server.command("sleep")?.arg("1000").spawn()?, server.command("sleep")?.arg("1000").spawn()?];
    /// assert!(server.pids()?.contains(&first.id()) && server.pids()?.contains(&second.id()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        // They are the same in each hierarchy.
        let Some(directory) = self.directories.first() else { return Ok(Vec::new()) };
        let mut pids = directory.processes().map_err(|trouble| self.refused(&trouble))?;
        // Processes of elsewhere are 0, or missing in version 1. So is one that has ended, for a moment, since Linux 6.19. For
        // kill(2), 0 would be the caller's process group.
        let is_elsewhere = match self.namespace {
            Some(namespace) => own_pid_namespace()? != Some(namespace),
            None => pids.contains(&0),
        };
        if is_elsewhere {
            return Err(io::Error::new(io::ErrorKind::Unsupported, words::is_elsewhere(&self.name)));
        }
        pids.retain(|pid| *pid != 0);
        Ok(pids)
    }

    /// Stops all processes of the group, and returns when they have. They can't tell, but for the time that is gone.
    ///
    /// With version 1 they are stopped by SIGSTOP, which their parent can see, see waitpid(2): what is frozen there by the kernel
    /// can't be killed any more. A process that is in the midst of an uninterruptible system call stops when that is over.
    ///
    /// # Errors
    ///
    /// `Deadlock` if this very process is in the group. `Unsupported`, with version 1, if there is no `/proc` to see whether they
    /// have stopped.
    ///
    /// ```test_harness
    /// # use belljar::{Group, isolated};
    /// # #[isolated(memory = "1GiB", unsupported = "skip")]
    /// # fn example() -> std::io::Result<()> {
    /// let server = Group::new("server")?;
    /// let mut echo = server.command("cat")?.stdin(std::process::Stdio::piped()).spawn()?;
    /// server.freeze()?;
    /// drop(echo.stdin.take());
    /// std::thread::sleep(std::time::Duration::from_millis(100));
    /// assert!(echo.try_wait()?.is_none(), "it can't notice");
    /// # Ok(())
    /// # }
    /// ```
    pub fn freeze(&self) -> io::Result<()> {
        if self.pids()?.contains(&process::id()) {
            return Err(io::Error::new(io::ErrorKind::Deadlock, words::has_caller(&self.name)));
        }
        match self.unified() {
            Some(directory) => directory.freeze(true).map_err(|trouble| self.refused(&trouble)),
            None if is_stopped(process::id()).is_none() => {
                Err(io::Error::new(io::ErrorKind::Unsupported, words::freezing_needs_proc(&self.name)))
            }
            // One that has ended has no state.
            None => self.signal_until(Signal::SIGSTOP, |pid| is_stopped(pid) == Some(false)),
        }
    }

    /// Has the processes of a frozen group go on.
    ///
    /// ```test_harness
    /// # use belljar::{Group, isolated};
    /// # #[isolated(memory = "1GiB", unsupported = "skip")]
    /// # fn example() -> std::io::Result<()> {
    /// let server = Group::new("server")?;
    /// let mut echo = server.command("cat")?.stdin(std::process::Stdio::piped()).spawn()?;
    /// server.freeze()?;
    /// drop(echo.stdin.take());
    /// server.thaw()?;
    /// assert!(echo.wait()?.success());
    /// # Ok(())
    /// # }
    /// ```
    pub fn thaw(&self) -> io::Result<()> {
        match self.unified() {
            Some(directory) => directory.freeze(false).map_err(|trouble| self.refused(&trouble)),
            None => self.signal(&self.pids()?, Signal::SIGCONT),
        }
    }

    /// Kills all processes of the group, frozen or not, by SIGKILL, and returns when they have ended. The group is then empty,
    /// and not frozen.
    ///
    /// ```test_harness
    /// # use belljar::{Group, isolated};
    /// # #[isolated(memory = "1GiB", unsupported = "skip")]
    /// # fn example() -> std::io::Result<()> {
    /// let server = Group::new("server")?;
    /// let mut child = server.command("sleep")?.arg("1000").spawn()?;
    /// server.kill()?;
    /// assert!(!child.wait()?.success() && server.pids()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn kill(&self) -> io::Result<()> {
        // From elsewhere it is refused, and nothing is killed.
        self.pids()?;
        if let Some(directory) = self.unified() {
            // All at once, since Linux 5.14; otherwise one by one. What follows also waits for their ends.
            directory.kill();
        }
        self.signal_until(Signal::SIGKILL, |_| true)?;
        self.unified().map_or(Ok(()), |_| self.thaw())
    }

    /// What the group uses and has used.
    ///
    /// ```test_harness
    /// # use belljar::{Group, isolated};
    /// # #[isolated(memory = "1GiB", unsupported = "skip")]
    /// # fn example() -> std::io::Result<()> {
    /// let server = Group::new("server")?;
    /// server.limit_memory(64 << 20)?;
    /// server.command("sleep")?.arg("1000").spawn()?;
    /// assert!(server.usage().memory > Some(0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn usage(&self) -> Usage {
        usage_of(&self.directories)
    }

    fn bad_value(&self, value: impl Display, expected: &str) -> io::Error {
        let text = words::bad_value(&self.name, &value.to_string(), expected);
        io::Error::new(io::ErrorKind::InvalidInput, text)
    }

    fn unified(&self) -> Option<&Directory> {
        self.directories.iter().find(|directory| directory.is_v2())
    }

    /// Sends a signal to all processes that `need` it, and to those that they fork meanwhile, until there is none.
    fn signal_until(&self, signal: Signal, need: impl Fn(u32) -> bool) -> io::Result<()> {
        loop {
            let pids = self.pids()?.into_iter().filter(|pid| need(*pid)).collect_vec();
            if pids.is_empty() {
                return Ok(());
            }
            self.signal(&pids, signal)?;
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn signal(&self, pids: &[u32], signal: Signal) -> io::Result<()> {
        for pid in pids {
            match kill(Pid::from_raw(*pid as i32), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Does this where the controller is.
    fn with(&self, controller: Controller, act: impl Fn(&Directory) -> Result<(), NoCgroup>) -> io::Result<()> {
        let directory = self.directories.iter().find(|directory| directory.has(controller));
        let done = directory.ok_or(NoCgroup::Missing(controller)).and_then(act);
        done.map_err(|trouble| self.refused(&trouble))
    }

    fn refused(&self, trouble: &NoCgroup) -> io::Error {
        io::Error::new(kind_of(trouble.errno()), refused(&self.name, trouble, None))
    }
}

/// Whether no thread of a process can run before it gets a signal: those that are stopped, and those in an uninterruptible
/// system call, which will see first that they are to stop. `None` if it has ended, or can't be seen.
fn is_stopped(pid: u32) -> Option<bool> {
    stat(&directory(pid))?.state()?;
    for thread in threads_of(pid) {
        let state = stat(&thread).and_then(|stat| stat.state());
        if state.is_some_and(|state| !matches!(state, 'T' | 't' | 'D' | 'Z' | 'X')) {
            return Some(false);
        }
    }
    Some(true)
}

/// The kind of an error: that there is no such thing here, or what the kernel said.
fn kind_of(errno: Option<Errno>) -> io::ErrorKind {
    match errno {
        Some(Errno::EROFS | Errno::EACCES | Errno::EPERM | Errno::ENOENT) | None => io::ErrorKind::Unsupported,
        Some(errno) => io::Error::from(errno).kind(),
    }
}
