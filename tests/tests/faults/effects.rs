//! What happens to a call.

use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
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
fn short_writes_are_made() {
    let mut file = data("wal");
    let fault = Fault::writing().short(3).path("/data/*").start().expect("start");
    assert_eq!(file.write(b"abcdef").expect("write"), 3);
    assert_eq!(file.write(b"gh").expect("write"), 2);
    assert_eq!(fault.hits(), 1, "two bytes are no more than three");
    assert_eq!(file.write_at(b"ABCDEF", 1).expect("pwrite"), 3);
    assert_eq!(file.write_vectored(&[IoSlice::new(b"12"), IoSlice::new(b"345")]).expect("writev"), 3);
    file.write_all(b"0123456789").expect("many");
    assert_eq!(fs::read("/data/wal").expect("read"), b"aABCh1230123456789");
}

#[isolated]
fn short_reads_are_made() {
    let mut file = data("wal");
    file.write_all(b"abcdefghij").expect("write");
    let mut file = File::open("/data/wal").expect("open");
    let _fault = Fault::reading().short(3).start().expect("start");
    let (mut first, mut second) = ([0; 2], [0; 6]);
    let mut parts = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    assert_eq!(file.read_vectored(&mut parts).expect("readv"), 3);
    assert_eq!((&first, &second[..2]), (b"ab", &b"c\0"[..]));
    assert_eq!(file.read(&mut second).expect("read"), 3);
    assert_eq!(&second, b"def\0\0\0");
    assert_eq!(file.read_at(&mut second, 5).expect("pread"), 3);
    assert_eq!(&second[..3], b"fgh");
    assert_eq!(fs::read("/data/wal").expect("read").len(), 10);
}

/// Also where the caller waits for what is not there yet.
#[isolated]
fn short_counts_on_pipes_and_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let mut client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (mut server, _) = listener.accept().expect("accept");
    let (reader, writer) = nix::unistd::pipe().expect("pipe");
    let (mut reader, mut writer) = (File::from(reader), File::from(writer));
    let fault = Fault::reading().short(2).start().expect("start");
    let mut buffer = [0; 16];
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut buffer = [0; 16];
            let count = server.read(&mut buffer).expect("recv");
            buffer[..count].to_vec()
        });
        while fault.calls() == 0 {
            std::thread::yield_now();
        }
        client.write_all(b"hello").expect("send");
        assert_eq!(waiting.join().expect("join"), b"he");
    });
    assert_eq!(server.read(&mut buffer).expect("recv"), 2);
    assert_eq!(&buffer[..2], b"ll");
    writer.write_all(b"pipe").expect("write");
    assert_eq!(reader.read(&mut buffer).expect("read"), 2);
    assert_eq!(&buffer[..2], b"pi");
    drop(fault);
    let _fault = Fault::writing().short(1).start().expect("start");
    assert_eq!(writer.write(b"xyz").expect("write"), 1);
    assert_eq!(client.write(b"xyz").expect("write"), 1);
}

/// Of what happens meanwhile to the reader, nothing is waited for.
#[isolated(timeout = "30s")]
fn a_reader_that_is_killed_is_waited_for_by_nobody() {
    let fault = Fault::reading().short(2).path("pipe:*").start().expect("start");
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat");
    while fault.calls() == 0 {
        std::thread::yield_now();
    }
    child.kill().expect("kill");
    assert_eq!(child.wait().expect("wait").signal(), Some(libc::SIGKILL));
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
    while fault.calls() == 0 {
        std::thread::yield_now();
    }
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
