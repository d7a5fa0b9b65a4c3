//! What a call costs: the bare one, one that is not watched, one that is watched and let through, and one that fails, in one run.

use std::time::{Duration, Instant};

use belljar::{Fault, isolated};
use belljar_tests::{body, run_body};

use crate::data;

const CALLS: u32 = 20_000;

/// How long a call takes: the best of some rounds.
fn cost(call: impl Fn() -> bool, is_done: bool) -> Duration {
    let round = || {
        let begun = Instant::now();
        (0..CALLS).for_each(|_| assert_eq!(call(), is_done));
        begun.elapsed() / CALLS
    };
    (0..5).map(|_| round()).min().unwrap_or_default()
}

#[body]
#[isolated]
fn costs() {
    let file = data("wal");
    let look = || nix::sys::stat::fstat(&file).is_ok();
    let parent = || nix::unistd::getppid().as_raw() > 0;
    println!("cost of fstat, bare: {:?}", cost(look, true));
    println!("cost of getppid, bare: {:?}", cost(parent, true));
    let other = Fault::new("fsync").errno(libc::EIO).start().expect("start");
    println!("cost of getppid, not watched: {:?}", cost(parent, true));
    println!("cost of fstat, watched, for no fault: {:?}", cost(look, true));
    drop(other);
    let names = ["fstat", "newfstatat"];
    let through = names.map(|name| Fault::new(name).errno(libc::EIO).path("/other/*").start().expect("start"));
    println!("cost of fstat, watched, of another path: {:?}", cost(look, true));
    drop(through);
    let failed = names.map(|name| Fault::new(name).errno(libc::EIO).start().expect("start"));
    println!("cost of fstat, failed: {:?}", cost(look, false));
    drop(failed);
}

#[test]
#[ignore = "measures, and prints what it finds"]
fn what_calls_cost() {
    let run = run_body("cost::costs");
    assert!(run.passed(), "{}", run.output);
    run.output.lines().filter(|line| line.contains("cost of")).for_each(|line| println!("{line}"));
}
