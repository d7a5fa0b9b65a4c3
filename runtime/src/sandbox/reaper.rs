//! Init while the test runs: it reaps whatever ends, tells how the test's process ended, and is the last to go.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::unistd::{Pid, read};

use super::Report;
use crate::report::{End, Frame, REPORTED};
use crate::sys;

/// The kernel's mark of a process that was forked and has run no other program since: PF_FORKNOEXEC, in the ninth field
/// of proc_pid_stat(5).
const FORKED_WITHOUT_EXEC: u64 = 0x40;

/// Waits for `test`, reports how it ended, and ends.
pub(super) fn run(report: &Report, procfs: &OwnedFd, test: Pid) -> ! {
    let end = loop {
        // What has ended is looked at before it is reaped: a zombie still tells whether it ran another program.
        match sys::wait_any(libc::WNOWAIT) {
            Ok(Some(waited)) if waited.pid == test => break waited.end,
            // This one and no other: by now the test may have ended too.
            Ok(Some(waited)) => drop(sys::wait_pid(waited.pid)),
            // The test is a child that only this process waits for: it can't be gone.
            Ok(None) | Err(_) => sys::exit_now(1),
        }
    };
    let execed = end != End::Exited(REPORTED) && has_execed(procfs, test);
    // With the test gone, whatever is alive in here is a child of init.
    let survivors = loop {
        match sys::wait_any(libc::WNOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    let _ = report.send(&Frame::Ended { end, execed, survivors, cpu: cpu_time() });
    if survivors {
        // The test binary looks at them, and then closes its end.
        let _ = recv(report.0.as_raw_fd(), &mut [0], MsgFlags::empty());
    }
    sys::exit_now(0)
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

fn has_execed(procfs: &OwnedFd, process: Pid) -> bool {
    let mut path = *b"0000000000/stat\0";
    let mut number = process.as_raw();
    for digit in path[..10].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let start = path.iter().position(|byte| *byte != b'0').unwrap_or_default();
    let mut text = [0; 512];
    let read = openat(procfs, &path[start..path.len() - 1], OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .and_then(|file| read(file, &mut text));
    // The name, in parentheses, may hold anything; the flags are the seventh field behind it.
    let fields = read.ok().and_then(|length| text[..length].rsplit(|byte| *byte == b')').next());
    let flags = fields.and_then(|fields| std::str::from_utf8(fields).ok()?.split_ascii_whitespace().nth(6));
    flags.and_then(|flags| flags.parse::<u64>().ok()).is_some_and(|flags| flags & FORKED_WITHOUT_EXEC == 0)
}
