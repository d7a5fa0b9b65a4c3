//! Init while the test runs: it reaps whatever ends, tells how the test's process ended, and is the last to go.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::fcntl::{OFlag, openat};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::unistd::{Pid, read};

use super::channel::{FrameSocket, give_up};
use crate::frame::{Buffer, Frame, REPORTED, RefusalRef, Step};
use crate::proc::{Stat, WIRE};
use crate::settings::settings;
use crate::sys::{self, End, Waited};

/// The kernel's mark of a process that was forked and has run no other program since: PF_FORKNOEXEC.
const FORKED_WITHOUT_EXEC: u64 = 0x40;

/// How often it is looked whether the wires of laboratories have ended by themselves, and how long it is until the next time.
const LOOKS: u32 = 10_000;
const PULSE: Duration = Duration::from_micros(200);

/// Waits for `test`, reports how it ended, and ends. Where memory is limited, `finds_largest`, it also tells who had most.
pub(super) fn run(socket: &FrameSocket, procfs: &OwnedFd, test: Pid, finds_largest: bool) -> ! {
    let mut largest = Largest::default();
    // What has ended is looked at before it is reaped: a zombie still tells who it was.
    let ended = loop {
        match sys::wait_any(libc::WNOWAIT) {
            Ok(Some(waited)) if waited.pid == test => break waited,
            Ok(Some(waited)) => {
                tell_of_wire(socket, procfs, &waited);
                largest.reap(&waited, test, procfs, finds_largest);
            }
            // Not without WNOHANG.
            Ok(None) => {}
            // The test is a child that only this process waits for: it can't be gone.
            Err(errno) => give_up(socket.0.as_fd(), RefusalRef::of_call(Step::Wait, c"", errno)),
        }
    };
    let end = ended.end;
    let execed = end != End::Exited(REPORTED) && has_execed(procfs, test);
    largest.reap(&ended, test, procfs, finds_largest);
    // With the test gone, whatever is alive in here is a child of init.
    let mut looks = 0;
    let survivors = loop {
        match sys::wait_any(libc::WNOWAIT | libc::WNOHANG) {
            Ok(Some(waited)) => {
                tell_of_wire(socket, procfs, &waited);
                largest.reap(&waited, test, procfs, finds_largest);
            }
            Ok(None) => {
                let signal = if looks < LOOKS { Signal::SIGCONT } else { Signal::SIGKILL };
                if !signal_wires(procfs, signal) {
                    break true;
                }
                looks += 1;
                thread::sleep(PULSE);
            }
            Err(_) => break false,
        }
    };
    // Where failures are to be looked at, so may be what is left of them: mounts, files, interfaces.
    let stays = survivors || settings().on_fail.is_some();
    if finds_largest && !stays {
        let _ = socket.send(&largest.frame());
    }
    let _ = socket.send(&Frame::Ended { end, execed, stays, cpu: cpu_time() });
    if stays {
        // The test binary looks at it, and then kills this process, or closes its end of the socket for writing.
        let _ = recv(socket.0.as_raw_fd(), &mut [0], MsgFlags::empty());
        // All but this process.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        while let Ok(Some(waited)) = sys::wait_any(libc::WNOWAIT) {
            largest.reap(&waited, test, procfs, finds_largest);
        }
        // Nobody makes room in the socket any more, so that this may be lost.
        let mut buffer = Buffer::new();
        let _ = send(socket.0.as_raw_fd(), largest.frame().encode(&mut buffer), MsgFlags::MSG_DONTWAIT);
    }
    sys::exit_now(0)
}

/// Tells of a wire that somebody has killed. When its laboratory is over, or the test's process, it ends by itself.
fn tell_of_wire(socket: &FrameSocket, procfs: &OwnedFd, waited: &Waited) {
    if waited.end == End::Exited(0) {
        return;
    }
    let mut text = [0; STAT_MAX];
    if stat(procfs, waited.pid, &mut text).is_some_and(|stat| *stat.name == *WIRE.to_bytes()) {
        let _ = socket.send(&Frame::WireKilled);
    }
}

/// Resumes the wires of laboratories, or ends them. They are no processes of the test's, and end by themselves soon after it, if nobody has stopped
/// them. Returns whether there was one.
fn signal_wires(procfs: &OwnedFd, signal: Signal) -> bool {
    let Ok(directory) = openat(procfs, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
    else {
        return false;
    };
    let mut found = false;
    let _ = sys::entries(&directory, |name| {
        let number = name.to_str().ok().and_then(|name| name.parse().ok());
        if let Some(process) = number.map(Pid::from_raw) {
            let mut text = [0; STAT_MAX];
            let is_wire = stat(procfs, process, &mut text).is_some_and(|stat| *stat.name == *WIRE.to_bytes());
            // What only bears the name may be no child of this process, and then it is not waited for.
            if is_wire && kill(process, signal).is_ok() {
                found |= signal != Signal::SIGKILL || sys::wait_pid(process).is_ok();
            }
        }
        Ok(())
    });
    found
}

/// Who had most memory at a time, among all that were reaped.
#[derive(Default)]
struct Largest {
    peak: u64,
    name: [u8; 16],
    /// How long the name is; 0 for the test's process.
    length: usize,
    /// Whether the figure may be that of a process which that one had waited for.
    had_children: bool,
}

impl Largest {
    /// Reaps a process, and remembers it if it was the largest until now. The `test` comes first among equals: a program begins
    /// with the peak of the process that has started it.
    fn reap(&mut self, waited: &Waited, test: Pid, procfs: &OwnedFd, finds_largest: bool) {
        let is_test = waited.pid == test;
        if finds_largest && (waited.peak > self.peak || is_test && waited.peak == self.peak) {
            let mut text = [0; STAT_MAX];
            let stat = stat(procfs, waited.pid, &mut text);
            let name = stat.as_ref().filter(|_| !is_test).map_or(&[][..], |stat| &*stat.name);
            self.length = name.len().min(self.name.len());
            self.name[..self.length].copy_from_slice(&name[..self.length]);
            // Who has waited for a child has its page faults.
            self.had_children = stat.and_then(|stat| stat.faults_of_children()).is_some_and(|faults| faults > 0);
            self.peak = waited.peak;
        }
        // This one and no other: by now the test may have ended too.
        let _ = sys::wait_pid(waited.pid);
    }

    fn frame(&self) -> Frame<'_> {
        let Self { peak, name, length, had_children } = self;
        Frame::Largest { bytes: *peak, had_children: *had_children, name: &name[..*length] }
    }
}

/// The CPU time of this process and of all that it has reaped, and those that they have, in microseconds.
fn cpu_time() -> u64 {
    let of = |who| {
        let usage = getrusage(who).ok()?;
        let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or_default();
        Some(micros(usage.user_time()) + micros(usage.system_time()))
    };
    let parts = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN];
    parts.into_iter().filter_map(of).sum()
}

/// The most that is read of a process's file `stat`.
const STAT_MAX: usize = 512;

fn stat<'t>(procfs: &OwnedFd, process: Pid, text: &'t mut [u8; STAT_MAX]) -> Option<Stat<'t>> {
    let mut path = *b"0000000000/stat\0";
    let mut number = process.as_raw();
    for digit in path[..10].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let start = path.iter().position(|byte| *byte != b'0').unwrap_or_default();
    let path = &path[start..path.len() - 1];
    let file = openat(procfs, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let length = read(file, text).ok()?;
    Stat::parse(text.get(..length)?)
}

fn has_execed(procfs: &OwnedFd, process: Pid) -> bool {
    let mut text = [0; STAT_MAX];
    let flags = stat(procfs, process, &mut text).and_then(|stat| stat.flags());
    flags.is_some_and(|flags| flags & FORKED_WITHOUT_EXEC == 0)
}
