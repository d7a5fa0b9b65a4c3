//! Finds out what this host lets sandboxes have, by making one of each kind.

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::fs::OpenOptions;
use std::io::stdout;
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs, process};

use nix::errno::Errno;

use super::bad_settings;
use super::judge::{Obstacle, Verdict};
use super::run::run_and_judge;
use super::run_by::RunBy;
use crate::collect::CollectVec as _;
use crate::diagnosis::Page;
use crate::diagnosis::{self, unknown};
use crate::frame::Outcome;
use crate::json::{self, Json};
use crate::proc::{self, text_of};
use crate::rootfs::context::target_of;
use crate::settings::{BadSetting, Form, Settings, Variable, settings};
use crate::spec::{Ids, Root, Spec, Test};
use crate::sys::{self, errno_of};
use crate::terminal::Terminal;

/// What this host lets sandboxes have.
///
/// As text it is a table: what can be had, and what can't, with the cause, and what to do about it.
///
/// ```
/// let diagnosis = belljar::doctor();
/// println!("{diagnosis}");
/// assert!(diagnosis.to_string().contains("#[isolated]"));
/// ```
#[derive(Clone, Debug)]
pub struct Diagnosis {
    found: Vec<Found>,
}

/// What was found out about one kind of sandbox.
#[derive(Clone, Debug)]
struct Found {
    probe: &'static Probe,
    /// Why there can be none.
    refusal: Option<Page>,
}

/// A kind of sandbox.
#[derive(Debug)]
struct Probe {
    /// What it offers.
    name: &'static str,
    /// How a test asks for it.
    written: &'static str,
    /// A test that does. It is empty, or opens a device.
    test: Test,
    /// The path of that device.
    device: Option<&'static str>,
}

const fn probe(name: &'static str, written: &'static str, spec: Spec) -> Probe {
    let test = Test { name, arguments: written, spec, ..Test::PLAIN };
    Probe { name, written, test, device: None }
}

/// `open` returns the number of the error.
const fn device(path: &'static str, open: fn() -> u8) -> Probe {
    let probe = probe("a device", path, Spec::PLAIN);
    Probe { test: Test { body: open, ..probe.test }, device: Some(path), ..probe }
}

/// The first of them is what nearly all tests need.
static PROBES: [Probe; 13] = [
    probe("a sandbox", "#[isolated]", Spec::PLAIN),
    probe("namespaces alone", "#[isolated(uts)]", Spec { net: false, mount: false, ..Spec::PLAIN }),
    probe("a network of its own", "#[isolated(net)]", Spec { mount: false, ..Spec::PLAIN }),
    probe("a root of its own", "#[isolated(mount)]", Spec { net: false, ..Spec::PLAIN }),
    probe("a copy of the host's tree", "root = \"overlay\"", Spec { root: Root::Overlay, ..Spec::PLAIN }),
    probe("an ordinary user", "user = 1000", Spec { user: Some((1000, 1000)), ..Spec::PLAIN }),
    probe("several users", "uids = 65536", Spec { ids: Ids::Range(65536), ..Spec::PLAIN }),
    probe("clocks of its own", "time", Spec { time: Some([Duration::ZERO; 2]), ..Spec::PLAIN }),
    probe("a limit on memory", "memory = \"64MiB\"", Spec { memory: Some(64 << 20), ..Spec::PLAIN }),
    probe("a limit on processes", "pids = 32", Spec { pids: Some(32), ..Spec::PLAIN }),
    probe("a limit on CPU time", "cpu = 0.5", Spec { cpu: Some(500), ..Spec::PLAIN }),
    device(TUN, || open(TUN)),
    device(FUSE, || open(FUSE)),
];

/// By these devices, programs serve network interfaces and file systems.
const TUN: &str = "/dev/net/tun";
const FUSE: &str = "/dev/fuse";

/// Opens a device. Returns the number of the error, or 0.
fn open(path: &str) -> u8 {
    let opened = OpenOptions::new().read(true).write(true).open(path).map_err(|error| errno_of(&error));
    opened.map_or_else(|errno| u8::try_from(errno as i32).unwrap_or(u8::MAX), |_| 0)
}

/// Makes sandboxes of all kinds, and tells which this host lets be made. This takes some milliseconds.
///
/// ```test_harness
/// #[test]
/// fn the_machine_is_set_up() {
///     let diagnosis = belljar::doctor();
///     assert!(diagnosis.is_well(), "{diagnosis}");
/// }
/// ```
pub fn doctor() -> Diagnosis {
    let found = |probe: &'static Probe| Found { probe, refusal: try_out(probe).err() };
    Diagnosis { found: PROBES.iter().map(found).collect_vec() }
}

/// Runs the test of a probe. Fails with why it could not run, or not open its device.
fn try_out(Probe { test, device, .. }: &'static Probe) -> Result<(), Page> {
    match run_and_judge(test, &RunBy::Harness) {
        Ok((over, verdict)) => match (device, over.sandbox.evidence().outcome, verdict) {
            (Some(path), Some(Outcome::Returned(number @ 1..)), _) => {
                let errno = Errno::from_raw(number.into());
                Err(Page::of_device(path, errno, diagnosis::device(path, errno)))
            }
            (_, _, Verdict::Failed(text)) => Err(Page::of_failure(&text, unknown())),
            _ => Ok(()),
        },
        Err(Obstacle::Other(text)) => Err(Page::of_failure(&text, unknown())),
        Err(Obstacle::Host(page) | Obstacle::BadRequest(page) | Obstacle::Busy(page)) => Err(page),
    }
}

impl Diagnosis {
    /// Whether `#[isolated]` tests run here, if they ask for nothing else.
    ///
    /// ```
    /// let shell = if belljar::doctor().is_well() { "cargo test" } else { "sudo -E cargo test" };
    /// # assert_eq!(shell, "cargo test");
    /// ```
    pub fn is_well(&self) -> bool {
        self.found.first().is_some_and(|found| found.refusal.is_none())
    }

    /// The same in JSON: an object with `is_well`, `version`, and `found`, a list of objects with `name`, `written` and `works`, and, where that
    /// is false, `step`, `error`, `cause`, `seen` and `remedy`. `version` is 1. It grows when a key goes, or means something else; a new
    /// key may come without.
    ///
    /// ```
    /// let diagnosis: serde_json::Value = serde_json::from_str(&belljar::doctor().to_json())?;
    /// assert_eq!(diagnosis["version"], 1);
    /// assert_eq!(diagnosis["is_well"], true);
    /// assert_eq!(diagnosis["found"][0]["written"], "#[isolated]");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn to_json(&self) -> String {
        let found = |Found { probe, refusal }: &Found| {
            let mut members = vec![
                ("name", probe.name.into()),
                ("written", probe.written.into()),
                ("works", refusal.is_none().into()),
            ];
            for (key, text) in refusal.as_ref().map(Page::fields).iter().flatten() {
                members.push((key, (*text).into()));
            }
            Json::object(members)
        };
        let found: Json = self.found.iter().map(found).collect();
        Json::object(vec![("is_well", self.is_well().into()), ("found", found), ("version", json::VERSION.into())])
            .to_string()
    }
}

impl Diagnosis {
    /// The table, as it looks where it is shown.
    fn table(&self, terminal: Terminal) -> String {
        let rows = self.found.iter().map(|Found { probe, refusal }| (probe.name, probe.written, refusal.as_ref()));
        diagnosis::table(&rows.collect_vec(), self.is_well(), terminal)
    }
}

impl Display for Diagnosis {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.table(Terminal::NONE))
    }
}

// ---- In place of running tests ----

/// The arguments of libtest that only say how much it prints. Any other one asks for tests, or for a list of them.
const OF_OUTPUT: [&str; 5] = ["--quiet", "-q", "--nocapture", "--no-capture", "--show-output"];

/// The status of a process that is asked for what it can't do.
const CAN_NOT: i32 = 2;

/// The form in which this process is to tell of its host, in place of running tests. `None` if it is to run `main` as always.
///
/// Whoever runs tests takes the status 0 for "all tests passed". So the process ends with an error if its arguments ask for tests. Those
/// of nextest do: it lists the tests, and then starts each by itself. Only a test binary with libtest tells of its host. A program with
/// another harness and a documentation test run as always, or they would look as if they had passed.
///
/// Cargo starts all test binaries, one after the other. The first tells. The others end with the same status, and say that they have run
/// no test.
pub(crate) fn asked() -> Option<Form> {
    let Settings { doctor, bad, .. } = settings();
    let is_wrong = bad.iter().any(|setting| matches!(setting, BadSetting::Value { variable: Variable::Doctor, .. }));
    if doctor.is_none() && !is_wrong || !is_test_binary() {
        return None;
    }
    let refuse = |text: String| {
        eprintln!("{text}");
        process::exit(CAN_NOT)
    };
    if !bad.is_empty() {
        refuse(bad_settings::doctor_refuses(bad));
    }
    let asks_for_tests = |argument: &OsString| !OF_OUTPUT.iter().any(|other| argument == *other);
    if let Some(argument) = proc::arguments().into_iter().skip(1).find(asks_for_tests) {
        refuse(bad_settings::doctor_asked_for_tests(&argument.to_string_lossy()));
    }
    if let Some(status) = CargoTest::find().and_then(|run| run.status()) {
        eprintln!("{}", bad_settings::doctor_instead(true));
        process::exit(status);
    }
    *doctor
}

/// Tells of the host, and ends the process: with 0 if isolated tests run here.
pub(crate) fn tell_and_exit(form: Form) -> ! {
    let diagnosis = doctor();
    let status = i32::from(!diagnosis.is_well());
    match form {
        Form::Table => print!("{}", diagnosis.table(Terminal::of(&stdout(), settings().colours))),
        Form::Json => println!("{}", diagnosis.to_json()),
    }
    eprintln!("{}", bad_settings::doctor_instead(false));
    if let Some(run) = CargoTest::find() {
        run.end(status);
    }
    process::exit(status)
}

/// The name of a variable that libtest sets for a test which it starts in a process of its own. Each program with libtest contains it.
/// It stands here backwards, so that a program does not contain it because of belljar.
const IN_LIBTEST: &[u8] = b"EKOVNI_TSET_TSUR__";

/// What rustdoc calls the program of a documentation test.
const DOCTEST: &str = "rust_out";

/// Whether this program has libtest for a harness, and is no documentation test. A program that can't be read is taken for another.
fn is_test_binary() -> bool {
    let path = proc::arguments().into_iter().next().map(PathBuf::from).unwrap_or_default();
    if path.file_name().is_some_and(|name| name == DOCTEST) {
        return false;
    }
    let wanted: Vec<u8> = IN_LIBTEST.iter().rev().copied().collect_vec();
    let program = fs::read("/proc/self/exe").or_else(|_| fs::read(path));
    program.is_ok_and(|program| sys::contains(&program, &wanted))
}

/// One `cargo test`, which runs this test binary and others, one after the other.
///
/// The first test binary leaves a file in the target directory, with the number of Cargo's process and its own status. The next
/// `cargo test` overwrites that file. Where there can be no such file, each test binary tells of the host.
struct CargoTest {
    file: PathBuf,
    /// Tells the process of Cargo from all others: its number, and when it began.
    cargo: String,
}

impl CargoTest {
    fn find() -> Option<Self> {
        let parent = parent_id();
        let stat = proc::stat(&proc::directory(parent)).filter(|stat| *stat.name == *b"cargo")?;
        let cargo = format!("cargo {parent} began at {}, status ", stat.began()?);
        let binary = env::current_exe().ok()?;
        Some(Self { file: target_of(&binary)?.join("belljar-doctor"), cargo })
    }

    /// The status of the first test binary, if this is another one.
    fn status(&self) -> Option<i32> {
        text_of(&self.file).ok()?.strip_prefix(&self.cargo)?.trim_end().parse().ok()
    }

    /// This is the first test binary, and ends with `status`.
    fn end(&self, status: i32) {
        let _ = fs::write(&self.file, format!("{}{status}\n", self.cargo));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_of_sandboxes_are_told() {
        let found = |probe| Found { probe, refusal: None };
        insta::assert_snapshot!(Diagnosis { found: PROBES.iter().map(found).collect() }, @r#"
        belljar: what this host lets sandboxes have
          ✓ a sandbox                  #[isolated]
          ✓ namespaces alone           #[isolated(uts)]
          ✓ a network of its own       #[isolated(net)]
          ✓ a root of its own          #[isolated(mount)]
          ✓ a copy of the host's tree  root = "overlay"
          ✓ an ordinary user           user = 1000
          ✓ several users              uids = 65536
          ✓ clocks of its own          time
          ✓ a limit on memory          memory = "64MiB"
          ✓ a limit on processes       pids = 32
          ✓ a limit on CPU time        cpu = 0.5
          ✓ a device                   /dev/net/tun
          ✓ a device                   /dev/fuse
        Tests with `#[isolated]` run here.
        "#);
    }

    #[test]
    fn this_is_a_test_binary() {
        assert!(is_test_binary());
        assert!(!sys::contains(IN_LIBTEST, b"__RUST"));
    }
}
