//! Where unpacked images lie: below the target directory, in a directory for each version of an image and each kind of owners:
//!
//! - `lock` is locked by whoever looks whether the image is there, and unpacks it if it is not;
//! - `used` is shared by all processes that use the image, until they end;
//! - `source` says which image this is a version of;
//! - the rest is as [`image_directory`](crate::rootfs::image_directory) has it.
//!
//! When a new version of an image is unpacked, older ones are removed that nobody uses then.

use std::any::Any;
use std::collections::BTreeMap;
use std::env;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::archive::Files;
use super::error::ImageError;
use super::layer::{Lost, Owners};
use super::manifest;
use super::source::Source;
use super::unpack::unpack;
use crate::proc::text_of;
use crate::rootfs::access::closed_above;
use crate::rootfs::context::target_of;
use crate::rootfs::image_directory::{CONFIG, TREE};
use crate::rootfs::left::remove;
use crate::rootfs::unpacked::Unpacked;
use crate::spec::{Ids, Root, Spec};
use crate::sys::{self, Locked};

/// The directory in the target directory that all of this lies in.
const IMAGES: &str = "belljar-images";

/// What the names begin with of versions that are being removed.
const GONE: &str = "gone-";

/// An image that this process uses.
pub(crate) struct Image {
    /// Where it was unpacked to.
    pub(crate) directory: PathBuf,
    /// What was unpacked.
    pub(crate) unpacked: Unpacked,
    /// What was lost when this process unpacked it: nothing if another process has.
    pub(crate) lost: Lost,
    /// Whether it was said what a sandbox lacks of it. That is said once of each image.
    pub(crate) are_noted: AtomicBool,
    /// As long as somebody holds it, nobody removes the image.
    _used: Locked,
}

/// What tells images apart: the source, and who owns the files.
type Key = (Source, Option<u32>, bool);

type Known = Arc<OnceLock<Result<Arc<Image>, ImageError>>>;

static IMAGES_KNOWN: Mutex<BTreeMap<Key, Known>> = Mutex::new(BTreeMap::new());

fn known() -> MutexGuard<'static, BTreeMap<Key, Known>> {
    IMAGES_KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has no other thread ask for an image, until what is returned is dropped.
pub(crate) fn hold() -> impl Any {
    known()
}

/// Forgets the images that are being looked for. In a fork, nobody looks for them.
pub(crate) fn forget_unknown() {
    known().retain(|_, image| image.get().is_some());
}

/// The image that `spec` asks for, which is unpacked if it has to be. `None` if it asks for none. All tests of this process share one.
pub(crate) fn image(spec: &Spec) -> Option<Result<Arc<Image>, ImageError>> {
    let Root::Image(argument) = spec.root else { return None };
    let source = Source::of(spec, argument);
    let count = if let Ids::Range(count) = spec.ids { Some(count) } else { None };
    let key = (source.clone(), count, spec.ids == Ids::Host);
    let known = Arc::clone(known().entry(key).or_default());
    Some(known.get_or_init(|| find(&source, spec.ids).map(Arc::new)).clone())
}

fn find(source: &Source, ids: Ids) -> Result<Image, ImageError> {
    // Only root can give files to others.
    let owners = if sys::geteuid().is_root() && ids != Ids::One { Owners::Image(ids) } else { Owners::Root };
    let all = directory_of_all()?;
    loop {
        let version = Version::of(source)?;
        let place = all.join(format!("{}-{}", version.name, suffix(owners)));
        let at_place = |error: io::Error| ImageError::new(place.display(), error);
        // Others may not look into it: images have programs that are setuid.
        match DirBuilder::new().mode(0o700).create(&place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made.map_err(|error| ImageError::new(all.display(), format!("images are unpacked there: {error}")))?
            }
        }
        check(&place, ids)?;
        let lock = match open_lock(&place.join("lock")) {
            // Somebody has removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(at_place)?,
        };
        // The kernel has released the lock of a process that was killed.
        let lock = Locked::new(lock, libc::LOCK_EX).map_err(|(_, errno)| at_place(errno.into()))?;
        if !is_still(&lock, &place.join("lock")) {
            continue;
        }
        let mut lost = Lost::default();
        if !place.join(CONFIG).exists() {
            sweep(&all, &place, &name_of(source, owners));
            fs::write(place.join("source"), name_of(source, owners)).map_err(at_place)?;
            lost = unpack(source, version.digest.as_deref(), owners, &place)?;
            // What was unpacked may be a mixture of two versions.
            if Version::of(source)?.name != version.name {
                fs::remove_file(place.join(CONFIG)).map_err(at_place)?;
                continue;
            }
        }
        // Who removes an image has locked both.
        let used = open_lock(&place.join("used")).map_err(at_place)?;
        let used = Locked::new(used, libc::LOCK_SH).map_err(|(_, errno)| at_place(errno.into()))?;
        let unpacked = Unpacked::read(&place).map_err(at_place)?;
        return Ok(Image { directory: place, unpacked, lost, are_noted: AtomicBool::new(false), _used: used });
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// A version of an image.
struct Version {
    /// The digest of its manifest. For an archive: device, inode, size, and the time of the last change.
    name: String,
    /// The digest, if it has one.
    digest: Option<String>,
}

impl Version {
    fn of(source: &Source) -> Result<Self, ImageError> {
        let path = source.path();
        let metadata = fs::metadata(path).map_err(ImageError::at(path.display()))?;
        match source {
            Source::Layout { directory, tag } => {
                if !directory.join("oci-layout").exists() {
                    return Err(ImageError::new(
                        path.display(),
                        "this is no image layout of OCI: it has no file `oci-layout`",
                    ));
                }
                let digest = manifest::digest(&Files::Directory(directory.clone()), tag.as_deref())?;
                Ok(Self { name: digest.replace(':', "-"), digest: Some(digest) })
            }
            Source::Archive(_) if !metadata.is_file() => Err(ImageError::new(
                path.display(),
                "this is no file: a path that ends like that of an archive must be one",
            )),
            Source::Archive(_) => {
                let (changed, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
                let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.len());
                Ok(Self { name: format!("file-{device:x}-{inode}-{size}-{changed}.{nanoseconds:09}"), digest: None })
            }
        }
    }
}

/// The end of a directory's name: who owns its files.
fn suffix(owners: Owners) -> String {
    match owners {
        Owners::Root | Owners::Image(Ids::One) => "root".to_owned(),
        Owners::Image(Ids::Range(count)) => count.to_string(),
        Owners::Image(Ids::Host) => "host".to_owned(),
    }
}

/// What `source` holds: the image and the owners, without the version.
fn name_of(source: &Source, owners: Owners) -> String {
    format!("{source:?} {}", suffix(owners))
}

fn directory_of_all() -> Result<PathBuf, ImageError> {
    let binary = env::current_exe().map_err(ImageError::at("the path of this test binary"))?;
    let all = target_of(&binary).unwrap_or_default().join(IMAGES);
    let why = |error| ImageError::new(all.display(), format!("images are unpacked there: {error}"));
    fs::create_dir_all(&all).map_err(why)?;
    Ok(all)
}

/// Whether `place` can hold an image: it is this user's, and root of a sandbox gets there.
fn check(place: &Path, ids: Ids) -> Result<(), ImageError> {
    let metadata = match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(ImageError::at(place.display()))?,
    };
    if !metadata.is_dir() || metadata.uid() != sys::geteuid().as_raw() {
        return Err(ImageError::new(
            place.display(),
            "images are unpacked there, and it is no directory of this user: remove it",
        ));
    }
    if let Some((closed, _)) = closed_above(&place.join(TREE), ids) {
        let why = format!("images are unpacked there, and root of a sandbox can't enter `{}`", closed.display());
        return Err(ImageError::new(place.display(), why));
    }
    Ok(())
}

/// Whether `file` is what is at `path`.
fn is_still(file: &File, path: &Path) -> bool {
    let same = |path: fs::Metadata, file: fs::Metadata| (path.dev(), path.ino()) == (file.dev(), file.ino());
    fs::symlink_metadata(path).is_ok_and(|path| file.metadata().is_ok_and(|file| same(path, file)))
}

/// Removes other versions of the image `name` that nobody uses, and what nobody has finished to remove.
fn sweep(all: &Path, place: &Path, name: &str) {
    let Ok(directory) = File::open(all).map(OwnedFd::from) else { return };
    for other in
        fs::read_dir(all).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|other| other != place)
    {
        let Some(file_name) = other.file_name().map(Path::new) else { continue };
        let is_own = |metadata: fs::Metadata| metadata.is_dir() && metadata.uid() == sys::geteuid().as_raw();
        if !fs::symlink_metadata(&other).is_ok_and(is_own) {
            continue;
        }
        if file_name.to_string_lossy().starts_with(GONE) {
            remove(&directory, file_name);
            continue;
        }
        // Whoever was killed may not have said what it was to be.
        if text_of(other.join("source")).is_ok_and(|source| source != name) {
            continue;
        }
        let is_free = |name| {
            let lock = open_lock(&other.join(name)).ok()?;
            Locked::new(lock, libc::LOCK_EX | libc::LOCK_NB).ok()
        };
        let (Some(_lock), Some(_used)) = (is_free("lock"), is_free("used")) else { continue };
        let gone = other.with_file_name(format!("{GONE}{}", file_name.display()));
        if fs::rename(&other, &gone).is_ok() {
            remove(&directory, Path::new(gone.file_name().unwrap_or_default()));
        }
    }
}
