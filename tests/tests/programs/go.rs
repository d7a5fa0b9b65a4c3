//! A library in Go. Its runtime starts threads in a constructor, which runs before belljar's.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, thread};

use belljar::isolated;
use belljar_tests::{as_runner, body, rounds, run, runners, succeeds, this_binary};

/// What other threads do all the time: they allocate, by Go and by the C library, whose lock one of them has at most moments.
const LIBRARY: &str = r#"package main

// #include <stdlib.h>
import "C"
import "time"

var kept [4][]byte

func init() {
	for at := range kept {
		go func(at int) {
			for {
				kept[at] = make([]byte, 1<<16)
				for i := 0; i < 200; i++ {
					C.free(C.malloc(5000))
				}
				time.Sleep(10 * time.Microsecond)
			}
		}(at)
	}
}

func main() {}
"#;

/// How many threads Go has started. They have the name of the main thread; those of the harness and of bodies have names of their own.
fn threads_of_go() -> usize {
    let main = fs::read("/proc/self/comm").expect("a name");
    let threads = fs::read_dir("/proc/self/task").expect("threads").flatten();
    threads.filter(|thread| fs::read(thread.path().join("comm")).is_ok_and(|name| name == main)).count() - 1
}

#[body]
fn has_threads_of_go() {
    assert!(threads_of_go() > 0);
}

#[body]
#[isolated]
fn passes_beside_go() {
    let thread = thread::spawn(|| (0..100).map(|_| vec![1; 5000].len()).sum::<usize>());
    assert_eq!(thread.join().expect("a thread"), 500_000);
}

#[body]
#[isolated(root = "overlay")]
fn starts_a_program_beside_go() {
    println!("{}", succeeds("echo started"));
}

#[body]
#[isolated]
#[should_panic(expected = "on purpose")]
fn panics_beside_go() {
    panic!("on purpose");
}

fn build_library(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("library.go"), directory.join("library.so"));
    fs::write(&source, LIBRARY).expect("write");
    let mut go = Command::new("go");
    go.args(["build", "-buildmode=c-shared", "-o"]).arg(&library).arg(&source);
    go.env("GOCACHE", directory.join("cache")).env("GOPATH", directory.join("path")).env("GO111MODULE", "off");
    let output = go.current_dir(directory).output().expect("go");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

#[test]
fn a_library_in_go_harms_no_test() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let library = build_library(directory.path());
    let names = ["has_threads_of_go", "passes_beside_go", "starts_a_program_beside_go", "panics_beside_go"]
        .map(|name| format!("go::{name}"));
    for runner in runners() {
        for round in 0..rounds(50) {
            let mut command = Command::new("timeout");
            command.args(["--foreground", "--signal=KILL", "60"]).arg("env");
            // In every second round, all threads share one lock of the allocator.
            command.args((round % 2 == 0).then_some("MALLOC_ARENA_MAX=1"));
            command.arg(format!("LD_PRELOAD={}", library.display())).arg(this_binary().get_program());
            command.args(["--exact", "--test-threads=4", "--show-output", "body"]).args(&names);
            let run = run(&mut as_runner(*runner, &command));
            let context = format!("round {round}, as {runner:?}: {}, {}", run.status, run.output);
            assert!(run.output.contains("test result: ok. 4 passed; 0 failed;"), "{context}");
            assert!(run.left.is_empty(), "{:?}: {context}", run.left);
        }
    }
}
