//! Paths of a plan, by whose tree they lead into; and how paths are taken apart.

use std::ffi::{CStr, CString, OsString};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use crate::collect::CollectVec as _;

/// `path` for the kernel. Paths of the system hold no NUL; one made of an environment variable can't either.
pub(crate) fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// A path of the host, or of the stage.
pub(crate) struct HostPath(CString);

/// A path in the file system that is being made. It is relative if the sandbox has a root of its own, which is not the root yet.
#[derive(Clone)]
pub(crate) struct InsidePath(CString);

/// What is shown somewhere else.
pub(crate) enum Source {
    Host(HostPath),
    Inside(InsidePath),
}

impl HostPath {
    pub(crate) fn new(path: &Path) -> Self {
        Self(c_string(path))
    }
}

impl InsidePath {
    /// `path` begins at the working directory of the process that makes the file system, if it is relative.
    pub(crate) fn new(path: &Path) -> Self {
        Self(c_string(path))
    }
}

impl Deref for HostPath {
    type Target = CStr;

    fn deref(&self) -> &CStr {
        &self.0
    }
}

impl Deref for InsidePath {
    type Target = CStr;

    fn deref(&self) -> &CStr {
        &self.0
    }
}

impl Deref for Source {
    type Target = CStr;

    fn deref(&self) -> &CStr {
        match self {
            Self::Host(path) => path,
            Self::Inside(path) => path,
        }
    }
}

/// How many links a path leads through before it is taken for a loop; the kernel's number.
pub(crate) const LINKS_MAX: usize = 40;

/// The names that a path consists of, the last first. `.` is none.
pub(crate) fn names_reversed(path: &Path) -> Vec<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(name).collect_vec()
}
