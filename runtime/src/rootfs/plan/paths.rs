//! Paths, as plans handle them.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

/// How many links a path leads through before it is taken for a loop; the kernel's number.
pub(super) const LINKS_MAX: usize = 40;

/// The names that a path consists of, the last first. `.` is none.
pub(super) fn names_reversed(path: &Path) -> Vec<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(name).collect()
}

/// `path` for the kernel. Paths of the system hold no NUL; one made of an environment variable can't either.
pub(super) fn c_string(path: &OsStr) -> CString {
    CString::new(path.as_bytes()).unwrap_or_default()
}
