use std::process::Command;

use belljar::isolated;

#[isolated(pids = 16, unsupported = "skip")]
fn there_are_only_so_many_processes() {
    let started: Vec<_> = (0..20).map(|_| Command::new("sleep").arg("60").spawn()).collect();
    assert!(started.iter().any(Result::is_err)); // EAGAIN, see fork(2).
}

#[isolated(memory = "256MiB", unsupported = "skip")]
fn the_cache_is_given_back() {
    let cache = vec![1_u8; 64 << 20];
    assert!(belljar::usage().memory > Some(64 << 20));
    drop(cache);
    assert!(belljar::usage().memory < Some(64 << 20));
}
