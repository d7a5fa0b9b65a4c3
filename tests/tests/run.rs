//! `belljar::run`: bytes in, bytes out, and what is said of bodies that fail.

use std::fmt::Write as _;
use std::os::fd::IntoRawFd as _;
use std::process::{self, Command};
use std::time::Duration;
use std::{env, fs, io, iter, thread};

use belljar::{Failure, Spec, run, spec};
use belljar_tests::{MIB, body, fork, run_body, this_binary};
use insta::assert_snapshot;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, close, getpid, getppid};

belljar_tests::bodies!();

static PLAIN: Spec = spec!();
const NET: Spec = spec!(net, timeout = "60s");
static SHORT: Spec = spec!(timeout = "100ms");

type Answer = Result<Vec<u8>, String>;

fn echo(input: &[u8]) -> Answer {
    assert_eq!(getppid(), Pid::from_raw(1), "not in a sandbox");
    Ok(input.to_vec())
}

/// Its text, without the place of the spec.
fn failed<E: std::fmt::Display>(spec: &Spec, body: fn(&[u8]) -> Result<Vec<u8>, E>) -> String {
    let failure = run(spec, b"input", body).expect_err("it fails");
    assert!(!failure.is_skip() && format!("{failure:?}") == failure.to_string());
    let text = failure.to_string();
    let (before, rest) = text.split_once("`spec! at ").expect("the place of the spec");
    let (place, rest) = rest.split_once('`').expect("its end");
    let (file, line) = place.rsplit_once(':').expect("a line");
    assert!(file.ends_with("tests/run.rs") && line.parse::<u32>().is_ok(), "{text}");
    format!("{before}SPEC{rest}")
}

#[test]
fn bytes_go_in_and_come_out() {
    for input in [&b""[..], b"\0\xff", b"some"] {
        assert_eq!(run(&PLAIN, input, echo).expect("it passes"), input);
        assert_eq!(run(&NET, input, echo).expect("it passes"), input);
    }
    let reversed = run(&PLAIN, b"abc", |input| io::Result::Ok(input.iter().rev().copied().collect()));
    assert_eq!(reversed.expect("it passes"), b"cba");
}

/// The twin: outside, the same body says that it is in no sandbox.
#[test]
#[should_panic(expected = "not in a sandbox")]
fn without_a_sandbox() {
    let _ = echo(b"");
}

#[test]
fn many_bytes_need_no_reader() {
    let input: Vec<u8> = (0..16 * MIB + 7).map(|at| (at / 251) as u8).collect();
    assert!(run(&PLAIN, &input, echo).expect("it passes") == input);
    let more = run(&PLAIN, b"x", |_| Answer::Ok(vec![7; 64 * MIB])).expect("it passes");
    assert!(more.len() == 64 * MIB && more.iter().all(|byte| *byte == 7));
}

#[test]
fn the_sandbox_is_what_the_spec_asks_for() {
    static NAMED: Spec = spec!(net, uts, hostname = "named", env = ["A=b"], user = 7);
    let answer = run(&NAMED, b"", |_| -> io::Result<Vec<u8>> {
        let name = nix::unistd::gethostname()?.into_string().unwrap_or_default();
        Ok(format!("{name} {} {}", env::var("A").unwrap_or_default(), nix::unistd::getuid()).into_bytes())
    });
    assert_eq!(String::from_utf8_lossy(&answer.expect("it passes")), "named b 7");
    assert!(env::var("A").is_err());
}

#[test]
fn many_threads_run_at_once() {
    thread::scope(|scope| {
        for number in 0..16_u32 {
            scope.spawn(move || {
                for round in 0..4 {
                    let input = format!("{number} {round}").repeat(1 + 1000 * round);
                    assert_eq!(run(&PLAIN, input.as_bytes(), echo).expect("it passes"), input.as_bytes());
                }
            });
        }
    });
}

/// Those that wait for their turn have no descriptors.
#[test]
fn with_few_descriptors_fewer_run_at_once() {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 40 && exec \"$0\" --exact many_threads_run_at_once"])
        .arg(this_binary().get_program());
    let run = belljar_tests::run(&mut command);
    assert!(run.passed(), "{}", run.output);
}

#[test]
fn errors_say_what_verdicts_say() {
    let mut told = String::new();
    let mut tell = |text: String| writeln!(told, "{text}").expect("write");
    tell(failed(&PLAIN, |_| Err("an error")));
    tell(failed(&PLAIN, |_| Err(io::Error::from(io::ErrorKind::NotFound))));
    tell(failed(&PLAIN, |_| Err(Box::<dyn std::error::Error>::from("boxed"))));
    tell(failed(&PLAIN, |input| -> Answer { panic!("with {} bytes", input.len()) }));
    tell(failed(&PLAIN, |_| -> Answer { std::panic::panic_any(7) }));
    tell(failed(&PLAIN, |_| -> Answer { process::exit(0) }));
    tell(failed(&PLAIN, |_| -> Answer { Err(raise(Signal::SIGTERM).unwrap_err().to_string()) }));
    tell(failed(&PLAIN, |_| -> Answer { process::abort() }));
    assert_snapshot!(told, @"
    belljar: SPEC failed: its body returned an error: an error
    belljar: SPEC failed: its body returned an error: entity not found
    belljar: SPEC failed: its body returned an error: boxed
    belljar: SPEC failed: its body panicked: with 5 bytes
    belljar: SPEC failed: its body panicked.
    belljar: SPEC failed: its process called exit(0) before the body returned. A test passes by returning: let a child process exit in its place.
    belljar: SPEC failed: its process was killed by SIGTERM before the body returned.
    belljar: SPEC failed: its process was killed by SIGABRT before the body returned.
    ");
    let sleep = |_: &[u8]| -> Answer {
        thread::sleep(Duration::from_secs(1000));
        Ok(Vec::new())
    };
    // The time may be up before there is a sandbox. That shows nothing.
    let mut late = iter::repeat_with(|| failed(&SHORT, sleep)).take(100);
    let late = late.find(|late| !late.contains("did not begin")).expect("one of a hundred begins in time");
    assert!(late.starts_with("belljar: SPEC failed: it still ran after its timeout of 100ms"), "{late}");
}

#[test]
fn a_body_that_forks_answers_once() {
    let answer = run(&PLAIN, b"", |_| match fork() {
        ForkResult::Child => Answer::Ok(b"more than the parent".to_vec()),
        ForkResult::Parent { child } => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(b"parent".to_vec()),
            other => Err(format!("{other:?}")),
        },
    });
    assert_eq!(String::from_utf8_lossy(&answer.expect("it passes")), "parent");
}

#[test]
fn a_body_that_closes_what_is_not_its_own_is_told() {
    let text = failed(&PLAIN, |_| -> Answer {
        let is_output = |fd: &i32| {
            fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|to| to.to_string_lossy().contains("belljar-output"))
        };
        let output = (3..100).find(is_output).ok_or("no output")?;
        close(output).map_err(|errno| errno.to_string())?;
        // A file that has its number then is spared.
        while fs::File::create("/tmp/other").map_err(|error| error.to_string())?.into_raw_fd() < output {}
        Ok(b"not for another file".to_vec())
    });
    assert!(text.contains("the 20 bytes that this body has returned could not be handed over: EBADF"), "{text}");
}

/// The library is the C library's own, and no test binary has it. With musl, programs load no libraries.
#[cfg(target_env = "gnu")]
#[test]
#[expect(unsafe_code, reason = "a library that is loaded")]
fn a_function_that_was_loaded_after_main_began_is_not_called() {
    const LIBRARY: &std::ffi::CStr = c"libresolv.so.2";
    // SAFETY: this library has no constructors that do harm. The function is not called, here or in the sandbox.
    let function = unsafe {
        assert!(libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD).is_null(), "it was there before");
        let library = libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW);
        let symbol = libc::dlsym(library, c"ns_initparse".as_ptr());
        assert!(!symbol.is_null());
        std::mem::transmute::<*mut std::ffi::c_void, fn(&[u8]) -> Answer>(symbol)
    };
    assert_snapshot!(failed(&PLAIN, function), @"belljar: SPEC failed: its body panicked: belljar: the sandbox does not have the code of this body. It is a fork of the process as it was before `main`, and the library with this function was loaded later. Give `belljar::run` a function of the program, and load the library in that.");
}

#[body]
fn starts_a_daemon() {
    let answer = run(&PLAIN, b"", |_| -> io::Result<Vec<u8>> {
        Command::new("sleep").arg("1000").spawn()?;
        println!("printed inside");
        Ok(getpid().to_string().into_bytes())
    });
    assert_eq!(answer.expect("it passes"), b"2");
}

#[test]
fn nothing_is_left() {
    let ran = run_body("starts_a_daemon");
    assert!(ran.passed() && ran.left.is_empty(), "{}", ran.output);
    assert!(ran.output.contains("what it left running was killed:\n  pid "), "{}", ran.output);
    assert!(ran.output.contains("printed inside"), "{}", ran.output);
}

#[belljar::isolated]
fn there_is_no_sandbox_inside_of_one() {
    let failure: Failure = run(&PLAIN, b"", echo).expect_err("it fails");
    assert!(failure.to_string().contains("`there_is_no_sandbox_inside_of_one` has called `belljar::run`"), "{failure}");
}
