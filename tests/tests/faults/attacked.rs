//! Bodies that do their worst while their calls are decided: each call has an answer, and each failure is one that was asked for.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;
use std::{io, ptr, thread};

use belljar::{Fault, isolated};
use belljar_tests::rounds;
use nix::errno::Errno;

use crate::{data, errno, no_fsync};

const FOR_EVER: Duration = Duration::from_secs(3600);

/// Runs `work` in a fork, before it executes true(1).
fn before_exec(work: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> io::Result<ExitStatus> {
    let mut command = Command::new("true");
    #[expect(unsafe_code, reason = "the parent has no thread that holds a lock")]
    // SAFETY: the other threads of the test wait.
    unsafe {
        command.pre_exec(work)
    };
    command.status()
}

/// 16 threads make calls, while faults start and end in any order.
#[isolated(timeout = "300s")]
fn faults_come_and_go() {
    let file = data("wal");
    let first = no_fsync().nth(u64::MAX).start().expect("start");
    let (calls, is_over) = (rounds(40) * 32, AtomicBool::new(false));
    let fails = |file: &File| match errno(file.sync_all()) {
        None => false,
        Some(libc::EIO | libc::ENOSPC) => true,
        other => panic!("{other:?} was not asked for"),
    };
    let (failed, hits, faults) = thread::scope(|scope| {
        let callers: Vec<_> = (0..16).map(|_| scope.spawn(|| (0..calls).filter(|_| fails(&file)).count())).collect();
        let changes = scope.spawn(|| {
            let (mut hits, mut faults) = (0, 0);
            while !is_over.load(Ordering::Acquire) {
                let one = no_fsync().path("/data/*").start().expect("start");
                let other = Fault::syncing().errno(libc::ENOSPC).every(2).start().expect("start");
                thread::sleep(Duration::from_micros(50));
                hits += one.hits() + other.hits();
                if faults % 4 == 0 {
                    drop((one, other))
                } else {
                    drop((other, one))
                }
                faults += 2;
            }
            (hits, faults)
        });
        let failed: usize = callers.into_iter().map(|caller| caller.join().expect("join")).sum();
        is_over.store(true, Ordering::Release);
        let (hits, faults) = changes.join().expect("join");
        (failed as u64, hits, faults)
    });
    // Each thread may meet a fault once more between the moment that its hits are looked at and its end.
    assert!(failed > 0 && (hits..=hits + 16 * faults).contains(&failed), "{failed} {hits} {faults}");
    assert_eq!((first.calls(), first.hits()), (16 * calls as u64, 0));
    file.sync_all().expect("all are over");
}

/// What comes late for a fault is not counted for the one that has its place.
#[isolated]
fn what_comes_late_is_counted_for_no_other() {
    let (reader, writer) = nix::unistd::pipe().expect("pipe");
    let fault = Fault::reading().short(2).path("pipe:*").start().expect("start");
    let waits = thread::spawn(move || nix::unistd::read(&reader, &mut [0; 16]));
    belljar_tests::wait_until(|| fault.calls() > 0);
    drop(fault);
    let next = no_fsync().start().expect("start");
    nix::unistd::write(&writer, b"abc").expect("write");
    assert_eq!((waits.join().expect("join"), next.hits()), (Ok(2), 0));
}

/// Many processes at a time, that end in many ways.
#[isolated(timeout = "300s")]
fn forks_by_the_hundred() {
    let file = data("wal");
    let fault = no_fsync().path("/data/*").start().expect("start");
    let rounds = rounds(10);
    for _ in 0..rounds {
        let run = |number: i32| {
            let file = file.try_clone().expect("dup");
            thread::spawn(move || {
                let work = move || match errno(file.sync_all()) {
                    Some(libc::EIO) if number % 3 == 0 => {
                        nix::sys::signal::raise(nix::sys::signal::SIGKILL).map_err(Into::into)
                    }
                    Some(libc::EIO) if number % 3 == 1 => Err(io::Error::from_raw_os_error(libc::EDOM)),
                    Some(libc::EIO) => Ok(()),
                    other => panic!("{other:?} was not asked for"),
                };
                before_exec(work).map(|status| status.success()).map_err(|error| error.raw_os_error())
            })
        };
        let children: Vec<_> = (0..16).map(run).collect();
        for (number, child) in children.into_iter().enumerate() {
            let expected = [Ok(false), Err(Some(libc::EDOM)), Ok(true)][number % 3];
            assert_eq!(child.join().expect("join"), expected);
        }
    }
    assert_eq!(fault.hits(), 16 * rounds as u64);
}

/// Programs are killed while an answer is waited for, and their numbers are given to others.
#[isolated(timeout = "300s")]
fn callers_are_killed_meanwhile() {
    let file = data("wal");
    for _ in 0..rounds(10) {
        let fault = Fault::syncing().delay(FOR_EVER).path("/data/*").start().expect("start");
        let sync = |_| Command::new("sync").arg("/data/wal").spawn().expect("sync");
        let mut children: Vec<_> = (0..4).map(sync).collect();
        while fault.calls() < 4 {
            thread::yield_now();
        }
        children.iter_mut().for_each(|child| child.kill().expect("kill"));
        for mut child in children {
            assert_eq!(child.wait().expect("wait").signal(), Some(libc::SIGKILL));
        }
        drop(fault);
        file.sync_all().expect("it is over");
    }
}

/// exec(2) ends threads whose calls are decided.
#[isolated(timeout = "300s")]
fn programs_are_executed_meanwhile() {
    let file = data("wal");
    for _ in 0..rounds(10) {
        let fault = std::sync::Arc::new(Fault::new("fsync").delay(FOR_EVER).start().expect("start"));
        let (theirs, file) = (fault.clone(), file.try_clone().expect("dup"));
        let work = move || {
            let file = file.try_clone()?;
            thread::spawn(move || file.sync_all());
            while theirs.calls() == 0 {
                thread::yield_now();
            }
            Ok(())
        };
        assert!(before_exec(work).expect("true").success());
        assert_eq!(fault.hits(), 1);
    }
}

/// A program may have a filter of its own, but none that asks another.
#[isolated]
fn programs_that_want_to_be_asked() {
    let _fault = no_fsync().start().expect("start");
    let own = || {
        belljar_tests::refuse(libc::SYS_getppid, None, Errno::EPERM);
        Ok(())
    };
    assert!(before_exec(own).expect("true").success());
    assert_eq!(errno(before_exec(|| listen().map_err(Into::into))), Some(libc::EBUSY));
}

/// The same, the other way round.
#[isolated]
fn who_is_asked_first_is_asked_alone() {
    listen().expect("seccomp");
    let told = no_fsync().start().expect_err("there is one").to_string();
    assert!(told.contains("EBUSY") && told.contains("another program is asked"), "{told}");
}

/// Installs a filter that allows everything, and could ask this process.
fn listen() -> nix::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    let allow =
        libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    let mut program = [allow];
    let program = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    #[expect(unsafe_code, reason = "seccomp(2) has no wrapper")]
    // SAFETY: the program outlives the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) }).map(drop)
}

/// Calls of 32-bit programs have other numbers, and no fault takes them for others.
#[cfg(target_arch = "x86_64")]
#[isolated]
fn calls_of_other_machines() {
    #[expect(unsafe_code, reason = "no function makes such a call")]
    fn call_as_i386(number: i64, argument: i64) -> i64 {
        let result;
        // SAFETY: the kernel changes nothing but the registers that are named.
        unsafe {
            std::arch::asm!("xchg {argument}, rbx", "int 0x80", "xchg {argument}, rbx", argument = inout(reg) argument => _,
                inout("rax") number => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        }
        result
    }
    const FSYNC: i64 = 118;
    const BRK: i64 = 45;
    let file = data("wal");
    // i386's numbers of fsync and brk are those of the other two here.
    let faults = [Fault::new("getresuid"), Fault::new("recvfrom").path("/data/*"), Fault::new("fsync")];
    let faults = faults.map(|fault| fault.errno(libc::EIO).start().expect("start"));
    let fd = i64::from(std::os::fd::AsRawFd::as_raw_fd(&file));
    let work = move || match (call_as_i386(FSYNC, fd), call_as_i386(BRK, fd)) {
        (0, brk) if brk != -i64::from(libc::EIO) => Ok(()),
        other => panic!("{other:?}"),
    };
    // A kernel may lack them.
    let status = before_exec(work).expect("true");
    assert!(status.success() || status.signal() == Some(libc::SIGSEGV), "{status}");
    #[expect(unsafe_code, reason = "no function makes such a call")]
    // SAFETY: it takes an integer.
    let result = Errno::result(unsafe { libc::syscall(0x4000_0000 + libc::SYS_fsync, fd) });
    assert!(matches!(result, Ok(0) | Err(Errno::ENOSYS)), "{result:?}");
    assert_eq!(faults.map(|fault| fault.calls()), [0; 3]);
}

/// Opens what the pointer leads to.
fn open(path: *const libc::c_char) -> Errno {
    #[expect(unsafe_code, reason = "bad pointers are no references")]
    // SAFETY: the kernel looks whether there is something.
    let opened = Errno::result(unsafe { libc::openat(libc::AT_FDCWD, path, libc::O_RDONLY | libc::O_CLOEXEC) });
    opened.map_or_else(
        |errno| errno,
        |fd| {
            nix::unistd::close(fd).expect("close");
            Errno::from_raw(0)
        },
    )
}

/// Paths that are none, that are too long, that end where memory does, and that are no text.
#[isolated]
fn paths_of_all_kinds() {
    data("a");
    let page = 4096;
    let two = nix::sys::mman::MapFlags::MAP_PRIVATE;
    let protection = nix::sys::mman::ProtFlags::PROT_READ | nix::sys::mman::ProtFlags::PROT_WRITE;
    let length = std::num::NonZeroUsize::new(2 * page).expect("a number");
    #[expect(unsafe_code, reason = "a page behind which there is none")]
    // SAFETY: the memory is new, and only what is left of it is written to.
    let end = unsafe {
        let memory = nix::sys::mman::mmap_anonymous(None, length, protection, two).expect("mmap");
        nix::sys::mman::munmap(memory.add(page), page).expect("munmap");
        memory.add(page).as_ptr().cast::<u8>()
    };
    let at_the_end = |bytes: &[u8]| {
        #[expect(unsafe_code, reason = "to end where the memory does")]
        // SAFETY: a page lies before the end.
        unsafe {
            let start = end.sub(bytes.len());
            ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
            start.cast::<libc::c_char>()
        }
    };
    let long = CString::new([b"/data/".repeat(800), b"a".to_vec()].concat()).expect("no NUL");
    let foreign = CString::new(*b"/data/\xff\xfe").expect("no NUL");
    fs::write(Path::new(std::ffi::OsStr::from_bytes(foreign.as_bytes())), "").expect("write");
    let all = || {
        [
            open(ptr::null()),
            open(ptr::without_provenance(1)),
            open(at_the_end(b"/data/a")),
            open(at_the_end(b"/data/a\0")),
            open(at_the_end(b"\0")),
            open(long.as_ptr()),
            open(foreign.as_ptr()),
        ]
    };
    let (none, is_met) = (Errno::from_raw(0), Errno::EMFILE);
    let plain = [Errno::EFAULT, Errno::EFAULT, Errno::EFAULT, none, Errno::ENOENT, Errno::ENAMETOOLONG, none];
    assert_eq!(all(), plain);
    let other = Fault::opening().errno(libc::EMFILE).path("/other/*").start().expect("start");
    assert_eq!(all(), plain);
    drop(other);
    let pattern = Path::new(std::ffi::OsStr::from_bytes(b"/data/\xff*"));
    let by_bytes = Fault::opening().errno(libc::EMFILE).path(pattern).start().expect("start");
    assert_eq!(all()[3..], [none, Errno::ENOENT, Errno::ENAMETOOLONG, is_met]);
    drop(by_bytes);
    let _fault = Fault::opening().errno(libc::EMFILE).path("/data/?").start().expect("start");
    assert_eq!(all()[3..], [is_met, Errno::ENOENT, Errno::ENAMETOOLONG, none]);
}

/// Another thread changes the path all the time: each call has an answer, and it is one of two.
#[isolated(timeout = "300s")]
fn a_path_that_changes() {
    drop(["a", "b"].map(data));
    let _fault = Fault::opening().errno(libc::EMFILE).path("/data/a").start().expect("start");
    let path: Vec<_> = b"/data/a\0".iter().map(|byte| AtomicU8::new(*byte)).collect();
    let is_over = AtomicBool::new(false);
    let counts = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for byte in *b"ab\0b" {
                    path[6].store(byte, Ordering::Relaxed);
                }
            }
        });
        let mut counts = [0; 2];
        for _ in 0..rounds(20) * 50 {
            counts[match open(path.as_ptr().cast()) {
                Errno::EMFILE => 0,
                Errno::UnknownErrno => 1,
                other => panic!("{other}"),
            }] += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        counts
    });
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// A program that another one traces.
#[isolated]
fn traced_programs() {
    data("wal");
    let fault = no_fsync().path("/data/*").start().expect("start");
    #[expect(unsafe_code, reason = "ptrace(2) has no safe wrapper")]
    // SAFETY: requests without addresses.
    let trace = |request, pid: i32| unsafe { libc::ptrace(request, pid, 0, 0) };
    let mut command = Command::new("sync");
    #[expect(unsafe_code, reason = "in the child")]
    // SAFETY: it makes a system call.
    unsafe {
        command.arg("/data/wal").pre_exec(move || match trace(libc::PTRACE_TRACEME, 0) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        })
    };
    #[expect(clippy::zombie_processes, reason = "it is waited for below")]
    let child = command.spawn().expect("sync");
    let pid = i32::try_from(child.id()).expect("a number");
    let mut stops = 0;
    loop {
        use nix::sys::wait::{WaitStatus, waitpid};
        match waitpid(nix::unistd::Pid::from_raw(pid), None).expect("wait") {
            WaitStatus::Exited(_, code) => break assert_eq!(code, 1),
            WaitStatus::Stopped(..) => stops += 1,
            other => panic!("{other:?}"),
        }
        trace(libc::PTRACE_SYSCALL, pid);
    }
    assert!(stops > 2 && fault.hits() == 1, "{stops}");
}

/// What pivot_root(2) makes the root.
#[isolated]
fn programs_that_pivot() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    fs::create_dir_all("/jail/data").expect("a directory");
    let run = || {
        before_exec(|| {
            let (nothing, bind) = (None::<&str>, MsFlags::MS_BIND);
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
            mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
            mount(Some("/jail"), "/jail", nothing, bind, nothing)?;
            std::env::set_current_dir("/jail")?;
            nix::unistd::pivot_root(".", ".")?;
            umount2(".", MntFlags::MNT_DETACH)?;
            File::create("/data/a")?;
            Err(io::Error::from_raw_os_error(libc::EDOM))
        })
    };
    assert_eq!(errno(run()), Some(libc::EDOM));
    let _fault = Fault::opening().errno(libc::EMFILE).path("/data/a").start().expect("start");
    assert_eq!(errno(run()), Some(libc::EMFILE));
}
