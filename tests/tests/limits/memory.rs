//! `memory`, and what is said when it is used up.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Command;
use std::{env, process};

use belljar::isolated;
use belljar_tests::{MIB, allocate, body, fork, hang, run, run_body, this_binary};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, geteuid};

use crate::is_limited;
use crate::parent::Parent;

#[body]
#[isolated(memory = "64MiB")]
fn allocates_too_much() {
    allocate(70);
}

#[body]
#[isolated(memory = "64MiB")]
fn allocates_almost_too_much() {
    allocate(58);
}

#[body]
#[isolated]
fn allocates_without_a_limit() {
    allocate(70);
}

/// Half in the test, half in a child.
#[body]
#[isolated(memory = "64MiB", timeout = "1m")]
fn allocates_from_two_processes() {
    let _ours = allocate(35);
    match fork() {
        ForkResult::Child => {
            allocate(35);
            process::abort();
        }
        ForkResult::Parent { child } => {
            let _ = waitpid(child, None);
        }
    }
}

/// The kernel kills the child, and the test would wait for ever.
#[body]
#[isolated(memory = "64MiB")]
fn waits_for_a_child_that_is_killed() {
    match fork() {
        ForkResult::Child => {
            nix::sys::prctl::set_name(c"glutton").expect("set_name");
            allocate(80);
            process::abort();
        }
        ForkResult::Parent { .. } => hang(),
    }
}

/// So would a child of a child, which its parent has waited for.
#[body]
#[isolated(memory = "64MiB")]
fn waits_for_a_grandchild_that_is_killed() {
    match fork() {
        ForkResult::Child => {
            nix::sys::prctl::set_name(c"parent").expect("set_name");
            match fork() {
                ForkResult::Child => {
                    nix::sys::prctl::set_name(c"glutton").expect("set_name");
                    allocate(80);
                    process::abort();
                }
                ForkResult::Parent { child } => {
                    let _ = waitpid(child, None);
                    hang()
                }
            }
        }
        ForkResult::Parent { .. } => hang(),
    }
}

/// The same, where the kernel cuts the name of the test's process within a character, and that of the child is no UTF-8.
#[body]
#[isolated(memory = "64MiB")]
fn waits_for_a_child_with_an_odd_name() {
    fs::write("/proc/self/comm", "fourteen-bytesé").expect("comm");
    match fork() {
        ForkResult::Child => {
            nix::sys::prctl::set_name(c"Z\xfcrich").expect("set_name");
            allocate(80);
            process::abort();
        }
        ForkResult::Parent { .. } => hang(),
    }
}

#[body]
#[isolated(memory = "64MiB")]
fn fills_the_tmpfs() {
    let mut file = File::create("/tmp/large").expect("create");
    for _ in 0..70 {
        file.write_all(&vec![1; MIB]).expect("write");
    }
}

#[isolated(mount, tmpfs = "8MiB")]
fn the_tmpfs_has_its_size() {
    for place in ["/tmp/large", &format!("{}/large", env!("CARGO_TARGET_TMPDIR"))] {
        let mut file = File::create(place).expect("create");
        let written = (0..16).take_while(|_| file.write_all(&vec![1; MIB]).is_ok()).count();
        assert!((7..=8).contains(&written), "{written} MiB in {place}");
        fs::remove_file(place).expect("remove");
    }
}

#[test]
fn too_much_memory_is_named() {
    for name in ["memory::allocates_too_much", "memory::allocates_from_two_processes", "memory::fills_the_tmpfs"] {
        let run = run_body(name);
        if is_limited(&run) {
            assert!(run.failed(), "{}", run.output);
            assert!(run.output.contains("killed: out of memory (limit 64 MiB"), "{name}: {}", run.output);
        }
        assert!(run.left.is_empty());
    }
}

/// A cgroup above may have less than the test: then it was not the test's own limit, and that is told.
#[test]
fn less_memory_above_is_named() {
    let Some(parent) = Parent::new("outer") else { return };
    let set = |limit: usize| {
        for directory in &parent.directories {
            for file in ["memory.limit_in_bytes", "memory.max"].map(|file| directory.join(file)) {
                if file.exists() {
                    fs::write(file, limit.to_string()).expect("write");
                }
            }
        }
    };
    let run = || {
        let mut command = this_binary();
        command.args(["--exact", "body", "memory::allocates_almost_too_much"]);
        parent.use_it(&mut command);
        run(&mut command)
    };
    set(80 * MIB);
    let ran = run();
    assert!(ran.passed(), "{}", ran.output);
    set(40 * MIB);
    let ran = run();
    assert!(ran.failed() && !ran.output.contains("limit 64 MiB"), "{}", ran.output);
    assert!(ran.output.contains("has used up its memory"), "{}", ran.output);
    assert!(ran.output.contains(&parent.path) && ran.output.contains(&(40 * MIB).to_string()), "{}", ran.output);
}

/// All die as one, and it is told who had most.
#[test]
fn the_largest_is_named() {
    for (name, largest) in [
        ("memory::allocates_too_much", ["`memory::allocates_too_much` "; 2]),
        ("memory::waits_for_a_child_that_is_killed", ["`glutton` "; 2]),
        ("memory::waits_for_a_child_with_an_odd_name", ["`Z\u{fffd}rich` "; 2]),
        // Whether its parent has waited for it by then is a matter of luck.
        ("memory::waits_for_a_grandchild_that_is_killed", ["`parent` or a child of it ", "`glutton` "]),
    ] {
        let run = run_body(name);
        if is_limited(&run) {
            let mut rest = largest.iter().filter_map(|largest| run.output.split_once(&format!(", largest: {largest}")));
            let figure = rest.next().map(|(_, rest)| rest);
            let figure = figure.and_then(|rest| rest.split_once(" MiB).")?.0.parse::<f64>().ok());
            assert!(figure.is_some_and(|figure| (57.0..72.0).contains(&figure)), "{name}: {}", run.output);
        }
        assert!(run.failed() && run.left.is_empty());
    }
    // It has no process that is large.
    let run = run_body("memory::fills_the_tmpfs");
    let is_small = |rest: &str| {
        rest.split_once(" MiB).").is_none_or(|(figure, _)| figure.parse::<f64>().is_ok_and(|figure| figure < 20.0))
    };
    let largest = run.output.split_once(", largest: `memory::fills_the_tmpfs` ").map(|(_, rest)| rest);
    assert!(!is_limited(&run) || largest.is_some_and(is_small), "{}", run.output);
}

#[test]
fn almost_too_much_memory_is_not() {
    let run = run_body("memory::allocates_almost_too_much");
    if is_limited(&run) {
        assert!(run.passed() && !run.output.contains("belljar"), "{}", run.output);
    }
    let run = run_body("memory::allocates_without_a_limit");
    assert!(run.passed() && !run.output.contains("belljar"), "{}", run.output);
}

/// What the kernel is told to spare when memory is used up doesn't spare its tests.
#[test]
fn the_spared_spare_no_tests() {
    let script = "echo -1000 > /proc/self/oom_score_adj && exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(this_binary().get_program()).args([
        "--exact",
        "body",
        "memory::allocates_too_much",
    ]);
    let run = run(&mut command);
    // It takes CAP_SYS_RESOURCE, which root has in the lab.
    let may = run.output.contains("running 1 test");
    assert!(may || !geteuid().is_root() || env::var_os("BELLJAR_TESTS_LIMITS").is_none(), "{}", run.output);
    if may && is_limited(&run) {
        assert!(run.failed() && run.output.contains("killed: out of memory (limit 64 MiB"), "{}", run.output);
    }
}
