//! System calls: which there are, what they name, and which belong together.

use super::table;

/// What a call names by its arguments. The numbers are their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    /// A path, which begins at the working directory.
    Path(usize),
    /// A path, which begins at the directory of a descriptor.
    PathAt(usize, usize),
    /// A descriptor.
    File(usize),
    /// Of two descriptors, that which is read, and that which is written.
    Source(usize),
    Target(usize),
    /// The address of a socket, and its length.
    Address(usize, usize),
    /// A message, which may have an address.
    Message(usize),
}

use Operand::{Address, File, Message, Path, PathAt, Source, Target};

/// What calls name.
#[rustfmt::skip]
const OPERANDS: &[(&[Operand], &str)] = &[
    (&[Path(0)], "open creat stat lstat access readlink chdir chroot mkdir rmdir unlink mknod chmod chown lchown truncate utime utimes \
        statfs execve acct swapon swapoff uselib umount2 setxattr lsetxattr getxattr lgetxattr listxattr llistxattr removexattr \
        lremovexattr"),
    (&[Path(0), Path(1)], "rename link pivot_root mount"),
    (&[Path(1)], "symlink inotify_add_watch"),
    (&[PathAt(0, 1)], "openat openat2 mkdirat mknodat fchownat futimesat newfstatat unlinkat fchmodat fchmodat2 faccessat faccessat2 \
        readlinkat utimensat statx execveat name_to_handle_at open_tree setxattrat getxattrat listxattrat removexattrat"),
    (&[PathAt(0, 1), PathAt(2, 3)], "renameat renameat2 linkat move_mount"),
    (&[PathAt(1, 2)], "symlinkat"),
    (&[File(0)], "read write pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 close fstat lseek ioctl fcntl flock fsync \
        fdatasync sync_file_range syncfs ftruncate fallocate getdents getdents64 fchdir fchmod fchown fsetxattr fgetxattr flistxattr \
        fremovexattr fstatfs fadvise64 readahead dup dup2 dup3 vmsplice accept accept4 listen shutdown recvfrom recvmsg recvmmsg \
        getsockopt setsockopt getsockname getpeername"),
    (&[Target(0), Source(1)], "sendfile"),
    (&[Source(0), Target(2)], "copy_file_range splice"),
    (&[Source(0), Target(1)], "tee"),
    (&[File(4)], "mmap"),
    (&[File(0), Address(1, 2)], "connect bind"),
    (&[File(0), Address(4, 5)], "sendto"),
    (&[File(0), Message(1)], "sendmsg sendmmsg"),
];

/// What the call of this name names.
pub(crate) fn operands(name: &str) -> &'static [Operand] {
    let has = |names: &str| names.split_ascii_whitespace().any(|other| other == name);
    OPERANDS.iter().find(|(_, names)| has(names)).map_or(&[], |(operands, _)| operands)
}

/// Calls that fail together. Those that this machine lacks are left out.
pub(super) const WRITING: &str =
    "write pwrite64 writev pwritev pwritev2 sendfile copy_file_range splice sendto sendmsg sendmmsg";
pub(super) const READING: &str =
    "read pread64 readv preadv preadv2 sendfile copy_file_range splice recvfrom recvmsg recvmmsg";
pub(super) const OPENING: &str = "open openat openat2 creat open_by_handle_at";
pub(super) const CONNECTING: &str = "connect";
pub(super) const SYNCING: &str = "fsync fdatasync sync_file_range syncfs sync msync";

/// Those that a short count can be had of.
pub(super) const SHORT: &str =
    "write pwrite64 writev pwritev pwritev2 sendto sendfile copy_file_range read pread64 readv preadv preadv2 recvfrom";

/// Those that are watched in any case once there is a fault: what tests want to fail, and what is not so frequent that it would slow all down.
const WATCHED: &[&str] = &[
    WRITING,
    READING,
    OPENING,
    CONNECTING,
    SYNCING,
    "close ftruncate truncate fallocate getdents getdents64 lseek flock fcntl dup dup2 dup3 pipe pipe2 tee vmsplice",
    "rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat mkdir mkdirat rmdir mknod mknodat readlink readlinkat",
    "stat lstat fstat newfstatat statx access faccessat faccessat2 statfs fstatfs chdir fchdir chroot",
    "chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat",
    "setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr",
    "socket socketpair bind listen accept accept4 shutdown getsockname getpeername getsockopt setsockopt",
    "fork vfork clone clone3 execve execveat mount umount2 pivot_root move_mount open_tree unshare setns",
    "setuid setgid setreuid setregid setresuid setresgid setgroups setrlimit prlimit64 memfd_create getrandom",
    IO_URING,
];

/// By this, a process makes calls that nobody sees.
pub(crate) const IO_URING: &str = "io_uring_setup";

/// A set of calls, by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls(pub(super) [u64; Self::WORDS]);

impl Calls {
    pub(super) const WORDS: usize = 8;
    /// How many numbers there may be.
    pub(crate) const COUNT: usize = Self::WORDS * u64::BITS as usize;

    /// Those of these names that there are here.
    pub(super) fn of(names: &str) -> Self {
        let mut calls = Self::default();
        names.split_ascii_whitespace().filter_map(|name| table::number(name)?).for_each(|number| calls.add(number));
        calls
    }

    pub(super) fn add(&mut self, number: u32) {
        if let Some(word) = self.0.get_mut(number as usize / 64) {
            *word |= 1 << (number % 64);
        }
    }

    pub(crate) fn has(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 != 0)
    }

    pub(super) fn numbers(self) -> impl Iterator<Item = u32> {
        (0..Self::WORDS as u32 * 64).filter(move |number| self.has(*number))
    }

    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        self.numbers().filter_map(table::name)
    }

    /// Those that are watched if the first fault is for these.
    pub(super) fn watched_with(self) -> Self {
        let mut all = self;
        for names in WATCHED {
            Self::of(names).numbers().for_each(|number| all.add(number));
        }
        all
    }
}

/// What is to be known of a call that a test may not expect.
pub(super) fn advice(name: &str) -> Option<&'static str> {
    Some(match name {
        "open" | "creat" => "The C library and Rust open files by `openat`: `Fault::opening()` is for all ways.",
        "fsync" => "Rust's `File::sync_data` is `fdatasync`: `Fault::syncing()` is for all ways.",
        "fdatasync" => "Rust's `File::sync_all` is `fsync`: `Fault::syncing()` is for all ways.",
        "stat" | "lstat" | "fstat" | "newfstatat" => {
            "Rust, and newer C libraries, look at files by `statx`; others by `newfstatat`."
        }
        "statx" => "Many programs look at files by `newfstatat`.",
        "rename" | "renameat" => "Programs such as mv(1) rename by `renameat2`; Rust by `rename`.",
        "renameat2" => "Rust renames by `rename`, many programs by `renameat`.",
        "unlink" => "Some programs, such as rm(1), remove files by `unlinkat`.",
        "unlinkat" => "Rust removes files by `unlink`.",
        "mkdir" => "Some programs make directories by `mkdirat`.",
        "fork" | "vfork" | "clone" | "clone3" => {
            "The C library starts processes and threads by `clone3`, `clone` or `vfork`."
        }
        "accept" => "Rust accepts connections by `accept4`.",
        "write" => {
            "`Fault::writing()` is for all ways to write, such as `writev`, `pwrite64` and, on sockets, `sendto`."
        }
        "read" => "`Fault::reading()` is for all ways to read, such as `readv`, `pread64` and, on sockets, `recvfrom`.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_are_those_of_calls() {
        let lists = OPERANDS.iter().map(|(_, names)| *names).chain(WATCHED.iter().copied()).chain([SHORT]);
        for name in lists.flat_map(str::split_ascii_whitespace) {
            assert!(table::number(name).is_some(), "{name}");
        }
    }

    #[test]
    fn calls_are_sets() {
        let mut calls = Calls::of("read fsync take_photo");
        assert_eq!(calls.names().collect::<Vec<_>>(), if table::ARE_KNOWN { &["read", "fsync"][..] } else { &[] });
        calls.add(511);
        calls.add(512);
        assert!(calls.has(511) && !calls.has(512));
        assert!(!Calls::of("read").watched_with().has(libc::SYS_futex as u32));
        assert_eq!(Calls::of("futex").watched_with().has(libc::SYS_futex as u32), table::ARE_KNOWN);
    }

    #[test]
    fn calls_name_things() {
        assert_eq!(operands("fsync"), [File(0)]);
        assert_eq!(operands("getpid"), []);
    }
}
