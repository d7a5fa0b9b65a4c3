//! What belljar says of the environment: of variables and values that are wrong, and of what `BELLJAR_DOCTOR` does.

use nix::errno::Errno;

use crate::diagnosis::did_not_run;
use crate::settings::{Mistake, Unattended, Variable};
use crate::text::{error, plain};

/// A test did not run, because the environment is wrong.
pub(crate) fn wrong_environment(test: &str, mistakes: &[Mistake]) -> String {
    did_not_run(test, &all(mistakes))
}

/// The same, for a process that is asked for a diagnosis.
pub(crate) fn doctor_refuses(mistakes: &[Mistake]) -> String {
    format!("belljar: {}", all(mistakes))
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

fn all(mistakes: &[Mistake]) -> String {
    match mistakes {
        [one] => describe(one),
        more => {
            let lines: String = more.iter().map(|mistake| format!("\n  {}", describe(mistake))).collect();
            format!("several environment variables are wrong:{lines}")
        }
    }
}

fn describe(mistake: &Mistake) -> String {
    match mistake {
        Mistake::Unknown { name, near } => {
            let near = near.map_or(String::new(), |near| format!(" Did you mean {}?", near.name()));
            let name = plain(name.to_string_lossy());
            format!("belljar has no variable {name}.{near} It has {}.", Variable::ALL.map(Variable::name).join(", "))
        }
        Mistake::Value { variable, value } => {
            format!("{} is `{}`. Write {}.", variable.name(), plain(value.to_string_lossy()), expected(*variable))
        }
        Mistake::Unattended(why) => {
            let (why, remedy) = match why {
                Unattended::Ci => ("CI is set", "Remove it there. If this is no CI, unset CI."),
                Unattended::NoTerminal => (
                    "standard error is no terminal",
                    "Run the tests in a terminal, without a pipe; under nextest, add `--no-capture`.",
                ),
            };
            format!("BELLJAR_ON_FAIL is `shell`, and nobody can enter the sandboxes that it keeps: {why}. {remedy}")
        }
        Mistake::File { variable, path, errno } => format!(
            "{} names the file `{}`, which can't be used: {}. Name one that can be written to; a path that is not absolute begins at \
             the directory of the package.",
            variable.name(),
            plain(path.display()),
            match errno {
                Errno::ETIMEDOUT => "whoever serves the file system there does not answer".to_owned(),
                errno => error(*errno),
            }
        ),
        Mistake::NoTrace(path) => format!(
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
