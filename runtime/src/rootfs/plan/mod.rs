//! Plans the file system of a sandbox: from what a test asks for and what the host has, to a list of operations.
//!
//! With a root of its own, the sandbox has three kinds of directories:
//! - the host's, read-only and at their own paths: the operating system, the workspace, the target directory, the
//!   toolchain, and what `PATH` and `LD_LIBRARY_PATH` name;
//! - private and writable ones, empty at first: `/tmp`, `/run`, `/var`, `$HOME` and all else in the tmpfs;
//! - what the kernel makes: `/proc`, `/sys`, `/dev/pts`, `/dev/mqueue`.

mod base;
mod basis;
mod builder;
mod copy;
mod host;
mod host_files;
mod prepared;
mod system;
mod wanted;

use std::path::Path;

use nix::errno::Errno;

use self::builder::Builder;
pub(crate) use self::builder::Planned;
use self::copy::copied_root;
pub(crate) use self::host::Host;
pub(crate) use self::host_files::{HostFiles, Responding, check_answer};
use self::prepared::prepared_root;
use self::system::{LINKS, SYSTEM};
pub(crate) use self::wanted::tested;
use self::wanted::{PRIVATE, profiles, shown, writable};
use crate::collect::CollectVec as _;
use crate::frame::{Refusal, Step};
use crate::rootfs::build::{Access, COPY, Plan};
use crate::spec::{Root, Spec};

/// Plans the file system of the sandbox that `spec` asks for. Fails if root of the sandbox may not reach what is tested, or if nobody answers
/// where something lies that the test names.
pub(crate) fn plan(host: &Host<'_>, spec: &Spec) -> Result<Planned, Refusal> {
    if let Some(unreachable) = host.unreachable_by_all(spec).filter(|_| spec.mount) {
        return Err(Refusal::new(Step::Bind, unreachable, Errno::EACCES));
    }
    let package = host.context.package(spec).filter(|_| spec.mount).map(Path::to_path_buf);
    let mut named = spec.binds.iter().map(|bind| host.context.absolute(spec, bind.from)).chain(package);
    if let Some(silent) = named.find(|path| !host.files.follow(path)) {
        return Err(Refusal::new(Step::Bind, silent, Errno::ETIMEDOUT));
    }
    if let (Some(_), Some(stage)) = (spec.from, host.stage) {
        return prepared_root(host, stage, spec);
    }
    match spec.root {
        _ if !spec.mount => Ok(hosts_root(host, spec)),
        Root::Tmpfs => Ok(own_root(host, spec)),
        Root::Overlay => copied_root(host, spec, Path::new("/")),
        // The template asks for the directory that an image lies in.
        Root::Directory(path) | Root::Image(path) => {
            copied_root(host, spec, &host.files.canonical(&host.context.absolute(spec, path)))
        }
    }
}

/// The host's tree, with a `/proc` and a `/sys` that fit the sandbox's namespaces.
fn hosts_root(host: &Host<'_>, spec: &Spec) -> Planned {
    let mut builder = Builder::new(host, spec, "/");
    match host.stage {
        Some(stage) if host.context.owns_kernel_files => {
            let [new, whole] = stage.procs();
            builder.mount(c"proc", &whole);
            builder.bind(&whole, &new);
            builder.shield_proc(stage, &new, &whole);
            builder.run(stage, spec.net);
            builder.move_to(&new, Path::new("/proc"));
        }
        Some(stage) => {
            builder.run(stage, spec.net);
            builder.mount(c"proc", Path::new("/proc"));
        }
        None => builder.mount(c"proc", Path::new("/proc")),
    }
    // Interfaces show in a sysfs of their own network only. The cgroups that are mounted in the host's stay.
    let cgroups = Some(Path::new("/sys/fs/cgroup")).filter(|path| spec.net && host.is_mount_point(path));
    if spec.net {
        builder.mount_keeping(c"sysfs", Path::new("/sys"), cgroups);
    }
    if Path::new("/dev/mqueue").is_dir() {
        builder.mount(c"mqueue", Path::new("/dev/mqueue"));
    }
    if spec.net {
        builder.let_ping();
    }
    if host.context.owns_kernel_files && spec.net {
        let sys = Path::new("/sys");
        builder.bind_to_itself(sys, sys, Access::AsIs);
        builder.shield_sys();
        if let Some(path) = cgroups {
            let below = host.mounts_below(path).map(|mount| builder.inside(mount)).collect_vec();
            builder.bind_to_itself(path, path, Access::ReadOnly { below });
        }
    }
    builder.binds(spec);
    let plan = Plan { root: None, is_copy: false, operations: builder.operations, working_directory: None };
    Planned { plan, basis: builder.basis }
}

/// A tmpfs with what tests and host tools need.
fn own_root(host: &Host<'_>, spec: &Spec) -> Planned {
    let (context, files) = (host.context, &host.files);
    let mut builder = Builder::new(host, spec, if spec.is_preparation { COPY } else { "" });
    for path in SYSTEM {
        builder.system_directory(Path::new(path));
    }
    for (path, mode) in PRIVATE {
        builder.directory(Path::new(path), mode);
    }
    builder.links(LINKS);
    builder.etc(spec);
    builder.etc_of_host();
    builder.devices(spec);
    builder.kernel_file_systems(spec.net);
    let mut wanted = shown(files, context, spec);
    wanted.extend(host.unreachable());
    wanted.extend(profiles(files, context));
    wanted.extend(writable(files, context, spec));
    builder.wanted(wanted);
    builder.finish(spec, spec.is_preparation)
}
