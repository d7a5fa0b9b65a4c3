//! A neighbour in the same process that has all descriptors.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;

use belljar::isolated;
use belljar_tests::{body, must_limit, wait_until};

use super::on_the_way::meet;
use super::{meeting_place, run_limited};

/// The kernel kills a child of it, which it takes no notice of, when its neighbour has all descriptors.
#[body]
#[isolated(memory = "64MiB", uts)]
fn loses_a_child() {
    let _neighbour = meet();
    let status = Command::new("tail").arg("/dev/zero").status().expect("tail");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
}

#[body]
fn hoards_later() {
    let listener = UnixListener::bind_addr(&meeting_place()).expect("listen");
    let (mut neighbour, _) = listener.accept().expect("the neighbour's sandbox");
    // Its thread has its name, of which the kernel keeps the beginning. To look whether it is there takes no descriptor.
    let threads = fs::read_dir("/proc/self/task").expect("threads").map(|thread| thread.expect("a thread").path());
    let is_neighbour = |thread: &PathBuf| {
        let name = fs::read_to_string(thread.join("comm")).unwrap_or_default();
        name.starts_with("hoarded::") && !name.starts_with("hoarded::hoards")
    };
    let thread = threads.filter(is_neighbour).collect::<Vec<_>>();
    assert_eq!(thread.len(), 1, "{thread:?}");
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    neighbour.write_all(&[0]).expect("write");
    // Until the neighbour has been judged.
    wait_until(|| !thread[0].exists());
}

/// It asks when its neighbour has all descriptors, so that its question does not arrive.
#[body]
#[isolated(root = "overlay", mount, uts)]
fn asks_in_vain() {
    let _neighbour = meet();
    let error = belljar::changes().expect_err("no room for the question");
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
}

/// It is not said that nobody can be asked, which a test may take for a host that can't.
#[test]
fn a_question_that_is_lost_is_no_answer() {
    // With so many, none are scarce before, so that no room is made for the question.
    let run = run_limited(None, &["body", "hoarded::asks_in_vain", "hoarded::hoards_later"], "ulimit -n 128", 2);
    assert!(run.output.contains("test hoarded::hoards_later ... ok"), "{}", run.output);
    assert!(run.output.contains("test hoarded::asks_in_vain ... ok"), "{}", run.output);
}

#[test]
fn an_oom_is_seen_without_descriptors() {
    if must_limit() != Some(true) {
        println!("not tried: this user can't limit memory here");
        return;
    }
    let run = run_limited(None, &["body", "hoarded::loses_a_child", "hoarded::hoards_later"], "ulimit -n 64", 2);
    assert!(run.output.contains("test hoarded::hoards_later ... ok"), "{}", run.output);
    assert!(run.output.contains("test hoarded::loses_a_child ... FAILED"), "{}", run.output);
    assert!(run.output.contains("killed: out of memory"), "{}", run.output);
}
