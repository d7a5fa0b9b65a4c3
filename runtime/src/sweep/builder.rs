//! What is swept over, and the cases of a sweep.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Termination};
use std::time::Duration;

use super::case::{self, Setting};
use super::report::{Finding, Findings};
use super::swept::{Ended, Swept};
use crate::chance::hash;
use crate::collect::CollectVec as _;
use crate::faults::Fault;
use crate::sandbox::whereabouts;
use crate::sorted::{sort, sort_by};

/// How many cases there are at most, unless [`Sweep::at_most`] says so.
const CASES: usize = 250;

/// How long a body, or a check, may take, unless [`Sweep::timeout`] says so.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a body once for each call that may fail, with that call failing: what does it do to the data?
///
/// First the body runs with no call failing, and the calls that the fault is about are counted. Then, for each call, it runs with that call
/// failing, and once more with that call and all later ones failing. If the fault kills, the second run is left out. Each of these cases has a process of its own, forked from the test's, and its own copy of the directories that [`state`](Self::state) names. When
/// the body has ended, a check looks at what it has left, in one more process.
///
/// ```test_harness
/// # use belljar::isolated;
/// use std::fs;
/// use belljar::{Ended, Fault, Sweep};
///
/// /// A new value, or the old one, whatever fails.
/// fn save(value: &str) -> std::io::Result<()> {
///     fs::write("/data/new", value)?;
///     fs::File::open("/data/new")?.sync_all()?;
///     fs::rename("/data/new", "/data/value")
/// }
///
/// #[isolated]
/// fn no_value_is_lost() {
///     fs::create_dir("/data").unwrap();
///     fs::write("/data/value", "old").unwrap();
///     Sweep::new(Fault::writing().errno(libc::ENOSPC).path("/data/*"))
///         .state("/data")
///         .power_cut()
///         .check(|ended| {
///             let value = fs::read_to_string("/data/value").unwrap();
///             assert!(value == "new" || value == "old" && ended != Ended::Returned, "{value:?}");
///         })
///         .run(|| save("new"));
/// }
/// ```
///
/// A case is bad if the body panics, hangs, or ends its process in another way than by returning, and if the check does. If a case is bad, the
/// sweep panics, and lists up to ten bad cases, each as the [`Fault`] that repeats it.
///
/// The body is to make the same calls in each run, up to the one that fails. It runs in a fork of the test's process, which has one thread; it may
/// start others. The test itself may have no thread but its own when a sweep begins.
#[derive(Debug)]
#[must_use = "nothing runs before `run`"]
pub struct Sweep<'c> {
    fault: Fault,
    directories: Vec<PathBuf>,
    cuts_power: bool,
    at_most: usize,
    seed: u64,
    timeout: Duration,
    check: Check<'c>,
}

struct Check<'c>(Box<dyn Fn(Ended) + 'c>);

impl Debug for Check<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Check")
    }
}

impl<'c> Sweep<'c> {
    /// The calls that this fault is about fail in turn, in the way that it says: by an errno, a short count, a signal. When they fail is the
    /// sweep's: first that call alone, then that call and all that follow. A fault that kills happens once.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            directories: Vec::new(),
            cuts_power: false,
            at_most: CASES,
            seed: 0,
            timeout: TIMEOUT,
            check: Check(Box::new(|_| {})),
        }
    }

    /// A directory of which each case has a copy, with owners, modes, times and links. What is written elsewhere, later cases see.
    pub fn state(mut self, directory: impl AsRef<Path>) -> Self {
        self.directories.push(directory.as_ref().to_path_buf());
        self
    }

    /// When the body has ended, files in the state lose what was written to them after they were last synced, by fsync(2) or fdatasync(2), as they
    /// may if the power goes. A new file that was never synced is empty. Names stay as they are, and a file that was cut stays cut.
    pub fn power_cut(mut self) -> Self {
        self.cuts_power = true;
        self
    }

    /// Runs at most so many cases, 250 by default, and one at least: that of the first call, and others by chance, which [`seed`](Self::seed) decides.
    pub fn at_most(mut self, cases: usize) -> Self {
        self.at_most = cases;
        self
    }

    /// Which cases are run, if not all are. By default, it is 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How long the body, or the check, of a case may take, 10 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Looks at what the body has left. It panics if that is wrong.
    pub fn check(mut self, check: impl Fn(Ended) + 'c) -> Self {
        self.check = Check(Box::new(check));
        self
    }
}

impl Sweep<'_> {
    /// Runs all cases.
    ///
    /// # Panics
    ///
    /// If a case is bad; if the body or the check fails with no call failing; if the body makes no call of the kind; if a case can't be run, as
    /// outside of sandboxes, for another user than root, or while the test has threads.
    #[track_caller]
    pub fn run<T: Termination>(self, body: impl Fn() -> T) -> Swept {
        let succeeds = || body().report() == ExitCode::SUCCESS;
        let setting = Setting {
            directories: &self.directories,
            cuts_power: self.cuts_power,
            timeout: self.timeout,
            body: &succeeds,
            check: &self.check.0,
        };
        match self.sweep(&setting) {
            Ok((swept, findings)) if findings.is_empty() => swept,
            Ok((swept, findings)) => panic!("{}", Findings { swept, findings: &findings }),
            Err(error) => panic!("the sweep can't go on: {error}"),
        }
    }

    fn sweep(&self, setting: &Setting<'_>) -> io::Result<(Swept, Vec<Finding>)> {
        if whereabouts().is_none() {
            return Err(io::Error::other("this is no sandbox: write `#[isolated]` above the test"));
        }
        if self.cuts_power && !self.fault.undoes() {
            let text = format!(
                "{} has calls succeed: after a power cut, nobody knows what such a call has synced",
                self.fault
            );
            return Err(io::Error::other(text));
        }
        // All forks have the filter of this one.
        drop(self.fault.counting().start().map_err(io::Error::other)?);
        let counted = case::run(setting, self.fault.counting())?;
        let what = match counted.end {
            Ok(Ended::Returned) => None,
            Ok(Ended::Failed | Ended::Killed) => Some("the body returned an error".to_owned()),
            Err(found) => Some(found.to_string()),
        };
        if let Some(what) = what {
            return Err(io::Error::other(format!("with no call failing, {what}\n{}", counted.output)));
        }
        let calls = counted.calls;
        if calls == 0 {
            return Err(io::Error::other(format!("the body makes no call that {} is about", self.fault)));
        }
        let faults = self.faults(calls);
        let mut swept = Swept { calls, cases: faults.len(), missed: 0 };
        let mut findings = Vec::new();
        for fault in faults {
            let case = case::run(setting, fault.clone())?;
            swept.missed += usize::from(case.hits == 0);
            if let Err(found) = case.end {
                findings.push(Finding { fault, found, output: case.output });
            }
        }
        if swept.missed == swept.cases {
            let text = format!(
                "with no call failing, the body made {calls} such calls. In each case, it ended before the call that was to fail"
            );
            return Err(io::Error::other(text));
        }
        Ok((swept, findings))
    }

    /// The fault of each case: each call fails alone, and then with all that follow, unless the first ends the body.
    fn faults(&self, calls: u64) -> Vec<Fault> {
        let ends = self.fault.kills();
        let of_call = |call: u64| {
            let alone = self.fault.clone().nth(call);
            let with_all = (!ends).then(|| self.fault.clone().after(call - 1));
            std::iter::once(alone).chain(with_all)
        };
        let each = if ends { 1 } else { 2 };
        let chosen = chosen(calls, (self.at_most / each).max(1), self.seed);
        let mut faults = chosen.into_iter().flat_map(of_call).collect_vec();
        faults.truncate(self.at_most.max(1));
        faults
    }
}

/// Which of so many calls fail, in their order: all, or the first and others by chance.
fn chosen(calls: u64, at_most: usize, seed: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (2..=calls).collect_vec();
    let chance = |call: &u64| (hash(&[seed, *call]), *call);
    sort_by(&mut order, |a, b| chance(a).cmp(&chance(b)));
    order.truncate(at_most.saturating_sub(1));
    order.push(1);
    sort(&mut order);
    order
}
