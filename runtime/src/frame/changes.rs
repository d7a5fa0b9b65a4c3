//! What has changed in a copy of a tree: plain data, found out by the test binary, and sent to a test that asks for it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::collect::CollectVec as _;

/// A difference between the root of a test and the tree that it is a copy of, by the path inside.
///
/// ```test_harness
/// # use belljar::isolated;
/// use belljar::Change;
///
/// #[isolated(root = "overlay")]
/// fn makes_nothing_but_logs() -> std::io::Result<()> {
///     std::fs::write("/var/log/tool", "started")?;
///     let changes = belljar::changes()?;
///     assert!(matches!(&changes[..], [Change::Created(path)] if path.starts_with("/var/log")), "{changes:?}");
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// It is there now, and was not.
    Created(PathBuf),
    /// It has another content, owner or mode, or something else has its name.
    Changed(PathBuf),
    /// It is gone.
    Removed(PathBuf),
}

impl Change {
    /// What has changed.
    ///
    /// ```
    /// let change = belljar::Change::Removed("/etc/hosts".into());
    /// assert_eq!(change.path(), std::path::Path::new("/etc/hosts"));
    /// ```
    pub fn path(&self) -> &Path {
        let (Self::Created(path) | Self::Changed(path) | Self::Removed(path)) = self;
        path
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Created(_) => 0,
            Self::Changed(_) => 1,
            Self::Removed(_) => 2,
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, path) = bytes.split_first()?;
        let path = PathBuf::from(OsStr::from_bytes(path));
        match kind {
            0 => Some(Self::Created(path)),
            1 => Some(Self::Changed(path)),
            2 => Some(Self::Removed(path)),
            _ => None,
        }
    }
}

/// For each change a byte for its kind, the path, and a NUL.
pub(crate) fn encode(changes: &[Change]) -> Vec<u8> {
    let encode = |change: &Change| [&[change.kind()], change.path().as_os_str().as_bytes(), &[0]].concat();
    changes.iter().flat_map(encode).collect_vec()
}

/// `None` if that is no list of changes.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    let mut rest = bytes;
    while let Some((_, path)) = rest.split_first() {
        // The kind may be 0 itself.
        let end = 1 + path.iter().position(|byte| *byte == 0)?;
        changes.push(Change::decode(&rest[..end])?);
        rest = &rest[end + 1..];
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_survive_the_way() {
        let changes = [
            Change::Created("/etc/a b\n".into()),
            Change::Changed("/etc".into()),
            Change::Removed(OsStr::from_bytes(b"/\xff").into()),
        ];
        assert_eq!(decode(&encode(&changes)), Some(changes.to_vec()));
        assert_eq!(decode(b""), Some(Vec::new()));
        assert!(decode(b"\x03/etc\0").is_none() && decode(b"\x01/etc").is_none());
    }
}
