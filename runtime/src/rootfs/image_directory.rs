//! The directory that an image has been unpacked to.
//!
//! | name | what |
//! | --- | --- |
//! | `tree` | the files |
//! | `config` | the rest, as [`Unpacked`] has it. It appears when all is done |

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use super::unpacked::{Owned, Unpacked};
use crate::collect::CollectVec as _;

/// The name of the directory that the files lie in.
pub(crate) const TREE: &str = "tree";

/// The name of the file in which the rest is written.
pub(crate) const CONFIG: &str = "config";

/// The last word of a configuration that is whole.
const END: &[u8] = b"end";

impl Unpacked {
    /// What was unpacked to `directory`.
    pub(crate) fn read(directory: &Path) -> io::Result<Self> {
        let text = fs::read(directory.join(CONFIG))?;
        let mut unpacked = Self::decode(&text).ok_or(io::ErrorKind::InvalidData)?;
        unpacked.tree = directory.join(TREE);
        Ok(unpacked)
    }

    /// All but the tree: words, each of which a NUL ends.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { tree: _, env, working_directory, user, home, owned } = self;
        let mut words: Vec<Vec<u8>> = Vec::new();
        for (name, value) in env {
            words.extend([b"env".to_vec(), name.clone().into(), value.clone().into()]);
        }
        if let Some(directory) = working_directory {
            words.extend([b"directory".to_vec(), directory.clone().into()]);
        }
        if let Some((uid, gid)) = user {
            words.extend([b"user".to_vec(), uid.to_string().into(), gid.to_string().into()]);
        }
        if let Some(home) = home {
            words.extend([b"home".to_vec(), home.clone().into()]);
        }
        for Owned { path, owner: (uid, gid), mode } in owned {
            words.push(b"owned".to_vec());
            for number in [uid, gid, mode] {
                words.push(number.to_string().into());
            }
            words.push(path.as_os_str().as_bytes().to_vec());
        }
        words.push(END.to_vec());
        words.into_iter().flat_map(|word| word.into_iter().chain([0])).collect_vec()
    }

    fn decode(text: &[u8]) -> Option<Self> {
        let mut unpacked = Self::default();
        let mut words = text.split_inclusive(|byte| *byte == 0).map(|word| word.strip_suffix(&[0]));
        while let Some(word) = words.next() {
            let mut next = || words.next().flatten();
            match word? {
                b"env" => unpacked.env.push((string(next()?)?, string(next()?)?)),
                b"directory" => unpacked.working_directory = Some(string(next()?)?),
                b"user" => unpacked.user = Some((number(next()?)?, number(next()?)?)),
                b"home" => unpacked.home = Some(string(next()?)?),
                b"owned" => {
                    let (owner, mode) = ((number(next()?)?, number(next()?)?), number(next()?)?);
                    let path = PathBuf::from(OsString::from_vec(next()?.to_vec()));
                    // It is to lead to nothing but the tree.
                    if !path.is_absolute() || path.components().any(|component| component == Component::ParentDir) {
                        return None;
                    }
                    unpacked.owned.push(Owned { path, owner, mode });
                }
                END => return words.next().is_none().then_some(unpacked),
                _ => return None,
            }
        }
        None
    }
}

fn string(word: &[u8]) -> Option<String> {
    String::from_utf8(word.to_vec()).ok()
}

fn number(word: &[u8]) -> Option<u32> {
    OsStr::from_bytes(word).to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let owned = vec![Owned { path: "/a\nb".into(), owner: (1, 2), mode: 0o100_644 }];
        let env = vec![("A".into(), "b=c\n".into()), ("B".into(), String::new())];
        let (tree, working_directory, user) = (PathBuf::new(), Some("/srv".into()), Some((7, 8)));
        let unpacked = Unpacked { tree, env, working_directory, user, home: Some("/home".into()), owned };
        let text = unpacked.encode();
        assert_eq!(Unpacked::decode(&text), Some(unpacked));
        assert_eq!(Unpacked::decode(&Unpacked::default().encode()), Some(Unpacked::default()));
        // A part of it is refused.
        for length in 0..text.len() {
            assert_eq!(Unpacked::decode(&text[..length]), None);
        }
        for bad in [&b"other\0end\0"[..], b"end\0end\0", b"owned\x001\x001\x001\0/a/../../b\0end\0"] {
            assert_eq!(Unpacked::decode(bad), None);
        }
    }
}
