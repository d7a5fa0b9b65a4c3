//! A path in memory that another thread serves: the supervisor waits for nobody, so that the thread can.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _, RawFd};
use std::thread;

use belljar::{Fault, isolated};
use nix::errno::Errno;

use crate::data;

const PAGE: usize = 4096;

// Of linux/userfaultfd.h.
const API: u64 = 0xaa;
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_COPY: u64 = 0xc028_aa03;
const MODE_MISSING: u64 = 1;

fn request<const N: usize>(fd: RawFd, number: u64, mut words: [u64; N]) -> nix::Result<()> {
    #[expect(unsafe_code, reason = "userfaultfd(2) has no wrapper")]
    // SAFETY: the words are as the kernel wants them.
    Errno::result(unsafe { libc::ioctl(fd, number as _, words.as_mut_ptr()) }).map(drop)
}

/// Nobody but real root may serve what the kernel itself looks for.
#[isolated(user = "host", timeout = "60s", unsupported = "skip")]
fn a_path_that_comes_late() {
    data("a");
    #[expect(unsafe_code, reason = "userfaultfd(2) has no wrapper")]
    // SAFETY: the memory is new, and so is the descriptor.
    let (page, events) = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        match Errno::result(libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC)) {
            Ok(fd) => (page, File::from_raw_fd(fd as RawFd)),
            Err(errno) => return println!("skipped: there is no userfaultfd(2) here: {errno}"),
        }
    };
    let fd = events.as_raw_fd();
    request(fd, UFFDIO_API, [API, 0, 0]).expect("UFFDIO_API");
    request(fd, UFFDIO_REGISTER, [page.addr() as u64, PAGE as u64, MODE_MISSING, 0]).expect("UFFDIO_REGISTER");
    let fault = Fault::opening().errno(libc::EMFILE).path("/data/a").start().expect("start");
    let start = page.addr() as u64;
    // Its calls are watched too.
    let serves = thread::spawn(move || {
        let mut event = [0; 32];
        (&events).read_exact(&mut event).expect("an event");
        let mut content = vec![0; PAGE];
        content[..7].copy_from_slice(b"/data/a");
        request(fd, UFFDIO_COPY, [start, content.as_ptr().addr() as u64, PAGE as u64, 0, 0]).expect("UFFDIO_COPY");
    });
    #[expect(unsafe_code, reason = "the page is no memory yet")]
    // SAFETY: the kernel reads a path there.
    let opened = Errno::result(unsafe { libc::openat(libc::AT_FDCWD, page.cast(), libc::O_RDONLY) });
    serves.join().expect("join");
    assert_eq!((opened, fault.hits()), (Err(Errno::EMFILE), 1));
}
