//! A neighbour in the same process that has all processes and threads that their user may have.

use std::process::{Child, Command};
use std::time::Duration;

use belljar_tests::body;

use super::on_the_way::{hold, run_beside};

/// More than both tests take, with the sandboxes that are made ahead.
const LIMIT: &str = "prlimit --pid $$ --nproc=50";

struct Sleepers(Vec<Child>);

impl Drop for Sleepers {
    fn drop(&mut self) {
        for sleeper in &mut self.0 {
            let _ = sleeper.kill().and_then(|()| sleeper.wait());
        }
    }
}

fn take_all() -> Sleepers {
    let mut all = Sleepers(Vec::new());
    while let Ok(sleeper) = Command::new("sleep").arg("60").spawn() {
        all.0.push(sleeper);
    }
    all
}

#[body]
fn has_all() {
    hold(Some(Duration::from_millis(200)), take_all);
}

#[body]
fn has_all_for_long() {
    hold(None, take_all);
}

/// The calls of its body are answered by a thread.
#[test]
fn a_fault_waits_for_a_thread() {
    let Some(output) = run_beside("processes::has_all", LIMIT, 2) else { return };
    assert!(output.contains("2 passed; 0 failed;"), "{output}");
}

#[test]
fn a_thread_that_is_not_to_be_had_is_named() {
    let Some(output) = run_beside("processes::has_all_for_long", LIMIT, 3) else { return };
    assert!(output.contains("test on_the_way::meets_a_fault ... FAILED"), "{output}");
    assert!(output.contains("EAGAIN (Try again). It may be that this user has as many processes and threads as it may have: RLIMIT_NPROC is 50"), "{output}");
}
