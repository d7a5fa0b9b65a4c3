//! A step that the host refused: which one, on what path, and with what error.

use std::borrow::Cow;
use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use nix::errno::Errno;

use super::step::Step;

/// A step that failed: which one, on what, and why. The path may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal<T = Vec<u8>> {
    pub(crate) step: Step,
    pub(crate) path: T,
    pub(crate) errno: Errno,
    /// What a program said that failed.
    pub(crate) said: T,
}

/// The same, with borrowed texts: init does not allocate, and frames are read where they lie.
pub(crate) type RefusalRef<'t> = Refusal<&'t [u8]>;

impl Refusal {
    pub(crate) fn new(step: Step, path: impl Into<PathBuf>, errno: Errno) -> Self {
        Self::of_program(step, path, errno, Vec::new())
    }

    /// A program has failed, and has said this.
    pub(crate) fn of_program(step: Step, program: impl Into<PathBuf>, errno: Errno, said: Vec<u8>) -> Self {
        Self { step, path: OsString::from(program.into()).into_vec(), errno, said }
    }

    pub(crate) fn as_ref(&self) -> RefusalRef<'_> {
        let Self { step, path, errno, said } = self;
        Refusal { step: *step, path, errno: *errno, said }
    }

    pub(crate) fn path(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }
}

impl<'p> RefusalRef<'p> {
    /// A system call has failed, which was about this path, if it is not empty.
    pub(crate) fn of_call(step: Step, path: &'p CStr, errno: Errno) -> Self {
        Self { step, path: path.to_bytes(), errno, said: b"" }
    }
}

impl From<RefusalRef<'_>> for Refusal {
    fn from(Refusal { step, path, errno, said }: RefusalRef<'_>) -> Self {
        Self { step, path: path.to_vec(), errno, said: said.to_vec() }
    }
}
