//! A test binary that is hard on the zygote: constructors have started a thread that allocates all the time, and the
//! allocator takes much stack, and ends an init that uses it.
#![expect(unsafe_code, reason = "an allocator and a constructor")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write as _;
use std::thread;
use std::time::Duration;

use belljar::isolated;
use belljar_tests::{descendants, rounds, run, this_binary, wait_until};
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::pipe;

/// As much stack as jemalloc takes in a debug build when a thread begins, and more.
struct Greedy;

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Greedy {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        end_init();
        black_box([0_u8; 64 * 1024]);
        // SAFETY: the caller promises what is asked for here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        end_init();
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Ends this process if it is the init of a sandbox. What it was cloned from may have been about to allocate, in another thread, so that it
/// could wait for ever.
fn end_init() {
    // SAFETY: these are system calls.
    unsafe {
        if libc::getpid() == 1 {
            libc::_exit(99);
        }
    }
}

#[global_allocator]
static GREEDY: Greedy = Greedy;

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start_a_thread;

extern "C" fn start_a_thread() {
    thread::spawn(|| {
        loop {
            black_box(vec![1_u8; 5000]);
        }
    });
    // It runs when the zygote is forked.
    thread::sleep(Duration::from_millis(2));
}

#[isolated]
#[ignore = "run by each_run_ends"]
fn allocates() {
    black_box(vec![1_u8; 5000]);
}

#[isolated]
#[ignore = "run by each_run_ends"]
fn allocates_too() {
    black_box(vec![1_u8; 5000]);
}

/// In sandboxes of all kinds.
mod kinds {
    use belljar::isolated;

    #[isolated(net)]
    #[ignore = "run by init_allocates_nothing"]
    fn with_a_network() {}

    #[isolated(root = "overlay")]
    #[ignore = "run by init_allocates_nothing"]
    fn with_a_copy() {}

    #[isolated(time, boottime = "1h", hostname = "other")]
    #[ignore = "run by init_allocates_nothing"]
    fn with_clocks() {}

    #[isolated(user = 1000, bind = ["/etc/passwd"], env = ["A=b"], clear_env)]
    #[ignore = "run by init_allocates_nothing"]
    fn with_a_user_and_binds() {}

    #[isolated(tmpfs = "2MiB", pids = 100)]
    #[ignore = "run by init_allocates_nothing"]
    fn with_limits() {}

    #[isolated(uts)]
    #[ignore = "run by init_allocates_nothing"]
    fn with_the_hosts_tree() {}

    #[isolated]
    #[ignore = "run by init_allocates_nothing"]
    #[expect(clippy::zombie_processes, reason = "it is to be left")]
    fn with_survivors() {
        let _ = std::process::Command::new("sleep").arg("1000").spawn().expect("spawn");
    }
}

#[isolated]
#[ignore = "run by each_run_ends"]
fn starts_a_thread() {
    let thread = thread::spawn(|| black_box(vec![1_u8; 5000]).len());
    assert_eq!(thread.join().expect("join"), 5000);
}

#[test]
fn each_run_ends() {
    for _ in 0..rounds(20) {
        let run = run(this_binary().args(["--ignored", "--test-threads=1", "allocates", "starts_a_thread"]));
        assert!(run.output.contains("test result: ok. 3 passed; 0 failed;"), "{}", run.output);
        assert!(run.left.is_empty());
    }
}

#[test]
fn init_allocates_nothing() {
    let run = run(this_binary().args(["--ignored", "kinds::"]));
    assert!(run.output.contains("test result: ok. 7 passed; 0 failed;"), "{}", run.output);
}

/// Whether this binary has a zygote, if it is started with this argument. It is looked at while it waits to print.
fn has_zygote(argument: &str) -> bool {
    let (_reader, writer) = pipe().expect("pipe");
    let size = fcntl(&writer, FcntlArg::F_GETPIPE_SZ).expect("fcntl");
    let mut full = File::from(writer);
    full.write_all(&vec![0; size.try_into().expect("a size")]).expect("write");
    let mut child = this_binary().arg(argument).stdout(full).spawn().expect("this binary");
    wait_until(|| {
        let call = fs::read_to_string(format!("/proc/{}/syscall", child.id())).expect("syscall");
        call.starts_with(&format!("{} 0x1 ", libc::SYS_write))
    });
    let found = !descendants(child.id()).is_empty();
    child.kill().and_then(|()| child.wait()).expect("kill");
    found
}

#[test]
fn where_no_test_runs_there_is_no_zygote() {
    assert!(!has_zygote("--list"));
    assert!(!has_zygote("--help"));
    // The twin.
    assert!(has_zygote("--quiet"));
}
