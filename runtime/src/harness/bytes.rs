//! Bodies that are no tests: `run` hands bytes over, and returns bytes.

use std::error::Error;
use std::fmt::{self, Debug, Display, Formatter};
use std::io;
use std::sync::Arc;

use super::evidence::Evidence;
use super::judge::Verdict;
use super::run::{find, with_usual_stack};
use super::run_by::{Call, RunBy};
use super::words;
use crate::diagnosis::lack;
use crate::frame::Outcome;
use crate::frame::address::Function;
use crate::sandbox;
use crate::spec::Test;
use crate::sys::errno_of;

/// A sandbox, as [`spec!`](crate::spec!) describes it.
///
/// ```
/// static SPEC: belljar::Spec = belljar::spec!(net, timeout = "30s");
/// ```
#[derive(Clone, Copy)]
pub struct Spec(&'static Test);

/// For [`spec!`](crate::spec!) alone: the zygote must have the constant at this address.
pub const fn spec(test: &'static Test) -> Spec {
    Spec(test)
}

impl Debug for Spec {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.0.short_name(), self.0.arguments)
    }
}

/// Why [`run`] has returned nothing: the body has failed, or it did not run.
///
/// As text, it says what belljar says of a test that fails: a panic, an error, `exit`, a signal, a limit, a timeout, or why this host can't
/// make the sandbox. [`Debug`] says the same, so that `unwrap` does.
pub struct Failure {
    text: String,
    is_skip: bool,
}

impl Failure {
    /// Whether the body was not run because this host can't make its sandbox, and `unsupported = "skip"` or `BELLJAR_UNSUPPORTED` asks for
    /// such bodies to be skipped.
    ///
    /// ```
    /// # fn main() {
    /// # static SPEC: belljar::Spec = belljar::spec!();
    /// # let failure = belljar::run(&SPEC, b"", |_| Err("on purpose")).unwrap_err();
    /// if failure.is_skip() {
    ///     println!("skipped: {failure}");
    /// }
    /// # assert!(!failure.is_skip());
    /// # }
    /// ```
    pub fn is_skip(&self) -> bool {
        self.is_skip
    }

    fn new(text: String) -> Self {
        Self { text, is_skip: false }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Debug for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {}

/// Calls `body` with `input` in a sandbox of its own, and returns what it returns.
///
/// For what has no attribute: harnesses that find their tests as they run, benches, programs. The sandbox is a fork of this process as it was
/// before `main`. So `body` captures nothing: it is a function, or a closure without captures. What it is to know goes in as bytes, and
/// what it finds out comes back as bytes, of any size.
///
/// ```
/// static SPEC: belljar::Spec = belljar::spec!(net, timeout = "30s");
///
/// fn port_of(address: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
///     let server = std::net::TcpListener::bind(std::str::from_utf8(address)?)?;
///     Ok(server.local_addr()?.port().to_string().into_bytes())
/// }
///
/// fn main() -> Result<(), belljar::Failure> {
///     assert_eq!(belljar::run(&SPEC, b"0.0.0.0:80", port_of)?, b"80");
///     Ok(())
/// }
/// ```
///
/// Several threads may call it at once. What the body prints is printed by this thread, by `print!` and `eprint!`. The input counts for
/// the caller's memory, and what the body makes of it and returns for that of the sandbox, which `memory` limits.
///
/// # Errors
///
/// What fails a test fails this: a panic of the body, an error that it returns, `exit`, a signal, a limit, a timeout, a host that can't make
/// the sandbox, a call in a sandbox, as there is none inside of one, and a function of a library that was loaded after `main` began. The
/// text names the place of the [`spec!`](crate::spec!).
///
/// ```
/// static SPEC: belljar::Spec = belljar::spec!();
///
/// # fn main() {
/// let failure = belljar::run(&SPEC, b"", |_| Err("no such luck")).unwrap_err();
/// assert!(failure.to_string().ends_with("its body returned an error: no such luck"));
/// # }
/// ```
pub fn run<E: Display>(spec: &Spec, input: &[u8], body: fn(&[u8]) -> Result<Vec<u8>, E>) -> Result<Vec<u8>, Failure> {
    call(spec.0, input, Function::new(body))
}

fn call(test: &'static Test, input: &[u8], function: Function) -> Result<Vec<u8>, Failure> {
    let name = test.short_name();
    if let Some(outer) = sandbox::outer() {
        return Err(Failure::new(words::run_inside(name, outer.short_name())));
    }
    let no_memory =
        |error: io::Error| Failure::new(words::input_not_kept(name, errno_of(&error), lack(errno_of(&error)).as_ref()));
    let call = Call::new(function, input).map_err(no_memory)?;
    let call = Arc::new(call);
    let caller = RunBy::Run(Arc::clone(&call));
    let (verdict, evidence) = with_usual_stack(move || find(test, &caller));
    let output = || call.output().map_err(|error| Failure::new(words::output_lost(name, &error)));
    match verdict {
        Verdict::Passed => output(),
        Verdict::Panicked(text) => Err(Failure::new(words::panicked(name, text.as_deref()))),
        Verdict::Skipped(text) => Err(Failure { text, is_skip: true }),
        Verdict::Failed(text) if returned_error(evidence.as_deref()) && text == words::returned_failure(name, 1) => {
            Err(Failure::new(words::returned_error(name, &String::from_utf8_lossy(&output()?))))
        }
        Verdict::Failed(text) => Err(Failure::new(text)),
    }
}

fn returned_error(evidence: Option<&Evidence>) -> bool {
    evidence.is_some_and(|evidence| evidence.outcome == Some(Outcome::Returned(1)))
}
