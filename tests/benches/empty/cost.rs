//! What work costs: wall time, CPU time and page faults of this process and all processes below it.
//!
//! CPU time is what counts where other work waits for the processors, as in CI. It depends less on what else the machine does. It lacks
//! what the kernel's workers do: they take networks and mount tables down, of belljar's sandboxes and of the floor's alike.

use std::fs;
use std::process;
use std::time::{Duration, Instant};

/// How many microseconds a clock tick of proc_pid_stat(5) has: USER_HZ is 100 on all architectures that belljar knows.
const TICK: f64 = 10_000.0;

/// What processes have used so far.
#[derive(Clone, Copy, Default)]
struct Used {
    ticks: u64,
    faults: u64,
}

impl Used {
    /// What this process and all below it have used, those included that have ended and were waited for.
    fn now() -> Self {
        let (mut used, mut pending) = (Self::default(), vec![process::id()]);
        while let Some(pid) = pending.pop() {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
            let field = |number: usize| fields.split(' ').nth(number - 3).and_then(|field| field.parse().ok());
            used.faults += [10, 11].map(|number| field(number).unwrap_or(0)).iter().sum::<u64>();
            used.ticks += [14, 15, 16, 17].map(|number| field(number).unwrap_or(0)).iter().sum::<u64>();
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
            children.for_each(|all| pending.extend(all.split(' ').filter_map(|pid| pid.parse::<u32>().ok())));
        }
        used
    }
}

/// What rounds of tests have cost.
#[derive(Default)]
pub(crate) struct Cost {
    /// Of each round, microseconds a test.
    pub(crate) times: Vec<f64>,
    used: Used,
    tests: f64,
}

impl Cost {
    /// Measures one round, of so many `tests` in all, of which so many run at once. Returns how long it took.
    pub(crate) fn measure(&mut self, tests: impl Into<f64>, work: impl FnOnce()) -> Duration {
        let (tests, before, start) = (tests.into(), Used::now(), Instant::now());
        work();
        let (elapsed, after) = (start.elapsed(), Used::now());
        self.times.push(elapsed.as_secs_f64() * 1e6 / tests);
        self.used.ticks += after.ticks.saturating_sub(before.ticks);
        self.used.faults += after.faults.saturating_sub(before.faults);
        self.tests += tests;
        elapsed
    }

    /// Microseconds of CPU time a test, in the mean: ticks are too long for single rounds.
    fn cpu(&self) -> f64 {
        self.used.ticks as f64 * TICK / self.tests
    }

    fn faults(&self) -> f64 {
        self.used.faults as f64 / self.tests
    }

    pub(crate) fn print_head(first: &str) {
        println!("\n{first:<12} {:>10} {:>8} {:>8} {:>8} {:>8}", "min", "median", "p90", "CPU", "faults");
    }

    pub(crate) fn print(&self, name: &str) {
        print_row(name, self.times.clone(), &[self.cpu(), self.faults()]);
    }

    /// Prints how this relates to `other`, which was measured in turn with it.
    pub(crate) fn print_ratio(&self, name: &str, other: &Self) {
        let ratios = self.times.iter().zip(&other.times).map(|(ours, theirs)| ours / theirs).collect();
        print_row(name, ratios, &[self.cpu() / other.cpu(), self.faults() / other.faults()]);
    }
}

/// Prints the least, the median and the ninth decile of `values`, and then `more`.
pub(crate) fn print_row(name: &str, mut values: Vec<f64>, more: &[f64]) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    let digits = if values[0] < 10.0 { 2 } else { 0 };
    print!("{name:<12} {:>10.digits$} {:>8.digits$} {:>8.digits$}", at(0.0), at(0.5), at(0.9));
    more.iter().for_each(|value| print!(" {value:>8.digits$}"));
    println!();
}
