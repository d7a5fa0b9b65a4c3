//! Bodies that panic, for builds in which that aborts: with the attribute and without it, as the feature says.
#![cfg_attr(any(miri, not(target_os = "linux")), allow(dead_code, unused_imports))] // There are no bodies then.

use std::{panic, thread};

/// Bodies alone need this.
fn on_purpose() -> ! {
    panic!("on purpose");
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[should_panic]
fn panics_as_it_should() {
    on_purpose();
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[should_panic(expected = "on purpose")]
fn panics_as_expected() {
    panic!("{} on purpose", "-".repeat(100_000));
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[should_panic]
fn panics_without_text() {
    panic::panic_any(5);
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[should_panic(expected = "elsewhere")]
fn panics_on_another_thread() {
    let _ = thread::spawn(|| panic!("elsewhere")).join();
}

/// Nothing catches it there.
#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[should_panic(expected = "caught")]
fn panics_and_catches_it() {
    let _ = panic::catch_unwind(|| panic!("caught"));
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
fn returns() {}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
fn fails_by_a_panic() {
    panic!("on purpose");
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[should_panic(expected = "on purpose")]
fn fails_by_another_panic() {
    panic!("by accident");
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[should_panic]
fn fails_by_no_panic() {}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[should_panic]
fn fails_by_a_signal() {
    std::process::abort();
}

/// A hook that is set by the body stands in the place of the one that would have told.
#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[should_panic]
fn fails_by_a_hook() {
    panic::set_hook(Box::new(|_| {}));
    panic!("on purpose");
}
