//! Every sentence that a person reads: what happened, where, why, and what to do.

mod cause;
mod environment;

use std::fmt::{self, Display, Formatter};
use std::time::Duration;
use std::{io, iter};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::cgroup::Trouble;
use crate::frame::Step;
use crate::frame::changes::Change;
use crate::host::account::Account;
use crate::host::census::Process;
use crate::host::judge::Largest;
use crate::spec::{Ids, Spec};
use crate::sys::End;
use crate::text::{Size, error, plain};
pub(crate) use cause::Cause;
pub(crate) use environment::{doctor_asked_for_tests, doctor_instead, doctor_refuses, wrong_environment};

/// How many processes a message lists by name.
const LISTED: usize = 10;

/// What a message about one test begins with.
fn failed(test: &str) -> String {
    format!("belljar: `{test}` failed")
}

// ---- The report ----

pub(crate) fn trace_incomplete(error: &io::Error) -> String {
    format!("belljar: a part of the trace could not be written to the file that BELLJAR_TRACE names: {error}.")
}

/// `count` is of how many tests.
pub(crate) fn report_incomplete(count: usize, error: &io::Error) -> String {
    let tests = if count == 1 { "one test has".to_owned() } else { format!("{count} tests have") };
    format!("belljar: what {tests} cost could not be written to the file that BELLJAR_REPORT names: {error}.")
}

/// What each test has cost. What is not known is a question mark.
pub(crate) fn table(accounts: &[Account]) -> String {
    let known = |figure: Option<String>| figure.unwrap_or_else(|| "?".to_owned());
    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    let heads = ["test", "verdict", "wall", "CPU", "peak memory", "peak pids", "left over"].map(str::to_owned);
    let row = |account: &Account| {
        let left = |left: &Vec<String>| if left.is_empty() { "none".to_owned() } else { left.join(" ") };
        [
            account.test.to_owned(),
            account.verdict.to_owned(),
            milliseconds(account.wall),
            known(account.cpu.map(milliseconds)),
            known(account.memory_peak.map(|bytes| Size(bytes).to_string())),
            known(account.pids_peak.map(|pids| pids.to_string())),
            known(account.left.as_ref().map(left)),
        ]
    };
    let rows: Vec<_> = iter::once(heads).chain(accounts.iter().map(row)).collect();
    let mut table = String::from("\nbelljar: what the tests have cost\n");
    for row in &rows {
        let mut line = String::from(" ");
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
            line.push_str(&match column {
                2..=5 => format!(" {cell:>width$} "),
                _ => format!(" {cell:<width$} "),
            });
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

// ---- Copies ----

/// How many changes a message lists.
const CHANGES_LISTED: usize = 20;

pub(crate) fn changes(test: &str, changes: &[Change]) -> String {
    let line = |change: &Change| match change {
        Change::Created(path) => format!("\n  created {}", plain(path.display())),
        Change::Changed(path) => format!("\n  changed {}", plain(path.display())),
        Change::Removed(path) => format!("\n  removed {}", plain(path.display())),
    };
    let more = match changes.len().saturating_sub(CHANGES_LISTED) {
        0 => String::new(),
        more => format!("\n  and {more} more"),
    };
    let listed: String = changes.iter().take(CHANGES_LISTED).map(line).collect();
    format!("belljar: what `{test}` has changed in its copy of the tree:{listed}{more}")
}

pub(crate) fn changes_unknown(test: &str, error: &io::Error) -> String {
    format!("belljar: what `{test}` has changed in its copy of the tree could not be found out: {error}.")
}

pub(crate) fn no_changes_outside() -> String {
    "belljar: nothing is known of changes here: this is no sandbox, or has closed the descriptor of its report."
        .to_owned()
}

pub(crate) fn no_copy() -> String {
    "belljar: nothing is known of changes here: the root of this sandbox is no copy of another tree. Write `root = \"overlay\"`, or \
     the path of a directory."
        .to_owned()
}

// ---- Groups ----

pub(crate) fn bad_group_name(name: &str) -> String {
    format!(
        "belljar: {name:?} is no name for a group: it must have 1 to 255 bytes, no `/`, not begin with `belljar.`, and be \
         neither `.` nor `..`."
    )
}

pub(crate) fn too_many_descriptors() -> String {
    "belljar: no group: this process may have no more open files. Each group needs up to five; close some, or raise the limit \
     (`ulimit -n`)."
        .to_owned()
}

pub(crate) fn bad_group_value(group: &str, value: &str, expected: &str) -> String {
    format!("belljar: the group `{group}` can't have {value}: expected {expected}.")
}

pub(crate) fn no_group_outside(group: &str) -> String {
    format!(
        "belljar: there can be no group `{group}` here: this is no sandbox, or has closed the descriptor of its report."
    )
}

pub(crate) fn group_needs_proc(group: &str) -> String {
    format!(
        "belljar: the group `{group}` was not frozen: there is no /proc to see whether its processes have stopped. Mount one."
    )
}

pub(crate) fn group_is_elsewhere(group: &str) -> String {
    format!(
        "belljar: this pid namespace does not know the processes of the group `{group}`. Use it in the one that it was made in."
    )
}

pub(crate) fn group_has_caller(group: &str) -> String {
    format!("belljar: the group `{group}` was not frozen, because this process is in it, and would not go on.")
}

/// `cause` is why, if it is known.
pub(crate) fn group_refused(group: &str, trouble: &Trouble, cause: Option<&Cause>) -> String {
    let cause =
        cause.map_or(String::new(), |Cause { why, remedy, .. }| format!("; the cause: {why}; the remedy: {remedy}"));
    let place = match trouble {
        Trouble::Missing(_) => String::new(),
        Trouble::Foreign { path, .. } | Trouble::Refused { path, .. } => format!("{}: ", path.display()),
    };
    format!("belljar: the host does not let the group `{group}` have this: {place}{}{cause}.", Told(trouble))
}

// ---- Tests that are there twice ----

pub(crate) fn repeated(test: &str) -> String {
    format!("belljar: `{test}` is listed twice, and was run once: this is the verdict of the other.")
}

/// All tests that are listed twice.
pub(crate) fn listed_twice(tests: &[&str]) -> String {
    let lines: String = tests.iter().map(|test| format!("  {test}\n")).collect();
    let (count, s) = (tests.len(), if tests.len() == 1 { "" } else { "s" });
    format!(
        "\nbelljar: ran {count} test{s} once that the harness has twice\n{lines}What makes a test of the function stands above \
         `#[isolated]`, or has another name than `test`, so that it can't be seen: write `#[isolated]` first, and call \
         `#[test]` by its name.\n"
    )
}

// ---- No sandbox ----

pub(crate) fn outside(test: &str) -> String {
    format!(
        "{}: it would have run outside of its sandbox, because an attribute below `#[isolated]` has dropped that. Write \
         `#[isolated]` last. All other tests of this binary end with it.\n",
        failed(test)
    )
}

/// The body of `outer` has called `test`.
pub(crate) fn called_inside(test: &str, outer: &str) -> String {
    format!(
        "belljar: the body of `{outer}` has called `{test}`, which is an isolated test itself: no sandbox can be made inside of one. \
         So the process ends here. Put what both do into a function, and call that in both.\n"
    )
}

pub(crate) fn not_a_test_run(test: &str) -> String {
    format!(
        "{}: this process has no zygote, because it was started with `--list` or `--help`. Start it without, to run tests.",
        failed(test)
    )
}

pub(crate) fn no_channel(test: &str, errno: Errno) -> String {
    format!(
        "{}: no descriptors for its sandbox: {}. Raise the limit on open files (`ulimit -n`), or run fewer tests at once \
         (`--test-threads`).",
        failed(test),
        error(errno)
    )
}

pub(crate) fn zygote_gone(test: &str) -> String {
    format!(
        "{}: the zygote of this test binary has been killed, and all sandboxes with it. If it was not you, look for \
         the out-of-memory killer in the kernel's log (`dmesg`).",
        failed(test)
    )
}

pub(crate) fn binary_ends(test: &str) -> String {
    format!(
        "{}: the test binary ends, because something in it has called `exit`, and with it end the sandboxes of all tests that \
         still run.",
        failed(test)
    )
}

pub(crate) fn unborn(test: &str) -> String {
    format!(
        "{}: its sandbox was never made. Either the process that makes sandboxes like it was killed, or the pipes for it did not reach \
         that process: then raise the limit on open files (`ulimit -n`).",
        failed(test)
    )
}

/// `end` is how init has ended, if that is known.
pub(crate) fn init_gone(test: &str, end: Option<End>) -> String {
    let of_init = format!("{}: the init of its sandbox", failed(test));
    let look = "If it was not you, look for the out-of-memory killer in the kernel's log (`dmesg`).";
    match end {
        None => format!("{of_init} is gone, and all processes of the test with it. {look}"),
        Some(End::Killed { signal: libc::SIGKILL, .. }) => {
            format!("{of_init} has been killed from outside, and all processes of the test with it. {look}")
        }
        // So the kernel ends a pid namespace, see reboot(2).
        Some(End::Killed { signal: libc::SIGHUP | libc::SIGINT, .. }) => {
            format!("{of_init} has been ended by reboot(2), and all processes of the test with it.")
        }
        Some(end) => format!(
            "{of_init} {} before it could tell how the test ended. It never should: please report this.",
            ended(end)
        ),
    }
}

pub(crate) fn watching_failed(test: &str, errno: Errno) -> String {
    format!("{}: its sandbox could not be watched: {}.", failed(test), error(errno))
}

/// The sandbox of a test that has failed is kept. Into namespaces that it shares with the host, not everybody is let.
pub(crate) fn kept(failure: &str, spec: &Spec, init: u32) -> String {
    let own = [("user", spec.ids != Ids::Host), ("net", spec.net), ("time", spec.time.is_some())];
    let kinds: String = own.iter().filter(|(_, is_own)| *is_own).map(|(kind, _)| format!(" --{kind}")).collect();
    format!(
        "{failure}\nbelljar: its sandbox is kept. To enter it:\n  nsenter --target {init} --preserve-credentials --mount --pid --ipc --uts \
         --cgroup{kinds} sh\nTo let it go:\n  kill -KILL {init}"
    )
}

pub(crate) fn panicked(test: &str, text: Option<&str>) -> String {
    match text {
        Some(text) => format!("{}: its body panicked: {text}", failed(test)),
        None => format!("{}: its body panicked.", failed(test)),
    }
}

pub(crate) fn did_not_panic(test: &str) -> String {
    format!("{}: its body returned, and should have panicked.", failed(test))
}

pub(crate) fn out_of_time(test: &str) -> String {
    format!("{}: its time is up.", failed(test))
}

/// All tests that were skipped, and why.
pub(crate) fn skipped(tests: &[(&str, String)]) -> String {
    let lines: String = tests.iter().map(|(test, why)| format!("  {test}: {why}\n")).collect();
    let (count, s) = (tests.len(), if tests.len() == 1 { "" } else { "s" });
    format!("\nbelljar: skipped {count} test{s} that this host can't run\n{lines}")
}

/// What is printed when the host can't make a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The step of the set-up, and what it was about.
    step: String,
    error: String,
    cause: Cause,
}

impl Page {
    pub(crate) fn new(step: Step, path: &str, errno: Errno, cause: Cause) -> Self {
        Self::of(step, path, error(errno), cause)
    }

    /// The same, when the limits that the test has written can't be kept.
    pub(crate) fn of_limits(trouble: &Trouble, cause: Cause) -> Self {
        let path = match trouble {
            Trouble::Missing(_) => "".into(),
            Trouble::Foreign { path, .. } | Trouble::Refused { path, .. } => path.to_string_lossy(),
        };
        Self::of(Step::Cgroup, &path, Told(trouble).to_string(), cause)
    }

    fn of(step: Step, path: &str, error: String, cause: Cause) -> Self {
        let place = match path {
            "" => String::new(),
            // A set-up path that is not absolute leads from the sandbox's root.
            path => format!(": /{}", path.trim_start_matches('/')),
        };
        let step = format!("{}{place}", step.what());
        Self { step, error, cause }
    }

    /// The same, when a sandbox could be made, and not even an empty test ran in it as it should.
    pub(crate) fn of_failure(text: &str, cause: Cause) -> Self {
        Self { step: "run an empty test".to_owned(), error: text.to_owned(), cause }
    }

    /// The same, when a sandbox could be made, and a device could not be opened in it.
    pub(crate) fn of_device(path: &str, errno: Errno, cause: Cause) -> Self {
        Self { step: format!("open the device: {path}"), error: error(errno), cause }
    }

    /// Each part, with its name.
    pub(crate) fn fields(&self) -> [(&'static str, &str); 5] {
        let Self { step, error, cause: Cause { why, seen, remedy } } = self;
        [("step", step), ("error", error), ("cause", why), ("seen", seen), ("remedy", remedy)]
    }

    /// All of it, where the host is to blame.
    pub(crate) fn in_full(&self, test: &str) -> String {
        did_not_run(test, &format!("this host does not let its sandbox be set up.{}", self.list("  ")))
    }

    /// All of it, where the test asks for what is not there.
    pub(crate) fn of_mistake(&self, test: &str) -> String {
        did_not_run(test, &format!("what it asks for can't be had.{}", self.list("  ")))
    }

    /// All of it, where too much is in use.
    pub(crate) fn of_moment(&self, test: &str) -> String {
        did_not_run(test, &format!("its sandbox could not be set up at this moment.{}", self.list("  ")))
    }

    /// A line for each part.
    fn list(&self, indent: &str) -> String {
        self.fields().map(|(name, text)| format!("\n{indent}{:<8}{text}", format!("{name}:"))).concat()
    }

    /// One line, where the whole has been printed for the test `first`.
    pub(crate) fn in_short(&self, test: &str, first: &str) -> String {
        did_not_run(test, &format!("{}; the remedy: {} (as for `{first}`)", self.summary(), self.cause.remedy))
    }

    /// One line, for a test that was skipped.
    pub(crate) fn skipped(&self, test: &str) -> String {
        format!("belljar: skipped: `{test}`: {}; the remedy: {}", self.summary(), self.cause.remedy)
    }

    /// What the host refuses, and why.
    pub(crate) fn summary(&self) -> String {
        format!("could not {}: {}; the cause: {}", self.step, self.error, self.cause.why)
    }
}

/// What can be had, and what can't: what it is, how it is written, and why it can't be had.
pub(crate) fn diagnosis(rows: &[(&str, &str, Option<&Page>)], is_well: bool) -> String {
    let width = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or_default();
    let mut told: Vec<(&Page, &str)> = Vec::new();
    let mut text = String::from("belljar: what this host lets sandboxes have\n");
    for (name, written, fault) in rows {
        let mark = if fault.is_none() { '✓' } else { '✗' };
        text += &format!("  {mark} {name:<width$}  {written}\n");
        let Some(page) = fault else { continue };
        match told.iter().find(|(known, _)| known == page) {
            Some((_, first)) => text += &format!("      as for {first}\n"),
            None => {
                text += page.list("      ").trim_start_matches('\n');
                text.push('\n');
                told.push((page, name));
            }
        }
    }
    let sum = if is_well { "Tests with `#[isolated]` run here." } else { "Tests with `#[isolated]` can't run here." };
    text + sum + "\n"
}

fn did_not_run(test: &str, why: &str) -> String {
    format!("belljar: `{test}` did not run: {why}")
}

/// What is the matter with a cgroup, but for where it is.
struct Told<'t>(&'t Trouble);

impl Display for Told<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(trouble) = self;
        match trouble {
            Trouble::Missing(controller) => {
                write!(f, "no hierarchy that could be reached has the controller `{}`", controller.name())
            }
            Trouble::Foreign { names, .. } => {
                let listed: Vec<_> = names.iter().take(LISTED).map(|name| format!("`{name}`")).collect();
                let listed = if listed.is_empty() { String::new() } else { format!(" ({})", listed.join(", ")) };
                write!(f, "it holds processes that are not of this test run{listed}, and so can't be divided")
            }
            Trouble::Refused { errno, .. } => f.write_str(&error(*errno)),
        }
    }
}

// ---- How tests end ----

pub(crate) fn returned_failure(test: &str, status: u8) -> String {
    format!("{}: it returned a value that stands for the status {status}, which means failure.", failed(test))
}

pub(crate) fn ended_before_return(test: &str, end: End, exiting: bool) -> String {
    let what = match end {
        End::Exited(status) if exiting => format!("exit({status})"),
        End::Exited(status) => format!("_exit({status})"),
        End::Killed { .. } => return killed(test, end),
    };
    format!(
        "{}: its process called {what} before the body returned. A test passes by returning: let a child process exit \
         in its place.",
        failed(test)
    )
}

pub(crate) fn execed(test: &str, end: End) -> String {
    format!(
        "{}: its process ran another program in its place (exec), which {}. A test passes by returning: exec in a child \
         process.",
        failed(test),
        ended(end)
    )
}

pub(crate) fn unreported(test: &str) -> String {
    format!(
        "{}: its process could not report how the body ended, because the body closed the descriptor of the report, or \
         shut it down. Close only descriptors that you opened, or close the others in a child process.",
        failed(test)
    )
}

pub(crate) fn killed(test: &str, end: End) -> String {
    format!("{}: its process {} before the body returned.", failed(test), ended(end))
}

pub(crate) fn stack_overflow(test: &str) -> String {
    format!(
        "{}: stack overflow: the test's thread used up its stack. Recurse less, or ask for more (RUST_MIN_STACK).",
        failed(test)
    )
}

/// No handler ran, although one was there: it had no stack to run on.
pub(crate) fn stack_overflow_elsewhere(test: &str, end: End) -> String {
    format!(
        "{}: its process {}, and no handler could run: most likely a stack overflow on a thread that the test started. \
         Recurse less there, or give the thread more (thread::Builder::stack_size).",
        failed(test),
        ended(end)
    )
}

pub(crate) fn fault(test: &str, end: End, address: u64) -> String {
    format!("{}: its process {} when it used the invalid address {address:#x}.", failed(test), ended(end))
}

pub(crate) fn ended_badly_after(test: &str, what: &str, end: End) -> String {
    format!("{}: the body {what}, but then its process {} instead of ending cleanly.", failed(test), ended(end))
}

pub(crate) fn rubbish(test: &str, bytes: usize) -> String {
    format!(
        "{}: something in its sandbox wrote {bytes} bytes to the descriptor of the report, which can't be trusted any \
         more. Write only to descriptors that you opened.",
        failed(test)
    )
}

pub(crate) fn out_of_memory(test: &str, limit: u64, peak: Option<u64>, largest: Option<&Largest>) -> String {
    let peak = peak.map_or(String::new(), |peak| format!(", peak {}", Size(peak)));
    let largest = largest.map_or(String::new(), |Largest { bytes, name, had_children }| {
        let name = name.as_deref().unwrap_or(test);
        let or_child = if *had_children { " or a child of it" } else { "" };
        format!(", largest: `{}`{or_child} {}", plain(name), Size(*bytes))
    });
    format!("{}: killed: out of memory (limit {}{peak}{largest}).", failed(test), Size(limit))
}

// ---- What of its sandbox a test may have met. Each follows a colon. ----

pub(crate) fn note_on_read_only() -> &'static str {
    "what it has of the host is read-only. bind = [\"/path:rw\"] gives it a path to write to, and root = \"overlay\" a private copy of \
     the whole tree"
}

pub(crate) fn note_on_names() -> &'static str {
    "it has a network of its own, without name servers. Names can be written to /etc/hosts; #[isolated(mount)] has the host's network"
}

pub(crate) fn note_on_network() -> &'static str {
    "it has a network of its own, with `lo` alone. #[isolated(mount)] has the host's network"
}

pub(crate) fn note_on_ids() -> &'static str {
    "there is no user and no group but root. uids = 65536 has more"
}

pub(crate) fn note_on_processes(limit: u32) -> String {
    format!("fork refused, as it has as many processes and threads as it may have: pids limit {limit}")
}

pub(crate) fn forks_refused(test: &str, times: u64, limit: u32) -> String {
    let times = if times == 1 { "once".to_owned() } else { format!("{times} times") };
    format!("belljar: `{test}` reached its limit: fork refused {times}: pids limit {limit}.")
}

/// `is_own` is whether the test has written this timeout. Otherwise the environment has.
pub(crate) fn timed_out(test: &str, timeout: Duration, is_own: bool, running: &[Process]) -> String {
    let timeout = written_timeout(timeout, is_own);
    format!("{}: it still ran after {timeout}, and was killed with all it had started:{}", failed(test), List(running))
}

/// `makers` are the processes that make sandboxes.
pub(crate) fn unanswered(test: &str, timeout: Duration, is_own: bool, makers: &[Process]) -> String {
    let timeout = written_timeout(timeout, is_own);
    format!("{}: it did not begin. After {timeout}, these had made no sandbox for it:{}", failed(test), List(makers))
}

fn written_timeout(timeout: Duration, is_own: bool) -> String {
    match is_own {
        true => format!("its timeout of {timeout:?}"),
        false => format!("{timeout:?}, the timeout that BELLJAR_TIMEOUT gives to tests with none of their own"),
    }
}

pub(crate) fn survivors(test: &str, left: &[Process]) -> String {
    format!("belljar: `{test}` is over, and what it left running was killed:{}", List(left))
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
