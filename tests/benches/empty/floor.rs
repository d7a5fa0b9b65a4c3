//! The floor: what the kernel charges for what a test must have.
//!
//! A loop in the process model of belljar, on raw system calls and with nothing else: clone init into new namespaces, map
//! the ids, make the file system and bring up the loopback one call after the other, fork the test, and wait for its word and for both.
//!
//! The lists are constants, and no copies of what belljar makes: then each file that belljar makes in vain would make the floor slower
//! too. A sandbox of belljar has more: `/opt`, the toolchain and the target directory, certificates, time zones and services, `fuse` and `tun`,
//! whole proc and sysfs for those who mount another, and, for root of the host, what keeps the kernel's files from it. And the floor's
//! read-only mounts can be made writable again by root inside.
#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::CStr;
use std::{io, ptr};

use libc::{c_char, c_int, c_long, c_ulong};

const DIRECTORIES: [&CStr; 13] = [
    c"proc",
    c"dev",
    c"tmp",
    c"etc",
    c"sys",
    c"run",
    c"var",
    c"root",
    c"usr",
    c"work",
    c"dev/pts",
    c"dev/shm",
    c"dev/mqueue",
];

const LINKS: [(&CStr, &CStr); 4] =
    [(c"bin", c"usr/bin"), (c"sbin", c"usr/sbin"), (c"lib", c"usr/lib"), (c"lib64", c"usr/lib64")];

/// What is shown of the host, read-only: the system, and the package.
const SHOWN: [(&CStr, &CStr); 2] = [(c"/usr", c"usr"), (PACKAGE, c"work")];

const PACKAGE: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_MANIFEST_DIR"), "\0").as_bytes()) {
    Ok(path) => path,
    Err(_) => panic!("a NUL in a path"),
};

const DEVICES: [(&CStr, &CStr); 6] = [
    (c"/dev/null", c"dev/null"),
    (c"/dev/zero", c"dev/zero"),
    (c"/dev/full", c"dev/full"),
    (c"/dev/random", c"dev/random"),
    (c"/dev/urandom", c"dev/urandom"),
    (c"/dev/tty", c"dev/tty"),
];

const FILES: [&CStr; 6] =
    [c"etc/passwd", c"etc/group", c"etc/hosts", c"etc/hostname", c"etc/resolv.conf", c"etc/nsswitch.conf"];

/// What the kernel makes, and where.
const FILE_SYSTEMS: [(&CStr, &CStr, &CStr); 4] = [
    (c"devpts", c"dev/pts", c"newinstance,ptmxmode=0666,mode=620"),
    (c"mqueue", c"dev/mqueue", c""),
    (c"proc", c"proc", c""),
    (c"sysfs", c"sys", c""),
];

fn check(result: c_long, what: &str) {
    if result < 0 {
        eprintln!("floor: {what}: {}", io::Error::last_os_error());
        // SAFETY: _exit has no preconditions.
        unsafe { libc::_exit(1) };
    }
}

/// Makes one sandbox with an empty test in it, and waits for its end.
///
/// The calling process must have one thread.
pub(crate) fn make_one() {
    // SAFETY: the calls have no preconditions.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let mut pipe = [0; 2];
    // SAFETY: it has room for two descriptors.
    check(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }.into(), "pipe2");
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWNET
        | libc::SIGCHLD;
    // SAFETY: a fork of a process with one thread.
    let init = unsafe { libc::syscall(libc::SYS_clone, c_long::from(flags), 0, 0, 0, 0) };
    check(init, "clone");
    if init == 0 {
        run_init(uid, gid, pipe[1]);
    }
    let (mut status, mut word) = (0, 0_u8);
    // SAFETY: the word and the status outlive the calls, and the descriptors are this function's own.
    unsafe {
        libc::close(pipe[1]);
        assert_eq!(libc::read(pipe[0], (&raw mut word).cast(), 1), 1, "the floor's test reported nothing");
        libc::close(pipe[0]);
        check(libc::waitpid(init as libc::pid_t, &raw mut status, 0).into(), "waitpid");
    }
    assert_eq!(status, 0, "the floor's init failed");
}

fn run_init(uid: u32, gid: u32, report: c_int) -> ! {
    write(c"/proc/self/setgroups", b"deny", libc::O_WRONLY);
    write(c"/proc/self/uid_map", format!("0 {uid} 1").as_bytes(), libc::O_WRONLY);
    write(c"/proc/self/gid_map", format!("0 {gid} 1").as_bytes(), libc::O_WRONLY);
    make_root();
    bring_up_loopback();
    // SAFETY: the name outlives the call.
    check(unsafe { libc::sethostname(c"localhost".as_ptr(), 9) }.into(), "sethostname");
    // SAFETY: this process has one thread.
    let test = unsafe { libc::fork() };
    check(test.into(), "fork");
    if test == 0 {
        // SAFETY: the word outlives the call, and _exit has no preconditions.
        unsafe {
            libc::write(report, c"x".as_ptr().cast(), 1);
            libc::_exit(0)
        };
    }
    let mut status = 0;
    // SAFETY: the status outlives the call.
    check(unsafe { libc::waitpid(test, &raw mut status, 0) }.into(), "waitpid");
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Makes the file system. Meanwhile, the host's tree is the root directory, and the new root the working directory.
fn make_root() {
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None);
    mount(Some(c"tmpfs"), c"/", Some(c"tmpfs"), 0, Some(c"mode=755"));
    // SAFETY: the path outlives the call.
    check(unsafe { libc::chdir(c"/..".as_ptr()) }.into(), "chdir");
    // SAFETY: the paths outlive the calls.
    DIRECTORIES.iter().for_each(|path| check(unsafe { libc::mkdir(path.as_ptr(), 0o755) }.into(), "mkdir"));
    for (path, target) in LINKS {
        // SAFETY: as above.
        check(unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) }.into(), "symlink");
    }
    for (from, path) in SHOWN {
        mount(Some(from), path, None, libc::MS_BIND | libc::MS_REC, None);
        set_read_only(path);
    }
    for (from, path) in DEVICES {
        write(path, b"", libc::O_CREAT | libc::O_WRONLY);
        mount(Some(from), path, None, libc::MS_BIND, None);
    }
    FILES.iter().for_each(|path| write(path, b"x\n", libc::O_CREAT | libc::O_WRONLY));
    for (kind, path, options) in FILE_SYSTEMS {
        mount(Some(kind), path, Some(kind), libc::MS_NOSUID | libc::MS_NOEXEC, Some(options));
    }
    // SAFETY: the paths outlive the calls.
    unsafe {
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()), "pivot_root");
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into(), "umount");
        check(libc::chdir(c"/".as_ptr()).into(), "chdir");
    }
}

fn set_read_only(path: &CStr) {
    // SAFETY: zero is a value of the struct; all arguments outlive the call.
    unsafe {
        let mut attributes: libc::mount_attr = std::mem::zeroed();
        attributes.attr_set = libc::MOUNT_ATTR_RDONLY;
        let (at, size) = (libc::AT_FDCWD, size_of::<libc::mount_attr>());
        let number = libc::SYS_mount_setattr;
        check(libc::syscall(number, at, path.as_ptr(), 0, &raw const attributes, size), "mount_setattr");
    }
}

fn mount(from: Option<&CStr>, to: &CStr, kind: Option<&CStr>, flags: c_ulong, options: Option<&CStr>) {
    let [from, kind, options] = [from, kind, options].map(|text| text.map_or(ptr::null::<c_char>(), CStr::as_ptr));
    // SAFETY: the callers' strings outlive the call.
    check(unsafe { libc::mount(from, to.as_ptr(), kind, flags, options.cast()) }.into(), "mount");
}

fn write(path: &CStr, content: &[u8], flags: c_int) {
    // SAFETY: the path and the content outlive the calls.
    unsafe {
        let file = libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o644);
        check(file.into(), "open");
        if !content.is_empty() {
            check(libc::write(file, content.as_ptr().cast(), content.len()) as c_long, "write");
        }
        libc::close(file);
    }
}

fn bring_up_loopback() {
    // SAFETY: zero is a value of the struct, and the request outlives the call.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(socket.into(), "socket");
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as c_char;
        request.ifr_name[1] = b'o' as c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
        check(libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request).into(), "SIOCSIFFLAGS");
        libc::close(socket);
    }
}
