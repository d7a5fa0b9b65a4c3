//! Threads on hosts that nobody need wait for, and what becomes of them when the body is over.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use nix::unistd::gettid;

use super::node::Node;
use super::place::why;
use crate::proc::{self, Stat};

/// How long a thread that runs may go on when the body is over. A panic takes a while whose backtrace is looked up.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it is until it is looked at again.
const PULSE: Duration = Duration::from_millis(1);

/// A thread that was spawned on a host.
struct Spawned {
    host: String,
    /// Its number, when it has begun.
    id: AtomicI32,
    is_over: AtomicBool,
}

/// All threads that were spawned, and the first panic among them, in words.
struct All {
    threads: Vec<Arc<Spawned>>,
    panic: Option<String>,
}

fn all() -> MutexGuard<'static, All> {
    static ALL: Mutex<All> = Mutex::new(All { threads: Vec::new(), panic: None });
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `body` on a new thread on a host, named after it. If it panics, so will the test.
pub(super) fn spawn<T: Send + 'static>(
    node: &Arc<Node>,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    node.place()?;
    let spawned = Arc::new(Spawned { host: node.name.clone(), id: AtomicI32::new(0), is_over: AtomicBool::new(false) });
    let (host, own) = (node.clone(), spawned.clone());
    let run = move || {
        own.id.store(gettid().as_raw(), Ordering::Relaxed);
        let result = catch_unwind(AssertUnwindSafe(|| {
            if let Err(error) = host.place().and_then(|place| place.enter().map_err(io::Error::from)) {
                panic!("belljar: `{}` could not be entered: {}", host.name, why(&error));
            }
            body()
        }));
        if let Err(payload) = &result {
            all().panic.get_or_insert_with(|| words(&host.name, &**payload));
        }
        own.is_over.store(true, Ordering::Release);
        result.unwrap_or_else(|payload| resume_unwind(payload))
    };
    // Whoever looks must find it, so that it is listed before it can be over.
    all().threads.push(spawned.clone());
    let thread = thread::Builder::new().name(node.name.clone()).spawn(run);
    if thread.is_err() {
        spawned.is_over.store(true, Ordering::Release);
    }
    thread
}

/// A panic in words.
fn words(host: &str, payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    match text {
        Some(text) => format!("a thread on the host `{host}` panicked: {text}"),
        None => format!("a thread on the host `{host}` panicked, not with a text"),
    }
}

/// What the body has left on its hosts that fails the test.
pub(crate) enum LeftOnHosts {
    /// A thread panicked: how.
    Panic(String),
    /// Nobody knows whether one would have: it went on for too long.
    Busy(String),
}

/// To be called when the body is over. Waits for threads on hosts until each is over or sleeps, such as a server that waits for clients: those end
/// with the process.
pub(crate) fn finish() -> Option<LeftOnHosts> {
    let (mut busy_since, mut is_calm) = (None, false);
    // One that sleeps may wait for another, such as for its turn at the standard error: all must sleep at once, and when they are looked at again.
    let busy = loop {
        match look() {
            Threads::Over => break None,
            Threads::Asleep if is_calm => break None,
            Threads::Asleep => is_calm = true,
            Threads::Busy(host) if busy_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE => {
                break Some(host);
            }
            Threads::Busy(_) => is_calm = false,
        }
        thread::sleep(PULSE);
    };
    let panic = all().panic.take();
    panic.map(LeftOnHosts::Panic).or(busy.map(|host| LeftOnHosts::Busy(busy_words(&host))))
}

/// What threads on hosts do.
enum Threads {
    Over,
    /// All that are not over.
    Asleep,
    /// One is, or nobody can tell: that on this host.
    Busy(String),
}

fn look() -> Threads {
    let mut all = all();
    // Most tests have none, and need not touch the memory of what follows.
    if all.threads.is_empty() {
        return Threads::Over;
    }
    all.threads.retain(|thread| !thread.is_over.load(Ordering::Acquire));
    match all.threads.iter().find(|thread| !sleeps(thread)) {
        Some(thread) => Threads::Busy(thread.host.clone()),
        None if all.threads.is_empty() => Threads::Over,
        None => Threads::Asleep,
    }
}

fn busy_words(host: &str) -> String {
    let seconds = PATIENCE.as_secs();
    format!("a thread on the host `{host}` was still busy {seconds} s after the body's end: join it")
}

/// Whether a thread waits for something, other than a processor, a disk or whoever reads what it writes, such as the words of a panic. If nobody
/// can tell, it doesn't.
fn sleeps(thread: &Spawned) -> bool {
    let id = thread.id.load(Ordering::Relaxed);
    if id == 0 {
        return false;
    }
    let directory = Path::new("/proc/self/task").join(id.to_string());
    let line = match fs::read(directory.join("stat")) {
        Ok(line) => line,
        // It has ended in a way of its own. For other reasons, such as a lack of descriptors, nobody knows.
        Err(error) => return is_gone(&error),
    };
    match Stat::parse(&line).and_then(|stat| stat.state()) {
        None | Some('R' | 'D') => return false,
        Some(_) => {}
    }
    match proc::text_of(directory.join("syscall")) {
        Ok(call) => !writes_or_runs(&call),
        // Some kernels don't tell.
        Err(error) => is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied,
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Of what `/proc` says of a thread's system call: whether it writes to a file or a pipe, or is in none.
fn writes_or_runs(call: &str) -> bool {
    let first = call.split_ascii_whitespace().next().unwrap_or_default();
    first == "running" || [libc::SYS_write, libc::SYS_writev].iter().any(|number| first == number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_writes_is_busy() {
        for call in ["running\n".to_owned(), format!("{} 0x2 0x7f00 0x1\n", libc::SYS_write)] {
            assert!(writes_or_runs(&call), "{call}");
        }
        for call in [format!("{} 0x3\n", libc::SYS_futex), "-1 0x7ffd 0x7f00\n".to_owned(), String::new()] {
            assert!(!writes_or_runs(&call), "{call}");
        }
    }

    #[test]
    fn a_thread_that_is_gone_sleeps_and_one_that_has_not_begun_does_not() {
        let spawned = |id| Spawned { host: String::new(), id: AtomicI32::new(id), is_over: AtomicBool::new(false) };
        assert!(!sleeps(&spawned(0)));
        assert!(sleeps(&spawned(i32::MAX)));
        // This one runs.
        assert!(!sleeps(&spawned(gettid().as_raw())));
    }
}
