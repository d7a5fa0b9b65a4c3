//! The floor: what the kernel charges for a sandbox.
//!
//! A loop in the process model of belljar, on raw system calls and with nothing else: clone init into new namespaces, map
//! the ids, make the file system and bring up the loopback one call after the other, fork the test, and wait for both.
//! What is made is read off a real sandbox by [`Survey`], so that it is the same on every machine.
#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::ptr;

use libc::{c_char, c_int, c_long, c_ulong};

/// What a sandbox consists of, a line for each thing, in the order in which it can be made.
#[derive(Default)]
pub(crate) struct Survey {
    lines: Vec<String>,
}

impl Survey {
    /// Looks around in the sandbox that this runs in.
    pub(crate) fn take() -> Self {
        let mut survey = Self::default();
        let device = fs::metadata("/").expect("root").dev();
        survey.walk(Path::new("/"), device);
        let mut whole: Vec<(String, String)> = Vec::new();
        // Mounts lie on directories and files of the root. Some have others below them, and come first.
        for line in fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").lines().skip(1) {
            let fields: Vec<_> = line.split(' ').collect();
            let separator = fields.iter().position(|field| *field == "-").expect("separator");
            let [device, root, point, options] = [2, 3, 4, 5].map(|field| fields[field]);
            let kind = fields[separator + 1];
            let read_only = if options.split(',').any(|option| option == "ro") { "ro" } else { "rw" };
            match kind {
                "proc" | "sysfs" if root == "/" && read_only == "rw" => {
                    if point.starts_with("/sys/") {
                        // What comes to lie on /sys covers it.
                        survey.lines.push(format!("directory 365 {point}"));
                    }
                    // What is mounted already is shown a second time.
                    if let Some((_, first)) = whole.iter().find(|(known, _)| known == device) {
                        survey.lines.push(format!("again {first} {point}"));
                    } else {
                        survey.lines.push(format!("mount {kind} {point}"));
                        whole.push((device.to_owned(), point.to_owned()));
                    }
                }
                "devpts" | "mqueue" | "tmpfs" => survey.lines.push(format!("mount {kind} {point}")),
                _ => survey.lines.push(format!("bind {read_only} {point}")),
            }
        }
        survey
    }

    fn walk(&mut self, directory: &Path, device: u64) {
        for entry in fs::read_dir(directory).expect("readable").flatten() {
            let (path, metadata) = (entry.path(), entry.metadata().expect("stat"));
            let shown = path.to_str().expect("UTF-8");
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_symlink() {
                let target = fs::read_link(&path).expect("readlink");
                self.lines.push(format!("symlink {} {shown}", target.display()));
            } else if metadata.is_dir() {
                self.lines.push(format!("directory {mode} {shown}"));
                // What is mounted here is of another device.
                if metadata.dev() == device {
                    self.walk(&path, device);
                }
            } else if metadata.dev() == device {
                self.lines.push(format!("file {} {shown}", metadata.len()));
            } else {
                self.lines.push(format!("file 0 {shown}"));
            }
        }
    }

    /// The survey as text.
    pub(crate) fn print(&self) {
        for line in &self.lines {
            println!("survey {line}");
        }
    }

    /// Reads what [`Survey::print`] wrote.
    pub(crate) fn parse(text: &str) -> Vec<Call> {
        text.lines().filter_map(|line| line.strip_prefix("survey ")).map(Call::parse).collect()
    }
}

/// One thing to make, with paths relative to the new root.
pub(crate) enum Call {
    Directory { path: CString, mode: c_int },
    Symlink { target: CString, path: CString },
    File { path: CString, content: Vec<u8> },
    Mount { kind: CString, path: CString },
    Bind { from: CString, path: CString, set: u64, clear: u64 },
}

impl Call {
    fn parse(line: &str) -> Self {
        let fields: Vec<_> = line.splitn(3, ' ').collect();
        let string = |text: &str| CString::new(OsStr::new(text).as_bytes()).expect("no NUL");
        let inside = |text: &str| string(&text[1..]);
        match fields[..] {
            ["directory", mode, path] => Self::Directory { path: inside(path), mode: mode.parse().expect("a mode") },
            ["symlink", target, path] => Self::Symlink { target: string(target), path: inside(path) },
            ["file", size, path] => {
                Self::File { path: inside(path), content: vec![b'\n'; size.parse().expect("a size")] }
            }
            ["mount", kind, path] => Self::Mount { kind: string(kind), path: inside(path) },
            ["again", first, path] => Self::Bind { from: inside(first), path: inside(path), set: 0, clear: 0 },
            ["bind", access, path] => {
                // What shields the kernel's files is bound to itself, and so is what shows parts of it in another place.
                let path = path.split("/.own/").next().unwrap_or(path);
                let own = path.starts_with("/proc") || path.starts_with("/sys");
                // The host's `/etc` has a place in the sandbox's own.
                let from = if own { inside(path) } else { string(path.strip_suffix("/.host").unwrap_or(path)) };
                let [set, clear] = match access {
                    "ro" => [libc::MOUNT_ATTR_RDONLY, 0],
                    _ if own => [0, libc::MOUNT_ATTR_RDONLY],
                    _ => [0, 0],
                };
                Self::Bind { from, path: inside(path), set, clear }
            }
            _ => panic!("no survey line: {line}"),
        }
    }
}

fn check(result: c_long, what: &str) {
    if result < 0 {
        eprintln!("floor: {what}: {}", std::io::Error::last_os_error());
        // SAFETY: _exit has no preconditions.
        unsafe { libc::_exit(1) };
    }
}

/// Makes one sandbox with an empty test in it, and waits for its end.
///
/// The calling process must have one thread.
pub(crate) fn make_one(calls: &[Call]) {
    // SAFETY: the calls have no preconditions.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
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
        run_init(calls, uid, gid);
    }
    let mut status = 0;
    // SAFETY: the status outlives the call.
    check(unsafe { libc::waitpid(init as libc::pid_t, &raw mut status, 0) }.into(), "waitpid");
    assert_eq!(status, 0, "the floor's init failed");
}

fn run_init(calls: &[Call], uid: u32, gid: u32) -> ! {
    // SAFETY: setsid and umask have no preconditions.
    check(unsafe { libc::setsid() }.into(), "setsid");
    write(c"/proc/self/setgroups", b"deny", libc::O_WRONLY);
    write(c"/proc/self/uid_map", format!("0 {uid} 1").as_bytes(), libc::O_WRONLY);
    write(c"/proc/self/gid_map", format!("0 {gid} 1").as_bytes(), libc::O_WRONLY);
    // SAFETY: the name outlives the call.
    check(unsafe { libc::sethostname(c"localhost".as_ptr(), 9) }.into(), "sethostname");
    bring_up_loopback();
    // SAFETY: umask has no preconditions.
    unsafe { libc::umask(0) };
    mount(ptr::null(), c"/".as_ptr(), ptr::null(), libc::MS_REC | libc::MS_PRIVATE, ptr::null());
    mount(c"tmpfs".as_ptr(), c"/".as_ptr(), c"tmpfs".as_ptr(), 0, c"mode=755".as_ptr());
    // SAFETY: the path outlives the call.
    check(unsafe { libc::chdir(c"/..".as_ptr()) }.into(), "chdir");
    for call in calls {
        make(call);
    }
    // SAFETY: the paths outlive the calls.
    unsafe {
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()), "pivot_root");
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into(), "umount");
        check(libc::chdir(c"/".as_ptr()).into(), "chdir");
        libc::umask(0o022);
    }
    // SAFETY: this process has one thread.
    let test = unsafe { libc::fork() };
    check(test.into(), "fork");
    if test == 0 {
        // SAFETY: _exit has no preconditions.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the status outlives the call.
    check(unsafe { libc::waitpid(test, &raw mut status, 0) }.into(), "waitpid");
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

fn make(call: &Call) {
    match call {
        // SAFETY: the paths outlive the calls.
        Call::Directory { path, mode } => check(unsafe { libc::mkdir(path.as_ptr(), *mode as _) }.into(), "mkdir"),
        Call::Symlink { target, path } => {
            // SAFETY: as above.
            check(unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) }.into(), "symlink");
        }
        Call::File { path, content } => write(path, content, libc::O_CREAT | libc::O_WRONLY),
        Call::Mount { kind, path } => {
            let flags = if kind.as_c_str() == c"tmpfs" { 0 } else { libc::MS_NOSUID | libc::MS_NOEXEC };
            let devpts = kind.as_c_str() == c"devpts";
            let options = if devpts { c"newinstance,ptmxmode=0666".as_ptr() } else { ptr::null() };
            mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), flags, options);
        }
        Call::Bind { from, path, set, clear } => {
            mount(from.as_ptr(), path.as_ptr(), ptr::null(), libc::MS_BIND | libc::MS_REC, ptr::null());
            if *set != *clear {
                // SAFETY: zero is a value of the struct; all arguments outlive the call.
                unsafe {
                    let mut attributes: libc::mount_attr = std::mem::zeroed();
                    (attributes.attr_set, attributes.attr_clr) = (*set, *clear);
                    let (at, flags, size) = (libc::AT_FDCWD, libc::AT_RECURSIVE, size_of::<libc::mount_attr>());
                    let number = libc::SYS_mount_setattr;
                    check(
                        libc::syscall(number, at, path.as_ptr(), flags, &raw const attributes, size),
                        "mount_setattr",
                    );
                }
            }
        }
    }
}

fn mount(from: *const c_char, to: *const c_char, kind: *const c_char, flags: c_ulong, options: *const c_char) {
    // SAFETY: the callers' strings outlive the call.
    check(unsafe { libc::mount(from, to, kind, flags, options.cast()) }.into(), "mount");
}

fn write(path: &std::ffi::CStr, content: &[u8], flags: c_int) {
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
