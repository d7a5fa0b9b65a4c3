//! Unpacks the layers of an image, each over the one before. Some entries only say that a file of a lower layer is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use tar::{Archive, Entry, EntryType};

use super::tree::{Place, Tree};
use super::trouble::Trouble;
use crate::rootfs::unpacked::Owned;
use crate::spec::Ids;
use crate::sys;

/// The prefix of a whiteout: the rest of the name is a file of lower layers that is gone.
const WHITEOUT: &[u8] = b".wh.";

/// The name of an opaque whiteout: all is gone that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The prefix of extended attributes in the extended header of an entry.
const ATTRIBUTE: &str = "SCHILY.xattr.";

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

/// A tree that is being filled.
pub(super) struct Filling<'t> {
    tree: &'t Tree,
    owners: Owners,
    /// The modes and times that directories get when all is there, by their paths.
    directories: BTreeMap<PathBuf, (u32, Option<i64>)>,
    /// Files that are root's in the tree, and somebody else's in the image.
    owned: BTreeMap<PathBuf, Owned>,
    /// Device nodes, which are left out.
    pub(super) devices: u32,
}

/// The paths of the layer that is being unpacked, and the directories that they are in.
type OfLayer = BTreeSet<PathBuf>;

impl<'t> Filling<'t> {
    pub(super) fn new(tree: &'t Tree, owners: Owners) -> Self {
        let directories = BTreeMap::from([(PathBuf::new(), (0o755, None))]);
        Self { tree, owners, directories, owned: BTreeMap::new(), devices: 0 }
    }

    /// Unpacks what `source` reads, which is called `what`. In a layer of an image, some names say that something is gone. Fails with the entry, or
    /// with `what` where no entry can be read.
    pub(super) fn unpack(&mut self, source: impl Read, what: impl Display, is_layer: bool) -> Result<(), Trouble> {
        let mut of_layer = OfLayer::new();
        let mut archive = Archive::new(source);
        for entry in archive.entries().map_err(Trouble::at(&what))? {
            let mut entry = entry.map_err(Trouble::at(&what))?;
            let path = entry.path().map_err(Trouble::at(&what))?.into_owned();
            self.add(&mut entry, &path, is_layer.then_some(&mut of_layer)).map_err(Trouble::at(path.display()))?;
        }
        Ok(())
    }

    fn add(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path, of_layer: Option<&mut OfLayer>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let Some(place) = self.tree.place(path, true)? else {
            // The root itself.
            self.directories.insert(PathBuf::new(), (entry.header().mode()? & 0o7777, time(entry)));
            return Ok(());
        };
        for above in place.path.ancestors().skip(1) {
            self.directories.entry(above.into()).or_insert((0o755, None));
        }
        if let Some(of_layer) = of_layer {
            let name = place.path.file_name().unwrap_or_default().as_bytes();
            if name == OPAQUE {
                return self.remove_below(place.path.parent().unwrap_or(Path::new("")), of_layer);
            }
            if let Some(name) = name.strip_prefix(WHITEOUT).filter(|name| !name.is_empty()) {
                return self.remove_lower(&place.path.with_file_name(OsStr::from_bytes(name)), of_layer);
            }
            of_layer.extend(place.path.ancestors().map(Path::to_path_buf));
        }
        self.make(entry, kind, &place)
    }

    fn make(&mut self, entry: &mut Entry<'_, impl Read>, kind: EntryType, place: &Place) -> io::Result<()> {
        let other = match kind {
            EntryType::Link => {
                let target = entry.link_name()?.ok_or(Errno::EINVAL)?.into_owned();
                let named = |error: io::Error| io::Error::other(format!("its target `{}`: {error}", target.display()));
                let other = self.tree.place(&target, false).map_err(named)?.ok_or(Errno::EISDIR)?;
                if other.stat()?.is_none() {
                    return Err(named(Errno::ENOENT.into()));
                }
                if other.path == place.path {
                    return Ok(());
                }
                Some(other)
            }
            _ => None,
        };
        if !(kind.is_dir() && place.is_directory()?) {
            self.clear(place)?;
        }
        match kind {
            EntryType::Directory => {
                if !place.is_directory()? {
                    place.make_directory()?;
                }
                self.directories.insert(place.path.clone(), (entry.header().mode()? & 0o7777, time(entry)));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let attributes = attributes(entry)?;
                let mut file = place.make_file()?;
                io::copy(entry, &mut file)?;
                for (name, value) in attributes {
                    match sys::set_attribute(&file, &name, &value) {
                        // The file system has none.
                        Err(Errno::EOPNOTSUPP) => {}
                        set => set?,
                    }
                }
            }
            EntryType::Symlink => place.make_link(&entry.link_name()?.ok_or(Errno::EINVAL)?)?,
            EntryType::Link => {
                if let Some(other) = other {
                    place.make_hard_link(&other)?;
                    if let Some(owned) = self.owned.get(&other.path).cloned() {
                        let path = Path::new("/").join(&place.path);
                        self.owned.insert(place.path.clone(), Owned { path, ..owned });
                    }
                }
                return Ok(());
            }
            EntryType::Fifo => place.make_fifo()?,
            EntryType::Char | EntryType::Block => {
                self.devices += 1;
                return Ok(());
            }
            other => return Err(io::Error::other(format!("belljar can't unpack an entry of the type {other:?}"))),
        }
        self.set_owner(entry, kind, place)?;
        if !kind.is_symlink() && !kind.is_dir() {
            place.set_mode(entry.header().mode()? & 0o7777)?;
        }
        if let Some(time) = time(entry).filter(|_| !kind.is_dir()) {
            place.set_time(time)?;
        }
        Ok(())
    }

    fn set_owner(&mut self, entry: &Entry<'_, impl Read>, kind: EntryType, place: &Place) -> io::Result<()> {
        let id =
            |id: u64| u32::try_from(id).map_err(|_| io::Error::other(format!("there can be no user or group {id}")));
        let owner = (id(entry.header().uid()?)?, id(entry.header().gid()?)?);
        match self.owners {
            Owners::Root if owner == (0, 0) || kind.is_symlink() => {}
            Owners::Root => {
                let kind = if kind.is_dir() { libc::S_IFDIR } else { libc::S_IFREG };
                let mode = kind | entry.header().mode()? & 0o7777;
                let path = Path::new("/").join(&place.path);
                self.owned.insert(place.path.clone(), Owned { path, owner, mode });
            }
            Owners::Image(ids) => {
                let has = |id: u32| match ids {
                    Ids::One => id == 0,
                    Ids::Range(count) => id < count,
                    Ids::Host => true,
                };
                place.set_owner(if has(owner.0) && has(owner.1) { owner } else { (0, 0) })?;
            }
        }
        Ok(())
    }

    /// Removes what is there, and what is known of it.
    fn clear(&mut self, place: &Place) -> io::Result<()> {
        if place.stat()?.is_some() {
            place.clear()?;
            forget(&mut self.directories, &place.path);
            forget(&mut self.owned, &place.path);
        }
        Ok(())
    }

    /// Removes what lower layers have at `path`. What this layer itself has stays: the order of its entries makes no difference.
    fn remove_lower(&mut self, path: &Path, of_layer: &OfLayer) -> io::Result<()> {
        if of_layer.contains(path) {
            return self.remove_below(path, of_layer);
        }
        match self.tree.place(path, false)? {
            Some(place) => self.clear(&place),
            None => Ok(()),
        }
    }

    /// Removes what lower layers have in the directory `path`.
    fn remove_below(&mut self, path: &Path, of_layer: &OfLayer) -> io::Result<()> {
        let names = match self.tree.place(path, false)? {
            Some(place) if !place.is_directory()? => return Ok(()),
            Some(place) => place.names()?,
            None => self.tree.names()?,
        };
        names.into_iter().try_for_each(|name| self.remove_lower(&path.join(name), of_layer))
    }

    /// Gives the directories their modes and times, and returns the files whose owners are others in the image.
    pub(super) fn finish(self) -> Result<Vec<Owned>, Trouble> {
        for (path, (mode, time)) in self.directories.into_iter().rev() {
            let finished = match self.tree.place(&path, false) {
                Ok(None) => self.tree.finish(mode, time).map_err(Into::into),
                Ok(Some(place)) => place
                    .is_directory()
                    .and_then(|is_directory| if is_directory { finish(&place, mode, time) } else { Ok(()) })
                    .map_err(Into::into),
                // A later entry has replaced a directory above it.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(()),
                Err(error) => Err(error),
            };
            finished.map_err(Trouble::at(path.display()))?;
        }
        Ok(self.owned.into_values().collect())
    }
}

/// Removes what is known of a path, and of those below it.
fn forget<T>(known: &mut BTreeMap<PathBuf, T>, path: &Path) {
    let below = known.range(path.to_path_buf()..).map(|(other, _)| other).take_while(|other| other.starts_with(path));
    for path in below.cloned().collect::<Vec<_>>() {
        known.remove(&path);
    }
}

fn finish(directory: &Place, mode: u32, time: Option<i64>) -> nix::Result<()> {
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
        let extension = extension?;
        let name = extension.key().ok().and_then(|key| key.strip_prefix(ATTRIBUTE));
        if let Some(name) = name.filter(|name| name.starts_with("user.") && !name.starts_with(OF_OVERLAYS)) {
            attributes.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(attributes)
}
