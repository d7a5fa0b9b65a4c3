//! A fork without locks that nobody opens: of the only thread that does something.

use std::time::{Duration, Instant};
use std::{fs, panic, thread};

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid, getpid, gettid};

use super::errno::errno_of;
use super::process::exit_now;
use crate::collect::map_both;

/// How long a thread that has ended may still be listed.
const LINGERS: Duration = Duration::from_secs(1);

/// Forks this process, if it has no thread but this one and the main one, which waits for this one's end. The fork runs `work`, and ends. Fails
/// with EDEADLK if there are others.
pub(crate) fn fork_one_of_two(work: impl FnOnce()) -> nix::Result<Pid> {
    let begun = Instant::now();
    let own = map_both([getpid(), gettid()], |id| id.to_string());
    loop {
        let mut tasks = fs::read_dir("/proc/self/task").map_err(|error| errno_of(&error))?.flatten();
        if tasks.all(|task| own.iter().any(|id| task.file_name() == id.as_str())) {
            break;
        }
        // To join a thread is to know that it does nothing any more, and not that it is gone.
        if begun.elapsed() > LINGERS {
            return Err(Errno::EDEADLK);
        }
        thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: the other thread is the main one, if there is one: it waits for the end of this one, and holds no lock.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let panicked = panic::catch_unwind(panic::AssertUnwindSafe(work));
            exit_now(i32::from(panicked.is_err()))
        }
    }
}
