//! Whose calls they are.

use std::fs;
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{self, Command};
use std::thread;

use belljar::net::Lab;
use belljar::{Fault, isolated, prepared};
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;

use crate::{data, errno, no_fsync};

/// Of threads that there are already, and of later ones.
#[isolated]
fn of_all_threads() {
    let file = data("wal");
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let before = {
        let file = file.try_clone().expect("dup");
        thread::spawn(move || {
            told.recv().expect("a word");
            errno(file.sync_all())
        })
    };
    let fault = thread::spawn(|| no_fsync().start().expect("start")).join().expect("join");
    tell.send(()).expect("send");
    assert_eq!(before.join().expect("join"), Some(libc::EIO));
    assert_eq!(thread::spawn(move || errno(file.sync_all())).join().expect("join"), Some(libc::EIO));
    assert_eq!(fault.hits(), 2);
}

#[isolated]
fn of_programs_and_theirs() {
    data("a");
    let removing = |call| Fault::new(call).errno(libc::EBUSY).path("/data/*").start().expect("start");
    let faults = ["unlink", "unlinkat"].map(removing);
    let script = "rm /data/a; sh -c 'rm /data/a'; exit 0";
    let output = Command::new("sh").args(["-c", script]).output().expect("sh");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.matches("Device or resource busy").count(), 2, "{text}");
    assert_eq!(faults.iter().map(belljar::ActiveFault::hits).sum::<u64>(), 2);
    drop(faults);
    assert!(Command::new("rm").arg("/data/a").status().expect("rm").success());
}

/// What the body's root is, and what a program makes its root.
#[isolated]
fn of_programs_with_another_root() {
    fs::create_dir_all("/jail/data").expect("a directory");
    let run = || {
        let root = || nix::unistd::chroot("/jail").map_err(std::io::Error::from);
        #[expect(unsafe_code, reason = "in the child, before it opens")]
        // SAFETY: the child makes system calls.
        let status = unsafe {
            let mut command = Command::new("/nowhere");
            command.pre_exec(move || {
                root()?;
                std::env::set_current_dir("/data")?;
                let results = ["/data/a", "a", "../data/b"].map(|path| fs::File::create(path).err());
                Err(results.into_iter().flatten().next().unwrap_or(std::io::Error::from_raw_os_error(libc::ENOEXEC)))
            });
            command.status()
        };
        errno(status)
    };
    assert_eq!(run(), Some(libc::ENOEXEC), "without a fault");
    for pattern in ["/jail/data/a", "/data/a", "/data/b", "/jail/data/*"] {
        let fault = Fault::opening().errno(libc::EMFILE).path(pattern).start().expect("start");
        assert_eq!(run(), Some(libc::EMFILE), "{pattern}");
        assert!(fault.hits() > 0);
    }
    let _fault = Fault::opening().errno(libc::EMFILE).path("/jail/a").start().expect("start");
    assert_eq!(run(), Some(libc::ENOEXEC), "no file there");
}

/// The calls that a fork inherits, and its copy of the fault, which ends nothing.
#[isolated]
fn of_forks() {
    let file = data("wal");
    let fault = no_fsync().start().expect("start");
    let run = || {
        #[expect(unsafe_code, reason = "in the child")]
        // SAFETY: the child makes system calls.
        unsafe {
            let file = file.try_clone().expect("dup");
            let mut command = Command::new("/nowhere");
            command.pre_exec(move || file.sync_all());
            errno(command.status())
        }
    };
    assert_eq!(run(), Some(libc::EIO));
    match belljar_tests::fork() {
        ForkResult::Child => {
            drop(fault);
            process::abort()
        }
        ForkResult::Parent { child } => {
            let _ = waitpid(child, None).expect("wait");
            assert_eq!(errno(file.sync_all()), Some(libc::EIO));
            drop(fault);
            file.sync_all().expect("it is over");
        }
    }
}

/// Without root's powers, and with a filter that allows everything.
#[isolated(user = 1000)]
fn of_a_body_that_is_not_root() {
    fs::write("/tmp/a", "").expect("write");
    let file = fs::File::open("/tmp/a").expect("open");
    let fault = no_fsync().path("/tmp/*").start().expect("start");
    assert_eq!(errno(file.sync_all()), Some(libc::EIO));
    let _other = Fault::opening().errno(libc::EMFILE).path("/tmp/b").start().expect("start");
    assert_eq!(errno(fs::File::open("/tmp/b")), Some(libc::EMFILE));
    assert_eq!(fault.hits(), 1);
}

#[isolated(net)]
fn without_an_own_root() {
    let path = std::env::current_exe().expect("a path");
    let _fault = Fault::opening().errno(libc::EMFILE).path(&path).start().expect("start");
    assert_eq!(errno(fs::File::open(&path)), Some(libc::EMFILE));
}

#[prepared]
fn fails_once() -> std::io::Result<()> {
    let mut file = data("wal");
    let fault = Fault::new("write").errno(libc::EINTR).nth(1).start()?;
    file.write_all(b"abc")?;
    assert_eq!(fault.hits(), 1);
    Ok(())
}

#[isolated(from = fails_once, unsupported = "skip")]
fn in_preparations() {
    assert_eq!(fs::read("/data/wal").expect("read"), b"abc");
    let _fault = Fault::opening().errno(libc::EIO).path("/data/wal").start().expect("start");
    assert_eq!(errno(fs::read("/data/wal")), Some(libc::EIO));
}

/// Hosts are threads. The wire between them meets no fault, though it was started after the first.
#[isolated]
fn with_a_laboratory() {
    let watched = Fault::new("sendto").errno(libc::EIO).port(9).start().expect("start");
    let mut lab = Lab::new();
    let (server, client) = (lab.host("server"), lab.host("client"));
    let net = lab.up().expect("up");
    let socket = server.run(|| UdpSocket::bind("[::]:80")).expect("bind");
    let own = client.run(|| UdpSocket::bind("[::]:0").and_then(|own| own.connect("server:80").map(|()| own)));
    let own = own.expect("connect");
    let all = ["sendto", "sendmsg"].map(|call| Fault::new(call).errno(libc::EIO).start().expect("start"));
    assert_eq!(errno(own.send(b"x")), Some(libc::EIO));
    // The host's own call is another one.
    fs::File::from(OwnedFd::from(own)).write_all(b"y").expect("write");
    let mut text = [0; 8];
    assert_eq!(socket.recv(&mut text).expect("recv"), 1);
    assert_eq!((text[0], watched.hits()), (b'y', 0));
    drop((net, all));
}

/// A program that has become another user, whose memory and links the kernel keeps from others.
#[isolated(uids = 65536, unsupported = "skip")]
fn of_a_body_that_changes_its_user() {
    fs::write("/tmp/a", "").expect("write");
    let fault = Fault::opening().errno(libc::EMFILE).path("/tmp/a").start().expect("start");
    let status = Command::new("setpriv").args(["--reuid=1000", "--clear-groups", "cat", "/tmp/a"]).status();
    assert_eq!(status.expect("setpriv").code(), Some(1));
    assert_eq!(fault.hits(), 1);
    drop(fault);
    let status = Command::new("setpriv").args(["--reuid=1000", "--clear-groups", "cat", "/tmp/a"]).status();
    assert!(status.expect("setpriv").success());
}

#[isolated(user = "host", unsupported = "skip")]
fn of_the_machines_root() {
    fs::write("/tmp/a", "").expect("write");
    let _fault = Fault::opening().errno(libc::EMFILE).path("/tmp/a").start().expect("start");
    assert_eq!(errno(fs::File::open("/tmp/a")), Some(libc::EMFILE));
}

/// A filter of the body's own stays in force: what that forbids, no fault sees.
#[isolated]
fn with_a_filter_of_its_own() {
    let file = data("wal");
    belljar_tests::refuse(libc::SYS_fdatasync, None, nix::errno::Errno::EPERM);
    let fault = Fault::syncing().errno(libc::EIO).start().expect("start");
    assert_eq!(errno(file.sync_data()), Some(libc::EPERM));
    assert_eq!(errno(file.sync_all()), Some(libc::EIO));
    assert_eq!(fault.calls(), 1);
}

/// What the test prints goes through, and what it prints to a pipe of its own does not.
#[isolated]
fn not_of_the_tests_output() {
    let _fault = Fault::writing().errno(libc::EIO).start().expect("start");
    println!("this is printed");
    let output = Command::new("sh").args(["-c", "echo x || exit 9"]).output().expect("sh");
    assert_eq!(output.status.code(), Some(9), "{output:?}");
}
