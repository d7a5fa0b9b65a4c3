//! What a root of its own shows of the host, and which directories in it are private.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::answers::Answers;
use crate::rootfs::facts::{Facts, repository_of, workspace_of};
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
    pub(super) kind: Kind,
    /// The path by which it is known.
    pub(super) name: PathBuf,
}

/// Where both are wanted, it is the host's.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The host's, read-only.
    Shown,
    /// The host's, for coverage profiles: writable, but for the directories in it.
    Profiles,
    /// Private, with this mode.
    Writable(u32),
}

/// The private directories that the environment names.
pub(super) fn writable(answers: &Answers<'_>, facts: &Facts, spec: &Spec) -> Vec<Wanted> {
    let target_tmpdir = spec.target_tmpdir.map(|path| (PathBuf::from(path), 0o755));
    let is_below_a_file = |path: &Path| {
        answers.follow(path) && fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotADirectory)
    };
    let wanted = facts.writable(spec).chain(target_tmpdir).filter(|(path, _)| !is_below_a_file(path));
    let wanted = wanted.map(|(name, mode)| (answers.canonical(&name), Kind::Writable(mode), name));
    wanted.map(|(canonical, kind, name)| Wanted { canonical, kind, name }).collect()
}

/// Where coverage profiles go.
pub(super) fn profiles(answers: &Answers<'_>, facts: &Facts) -> Option<Wanted> {
    let name = facts.profiles.clone().filter(|path| answers.follow(path))?;
    let canonical = answers.canonical(&name);
    leaves_root_private(&canonical).then_some(Wanted { canonical, kind: Kind::Profiles, name })
}

/// The host's directories that are shown.
pub(super) fn shown(answers: &Answers<'_>, facts: &Facts, spec: &Spec) -> Vec<Wanted> {
    let home = answers.canonical(&facts.home(spec));
    let leaves_home_private = |path: &Path| leaves_root_private(path) && !home.starts_with(path);
    // What is tested is shown even if it is, or holds, the home directory.
    let mut paths = tested(answers, facts, spec);
    let others = facts.toolchain.iter().chain(&facts.cwd).chain(&facts.tools);
    paths.extend(others.filter(|path| leaves_home_private(&answers.canonical(path))).cloned());
    // Programs come with libraries beside them, in the directory above.
    let tools = facts.tools.iter().filter(|tools| answers.follow(tools)).map(|tools| answers.canonical(tools));
    let prefixes = tools.filter_map(|tools| tools.parent().map(Path::to_path_buf));
    paths.extend(prefixes.filter(|prefix| leaves_home_private(prefix) && is_prefix(&home, prefix)));
    as_wanted(answers, paths)
}

/// The repository, the workspace, the package and the target directory.
pub(crate) fn tested(answers: &Answers<'_>, facts: &Facts, spec: &Spec) -> Vec<PathBuf> {
    let Some(package) = facts.package(spec).filter(|package| answers.follow(package)) else { return Vec::new() };
    let home = answers.canonical(&facts.home(spec));
    let repository = repository_of(package, &home);
    let tested = repository.into_iter().chain([workspace_of(package), package]).chain(facts.target.as_deref());
    tested.filter(|path| leaves_root_private(&answers.canonical(path))).map(Path::to_path_buf).collect()
}

/// Those of these paths that are directories of the host, to be shown.
pub(super) fn as_wanted(answers: &Answers<'_>, paths: Vec<PathBuf>) -> Vec<Wanted> {
    let wanted = |name: PathBuf| Wanted { canonical: answers.canonical(&name), kind: Kind::Shown, name };
    paths.into_iter().map(wanted).filter(|wanted| answers.is_directory(&wanted.canonical)).collect()
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
