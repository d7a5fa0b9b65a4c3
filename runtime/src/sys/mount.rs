//! Mounts, what they are made on, keyrings and the loopback interface.

use std::ffi::{CStr, c_char, c_long};
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::ptr;

use nix::NixPath as _;
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::stat::Mode;

/// Mounts a file system. See mount(2).
///
/// The three calls that each sandbox makes some thirty times are made here without nix. For each path, nix has a closure, even if the path ends
/// with a zero byte: in a debug build, that doubles the time that the call takes outside of the kernel.
pub(crate) fn mount(
    from: Option<&CStr>,
    to: &CStr,
    kind: Option<&CStr>,
    flags: MsFlags,
    options: Option<&CStr>,
) -> nix::Result<()> {
    let or_null = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    let (from, kind, options) = (or_null(from), or_null(kind), or_null(options).cast());
    // SAFETY: the paths, the kind and the options are null or outlive the call.
    Errno::result(unsafe { libc::mount(from, to.as_ptr(), kind, flags.bits(), options) }).map(drop)
}

/// Makes a directory. See mkdir(2).
pub(crate) fn mkdir(path: &CStr, mode: Mode) -> nix::Result<()> {
    // SAFETY: the path outlives the call.
    Errno::result(unsafe { libc::mkdir(path.as_ptr(), mode.bits()) }).map(drop)
}

/// Makes a symbolic link. See symlink(2).
pub(crate) fn symlink(target: &CStr, path: &CStr) -> nix::Result<()> {
    // SAFETY: both outlive the call.
    Errno::result(unsafe { libc::symlinkat(target.as_ptr(), libc::AT_FDCWD, path.as_ptr()) }).map(drop)
}

/// Makes the mount at `path` read-only, and, if `recursive`, all mounts below it. It triggers no automount. See mount_setattr(2),
/// Linux 5.12.
pub(crate) fn set_read_only(path: &CStr, recursive: bool) -> nix::Result<()> {
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_NO_AUTOMOUNT | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path and the attributes outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    Errno::result(result).map(drop)
}

/// Makes a tmpfs that is attached nowhere: see fsopen(2), fsconfig(2) and fsmount(2). [`attach_mounts`] attaches it.
pub(crate) fn new_tmpfs(mode: &CStr) -> nix::Result<OwnedFd> {
    const NONE: c_long = 0;
    let owned = |result: c_long| {
        let fd = Errno::result(result)?;
        // SAFETY: the kernel has just made the descriptor.
        Ok::<_, Errno>(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    };
    // SAFETY: the name outlives the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), libc::FSOPEN_CLOEXEC) })?;
    let (fd, key, value) = (context.as_raw_fd(), c"mode".as_ptr(), mode.as_ptr());
    // SAFETY: key and value outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, fd, libc::FSCONFIG_SET_STRING, key, value, NONE) })?;
    // SAFETY: this command takes neither key nor value.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, fd, libc::FSCONFIG_CMD_CREATE, NONE, NONE, NONE) })?;
    let flags = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    // SAFETY: fsmount takes integers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, libc::FSMOUNT_CLOEXEC, flags) })
}

/// Calls `each` with the name of each entry of a directory, `.` and `..` aside. See getdents64(2). It allocates nothing.
pub(crate) fn entries(directory: &OwnedFd, mut each: impl FnMut(&CStr) -> nix::Result<()>) -> nix::Result<()> {
    /// What stands before the name: inode, offset, length and kind.
    const HEAD: usize = 8 + 8 + 2 + 1;
    let mut buffer = [0_u8; 4096];
    loop {
        let (pointer, size) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the buffer has this size, and outlives the call.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), pointer, size) };
        let mut rest = buffer.get(..Errno::result(read)? as usize).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        while let Some(length) = rest.get(16..18).map(|bytes| usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]))) {
            let name =
                rest.get(HEAD..length).and_then(|name| CStr::from_bytes_until_nul(name).ok()).ok_or(Errno::EIO)?;
            if name != c"." && name != c".." {
                each(name)?;
            }
            rest = &rest[length..];
        }
    }
}

/// Copies what is mounted at `path` and below it, attached nowhere. See open_tree(2).
pub(crate) fn clone_mounts(path: &CStr) -> nix::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as u32;
    // SAFETY: the path outlives the call.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just made the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches at `path` what [`clone_mounts`] or [`new_tmpfs`] has made. See move_mount(2).
pub(crate) fn attach_mounts(mounts: &OwnedFd, path: &CStr) -> nix::Result<()> {
    let (from, empty, flags) = (mounts.as_raw_fd(), c"".as_ptr(), libc::MOVE_MOUNT_F_EMPTY_PATH);
    // SAFETY: the paths outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, from, empty, libc::AT_FDCWD, path.as_ptr(), flags) };
    Errno::result(result).map(drop)
}

/// Whether this directory of an overlay's upper layer hides what the lower one has in its place: its attribute `opaque`. See the
/// kernel's overlayfs.rst.
pub(crate) fn hides_lower(directory: BorrowedFd<'_>) -> bool {
    let (name, mut value) = (c"user.overlay.opaque", [0_u8; 1]);
    // SAFETY: the name and the value, which has this size, outlive the call.
    let length =
        unsafe { libc::fgetxattr(directory.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    length == 1 && value == *b"y"
}

/// Whether systemd has marked this cgroup as one to be divided by those in it: with the attribute that it gives to units with
/// `Delegate`, where the system's manager has them.
pub(crate) fn is_delegated(cgroup: &Path) -> bool {
    let (name, mut value) = (c"user.delegate", [0_u8; 1]);
    let length = cgroup.with_nix_path(|cgroup| {
        // SAFETY: the path, the name and the value, which has this size, outlive the call.
        unsafe { libc::getxattr(cgroup.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) }
    });
    length == Ok(1) && value == *b"1"
}

/// Gives this process an empty session keyring of its own in place of the one that it shares with what started it. See
/// session-keyring(7) and keyctl_join_session_keyring(3).
pub(crate) fn join_new_session_keyring() -> nix::Result<()> {
    let no_name = ptr::null::<c_char>();
    // SAFETY: the operation takes a name, or null.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, no_name) };
    Errno::result(result).map(drop)
}

/// Makes this process's session keyring one that nobody can use. See keyctl_revoke(3).
pub(crate) fn revoke_session_keyring() -> nix::Result<()> {
    // SAFETY: the operation takes an integer.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_REVOKE, libc::KEY_SPEC_SESSION_KEYRING) };
    Errno::result(result).map(drop)
}

/// Brings up the interface `lo` of this network namespace; the kernel then gives it 127.0.0.1 and ::1. See
/// netdevice(7).
pub(crate) fn bring_up_loopback() -> nix::Result<()> {
    // SAFETY: socket takes integers.
    let socket = Errno::result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just made the descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: `ifreq` is integers, and pointers for which null is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    request.ifr_name[0] = b'l' as c_char;
    request.ifr_name[1] = b'o' as c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq` with a name and flags.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }).map(drop)
}
