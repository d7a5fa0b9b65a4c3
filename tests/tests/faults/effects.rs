//! What happens to a call.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use belljar::{Fault, isolated};

use crate::{data, errno, no_fsync};

#[isolated]
fn an_error() {
    let file = data("wal");
    file.sync_all().expect("no fault yet");
    let fault = no_fsync().start().expect("start");
    assert_eq!(errno(file.sync_all()), Some(libc::EIO));
    assert_eq!((fault.hits(), fault.calls()), (1, 1));
    drop(fault);
    file.sync_all().expect("it is over");
}

#[isolated]
fn another_value() {
    let _fault = Fault::new("getppid").returns(4711).start().expect("start");
    assert_eq!(std::os::unix::process::parent_id(), 4711);
}

/// The call is not made.
#[isolated]
fn a_failed_call_does_nothing() {
    let mut file = data("wal");
    {
        let _fault = Fault::new("write").errno(libc::ENOSPC).start().expect("start");
        assert_eq!(errno(file.write(b"abc")), Some(libc::ENOSPC));
    }
    assert_eq!(fs::read("/data/wal").expect("read"), b"");
}

#[isolated]
fn a_delay() {
    let file = data("wal");
    let begun = Instant::now();
    let fault = Fault::new("fsync").delay(Duration::from_millis(30)).start().expect("start");
    file.sync_all().expect("it is only late");
    assert!(begun.elapsed() >= Duration::from_millis(30));
    drop(fault);
    let _fault = Fault::new("fsync").delay(Duration::from_millis(1)).errno(libc::EIO).start().expect("start");
    assert_eq!(errno(file.sync_all()), Some(libc::EIO));
}

/// A call that is delayed holds up no other.
#[isolated]
fn others_go_on_during_a_delay() {
    let file = data("wal");
    let fault = Fault::new("fsync").delay(Duration::from_secs(3600)).first(1).start().expect("start");
    let stuck = file.try_clone().expect("dup");
    std::thread::spawn(move || stuck.sync_all());
    belljar_tests::wait_until(|| fault.calls() > 0);
    file.sync_all().expect("the second");
    assert_eq!((fault.hits(), fault.calls()), (1, 2));
}

#[isolated]
fn a_kill() {
    let faults = ["rename", "renameat2"].map(|call| Fault::new(call).kill().start().expect("start"));
    data("old");
    let status = Command::new("mv").args(["-T", "/data/old", "/data/new"]).status().expect("mv");
    let hits: u64 = faults.iter().map(belljar::ActiveFault::hits).sum();
    assert_eq!((status.signal(), hits), (Some(libc::SIGKILL), 1));
    assert!(fs::exists("/data/old").expect("exists"));
    drop(faults);
    assert!(Command::new("mv").args(["/data/old", "/data/new"]).status().expect("mv").success());
}

static CAUGHT: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    CAUGHT.fetch_add(1, Ordering::Relaxed);
}

#[isolated]
fn a_signal() {
    // SAFETY: the handler is async-signal-safe.
    #[expect(unsafe_code, reason = "a handler")]
    unsafe {
        libc::signal(libc::SIGUSR1, count as *const () as usize)
    };
    let file = data("wal");
    let fault = Fault::new("fsync").signal(libc::SIGUSR1).nth(2).start().expect("start");
    file.sync_all().expect("the first");
    assert_eq!(CAUGHT.load(Ordering::Relaxed), 0);
    file.sync_all().expect("the second");
    drop(fault);
    belljar_tests::wait_until(|| CAUGHT.load(Ordering::Relaxed) == 1);
}
