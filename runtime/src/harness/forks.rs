//! Forks of the test binary that tests make while other threads run tests.
//!
//! The problem: a fork has one thread. A lock that another thread held at that moment is held in the fork for good, and what it protects
//! may be half done. A test that runs there would wait for ever, and its run's cgroups would stay.
//!
//! So the C library calls this file at each fork(2), by pthread_atfork(3):
//!
//! 1. Before it, the thread that forks takes all locks that tests share, and waits for what is done once a process.
//! 2. After it, that thread gives them back, in both processes.
//! 3. The fork forgets what other threads were about to find out, such as what becomes of a preparation. It finds that out itself.
//!
//! Nobody can do the same for a lock of the standard library that a thread takes when it begins and when it ends: a fork at that moment may hang as
//! it exits. Each test that has faults begins and ends such a thread.
//!
//! A thread that holds one of these locks takes none of the others, with one exception: whoever has that of the spare descriptors may take that of
//! the cgroups or of the preparations. So it is taken first here. Such a thread forks only to run a program, and posix_spawn(3) does not call this
//! file. Nor does a fork in a sandbox: the zygote was forked before this was set up.
//!
//! There is one more lock in that order: the standard library's of the environment, which a thread takes that runs a program, also while it forks
//! for one with `pre_exec`. Whoever has the lock of the cgroups may ask systemd, by a program. So if one thread does that, another one forks with `pre_exec`
//! and a third one waits to change the environment, all three may wait for ever.

use std::any::Any;
use std::cell::RefCell;

use super::{listed_twice, prepared, report, run, shared, slots, spare, trace, unsupported};
use crate::cgroup;
#[cfg(feature = "images")]
use crate::images;
use crate::sys::threads;

thread_local! {
    /// The locks that this thread has taken, as it forks.
    static HELD: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// Sees to it that forks can run tests. If there is no memory for that, they may hang.
pub(crate) fn prepare() {
    // This looks at the environment. The standard library keeps that while it forks, and others wait to change it.
    run::is_stack_small();
    let _ = threads::at_fork(before, after, after_in_fork);
}

extern "C" fn before() {
    run::settle();
    // A thread that is ending may have no thread-locals any more.
    let _ = HELD.try_with(|all| {
        let mut all = all.borrow_mut();
        all.push(spare::hold());
        all.push(Box::new(cgroup::hold()));
        #[cfg(feature = "images")]
        all.push(Box::new(images::hold()));
        all.extend([slots::hold(), unsupported::hold(), prepared::hold(), shared::hold()]);
        all.extend(report::hold().into_iter().flatten());
        all.extend(trace::hold());
        all.extend(listed_twice::hold());
    });
}

extern "C" fn after() {
    let _ = HELD.try_with(|all| all.borrow_mut().clear());
}

extern "C" fn after_in_fork() {
    after();
    prepared::forget_unknown();
    listed_twice::forget_unknown();
    #[cfg(feature = "images")]
    images::forget_unknown();
}
