//! What tests have cost, told where `BELLJAR_REPORT` says: line by line in a file, or as a table at the end of the run.

use std::any::Any;
use std::fs::File;
use std::io::{self, Write as _};
use std::mem;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::evidence::Evidence;
use super::judge::Verdict;
use crate::collect::CollectVec as _;
use crate::json::{self, Json};
use crate::rootfs::plan::check_answer;
use crate::settings::{BadSetting, Report, Variable, settings};
use crate::spec::Test;
use crate::sys::{self, errno_of};
use crate::terminal::Terminal;
use crate::text::{Size, plain};

enum Destination {
    /// A file that gets a line for each test, as soon as it is over, in JSON.
    Lines(File),
    /// A file that there is no room for.
    Full,
    /// The standard error stream, at the end of the run.
    Table(Mutex<Vec<Cost>>),
}

/// What one test has cost. What is not known is `None`.
#[derive(Debug)]
pub(crate) struct Cost {
    pub(crate) test: &'static str,
    pub(crate) verdict: &'static str,
    pub(crate) wall: Duration,
    pub(crate) cpu: Option<Duration>,
    pub(crate) memory_peak: Option<u64>,
    pub(crate) pids_peak: Option<u64>,
    /// The names of the processes that it left. Not known where it did not come so far.
    pub(crate) left: Option<Vec<String>>,
}

impl Cost {
    fn new(test: &Test, verdict: &Verdict, wall: Duration, evidence: Option<&Evidence>) -> Self {
        let usage = evidence.map(|evidence| evidence.usage).unwrap_or_default();
        let ended = evidence.and_then(|evidence| evidence.ended);
        let names = |evidence: &Evidence| evidence.survivors.iter().map(|process| process.name.clone()).collect_vec();
        Self {
            test: test.name,
            verdict: match verdict {
                Verdict::Passed => "passed",
                Verdict::Panicked(_) => "panicked",
                Verdict::Skipped(_) => "skipped",
                Verdict::Failed(_) => "failed",
            },
            wall,
            cpu: usage.cpu.or(ended.and_then(|ended| ended.cpu)),
            memory_peak: usage.memory_peak,
            pids_peak: usage.pids_peak,
            left: ended.and(evidence).map(names),
        }
    }

    /// One line.
    fn to_json(&self) -> String {
        let Self { test, verdict, wall, cpu, memory_peak, pids_peak, left } = self;
        let names = |left: &Vec<String>| left.iter().map(|name| Json::from(name.as_str())).collect::<Json>();
        let line = Json::object(vec![
            ("test", (*test).into()),
            ("verdict", (*verdict).into()),
            ("wall_seconds", wall.as_secs_f64().into()),
            ("cpu_seconds", cpu.map(|cpu| cpu.as_secs_f64()).into()),
            ("memory_peak_bytes", (*memory_peak).into()),
            ("pids_peak", (*pids_peak).into()),
            ("left_over", left.as_ref().map(names).into()),
            ("version", json::VERSION.into()),
        ]);
        format!("{line}\n")
    }
}

static DESTINATION: OnceLock<Result<Option<Destination>, BadSetting>> = OnceLock::new();

/// The report that is asked for, if there is one. The first call opens the file.
fn destination() -> Result<Option<&'static Destination>, &'static BadSetting> {
    DESTINATION.get_or_init(find_destination).as_ref().map(Option::as_ref)
}

fn find_destination() -> Result<Option<Destination>, BadSetting> {
    let path = match &settings().report {
        None => return Ok(None),
        Some(Report::Table) => return Ok(Some(Destination::Table(Mutex::default()))),
        Some(Report::Lines(path)) => path,
    };
    // A FIFO that nobody reads is no place for it, and must not be waited for.
    let open = || File::options().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path);
    match check_answer(path).map_err(io::Error::from).and_then(|()| open()) {
        Ok(file) => Ok(Some(Destination::Lines(file))),
        Err(error) if is_full(&error) => Ok(Some(Destination::Full)),
        Err(error) => Err(BadSetting::File { variable: Variable::Report, path: path.clone(), errno: errno_of(&error) }),
    }
}

/// Fails if a report is asked for that can't be had.
pub(super) fn check() -> Result<(), &'static BadSetting> {
    destination().map(drop)
}

/// Takes down what a test that is over has cost.
pub(super) fn collect(test: &Test, verdict: &Verdict, wall: Duration, evidence: Option<&Evidence>) {
    let Ok(Some(destination)) = destination() else { return };
    let cost = Cost::new(test, verdict, wall, evidence);
    match destination {
        // One call for one line: several test binaries may append to the same file.
        Destination::Lines(file) => {
            if let Err(error) = sys::without_size_signal(|| { file }.write_all(cost.to_json().as_bytes())) {
                lose(error);
            }
        }
        Destination::Full => lose(Errno::ENOSPC.into()),
        Destination::Table(costs) => costs.lock().unwrap_or_else(PoisonError::into_inner).push(cost),
    }
}

/// Has no other thread add to the table meanwhile, if there is one, or note that a line is lost.
pub(super) fn hold() -> [Option<Box<dyn Any>>; 2] {
    let table = match destination() {
        Ok(Some(Destination::Table(costs))) => Some(costs.lock().unwrap_or_else(PoisonError::into_inner)),
        _ => None,
    };
    let lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
    [table.map(|table| Box::new(table) as Box<dyn Any>), Some(Box::new(lost))]
}

/// Whether there is no room, which is no bad setting.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(errno_of(error), Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG)
}

/// How many lines could not be written, and why the first could not.
static LOST: Mutex<Option<(usize, io::Error)>> = Mutex::new(None);

fn lose(error: io::Error) {
    let mut lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
    lost.get_or_insert((0, error)).0 += 1;
}

/// Prints the table, if that was asked for, and what could not be written. To be called when no test runs any more.
pub(crate) fn print() {
    if let Some((count, error)) = LOST.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = writeln!(io::stderr(), "{}", incomplete(count, &error));
    }
    // If no test has run, nobody has looked for it yet.
    let Some(Ok(Some(Destination::Table(costs)))) = DESTINATION.get() else { return };
    let costs = mem::take(&mut *costs.lock().unwrap_or_else(PoisonError::into_inner));
    if !costs.is_empty() {
        let terminal = Terminal::of(&io::stderr(), settings().colours);
        let _ = io::stderr().write_all(table(&costs, terminal).as_bytes());
    }
}

/// The least that is shown of a test's name.
const NAME: usize = 16;

/// What each test has cost. What is not known is a question mark. Where that is wider than the terminal, names lose their beginnings.
fn table(costs: &[Cost], terminal: Terminal) -> String {
    let known = |figure: Option<String>| figure.unwrap_or_else(|| "?".to_owned());
    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    const HEADS: [&str; 7] = ["test", "verdict", "wall", "CPU", "peak memory", "peak pids", "left over"];
    let left = |left: &Vec<String>| if left.is_empty() { "none".to_owned() } else { plain(left.join(" ")) };
    let mut rows = vec![HEADS.iter().map(|head| (*head).to_owned()).collect_vec()];
    for cost in costs {
        rows.push(vec![
            cost.test.to_owned(),
            cost.verdict.to_owned(),
            milliseconds(cost.wall),
            known(cost.cpu.map(milliseconds)),
            known(cost.memory_peak.map(|bytes| Size(bytes).to_string())),
            known(cost.pids_peak.map(|pids| pids.to_string())),
            known(cost.left.as_ref().map(left)),
        ]);
    }
    let mut widths = [0; HEADS.len()];
    let widen = |widths: &mut [usize], row: &[String]| {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    };
    rows.iter().for_each(|row| widen(&mut widths, row));
    if let Some(columns) = terminal.columns {
        let others: usize = widths[1..].iter().map(|width| width + 2).sum();
        let room = columns.saturating_sub(1 + others + 2).max(NAME);
        widths[0] = 0;
        for row in &mut rows {
            row[0] = Terminal::shortened(&row[0], room);
            widen(&mut widths[..1], row);
        }
    }
    let mut table = String::from("\nbelljar: what the tests have cost\n");
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::from(" ");
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let cell = match column {
                2..=5 => format!(" {cell:>width$} "),
                6 => format!(" {cell}"),
                _ => format!(" {cell:<width$} "),
            };
            line.push_str(&match (index, row[1].as_str()) {
                (0, _) => terminal.strong(&cell),
                (_, "failed") if column == 1 => terminal.bad(&cell),
                (_, "passed") if column == 1 => terminal.good(&cell),
                _ => cell,
            });
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

/// `count` is of how many tests.
fn incomplete(count: usize, error: &io::Error) -> String {
    let tests = if count == 1 { "one test has".to_owned() } else { format!("{count} tests have") };
    format!("belljar: what {tests} cost could not be written to the file that BELLJAR_REPORT names: {error}.")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn costs() -> [Cost; 2] {
        let known = Cost {
            test: "package::a",
            verdict: "passed",
            wall: Duration::from_micros(12_345),
            cpu: Some(Duration::from_millis(7)),
            memory_peak: Some(3 << 19),
            pids_peak: Some(12),
            left: Some(vec!["sleep".to_owned(), "a\n".to_owned()]),
        };
        let unknown = Cost {
            test: "other::b",
            verdict: "panicked",
            wall: Duration::from_secs(1),
            cpu: None,
            memory_peak: None,
            pids_peak: None,
            left: None,
        };
        [known, unknown]
    }

    #[test]
    fn costs_are_a_table_or_lines() {
        let costs = costs();
        assert_snapshot!(table(&costs, Terminal::NONE).trim_start(), @r#"
        belljar: what the tests have cost
          test        verdict        wall     CPU  peak memory  peak pids  left over
          package::a  passed      12.3 ms  7.0 ms      1.5 MiB         12  sleep a\n
          other::b    panicked  1000.0 ms       ?            ?          ?  ?
        "#);
        assert_snapshot!(costs.each_ref().map(Cost::to_json).concat(), @r#"
        {"cpu_seconds":0.007,"left_over":["sleep","a\n"],"memory_peak_bytes":1572864,"pids_peak":12,"test":"package::a","verdict":"passed","version":1,"wall_seconds":0.012345}
        {"cpu_seconds":null,"left_over":null,"memory_peak_bytes":null,"pids_peak":null,"test":"other::b","verdict":"panicked","version":1,"wall_seconds":1.0}
        "#);
    }

    #[test]
    fn a_table_fits_its_terminal() {
        let mut costs = costs();
        costs[1].test = "other::module::of::tests::that::has::a::long::name";
        costs[1].verdict = "failed";
        let terminal = Terminal { has_colours: true, columns: Some(90) };
        assert_snapshot!(table(&costs, terminal).replace('\x1b', "ESC").trim_start(), @r"
        belljar: what the tests have cost
         ESC[1m test                     ESC[0mESC[1m verdict ESC[0mESC[1m      wall ESC[0mESC[1m    CPU ESC[0mESC[1m peak memory ESC[0mESC[1m peak pids ESC[0mESC[1m left overESC[0m
          package::a               ESC[32m passed  ESC[0m   12.3 ms  7.0 ms      1.5 MiB         12  sleep a\n
          …hat::has::a::long::name ESC[31m failed  ESC[0m 1000.0 ms       ?            ?          ?  ?
        ");
    }

    #[test]
    fn what_is_lost_is_told() {
        let error = io::Error::from(Errno::ENOSPC);
        assert_snapshot!([1, 2].map(|count| incomplete(count, &error)).join("\n"), @"
        belljar: what one test has cost could not be written to the file that BELLJAR_REPORT names: No space left on device (os error 28).
        belljar: what 2 tests have cost could not be written to the file that BELLJAR_REPORT names: No space left on device (os error 28).
        ");
    }
}
