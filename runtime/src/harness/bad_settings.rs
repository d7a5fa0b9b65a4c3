//! What belljar says of the environment: of variables and values that are wrong, and of what `BELLJAR_DOCTOR` does.

use nix::errno::Errno;

use crate::collect::CollectVec as _;
use crate::diagnosis::did_not_run;
use crate::settings::{BadSetting, Unattended, Variable};
use crate::text::{error, plain};

/// A test did not run, because the environment is wrong.
pub(crate) fn wrong_environment(test: &str, bad: &[BadSetting]) -> String {
    did_not_run(test, &all(bad))
}

/// The same, for a process that is asked for a diagnosis.
pub(crate) fn doctor_refuses(bad: &[BadSetting]) -> String {
    format!("belljar: {}", all(bad))
}

/// `BELLJAR_DOCTOR` is set, and this argument asks for tests.
pub(crate) fn doctor_asked_for_tests(argument: &str) -> String {
    format!(
        "belljar: no test was run. BELLJAR_DOCTOR has a test binary tell what this host lets sandboxes have, in place of running tests, \
         and the argument `{}` asks for tests, as nextest does. Write: BELLJAR_DOCTOR=1 cargo test",
        plain(argument)
    )
}

/// What this process did in place of running tests. If `is_told`, another test binary of the same `cargo test` has done it before.
pub(crate) fn doctor_instead(is_told: bool) -> String {
    let told = if is_told { ", and this host is described above" } else { "" };
    format!("belljar: no test was run: BELLJAR_DOCTOR is set{told}.")
}

fn all(bad: &[BadSetting]) -> String {
    match bad {
        [one] => describe(one),
        more => {
            let lines = more.iter().map(|setting| format!("\n  {}", describe(setting))).collect_vec().concat();
            format!("several environment variables are wrong:{lines}")
        }
    }
}

fn describe(setting: &BadSetting) -> String {
    match setting {
        BadSetting::Unknown { name, near } => {
            let near = near.map_or(String::new(), |near| format!(" Did you mean {}?", near.name()));
            let name = plain(name.to_string_lossy());
            format!("belljar has no variable {name}.{near} It has {}.", Variable::ALL.map(Variable::name).join(", "))
        }
        BadSetting::Value { variable, value } => {
            format!("{} is `{}`. Write {}.", variable.name(), plain(value.to_string_lossy()), expected(*variable))
        }
        BadSetting::Unattended(why) => {
            let (why, remedy) = match why {
                Unattended::Ci => ("CI is set", "Remove BELLJAR_ON_FAIL from the job. If this is no CI, unset CI."),
                Unattended::NoTerminal => (
                    "standard error is no terminal",
                    "Run the tests in a terminal, without a pipe; under nextest, add `--no-capture`.",
                ),
            };
            format!("BELLJAR_ON_FAIL is `shell`, and nobody can enter the sandboxes that it keeps: {why}. {remedy}")
        }
        BadSetting::File { variable, path, errno } => format!(
            "{} names the file `{}`, which can't be used: {}. Name one that can be written to; a path that is not absolute begins at \
             the directory of the package.",
            variable.name(),
            plain(path.display()),
            match errno {
                Errno::ETIMEDOUT => "whoever serves the file system there does not answer".to_owned(),
                errno => error(*errno),
            }
        ),
        BadSetting::NoTrace(path) => format!(
            "{} names the file `{}`, which is there and is no trace. It was left as it is: name another.",
            Variable::Trace.name(),
            plain(path.display())
        ),
    }
}

/// The values that a variable may have.
fn expected(variable: Variable) -> &'static str {
    match variable {
        Variable::Cgroup => "the path of a cgroup, as /proc/self/cgroup has it",
        Variable::Doctor => "`1` for a table of what this host lets sandboxes have, or `json` for the same in JSON",
        Variable::OnFail => "`shell` to keep the sandboxes of tests that fail, and to be told how to enter them",
        Variable::Report => {
            "`-` for a table at the end of the run, or `json:PATH` to have a line of JSON for each test in a file"
        }
        Variable::Timeout => "how long a test may run, such as `60s`, `250ms` or `1m 30s`",
        Variable::Trace => "the path of a file for a trace viewer, such as `trace.json`; `./1` is a file named `1`",
        Variable::Unsupported => "`skip` or `fail`: this happens to tests that this host can't run",
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use nix::errno::Errno;

    use super::*;
    use crate::text::snapshots::page;

    #[test]
    fn each_bad_setting_has_its_words() {
        let path = || "/tmp/a\n".into();
        let value = |variable: Variable| BadSetting::Value { variable, value: "a\n".into() };
        let others = [
            BadSetting::Unknown { name: "BELLJAR_TIMOUT".into(), near: Some(Variable::Timeout) },
            BadSetting::Unknown { name: "BELLJAR_VERBOSE".into(), near: None },
            BadSetting::Unattended(Unattended::Ci),
            BadSetting::Unattended(Unattended::NoTerminal),
            BadSetting::File { variable: Variable::Report, path: path(), errno: Errno::EACCES },
            BadSetting::NoTrace(path()),
        ];
        let bad: Vec<_> = Variable::ALL.map(value).into_iter().chain(others).collect();
        let told = [
            ("wrong_environment", wrong_environment("tests::a", &bad)),
            ("wrong_environment", wrong_environment("tests::a", &bad[..1])),
            ("doctor_refuses", doctor_refuses(&bad[..1])),
            ("doctor_asked_for_tests", doctor_asked_for_tests("--list\n")),
            ("doctor_instead", doctor_instead(false)),
            ("doctor_instead", doctor_instead(true)),
        ];
        assert_snapshot!(page(told), @r#"
        # wrong_environment
        belljar: `tests::a` did not run: several environment variables are wrong:
          BELLJAR_CGROUP is `a\n`. Write the path of a cgroup, as /proc/self/cgroup has it.
          BELLJAR_DOCTOR is `a\n`. Write `1` for a table of what this host lets sandboxes have, or `json` for the same in JSON.
          BELLJAR_ON_FAIL is `a\n`. Write `shell` to keep the sandboxes of tests that fail, and to be told how to enter them.
          BELLJAR_REPORT is `a\n`. Write `-` for a table at the end of the run, or `json:PATH` to have a line of JSON for each test in a file.
          BELLJAR_TIMEOUT is `a\n`. Write how long a test may run, such as `60s`, `250ms` or `1m 30s`.
          BELLJAR_TRACE is `a\n`. Write the path of a file for a trace viewer, such as `trace.json`; `./1` is a file named `1`.
          BELLJAR_UNSUPPORTED is `a\n`. Write `skip` or `fail`: this happens to tests that this host can't run.
          belljar has no variable BELLJAR_TIMOUT. Did you mean BELLJAR_TIMEOUT? It has BELLJAR_CGROUP, BELLJAR_DOCTOR, BELLJAR_ON_FAIL, BELLJAR_REPORT, BELLJAR_TIMEOUT, BELLJAR_TRACE, BELLJAR_UNSUPPORTED.
          belljar has no variable BELLJAR_VERBOSE. It has BELLJAR_CGROUP, BELLJAR_DOCTOR, BELLJAR_ON_FAIL, BELLJAR_REPORT, BELLJAR_TIMEOUT, BELLJAR_TRACE, BELLJAR_UNSUPPORTED.
          BELLJAR_ON_FAIL is `shell`, and nobody can enter the sandboxes that it keeps: CI is set. Remove BELLJAR_ON_FAIL from the job. If this is no CI, unset CI.
          BELLJAR_ON_FAIL is `shell`, and nobody can enter the sandboxes that it keeps: standard error is no terminal. Run the tests in a terminal, without a pipe; under nextest, add `--no-capture`.
          BELLJAR_REPORT names the file `/tmp/a\n`, which can't be used: EACCES (Permission denied). Name one that can be written to; a path that is not absolute begins at the directory of the package.
          BELLJAR_TRACE names the file `/tmp/a\n`, which is there and is no trace. It was left as it is: name another.
        # wrong_environment
        belljar: `tests::a` did not run: BELLJAR_CGROUP is `a\n`. Write the path of a cgroup, as /proc/self/cgroup has it.
        # doctor_refuses
        belljar: BELLJAR_CGROUP is `a\n`. Write the path of a cgroup, as /proc/self/cgroup has it.
        # doctor_asked_for_tests
        belljar: no test was run. BELLJAR_DOCTOR has a test binary tell what this host lets sandboxes have, in place of running tests, and the argument `--list\n` asks for tests, as nextest does. Write: BELLJAR_DOCTOR=1 cargo test
        # doctor_instead
        belljar: no test was run: BELLJAR_DOCTOR is set.
        # doctor_instead
        belljar: no test was run: BELLJAR_DOCTOR is set, and this host is described above.
        "#);
    }
}
