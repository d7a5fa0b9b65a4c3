//! The directories that a case has for itself: copies on a tmpfs, mounted over the originals. And what a power cut leaves of them.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, mknod};

use crate::faults::{ActiveFault, Fault, FaultError, KEPT, kept_name};
use crate::rootfs::paths::c_string;
use crate::text::plain;

const NONE: Option<&CStr> = None;

/// A file, whatever its name is: its device and its inode.
type Id = (u64, u64);

/// Copies of directories, which are in their places in a mount namespace of this process.
pub(super) struct State {
    copies: Vec<PathBuf>,
    /// Where the original of each file is, by the copy.
    originals: HashMap<Id, PathBuf>,
    /// Keeps the originals open, which the copies hide.
    _hidden: Vec<File>,
}

impl State {
    /// Moves this process to a mount namespace of its own, in which each of these directories is a copy.
    pub(super) fn copy(directories: &[PathBuf]) -> io::Result<Self> {
        let here = std::env::current_dir();
        unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| trouble("no mount namespace can be had", errno.into()))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NONE, c"/", NONE, private, NONE)
            .map_err(|errno| trouble("the mount namespace can't be made private", errno.into()))?;
        let mut state = Self { copies: Vec::new(), originals: HashMap::new(), _hidden: Vec::new() };
        for directory in directories {
            state
                .add(directory)
                .map_err(|error| trouble(&format!("{} can't be copied", plain(directory.display())), error))?;
        }
        if let Ok(here) = here {
            // What was the working directory may be hidden now.
            std::env::set_current_dir(here)?;
        }
        Ok(state)
    }

    fn add(&mut self, directory: &Path) -> io::Result<()> {
        let original = File::open(directory)?;
        mount(Some(c"tmpfs"), &*c_string(directory), Some(c"tmpfs"), MsFlags::empty(), NONE)?;
        let from = PathBuf::from(format!("/proc/self/fd/{}", original.as_raw_fd()));
        let meta = original.metadata()?;
        let mut links = HashMap::new();
        self.fill(&from, directory, &mut links)?;
        copy_metadata(directory, &meta)?;
        self.copies.push(directory.to_path_buf());
        self._hidden.push(original);
        Ok(())
    }

    /// Copies what is in one directory to another. `links` has the copies of files that have several names.
    fn fill(&mut self, from: &Path, to: &Path, links: &mut HashMap<Id, PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (source, copy) = (entry.path(), to.join(entry.file_name()));
            let meta = fs::symlink_metadata(&source)?;
            let kind = meta.file_type();
            if meta.nlink() > 1 && !kind.is_dir() {
                if let Some(first) = links.get(&id(&meta)) {
                    fs::hard_link(first, &copy)?;
                    continue;
                }
                links.insert(id(&meta), copy.clone());
            }
            if kind.is_dir() {
                fs::DirBuilder::new().mode(0o700).create(&copy)?;
                self.fill(&source, &copy, links)?;
            } else if kind.is_symlink() {
                symlink(fs::read_link(&source)?, &copy)?;
                lchown(&copy, Some(meta.uid()), Some(meta.gid()))?;
                continue;
            } else if kind.is_file() {
                fs::copy(&source, &copy)?;
                self.originals.insert(id(&fs::symlink_metadata(&copy)?), source);
            } else {
                let kind = if kind.is_fifo() {
                    SFlag::S_IFIFO
                } else {
                    SFlag::from_bits_truncate(meta.mode()) & SFlag::S_IFMT
                };
                mknod(&*c_string(&copy), kind, Mode::from_bits_truncate(0o600), meta.rdev())?;
            }
            copy_metadata(&copy, &meta)?;
        }
        Ok(())
    }

    /// Takes from each file what was written to it after it was last synced, as a power cut may. A file that was never synced has its original's
    /// content; if it is new, it is empty. None is longer than it is now.
    pub(super) fn cut_power(&self, synced: &Synced) -> io::Result<()> {
        self.copies.iter().try_for_each(|copy| self.cut_below(copy, synced))
    }

    fn cut_below(&self, directory: &Path, synced: &Synced) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                self.cut_below(&path, synced)?;
            } else if meta.is_file() {
                let durable = synced.of(id(&meta)).or_else(|| self.originals.get(&id(&meta)).cloned());
                let mut file = OpenOptions::new().write(true).truncate(true).open(&path)?;
                if let Some(durable) = durable {
                    io::copy(&mut File::open(durable)?.take(meta.len()), &mut file)?;
                }
                file.set_times(FileTimes::new().set_accessed(meta.accessed()?).set_modified(meta.modified()?))?;
            }
        }
        Ok(())
    }
}

/// What was synced, by file: contents in a directory of this case's own.
pub(super) struct Synced;

impl Synced {
    /// Is to be called in the mount namespace of a [`State`].
    pub(super) fn new() -> io::Result<Self> {
        mount(Some(c"tmpfs"), &*c_string(&kept()), Some(c"tmpfs"), MsFlags::empty(), Some(c"mode=700"))
            .map_err(|errno| trouble("no place for what is synced can be had", errno.into()))?;
        Ok(Self)
    }

    /// Has synced contents kept from now on.
    pub(super) fn start(&self) -> Result<ActiveFault, FaultError> {
        Fault::keeping().start()
    }

    /// Where the synced content of a file is, if it was ever synced.
    fn of(&self, (device, inode): Id) -> Option<PathBuf> {
        let path = kept().join(kept_name(device, inode));
        path.exists().then_some(path)
    }
}

/// Where what is synced is kept.
fn kept() -> PathBuf {
    Path::new("/").join(KEPT[0]).join(KEPT[1])
}

fn id(meta: &fs::Metadata) -> Id {
    (meta.dev(), meta.ino())
}

/// Gives a copy the owner, mode and times of its original.
fn copy_metadata(copy: &Path, meta: &fs::Metadata) -> io::Result<()> {
    lchown(copy, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(copy, meta.permissions())?;
    if meta.is_file() || meta.is_dir() {
        let times = FileTimes::new().set_accessed(meta.accessed()?).set_modified(meta.modified()?);
        File::open(copy)?.set_times(times)?;
    }
    Ok(())
}

fn trouble(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
