//! The file system that a sandbox sees: a list of operations that the template has planned, carried out one by one.
//!
//! A sandbox with a root of its own begins in a mount table whose root is a small tmpfs, the [stage](super::stage). It has these
//! directories:
//! - [`HOST`]: the host's tree, read-only. The kernel has locked that: no sandbox can undo it.
//! - [`SET_ASIDE`]: what stays writable, by `bind = ["..:rw"]`, and what root of the sandbox could not reach by itself.
//! - [`PREPARED`], if the test starts from preparations: what they have left.
//! - [`NEW`]: empty. The new root is mounted there, and filled.
//!
//! While the new root is filled, the host's tree is the process's root directory, and the new root its working directory. So a
//! [`HostPath`] is absolute, and an [`InsidePath`] is relative. Then pivot_root(2) makes the new root the root, and the
//! stage is let go of, with all that it holds.
//!
//! If the root is a copy, overlays are mounted below that tmpfs. The tmpfs holds all that the test writes. The test can't see the tmpfs itself.
//! The root of a preparation lies in a directory of its tmpfs too, so that there is one layout of what tests start from.
//!
//! Without a root of its own, a sandbox begins in the host's tree as it is, and all paths are absolute.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mknod, umask};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, Gid, Uid, UnlinkatFlags, chdir, chown, chroot, pivot_root, symlinkat, unlinkat, write};

use crate::cgroup::Joining;
use crate::frame::{OrRefuse as _, RefusalRef, Step};
use crate::rootfs::paths::{HostPath, InsidePath, Source};
use crate::sys::{self, mkdir, mount, symlink};

/// Where the host's tree is in the stage.
pub(crate) const HOST: &CStr = c"host";

/// Where in the stage the paths of the host are that are set aside, each by its number.
pub(crate) const SET_ASIDE: &CStr = c"set-aside";

/// Where in the stage is what preparations have left, each by its number: the last has 0, the one that it started from 1, and so on.
pub(crate) const PREPARED: &CStr = c"prepared";

/// Where in the stage is a directory of the host that is to be the root of a preparation, if it is to lie there and not in memory.
pub(crate) const ROOT: &CStr = c"root";

/// Where new roots are mounted in the stage.
pub(crate) const NEW: &CStr = c"new";

/// A file system to be made.
pub(crate) struct Plan {
    /// What the root lies in, if it has one of its own.
    pub(crate) root: Option<NewRoot>,
    /// Whether the root is put together in a directory of its tmpfs, as all copies are: what is written goes to the tmpfs.
    pub(crate) is_copy: bool,
    /// What to do, in this order.
    pub(crate) operations: Vec<Operation>,
    /// Where the test begins; `None` if it stays where it is.
    pub(crate) working_directory: Option<CString>,
}

/// What a root of its own lies in.
pub(crate) enum NewRoot {
    /// A tmpfs with these options.
    Tmpfs(CString),
    /// What the stage has at [`ROOT`].
    Directory,
}

/// A step towards a file system.
pub(crate) enum Operation {
    /// Makes a directory, whose parent is there.
    Directory { path: InsidePath, mode: Mode },
    /// Makes a symbolic link.
    Symlink { path: InsidePath, target: CString },
    /// Writes a file.
    File { path: InsidePath, content: Vec<u8>, mode: Mode },
    /// Writes another content to a file that is there.
    Rewrite { path: InsidePath, content: Vec<u8> },
    /// Makes a device node that leads nowhere, as the mount point of a device: so a listing of the directory shows a device.
    Node { path: InsidePath },
    /// Writes a file with a number that no other sandbox has, as machine-id(5) describes it.
    MachineId { path: InsidePath },
    /// Writes a setting of the kernel's, if the kernel has it.
    Setting { path: InsidePath, value: Vec<u8> },
    /// Gives away what lies at `path`, or only its mode, which writing and giving away have changed.
    Chown { path: InsidePath, owner: (Uid, Gid), mode: Mode },
    /// Mounts an overlay at `to` that shows `lower`; where the kernel can't, and `or_show`, shows `lower` itself, read-only. `if_there` is the
    /// link `at` of its layer: if `lower` has gone since it was planned, both it and `to` go too.
    Copy { lower: HostPath, to: InsidePath, options: CString, or_show: bool, if_there: Option<InsidePath> },
    /// Shows `from`, with all that is mounted below it, at `to`, which is there. `if_there`: if `from` has gone since it was planned, `to` goes
    /// too.
    Bind { from: Source, to: InsidePath, access: Access, if_there: bool },
    /// Makes a link in the directory `to`, which becomes `/run`, for each entry of the directory `from`, but for those that are there and
    /// those that are named here. It leads to `prefix`, followed by the name.
    Links { from: InsidePath, to: InsidePath, prefix: &'static [u8], but: &'static [&'static CStr] },
    /// Moves a mount, with all that is mounted below it.
    Move { from: InsidePath, to: InsidePath },
    /// Makes the mount at `path` read-only, but not those below it.
    ReadOnly { path: InsidePath },
    /// Mounts a file system, and puts back what was mounted at `kept`, which lies below it.
    Mount { kind: &'static CStr, path: InsidePath, flags: MsFlags, options: Option<CString>, kept: Option<InsidePath> },
}

/// What may be done with that which is shown.
pub(crate) enum Access {
    /// What was allowed where it comes from.
    AsIs,
    /// Reading only. `below` are the mount points below the path, for kernels that can't find them by themselves.
    ReadOnly { below: Vec<InsidePath> },
}

/// Where in the tmpfs a copy is put together, which becomes the root.
pub(crate) const COPY: &str = text(COPY_PATH);
const COPY_PATH: &CStr = c"root";

/// Where in the tmpfs the layers of a copy are. Each is a directory with the directories `upper` and `work`, which overlayfs asks for,
/// and with the links `from`, which leads to what is copied on the host, and `at`, which leads to the copy. A layer without `from` is a
/// copy of what preparations have left at `at`, or a directory that a preparation has there of its own.
pub(crate) const LAYERS: &str = text(LAYERS_PATH);
const LAYERS_PATH: &CStr = c"layers";

const fn text(path: &'static CStr) -> &'static str {
    match path.to_str() {
        Ok(text) => text,
        Err(_) => panic!(),
    }
}

const NONE: Option<&CStr> = None;

/// How file systems of the kernel's are mounted: no devices, no programs.
pub(crate) const KERNEL_FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Carries out `plan`. A new root shows the cgroups that the sandbox has joined, which are the roots of its cgroup namespace.
/// Of a copy, the tmpfs is returned.
pub(crate) fn build<'b>(plan: &'b Plan, joining: &'b Joining) -> Result<Option<OwnedFd>, RefusalRef<'b>> {
    // Directories and files get exactly the modes that the plan says.
    let mask = umask(Mode::empty());
    if let Some(root) = &plan.root {
        enter_new_root(root).or_refuse(Step::Root, c"/")?;
    }
    let tmpfs = if plan.is_copy { Some(begin_copy()?) } else { None };
    for operation in &plan.operations {
        carry_out(operation)?;
    }
    if plan.root.is_some() {
        leave_host(plan.is_copy).or_refuse(Step::Root, c"/")?;
        mount_cgroups(joining)?;
        leave_stage().or_refuse(Step::Pivot, c"/")?;
    }
    if let Some(directory) = &plan.working_directory {
        chdir(directory.as_c_str()).or_refuse(Step::WorkingDirectory, directory)?;
    }
    umask(mask);
    Ok(tmpfs)
}

/// Makes the directories in which a copy is put together, and returns the tmpfs that they are in, as it is without what will be
/// mounted there.
fn begin_copy() -> Result<OwnedFd, RefusalRef<'static>> {
    let tmpfs = sys::clone_mounts(c".").or_refuse(Step::Copy, c"")?;
    let mode = Mode::from_bits_truncate(0o755);
    let make = || {
        mkdir(LAYERS_PATH, mode)?;
        mkdir(COPY_PATH, mode)?;
        // Only a mount can become the root.
        mount(Some(COPY_PATH), COPY_PATH, NONE, MsFlags::MS_BIND, NONE)
    };
    make().or_refuse(Step::Copy, c"")?;
    Ok(tmpfs)
}

/// Mounts the new root and goes there, with the host's tree as the root directory.
fn enter_new_root(root: &NewRoot) -> nix::Result<()> {
    match root {
        NewRoot::Tmpfs(options) => {
            mount(Some(c"tmpfs"), NEW, Some(c"tmpfs"), MsFlags::empty(), Some(options))?;
        }
        NewRoot::Directory => mount(Some(ROOT), NEW, NONE, MsFlags::MS_BIND, NONE)?,
    }
    chroot(HOST)?;
    chdir(NEW)
}

/// Makes the stage the root directory again, and goes to what is to become the root: the copy, or the tmpfs itself.
fn leave_host(is_copy: bool) -> nix::Result<()> {
    chroot(c"..")?;
    if is_copy { chdir(COPY_PATH) } else { Ok(()) }
}

/// Makes the working directory the root. The stage then lies over it, and is let go of with all that is mounted in it.
fn leave_stage() -> nix::Result<()> {
    pivot_root(c".", c".")?;
    umount2(c".", MntFlags::MNT_DETACH)
}

/// Mounts the cgroups, as the cgroup namespace shows them: version 2 alone, or, on a tmpfs, what there is of both.
fn mount_cgroups(joining: &Joining) -> Result<(), RefusalRef<'_>> {
    let mount = |kind, path, flags, options| mount(Some(kind), path, Some(kind), KERNEL_FLAGS | flags, options);
    let all = c"sys/fs/cgroup";
    let make_room = || mount(c"tmpfs", all, MsFlags::empty(), Some(c"mode=755")).or_refuse(Step::Mount, all);
    let v2 = |path| mount(c"cgroup2", path, MsFlags::empty(), NONE);
    let has_v1 = joining.shown().next().is_some();
    if has_v1 {
        make_room()?;
    }
    for tree in joining.shown() {
        let path = tree.mount_point.as_c_str();
        mkdir(path, Mode::from_bits_truncate(0o755)).or_refuse(Step::Directory, path)?;
        // Root inside may be root outside, to whom the files belong by which the limits are set.
        mount(c"cgroup", path, MsFlags::MS_RDONLY, Some(tree.controllers())).or_refuse(Step::Mount, path)?;
    }
    match joining.v2 {
        None => Ok(()),
        Some(_) if !has_v1 => match v2(all) {
            // With the host's `/sys` they are mounted there already, and the kernel mounts nothing over itself.
            Err(Errno::EBUSY) => make_room().and_then(|()| v2(all).or_refuse(Step::Mount, all)),
            result => result.or_refuse(Step::Mount, all),
        },
        Some(_) => {
            let path = c"sys/fs/cgroup/unified";
            mkdir(path, Mode::from_bits_truncate(0o755)).or_refuse(Step::Directory, path)?;
            v2(path).or_refuse(Step::Mount, path)
        }
    }?;
    if !has_v1 {
        return Ok(());
    }
    // What is written belongs in the root, which has a size.
    remount_read_only(all).or_refuse(Step::ReadOnly, all)
}

fn carry_out(operation: &Operation) -> Result<(), RefusalRef<'_>> {
    match operation {
        Operation::Directory { path, mode } => mkdir(path, *mode).or_refuse(Step::Directory, path),
        Operation::Symlink { path, target } => symlink(target, path).or_refuse(Step::Symlink, path),
        Operation::File { path, content, mode } => write_file(path, content, *mode).or_refuse(Step::File, path),
        Operation::Rewrite { path, content } => rewrite(path, content).or_refuse(Step::File, path),
        // Without rights outside, this is the only node that may be made: overlayfs calls it a whiteout.
        Operation::Node { path } => {
            mknod(&**path, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).or_refuse(Step::File, path)
        }
        Operation::MachineId { path } => machine_id()
            .and_then(|id| write_file(path, &id, Mode::from_bits_truncate(0o444)))
            .or_refuse(Step::File, path),
        Operation::Setting { path, value } => match write_setting(path, value) {
            Err(Errno::ENOENT) => Ok(()),
            result => result.or_refuse(Step::File, path),
        },
        Operation::Chown { path, owner: (uid, gid), mode } => {
            let owned = chown(&**path, Some(*uid), Some(*gid));
            let owned = owned.and_then(|()| fchmodat(AT_FDCWD, &**path, *mode, FchmodatFlags::FollowSymlink));
            owned.or_refuse(Step::File, path)
        }
        Operation::Copy { lower, to, options, or_show, if_there } => {
            let (overlay, flags) = (c"overlay", MsFlags::empty());
            let lay = || mount(Some(overlay), to, Some(overlay), flags, Some(options));
            let mounted = match if_there {
                None => lay(),
                Some(at) => match while_there(lower, lay) {
                    Some(mounted) => mounted,
                    None => {
                        unlinkat(AT_FDCWD, &**at, UnlinkatFlags::NoRemoveDir).or_refuse(Step::Copy, at)?;
                        return remove(to);
                    }
                },
            };
            match mounted {
                Err(Errno::EINVAL) if *or_show => bind(lower, to),
                result => result.or_refuse(Step::Copy, lower),
            }
        }
        Operation::Bind { from, to, access, if_there } => {
            let bind = || bind_mount(from, to);
            let Some(bound) = (if *if_there { while_there(from, bind) } else { Some(bind()) }) else {
                return remove(to);
            };
            name_the_step(from, to, bound)?;
            match access {
                Access::AsIs => Ok(()),
                Access::ReadOnly { below } => set_read_only(to, below),
            }
        }
        Operation::Links { from, to, prefix, but } => link_all(from, to, prefix, but).or_refuse(Step::Symlink, c"/run"),
        Operation::Move { from, to } => mount(Some(from), to, NONE, MsFlags::MS_MOVE, NONE).or_refuse(Step::Mount, to),
        Operation::ReadOnly { path } => remount_read_only(path).or_refuse(Step::ReadOnly, path),
        Operation::Mount { kind, path, flags, options, kept } => {
            let kept = kept.as_ref().map(|kept| (kept, sys::clone_mounts(kept)));
            let mount = |flags| mount(Some(kind), path, Some(kind), flags, options.as_deref());
            let mounted = match mount(*flags) {
                // Where the host's is read-only, as in a container, the kernel lets this one be no other.
                Err(Errno::EPERM) if *kind == c"sysfs" => mount(*flags | MsFlags::MS_RDONLY),
                result => result,
            };
            mounted.or_refuse(Step::Mount, path)?;
            match kept {
                Some((path, mounts)) => {
                    mounts.and_then(|mounts| sys::attach_mounts(&mounts, path)).or_refuse(Step::Bind, path)
                }
                None => Ok(()),
            }
        }
    }
}

/// Shows `from`, with all that is mounted below it, at `to`.
fn bind<'p>(from: &'p CStr, to: &'p CStr) -> Result<(), RefusalRef<'p>> {
    name_the_step(from, to, bind_mount(from, to))
}

fn bind_mount(from: &CStr, to: &CStr) -> nix::Result<()> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
}

/// Names the step that has failed: the place `to` is missing, if `from` is there.
fn name_the_step<'p>(from: &'p CStr, to: &'p CStr, bound: nix::Result<()>) -> Result<(), RefusalRef<'p>> {
    match bound {
        Err(Errno::ENOENT) if !has_gone(from) => bound.or_refuse(Step::MountPoint, to),
        _ => bound.or_refuse(Step::Bind, from),
    }
}

/// Mounts what the host has at `path`. If that vanishes and comes back meanwhile, it tries again. `None` if it has gone.
fn while_there(path: &CStr, mut mount: impl FnMut() -> nix::Result<()>) -> Option<nix::Result<()>> {
    /// How often it tries.
    const LOOKS: u32 = 100;
    let mut mounted = Ok(());
    for _ in 0..LOOKS {
        mounted = mount();
        match mounted {
            Err(_) if has_gone(path) => return None,
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            _ => break,
        }
    }
    Some(mounted)
}

/// Whether there is nothing at `path` of the host.
fn has_gone(path: &CStr) -> bool {
    matches!(nix::unistd::access(path, AccessFlags::F_OK), Err(Errno::ENOENT | Errno::ENOTDIR))
}

/// Removes an empty directory or a file.
fn remove(path: &CStr) -> Result<(), RefusalRef<'_>> {
    let remove = |flags| unlinkat(AT_FDCWD, path, flags);
    remove(UnlinkatFlags::RemoveDir).or_else(|_| remove(UnlinkatFlags::NoRemoveDir)).or_refuse(Step::Directory, path)
}

fn link_all(from: &CStr, to: &CStr, prefix: &[u8], but: &[&CStr]) -> nix::Result<()> {
    let open = |path| open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let (from, to) = (open(from)?, open(to)?);
    sys::entries(&from, |name| {
        // A name has up to 255 bytes.
        let mut target = [0; 512];
        let name_begins = prefix.len();
        target[..name_begins].copy_from_slice(prefix);
        target[name_begins..][..name.count_bytes()].copy_from_slice(name.to_bytes());
        let target = CStr::from_bytes_until_nul(&target).map_err(|_| Errno::ENAMETOOLONG)?;
        if but.contains(&name) {
            return Ok(());
        }
        match symlinkat(target, &to, name) {
            Err(Errno::EEXIST) => Ok(()),
            result => result,
        }
    })
}

fn write_file(path: &CStr, content: &[u8], mode: Mode) -> nix::Result<()> {
    if content.is_empty() {
        // One call in place of two. An ordinary user may make ordinary files so.
        return mknod(path, SFlag::S_IFREG, mode, 0);
    }
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    write_all(&open(path, flags, mode)?, content)
}

fn rewrite(path: &CStr, content: &[u8]) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    write_all(&open(path, flags, Mode::empty())?, content)
}

fn write_all(file: &OwnedFd, mut rest: &[u8]) -> nix::Result<()> {
    while !rest.is_empty() {
        rest = &rest[write(file, rest)?..];
    }
    Ok(())
}

/// A number as machine-id(5) describes it: 32 hexadecimal digits, and the end of the line.
fn machine_id() -> nix::Result<[u8; 33]> {
    let mut random = sys::random()?;
    // A UUID of version 4, as RFC 9562 describes it.
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let mut id = [b'\n'; 33];
    for (at, byte) in random.into_iter().enumerate() {
        let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
        id[2 * at] = digit(byte >> 4);
        id[2 * at + 1] = digit(byte & 0x0f);
    }
    Ok(id)
}

fn write_setting(path: &CStr, value: &[u8]) -> nix::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, value).map(drop)
}

/// Makes the mount at `path` read-only, and those `below` it.
fn set_read_only<'p>(path: &'p CStr, below: &'p [InsidePath]) -> Result<(), RefusalRef<'p>> {
    match sys::set_read_only(path, true) {
        Err(errno) if may_be_unknown(errno) => {}
        result => return result.or_refuse(Step::ReadOnly, path),
    }
    remount_read_only(path).or_refuse(Step::ReadOnly, path)?;
    for path in below {
        remount_read_only(path).or_refuse(Step::ReadOnly, path)?;
    }
    Ok(())
}

/// Whether a call as young as mount_setattr(2) may fail with this just because it is unknown: to the kernel, or to a
/// container's filter.
pub(crate) fn may_be_unknown(errno: Errno) -> bool {
    errno == Errno::ENOSYS || errno == Errno::EPERM
}

/// Makes the mount at `path` read-only in the older way, which must repeat the flags that are there: some are locked, and leaving
/// them out is refused. How times of access are kept stays as it is if nothing is said of it.
fn remount_read_only(path: &CStr) -> nix::Result<()> {
    let mut flags = MsFlags::empty();
    let present = statvfs(path)?.flags();
    for (is, keep) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ] {
        if present.contains(is) {
            flags |= keep;
        }
    }
    remount_read_only_with(path, flags)
}

/// The same, where the flags are known.
pub(crate) fn remount_read_only_with(path: &CStr, flags: MsFlags) -> nix::Result<()> {
    mount(NONE, path, NONE, flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, NONE)
}
