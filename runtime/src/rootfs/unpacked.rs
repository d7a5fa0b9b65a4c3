//! An image that has been unpacked to a directory: its tree, and what it says of the processes that run in it.
//!
//! | name | what |
//! | --- | --- |
//! | `tree` | the files |
//! | `config` | the rest, as [`Unpacked`] has it. It appears when all is done |

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use crate::collect::CollectVec as _;
use crate::spec::{Ids, Root, Spec};

/// The name of the directory that the files lie in.
pub(crate) const TREE: &str = "tree";

/// The name of the file in which the rest is written.
pub(crate) const CONFIG: &str = "config";

/// The last word of a configuration that is whole.
const END: &[u8] = b"end";

/// What sandboxes need to know of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Its files.
    pub(crate) tree: PathBuf,
    /// The environment variables that it sets, names and values.
    pub(crate) env: Vec<(String, String)>,
    /// Where its processes begin.
    pub(crate) working_directory: Option<String>,
    /// Who they are, a user and a group, if not root.
    pub(crate) user: Option<(u32, u32)>,
    /// The home directory of that user.
    pub(crate) home: Option<String>,
    /// Files that are root's in the tree, and somebody else's in the image.
    pub(crate) owned: Vec<Owned>,
}

/// A file of the image that belongs to somebody else than root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    /// Its path inside.
    pub(crate) path: PathBuf,
    /// A user and a group.
    pub(crate) owner: (u32, u32),
    /// Its type and its permissions, as `st_mode` has them.
    pub(crate) mode: u32,
}

impl Unpacked {
    /// What was unpacked to `directory`.
    pub(crate) fn read(directory: &Path) -> io::Result<Self> {
        let text = fs::read(directory.join(CONFIG))?;
        let mut unpacked = Self::decode(&text).ok_or(io::ErrorKind::InvalidData)?;
        unpacked.tree = directory.join(TREE);
        Ok(unpacked)
    }

    /// All but the tree: words, each of which a NUL ends.
    #[cfg(feature = "images")]
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

    /// The spec of a sandbox whose root is this image: that of a copy of its tree. What the test says goes first. The result is never freed.
    /// `None` if the path of the tree is not UTF-8.
    pub(crate) fn spec(&self, spec: &'static Spec) -> Option<&'static Spec> {
        let tree: &'static str = self.tree.to_str()?.to_owned().leak();
        let of_image = self.env.iter().filter(|(name, _)| spec.variable(name).is_none());
        let of_image = of_image
            .map(|(name, value)| -> (&'static str, &'static str) { (name.clone().leak(), value.clone().leak()) });
        let is_of_image = spec.user.is_none() && spec.ids != Ids::Host;
        let names_home = spec.variable("HOME").is_some() || self.env.iter().any(|(name, _)| name == "HOME");
        let home = self.home.as_ref().filter(|_| is_of_image && !names_home);
        let home = home.map(|home| -> (&'static str, &'static str) { ("HOME", home.clone().leak()) });
        let env = of_image.chain(home).chain(spec.env.iter().copied()).collect_vec().leak();
        let working_directory = self.working_directory.clone().map(|directory| -> &'static str { directory.leak() });
        let user = spec.user.or(self.user.filter(|_| is_of_image));
        let root = Root::Directory(tree);
        Some(Box::leak(Box::new(Spec { root, env, working_directory, user, ..spec.clone() })))
    }
}

fn string(word: &[u8]) -> Option<String> {
    String::from_utf8(word.to_vec()).ok()
}

fn number(word: &[u8]) -> Option<u32> {
    OsStr::from_bytes(word).to_str()?.parse().ok()
}

#[cfg(all(test, feature = "images"))]
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

    #[test]
    fn what_the_test_says_comes_first() {
        let image = Unpacked {
            tree: "/tree".into(),
            env: vec![("A".into(), "image".into()), ("B".into(), "image".into())],
            working_directory: Some("/srv".into()),
            user: Some((7, 8)),
            home: Some("/home".into()),
            owned: Vec::new(),
        };
        static SPEC: Spec = Spec { env: &[("B", "test")], ..Spec::PLAIN };
        let spec = image.spec(&SPEC).expect("text");
        assert_eq!(spec.env, [("A", "image"), ("HOME", "/home"), ("B", "test")]);
        assert_eq!(
            (spec.root, spec.working_directory, spec.user),
            (Root::Directory("/tree"), Some("/srv"), Some((7, 8)))
        );
        static ROOT: Spec = Spec { user: Some((0, 0)), ..Spec::PLAIN };
        assert_eq!(image.spec(&ROOT).expect("text").user, Some((0, 0)));
        assert_eq!(image.spec(&ROOT).expect("text").env, [("A", "image"), ("B", "image")]);
        static HOST: Spec = Spec { ids: Ids::Host, ..Spec::PLAIN };
        assert_eq!(image.spec(&HOST).expect("text").user, None);
    }
}
