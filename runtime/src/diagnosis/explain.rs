//! Finds the likely cause of a refusal: in what the host says about itself, never by guessing from the errno alone.

use std::env;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::resource::Resource;
use nix::unistd::{Group, User};

use super::cause::Cause;
use super::host_state::{Barrier, HostState, Platform, security_context};
use super::limits::{limit_on, no_more_memory, reached_limit_on_processes, too_many_processes};
use crate::cgroup::{self, NoCgroup};
use crate::collect::{CollectVec as _, map_both};
use crate::frame::{Refusal, Step};
use crate::proc::{self, has_capability, kernel_version, mount_points, text_of};
use crate::rootfs::access::closed_above;
use crate::spec::{Ids, Spec};
use crate::sys::probe::{self, Answer};
use crate::sys::{errno_of, getegid, geteuid};
use crate::text::plain;
use crate::zygote::{self, ids};

/// See capabilities(7).
const CAP_SYS_ADMIN: u32 = 21;

/// The most likely cause of a refusal; unknown if the host shows none.
pub(crate) fn explain(spec: &Spec, refusal: &Refusal) -> Cause {
    let around = HostState::look();
    let Refusal { step, errno, .. } = refusal;
    let path = refusal.path();
    let path = Path::new("/").join(&*path);
    let closed = || (*errno == Errno::EACCES).then(|| closed(&path, spec.ids)).flatten();
    let cause = find(*step, *errno, &path, &around).or_else(|| explain_ids(spec.ids, refusal)).or_else(closed);
    cause.unwrap_or_else(|| Cause::unknown(&around))
}

/// That a directory above `path` is closed to root of the sandbox, if one is.
fn closed(path: &Path, ids: Ids) -> Option<Cause> {
    let (directory, metadata) = closed_above(path, ids)?;
    let owner = User::from_uid(metadata.uid().into()).ok().flatten();
    let owner = owner.map_or_else(|| format!("the user {}", metadata.uid()), |owner| owner.name);
    Some(Cause::closed(&directory, metadata.mode() & 0o7777, &owner, geteuid().is_root()))
}

/// Why there are not the ids that a test asks for.
fn explain_ids(wanted: Ids, refusal: &Refusal) -> Option<Cause> {
    let Ids::Range(count) = wanted else { return None };
    let Refusal { step, errno, said, .. } = refusal;
    match &*refusal.path() {
        _ if *step != Step::MapIds => None,
        "" => (*errno == Errno::ESRCH).then(Cause::mapper_gone),
        table if table.starts_with("/etc/sub") => {
            let present = ids::own_ranges(table).into_iter().map(|(_, length)| length).fold(0, u32::saturating_add);
            Some(Cause::no_subordinate_ids(&ids::user(), table, present, count - 1))
        }
        map if map.starts_with("/proc") => {
            // So the kernel answers whoever maps what it doesn't have.
            (*errno == Errno::EPERM).then(|| Cause::ids_are_missing(count, &map_of("uid").unwrap_or_default()))
        }
        program if matches!(errno, Errno::ENOENT | Errno::EACCES) => Some(Cause::no_program(program)),
        program => Some(Cause::program_refuses(program, String::from_utf8_lossy(said).trim())),
    }
}

/// The cause, where none was found.
pub(crate) fn unknown() -> Cause {
    Cause::unknown(&HostState::look())
}

/// Why a device can't be opened, which a sandbox shows as it is.
pub(crate) fn device(path: &str, errno: Errno) -> Cause {
    let around = HostState::look();
    match (errno, fs::metadata(path)) {
        (Errno::EACCES, Ok(metadata)) => {
            let owner = User::from_uid(metadata.uid().into()).ok().flatten();
            let group = Group::from_gid(metadata.gid().into()).ok().flatten();
            let owner = owner.map_or_else(|| metadata.uid().to_string(), |owner| owner.name);
            let group = group.map_or_else(|| metadata.gid().to_string(), |group| group.name);
            Cause::device_is_closed(path, metadata.mode() & 0o7777, &owner, &group)
        }
        (Errno::EPERM, Ok(_)) => Cause::device_is_forbidden(path, &around),
        (Errno::ENOENT | Errno::ENODEV | Errno::ENXIO, _) => Cause::device_is_missing(path, errno, &around),
        _ => Cause::unknown(&around),
    }
}

fn find(step: Step, errno: Errno, path: &Path, around: &HostState) -> Option<Cause> {
    let refused = errno == Errno::EPERM || errno == Errno::EACCES;
    if around.has_valgrind {
        return Some(Cause::valgrind());
    }
    if step == Step::Zygote && proc::has_fakeroot() {
        return Some(Cause::fakeroot());
    }
    if let Some(answer) = filter_of(step).filter(|answer| answer.errno == errno) {
        return Some(Cause::barrier(&Barrier::Filter(Some(answer)), around));
    }
    // What needs `/proc` finds none, or the kernel does, which makes no second one where there is no first.
    if !around.has_proc && is_proc(path) {
        return Some(if Path::new("/proc/stat").exists() { Cause::foreign_proc() } else { Cause::no_proc() });
    }
    match step {
        Step::ForkZygote if errno == Errno::EDEADLK => Some(Cause::locked_by_threads(zygote::threads_lost_in_fork())),
        _ if matches!(errno, Errno::EMFILE | Errno::ETOOMANYREFS) => {
            limit_on(Resource::RLIMIT_NOFILE).map(Cause::too_many_descriptors)
        }
        _ if errno == Errno::EFBIG => limit_on(Resource::RLIMIT_FSIZE).map(Cause::file_too_large),
        _ if errno == Errno::ENOMEM => no_more_memory(),
        Step::Template if errno == Errno::ENOSPC => Some(too_many_namespaces(&["user", "mnt"], around)),
        Step::Clone if errno == Errno::ENOSPC => Some(too_many_namespaces(&["user", "pid"], around)),
        Step::Namespaces if errno == Errno::ENOSPC => {
            Some(too_many_namespaces(&["mnt", "net", "ipc", "uts", "cgroup"], around))
        }
        Step::User if errno == Errno::ENOSPC => Some(too_many_namespaces(&["user"], around)),
        Step::Clocks if errno == Errno::ENOSPC => Some(too_many_namespaces(&["time"], around)),
        Step::Clocks if around.has_proc && !Path::new("/proc/self/ns/time").exists() => {
            Some(Cause::no_time_namespaces())
        }
        Step::Template | Step::User if refused && sysctl("kernel/unprivileged_userns_clone") == Some(0) => {
            Some(Cause::for_root_only(around))
        }
        _ if refused && is_restricted_by_apparmor(step) => {
            let profile = security_context().unwrap_or_else(|| "unconfined".to_owned());
            Some(Cause::apparmor_restricts(&profile, around))
        }
        _ if errno == Errno::EACCES && is_for_security_modules(step) => {
            let module = |barrier: &&Barrier| matches!(barrier, Barrier::Profile(_) | Barrier::Label(_));
            around.barriers.iter().find(module).map(|barrier| Cause::barrier(barrier, around))
        }
        Step::Template | Step::Clone if errno == Errno::EPERM => unmapped().or_else(chroot).or_else(|| {
            let profile = around.barriers.iter().find(|barrier| matches!(barrier, Barrier::Profile(_)));
            // The kernel has no other reason that would not show.
            let is_free = around.barriers.is_empty() && !around.has_filter();
            let chroot = is_free.then(|| Cause::chroot("the kernel refuses user namespaces, and nothing else does"));
            profile.map(|profile| Cause::barrier(profile, around)).or(chroot)
        }),
        Step::ForkZygote | Step::Template | Step::Clone | Step::Fork if errno == Errno::EAGAIN => {
            too_many_processes(around)
        }
        Step::Thread => {
            let stack = env::var_os("RUST_MIN_STACK").map(|stack| stack.to_string_lossy().into_owned());
            stack
                .map(|stack| Cause::no_thread(&stack))
                .or_else(|| reached_limit_on_processes(around))
                // pthread_create(3) tells of both by EAGAIN.
                .or_else(no_more_memory)
                .or_else(|| too_many_processes(around))
        }
        Step::User if errno == Errno::EINVAL => Some(Cause::has_threads()),
        Step::HostIds => Some(Cause::not_real_root(around.uid, &map_of("uid").unwrap_or_default())),
        Step::MapIds | Step::Clocks if errno == Errno::EROFS => Some(Cause::read_only_proc()),
        Step::MapIds if errno == Errno::EPERM && path.ends_with("uid_map") && around.may_not_map_root => {
            Some(Cause::may_not_map_root(around))
        }
        // The path is not looked at: its file system hangs.
        Step::Bind | Step::Copy if errno == Errno::ETIMEDOUT => Some(Cause::does_not_answer(&kind_at(path))),
        Step::Zygote | Step::Bind if path.starts_with("/dev") && !path.exists() => {
            Some(Cause::no_device(&path.to_string_lossy()))
        }
        Step::Copy if path != Path::new("/") && !path.is_dir() => {
            Some(Cause::no_directory(fs::metadata(path).err().map(|error| errno_of(&error))))
        }
        Step::MountPoint if errno == Errno::ENOENT => Some(Cause::no_place(path)),
        Step::Bind if errno == Errno::ENOENT && !path.exists() => Some(Cause::no_path(errno)),
        Step::Copy if errno == Errno::ENODEV && !has_overlay() => Some(Cause::no_overlay()),
        // Before Linux 5.11, no user namespace could mount an overlay.
        Step::Copy if errno == Errno::EPERM && kernel_version(&around.kernel).is_some_and(|own| own < (5, 11)) => {
            Some(Cause::no_overlay_for_users(&around.kernel))
        }
        Step::Copy if errno == Errno::EINVAL => Some(Cause::can_not_be_copied(&kind_at(path))),
        Step::Keyring if errno == Errno::EDQUOT => Some(Cause::too_many_keys(&keys_of(around.uid))),
        Step::Mount if refused && is_sysfs(path) && !proc::mounts().iter().any(|mount| mount.kind == "sysfs") => {
            Some(Cause::no_sysfs())
        }
        Step::Mount if refused => {
            around.barriers.iter().find(|barrier| hides(barrier, path)).map(|barrier| Cause::barrier(barrier, around))
        }
        // Root of the namespaces may do this, which only who is root there can find out.
        Step::Hostname | Step::Pivot if errno == Errno::EPERM && around.has_filter() => {
            Some(Cause::barrier(&Barrier::Filter(None), around))
        }
        Step::Pivot if errno == Errno::EINVAL && kind_at(Path::new("/")) == "rootfs" => {
            Some(Cause::root_of_initramfs())
        }
        _ => None,
    }
}

/// The filter that refuses what a step does, if there is one.
fn filter_of(step: Step) -> Option<Answer> {
    match step {
        Step::Template | Step::Clone => probe::clone_is_filtered(),
        Step::Namespaces => probe::unshare_is_filtered(libc::CLONE_NEWNS | libc::CLONE_NEWNET),
        Step::Clocks => probe::unshare_is_filtered(libc::CLONE_NEWTIME),
        // The kernels that have this setting look at it before they look at the flags.
        Step::User if sysctl("kernel/unprivileged_userns_clone") != Some(0) => {
            probe::unshare_is_filtered(libc::CLONE_NEWUSER)
        }
        Step::Propagation | Step::Root | Step::Bind | Step::MountPoint | Step::ReadOnly | Step::Mount | Step::Copy => {
            probe::mount_is_filtered()
        }
        // The kernel looks at the caller first.
        Step::Pivot if has_capability(CAP_SYS_ADMIN) == Some(true) => probe::pivot_root_is_filtered(),
        Step::Zygote | Step::Birth => probe::pidfd_open_is_filtered(),
        _ => None,
    }
}

/// Whether a step is one at which Ubuntu's restriction shows, and this process one that it is for.
fn is_restricted_by_apparmor(step: Step) -> bool {
    let shows = matches!(
        step,
        Step::Template
            | Step::Clone
            | Step::MapIds
            | Step::Namespaces
            | Step::Clocks
            | Step::Hostname
            | Step::Loopback
            | Step::Propagation
            | Step::Root
    );
    shows
        && sysctl("kernel/apparmor_restrict_unprivileged_userns") == Some(1)
        && has_capability(CAP_SYS_ADMIN) != Some(true)
        && security_context().is_none_or(|context| !context.ends_with(" (enforce)"))
}

/// Whether a step does what security modules forbid, and EACCES comes from nobody else.
fn is_for_security_modules(step: Step) -> bool {
    matches!(
        step,
        Step::Template
            | Step::Clone
            | Step::MapIds
            | Step::Namespaces
            | Step::Clocks
            | Step::Propagation
            | Step::Root
            | Step::ReadOnly
            | Step::Mount
            | Step::Pivot
            | Step::User
    )
}

/// Whether what is mounted at `path` in a sandbox is a proc: there may be one below `/sys` or `/proc`, see the plan.
fn is_proc(path: &Path) -> bool {
    path.starts_with("/proc") || path.ends_with("proc")
}

/// The same about a sysfs.
fn is_sysfs(path: &Path) -> bool {
    path.ends_with("sys") && !is_proc(path)
}

/// Whether a mask is why the kernel makes no second file system of the kind that belongs at `path`.
fn hides(barrier: &Barrier, path: &Path) -> bool {
    let Barrier::Mask(points) = barrier else { return false };
    let whole = if is_proc(path) { "/proc" } else { "/sys" };
    points.iter().any(|point| point.starts_with(whole))
}

/// The most likely cause of there being no cgroup for the limits that a test has written.
pub(crate) fn explain_cgroup(trouble: &NoCgroup) -> Option<Cause> {
    let around = HostState::look();
    if !around.has_proc {
        return Some(Cause::no_proc());
    }
    if let NoCgroup::Refused { path, errno: Errno::ENOENT } = trouble {
        if path.ends_with("memory.swap.max") || path.ends_with("memory.memsw.limit_in_bytes") {
            return Some(Cause::swap_is_not_counted());
        }
    }
    if let NoCgroup::Refused { path, errno: Errno::EOPNOTSUPP } = trouble {
        // What was refused is a file of the cgroup that the tests run in, or of one below it that belljar has made.
        for directory in path.ancestors().skip(1).take(3) {
            let [kind, on] = map_both(["cgroup.type", "cgroup.subtree_control"], |name| {
                text_of(directory.join(name)).unwrap_or_default()
            });
            if kind.contains("threaded") {
                return Some(Cause::threaded_cgroup(directory, kind.trim(), &on));
            }
        }
    }
    if let NoCgroup::Ends { unit, policy } = trouble {
        return Some(Cause::unit_ends(unit, policy));
    }
    if let Some(chosen) = cgroup::chosen() {
        let chosen = chosen.to_string_lossy();
        match trouble {
            NoCgroup::Foreign { .. } => return Some(Cause::choice_of_others(&chosen)),
            NoCgroup::Refused { errno: Errno::EROFS | Errno::EACCES | Errno::EPERM, .. } => {}
            NoCgroup::Missing(_) | NoCgroup::Ends { .. } | NoCgroup::Refused { .. } => {
                return Some(Cause::bad_choice(&chosen));
            }
        }
    }
    // In the root of the unified hierarchy, or of one that came with cgroups of version 1.
    let unified = fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or(false);
    match trouble {
        NoCgroup::Refused { errno: Errno::EROFS, .. } => Some(Cause::read_only_cgroups(&around)),
        NoCgroup::Refused { errno: Errno::EACCES | Errno::EPERM, .. } if !unified => {
            Some(Cause::cgroups_v1(around.uid))
        }
        NoCgroup::Missing(_) if !proc::mounts().iter().any(|mount| mount.kind.as_bytes().starts_with(b"cgroup")) => {
            Some(Cause::no_cgroups())
        }
        NoCgroup::Missing(_) if around.platform == Platform::Wsl => Some(Cause::no_controllers_in_wsl()),
        NoCgroup::Refused { path, errno: Errno::EACCES | Errno::EPERM } => {
            Some(Cause::cgroup_of_others(format!("{}{}", plain(path.display()), owner_of(path))))
        }
        NoCgroup::Foreign { path, .. } => {
            Some(Cause::cgroup_of_others(format!("cgroup.procs of {} has others' processes", plain(path.display()))))
        }
        NoCgroup::Missing(_) if unified => Some(Cause::cgroup_of_others(format!(
            "/proc/self/cgroup is 0::{}",
            plain(proc::own_cgroup_v2().unwrap_or_default().display())
        ))),
        _ => None,
    }
}

/// The lowest limit on the numbers of namespaces of these kinds, one of which was reached.
fn too_many_namespaces(kinds: &[&str], around: &HostState) -> Cause {
    let limit = |kind: &&str| (sysctl(&format!("user/max_{kind}_namespaces")), (*kind).to_owned());
    let lowest = kinds.iter().map(limit).min_by_key(|(limit, _)| limit.unwrap_or(u64::MAX));
    let (limit, kind) = lowest.unwrap_or_default();
    Cause::too_many_namespaces(&format!("user.max_{kind}_namespaces"), limit, around)
}

/// A number below `/proc/sys`.
fn sysctl(name: &str) -> Option<u64> {
    number_in(&Path::new("/proc/sys").join(name))
}

fn number_in(file: &Path) -> Option<u64> {
    text_of(file).ok()?.trim().parse().ok()
}

/// A map of this process's ids, `uid` or `gid`.
fn map_of(kind: &str) -> Option<String> {
    text_of(format!("/proc/self/{kind}_map")).ok()
}

/// That this process's own user or group is not mapped here, if that is so. The kernel shows it as 65534, which is mapped no more often.
fn unmapped() -> Option<Cause> {
    let ids = [("uid", geteuid().as_raw()), ("gid", getegid().as_raw())];
    let maps = ids.into_iter().filter_map(|(kind, id)| Some((map_of(kind)?, id)));
    let lacking = { maps }.find(|(map, id)| !holds(map, *id));
    lacking.map(|(map, _)| Cause::user_is_unmapped(&map))
}

/// That this process has another root than its mount namespace, or, where all can't be seen, than the first process.
fn chroot() -> Option<Cause> {
    let root = |process| fs::metadata(format!("/proc/{process}/root/")).map(|root| (root.dev(), root.ino())).ok();
    let namespace = |process| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let points = mount_points();
    if !points.is_empty() && !points.contains(Path::new("/")) {
        return Some(Cause::chroot("/proc/self/mountinfo has nothing at /"));
    }
    let first_has_another_root = namespace("1").is_some_and(|first| Some(first) == namespace("self"))
        && root("1").is_some_and(|first| Some(first) != root("self"));
    first_has_another_root.then(|| Cause::chroot("/proc/1/root is another directory than /proc/self/root"))
}

/// Whether a map of ids has a number for this one inside. See user_namespaces(7).
pub(crate) fn holds(map: &str, id: u32) -> bool {
    let range = |line: &str| {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u64>().ok());
        let (first, _, count) = (fields.next()??, fields.next()??, fields.next()??);
        Some((first..first.saturating_add(count)).contains(&id.into()))
    };
    map.lines().filter_map(range).any(|holds| holds)
}

fn has_overlay() -> bool {
    text_of("/proc/filesystems").is_ok_and(|text| text.split_whitespace().any(|word| word == "overlay"))
}

/// The type of the file system that `path` lies on.
fn kind_at(path: &Path) -> String {
    let mounts = proc::mounts();
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    let nearest = above.max_by_key(|mount| mount.point.as_os_str().len());
    nearest.map_or(String::new(), |mount| mount.kind.to_string_lossy().into_owned())
}

/// The line of /proc/key-users about this user.
fn keys_of(uid: u32) -> String {
    let text = text_of("/proc/key-users").unwrap_or_default();
    let is_own = |line: &&str| line.split(':').next().is_some_and(|user| user.trim() == uid.to_string());
    text.lines().find(is_own).map_or(String::new(), |line| line.split_whitespace().collect_vec().join(" "))
}

fn owner_of(path: &Path) -> String {
    let existing = path.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?)));
    existing
        .map_or(String::new(), |(path, metadata)| format!(" ({} belongs to {})", plain(path.display()), metadata.uid()))
}
