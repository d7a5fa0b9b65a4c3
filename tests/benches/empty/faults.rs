//! What a call costs, in one sandbox: the bare one, one that is not watched, one that is watched and let through, and one that fails.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use belljar::__private::{Test, run};
use belljar::Fault;

use super::{SPEC, print_row};

const ROUNDS: usize = 15;
const CALLS: u32 = 5000;

static CALLING: Test = Test { name: "bench::calls", spec: SPEC, body: measure, ..Test::PLAIN };

pub(super) fn compare() {
    println!("system calls, {ROUNDS} rounds of {CALLS}; microseconds a call");
    println!("\n{:<24} {:>8} {:>8} {:>8}", "", "min", "median", "p90");
    run(&CALLING);
}

/// In a sandbox: a row of how long a call takes that is done, or fails.
fn row(name: &str, call: impl Fn() -> bool, is_done: bool) {
    let round = |_| {
        let begun = Instant::now();
        (0..CALLS).for_each(|_| assert_eq!(call(), is_done));
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
    };
    print_row(&format!("{name:<24}"), (0..ROUNDS).map(round).collect(), &[]);
}

fn measure() -> u8 {
    fs::create_dir("/data").expect("a directory");
    let file = File::create("/data/wal").expect("a file");
    let look = || nix::sys::stat::fstat(&file).is_ok();
    let open = || nix::sys::stat::lstat(Path::new("/data/wal")).is_ok();
    let parent = || nix::unistd::getppid().as_raw() > 0;
    row("getppid, bare", parent, true);
    row("fstat, bare", look, true);
    row("lstat, bare", open, true);
    let other = Fault::new("fsync").errno(libc::EIO).start().expect("a fault");
    row("getppid, not watched", parent, true);
    row("fstat, of no fault", look, true);
    row("lstat, of no fault", open, true);
    drop(other);
    let calls = ["fstat", "newfstatat", "lstat"];
    let start = |path: &str| calls.map(|call| Fault::new(call).errno(libc::EIO).path(path).start().expect("a fault"));
    let through = start("/other/*");
    row("fstat, of another path", look, true);
    row("lstat, of another path", open, true);
    drop(through);
    let failed = start("/data/*");
    row("fstat, failed", look, false);
    row("lstat, failed", open, false);
    drop(failed);
    0
}
