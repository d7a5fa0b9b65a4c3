//! Bodies: what tests run in processes of their own, to look at how that ends.
//!
//! They are no tests of the harness, which would list them and run them by itself. Each test binary that has some has one test that is
//! ignored, `body`. It runs the bodies that the other arguments of the harness name, as the harness would run tests:
//!
//! ```console
//! $ verdicts --ignored --exact body hostile::panics          # one, as the test itself
//! $ moving --ignored --test-threads=8 body crowd::           # all with this in their names, and a verdict on each
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::panic::{catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::{env, thread};

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
        #[ignore = "runs what other tests start in processes of their own"]
        fn body() {
            $crate::run_bodies();
        }
    };
}

/// Runs the bodies that the arguments name, and panics if one fails.
pub fn run_bodies() {
    if !is_stack_small() {
        return run_named();
    }
    // This thread may have next to none.
    let thread = thread::Builder::new().stack_size(USUAL_STACK).spawn(run_named).expect("a thread");
    thread.join().unwrap_or_else(|payload| resume_unwind(payload));
}

/// How large the stacks of threads are if nobody says otherwise.
const USUAL_STACK: usize = 2 << 20;

/// Whether the environment gives threads smaller stacks.
fn is_stack_small() -> bool {
    env::var("RUST_MIN_STACK").is_ok_and(|stack| stack.parse::<usize>().is_ok_and(|stack| stack < USUAL_STACK))
}

fn run_named() {
    let (options, mut names): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|argument| argument.starts_with("--"));
    names.retain(|name| name != "body");
    let is_exact = options.iter().any(|option| option == "--exact");
    let threads = options.iter().find_map(|option| option.strip_prefix("--test-threads="));
    let threads = threads.map_or_else(thread::available_parallelism, |threads| Ok(threads.parse().expect("a number")));
    let is_meant =
        |body: &&Body, name: &String| if is_exact { body.name() == name } else { body.name().contains(name) };
    for name in &names {
        assert!(BODIES.iter().any(|body| is_meant(&body, name)), "there is no body {name}");
    }
    let mut bodies: Vec<_> = BODIES.iter().filter(|body| names.iter().any(|name| is_meant(body, name))).collect();
    let skipped: Vec<_> = options.iter().filter_map(|option| option.strip_prefix("--skip=")).collect();
    bodies.retain(|body| !skipped.iter().any(|name| body.name().contains(name)));
    bodies.sort_by_key(|body| body.name());
    match bodies.as_slice() {
        [] => panic!("name a body"),
        [body] if is_stack_small() => {
            let thread = thread::Builder::new().name(body.name().to_owned()).spawn(|| body.run()).expect("a thread");
            thread.join().unwrap_or_else(|payload| resume_unwind(payload));
        }
        [body] => body.run(),
        several => run_several(several, threads.expect("the number of processors").get()),
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
