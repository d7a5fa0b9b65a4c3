//! Threads on hosts that nobody need wait for, and what becomes of them when the body is over.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::unistd::gettid;

use super::node::Node;
use crate::proc;

/// How long a thread that runs may go on when the body is over, before it is ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long it is until it is looked at again.
const PULSE: Duration = Duration::from_millis(1);

/// A thread that was spawned on a host.
struct Spawned {
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
    let spawned = Arc::new(Spawned { id: AtomicI32::new(0), is_over: AtomicBool::new(false) });
    let (host, own) = (node.clone(), spawned.clone());
    let run = move || {
        own.id.store(gettid().as_raw(), Ordering::Relaxed);
        let result = catch_unwind(AssertUnwindSafe(|| {
            if let Err(error) = host.place().and_then(|place| place.enter().map_err(io::Error::from)) {
                panic!("belljar: `{}` could not be entered: {error}", host.name);
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

/// To be called when the body is over. Waits for threads on hosts that are about to end, and returns the first panic that there was on one. A
/// thread that sleeps, such as a server that waits for clients, is not waited for: it ends with the process.
pub(crate) fn finish() -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    let threads = std::mem::take(&mut all().threads);
    for thread in threads {
        while !thread.is_over.load(Ordering::Acquire) && !sleeps(&thread) && Instant::now() < deadline {
            thread::sleep(PULSE);
        }
    }
    all().panic.take()
}

/// Whether a thread waits for something, other than a processor or a disk.
fn sleeps(thread: &Spawned) -> bool {
    match thread.id.load(Ordering::Relaxed) {
        0 => false,
        id => {
            let directory = Path::new("/proc/self/task").join(id.to_string());
            proc::stat(&directory, |stat| stat.state()).is_none_or(|state| !matches!(state, 'R' | 'D'))
        }
    }
}
