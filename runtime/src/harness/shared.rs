//! What preparations leave for all processes of a run. nextest runs each test in a process of its own, so that what is left in memory would
//! serve one test.
//!
//! It lies below the target directory, in a directory for each run, in that one for each test binary, in that one for each preparation:
//!
//! - `lock` is locked by the process that runs the preparation, as long as it lives and does so;
//! - `root` is what the preparation leaves, in the layout that [`build`](crate::rootfs::build) describes;
//! - `outcome` says how it ended. It appears when all is done.
//!
//! A run is over when nextest has ended, and all processes that it has started. A later run of the same user renames what is left of it, so that
//! it begins with [`GONE`], and removes it.
//!
//! Others may not look into the directory of a run: as root, a preparation may leave programs that are setuid.

use std::any::Any;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{env, io, iter, process, ptr};

use nix::errno::Errno;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, TMPFS_MAGIC, statfs};

use super::words;
#[cfg(feature = "images")]
use crate::images::image;
use crate::proc;
use crate::rootfs::access::closed_above;
use crate::rootfs::context::{in_package, target_of};
use crate::rootfs::left::remove;
use crate::rootfs::paths::c_string;
use crate::settings::settings;
use crate::spec::{Ids, Root, Spec, Test};
use crate::sys::{self, Locked};

/// The directory in the target directory that all of this lies in.
const PREPARED: &str = "belljar-prepared";

/// What the names begin with of runs that are over.
const GONE: &str = "gone-";

/// For how long a run is taken to be alive of whose pid namespace nobody here can tell.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// What is told of a preparation to the other processes of the run.
pub(super) enum SharedOutcome {
    /// It has left a root.
    Left,
    Skipped(String),
    Failed(String),
}

/// Where a preparation leaves its root.
pub(super) struct SharedRoot {
    directory: PathBuf,
}

/// Where `preparation` leaves its root for all processes of the run. `None` if this process runs all tests, or if it can't be.
pub(super) fn place(preparation: &'static Test) -> Option<SharedRoot> {
    let run = settings().nextest_run.as_deref()?;
    match make_place(run, preparation) {
        Ok(directory) => Some(SharedRoot { directory }),
        Err((path, error)) => {
            tell(preparation, &path, &error);
            None
        }
    }
}

/// Tells once that each process runs the preparations for itself, because of an error at this path.
fn tell(preparation: &Test, path: &Path, error: &io::Error) {
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    if !IS_TOLD.swap(true, Ordering::Relaxed) {
        eprintln!("{}", words::preparation_not_shared(preparation.short_name(), path, error));
    }
}

/// What says that the run is alive, once this process has begun to take part in it.
static ALIVE: Mutex<Option<Result<Locked, Errno>>> = Mutex::new(None);

fn alive() -> MutexGuard<'static, Option<Result<Locked, Errno>>> {
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has no other thread begin meanwhile.
pub(super) fn hold() -> Box<dyn Any> {
    Box::new(alive())
}

/// Makes the directory of `preparation`. Fails with a path, and with what is wrong there.
fn make_place(run: &str, preparation: &'static Test) -> Result<PathBuf, (PathBuf, io::Error)> {
    let unknown = |error| (PathBuf::from("the path of this test binary"), error);
    let binary = env::current_exe().map_err(unknown)?;
    let all = target_of(&binary).unwrap_or_default().join(PREPARED);
    let failed = |error| (all.clone(), error);
    fs::create_dir_all(&all).map_err(failed)?;
    check(&all, &preparation.spec).map_err(failed)?;
    let of_run = all.join(run);
    let begin = || begin(&all, &of_run).map_err(|error| sys::errno_of(&error));
    alive().get_or_insert_with(begin).as_ref().map_err(|errno| failed((*errno).into()))?;
    // Two in crates or functions of their own may have one name. Their distance from something else in the binary is always the same.
    let distance = ptr::from_ref(preparation).addr().wrapping_sub(ptr::from_ref(&ANCHOR).addr());
    let name =
        format!("{}-{distance:x}{}", preparation.short_name().replace("::", "-"), version_of_root(&preparation.spec));
    let directory = of_run.join(binary.file_name().unwrap_or(OsStr::new("tests"))).join(name);
    fs::create_dir_all(&directory).map_err(|error| (directory.clone(), error))?;
    Ok(directory)
}

static ANCHOR: u8 = 0;

/// What names the version of the image that is the root, if one is. If the image changes while a run goes on, what was left upon the old one is not
/// for those who find the new one.
#[cfg(feature = "images")]
fn version_of_root(spec: &Spec) -> String {
    let image = image(spec).and_then(Result::ok);
    let name = image.as_ref().and_then(|image| image.directory.file_name());
    name.map_or(String::new(), |name| format!("-{}", name.to_string_lossy()))
}

#[cfg(not(feature = "images"))]
fn version_of_root(_: &Spec) -> &'static str {
    ""
}

/// `XFS_SUPER_MAGIC`, which nix lacks for musl.
const XFS: FsType = FsType(0x5846_5342);

/// Whether such roots can lie there, and lie below overlays.
fn check(directory: &Path, spec: &Spec) -> io::Result<()> {
    if let (Ids::Range(_), false) = (spec.ids, sys::geteuid().is_root()) {
        return Err(io::Error::other("with `uids`, it holds files that this user could not remove"));
    }
    if spec.tmpfs.is_some() {
        return Err(io::Error::other("with `tmpfs`, it has a limit, which a disk can't keep"));
    }
    let is_copied = match spec.root {
        Root::Tmpfs | Root::Image(_) => false,
        Root::Overlay => true,
        Root::Directory(copied) => fs::canonicalize(in_package(spec, copied))
            .is_ok_and(|copied| fs::canonicalize(directory).is_ok_and(|directory| directory.starts_with(copied))),
    };
    if is_copied {
        return Err(io::Error::other("it lies in the tree that is copied"));
    }
    if !fs::symlink_metadata(directory)?.is_dir() {
        return Err(Errno::ENOTDIR.into());
    }
    if closed_above(&directory.join("root"), spec.ids).is_some() {
        return Err(Errno::EACCES.into());
    }
    // Overlays take attributes of users, and directories that tell what kinds of files they hold.
    const FIT: [FsType; 4] = [BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS];
    let kind = statfs(&*c_string(directory))?.filesystem_type();
    if FIT.contains(&kind) { Ok(()) } else { Err(Errno::EOPNOTSUPP.into()) }
}

/// Marks the run as one that is alive, and removes what others have left that are over. Each process of the run holds the lock.
fn begin(all: &Path, of_run: &Path) -> io::Result<Locked> {
    match DirBuilder::new().mode(0o700).create(of_run) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    if !is_own_directory(of_run) {
        return Err(Errno::EACCES.into());
    }
    let runner = of_run.join("runner");
    if !runner.exists() {
        let new = of_run.join(format!("runner-{}", process::id()));
        fs::write(&new, Runner::find().to_text())?;
        fs::rename(new, runner)?;
    }
    let alive = File::options().create(true).append(true).open(of_run.join("alive"))?;
    let alive = Locked::new(alive, libc::LOCK_SH).map_err(|(_, errno)| errno)?;
    let directory = OwnedFd::from(File::open(all)?);
    for other in fs::read_dir(all)?.flatten().map(|entry| entry.path()).filter(|other| other != of_run) {
        sweep(&directory, &other);
    }
    Ok(alive)
}

/// Whether this is a directory of this user's, and no link to one.
fn is_own_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == sys::geteuid().as_raw())
}

/// Removes what a run has left in the directory of all, if that is over and was this user's.
fn sweep(all: &OwnedFd, run: &Path) {
    let Some(name) = run.file_name().filter(|_| is_own_directory(run)) else { return };
    if name.as_bytes().starts_with(GONE.as_bytes()) {
        return remove(all, Path::new(name));
    }
    let Ok(alive) = File::options().append(true).open(run.join("alive")) else { return };
    let Ok(locked) = Locked::new(alive, libc::LOCK_EX | libc::LOCK_NB) else { return };
    let text = proc::text_of(run.join("runner")).unwrap_or_default();
    let is_old = || {
        let begun = locked.metadata().and_then(|metadata| metadata.modified());
        begun.is_ok_and(|begun| begun.elapsed().is_ok_and(|age| age > LONG))
    };
    if Runner::from_text(&text).is_some_and(|runner| runner.is_over().unwrap_or_else(is_old)) {
        // Whoever comes next goes on if this process is killed.
        let mut gone = OsString::from(GONE);
        gone.push(name);
        if fs::rename(run, run.with_file_name(&gone)).is_ok() {
            remove(all, Path::new(&gone));
        }
    }
}

/// The process that runs all tests: nextest's.
#[derive(PartialEq, Eq)]
struct Runner {
    pid: u32,
    /// When it began.
    began: u64,
    /// The pid namespace that the number is of.
    namespace: PathBuf,
}

impl Runner {
    /// The nearest one above this process that runs a program of that name; or else the parent.
    fn find() -> Self {
        let parent = |pid: &u32| proc::parent_of(*pid).filter(|parent| *parent != 0);
        let is_nextest = |pid: &u32| {
            let program = fs::read_link(proc::directory(*pid).join("exe")).unwrap_or_default();
            program.file_name().is_some_and(|name| sys::contains(name.as_bytes(), b"nextest"))
        };
        let pid = iter::successors(Some(parent_id()), parent).find(is_nextest).unwrap_or(parent_id());
        Self { pid, began: began(pid).unwrap_or_default(), namespace: own_namespace() }
    }

    fn to_text(&self) -> String {
        format!("{} {} {}", self.pid, self.began, self.namespace.display())
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (pid, began) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { pid, began, namespace: words.next()?.into() })
    }

    /// Whether it has ended. Of a process in another pid namespace, nobody here can tell.
    fn is_over(&self) -> Option<bool> {
        (self.namespace == own_namespace()).then(|| began(self.pid) != Some(self.began))
    }
}

fn began(pid: u32) -> Option<u64> {
    proc::stat(&proc::directory(pid))?.began()
}

fn own_namespace() -> PathBuf {
    fs::read_link("/proc/self/ns/pid").unwrap_or_default()
}

impl SharedRoot {
    /// The directory that is to be the root.
    pub(super) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Tells that this process runs `preparation` for itself, because of an error there.
    pub(super) fn tell(&self, preparation: &Test, error: &io::Error) {
        tell(preparation, &self.directory, error);
    }

    /// What became of the preparation. If no process of the run knows, this one runs it: `run` finds the directory of the root empty, and
    /// says whether the others are to know what it returns.
    pub(super) fn once(&self, run: impl FnOnce() -> io::Result<(SharedOutcome, bool)>) -> io::Result<SharedOutcome> {
        let lock = File::options().create(true).append(true).open(self.directory.join("lock"))?;
        // Whoever held it and was killed has let go of it.
        let _lock = Locked::new(lock, libc::LOCK_EX).map_err(|(_, errno)| errno)?;
        let outcome = self.directory.join("outcome");
        if let Some(told) = proc::text_of(&outcome).ok().and_then(|text| SharedOutcome::from_text(&text)) {
            return Ok(told);
        }
        self.begin()?;
        let (told, is_for_all) = run()?;
        if is_for_all {
            let new = self.directory.join("outcome-new");
            fs::write(&new, told.to_text())?;
            fs::rename(new, outcome)?;
        }
        Ok(told)
    }

    /// Makes the directory of the root anew. Only who runs the preparation may do that.
    pub(super) fn begin(&self) -> io::Result<()> {
        static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
        // Processes of an earlier attempt may still be ending in the old directory.
        let old = format!("old-{}-{}", process::id(), ATTEMPTS.fetch_add(1, Ordering::Relaxed));
        let has_old = fs::rename(self.root(), self.directory.join(&old)).is_ok();
        fs::create_dir(self.root())?;
        fs::set_permissions(self.root(), Permissions::from_mode(0o755))?;
        // What is not removed now goes with the run.
        if let (true, Ok(directory)) = (has_old, File::open(&self.directory)) {
            remove(&OwnedFd::from(directory), Path::new(&old));
        }
        Ok(())
    }

    /// Whether the disk is full, so that a preparation may have failed for that.
    pub(super) fn is_full(&self) -> bool {
        nix::sys::statvfs::statvfs(&*c_string(&self.directory))
            .is_ok_and(|disk| disk.blocks_available() == 0 || disk.files() > 0 && disk.files_available() == 0)
    }
}

impl SharedOutcome {
    fn to_text(&self) -> String {
        match self {
            Self::Left => "left\n".to_owned(),
            Self::Skipped(why) => format!("skipped\n{why}"),
            Self::Failed(why) => format!("failed\n{why}"),
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let (word, why) = text.split_once('\n')?;
        match word {
            "left" => Some(Self::Left),
            "skipped" => Some(Self::Skipped(why.to_owned())),
            "failed" => Some(Self::Failed(why.to_owned())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_as_it_was_written() {
        for told in
            [SharedOutcome::Left, SharedOutcome::Skipped("why\nnot".into()), SharedOutcome::Failed(String::new())]
        {
            let text = told.to_text();
            assert_eq!(SharedOutcome::from_text(&text).map(|told| told.to_text()), Some(text));
        }
        assert!(SharedOutcome::from_text("left").is_none() && SharedOutcome::from_text("").is_none());
    }

    #[test]
    fn runners_that_live_are_known() {
        let runner = Runner::find();
        assert!(runner.is_over() == Some(false) && Runner::from_text(&runner.to_text()) == Some(Runner::find()));
        let later = Runner { began: runner.began + 1, ..runner };
        assert_eq!(later.is_over(), Some(true));
        // Nobody knows what has this number there.
        assert_eq!(Runner { namespace: "pid:[1]".into(), ..later }.is_over(), None);
    }

    #[test]
    fn closed_directories_are_removed() {
        let directory = env::temp_dir().join(format!("belljar-{}-closed", process::id()));
        fs::create_dir_all(directory.join("a/b")).expect("mkdir");
        fs::write(directory.join("a/b/c"), "").expect("write");
        fs::set_permissions(directory.join("a/b"), Permissions::from_mode(0o000)).expect("chmod");
        // A link leads to nothing that is removed.
        let other = directory.with_extension("kept");
        fs::create_dir_all(&other).expect("mkdir");
        fs::write(other.join("file"), "").expect("write");
        std::os::unix::fs::symlink(&other, directory.join("a/link")).expect("symlink");
        let above = OwnedFd::from(File::open(env::temp_dir()).expect("open"));
        remove(&above, Path::new(directory.file_name().expect("a name")));
        assert!(!directory.exists() && other.join("file").exists());
        fs::remove_dir_all(other).expect("remove");
    }
}
