//! What becomes of tests, as runners see it: with the attribute and without it, as the feature says.
#![cfg_attr(any(miri, not(target_os = "linux")), allow(dead_code, unused_imports))] // There are no bodies then.

use std::process::{Command, Stdio};
use std::{env, fs, thread, time};

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
fn passes() {
    println!("passes");
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
fn fails() {
    panic!("as it says");
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
fn fails_the_first_time() {
    assert_ne!(env::var("NEXTEST_ATTEMPT").as_deref(), Ok("1"));
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
fn hangs() {
    loop {
        thread::sleep(time::Duration::from_secs(1));
    }
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[allow(clippy::zombie_processes)] // That is what it is about.
fn leaves_a_daemon() {
    // It has the standard streams of the test.
    Command::new("sleep").arg("30").stdin(Stdio::null()).spawn().unwrap();
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[ignore = "is slow"]
fn is_ignored() {}

/// Where it runs, the file `machine` of the checkout holds what the environment says.
#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
fn finds_its_own_checkout() {
    let Some(machine) = env::var_os("BODIES_MACHINE") else { return };
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap();
    assert_eq!(env::current_dir().unwrap(), package);
    assert_eq!(fs::read_to_string("machine").unwrap(), machine.to_str().unwrap());
}
