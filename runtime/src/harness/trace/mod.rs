//! What was done when, and who waited for whom, as `BELLJAR_TRACE` asks: in the trace event format of browsers' trace viewers,
//! which [Perfetto](https://perfetto.dev/docs/getting-started/other-formats) describes.
//!
//! Each thread that runs a test has a row, and each sandbox. Rows are used again.

mod event;

use std::any::Any;
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{process, thread};

use nix::errno::Errno;

use self::event::{args, arrow, duration, event, instant};
use super::report::is_full;
use crate::frame::{Moment, Step};
use crate::json::Json;
use crate::proc;
use crate::rootfs::plan::check_answer;
use crate::settings::{BadSetting, Variable, settings};
use crate::sorted::sort_by;
use crate::spec::Test;
use crate::sys::{self, Locked, now};

static PATH: LazyLock<Result<Option<&'static Path>, BadSetting>> = LazyLock::new(find_path);

/// Where the trace goes, if one is wanted. The first call opens the file.
fn path() -> Result<Option<&'static Path>, &'static BadSetting> {
    PATH.as_ref().map(|path| *path)
}

fn find_path() -> Result<Option<&'static Path>, BadSetting> {
    let Some(path) = &settings().trace else { return Ok(None) };
    let program = proc::arguments().into_iter().next().unwrap_or_default();
    let name = format!("{} ({})", program.to_string_lossy(), process::id());
    match append(path, &[event("M", "process_name", vec![args("name", &name)])]) {
        Ok(()) => Ok(Some(path)),
        Err(error) if is_full(&error) => {
            lost().get_or_insert(error);
            Ok(Some(path))
        }
        Err(error) => Err(match error.raw_os_error() {
            Some(number) => {
                BadSetting::File { variable: Variable::Trace, path: path.clone(), errno: Errno::from_raw(number) }
            }
            None => BadSetting::NoTrace(path.clone()),
        }),
    }
}

/// Fails if a trace is asked for that can't be had.
pub(super) fn check() -> Result<(), &'static BadSetting> {
    path().map(drop)
}

fn is_wanted() -> bool {
    matches!(path(), Ok(Some(_)))
}

/// What begins a file of events, and no other file.
const BEGIN: &str = r#"[
{"args":{},"name":"belljar","ph":"M","pid":0}"#;

/// What separates them. It is in none: JSON has no line breaks within strings.
const SEPARATOR: &str = ",\n";

/// What ends the file.
const END: &str = "\n]\n";

/// How long another test binary may write to the file, which takes it some microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Adds events to the file, an array in JSON, which stays one. Several test binaries may do so at once.
fn append(path: &Path, events: &[Json]) -> io::Result<()> {
    check_answer(path)?;
    let file = File::options().read(true).write(true).create(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let file = lock(file)?;
    let kept = end_of_events(&file)?;
    let mut text = String::from(if kept == 0 { BEGIN } else { "" });
    for event in events {
        text += SEPARATOR;
        text += &event.to_string();
    }
    text += END;
    sys::without_size_signal(|| {
        let written = file.write_all_at(text.as_bytes(), kept);
        if written.is_err() {
            // As it was. There is room for that.
            let end = if kept == 0 { "" } else { END };
            let _ = file.set_len(kept).and_then(|()| file.write_all_at(end.as_bytes(), kept));
        }
        written
    })
}

fn lock(mut file: File) -> io::Result<Locked> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Locked::new(file, libc::LOCK_EX | libc::LOCK_NB) {
            Err((same, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = same,
            result => return result.map_err(|(_, errno)| errno.into()),
        }
        // flock(2) can wait, but not for so long and no longer.
        thread::sleep(Duration::from_millis(1));
    }
}

/// Where the events in the file end; 0 if there are none yet. What is no trace is left as it is. What a test binary has left that
/// was killed while it wrote is cut off.
fn end_of_events(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut found = vec![0; BEGIN.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
    file.read_exact_at(&mut found, 0)?;
    if !BEGIN.as_bytes().starts_with(&found) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if found.len() < BEGIN.len() {
        return Ok(0);
    }
    let end = length.saturating_sub(END.len() as u64);
    let mut found = [0; END.len()];
    file.read_exact_at(&mut found, end)?;
    if found == END.as_bytes() {
        return Ok(end);
    }
    let mut all = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_exact_at(&mut all, 0)?;
    let end =
        all.windows(SEPARATOR.len()).rposition(|bytes| bytes == SEPARATOR.as_bytes()).unwrap_or(BEGIN.len()) as u64;
    file.set_len(end)?;
    Ok(end)
}

fn write(events: &[Json]) {
    // Who does not answer is not asked again.
    let is_silent = lost().as_ref().is_some_and(|error| sys::errno_of(error) == Errno::ETIMEDOUT);
    if let (Ok(Some(path)), false) = (path(), is_silent) {
        if let Err(error) = append(path, events) {
            lost().get_or_insert(error);
        }
    }
}

/// Why a part could not be written: the first time that it could not.
static LOST: Mutex<Option<io::Error>> = Mutex::new(None);

fn lost() -> MutexGuard<'static, Option<io::Error>> {
    LOST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells that a part could not be written, if that is so. To be called when no test runs any more.
pub(crate) fn print() {
    if let Some(error) = &*lost() {
        let text = "belljar: a part of the trace could not be written to the file that BELLJAR_TRACE names";
        let _ = writeln!(io::stderr(), "{text}: {error}.");
    }
}

/// Has no other thread take or give back a row, or note that a part is lost, meanwhile.
pub(super) fn hold() -> [Box<dyn Any>; 3] {
    let hold = |rows: &'static Rows| Box::new(rows.lock()) as Box<dyn Any>;
    [hold(&THREADS), hold(&SANDBOXES), Box::new(lost())]
}

/// The rows of one kind: which are in use.
struct Rows {
    name: &'static str,
    first: usize,
    used: Mutex<Vec<bool>>,
}

static THREADS: Rows = Rows { name: "thread", first: 1, used: Mutex::new(Vec::new()) };
static SANDBOXES: Rows = Rows { name: "sandbox", first: 1001, used: Mutex::new(Vec::new()) };

/// A row, as long as it is in use.
struct Row {
    rows: &'static Rows,
    at: usize,
}

impl Rows {
    fn lock(&self) -> MutexGuard<'_, Vec<bool>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&'static self) -> Row {
        let mut used = self.lock();
        let at = used.iter().position(|used| !used).unwrap_or(used.len());
        if at < used.len() {
            used[at] = true;
        } else {
            used.push(true);
        }
        Row { rows: self, at }
    }
}

impl Row {
    fn number(&self) -> u64 {
        (self.rows.first + self.at) as u64
    }

    /// What names it.
    fn title(&self) -> Json {
        let name = args("name", &format!("{} {}", self.rows.name, self.at + 1));
        event("M", "thread_name", vec![name, ("tid", self.number().into())])
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let mut used = self.rows.lock();
        if let Some(used) = used.get_mut(self.at) {
            *used = false;
        }
    }
}

// ---- Threads that run tests ----

/// What this thread has done for the test that it runs.
struct Record {
    row: Row,
    events: Vec<Json>,
}

thread_local! {
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

/// The time that a thread spends on a test. When it is dropped, all that was done is written.
pub(super) struct TestSpan {
    test: &'static Test,
    begin: u64,
    /// The record of the test that waits for this one, if this is a preparation: both are on one thread.
    outer: Option<Record>,
}

/// A test begins on this thread.
pub(super) fn test(test: &'static Test) -> Option<TestSpan> {
    if !is_wanted() {
        return None;
    }
    let row = THREADS.take();
    let events = vec![row.title()];
    let outer = RECORD.replace(Some(Record { row, events }));
    Some(TestSpan { test, begin: now(), outer })
}

impl Drop for TestSpan {
    fn drop(&mut self) {
        if let Some(Record { row, mut events }) = RECORD.replace(self.outer.take()) {
            events.push(duration(row.number(), self.test.short_name(), "", self.begin, now()));
            write(&events);
        }
    }
}

/// The time that something takes that this thread does for a test.
pub(super) struct Span {
    name: &'static str,
    begin: u64,
}

/// This thread does something, until the span is dropped.
pub(super) fn span(name: &'static str) -> Option<Span> {
    is_wanted().then(|| Span { name, begin: now() })
}

impl Drop for Span {
    fn drop(&mut self) {
        RECORD.with_borrow_mut(|record| {
            if let Some(Record { row, events }) = record {
                events.push(duration(row.number(), self.name, "", self.begin, now()));
            }
        });
    }
}

/// A time at which this thread does something, for an arrow from there.
fn here() -> Option<(u64, u64)> {
    RECORD.with_borrow(|record| record.as_ref().map(|record| (record.row.number(), now())))
}

// ---- Sandboxes ----

/// The life of a sandbox, as it has told it. When it is dropped, it is written.
pub(super) struct Life {
    row: Row,
    /// Where it was asked for, and where the test was handed over.
    asked: Option<(u64, u64)>,
    told: Option<(u64, u64)>,
    test: Option<&'static Test>,
    moments: Vec<(Moment, u64, String)>,
    /// The faults that its calls have met.
    met: Vec<(u64, String)>,
    /// How faults of its laboratories were changed.
    changes: Vec<(u64, String)>,
    /// How many of these changes there was no room for, and when the first was.
    left_out: Option<(u64, u64)>,
    /// How many bytes `changes` has.
    changed_bytes: usize,
    /// How many bytes it has told.
    told_bytes: usize,
}

/// The most bytes that one sandbox may tell, of its set-up and of faults. A real one tells far less.
const TOLD_MAX: usize = 1 << 20;

/// A sandbox is asked for, and that on this thread.
pub(super) fn life() -> Option<Life> {
    is_wanted().then(Life::new)
}

impl Life {
    pub(super) fn new() -> Self {
        Self {
            row: SANDBOXES.take(),
            asked: here(),
            told: None,
            test: None,
            moments: Vec::new(),
            met: Vec::new(),
            changes: Vec::new(),
            left_out: None,
            changed_bytes: 0,
            told_bytes: 0,
        }
    }

    pub(super) fn begin(&mut self, test: &'static Test) {
        (self.told, self.test) = (here(), Some(test));
    }

    /// Takes down what the sandbox tells. `false` if it has told more than [`TOLD_MAX`].
    pub(super) fn mark(&mut self, moment: Moment, at: u64, path: &[u8]) -> bool {
        self.told_bytes = self.told_bytes.saturating_add(size_of::<(Moment, u64)>() + path.len());
        let fits = self.told_bytes <= TOLD_MAX;
        if fits {
            self.moments.push((moment, at, String::from_utf8_lossy(path).into_owned()));
        }
        fits
    }

    /// A call has met a fault.
    pub(super) fn meet(&mut self, at: u64, what: String) {
        self.met.push((at, what));
    }

    /// A fault of a laboratory was changed.
    pub(super) fn change(&mut self, at: u64, what: &[u8]) {
        self.changed_bytes = self.changed_bytes.saturating_add(size_of::<(u64, String)>() + what.len());
        if self.changed_bytes <= TOLD_MAX {
            self.changes.push((at, String::from_utf8_lossy(what).into_owned()));
        } else {
            let (count, _) = self.left_out.get_or_insert((0, at));
            *count += 1;
        }
    }

    /// The test has ended.
    pub(super) fn end(&mut self) {
        self.mark(Moment::Ended, now(), b"");
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let row = self.row.number();
        let test = self.test.map_or("", Test::short_name);
        let mut events = vec![self.row.title()];
        // They come from three processes, of which each keeps its order.
        sort_by(&mut self.moments, |(_, a, _), (_, b, _)| a.cmp(b));
        for (moment, from, name) in [(Moment::Requested, self.asked, "ask"), (Moment::Told, self.told, "run")] {
            if let (Some((_, at, _)), Some(from)) = (self.moments.iter().find(|(other, ..)| *other == moment), from) {
                events.extend(arrow(name, from, (row, *at)));
            }
        }
        for ((before, begin, _), (moment, end, path)) in self.moments.iter().zip(self.moments.iter().skip(1)) {
            let name = match moment {
                Moment::Begins => Step::Clone.what(),
                Moment::Done(step) => step.what(),
                Moment::Waits => Step::Fork.what(),
                Moment::Told => "wait for a test",
                Moment::BodyBegins => Step::Thread.what(),
                Moment::BodyEnds => test,
                _ if *before == Moment::BodyBegins => test,
                _ => "end the processes",
            };
            events.push(duration(row, name, path, *begin, *end));
        }
        for (at, what) in self.met.iter().chain(&self.changes) {
            events.push(instant(row, what, *at));
        }
        if let Some((count, at)) = self.left_out {
            events.push(instant(row, &format!("{count} more changes of faults are not shown"), at));
        }
        write(&events);
    }
}
