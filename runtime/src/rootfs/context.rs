//! What the zygote finds out about the host, once, when the first sandbox is asked for.
//!
//! The zygote has run no test, so that its environment and its working directory are those that the test binary was
//! started with, whatever tests do to theirs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use nix::unistd::{Gid, Uid};

use crate::collect::{CollectVec as _, map_both};
use crate::proc::text_of;
use crate::spec::{DEFAULT_HOME, Spec};
use crate::sys::{getegid, geteuid};

/// The host, as far as a rootfs depends on it.
pub(crate) struct RunContext {
    /// Who runs the tests.
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// Whether that is the machine's own root, and not one of a user namespace's.
    pub(crate) is_real_root: bool,
    /// Whether that is the owner of the kernel's own files in `/proc` and `/sys`: real root, not a container's.
    pub(crate) owns_kernel_files: bool,
    /// The working directory, as the kernel spells it.
    pub(crate) cwd: Option<PathBuf>,
    /// The directories that [`WRITABLE`] names, in its order, where the environment names them.
    writable: [Option<PathBuf>; WRITABLE.len()],
    /// Where the environment says that programs and libraries are.
    pub(crate) tools: Vec<PathBuf>,
    /// The Rust toolchain.
    pub(crate) toolchain: Vec<PathBuf>,
    /// Where the test binary lies.
    pub(crate) target: Option<PathBuf>,
    /// Where programs that were built for coverage leave their profiles.
    pub(crate) profiles: Option<PathBuf>,
    /// The package's directory, as Cargo or nextest name it now.
    pub(crate) manifest_dir: Option<PathBuf>,
    /// The host's name server configuration.
    pub(crate) resolv_conf: Vec<u8>,
}

/// Variables that name directories which are to be writable, and the modes of those. The home directory comes first: there is one in any case.
const WRITABLE: [(&str, u32); 3] = [("HOME", 0o755), ("TMPDIR", 0o1777), ("XDG_RUNTIME_DIR", 0o700)];

impl RunContext {
    pub(crate) fn gather() -> Self {
        let uid = geteuid();
        let home = directory("HOME").unwrap_or_else(|| DEFAULT_HOME.into());
        let or_in_home = |variable: &str, name: &str| directory(variable).unwrap_or_else(|| home.join(name));
        let mut toolchain = vec![or_in_home("RUSTUP_HOME", ".rustup"), or_in_home("CARGO_HOME", ".cargo")];
        // Cargo passes its own path: /toolchain/bin/cargo.
        toolchain.extend(directory("CARGO").and_then(|cargo| Some(cargo.parent()?.parent()?.to_path_buf())));
        Self {
            uid,
            gid: getegid(),
            is_real_root: uid.is_root() && all_ids_are_real(),
            owns_kernel_files: fs::metadata("/proc/sys").map_or(uid.is_root(), |sys| sys.uid() == uid.as_raw()),
            cwd: env::current_dir().ok(),
            tools: map_both(["PATH", "LD_LIBRARY_PATH"], directories).concat(),
            toolchain,
            target: env::current_exe().ok().and_then(|binary| target_of(&binary)),
            profiles: env::var_os("LLVM_PROFILE_FILE").and_then(|pattern| profiles_of(Path::new(&pattern))),
            manifest_dir: directory("CARGO_MANIFEST_DIR"),
            resolv_conf: fs::read("/etc/resolv.conf").unwrap_or_default(),
            writable: [Some(home.clone()), directory(WRITABLE[1].0), directory(WRITABLE[2].0)],
        }
    }

    /// The directory of the package that is tested: it may have been compiled elsewhere.
    pub(crate) fn package(&self, spec: &Spec) -> Option<&Path> {
        self.manifest_dir.as_deref().or(spec.manifest_dir.map(Path::new))
    }

    /// A path that an argument of the attribute names: one that is relative begins at the package.
    pub(crate) fn absolute(&self, spec: &Spec, path: &str) -> PathBuf {
        self.package(spec).unwrap_or(Path::new("/")).join(path)
    }

    /// The home directory that the test has.
    pub(crate) fn home(&self, spec: &Spec) -> PathBuf {
        self.writable(spec).into_iter().next().map_or_else(|| DEFAULT_HOME.into(), |(path, _)| path)
    }

    /// Directories that the environment of the test promises to be writable, with their modes; the home directory first.
    pub(crate) fn writable(&self, spec: &Spec) -> Vec<(PathBuf, u32)> {
        let mut writable = Vec::new();
        for ((name, mode), path) in WRITABLE.iter().zip(&self.writable) {
            let own = spec.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
            if let Some(path) = own.or_else(|| path.clone()) {
                writable.push((path, *mode));
            }
        }
        writable
    }
}

/// The same in the test binary, for which Cargo and nextest name the package: it may have been compiled elsewhere.
pub(crate) fn in_package(spec: &Spec, path: &str) -> PathBuf {
    let package = directory("CARGO_MANIFEST_DIR").or(spec.manifest_dir.map(PathBuf::from));
    package.unwrap_or_else(|| "/".into()).join(path)
}

/// Whether this is the first user namespace, which maps each id to itself. See user_namespaces(7).
pub(crate) fn all_ids_are_real() -> bool {
    let map = text_of("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().collect_vec() == ["0", "0", "4294967295"]
}

/// The absolute path that the environment variable holds.
fn directory(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The absolute paths that the environment variable lists.
fn directories(variable: &str) -> Vec<PathBuf> {
    let list = env::var_os(variable).unwrap_or_default();
    env::split_paths(&list).filter(|path| path.is_absolute()).collect_vec()
}

/// The target directory that a test binary lies in. Cargo marks one that it has made as a cache, and keeps notes in every one; in the
/// directory of a profile, it has a lock. Failing that, the binary's directory.
pub(crate) fn target_of(binary: &Path) -> Option<PathBuf> {
    // Behind `deps` and the profile, there may be a target platform.
    let above = binary.ancestors().skip(1).take(4).collect_vec();
    let with =
        |names: &[&str]| above.iter().find(|directory| names.iter().any(|name| directory.join(name).exists())).copied();
    let of_profile = || with(&[".cargo-lock"]).and_then(Path::parent);
    let marked = with(&["CACHEDIR.TAG", ".rustc_info.json"]);
    marked.or_else(of_profile).or(binary.parent()).map(Path::to_path_buf)
}

/// The directory in which the files lie that this pattern of the profile runtime's stands for.
fn profiles_of(pattern: &Path) -> Option<PathBuf> {
    let is_plain = |part: &&OsStr| !part.as_bytes().contains(&b'%');
    let plain: PathBuf = pattern.parent()?.iter().take_while(is_plain).collect();
    Some(env::current_dir().ok()?.join(plain))
}

/// The workspace that a package is in: its lock file lies at the root. Failing that, the package.
pub(crate) fn workspace_of(package: &Path) -> &Path {
    package.ancestors().find(|directory| directory.join("Cargo.lock").exists()).unwrap_or(package)
}

/// The repository that a package is in, where path dependencies and snapshots outside of the workspace may lie. One that holds the
/// home directory is none of the package's.
pub(crate) fn repository_of<'p>(package: &'p Path, home: &Path) -> Option<&'p Path> {
    let repository = package.ancestors().find(|directory| directory.join(".git").exists())?;
    (!home.starts_with(repository)).then_some(repository)
}

/// `path` as a field of a file like /etc/passwd, if it can be one.
pub(crate) fn as_field(path: &Path) -> Option<&OsStr> {
    let field = path.as_os_str();
    let fits = |byte: &u8| *byte != b':' && *byte != b'\n';
    field.as_bytes().iter().all(fits).then_some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_found() {
        let directory = env::temp_dir().join(format!("belljar-{}-repositories", std::process::id()));
        let (repository, home) = (directory.join("repository"), directory.join("home"));
        let package = repository.join("a/package");
        fs::create_dir_all(&package).expect("create");
        assert_eq!(repository_of(&package, &home), None);
        fs::create_dir(repository.join(".git")).expect("create");
        assert_eq!(repository_of(&package, &home), Some(&*repository));
        assert_eq!(repository_of(&repository, &repository.join("home")), None);
        // That of a submodule is a file.
        fs::write(package.join(".git"), "gitdir: elsewhere").expect("write");
        assert_eq!(repository_of(&package, &home), Some(&*package));
        fs::remove_dir_all(directory).expect("remove");
    }

    #[test]
    fn target_directories_are_found() {
        let directory = env::temp_dir().join(format!("belljar-{}-targets", std::process::id()));
        let binary = directory.join("target/debug/deps/tests-0123456789abcdef");
        fs::create_dir_all(binary.parent().expect("deps")).expect("create");
        assert_eq!(target_of(&binary), Some(directory.join("target/debug/deps")));
        // In one that was there before Cargo, there is no mark.
        fs::write(directory.join("target/debug/.cargo-lock"), "").expect("write");
        assert_eq!(target_of(&binary), Some(directory.join("target")));
        for (mark, found) in [(".rustc_info.json", ""), ("target/CACHEDIR.TAG", "target")] {
            fs::write(directory.join(mark), "").expect("write");
            assert_eq!(target_of(&binary), Some(directory.join(found).components().collect()));
        }
        fs::remove_dir_all(directory).expect("remove");
    }

    #[test]
    fn fields_hold_no_separators() {
        assert_eq!(as_field(Path::new("/home/a")), Some(OsStr::new("/home/a")));
        assert_eq!(as_field(Path::new("/home/a:b")), None);
    }
}
