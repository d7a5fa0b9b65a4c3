//! An image that has been unpacked to a directory: its tree, and what it says of the processes that run in it.

use std::path::{Path, PathBuf};

use crate::collect::CollectVec as _;
use crate::spec::{Ids, Root, Spec};

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
    /// The files that are somebody else's, with user and group, and with their modes.
    pub(crate) fn owners(&self) -> Vec<(&Path, (u32, u32), u32)> {
        self.owned.iter().map(|Owned { path, owner, mode }| (path.as_path(), *owner, *mode)).collect_vec()
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

#[cfg(test)]
mod tests {
    use super::*;

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
