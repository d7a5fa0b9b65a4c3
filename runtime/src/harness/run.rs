//! Runs one test: asks for a sandbox, tells it the test, passes on its output, judges.

use std::any::Any;
use std::env;
use std::io;
use std::mem;
use std::os::fd::AsFd as _;
use std::panic::{panic_any, resume_unwind};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Instant;

use nix::errno::Errno;

#[cfg(feature = "images")]
use super::image;
use super::judge::{self, Found, Obstacle, Verdict, judge};
use super::prepared::{self, Outcome};
use super::run_by::RunBy;
use super::sandbox::{NoSandbox, Sandbox};
use super::shared::{self, SharedOutcome, SharedRoot};
use super::slots::{self, Slot};
use super::{bad_settings, captures, hints, listed_twice, pool, processes, report, trace, unsupported, words};
use crate::cgroup::{self, DEFAULT_PIDS};
use crate::diagnosis::{Page, death, explain_cgroup, lack, unknown};
use crate::frame::{Refusal, Step};
use crate::rootfs::left::Left;
use crate::sandbox::must_be_outside;
use crate::settings::{BadSetting, settings};
use crate::spec::{Preparation, Test};
use crate::sys::{self, errno_of};
use crate::zygote::{Zygote, is_ending, plan_anew, zygote};

/// Runs `test` in a sandbox of its own. Returns if it passed, and panics otherwise, as a test does.
///
/// The panic has the body's message, and is not printed again, unless panics abort. With `#[should_panic]`, a failure that is no panic of the
/// body returns normally: the harness then says that the test did not panic.
#[track_caller]
pub fn run(test: &'static Test) {
    must_be_outside(test.short_name());
    // The harness names the thread after the test. Of this thread's stack, there may be little.
    let is_called_by_harness = thread::current().name() == Some(test.short_name());
    match with_usual_stack(move || (find_verdict(test, is_called_by_harness), None)).0 {
        Verdict::Passed => {}
        Verdict::Panicked(Some(text)) => panic_with(text),
        Verdict::Panicked(None) => panic_with(NoText),
        Verdict::Failed(_) => {
            if test.should_panic.is_none() {
                resume_unwind(Box::new(NoText));
            }
        }
        Verdict::Skipped(_) => {
            if let Some(expected) = test.should_panic {
                // The harness takes this, and nothing else, for a pass.
                panic_with(expected);
            }
        }
    }
}

/// How large the stacks of threads are if nobody says otherwise.
const USUAL_STACK: usize = 2 << 20;

/// Calls `work` on this thread. If RUST_MIN_STACK is below the default, a thread with the default stack does it. The body's thread still has
/// RUST_MIN_STACK.
///
/// No scoped thread does it: in debug builds, a scope alone takes 4 KiB of this stack.
pub(super) fn with_usual_stack(work: impl Fn() -> Found + Send + Sync + 'static) -> Found {
    if is_stack_small() { on_usual_stack(Arc::new(work)) } else { work() }
}

fn on_usual_stack(work: Arc<dyn Fn() -> Found + Send + Sync>) -> Found {
    let on_thread = Arc::clone(&work);
    match thread::Builder::new().stack_size(USUAL_STACK).spawn(move || on_thread()) {
        Ok(thread) => thread.join().unwrap_or_else(|payload| resume_unwind(payload)),
        Err(_) => work(),
    }
}

/// Whether RUST_MIN_STACK gives threads less than is usual.
pub(super) fn is_stack_small() -> bool {
    static IS_SMALL: LazyLock<bool> = LazyLock::new(|| {
        let stack = env::var_os("RUST_MIN_STACK");
        stack.and_then(|stack| stack.to_str()?.parse::<usize>().ok()).is_some_and(|stack| stack < USUAL_STACK)
    });
    *IS_SMALL
}

/// Finds out what each process finds out once, or waits for the thread that does. It does not look at the environment, which the standard library
/// may keep meanwhile.
pub(super) fn settle() {
    all_bad_settings();
}

/// The verdict on `test`, whose text has been printed unless the harness prints it.
#[inline(never)] // Its stack is not the caller's, where that is small.
fn find_verdict(test: &'static Test, is_called_by_harness: bool) -> Verdict {
    let run = || find(test, &RunBy::Harness).0;
    // Whoever else calls the function wants it run.
    let verdict = if is_called_by_harness { listed_twice::once(test, run) } else { run() };
    match &verdict {
        // By such a beginning, nextest finds the reason of a failure, which it shows in colours, and which its JUnit has as a message.
        Verdict::Failed(text) if settings().nextest_run.is_some() => eprintln!("Error: {text}"),
        Verdict::Failed(text) | Verdict::Skipped(text) => eprintln!("{text}"),
        _ => {}
    }
    verdict
}

/// Runs `test`, and judges.
pub(super) fn find(test: &'static Test, caller: &RunBy) -> Found {
    let started = Instant::now();
    let (verdict, evidence) = {
        let _span = trace::test(test);
        match run_and_tell(test, caller) {
            Ok((over, verdict)) => (verdict, Some(over.sandbox.into_evidence())),
            Err(verdict) => (verdict, None),
        }
    };
    report::collect(test, &verdict, started.elapsed(), evidence.as_deref());
    (verdict, evidence)
}

/// Panics with what the harness is to know. Where a panic aborts, the harness learns of it by its hook (`-Zpanic-abort-tests`).
#[track_caller]
fn panic_with<P: Any + Send>(payload: P) -> ! {
    if cfg!(panic = "abort") { panic_any(payload) } else { resume_unwind(Box::new(payload)) }
}

/// What a test panics with when its message has been printed, or can't be known.
struct NoText;

/// Sees to it that the preparation has run that `test` starts from, if it starts from one. Fails with the verdict if that left nothing.
fn prepare(test: &'static Test) -> Result<(), Verdict> {
    let Some(Preparation(preparation)) = test.spec.from else { return Ok(()) };
    let _span = trace::span("prepare");
    match prepared::once(preparation, || find_outcome(preparation)) {
        Outcome::Left(_) => Ok(()),
        Outcome::Skipped(reason) => Err(unsupported::with_preparation(test, preparation, reason)),
        Outcome::Failed(reason) => {
            Err(Verdict::Failed(words::preparation_failed(test.short_name(), preparation.short_name(), &reason)))
        }
    }
}

/// What became of `preparation`, in this process or in another of the same run.
fn find_outcome(preparation: &'static Test) -> Outcome {
    match prepare(preparation) {
        Ok(()) | Err(Verdict::Passed | Verdict::Panicked(_)) => {}
        Err(Verdict::Skipped(_)) => return Outcome::Skipped(unsupported::reason(preparation)),
        Err(Verdict::Failed(text)) => return Outcome::Failed(text),
    }
    let below = prepared::left_for(&preparation.spec);
    // A preparation that starts from one that is not shared can't be shared either.
    let place = if below.as_ref().is_none_or(|left| left.is_shared()) { shared::place(preparation) } else { None };
    let Some((place, zygote)) = place.map(Arc::new).zip(zygote().and_then(|zygote| zygote.as_ref().ok())) else {
        return run_preparation(preparation, None).0;
    };
    let told = zygote.place(preparation, &place.root()).map_err(io::Error::from).and_then(|()| {
        place.once(|| match run_preparation(preparation, Some(Arc::clone(&place))) {
            (Outcome::Left(_), _) => Ok((SharedOutcome::Left, true)),
            (Outcome::Skipped(why), _) => Ok((SharedOutcome::Skipped(why), true)),
            (Outcome::Failed(_), _) if place.is_full() => Err(Errno::ENOSPC.into()),
            (Outcome::Failed(why), is_of_body) => Ok((SharedOutcome::Failed(why), is_of_body)),
        })
    });
    let left = told.and_then(|told| match told {
        SharedOutcome::Left => Ok(Outcome::Left(Left::shared(&place.root(), below.as_deref())?.into())),
        SharedOutcome::Skipped(why) => Ok(Outcome::Skipped(why)),
        SharedOutcome::Failed(why) => Ok(Outcome::Failed(why)),
    });
    left.unwrap_or_else(|error| {
        place.tell(preparation, &error);
        match zygote.forget_place(preparation) {
            Ok(()) => run_preparation(preparation, None).0,
            Err(errno) => Outcome::Failed(words::preparation_lost(errno)),
        }
    })
}

/// Runs `preparation`. What it leaves lies in `place`, or else in memory, where the zygote keeps it. Returns what became of it, and whether
/// that was its body's doing, so that another process would fare alike.
fn run_preparation(preparation: &'static Test, place: Option<Arc<SharedRoot>>) -> (Outcome, bool) {
    let started = Instant::now();
    let _span = trace::test(preparation);
    let caller = place.clone().map_or(RunBy::Harness, RunBy::Shared);
    let (over, verdict) = match run_and_tell(preparation, &caller) {
        Ok((over, verdict)) => (Some(over), verdict),
        Err(verdict) => (None, verdict),
    };
    let evidence = over.as_ref().map(|over| over.sandbox.evidence());
    report::collect(preparation, &verdict, started.elapsed(), evidence);
    let is_of_body = evidence
        .is_some_and(|evidence| evidence.timed_out.is_some() || evidence.outcome.is_some() && evidence.ended.is_some());
    let outcome = match verdict {
        Verdict::Passed => {
            let below = prepared::left_for(&preparation.spec);
            let left = match place {
                Some(place) => Left::shared(&place.root(), below.as_deref()),
                None => over.ok_or(Errno::ENOENT).and_then(|over| {
                    keep(preparation, &over.sandbox)?;
                    Left::over(over.sandbox.root()?, below.as_deref())
                }),
            };
            left.map_or_else(|errno| Outcome::Failed(words::preparation_lost(errno)), |left| Outcome::Left(left.into()))
        }
        Verdict::Panicked(text) => Outcome::Failed(words::preparation_panicked(text.as_deref())),
        Verdict::Skipped(_) => Outcome::Skipped(unsupported::reason(preparation)),
        Verdict::Failed(text) => Outcome::Failed(text),
    };
    (outcome, is_of_body)
}

/// Has the zygote keep the root of the sandbox in which `preparation` has run.
fn keep(preparation: &'static Test, sandbox: &Sandbox) -> nix::Result<()> {
    match zygote() {
        Some(Ok(zygote)) => zygote.keep(preparation, sandbox.root()?),
        Some(Err(errno)) => Err(*errno),
        None => Err(Errno::ENOENT),
    }
}

/// What is wrong in the environment, so that no test runs. The first call opens the files that the environment names.
fn all_bad_settings() -> &'static [BadSetting] {
    static BAD: LazyLock<Vec<BadSetting>> = LazyLock::new(|| {
        let mut bad = settings().bad.clone();
        bad.extend(report::check().err().cloned());
        bad.extend(trace::check().err().cloned());
        bad
    });
    &BAD
}

/// Runs `test`, and prints what is to be said besides the verdict. Fails with the verdict if it did not run.
fn run_and_tell(test: &'static Test, caller: &RunBy) -> Result<(FinishedSandbox, Verdict), Verdict> {
    let name = test.short_name();
    match all_bad_settings() {
        [] => {}
        bad => return Err(Verdict::Failed(bad_settings::wrong_environment(name, bad))),
    }
    prepare(test)?;
    #[cfg(feature = "images")]
    image::provide(test)?;
    let (over, verdict) = run_and_judge(test, caller).map_err(|obstacle| match obstacle {
        Obstacle::Host(page) => unsupported::verdict(test, page),
        Obstacle::BadRequest(page) => Verdict::Failed(page.of_bad_request(name)),
        Obstacle::Busy(page) => Verdict::Failed(page.of_busy_host(name)),
        Obstacle::Other(text) => Verdict::Failed(text),
    })?;
    let evidence = over.sandbox.evidence();
    let changes = if verdict == Verdict::Passed { Ok(Vec::new()) } else { over.sandbox.changes() };
    let changes = match changes {
        Ok(changes) if changes.is_empty() => None,
        Ok(changes) => Some(words::changes(name, &changes)),
        Err(error) => Some(words::changes_unknown(name, &error)),
    };
    let is_failure = verdict != Verdict::Passed && !verdict.is_expected(test);
    let captures = if is_failure { captures::write(test, evidence) } else { Vec::new() };
    let faults = if is_failure { words::faults(name, evidence, lack) } else { Vec::new() };
    let has_survivors = !evidence.survivors.is_empty();
    let forks_refused = evidence.events.forks_refused;
    let note = hints::note(test, &verdict, evidence, caller);
    let is_told = has_survivors
        || forks_refused > 0
        || changes.is_some()
        || !captures.is_empty()
        || !faults.is_empty()
        || note.is_some()
        || matches!(verdict, Verdict::Failed(_));
    if over.sandbox.is_mid_line() && is_told {
        eprintln!();
    }
    if let Some(changes) = changes {
        eprintln!("{changes}");
    }
    captures.iter().chain(&faults).for_each(|text| eprintln!("{text}"));
    if has_survivors {
        eprintln!("{}", words::survivors(name, &evidence.survivors));
    }
    if evidence.are_unkillable {
        eprintln!("{}", words::unkillable(name));
    }
    if evidence.events.for_shared_limit {
        let lowest = cgroup::limits_on_processes().into_iter().min_by_key(|(_, limit, _)| *limit);
        eprintln!("{}", words::forks_refused_above(name, forks_refused, lowest));
    } else if forks_refused > 0 {
        let limit = test.spec.pids.unwrap_or(DEFAULT_PIDS);
        eprintln!("{}", words::forks_refused(name, forks_refused, limit));
    }
    if let Some(note) = note {
        eprintln!("{note}");
    }
    Ok((over, verdict))
}

/// A sandbox whose test is over, and that test's slot, which is given back when the sandbox's descriptors are closed.
pub(super) struct FinishedSandbox {
    pub(super) sandbox: Box<Sandbox>,
    _slot: Slot,
}

/// Runs `test`, if it can be run.
pub(super) fn run_and_judge(test: &'static Test, caller: &RunBy) -> Result<(FinishedSandbox, Verdict), Obstacle> {
    let name = test.short_name();
    let zygote = match zygote() {
        Some(Ok(zygote)) => zygote,
        Some(Err(errno)) => return Err(judge::refused(&test.spec, &Refusal::new(Step::ForkZygote, "", *errno))),
        None => return Err(Obstacle::Other(words::not_a_test_run(name))),
    };
    let over = run_in_sandbox(test, zygote, caller).map_err(|why| match why {
        NoSandbox::Channel(_) | NoSandbox::Input(_) if is_ending() => Obstacle::Other(words::binary_ends(name)),
        // The zygote's end of the request socket is closed.
        NoSandbox::Channel(Errno::EPIPE | Errno::ECONNRESET) => {
            let end = processes::end_of(zygote.as_fd());
            Obstacle::Other(words::zygote_gone(name, end, death(end).as_ref()))
        }
        NoSandbox::Channel(Errno::ETIMEDOUT) => {
            let (timeout, is_own) = (settings().timeout_of(test.timeout).unwrap_or_default(), test.timeout.is_some());
            Obstacle::Other(words::unanswered(name, timeout, is_own, &processes::makers(zygote.as_fd())))
        }
        NoSandbox::Channel(errno) => {
            Obstacle::Other(words::no_channel(name, errno, judge::lack_of_memory(errno).as_ref()))
        }
        NoSandbox::Input(errno) => Obstacle::Other(words::input_not_kept(name, errno, lack(errno).as_ref())),
        NoSandbox::Cgroup(trouble) if trouble.errno().is_some_and(sys::is_of_descriptors) => {
            Obstacle::Other(words::no_channel(name, trouble.errno().unwrap_or(Errno::EMFILE), None))
        }
        NoSandbox::Cgroup(trouble) => {
            let cause = explain_cgroup(&trouble).unwrap_or_else(unknown);
            let page = Page::of_limits(&trouble, cause);
            // If BELLJAR_CGROUP is set, it is that which is wrong.
            let is_of_host = cgroup::chosen().is_none();
            if is_of_host { Obstacle::Host(page) } else { Obstacle::BadRequest(page) }
        }
    })?;
    let _span = trace::span("judge");
    let verdict = judge(test, over.sandbox.evidence())?;
    Ok((over, verdict))
}

/// Runs `test` in a sandbox. If there are no descriptors or processes for that, it waits until fewer tests are in sandboxes.
fn run_in_sandbox(test: &'static Test, zygote: &Zygote, caller: &RunBy) -> Result<FinishedSandbox, NoSandbox> {
    let mut slot = Slot::take(zygote);
    // Since when it waits for descriptors that others have on their way.
    let mut waits_since = None;
    let mut has_retried = false;
    loop {
        let prepared = caller.call().map_or(Ok(()), |call| call.prepare());
        let prepared = prepared.map_err(|error| NoSandbox::Input(errno_of(&error)));
        let ran = prepared.and_then(|()| run_in_one(test, zygote, caller));
        let refusal = ran.as_ref().ok().and_then(|sandbox| sandbox.evidence().refused.as_ref());
        if zygote.is_own() && !mem::replace(&mut has_retried, true) && refusal.is_some_and(may_be_outdated) {
            plan_anew();
            pool::drop_all();
            drop(ran);
            caller.begin_anew()?;
            continue;
        }
        let (step, errno) = match &ran {
            Ok(_) => refusal.map(|refusal| (refusal.step, refusal.errno)).unzip(),
            Err(NoSandbox::Channel(errno) | NoSandbox::Input(errno)) => (None, Some(*errno)),
            Err(NoSandbox::Cgroup(trouble)) => (None, trouble.errno()),
        };
        let is_of_processes = errno == Some(Errno::EAGAIN) && step.is_some_and(starts_one);
        let is_short = is_of_processes || errno.is_some_and(sys::is_of_descriptors);
        // A process that was forked by the test binary has not the threads that would give a slot back.
        if is_short && zygote.is_own() && !slot.is_alone() {
            drop(ran);
            caller.begin_anew()?;
            slot = slot.take_another(zygote);
            continue;
        }
        let is_on_the_way = errno == Some(Errno::ETOOMANYREFS);
        if is_on_the_way && waits_since.get_or_insert_with(Instant::now).elapsed() < sys::ON_THE_WAY {
            drop(ran);
            caller.begin_anew()?;
            thread::sleep(sys::ON_THE_WAY_PAUSE);
            continue;
        }
        return Ok(FinishedSandbox { sandbox: ran?, _slot: slot });
    }
}

/// Whether a step starts a process or a thread.
fn starts_one(step: Step) -> bool {
    matches!(step, Step::Template | Step::Clone | Step::Fork | Step::Thread)
}

/// Whether a step may have failed because the host has changed since it was planned.
fn may_be_outdated(refusal: &Refusal) -> bool {
    let is_of_files = matches!(
        refusal.step,
        Step::Directory
            | Step::Symlink
            | Step::File
            | Step::Bind
            | Step::MountPoint
            | Step::ReadOnly
            | Step::Mount
            | Step::Copy
            | Step::WorkingDirectory
    );
    is_of_files && matches!(refusal.errno, Errno::ENOENT | Errno::EEXIST | Errno::ENOTDIR | Errno::EISDIR)
}

/// Runs `test` in a sandbox of the pool, or else in one that is made for it.
fn run_in_one(test: &'static Test, zygote: &Zygote, caller: &RunBy) -> Result<Box<Sandbox>, NoSandbox> {
    let deadline = settings().timeout_of(test.timeout).and_then(|timeout| Instant::now().checked_add(timeout));
    // Those of the pool have pipes for what is printed.
    let ready = if let RunBy::Main = caller { None } else { pool::take(zygote, &test.spec) };
    if let Some(mut ready) = ready {
        // One that has died, or could not be made, has run nothing. The next one tells why, if that happens again.
        if ready.begin(test, caller).is_ok() {
            follow(&mut ready, test, zygote, deadline)?;
            if ready.evidence().refused.is_none() && !ready.evidence().unborn {
                return Ok(ready);
            }
        }
    }
    let asked = Sandbox::request(zygote, &test.spec, deadline, caller);
    if asked.is_err() {
        // Whoever ends the run after this verdict is to leave nothing.
        cgroup::wait_for_sweeper(deadline);
    }
    let mut sandbox = asked?;
    match sandbox.begin(test, caller) {
        // It is over already, and has said why or shows it.
        Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => {}
        Err(errno) => return Err(errno.into()),
    }
    follow(&mut sandbox, test, zygote, deadline)?;
    Ok(sandbox)
}

/// Follows a test that has begun to its end, and prepares sandboxes for others meanwhile.
fn follow(
    sandbox: &mut Sandbox,
    test: &'static Test,
    zygote: &Zygote,
    deadline: Option<Instant>,
) -> Result<(), NoSandbox> {
    // A preparation runs once.
    if !slots::are_scarce() && !test.spec.is_preparation {
        pool::replenish(zygote, &test.spec);
    }
    sandbox.follow(test, zygote, deadline)
}
