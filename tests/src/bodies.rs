//! Bodies: what tests run in processes of their own, to look at how that ends.
//!
//! The harness must not know them: it would run them as tests. Each test binary that has some has one test for them,
//! `body`. It runs the bodies that are named behind it, as the harness would run tests:
//!
//! ```console
//! $ verdicts --exact body hostile::panics               # one, as the test itself
//! $ moving --exact --test-threads=8 body 'crowd::*'     # all whose names begin so, and a verdict on each
//! ```
//!
//! If none is named, as in a run of all tests, `body` checks that the harness lists no body.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::panic::{catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::{env, thread};

use crate::{MARK, this_binary};

/// Makes a body of a function, in the place of `#[test]`, or above `#[isolated]`. `#[should_panic]` goes with it.
pub use belljar_tests_body::body;

/// The bodies of this binary.
#[linkme::distributed_slice]
pub static BODIES: [Body];

/// What [`body`] makes.
pub struct Body {
    /// Its path, with the crate.
    pub path: &'static str,
    /// What its panic has to contain, if it must panic.
    pub should_panic: Option<&'static str>,
    /// What it does.
    pub function: fn(),
}

/// The test `body`, which runs bodies for the others.
#[macro_export]
macro_rules! bodies {
    () => {
        #[test]
        fn body() {
            $crate::run_bodies();
        }
    };
}

/// The environment variable that names a body where the arguments must name one test, and no more, as those of nextest do.
pub(crate) const BODY: &str = "BELLJAR_TESTS_BODY";

/// Runs the bodies that are named, and panics if one fails. If none is, panics if the harness lists one.
pub fn run_bodies() {
    if !is_stack_small() {
        return run_named();
    }
    // This thread may have next to none.
    let thread = thread::Builder::new().stack_size(USUAL_STACK).spawn(run_named).expect("a thread");
    thread.join().unwrap_or_else(|payload| resume_unwind(payload));
}

/// Fails if the harness would run a body by itself, as one that is a test too.
fn check_unlisted() {
    // A test that starts this binary wants a body to run. If it names none, that must not pass.
    assert!(env::var_os(MARK).is_none(), "name a body: {:?}", env::args());
    let list = this_binary().args(["--list", "--format=terse"]).output().expect("this binary runs");
    let list = String::from_utf8(list.stdout).expect("names");
    let names: BTreeSet<_> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    assert!(names.contains("body"), "not all tests are listed: {list}");
    let listed: Vec<_> = BODIES.iter().map(Body::name).filter(|name| names.contains(name)).collect();
    assert!(listed.is_empty(), "the harness runs bodies by itself: {listed:?}");
}

/// How large the stacks of threads are if nobody says otherwise.
const USUAL_STACK: usize = 2 << 20;

/// Whether the environment gives threads smaller stacks.
fn is_stack_small() -> bool {
    env::var("RUST_MIN_STACK").is_ok_and(|stack| stack.parse::<usize>().is_ok_and(|stack| stack < USUAL_STACK))
}

fn run_named() {
    let (options, arguments): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let is_exact = options.iter().any(|option| option == "--exact");
    let mut names: Vec<_> = arguments.into_iter().skip_while(|name| name != "body").skip(1).collect();
    names.extend(env::var(BODY));
    if !is_exact {
        // The others name tests, unless somebody has forgotten the option.
        let is_body = |name: &String| BODIES.iter().any(|body| body.name() == name);
        assert!(!names.iter().any(is_body), "write `--exact` to run bodies: {names:?}");
    }
    if !is_exact || names.is_empty() {
        return check_unlisted();
    }
    for name in &names {
        assert!(BODIES.iter().any(|body| body.matches(name)), "there is no body {name}");
    }
    let mut bodies: Vec<_> = BODIES.iter().filter(|body| names.iter().any(|name| body.matches(name))).collect();
    let skipped: Vec<_> = options.iter().filter_map(|option| option.strip_prefix("--skip=")).collect();
    bodies.retain(|body| !skipped.iter().any(|name| body.matches(name)));
    bodies.sort_by_key(|body| body.name());
    match bodies.as_slice() {
        [] => panic!("all that are named are skipped"),
        [body] if is_stack_small() => {
            let thread = thread::Builder::new().name(body.name().to_owned()).spawn(|| body.run()).expect("a thread");
            thread.join().unwrap_or_else(|payload| resume_unwind(payload));
        }
        [body] => body.run(),
        several => {
            let threads = options.iter().find_map(|option| option.strip_prefix("--test-threads="));
            let threads =
                threads.map_or_else(thread::available_parallelism, |threads| Ok(threads.parse().expect("a number")));
            run_several(several, threads.expect("the number of processors").get());
        }
    }
}

/// Runs bodies, each on a thread of its own, so many at once.
fn run_several(bodies: &[&Body], threads: usize) {
    let (sender, verdicts) = mpsc::channel();
    let (mut passed, mut failed) = (0, 0);
    say("\n");
    thread::scope(|scope| {
        let mut running = BTreeMap::new();
        for (index, body) in bodies.iter().enumerate() {
            let sender = sender.clone();
            let run = move || sender.send((index, catch_unwind(|| body.run()).is_ok())).expect("send");
            let thread = thread::Builder::new().name(body.name().to_owned()).spawn_scoped(scope, run);
            running.insert(index, thread.expect("a thread"));
            // The last waits for all.
            let at_most = if index + 1 < bodies.len() { threads - 1 } else { 0 };
            while running.len() > at_most {
                let (index, has_passed) = verdicts.recv().expect("a verdict");
                running.remove(&index).expect("a thread").join().expect("a verdict");
                *if has_passed { &mut passed } else { &mut failed } += 1;
                say(&format!("test {} ... {}\n", bodies[index].name(), if has_passed { "ok" } else { "FAILED" }));
            }
        }
    });
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    say(&format!("\ntest result: {verdict}. {passed} passed; {failed} failed;\n"));
    if failed > 0 {
        fail("bodies failed");
    }
}

/// Writes past the harness, which keeps what is printed.
fn say(text: &str) {
    io::stdout().write_all(text.as_bytes()).expect("write");
}

impl Body {
    /// The name that a test would have.
    fn name(&self) -> &'static str {
        self.path.split_once("::").map_or(self.path, |(_, name)| name)
    }

    /// Whether this is its name, or one with a `*` at its ends in the place of any text.
    fn matches(&self, name: &str) -> bool {
        let (text, part) = (self.name(), name.trim_matches('*'));
        match (name.starts_with('*'), name.ends_with('*')) {
            (false, false) => text == part,
            (false, true) => text.starts_with(part),
            (true, false) => text.ends_with(part),
            (true, true) => text.contains(part),
        }
    }

    /// Runs it. Returns if it passed, and panics otherwise.
    fn run(&self) {
        let Some(expected) = self.should_panic else { return (self.function)() };
        // By the rules of the harness, and in its words.
        let Err(payload) = catch_unwind(self.function) else { fail("note: test did not panic as expected") };
        let text = text(&*payload);
        if !expected.is_empty() && !text.is_some_and(|text| text.contains(expected)) {
            fail(&format!(
                "note: panic did not contain expected string\n      panic message: {text:?}\n expected substring: {expected:?}"
            ));
        }
    }
}

/// Fails without the message of a panic.
fn fail(text: &str) -> ! {
    eprintln!("{text}");
    resume_unwind(Box::new(()))
}

/// What a panic said.
fn text(payload: &(dyn Any + Send)) -> Option<&str> {
    payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}
