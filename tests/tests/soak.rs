//! Many tests, many times. It takes minutes, so that only its own command runs it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, process, thread};

use belljar_tests::{body, rounds, this_binary};

belljar_tests::bodies!();

/// Two thousand tests, two hundred in each of ten modules.
macro_rules! two_thousand {
    ($($module:ident)*) => { $(mod $module { $crate::two_hundred!(a b c d e f g h i j k l m n o p q r s t); })* };
}
macro_rules! two_hundred {
    ($($module:ident)*) => { $(pub(crate) mod $module { $crate::ten!(a b c d e f g h i j); })* };
}
macro_rules! ten {
    ($($name:ident)*) => {
        $(#[belljar_tests::body]
        #[belljar::isolated]
        pub(crate) fn $name() {})*
    };
}
pub(crate) use {ten, two_hundred};

two_thousand!(m0 m1 m2 m3 m4 m5 m6 m7 m8 m9);

#[test]
fn two_thousand_tests_pass() {
    let run = belljar_tests::run(this_binary().args(["--exact", "--test-threads=8", "body", "*::*"]));
    assert!(run.output.contains("test result: ok. 2000 passed; 0 failed;"), "{}", run.output);
    assert!(run.left.is_empty());
}

#[test]
fn two_hundred_tests_two_hundred_times() {
    for round in 0..rounds(200) {
        let run = belljar_tests::run(this_binary().args(["--exact", "--test-threads=8", "body", "m0::*"]));
        assert!(run.output.contains("test result: ok. 200 passed; 0 failed;"), "round {round}: {}", run.output);
        assert!(run.left.is_empty(), "round {round} left {:?}", run.left);
    }
}

/// What a process uses: descriptors, and KiB of memory. `VmRSS` in `status` would leave out what other processors have not handed in yet: see
/// proc_pid_status(5).
fn usage(pid: u32) -> (usize, usize) {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").count();
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let memory = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).expect("Rss");
    (descriptors, memory.trim().trim_end_matches(" kB").parse().expect("a number"))
}

#[test]
fn usage_stays_the_same() {
    let run = belljar_tests::run_body("uses_two_thousand_sandboxes");
    assert!(run.passed(), "{}", run.output);
}

/// In a process of its own, whose figures no other test changes.
#[body]
fn uses_two_thousand_sandboxes() {
    /// As much as an allocator may take for threads that come and go, and a small part of what a leak would: two
    /// thousand pages are 8 MiB.
    const SLACK: usize = 512;
    let run = |count: usize| {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while next.fetch_add(1, Ordering::Relaxed) < count {
                        m0::a::a();
                    }
                });
            }
        });
        // How many sandboxes are kept ready depends on how many tests run.
        m0::a::a();
        let zygotes = belljar_tests::descendants(process::id());
        let zygote = *zygotes.iter().find(|pid| is_zygote(**pid)).expect("a zygote");
        // What the last test asked for, it may still be making.
        belljar_tests::wait_until(|| waits_for_requests(zygote));
        [process::id(), zygote].map(usage)
    };
    // So many fill what the allocator keeps for threads: it grows no more then.
    let before = run(4000);
    let after = run(1900);
    println!("before {before:?}, after {after:?}");
    for ((fds_before, memory_before), (fds_after, memory_after)) in before.into_iter().zip(after) {
        assert_eq!(fds_after, fds_before);
        assert!(memory_after <= memory_before + SLACK, "{memory_before} KiB became {memory_after}");
    }
}

/// Whether this zygote has nothing to do.
fn waits_for_requests(zygote: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{zygote}/syscall")).expect("syscall");
    call.split(' ').next().is_some_and(|number| number == libc::SYS_recvmsg.to_string())
}

fn is_zygote(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "belljar-zygote\n")
}
