//! Finds out what this host lets sandboxes have, by making one of each kind.

use std::fmt::{self, Display, Formatter};
use std::process;
use std::time::Duration;

use super::explain::unknown;
use super::judge::{Obstacle, Verdict};
use super::run_and_judge;
use crate::json::Json;
use crate::message::{self, Page};
use crate::settings::{Form, Mistake, Settings, Variable, settings};
use crate::spec::{Ids, Root, Spec, Test};

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
    fault: Option<Page>,
}

/// A kind of sandbox.
#[derive(Debug)]
struct Probe {
    /// What it offers.
    name: &'static str,
    /// How a test asks for it.
    written: &'static str,
    /// An empty test that does.
    test: Test,
}

const PLAIN: Spec = Spec {
    net: true,
    mount: true,
    root: Root::Tmpfs,
    tmpfs: None,
    hostname: None,
    user: None,
    ids: Ids::One,
    time: None,
    binds: &[],
    memory: None,
    pids: None,
    cpu: None,
    manifest_dir: None,
    target_tmpdir: None,
};

const fn probe(name: &'static str, written: &'static str, spec: Spec) -> Probe {
    let test = Test {
        name,
        arguments: written,
        spec,
        timeout: None,
        env: &[],
        clear_env: false,
        skip_unsupported: false,
        should_panic: None,
        body: || 0,
    };
    Probe { name, written, test }
}

/// The first of them is what nearly all tests need.
static PROBES: [Probe; 11] = [
    probe("a sandbox", "#[isolated]", PLAIN),
    probe("namespaces alone", "#[isolated(uts)]", Spec { net: false, mount: false, ..PLAIN }),
    probe("a network of its own", "#[isolated(net)]", Spec { mount: false, ..PLAIN }),
    probe("a root of its own", "#[isolated(mount)]", Spec { net: false, ..PLAIN }),
    probe("a copy of the host's tree", "root = \"overlay\"", Spec { root: Root::Overlay, ..PLAIN }),
    probe("an ordinary user", "user = 1000", Spec { user: Some((1000, 1000)), ..PLAIN }),
    probe("several users", "uids = 65536", Spec { ids: Ids::Range(65536), ..PLAIN }),
    probe("clocks of its own", "time", Spec { time: Some([Duration::ZERO; 2]), ..PLAIN }),
    probe("a limit on memory", "memory = \"64MiB\"", Spec { memory: Some(64 << 20), ..PLAIN }),
    probe("a limit on processes", "pids = 32", Spec { pids: Some(32), ..PLAIN }),
    probe("a limit on CPU time", "cpu = 0.5", Spec { cpu: Some(500), ..PLAIN }),
];

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
    let found = |probe: &'static Probe| Found { probe, fault: try_out(&probe.test).err() };
    Diagnosis { found: PROBES.iter().map(found).collect() }
}

/// Runs an empty test. Fails with why it could not run.
fn try_out(test: &'static Test) -> Result<(), Page> {
    match run_and_judge(test) {
        Ok((_, _, Verdict::Failed(text))) | Err(Obstacle::Other(text)) => Err(Page::of_failure(&text, unknown())),
        Ok(_) => Ok(()),
        Err(Obstacle::Host(page) | Obstacle::Mistake(page)) => Err(page),
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
        self.found.first().is_some_and(|found| found.fault.is_none())
    }

    /// The same in JSON: an object with `is_well`, and `found`, a list of objects with `name`, `written` and `works`, and, where that is
    /// false, `step`, `error`, `cause`, `seen` and `remedy`.
    ///
    /// ```
    /// let diagnosis: serde_json::Value = serde_json::from_str(&belljar::doctor().to_json())?;
    /// assert_eq!(diagnosis["is_well"], true);
    /// assert_eq!(diagnosis["found"][0]["written"], "#[isolated]");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn to_json(&self) -> String {
        let found = |Found { probe, fault }: &Found| {
            let kind =
                [("name", probe.name.into()), ("written", probe.written.into()), ("works", fault.is_none().into())];
            let why = fault.iter().flat_map(Page::fields).map(|(key, text)| (key, text.into()));
            Json::object(kind.into_iter().chain(why))
        };
        let found: Json = self.found.iter().map(found).collect();
        Json::object([("is_well", self.is_well().into()), ("found", found)]).to_string()
    }
}

impl Display for Diagnosis {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rows = self.found.iter().map(|Found { probe, fault }| (probe.name, probe.written, fault.as_ref()));
        f.write_str(&message::diagnosis(&rows.collect::<Vec<_>>(), self.is_well()))
    }
}

/// If the environment asks for it, prints a diagnosis in place of running tests, and ends the process.
pub(crate) fn answer() {
    let Settings { doctor: form, mistakes, .. } = settings();
    let is_wrong = mistakes.iter().any(|mistake| matches!(mistake, Mistake::Value { variable: Variable::Doctor, .. }));
    if is_wrong || form.is_some() && !mistakes.is_empty() {
        eprintln!("{}", message::doctor_refuses(mistakes));
        process::exit(BAD_VALUE)
    }
    let Some(form) = form else { return };
    let diagnosis = doctor();
    match form {
        Form::Table => print!("{diagnosis}"),
        Form::Json => println!("{}", diagnosis.to_json()),
    }
    process::exit(i32::from(!diagnosis.is_well()))
}

/// What a process ends with that doesn't know what is asked of it.
const BAD_VALUE: i32 = 2;
