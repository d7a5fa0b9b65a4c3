//! Programs whose `main` runs in a sandbox: what becomes of their output, and what their exit status is.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use belljar_tests::{Run, run};
use insta::assert_snapshot;

/// The program, as it is to end.
fn program(argument: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_program"));
    command.arg(argument).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

fn ended(argument: &str) -> Run {
    let ran = run(&mut program(argument));
    assert!(ran.left.is_empty(), "{argument}: {}", ran.output);
    ran
}

#[test]
fn a_program_passes_by_returning() {
    for argument in ["plain", "--help", "-h", "--list"] {
        let ran = ended(argument);
        assert!(ran.status.success(), "{argument}: {}", ran.output);
        assert_eq!(ran.output, format!("{argument} on \"program\"\n"));
    }
    assert_eq!(ended("read").output, "0 bytes\n");
}

#[test]
fn its_exit_status_is_the_verdict() {
    let mut told = String::new();
    for argument in ["error", "status", "panic", "panic elsewhere", "exit", "signal", "leave"] {
        let Run { status, output, .. } = ended(argument);
        let output: String =
            output.lines().filter(|line| !line.contains("panicked at")).fold(String::new(), |all, line| {
                let line = if line.starts_with("  pid ") { "  pid .." } else { line };
                all + line + "\n"
            });
        write!(told, "# {argument}: {}\n{output}", status.code().expect("a status")).expect("write");
    }
    assert_snapshot!(told, @r#"
    # error: 1
    Error: "an error"
    belljar: `main` failed: it returned a value that stands for the status 1, which means failure.
    # status: 3
    belljar: `main` failed: it returned a value that stands for the status 3, which means failure.
    # panic: 101

    on purpose
    note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
    belljar: `main` failed: its body panicked: on purpose
    # panic elsewhere: 0

    on purpose
    note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
    # exit: 101
    belljar: `main` failed: its process called exit(0) before the body returned. A test passes by returning: let a child process exit in its place.
    # signal: 101
    belljar: `main` failed: its process was killed by SIGTERM before the body returned.
    # leave: 0
    belljar: `main` is over, and what it left running was killed:
      pid ..
    "#);
}

/// Both streams are the program's own: in order, to the byte.
#[test]
fn its_output_is_as_it_writes_it() {
    let mut expected = String::new();
    for number in 0..200 {
        write!(expected, "{number}\n{number}\n").expect("write");
    }
    let output = ended("write").output;
    assert_eq!(output, expected + "\u{fffd}\0\n");
    let bytes = program("write").output().expect("it runs").stdout;
    assert!(bytes.ends_with(b"199\n\xff\0\n"));
}

/// The example that runs any command: the command is on a machine of its own, and has its words as they are.
#[test]
fn a_command_runs_in_a_sandbox() {
    let sandboxed = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandboxed"));
        run(command.args(words).env("RUST_BACKTRACE", "0").stdin(Stdio::null()))
    };
    let script = "echo $PPID \"$1\" \"$2\"; hostname jar && hostname; echo 10.0.0.5 db > /etc/hosts; cat /etc/hosts";
    let ran = sandboxed(&["sh", "-c", script, "sh", "--list", "two words"]);
    assert!(ran.status.success() && ran.left.is_empty(), "{}", ran.output);
    assert_eq!(ran.output, "2 --list two words\njar\n10.0.0.5 db\n");
    // The status is the command's own.
    let ran = sandboxed(&["sh", "-c", "exit 7"]);
    assert_eq!(ran.status.code(), Some(7), "{}", ran.output);
    let ran = sandboxed(&["no-such-command"]);
    assert_eq!(ran.status.code(), Some(127), "{}", ran.output);
    assert!(ran.output.starts_with("sandboxed: no-such-command: "), "{}", ran.output);
    assert_eq!(sandboxed(&[]).status.code(), Some(2));
}

#[test]
fn a_bad_environment_fails_it() {
    let mut command = program("plain");
    let ran = run(command.env("BELLJAR_UNSUPPORTED", "no such word"));
    assert_eq!(ran.status.code(), Some(101), "{}", ran.output);
    assert!(
        ran.output.starts_with("belljar: `main` did not run: ") && ran.output.contains("BELLJAR_UNSUPPORTED"),
        "{}",
        ran.output
    );
}

/// Where there is a harness, a `main` with a runtime is a test like any other `main`.
mod with_runtime {
    #[belljar::isolated]
    #[tokio::main(flavor = "current_thread")]
    async fn main() {
        tokio::task::yield_now().await;
        assert_eq!(nix::unistd::getpid().as_raw(), 2, "it is in a sandbox");
    }
}
