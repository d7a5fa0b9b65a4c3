//! Calls that do less than they were asked for.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use belljar::{Fault, isolated};
use nix::errno::Errno;

use crate::data;

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
        belljar_tests::wait_until(|| fault.calls() > 0);
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
    // Who waits in the reader's place has the last reading end.
    let stdin = RefCell::new(child.stdin.take().expect("a pipe"));
    belljar_tests::wait_until(|| fault.calls() > 0);
    child.kill().expect("kill");
    assert_eq!(child.wait().expect("wait").signal(), Some(libc::SIGKILL));
    belljar_tests::wait_until(|| {
        stdin.borrow_mut().write(b"x").is_err_and(|error| error.kind() == ErrorKind::BrokenPipe)
    });
}

/// Copies from one file to another, from a position if there is one.
#[expect(unsafe_code, reason = "copy_file_range(2) and sendfile(2) with their offsets")]
fn copy(from: impl AsFd, at: Option<&mut i64>, to: impl AsFd, sends: bool) -> nix::Result<usize> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let at = at.map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: the offset is one, or null.
    let copied = unsafe {
        if sends {
            libc::syscall(libc::SYS_sendfile, to, from, at, 100)
        } else {
            libc::syscall(libc::SYS_copy_file_range, from, at, to, ptr::null::<i64>(), 100, 0)
        }
    };
    Errno::result(copied).map(|count| count as usize)
}

#[isolated]
fn short_copies_are_made() {
    data("from").write_all(b"0123456789").expect("write");
    for sends in [false, true] {
        let from = File::open("/data/from").expect("open");
        let mut to = data("to");
        let mut at = 4;
        let fault = Fault::writing().short(3).path("/data/to").start().expect("start");
        assert_eq!(copy(&from, None, &to, sends), Ok(3));
        assert_eq!((copy(&from, Some(&mut at), &to, sends), at), (Ok(3), 7));
        assert_eq!(copy(&from, None, &to, sends), Ok(3));
        assert_eq!(fault.hits(), 3);
        drop(fault);
        to.flush().expect("flush");
        assert_eq!(fs::read("/data/to").expect("read"), b"012456345");
    }
    let fault = Fault::writing().short(3).path("/data/other").start().expect("start");
    assert_eq!(fs::copy("/data/from", "/data/other").expect("copy"), 10);
    assert!(fault.hits() >= 3);
    drop(fault);
    assert_eq!(fs::read("/data/other").expect("read"), b"0123456789");
}

/// A pipe that is full is waited for, as without the fault.
#[isolated]
fn short_copies_to_pipes() {
    data("from").write_all(&[7; 100]).expect("write");
    let (reader, writer) = nix::unistd::pipe().expect("pipe");
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).expect("fcntl");
    nix::unistd::write(&writer, &[1; 4096]).expect("write");
    let fault = Fault::new("sendfile").short(3).start().expect("start");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| copy(File::open("/data/from").expect("open"), None, &writer, true));
        belljar_tests::wait_until(|| fault.calls() > 0);
        let mut reader = File::from(reader);
        reader.read_exact(&mut [0; 4096]).expect("read");
        assert_eq!(waits.join().expect("join"), Ok(3));
        let mut rest = [0; 10];
        assert_eq!((reader.read(&mut rest).expect("read"), &rest[..4]), (3, &[7, 7, 7, 0][..]));
    });
    assert_eq!(fault.hits(), 1);
}

/// No kernel sends a part of a datagram, or loses what a reader has room for.
#[isolated]
fn datagrams_are_whole() {
    let _faults = [Fault::writing(), Fault::reading()].map(|fault| fault.short(3).start().expect("start"));
    let mut buffer = [0; 16];
    let [first, second] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").expect("bind"));
    first.connect(second.local_addr().expect("address")).expect("connect");
    second.connect(first.local_addr().expect("address")).expect("connect");
    assert_eq!(first.send(b"datagram").expect("send"), 8);
    assert_eq!(second.recv(&mut buffer).expect("recv"), 8);
    let (first, second) = UnixDatagram::pair().expect("a pair");
    assert_eq!(first.send(b"datagram").expect("send"), 8);
    assert_eq!(second.recv(&mut buffer).expect("recv"), 8);
    let (first, second) = std::os::unix::net::UnixStream::pair().expect("a pair");
    assert_eq!(((&first).write(b"stream").expect("send"), (&second).read(&mut buffer).expect("recv")), (3, 3));
}

static CAUGHT: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    CAUGHT.fetch_add(1, Ordering::Relaxed);
}

/// A signal interrupts a read that waits, as without the fault.
#[isolated(timeout = "60s")]
fn a_read_that_waits_is_interrupted() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    let action = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
    #[expect(unsafe_code, reason = "a handler")]
    // SAFETY: the handler is async-signal-safe.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("sigaction");
    let (reader, writer) = nix::unistd::pipe().expect("pipe");
    let fault = Fault::reading().short(2).path("pipe:*").start().expect("start");
    let reads = nix::unistd::gettid();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while fault.calls() == 0 {
                std::thread::yield_now();
            }
            let (process, thread) = (nix::unistd::getpid().as_raw(), reads.as_raw());
            #[expect(unsafe_code, reason = "tgkill(2) has no wrapper")]
            // SAFETY: it takes integers.
            Errno::result(unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) }).expect("tgkill");
        });
        assert_eq!(nix::unistd::read(&reader, &mut [0; 16]), Err(Errno::EINTR));
    });
    assert_eq!(CAUGHT.load(Ordering::Relaxed), 1);
    nix::unistd::write(&writer, b"abc").expect("write");
    assert_eq!(nix::unistd::read(&reader, &mut [0; 16]), Ok(2));
}

/// A process whose first thread has ended has its files still.
#[isolated(timeout = "60s")]
fn of_a_process_whose_first_thread_has_ended() {
    let mut file = data("wal");
    let _fault = Fault::new("write").short(3).path("/data/*").start().expect("start");
    match belljar_tests::fork() {
        nix::unistd::ForkResult::Child => {
            let has_ended = || fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("State:\tZ"));
            std::thread::spawn(move || {
                belljar_tests::wait_until(has_ended);
                std::process::exit(file.write(b"abcdef").map_or(0, |count| count as i32))
            });
            #[expect(unsafe_code, reason = "no function ends the first thread alone")]
            // SAFETY: nobody uses its stack.
            unsafe {
                libc::syscall(libc::SYS_exit, 0)
            };
        }
        nix::unistd::ForkResult::Parent { child } => {
            let ended = nix::sys::wait::waitpid(child, None).expect("wait");
            // Before Linux 6.9, the call goes on as it is.
            let expected = if belljar_tests::linux_version() < (6, 9) { 6 } else { 3 };
            assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, expected));
        }
    }
}
