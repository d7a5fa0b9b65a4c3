//! Files that an image consists of: in a directory, or in a tar archive. Both may be compressed, by gzip(1) or zstd(1).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};

use tar::{Archive, EntryType};

use super::error::ImageError;
use crate::proc::text_in;

/// The most links that are followed to a file.
const LINKS_MAX: usize = 8;

/// The most bytes of a description, such as a manifest.
const TEXT_MAX: u64 = 16 << 20;

/// The files of an image, by their names.
pub(super) enum Files {
    Directory(PathBuf),
    Archive { file: File, members: BTreeMap<PathBuf, Member> },
}

/// A file in an archive.
pub(super) enum Member {
    File {
        /// The offset of its first byte.
        begin: u64,
        size: u64,
    },
    /// The same file as the one of this name.
    Link(PathBuf),
}

impl Files {
    /// Those in the archive `file`, which is not compressed.
    pub(super) fn of_archive(file: File) -> io::Result<Self> {
        let mut members = BTreeMap::new();
        let mut archive = Archive::new(BufReader::new(&file));
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let path = plain(&entry.path()?);
            let member = match entry.header().entry_type() {
                EntryType::Link => entry.link_name()?.map(|target| Member::Link(plain(&target))),
                EntryType::Symlink => entry.link_name()?.map(|target| {
                    let directory = path.parent().unwrap_or(Path::new(""));
                    Member::Link(plain(&directory.join(target)))
                }),
                kind if kind.is_file() => Some(Member::File { begin: entry.raw_file_position(), size: entry.size() }),
                _ => None,
            };
            members.extend(member.map(|member| (path, member)));
        }
        drop(archive);
        Ok(Self::Archive { file, members })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(directory) => directory.join(name).exists(),
            Self::Archive { members, .. } => members.contains_key(Path::new(name)),
        }
    }

    /// Whether there is what only images have.
    pub(super) fn have_layers(&self) -> bool {
        let is_layer = |path: &PathBuf| path.starts_with("blobs") || path.ends_with("layer.tar");
        match self {
            Self::Directory(directory) => directory.join("blobs").exists(),
            Self::Archive { members, .. } => members.keys().any(is_layer),
        }
    }

    /// How many bytes a file has.
    pub(super) fn size(&self, name: &str) -> Result<u64, ImageError> {
        match self {
            Self::Directory(directory) => {
                let path = directory.join(name);
                Ok(fs::metadata(&path).map_err(ImageError::at(path.display()))?.len())
            }
            Self::Archive { .. } => self.part(name).map(|part| part.end - part.at),
        }
    }

    pub(super) fn open(&self, name: &str) -> Result<Box<dyn Read + '_>, ImageError> {
        match self {
            Self::Directory(directory) => {
                let path = directory.join(name);
                Ok(Box::new(File::open(&path).map_err(ImageError::at(path.display()))?))
            }
            Self::Archive { .. } => Ok(Box::new(self.part(name)?)),
        }
    }

    /// A file in an archive. A directory has none.
    fn part(&self, name: &str) -> Result<Part<'_>, ImageError> {
        let Self::Archive { file, members } = self else { return Err(ImageError::new(name, "this is no archive")) };
        let mut name = plain(Path::new(name));
        for _ in 0..=LINKS_MAX {
            match members.get(&name) {
                Some(Member::File { begin, size }) => {
                    return Ok(Part { file, at: *begin, end: begin.saturating_add(*size) });
                }
                Some(Member::Link(target)) => name.clone_from(target),
                None => return Err(ImageError::new(name.display(), "the archive has no such file")),
            }
        }
        Err(ImageError::new(name.display(), "too many links lead to it"))
    }

    /// The text of a file.
    pub(super) fn text(&self, name: &str) -> Result<String, ImageError> {
        text_in(self.open(name)?.take(TEXT_MAX)).map_err(ImageError::at(name))
    }
}

/// A path with no `.` and no `..` left in it.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => _ = plain.pop(),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    plain
}

/// A part of a file.
struct Part<'f> {
    file: &'f File,
    at: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// What is read of an archive, and how it ended.
pub(super) struct Ending<R> {
    source: R,
    /// How many bytes there were at the end that are zero.
    zeros: u64,
}

/// The least that an archive ends with: one of the two blocks of zeros that tar(5) has there.
const BLOCK: u64 = 512;

impl<R: Read> Ending<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, zeros: 0 }
    }

    /// Reads what is left, so that checksums count. Fails if the archive was cut off, also between two files.
    pub(super) fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        if self.zeros < BLOCK {
            return Err(io::Error::other("it is cut off: an archive ends with a block of zeros"));
        }
        Ok(())
    }
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        let zeros = buffer[..read].iter().rev().take_while(|byte| **byte == 0).count();
        self.zeros = if zeros == read { self.zeros + zeros as u64 } else { zeros as u64 };
        Ok(read)
    }
}

/// How something is compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
}

/// By its first bytes: see RFC 1952 and RFC 8878.
fn compression_of(begin: &[u8]) -> Option<Compression> {
    match begin {
        [0x1f, 0x8b, ..] => Some(Compression::Gzip),
        // Decoders skip the second kind of frame. Some writers put one first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Compression::Zstd),
        _ => None,
    }
}

/// What `source` holds, decompressed if it is compressed.
pub(super) fn decompressed<'r>(source: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    let mut source = BufReader::with_capacity(128 << 10, source);
    let begin = source.fill_buf()?;
    for (name, magic) in [("xz", &b"\xfd7zXZ\0"[..]), ("bzip2", b"BZh")] {
        if begin.starts_with(magic) {
            return Err(io::Error::other(format!("it is compressed by {name}: belljar reads gzip and zstd")));
        }
    }
    Ok(match compression_of(begin) {
        Some(Compression::Gzip) => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Some(Compression::Zstd) => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
        None => Box::new(source),
    })
}

/// Returns an archive whose reader can seek. One that is compressed is decompressed to a file in `directory`, which has no name any more.
pub(super) fn seekable(mut file: File, directory: &Path) -> io::Result<File> {
    let mut begin = [0; 4];
    let length = file.read(&mut begin)?;
    file.seek(SeekFrom::Start(0))?;
    if compression_of(&begin[..length]).is_none() && !begin.starts_with(b"\xfd7z") && !begin.starts_with(b"BZh") {
        return Ok(file);
    }
    let path = directory.join("archive");
    let mut plain = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    fs::remove_file(&path)?;
    io::copy(&mut decompressed(file)?, &mut plain)?;
    plain.seek(SeekFrom::Start(0))?;
    Ok(plain)
}
