//! All messages about how a test ended.

mod beginning;
mod bytes;
#[cfg(any(feature = "net", test))]
mod captures;
#[cfg_attr(not(feature = "faults"), path = "../absent/faults.rs")]
mod faults;
#[cfg(feature = "images")]
mod images;
mod may_be;
mod preparations;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use beginning::failed;
pub(super) use beginning::{calls_unanswered, fault_unmet};
pub(super) use bytes::{input_not_kept, output_lost, returned_error, run_inside};
#[cfg(any(feature = "net", test))]
pub(super) use captures::{captured, captures_left_out, captures_lost, not_captured, trouble};
pub(super) use faults::{faults, met_when};
#[cfg(feature = "images")]
pub(super) use images::{image_differs, image_failed, no_such_user, not_told, not_unpacked};
use may_be::MayBe;
pub(super) use preparations::{
    preparation_failed, preparation_lost, preparation_not_shared, preparation_panicked, preparation_skipped,
};

use super::evidence::Largest;
use super::processes::Process;
use crate::collect::CollectVec as _;
use crate::diagnosis::Cause;
use crate::frame::changes::Change;
use crate::sorted::Set;
use crate::spec::{Ids, Spec};
use crate::sys::{self, End};
use crate::text::{Size, error, plain};

/// How many processes a message lists by name.
const LISTED: usize = 10;

// ---- Copies ----

/// How many changes a message lists.
const CHANGES_LISTED: usize = 20;

pub(super) fn changes(test: &str, changes: &[Change]) -> String {
    let line = |change: &Change| match change {
        Change::Created(path) => format!("\n  created {}", plain(path.display())),
        Change::Changed(path) => format!("\n  changed {}", plain(path.display())),
        Change::Removed(path) => format!("\n  removed {}", plain(path.display())),
    };
    let more = match changes.len().saturating_sub(CHANGES_LISTED) {
        0 => String::new(),
        more => format!("\n  and {more} more"),
    };
    let listed = changes.iter().take(CHANGES_LISTED).map(line).collect_vec().concat();
    format!("belljar: what `{test}` has changed in its copy of the tree:{listed}{more}")
}

pub(super) fn changes_unknown(test: &str, error: &io::Error) -> String {
    format!("belljar: what `{test}` has changed in its copy of the tree could not be found out: {error}.")
}

// ---- Tests that are there twice ----

pub(super) fn repeated(test: &str) -> String {
    format!("belljar: `{test}` is listed twice, and was run once. This is the verdict of its first call.")
}

/// All tests that are listed twice.
pub(super) fn listed_twice(tests: &[&str]) -> String {
    let lines = tests.iter().map(|test| format!("  {test}\n")).collect_vec().concat();
    let head = match tests.len() {
        1 => "1 test is listed twice. It was run once".to_owned(),
        count => format!("{count} tests are listed twice. Each was run once"),
    };
    format!(
        "\nbelljar: {head}:\n{lines}An attribute above `#[isolated]`, or `#[test]` under another name, also makes a test of the function. \
         Write `#[isolated]` first, and `#[test]` by its own name.\n"
    )
}

// ---- No sandbox ----

pub(super) fn not_a_test_run(test: &str) -> String {
    format!(
        "{}: this process has no zygote, because it was started with `--list` or `--help`. Start it without, to run tests.",
        failed(test)
    )
}

/// `cause` is why, if something shows.
pub(super) fn no_channel(test: &str, errno: Errno, cause: Option<&Cause>) -> String {
    if !sys::is_of_descriptors(errno) {
        let cause = cause.map_or(String::new(), |cause| format!(" {}", MayBe(cause)));
        return format!("{}: the way to its sandbox could not be used: {}.{cause}", failed(test), error(errno));
    }
    format!(
        "{}: no descriptors for its sandbox: {}. Raise the limit on open files (`ulimit -n`), or run fewer tests at once \
         (`--test-threads`).",
        failed(test),
        error(errno)
    )
}

/// `end` is how it has ended, if that is known, and `cause` is why, if something shows.
pub(super) fn zygote_gone(test: &str, end: Option<End>, cause: Option<&Cause>) -> String {
    let of_zygote = format!("{}: the zygote of this test binary", failed(test));
    match end {
        None | Some(End::Killed { signal: libc::SIGKILL, .. }) => {
            format!("{of_zygote} has been killed, and all sandboxes with it. {}", may_be_or(cause, KILLED))
        }
        Some(end) => format!("{of_zygote} {}, and all sandboxes with it. {}", ended(end), may_be_or(cause, ENDED)),
    }
}

/// What is said of a process of ours that was killed by SIGKILL, and of one that has ended by itself, if there is nothing that shows why.
const KILLED: &str = "If it was not you, look for the out-of-memory killer in the kernel's log (`dmesg`).";
const ENDED: &str = "It never should: please report this.";

/// What may be why a process has ended, or else something else.
fn may_be_or(cause: Option<&Cause>, other: &str) -> String {
    cause.map_or_else(|| other.to_owned(), |cause| MayBe(cause).to_string())
}

pub(super) fn binary_ends(test: &str) -> String {
    format!(
        "{}: the test binary ends, because something in it has called `exit`, and with it end the sandboxes of all tests that \
         still run.",
        failed(test)
    )
}

/// `cause` is why the process was killed that should have made it, if something shows.
pub(super) fn unborn(test: &str, cause: Option<&Cause>) -> String {
    let cause = cause.map_or(String::new(), |cause| format!(" {}", MayBe(cause)));
    format!(
        "{}: its sandbox was never made. Either the process that makes sandboxes like it was killed, or the pipes for it did not reach \
         that process: then raise the limit on open files (`ulimit -n`).{cause}",
        failed(test)
    )
}

/// `end` is how init has ended, if that is known, and `cause` is why, if something shows.
pub(super) fn init_gone(test: &str, end: Option<End>, cause: Option<&Cause>) -> String {
    let of_init = format!("{}: the init of its sandbox", failed(test));
    let look = may_be_or(cause, KILLED);
    match end {
        None => format!("{of_init} is gone, and all processes of the test with it. {look}"),
        Some(End::Killed { signal: libc::SIGKILL, .. }) => {
            format!("{of_init} has been killed from outside, and all processes of the test with it. {look}")
        }
        // So the kernel ends a pid namespace, see reboot(2).
        Some(End::Killed { signal: libc::SIGHUP | libc::SIGINT, .. }) => {
            format!("{of_init} has been ended by reboot(2), and all processes of the test with it.")
        }
        Some(end) => {
            format!("{of_init} {} before it could tell how the test ended. {}", ended(end), may_be_or(cause, ENDED))
        }
    }
}

/// `cause` is why, if something shows.
pub(super) fn watching_failed(test: &str, errno: Errno, cause: Option<&Cause>) -> String {
    let cause = cause.map_or(String::new(), |cause| format!(" {}", MayBe(cause)));
    format!("{}: its sandbox could not be watched: {}.{cause}", failed(test), error(errno))
}

/// The sandbox of a test that has failed is kept. Into namespaces that it shares with the host, not everybody is let. `hosts` are those of its
/// laboratories, with the options of nsenter(1) for the namespaces of each.
pub(super) fn kept(failure: &str, spec: &Spec, init: u32, hosts: &[(&str, String)]) -> String {
    let option = |kind: &str, is_own| if is_own { format!(" --{kind}") } else { String::new() };
    let (user, time) = (option("user", spec.ids != Ids::Host), option("time", spec.time.is_some()));
    let (kinds, kinds_of_host) = (format!("{user}{}{time}", option("net", spec.net)), format!("{user}{time}"));
    let enter = format!("nsenter --target {init} --preserve-credentials");
    let of_host = |(name, options): &(&str, String)| {
        format!("To enter its host `{name}`:\n  {enter} --pid --ipc --cgroup{kinds_of_host}{options} sh\n")
    };
    let of_hosts = hosts.iter().map(of_host).collect_vec().concat();
    format!(
        "{failure}\nbelljar: its sandbox is kept. To enter it:\n  {enter} --mount --pid --ipc --uts --cgroup{kinds} \
         sh\n{of_hosts}To let it go:\n  kill -KILL {init}"
    )
}

pub(super) fn panicked(test: &str, text: Option<&str>) -> String {
    match text {
        Some(text) => format!("{}: its body panicked: {text}", failed(test)),
        None => format!("{}: its body panicked.", failed(test)),
    }
}

pub(super) fn did_not_panic(test: &str) -> String {
    format!("{}: its body returned, and should have panicked.", failed(test))
}

pub(super) fn out_of_time(test: &str) -> String {
    format!("{}: its time is up.", failed(test))
}

/// All tests that were skipped, and why.
pub(super) fn skipped(tests: &[(&str, String)]) -> String {
    let lines = tests.iter().map(|(test, why)| format!("  {test}: {why}\n")).collect_vec().concat();
    let (count, s) = (tests.len(), if tests.len() == 1 { "" } else { "s" });
    format!("\nbelljar: skipped {count} test{s} that this host can't run\n{lines}")
}

// ---- How tests end ----

pub(super) fn returned_failure(test: &str, status: u8) -> String {
    format!("{}: it returned a value that stands for the status {status}, which means failure.", failed(test))
}

pub(super) fn ended_before_return(test: &str, end: End, exiting: bool) -> String {
    let what = match end {
        End::Exited(status) if exiting => format!("exit({status})"),
        End::Exited(status) => format!("_exit({status})"),
        End::Killed { .. } => return killed(test, end, None),
    };
    format!(
        "{}: its process called {what} before the body returned. A test passes by returning: let a child process exit \
         in its place.",
        failed(test)
    )
}

pub(super) fn execed(test: &str, end: End) -> String {
    format!(
        "{}: its process ran another program in its place (exec), which {}. A test passes by returning: exec in a child \
         process.",
        failed(test),
        ended(end)
    )
}

pub(super) fn unreported(test: &str) -> String {
    format!(
        "{}: its process could not report how the body ended, because the body closed the descriptor that leads to the test binary, or \
         shut it down. Close only descriptors that you opened, or close the others in a child process.",
        failed(test)
    )
}

/// `cause` is why, if something shows.
pub(super) fn killed(test: &str, end: End, cause: Option<&Cause>) -> String {
    let killed = format!("{}: its process {} before the body returned.", failed(test), ended(end));
    match end {
        End::Killed { signal: libc::SIGKILL, .. } => format!("{killed} {}", may_be_or(cause, KILLED)),
        _ => cause.map_or(killed.clone(), |cause| format!("{killed} {}", MayBe(cause))),
    }
}

pub(super) fn stack_overflow(test: &str) -> String {
    format!(
        "{}: stack overflow: the test's thread used up its stack. Recurse less, or ask for more (RUST_MIN_STACK).",
        failed(test)
    )
}

/// belljar's handler did not run: it had no stack to run on, or another is in its place.
pub(crate) fn fault_unheard(test: &str, end: End) -> String {
    format!(
        "{}: its process {}, and belljar's handler, which tells why, did not run. Either this was a stack overflow on a thread that the \
         test started: recurse less there, or give the thread more (thread::Builder::stack_size). Or the body has blocked the signal. Or \
         the body, or a library before `main`, has set another handler for it.",
        failed(test),
        ended(end)
    )
}

pub(crate) fn thread_ended(test: &str) -> String {
    format!(
        "{}: the thread of its body ended, and the body neither returned nor panicked. Something ended that thread alone: exit(2) as a \
         system call (`SYS_exit`), or a seccomp filter that kills threads. A test passes by returning.",
        failed(test)
    )
}

pub(super) fn fault(test: &str, end: End, address: u64) -> String {
    format!("{}: its process {} when it used the invalid address {address:#x}.", failed(test), ended(end))
}

/// `cause` is why, if something shows.
pub(super) fn ended_badly_after(test: &str, what: &str, end: End, cause: Option<&Cause>) -> String {
    let cause = cause.map_or(String::new(), |cause| format!(" {}", MayBe(cause)));
    format!("{}: the body {what}, but then its process {} instead of ending cleanly.{cause}", failed(test), ended(end))
}

pub(super) fn rubbish(test: &str, bytes: usize) -> String {
    let what = match bytes {
        0 => "sent a message of no bytes".to_owned(),
        1 => "wrote 1 byte".to_owned(),
        _ => format!("wrote {bytes} bytes"),
    };
    format!(
        "{}: something in its sandbox {what} to the descriptor that leads to the test binary, which can't be trusted any more. Write only to \
         descriptors that you opened.",
        failed(test)
    )
}

pub(super) fn out_of_memory(test: &str, limit: u64, peak: Option<u64>, largest: Option<&Largest>) -> String {
    let peak = peak.map_or(String::new(), |peak| format!(", peak {}", Size(peak)));
    let largest = largest.map_or(String::new(), |Largest { bytes, name, had_children }| {
        let name = name.as_deref().unwrap_or(test);
        let or_child = if *had_children { " or a child of it" } else { "" };
        format!(", largest: `{}`{or_child} {}", plain(name), Size(*bytes))
    });
    format!("{}: killed: out of memory (limit {}{peak}{largest}).", failed(test), Size(limit))
}

// ---- What of its sandbox a test may have met. Each follows a colon. ----

pub(super) fn note_on_read_only() -> &'static str {
    "what it has of the host is read-only. bind = [\"/path:rw\"] gives it a path to write to, and root = \"overlay\" a private copy of \
     the whole tree"
}

pub(super) fn note_on_names() -> &'static str {
    "it has a network of its own, without name servers. Names can be written to /etc/hosts; #[isolated(mount)] has the host's network"
}

pub(super) fn note_on_network() -> &'static str {
    "it has a network of its own, with `lo` alone. #[isolated(mount)] has the host's network"
}

pub(super) fn note_on_ids() -> &'static str {
    "there is no user and no group but root. uids = 65536 has more"
}

pub(super) fn note_on_threads(names: &[String]) -> String {
    let names: Set<_> = names.iter().map(|name| format!("`{}`", plain(name))).collect();
    let names = names.into_iter().collect_vec();
    format!(
        "it has none of the threads that were started before `main` ({}). What waits for them waits for ever, as a call into Go does",
        names.join(", ")
    )
}

pub(super) fn note_on_processes(limit: u32) -> String {
    format!("fork refused, as it has as many processes and threads as it may have: pids limit {limit}")
}

pub(super) fn forks_refused(test: &str, times: u64, limit: u32) -> String {
    format!("belljar: `{test}` reached its limit: fork refused {}: pids limit {limit}.", Times(times))
}

/// `lowest` is the file of the lowest limit above, that limit, and how many there are.
pub(crate) fn forks_refused_above(test: &str, times: u64, lowest: Option<(PathBuf, u64, u64)>) -> String {
    let seen = lowest.map_or(String::new(), |(file, limit, count)| {
        format!(": {} is {limit}, and pids.current was {count}", plain(file.display()))
    });
    format!(
        "belljar: `{test}` met a limit that it shares: fork refused {}{seen}. Another test may have used it up: write `pids = ..` on the \
         one that starts so many.",
        Times(times)
    )
}

/// `is_own` is whether the test has written this timeout. Otherwise the environment has.
pub(super) fn timed_out(test: &str, timeout: Duration, is_own: bool, running: &[Process]) -> String {
    let timeout = written_timeout(timeout, is_own);
    format!("{}: it still ran after {timeout}, and was killed with all it had started:{}", failed(test), List(running))
}

/// `makers` are the processes that make sandboxes.
pub(super) fn unanswered(test: &str, timeout: Duration, is_own: bool, makers: &[Process]) -> String {
    let timeout = written_timeout(timeout, is_own);
    format!("{}: it did not begin: after {timeout}, these had made no sandbox for it:{}", failed(test), List(makers))
}

fn written_timeout(timeout: Duration, is_own: bool) -> String {
    match is_own {
        true => format!("its timeout of {timeout:?}"),
        false => format!("{timeout:?}, the timeout that BELLJAR_TIMEOUT gives to tests with none of their own"),
    }
}

pub(super) fn survivors(test: &str, left: &[Process]) -> String {
    format!("belljar: `{test}` is over, and what it left running was killed:{}", List(left))
}

pub(super) fn unkillable(test: &str) -> String {
    format!(
        "belljar: `{test}` has processes that can't be killed. They wait in the kernel for something that does not answer, such as the \
         server of a file system, and end when that does."
    )
}

fn ended(end: End) -> String {
    match end {
        End::Exited(status) => format!("ended with the status {status}"),
        End::Killed { signal, core } => {
            let name = Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |name| name.to_string());
            format!("was killed by {name}{}", if core { " (core dumped)" } else { "" })
        }
    }
}

/// How often something was.
struct Times(u64);

impl Display for Times {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self(1) => f.write_str("once"),
            Self(times) => write!(f, "{times} times"),
        }
    }
}

/// Processes, one a line.
struct List<'p>(&'p [Process]);

impl Display for List<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(processes) = self;
        if processes.is_empty() {
            return write!(f, "\n  (nothing that could be listed)");
        }
        for Process { pid, name, state, waits_in } in processes.iter().take(LISTED) {
            write!(f, "\n  pid {pid} `{}`, {state}", plain(name))?;
            if let Some(function) = waits_in {
                write!(f, " in {function}")?;
            }
        }
        match processes.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}
