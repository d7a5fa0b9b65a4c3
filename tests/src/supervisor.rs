//! Decides of each system call of a test binary, and of what it forks, whether it fails.
//!
//! The binary runs under a seccomp filter that asks a supervisor, in the process that has started it, about its calls; see
//! seccomp_unotify(2). The supervisor knows which process makes them. As each of the processes has one thread then, or tells that apart, the
//! order of the calls is the same each time.

use std::collections::BTreeMap;
use std::ffi::c_long;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{self, Command};
use std::time::{Duration, Instant};
use std::{mem, thread};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2, read};

use crate::{Run, mark, marked};

/// Which process makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The first thread of the test binary.
    Binary,
    /// Another one, such as that of a test.
    Thread,
    /// Its zygote.
    Zygote,
    /// A template of the zygote's.
    Template,
    /// Maps the ids of a template.
    Mapper,
    /// The first process of a sandbox.
    Init,
    /// The one that runs the body.
    Test,
}

/// Which calls the supervisor is asked about, by their numbers. The others are made.
#[derive(Clone, Copy, Debug)]
pub enum Calls<'n> {
    /// About these.
    These(&'n [c_long]),
    /// About all but these.
    AllBut(&'n [c_long]),
}

/// A call that a process is about to make.
#[derive(Debug)]
pub struct Asked {
    /// Who makes it: of a process, the first thread, but of the test binary any.
    pub role: Option<Role>,
    /// Which it is.
    pub number: c_long,
    /// Its arguments.
    pub arguments: [u64; 6],
    thread: u32,
}

impl Asked {
    /// The text at the address that is one of the arguments.
    pub fn text(&self, argument: usize) -> Option<String> {
        let address = self.arguments[argument];
        let memory = File::open(format!("/proc/{}/mem", self.thread)).ok()?;
        let mut text = [0; 4096];
        // Up to the end of the page, which may be the last.
        let length = memory.read_at(&mut text[..4096 - address as usize % 4096], address).ok()?;
        let mut all = text[..length].to_vec();
        if !all.contains(&0) {
            let length = memory.read_at(&mut text, address + length as u64).ok()?;
            all.extend_from_slice(&text[..length]);
        }
        let end = all.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&all[..end]).into_owned())
    }

    /// Reads one byte in place of a read(2) that asks for more. `None` if there is nothing to read, or not at this moment.
    fn read_one(&self) -> Option<i64> {
        let [fd, address, ..] = self.arguments;
        let file = descriptor_of(self.thread, fd as i32).ok()?;
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::ZERO).ok()?;
        let mut byte = [0];
        let length = if ready > 0 { read(&file, &mut byte).ok()? } else { return None };
        let memory = File::options().write(true).open(format!("/proc/{}/mem", self.thread)).ok()?;
        memory.write_all_at(&byte[..length], address).ok()?;
        Some(length as i64)
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is made.
    Made,
    /// It fails with this error, and is not made.
    Fails(Errno),
    /// It is a read(2), and gets one byte.
    Short,
}

/// How long a binary may take. Otherwise it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `command`, which starts this very binary for the test `name`, and asks `decide` about its calls. `Err` if it hangs.
pub fn run_supervised(
    mut command: Command,
    name: &str,
    calls: Calls<'_>,
    mut decide: impl FnMut(&Asked) -> Answer,
) -> Result<Run, String> {
    let mark = mark(&mut command);
    // A file, and no pipe: what a run leaves may hold it open.
    let mut file = tempfile::tempfile().expect("a temporary file");
    command.stdout(file.try_clone().expect("dup")).stderr(file.try_clone().expect("dup"));
    let entry = Entry::of(&mut command, calls);
    let (over, at_end) = pipe2(OFlag::O_CLOEXEC).expect("pipe");
    let ended = thread::scope(|scope| {
        // To start the binary takes answers, so that another thread does it.
        let waiter = scope.spawn(move || {
            let child = command.spawn();
            // The copy of the entry is closed. Without a child, its supervisor learns of that.
            drop(command);
            let status = child.expect("the binary begins").wait().expect("wait");
            drop(at_end);
            status
        });
        let mut family = Family { name, roles: BTreeMap::new() };
        let deadline = Instant::now() + PATIENCE;
        let listener = entry.listener(deadline);
        let is_over = supervise(&listener, Some(&over), deadline, &mut family, &mut decide);
        if !is_over {
            family.kill();
            drop(listener);
            drop(waiter.join());
            return None;
        }
        let status = waiter.join().expect("join");
        let mut left = marked(&mark);
        // Without the binary, nobody waits for the others to end.
        while status.signal().is_some() && !left.is_empty() && Instant::now() < deadline {
            supervise(&listener, None, Instant::now() + Duration::from_millis(5), &mut family, &mut decide);
            left = marked(&mark);
        }
        Some((status, left))
    });
    let mut output = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut output)).expect("read");
    let output = String::from_utf8_lossy(&output).into_owned();
    match ended {
        Some((status, left)) => Ok(Run { status, output, left }),
        None => Err(output),
    }
}

/// Answers until there is an end of `over`, or nobody is left who could ask. Returns whether that comes before the deadline.
fn supervise(
    listener: &OwnedFd,
    over: Option<&OwnedFd>,
    deadline: Instant,
    family: &mut Family<'_>,
    decide: &mut impl FnMut(&Asked) -> Answer,
) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds: Vec<_> =
            [listener].into_iter().chain(over).map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(left).expect("a timeout");
        if left.is_zero() || poll(&mut fds, timeout).expect("poll") == 0 {
            return false;
        }
        if !fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)) {
            return true;
        }
        let Ok(notification) = receive(listener) else { continue };
        let libc::seccomp_notif { id, pid, data, .. } = notification;
        let asked = Asked { role: family.role(pid), number: c_long::from(data.nr), arguments: data.args, thread: pid };
        answer(listener, id, &asked, decide(&asked));
    }
}

/// Where a binary comes under the supervisor: in its own process, just before its exec. The supervisor shares nothing with whoever waits
/// for an answer. A thread of the supervisor's process might wait with a lock that the supervisor needs, such as the allocator's.
struct Entry {
    /// Says which process it is, and which descriptor the listener will be.
    told: File,
    /// The process goes on when it has read this.
    go: File,
}

impl Entry {
    /// Has `command` ask about these calls.
    #[expect(unsafe_code, reason = "it is done between fork and exec")]
    fn of(command: &mut Command, calls: Calls<'_>) -> Self {
        let pipe = || pipe2(OFlag::O_CLOEXEC).map(|(read, write)| (File::from(read), File::from(write))).expect("pipe");
        let ((told, mut teller), (mut begin, go)) = (pipe(), pipe());
        let mut program = program(calls);
        let enter = move || {
            set_no_new_privs()?;
            // It is the lowest that is free. From the filter on, nothing can be told without an answer.
            let listener = begin.try_clone()?.as_raw_fd();
            teller.write_all(&process::id().to_ne_bytes())?;
            teller.write_all(&listener.to_ne_bytes())?;
            listen(&mut program)?;
            begin.read_exact(&mut [0])
        };
        // SAFETY: the closure makes system calls, and takes no lock.
        unsafe { command.pre_exec(enter) };
        Self { told, go }
    }

    /// The listener that hears of the calls, once it is there.
    fn listener(mut self, deadline: Instant) -> OwnedFd {
        let (mut process, mut fd) = ([0; 4], [0; 4]);
        let told = self.told.read_exact(&mut process).and_then(|()| self.told.read_exact(&mut fd));
        told.expect("the binary tells of its listener");
        let (process, fd) = (u32::from_ne_bytes(process), i32::from_ne_bytes(fd));
        let listener = loop {
            match descriptor_of(process, fd) {
                Err(Errno::EBADF) => thread::sleep(Duration::from_millis(1)),
                listener => break listener.expect("a listener"),
            }
            assert!(Instant::now() < deadline, "no listener");
        };
        self.go.write_all(&[0]).expect("the binary waits");
        listener
    }
}

/// Asks about these calls.
fn program(calls: Calls<'_>) -> Vec<libc::sock_filter> {
    let instruction = |code: u32, jt: usize, k: u32| libc::sock_filter { code: code as u16, jt: jt as u8, jf: 0, k };
    let (numbers, these, others) = match calls {
        Calls::These(numbers) => (numbers, libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW),
        Calls::AllBut(numbers) => (numbers, libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_USER_NOTIF),
    };
    let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    let jump = |(at, number): (usize, &c_long)| {
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, numbers.len() - at, *number as u32)
    };
    program.extend(numbers.iter().enumerate().map(jump));
    program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, others));
    program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, these));
    program
}

/// Puts this thread under the filter. Its listener is the lowest descriptor that is free.
#[expect(unsafe_code, reason = "seccomp(2) has no wrapper")]
fn listen(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the program and its instructions outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) })?;
    Ok(())
}

#[expect(unsafe_code, reason = "seccomp_unotify(2) has no wrapper")]
fn receive(listener: &OwnedFd) -> nix::Result<libc::seccomp_notif> {
    // SAFETY: it is integers, for which zero is a value, and what the kernel asks for.
    let mut notification: libc::seccomp_notif = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes the notification, which outlives the call.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notification) })?;
    Ok(notification)
}

#[expect(unsafe_code, reason = "seccomp_unotify(2) has no wrapper")]
fn answer(listener: &OwnedFd, id: u64, asked: &Asked, answer: Answer) {
    let made = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    let (val, error, flags) = match answer {
        Answer::Made => (0, 0, made),
        Answer::Fails(errno) => (0, -(errno as i32), 0),
        Answer::Short => asked.read_one().map_or((0, 0, made), |length| (length, 0, 0)),
    };
    let mut response = libc::seccomp_notif_resp { id, val, error, flags };
    // Who has asked may be dead.
    // SAFETY: the kernel reads the response, which outlives the call.
    let _ = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
}

/// A descriptor of another process. See pidfd_getfd(2).
#[expect(unsafe_code, reason = "pidfd_getfd(2) has no wrapper")]
fn descriptor_of(process: u32, fd: i32) -> nix::Result<OwnedFd> {
    // SAFETY: the calls take integers, and the kernel has just made the descriptors.
    unsafe {
        let pidfd = Errno::result(libc::syscall(libc::SYS_pidfd_open, process, 0))?;
        let pidfd = OwnedFd::from_raw_fd(pidfd as i32);
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Knows who is who among the processes of a binary.
struct Family<'n> {
    name: &'n str,
    roles: BTreeMap<u32, Role>,
}

impl Family<'_> {
    /// The role of a thread, if it has one.
    fn role(&mut self, thread: u32) -> Option<Role> {
        if let Some(role) = self.roles.get(&thread) {
            return Some(*role);
        }
        let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
        let number = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok());
        let process = number("Tgid:")?;
        if process != thread {
            let is_of_binary = self.roles.get(&process) == Some(&Role::Binary);
            return is_of_binary.then(|| *self.roles.entry(thread).or_insert(Role::Thread));
        }
        let parent = number("PPid:")?;
        let role = match self.roles.get(&parent) {
            None if parent == process::id() => {
                // Until it has its arguments, it is about to become the binary.
                let arguments = fs::read(format!("/proc/{thread}/cmdline")).ok()?;
                let is_name = |argument: &[u8]| argument == self.name.as_bytes();
                arguments.split(|byte| *byte == 0).any(is_name).then_some(Role::Binary)?
            }
            None => return None,
            Some(Role::Binary) => Role::Zygote,
            // It stays in the user namespace of the zygote, if there is another.
            Some(Role::Zygote) if user_namespace(thread) == user_namespace(parent) && self.has(Role::Template) => {
                Role::Mapper
            }
            Some(Role::Zygote) => Role::Template,
            Some(Role::Template) => Role::Init,
            Some(Role::Init) => Role::Test,
            Some(Role::Thread | Role::Mapper | Role::Test) => return None,
        };
        self.roles.insert(thread, role);
        Some(role)
    }

    fn has(&self, wanted: Role) -> bool {
        self.roles.values().any(|role| *role == wanted)
    }

    /// Kills the binary.
    fn kill(&self) {
        for (pid, _) in self.roles.iter().filter(|(_, role)| **role == Role::Binary) {
            let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
        }
    }
}

fn user_namespace(process: u32) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/user")).ok()
}
