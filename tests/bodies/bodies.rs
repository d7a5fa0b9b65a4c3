//! The same bodies with the attribute and without it, as the feature says.
#![cfg_attr(any(miri, not(target_os = "linux")), allow(dead_code, unused_imports))] // There are no bodies then.

use covered::{before_the_end, collatz};

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
fn everything_is_its_own() {
    for n in 1..=10 {
        assert!(collatz(n) < 20);
    }
}

#[cfg_attr(feature = "isolated", belljar::isolated(mount, hostname = "covered"))]
#[cfg_attr(not(feature = "isolated"), test)]
fn the_root_is_its_own() {
    assert_eq!(collatz(27), 111);
}

#[cfg_attr(feature = "isolated", belljar::isolated(net))]
#[test]
fn the_network_is_its_own() {
    assert_eq!(collatz(6), 8);
}

#[cfg_attr(feature = "isolated", belljar::isolated(root = "overlay"))]
#[cfg_attr(not(feature = "isolated"), test)]
fn the_root_is_a_copy() {
    assert_eq!(collatz(7), 16);
}

#[cfg_attr(feature = "isolated", belljar::isolated(user = 1000))]
#[cfg_attr(not(feature = "isolated"), test)]
fn the_user_is_another() {
    assert_eq!(collatz(9), 19);
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[should_panic(expected = "111 steps")]
fn panics_as_it_should() {
    let steps = collatz(27);
    panic!("{steps} steps");
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
fn threads_count() {
    let threads: Vec<_> = (1..=4).map(|n| std::thread::spawn(move || collatz(n))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[ignore = "fails"]
fn fails() {
    let steps = collatz(97);
    assert_eq!(steps, 0);
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[ignore = "fails with AddressSanitizer"]
fn uses_what_is_freed() {
    let steps = Box::new(collatz(27));
    let freed: *const u32 = &*steps;
    drop(steps);
    // SAFETY: it is not safe.
    std::hint::black_box(unsafe { freed.read_volatile() });
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[ignore = "fails with ThreadSanitizer"]
fn races() {
    static mut STEPS: u32 = 0;
    let add = || {
        for _ in 0..1000 {
            // SAFETY: it is not safe.
            unsafe { STEPS += 1 };
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(add);
        scope.spawn(add);
    });
}

#[cfg_attr(feature = "isolated", belljar::isolated)]
#[cfg_attr(not(feature = "isolated"), test)]
#[ignore = "fails, and loses what it counted"]
fn does_not_come_to_its_end() {
    let steps = before_the_end();
    // SAFETY: it has no preconditions.
    unsafe { libc::_exit(if steps > 0 { 0 } else { 1 }) }
}
