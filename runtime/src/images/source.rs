//! What an argument of the attribute names.

use std::path::{Path, PathBuf};

use crate::rootfs::context::in_package;
use crate::spec::Spec;

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// A directory in the layout of OCI, and which of its images is meant.
    Layout { directory: PathBuf, tag: Option<String> },
    /// A file: an archive of an image, or of a tree.
    Archive(PathBuf),
}

impl Source {
    /// Reads `oci:DIR`, `oci:DIR:TAG` or the path of a file. What is relative begins at the package.
    pub(super) fn of(spec: &Spec, argument: &str) -> Self {
        let Some(layout) = argument.strip_prefix("oci:") else { return Self::Archive(in_package(spec, argument)) };
        // As in skopeo, a tag may have colons and slashes, and the directory has no colon.
        let (directory, tag) = layout.split_once(':').map_or((layout, None), |(directory, tag)| (directory, Some(tag)));
        let tag = tag.map(str::to_owned);
        Self::Layout { directory: in_package(spec, directory), tag }
    }

    /// The directory or the file.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Layout { directory, .. } => directory,
            Self::Archive(file) => file,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let read = |argument| Source::of(&Spec::PLAIN, argument);
        let layout = |directory: &str, tag: Option<&str>| Source::Layout {
            directory: directory.into(),
            tag: tag.map(str::to_owned),
        };
        assert_eq!(read("/image.tar"), Source::Archive("/image.tar".into()));
        assert_eq!(read("oci:/images"), layout("/images", None));
        assert_eq!(read("oci:/images:latest"), layout("/images", Some("latest")));
        assert_eq!(read("oci:/images:docker.io/debian:12"), layout("/images", Some("docker.io/debian:12")));
        assert!(read("./image.tar").path().is_absolute());
    }
}
