//! Unpacks an image: its layers, or the one archive of a tree.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::unistd::syncfs;

use super::archive::{self, Files};
use super::error::ImageError;
use super::layer::{Filling, Lost, Owners};
use super::manifest::{self, Layer, Manifest, ProcessConfig};
use super::process;
use super::source::Source;
use super::tree::Tree;
use crate::rootfs::image_directory::{CONFIG, TREE};
use crate::rootfs::left::remove;
use crate::rootfs::unpacked::Unpacked;

/// Unpacks an image to `place`, which may hold the rest of an unpacking that was killed. `digest` is the manifest's, for a layout of OCI.
/// Returns what was lost. If it fails, it leaves nothing.
pub(super) fn unpack(source: &Source, digest: Option<&str>, owners: Owners, place: &Path) -> Result<Lost, ImageError> {
    let at_place = |error: io::Error| ImageError::new(place.display(), error);
    let directory = File::open(place).map(OwnedFd::from).map_err(at_place)?;
    let clear = || remove(&directory, Path::new(TREE));
    clear();
    let unpacked = unpack_tree(source, digest, owners, place).inspect_err(|_| clear())?;
    // The files reach the disk before `config` does: when the machine has lost power, that never stands for files that are lost.
    syncfs(&directory).map_err(|errno| at_place(errno.into()))?;
    let (new, (unpacked, lost)) = (place.join("config-new"), unpacked);
    fs::write(&new, unpacked.encode()).and_then(|()| fs::rename(new, place.join(CONFIG))).map_err(at_place)?;
    Ok(lost)
}

fn unpack_tree(
    source: &Source,
    digest: Option<&str>,
    owners: Owners,
    place: &Path,
) -> Result<(Unpacked, Lost), ImageError> {
    let at_place = |error: io::Error| ImageError::new(place.display(), error);
    let path = place.join(TREE);
    fs::create_dir(&path).map_err(at_place)?;
    fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(at_place)?;
    let tree = Tree::open(&path).map_err(|errno| at_place(errno.into()))?;
    let mut filling = Filling::new(&tree, owners);
    let of_image = fill(&mut filling, source, digest, place)?;
    let (owned, lost) = filling.finish()?;
    Ok((process::described(&of_image, &tree, owned)?, lost))
}

/// Unpacks all that the image has. Returns what it says of its processes.
fn fill(
    filling: &mut Filling<'_>,
    source: &Source,
    digest: Option<&str>,
    place: &Path,
) -> Result<ProcessConfig, ImageError> {
    if let (Source::Layout { directory, .. }, Some(digest)) = (source, digest) {
        let files = Files::Directory(directory.clone());
        return unpack_layers(filling, &files, manifest::of_digest(&files, digest)?);
    }
    let path = source.path();
    let at_source = |error: io::Error| ImageError::new(path.display(), error);
    let mut file = File::open(path).and_then(|file| archive::seekable(file, place)).map_err(at_source)?;
    let files = Files::of_archive(file.try_clone().map_err(at_source)?).map_err(at_source)?;
    if let Some(manifest) = manifest::of_archive(&files)? {
        return unpack_layers(filling, &files, manifest);
    }
    file.rewind().map_err(at_source)?;
    filling.unpack(BufReader::new(file), path.display(), false)?;
    Ok(ProcessConfig::default())
}

fn unpack_layers(filling: &mut Filling<'_>, files: &Files, manifest: Manifest) -> Result<ProcessConfig, ImageError> {
    for Layer { name, size } in &manifest.layers {
        let found = files.size(name)?;
        if let Some(size) = size.filter(|size| *size != found) {
            let why = format!("it has {found} bytes, and by the manifest {size}: it is not whole");
            return Err(ImageError::new(name, why));
        }
        let source = archive::decompressed(files.open(name)?).map_err(ImageError::at(name))?;
        filling.unpack(source, name, true)?;
    }
    Ok(manifest.process)
}
