//! What a root of its own shows of the host, and which directories in it are private.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::host_files::HostFiles;
use crate::collect::CollectVec as _;
use crate::rootfs::context::{RunContext, repository_of, workspace_of};
use crate::rootfs::left::LeftLayer;
use crate::spec::Spec;

/// Directories that every root has, besides those of the system. Each costs five microseconds a test.
pub(super) const PRIVATE: [(&str, u32); 13] = [
    ("/dev", 0o755),
    ("/dev/shm", 0o1777),
    ("/etc", 0o755),
    ("/mnt", 0o755),
    ("/proc", 0o555),
    ("/run", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/var", 0o755),
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/tmp", 0o1777),
];

/// A directory that a sandbox is to have.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    /// Its path on the host, with no links in it.
    pub(super) canonical: PathBuf,
    pub(super) kind: WantedKind,
    /// The path by which it is known.
    pub(super) name: PathBuf,
}

/// They are made in this order, and a later kind lies over an earlier one. But what is shown is never made private.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WantedKind {
    /// The host's, read-only.
    Shown,
    /// The host's, for coverage profiles: writable, but for the directories in it.
    Profiles,
    /// What preparations have left there, in a layer of its own.
    Left(LeftLayer),
    /// Private, with this mode.
    Writable(u32),
}

/// The private directories that the environment names.
pub(super) fn writable(files: &HostFiles<'_>, context: &RunContext, spec: &Spec) -> Vec<Wanted> {
    let mut named = context.writable(spec);
    named.extend(spec.target_tmpdir.map(|path| (PathBuf::from(path), 0o755)));
    let is_below_a_file = |path: &Path| {
        files.follow(path) && fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotADirectory)
    };
    let mut wanted = Vec::new();
    for (name, mode) in named {
        if !is_below_a_file(&name) {
            wanted.push(Wanted { canonical: files.canonical(&name), kind: WantedKind::Writable(mode), name });
        }
    }
    wanted
}

/// Where coverage profiles go.
pub(super) fn profiles(files: &HostFiles<'_>, context: &RunContext) -> Option<Wanted> {
    let name = context.profiles.clone().filter(|path| files.follow(path))?;
    let canonical = files.canonical(&name);
    leaves_root_private(&canonical).then_some(Wanted { canonical, kind: WantedKind::Profiles, name })
}

/// The host's directories that are shown.
pub(super) fn shown(files: &HostFiles<'_>, context: &RunContext, spec: &Spec) -> Vec<Wanted> {
    let home = files.canonical(&context.home(spec));
    let leaves_home_private = |path: &Path| leaves_root_private(path) && !home.starts_with(path);
    // What is tested is shown even if it is, or holds, the home directory.
    let mut paths = tested(files, context, spec);
    for path in context.toolchain.iter().chain(&context.cwd).chain(&context.tools) {
        if leaves_home_private(&files.canonical(path)) {
            paths.push(path.clone());
        }
    }
    for tools in &context.tools {
        // Programs come with libraries beside them, in the directory above.
        let tools = if files.follow(tools) { files.canonical(tools) } else { continue };
        if let Some(prefix) = tools.parent().filter(|prefix| leaves_home_private(prefix) && is_prefix(&home, prefix)) {
            paths.push(prefix.to_path_buf());
        }
    }
    as_wanted(files, paths)
}

/// The repository, the workspace, the package and the target directory.
pub(crate) fn tested(files: &HostFiles<'_>, context: &RunContext, spec: &Spec) -> Vec<PathBuf> {
    let Some(package) = context.package(spec).filter(|package| files.follow(package)) else { return Vec::new() };
    let home = files.canonical(&context.home(spec));
    let target = context.target.as_deref();
    let mut tested = Vec::new();
    for path in [repository_of(package, &home), Some(workspace_of(package)), Some(package), target].iter().flatten() {
        if leaves_root_private(&files.canonical(path)) {
            tested.push(path.to_path_buf());
        }
    }
    tested
}

/// Those of these paths that are directories of the host, to be shown.
pub(super) fn as_wanted(files: &HostFiles<'_>, paths: Vec<PathBuf>) -> Vec<Wanted> {
    let wanted = |name: PathBuf| Wanted { canonical: files.canonical(&name), kind: WantedKind::Shown, name };
    paths.into_iter().map(wanted).filter(|wanted| files.is_directory(&wanted.canonical)).collect_vec()
}

/// Whether the private directories stay private if `path` is shown.
pub(super) fn leaves_root_private(path: &Path) -> bool {
    PRIVATE.iter().all(|(private, _)| !Path::new(private).starts_with(path))
}

/// Whether a directory above one of programs belongs to just these, like `/opt/tool` above `/opt/tool/bin`, and is no
/// place where others keep their data too, like `~/.local`.
pub(super) fn is_prefix(home: &Path, path: &Path) -> bool {
    path.components().count() > 2 && *path != home.join(".local")
}
