//! A step that the host refused: which one, on what path, and with what error.
//!
//! Init carries it without allocating; the zygote and the test binary own what they know.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use nix::errno::Errno;

use super::moments::record;
use super::step::{Moment, Refusal, Step};

/// A step that failed, as `Result` carries it. The path is one of the plan's.
pub(crate) type Refused<'p> = (Step, &'p CStr, Errno);

/// Names the step that an error belongs to, and tells of one that is done.
pub(crate) trait OrRefuse<T> {
    fn or_refuse(self, step: Step, path: &CStr) -> Result<T, Refused<'_>>;
}

impl<T> OrRefuse<T> for nix::Result<T> {
    fn or_refuse(self, step: Step, path: &CStr) -> Result<T, Refused<'_>> {
        match self {
            Ok(value) => {
                record(Moment::Done(step), path);
                Ok(value)
            }
            Err(errno) => Err((step, path, errno)),
        }
    }
}

/// A step that failed in the zygote or in a template.
pub(crate) struct Failure {
    step: Step,
    path: PathBuf,
    errno: Errno,
    /// What a program said that failed.
    said: Vec<u8>,
}

impl Failure {
    pub(crate) fn new(step: Step, path: impl Into<PathBuf>, errno: Errno) -> Self {
        Self { step, path: path.into(), errno, said: Vec::new() }
    }

    /// A program has failed, and has said this.
    pub(crate) fn of_program(step: Step, program: &str, errno: Errno, said: Vec<u8>) -> Self {
        Self { step, path: program.into(), errno, said }
    }

    pub(crate) fn as_refusal(&self) -> Refusal<'_> {
        let Self { step, path, errno, said } = self;
        Refusal { step: *step, path: path.as_os_str().as_bytes(), errno: *errno, said }
    }
}

impl From<Refusal<'_>> for Failure {
    fn from(Refusal { step, path, errno, said }: Refusal<'_>) -> Self {
        Self { step, path: OsStr::from_bytes(path).into(), errno, said: said.to_vec() }
    }
}

/// A step of the set-up that failed.
#[derive(Debug)]
pub(crate) struct OwnedRefusal {
    pub(crate) step: Step,
    pub(crate) path: String,
    pub(crate) errno: Errno,
    /// What a program said that failed.
    pub(crate) said: String,
}

impl OwnedRefusal {
    pub(crate) fn new(step: Step, errno: Errno) -> Self {
        Self { step, path: String::new(), errno, said: String::new() }
    }
}
