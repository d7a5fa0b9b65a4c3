//! Unpacks the layers of an image, each over the one before. Some entries only say that a file of a lower layer is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use tar::{Archive, Entry, EntryType};

use super::archive::Ending;
use super::error::ImageError;
use super::tree::{Resolved, Tree};
use crate::rootfs::unpacked::Owned;
use crate::spec::Ids;
use crate::sys;

/// The prefix of a whiteout: the rest of the name is a file of lower layers that is gone.
const WHITEOUT: &[u8] = b".wh.";

/// The name of an opaque whiteout: all is gone that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The prefix of extended attributes in the extended header of an entry.
const ATTRIBUTE: &str = "SCHILY.xattr.";

/// The prefix of what an extended header says of a sparse file, in a format that the reader of archives does not know.
const SPARSE: &str = "GNU.sparse.";

/// The prefix of attributes that overlayfs reads.
const OF_OVERLAYS: &str = "user.overlay.";

/// Who the files belong to in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// All to whoever unpacks them.
    Root,
    /// To the same as in the image, as far as the sandboxes have those; others to root.
    Image(Ids),
}

/// What an image has and its tree has not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lost {
    /// Device nodes.
    pub(crate) devices: usize,
    /// Files that became root's.
    pub(crate) owners: usize,
    /// How many ids it would have taken to keep their owners.
    pub(crate) needed: u32,
}

/// A tree that is being filled.
pub(super) struct Filling<'t> {
    tree: &'t Tree,
    owners: Owners,
    /// The modes and times that directories get when all is there, by their paths.
    directories: BTreeMap<PathBuf, (u32, Option<i64>)>,
    /// Files that are root's in the tree, and somebody else's in the image.
    owned: BTreeMap<PathBuf, Owned>,
    /// Device nodes, which are left out.
    devices: BTreeSet<PathBuf>,
    lost: Lost,
}

/// The paths of the layer that is being unpacked, and the directories that they are in.
type OfLayer = BTreeSet<PathBuf>;

/// A layer, or the archive of a tree: in that, no name says that something is gone.
type Layer<'l> = Option<&'l mut OfLayer>;

impl<'t> Filling<'t> {
    pub(super) fn new(tree: &'t Tree, owners: Owners) -> Self {
        let (directories, owned) = (BTreeMap::from([(PathBuf::new(), (0o755, None))]), BTreeMap::new());
        Self { tree, owners, directories, owned, devices: BTreeSet::new(), lost: Lost::default() }
    }

    /// Unpacks what `source` reads, which is called `what`. In a layer of an image, some names say that something is gone. Fails with the entry, or
    /// with `what` where no entry can be read.
    pub(super) fn unpack(&mut self, source: impl Read, what: impl Display, is_layer: bool) -> Result<(), ImageError> {
        let mut of_layer = OfLayer::new();
        let mut archive = Archive::new(Ending::new(source));
        // One block of zeros is no end yet, and what follows two must be zeros too.
        archive.set_ignore_zeros(true);
        for entry in archive.entries().map_err(ImageError::at(&what))? {
            let mut entry = entry.map_err(ImageError::at(&what))?;
            let path = entry.path().map_err(ImageError::at(&what))?.into_owned();
            self.add(&mut entry, &path, is_layer.then_some(&mut of_layer)).map_err(ImageError::at(path.display()))?;
        }
        archive.into_inner().finish().map_err(ImageError::at(&what))
    }

    fn add(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path, of_layer: Layer<'_>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let attributes = attributes(entry)?;
        if let Some(of_layer) = of_layer {
            if let Some(whiteout) = whiteout(path) {
                return match self.tree.resolve(path, false) {
                    // Where nothing is, nothing is to go.
                    Err(error) if is_missing(&error) => Ok(()),
                    resolved => self.white_out(&resolved?, whiteout, of_layer),
                };
            }
            let resolved = self.tree.resolve(path, true)?;
            of_layer.extend(resolved.path.ancestors().map(Path::to_path_buf));
            return self.make(entry, kind, &resolved, &attributes);
        }
        let resolved = self.tree.resolve(path, true)?;
        self.make(entry, kind, &resolved, &attributes)
    }

    fn white_out(&mut self, resolved: &Resolved, whiteout: Whiteout<'_>, of_layer: &OfLayer) -> io::Result<()> {
        match whiteout {
            Whiteout::All => self.remove_below(resolved.path.parent().unwrap_or(Path::new("")), of_layer),
            Whiteout::One(name) => self.remove_lower(&resolved.path.with_file_name(name), of_layer),
        }
    }

    fn make(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        kind: EntryType,
        resolved: &Resolved,
        attributes: &[(String, Vec<u8>)],
    ) -> io::Result<()> {
        for above in resolved.path.ancestors().skip(1) {
            self.directories.entry(above.into()).or_insert((0o755, None));
        }
        if resolved.is_root() && !kind.is_dir() {
            return Err(io::Error::other("the root of an image is a directory"));
        }
        if matches!(kind, EntryType::Link) {
            return self.make_hard_link(entry, resolved);
        }
        if !(kind.is_dir() && resolved.is_directory()?) {
            self.clear(resolved)?;
        }
        let mode = entry.header().mode()? & 0o7777;
        let file = match kind {
            EntryType::Directory => {
                if !resolved.is_directory()? {
                    resolved.make_directory()?;
                }
                self.directories.insert(resolved.path.clone(), (mode, time(entry)));
                (!attributes.is_empty()).then(|| resolved.open_directory()).transpose()?
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = resolved.make_file()?;
                io::copy(entry, &mut file)?;
                Some(file)
            }
            EntryType::Symlink => {
                resolved.make_link(&entry.link_name()?.ok_or(Errno::EINVAL)?)?;
                None
            }
            EntryType::Fifo => {
                resolved.make_fifo()?;
                None
            }
            EntryType::Char | EntryType::Block => {
                self.devices.insert(resolved.path.clone());
                self.lost.devices += 1;
                return Ok(());
            }
            other => return Err(io::Error::other(format!("belljar can't unpack an entry of the type {other:?}"))),
        };
        for (name, value) in attributes {
            match file.as_ref().map_or(Ok(()), |file| sys::set_attribute(file, name, value)) {
                // The file system has none.
                Err(Errno::EOPNOTSUPP) => {}
                set => set?,
            }
        }
        self.set_owner(entry, kind, resolved)?;
        if !kind.is_symlink() && !kind.is_dir() {
            resolved.set_mode(mode)?;
        }
        if let Some(time) = time(entry).filter(|_| !kind.is_dir()) {
            resolved.set_time(time)?;
        }
        Ok(())
    }

    fn make_hard_link(&mut self, entry: &Entry<'_, impl Read>, resolved: &Resolved) -> io::Result<()> {
        let target = entry.link_name()?.ok_or(Errno::EINVAL)?.into_owned();
        let named = |error: io::Error| io::Error::other(format!("its target `{}`: {error}", target.display()));
        let other = self.tree.resolve(&target, false).map_err(named)?;
        if self.devices.contains(&other.path) {
            self.devices.insert(resolved.path.clone());
            self.lost.devices += 1;
            return self.clear(resolved);
        }
        if other.stat()?.is_none() {
            return Err(named(Errno::ENOENT.into()));
        }
        if other.path == resolved.path {
            return Ok(());
        }
        self.clear(resolved)?;
        resolved.make_hard_link(&other)?;
        if let Some(owned) = self.owned.get(&other.path).cloned() {
            let path = Path::new("/").join(&resolved.path);
            self.owned.insert(resolved.path.clone(), Owned { path, ..owned });
        }
        Ok(())
    }

    fn set_owner(&mut self, entry: &Entry<'_, impl Read>, kind: EntryType, resolved: &Resolved) -> io::Result<()> {
        let id =
            |id: u64| u32::try_from(id).map_err(|_| io::Error::other(format!("there can be no user or group {id}")));
        let owner = (id(entry.header().uid()?)?, id(entry.header().gid()?)?);
        match self.owners {
            Owners::Root if owner == (0, 0) => drop(self.owned.remove(&resolved.path)),
            Owners::Root if kind.is_symlink() => {}
            Owners::Root => {
                let kind = if kind.is_dir() { libc::S_IFDIR } else { libc::S_IFREG };
                let mode = kind | entry.header().mode()? & 0o7777;
                let path = Path::new("/").join(&resolved.path);
                self.owned.insert(resolved.path.clone(), Owned { path, owner, mode });
            }
            Owners::Image(ids) if ids.has(owner) => resolved.set_owner(owner)?,
            Owners::Image(_) => {
                self.lost.owners += 1;
                self.lost.needed = self.lost.needed.max(owner.0.max(owner.1).saturating_add(1));
                resolved.set_owner((0, 0))?;
            }
        }
        Ok(())
    }

    /// Removes what is there, and what is known of it.
    fn clear(&mut self, resolved: &Resolved) -> io::Result<()> {
        self.devices.remove(&resolved.path);
        if resolved.stat()?.is_some() {
            resolved.clear()?;
            forget(&mut self.directories, &resolved.path);
            forget(&mut self.owned, &resolved.path);
        }
        Ok(())
    }

    /// Removes what lower layers have at `path`. What this layer itself has stays: the order of its entries makes no difference.
    fn remove_lower(&mut self, path: &Path, of_layer: &OfLayer) -> io::Result<()> {
        if of_layer.contains(path) {
            return self.remove_below(path, of_layer);
        }
        match self.tree.resolve(path, false) {
            Err(error) if is_missing(&error) => Ok(()),
            resolved => self.clear(&resolved?),
        }
    }

    /// Removes what lower layers have in the directory `path`.
    fn remove_below(&mut self, path: &Path, of_layer: &OfLayer) -> io::Result<()> {
        let resolved = self.tree.resolve(path, false)?;
        if !resolved.is_directory()? {
            return Ok(());
        }
        resolved.names()?.into_iter().try_for_each(|name| self.remove_lower(&path.join(name), of_layer))
    }

    /// Gives the directories their modes and times. Returns the files whose owners are others in the image, and what is lost.
    pub(super) fn finish(self) -> Result<(Vec<Owned>, Lost), ImageError> {
        for (path, (mode, time)) in self.directories.into_iter().rev() {
            let finished = match self.tree.resolve(&path, false) {
                Ok(resolved) => finish(&resolved, mode, time).map_err(Into::into),
                // A later entry has replaced a directory above it.
                Err(error) if is_missing(&error) => Ok(()),
                Err(error) => Err(error),
            };
            finished.map_err(ImageError::at(path.display()))?;
        }
        Ok((self.owned.into_values().collect(), self.lost))
    }
}

/// What a name says is gone.
#[derive(Clone, Copy)]
enum Whiteout<'n> {
    /// All that lower layers have in its directory.
    All,
    /// What has this name there.
    One(&'n OsStr),
}

/// What the path of an entry says is gone, if it is no file.
fn whiteout(path: &Path) -> Option<Whiteout<'_>> {
    let name = path.file_name()?.as_bytes();
    if name == OPAQUE {
        return Some(Whiteout::All);
    }
    let name = name.strip_prefix(WHITEOUT).filter(|name| !name.is_empty())?;
    Some(Whiteout::One(OsStr::from_bytes(name)))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

/// Removes what is known of a path, and of those below it.
fn forget<T>(known: &mut BTreeMap<PathBuf, T>, path: &Path) {
    let below = known.range(path.to_path_buf()..).map(|(other, _)| other).take_while(|other| other.starts_with(path));
    for path in below.cloned().collect::<Vec<_>>() {
        known.remove(&path);
    }
}

fn finish(directory: &Resolved, mode: u32, time: Option<i64>) -> nix::Result<()> {
    if !directory.is_directory()? {
        return Ok(());
    }
    directory.set_mode(mode)?;
    time.map_or(Ok(()), |time| directory.set_time(time))
}

/// When the entry was changed, in seconds since 1970.
fn time(entry: &Entry<'_, impl Read>) -> Option<i64> {
    entry.header().mtime().ok().and_then(|time| i64::try_from(time).ok())
}

/// The attributes of users that an entry has.
fn attributes(entry: &mut Entry<'_, impl Read>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut attributes = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        // Also where one can't be read that would not matter: names are among them.
        let extension = extension?;
        let key = extension.key().unwrap_or_default();
        if key.starts_with(SPARSE) {
            return Err(io::Error::other("sparse files are read of archives that `tar --format=gnu` has written"));
        }
        let name = key.strip_prefix(ATTRIBUTE);
        if let Some(name) = name.filter(|name| name.starts_with("user.") && !name.starts_with(OF_OVERLAYS)) {
            attributes.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(attributes)
}
