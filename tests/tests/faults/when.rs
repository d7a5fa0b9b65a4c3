//! To which calls it happens.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use belljar::{Fault, isolated};
use belljar_tests::{body, run_body};

use crate::{data, errno, no_fsync};

/// Which of nine calls fail.
fn failed(fault: Fault) -> Vec<u32> {
    let file = data("wal");
    let fault = fault.start().expect("start");
    let failed: Vec<_> = (1..=9).filter(|_| file.sync_all().is_err()).collect();
    assert_eq!((fault.hits(), fault.calls()), (failed.len() as u64, 9));
    failed
}

#[isolated]
fn by_number() {
    assert_eq!(failed(no_fsync()), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(failed(no_fsync().nth(2)), [2]);
    assert_eq!(failed(no_fsync().first(3)), [1, 2, 3]);
    assert_eq!(failed(no_fsync().every(4)), [4, 8]);
    assert_eq!(failed(no_fsync().after(7)), [8, 9]);
    assert_eq!(failed(no_fsync().seeded(7, 0.0)), [0; 0]);
    assert_eq!(failed(no_fsync().seeded(7, 1.0)).len(), 9);
    assert_eq!(failed(no_fsync().seeded(7, 0.3)), failed(no_fsync().seeded(7, 0.3)));
}

/// Prints which calls of a thread fail by lot: the same ones of each thread, whoever comes first.
fn fail_by_lot(threads: usize, calls: usize) {
    let file = data("wal");
    let fault = no_fsync().seeded(11, 0.1).start().expect("start");
    let of_thread = || (0..calls).filter(|_| file.sync_all().is_err()).collect::<Vec<_>>();
    let all: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(of_thread)).collect();
        threads.into_iter().map(|thread| thread.join().expect("join")).collect()
    });
    assert!((calls / 20..calls / 5).contains(&all[0].len()), "{}", all[0].len());
    assert!(all.iter().all(|failed| *failed == all[0]), "{all:?}");
    assert_eq!((fault.hits(), fault.calls()), ((threads * all[0].len()) as u64, (threads * calls) as u64));
    println!("by lot: {:?}", all[0]);
}

#[body]
#[isolated]
fn few_by_lot() {
    fail_by_lot(8, 100);
}

#[body]
#[isolated]
fn many_by_lot() {
    fail_by_lot(16, 6250);
}

/// The same ones fail in every run. With `BELLJAR_TESTS_ROUNDS=20`, there are 20 runs of 100,000 calls.
#[test]
fn by_lot_in_each_thread() {
    let rounds = belljar_tests::rounds(2);
    let name = if rounds < 20 { "when::few_by_lot" } else { "when::many_by_lot" };
    let failed = |_| {
        let run = run_body(name);
        assert!(run.passed(), "{}", run.output);
        run.output.lines().find(|line| line.starts_with("by lot: ")).expect("which fail").to_owned()
    };
    let all: Vec<_> = (0..rounds).map(failed).collect();
    assert!(all.iter().all(|failed| *failed == all[0]), "{all:#?}");
}

#[isolated]
fn by_path_of_a_descriptor() {
    let (wal, other) = (data("wal"), data("other"));
    let _fault = no_fsync().path("/data/w*").start().expect("start");
    assert_eq!(errno(wal.sync_all()), Some(libc::EIO));
    other.sync_all().expect("another file");
    fs::rename("/data/wal", "/data/moved").expect("rename");
    wal.sync_all().expect("it was renamed");
    fs::rename("/data/other", "/data/wal").expect("rename");
    assert_eq!(errno(other.sync_all()), Some(libc::EIO), "it was renamed");
    fs::remove_file("/data/wal").expect("remove");
    let _fault = no_fsync().path("/data/wal").start().expect("start");
    let new = data("wal");
    assert_eq!(errno(new.sync_all()), Some(libc::EIO));
}

/// Paths are bytes.
#[isolated]
fn by_path_that_is_no_text() {
    fs::create_dir("/data").expect("a directory");
    let path = |name: &[u8]| Path::new("/data").join(OsStr::from_bytes(name));
    let [one, other] = [&b"w\xffl"[..], b"w\xfel"].map(|name| File::create(path(name)).expect("a file"));
    let fault = no_fsync().path(path(b"w\xff*")).start().expect("start");
    assert_eq!(errno(one.sync_all()), Some(libc::EIO));
    other.sync_all().expect("another file");
    drop(fault);
    let _fault = Fault::opening().errno(libc::EIO).path(path(b"w?l")).start().expect("start");
    assert_eq!(errno(File::open(path(b"w\xfel"))), Some(libc::EIO));
}

/// What is deleted has no name any more.
#[isolated]
fn deleted_files_are_told_apart() {
    let old = data("wal");
    fs::remove_file("/data/wal").expect("remove");
    let new = data("wal");
    let fault = no_fsync().path("/data/wal").start().expect("start");
    old.sync_all().expect("it is deleted");
    assert_eq!(errno(new.sync_all()), Some(libc::EIO));
    drop(fault);
    let _fault = no_fsync().path("/data/wal (deleted)").start().expect("start");
    assert_eq!(errno(old.sync_all()), Some(libc::EIO));
}

#[isolated]
fn by_path_from_the_working_directory() {
    data("wal");
    std::env::set_current_dir("/data").expect("chdir");
    let opening = |path| Fault::opening().errno(libc::EMFILE).path(path).start().expect("start");
    for (pattern, path) in [
        ("/data/wal", "wal"),
        ("/data/wal", "../data/./wal"),
        ("wal", "/data/wal"),
        ("/data/*", "//data//wal"),
        ("/**", "wal"),
    ] {
        let fault = opening(pattern);
        assert_eq!(errno(File::open(path)), Some(libc::EMFILE), "{pattern} {path}");
        drop(fault);
    }
    let _fault = opening("/dat/*");
    File::open("wal").expect("another path");
}

/// One of two paths is enough.
#[isolated]
fn by_either_path() {
    data("a");
    let _fault = Fault::new("rename").errno(libc::EXDEV).path("/data/b").start().expect("start");
    assert_eq!(errno(fs::rename("/data/a", "/data/b")), Some(libc::EXDEV));
    fs::rename("/data/a", "/data/c").expect("another");
    assert_eq!(errno(fs::rename("/data/b", "/data/d")), Some(libc::EXDEV));
}

#[isolated]
fn by_the_file_that_is_written() {
    data("from");
    fs::write("/data/from", "abc").expect("write");
    let from = fs::read("/data/from").expect("read");
    let writing = Fault::writing().errno(libc::ENOSPC).path("/data/from").start().expect("start");
    fs::copy("/data/from", "/data/to").expect("the other is written");
    drop(writing);
    let _fault = Fault::writing().errno(libc::ENOSPC).path("/data/to").start().expect("start");
    assert_eq!(errno(fs::copy("/data/from", "/data/to")), Some(libc::ENOSPC));
    assert_eq!(from, b"abc");
}

#[isolated]
fn by_port_and_address() {
    let [first, second] = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).expect("bind"));
    let [first, second] = [first.local_addr().expect("address"), second.local_addr().expect("address")];
    let connecting = || Fault::connecting().errno(libc::ETIMEDOUT);
    {
        let fault = connecting().port(first.port()).start().expect("start");
        assert_eq!(errno(TcpStream::connect(first)), Some(libc::ETIMEDOUT));
        TcpStream::connect(second).expect("another port");
        assert_eq!(fault.calls(), 1);
    }
    {
        let _fault = connecting().address("127.0.0.1").start().expect("start");
        assert_eq!(errno(TcpStream::connect(first)), Some(libc::ETIMEDOUT));
    }
    {
        let _fault = connecting().address("127.0.0.2").start().expect("start");
        TcpStream::connect(first).expect("another address");
    }
    let _fault = Fault::new("bind").errno(libc::EADDRINUSE).port(4711).start().expect("start");
    assert_eq!(errno(TcpListener::bind("[::1]:4711")), Some(libc::EADDRINUSE));
    assert_eq!(errno(UdpSocket::bind("127.0.0.1:4711")), Some(libc::EADDRINUSE));
    let _fault = Fault::new("sendto").errno(libc::ENETDOWN).port(9).start().expect("start");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    assert_eq!(errno(socket.send_to(b"x", "127.0.0.1:9")), Some(libc::ENETDOWN));
    socket.send_to(b"x", "127.0.0.1:10").expect("another port");
    let _fault = Fault::new("bind").errno(libc::EACCES).path("/tmp/*.sock").start().expect("start");
    assert_eq!(errno(UnixListener::bind("/tmp/a.sock")), Some(libc::EACCES));
    UnixListener::bind("/tmp/a.other").expect("another path");
}

/// Several at once: each counts, and the first one that is to happen does.
#[isolated]
fn several_at_once() {
    let file = data("wal");
    let first = no_fsync().nth(2).start().expect("start");
    let second = Fault::new("fsync").errno(libc::ENOSPC).start().expect("start");
    assert_eq!(errno(file.sync_all()), Some(libc::ENOSPC));
    assert_eq!(errno(file.sync_all()), Some(libc::EIO));
    assert_eq!((first.hits(), second.hits(), second.calls()), (1, 1, 2));
    drop(first);
    assert_eq!(errno(file.sync_all()), Some(libc::ENOSPC));
    drop(second);
    file.sync_all().expect("all are over");
    let again = no_fsync().start().expect("start");
    assert_eq!(errno(file.sync_all()), Some(libc::EIO));
    assert_eq!(again.hits(), 1);
}
