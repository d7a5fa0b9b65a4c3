//! What the environment asks for.
//!
//! The problem: many parts of belljar go by environment variables, most of them called `BELLJAR_*`. A test may change them, and a typing
//! error in one must not go unnoticed. So they are all read here, once: the constructor does it, before `main` and before it forks the zygote. The rest of
//! the code sees typed values. A wrong value or an unknown variable is a bad setting. As long as there is one, no isolated test runs,
//! and each test says what to write.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use nix::errno::Errno;

use crate::terminal::{self, Colours};
use crate::text::distance;

/// What the names of all variables begin with.
const PREFIX: &str = "BELLJAR_";

/// What the names of variables begin with that are for belljar's own tests.
const OF_OUR_TESTS: &str = "BELLJAR_TESTS_";

/// A variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variable {
    Cgroup,
    Doctor,
    OnFail,
    Report,
    Timeout,
    Trace,
    Unsupported,
}

impl Variable {
    /// All of them, in the order of their names.
    pub(crate) const ALL: [Self; 7] =
        [Self::Cgroup, Self::Doctor, Self::OnFail, Self::Report, Self::Timeout, Self::Trace, Self::Unsupported];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "BELLJAR_CGROUP",
            Self::Doctor => "BELLJAR_DOCTOR",
            Self::OnFail => "BELLJAR_ON_FAIL",
            Self::Report => "BELLJAR_REPORT",
            Self::Timeout => "BELLJAR_TIMEOUT",
            Self::Trace => "BELLJAR_TRACE",
            Self::Unsupported => "BELLJAR_UNSUPPORTED",
        }
    }

    /// Whether a test sees it, and so a test binary that the test starts. The others name what a sandbox doesn't have: a cgroup or a
    /// file of the host, somebody who looks at failures, a terminal.
    pub(crate) const fn is_for_tests(self) -> bool {
        matches!(self, Self::Timeout | Self::Unsupported)
    }
}

/// The values of all variables. An empty value is none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The cgroup below which those of sandboxes go, in place of the one that the tests run in.
    pub(crate) cgroup: Option<PathBuf>,
    /// How this process is to tell of its host, in place of running tests.
    pub(crate) doctor: Option<Form>,
    /// What becomes of the sandboxes of tests that fail.
    pub(crate) on_fail: Option<OnFail>,
    /// Where the report goes.
    pub(crate) report: Option<Report>,
    /// How long each test may run that has no timeout of its own.
    pub(crate) timeout: Option<Duration>,
    /// The file that the trace goes to.
    pub(crate) trace: Option<PathBuf>,
    /// What becomes of tests that the host can't run, whatever they say themselves.
    pub(crate) unsupported: Option<Unsupported>,
    /// The run of nextest that this process is one of, by the name that nextest gives to it.
    pub(crate) nextest_run: Option<String>,
    /// When tables have colours.
    pub(crate) colours: Colours,
    /// What is wrong. As long as there is anything, no isolated test may run.
    pub(crate) bad: Vec<BadSetting>,
}

/// The form of a diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Table,
    Json,
}

/// What becomes of the sandbox of a test that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFail {
    /// It is kept, and belljar tells how to open a shell in it.
    Shell,
}

/// Where the report goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// To standard error, at the end of the run.
    Table,
    /// To this file, a line of JSON for each test.
    Lines(PathBuf),
}

/// What becomes of tests that the host can't run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsupported {
    Skip,
    Fail,
}

/// Something in the environment that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadSetting {
    /// There is no such variable. The other one may be meant.
    Unknown { name: OsString, near: Option<Variable> },
    /// The variable can't have this value.
    Value { variable: Variable, value: OsString },
    /// Sandboxes are to be kept where nobody can enter them.
    Unattended(Unattended),
    /// The file that the variable names can't be used.
    File { variable: Variable, path: PathBuf, errno: Errno },
    /// The file that is to hold the trace is there, and holds something else.
    NoTrace(PathBuf),
}

/// Why nobody can enter a sandbox that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unattended {
    /// The variable `CI` is set.
    Ci,
    /// Nobody reads standard error on a terminal.
    NoTerminal,
}

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let directory = env::current_dir().unwrap_or_default();
    let settings = Settings::read(env::vars_os(), &directory, io::stderr().is_terminal());
    Settings { colours: terminal::colours(), ..settings }
});

/// The settings. The first call reads them; later the environment may be another.
pub(crate) fn settings() -> &'static Settings {
    &SETTINGS
}

/// Whether this can be the number of a run, which names a directory.
fn is_id(text: &&str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Settings {
    /// How long a test may run: as it says itself, or else as the environment says.
    pub(crate) fn timeout_of(&self, own: Option<Duration>) -> Option<Duration> {
        own.or(self.timeout)
    }

    /// Reads the settings from `variables`. Paths begin at `directory`. `has_terminal`: standard error is a terminal.
    pub(crate) fn read(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        directory: &Path,
        has_terminal: bool,
    ) -> Self {
        let mut settings = Self::default();
        let mut is_ci = false;
        for (name, value) in variables.into_iter().filter(|(_, value)| !value.is_empty()) {
            let begins = |prefix: &str| name.as_bytes().starts_with(prefix.as_bytes());
            match Variable::ALL.iter().find(|variable| name == variable.name()) {
                Some(&variable) => {
                    if settings.set(variable, &value, directory).is_none() {
                        settings.bad.push(BadSetting::Value { variable, value });
                    }
                }
                None if begins(PREFIX) && !begins(OF_OUR_TESTS) => {
                    let near = nearest(&name);
                    settings.bad.push(BadSetting::Unknown { name, near });
                }
                None if name == "NEXTEST_RUN_ID" => {
                    settings.nextest_run = value.to_str().filter(is_id).map(str::to_owned)
                }
                None => is_ci |= name == "CI" && value != "false",
            }
        }
        if settings.on_fail.is_some() {
            let why = if is_ci { Some(Unattended::Ci) } else { (!has_terminal).then_some(Unattended::NoTerminal) };
            settings.bad.extend(why.map(BadSetting::Unattended));
        }
        settings
    }

    /// Takes the value of a variable. Returns `None` if the variable can't have it.
    fn set(&mut self, variable: Variable, value: &OsStr, directory: &Path) -> Option<()> {
        match variable {
            Variable::Cgroup => self.cgroup = Some(Path::new("/").join(path(value)?)),
            Variable::Doctor => self.doctor = Some(one_of(value, &[("1", Form::Table), ("json", Form::Json)])?),
            Variable::OnFail => self.on_fail = Some(one_of(value, &[("shell", OnFail::Shell)])?),
            Variable::Report if value == "-" => self.report = Some(Report::Table),
            Variable::Report => {
                let file = OsStr::from_bytes(value.as_bytes().strip_prefix(b"json:")?);
                self.report = Some(Report::Lines(directory.join(path(file)?)));
            }
            Variable::Timeout => self.timeout = Some(duration(value)?),
            Variable::Trace if value.as_bytes().starts_with(b"json:") => return None,
            Variable::Trace => self.trace = Some(directory.join(path(value)?)),
            Variable::Unsupported => {
                let values = [("fail", Unsupported::Fail), ("skip", Unsupported::Skip)];
                self.unsupported = Some(one_of(value, &values)?);
            }
        }
        Some(())
    }
}

/// What the word `value` stands for.
fn one_of<T: Copy>(value: &OsStr, values: &[(&str, T)]) -> Option<T> {
    values.iter().find(|(word, _)| value == *word).map(|(_, meaning)| *meaning)
}

/// A path. `-` and `1` are none: whoever writes them means standard output, or a switch.
fn path(value: &OsStr) -> Option<&Path> {
    let is_path = !["", "-", "1"].iter().any(|other| value == *other);
    is_path.then_some(Path::new(value))
}

/// A time that leaves a test some, as in `timeout = "5s"`.
fn duration(value: &OsStr) -> Option<Duration> {
    humantime::parse_duration(value.to_str()?).ok().filter(|duration| !duration.is_zero())
}

/// How many letters of a name may be wrong if it is to be recognised.
const TYPING_ERRORS: usize = 2;

/// The variable that `name` may be meant for: few letters are wrong, or one name begins with the other.
fn nearest(name: &OsStr) -> Option<Variable> {
    let name = &name.as_bytes()[PREFIX.len()..];
    let distance = |variable: &Variable| {
        let other = &variable.name().as_bytes()[PREFIX.len()..];
        let is_part = name.len() > TYPING_ERRORS && (name.starts_with(other) || other.starts_with(name));
        if is_part { 0 } else { distance(name, other) }
    };
    let near = Variable::ALL.iter().filter(|variable| distance(variable) <= TYPING_ERRORS);
    near.min_by_key(|variable| distance(variable)).copied()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    /// Reads an environment, in a terminal.
    fn read(variables: &[(&str, &str)]) -> Settings {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Settings::read(variables, Path::new("/home/me"), true)
    }

    #[test]
    fn values_are_typed() {
        let settings = read(&[
            ("BELLJAR_CGROUP", "user.slice/tests"),
            ("BELLJAR_DOCTOR", "json"),
            ("BELLJAR_ON_FAIL", "shell"),
            ("BELLJAR_REPORT", "json:re port"),
            ("BELLJAR_TIMEOUT", "1m 30s"),
            ("BELLJAR_TRACE", "/tmp/trace.json"),
            ("BELLJAR_UNSUPPORTED", "fail"),
            ("BELLJAR_TESTS_ROUNDS", "many"),
            ("NEXTEST_RUN_ID", "0123-abcd"),
            ("HOME", "/root"),
        ]);
        let expected = Settings {
            cgroup: Some("/user.slice/tests".into()),
            doctor: Some(Form::Json),
            on_fail: Some(OnFail::Shell),
            report: Some(Report::Lines("/home/me/re port".into())),
            timeout: Some(Duration::from_secs(90)),
            trace: Some("/tmp/trace.json".into()),
            unsupported: Some(Unsupported::Fail),
            nextest_run: Some("0123-abcd".to_owned()),
            colours: Colours::Terminal,
            bad: Vec::new(),
        };
        assert_eq!(settings, expected);
        assert_eq!(read(&[("NEXTEST_RUN_ID", "../elsewhere")]).nextest_run, None);
        assert_eq!(read(&[("BELLJAR_REPORT", "-")]).report, Some(Report::Table));
        assert_eq!(read(&[("BELLJAR_TRACE", "./1")]).trace, Some("/home/me/./1".into()));
    }

    #[test]
    fn an_empty_value_is_none() {
        let empty = Variable::ALL.map(|variable| (variable.name(), ""));
        assert_eq!(read(&empty), Settings::default());
        assert_eq!(read(&[("BELLJAR_NONSENSE", "")]), Settings::default());
    }

    #[test]
    fn wrong_values_are_bad() {
        for (variable, values) in [
            (Variable::Cgroup, &["-", "1"][..]),
            (Variable::Doctor, &["0", "yes", "JSON", "1 "]),
            (Variable::OnFail, &["1", "bash", "Shell"]),
            (Variable::Report, &["1", "yes", "json", "json:", "json:-", "json:1", "/tmp/report"]),
            (Variable::Timeout, &["60", "1", "-", "0s", "-1s", "soon", "1 fortnight", "9999999999999999999999s"]),
            (Variable::Trace, &["-", "1", "json:", "json:trace"]),
            (Variable::Unsupported, &["1", "ignore", "SKIP"]),
        ] {
            for value in values {
                let bad = vec![BadSetting::Value { variable, value: value.into() }];
                assert_eq!(read(&[(variable.name(), value)]), Settings { bad, ..Settings::default() }, "{value}");
            }
        }
    }

    #[test]
    fn unknown_variables_are_bad() {
        for (name, near) in [
            ("BELLJAR_TIMOUT", Some(Variable::Timeout)),
            ("BELLJAR_TIEMOUT", Some(Variable::Timeout)),
            ("BELLJAR_TIMEOUT_MS", Some(Variable::Timeout)),
            ("BELLJAR_ONFAIL", Some(Variable::OnFail)),
            ("BELLJAR_UNSUP", Some(Variable::Unsupported)),
            ("BELLJAR_REPORTS", Some(Variable::Report)),
            ("BELLJAR_Doctor", Some(Variable::Doctor)),
            ("BELLJAR_VERBOSE", None),
            ("BELLJAR_", None),
        ] {
            let bad = vec![BadSetting::Unknown { name: name.into(), near }];
            assert_eq!(read(&[(name, "1")]), Settings { bad, ..Settings::default() });
        }
        // Not ours.
        assert_eq!(read(&[("BELLJARS", "1"), ("belljar_timeout", "1"), ("CARGO_BELLJAR_X", "1")]), Settings::default());
    }

    #[test]
    fn what_is_no_text_is_no_reason_to_panic() {
        let name = OsString::from_vec(b"BELLJAR_\xff".to_vec());
        let value = OsString::from_vec(b"\xfe".to_vec());
        let known = Variable::ALL.map(|variable| (variable.name().into(), value.clone()));
        let settings = Settings::read([(name.clone(), value.clone())].into_iter().chain(known), Path::new("/"), true);
        assert_eq!(settings.bad[0], BadSetting::Unknown { name, near: None });
        // A path need not be text.
        assert_eq!(settings.trace, Some(Path::new("/").join(&value)));
        assert_eq!(settings.cgroup, Some(Path::new("/").join(&value)));
        let wrong = [Variable::Doctor, Variable::OnFail, Variable::Report, Variable::Timeout, Variable::Unsupported];
        assert_eq!(settings.bad[1..], wrong.map(|variable| BadSetting::Value { variable, value: value.clone() }));
    }

    #[test]
    fn somebody_must_be_there_to_enter_a_sandbox() {
        let shell = ("BELLJAR_ON_FAIL", "shell");
        for (variables, has_terminal, expected) in [
            (&[shell][..], true, None),
            (&[shell, ("CI", "")], true, None),
            (&[shell, ("CI", "false")], true, None),
            (&[shell, ("CI", "true")], true, Some(Unattended::Ci)),
            (&[("CI", "1"), shell], false, Some(Unattended::Ci)),
            (&[shell], false, Some(Unattended::NoTerminal)),
            (&[("CI", "true")], false, None),
        ] {
            let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
            let bad = Settings::read(variables, Path::new("/"), has_terminal).bad;
            assert_eq!(bad, expected.map(BadSetting::Unattended).into_iter().collect::<Vec<_>>());
        }
    }
}
