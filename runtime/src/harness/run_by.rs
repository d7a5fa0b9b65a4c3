//! Who has a body run. Each decides where the output of the body goes, and with which bytes it is called.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::output::Stream;
use super::shared::SharedRoot;
use super::spare;
use crate::collect::map_both;
use crate::frame::address::{FUNCTION_SIZE, Function};
use crate::sys;
use crate::zygote::plan_anew;

/// Who has a body run.
#[derive(Clone)]
pub(super) enum RunBy {
    /// A harness, which captures what is printed.
    Harness,
    /// The same, of a preparation that leaves its root for other processes of the run.
    Shared(Arc<SharedRoot>),
    /// The `main` of a program, whose output is that of the process.
    Main,
    /// Somebody who hands bytes over.
    Run(Arc<Call>),
}

impl RunBy {
    /// What the body is called with, if it takes bytes.
    pub(super) fn call(&self) -> Option<&Arc<Call>> {
        if let Self::Run(call) = self { Some(call) } else { None }
    }

    /// Clears away what is left of an attempt that began no body.
    pub(super) fn begin_anew(&self) -> nix::Result<()> {
        match self {
            Self::Harness | Self::Main => {}
            Self::Run(call) => call.release(),
            Self::Shared(root) => {
                // The template has the old directory.
                plan_anew();
                root.begin().map_err(|error| sys::errno_of(&error))?;
            }
        }
        Ok(())
    }

    /// The standard output of the sandbox, and what the sandbox writes to.
    pub(super) fn stdout(&self) -> nix::Result<(Stream, OwnedFd)> {
        if let Self::Main = self { Stream::own(io::stdout().as_fd()) } else { Stream::stdout() }
    }

    /// The same for standard error.
    pub(super) fn stderr(&self) -> nix::Result<(Stream, OwnedFd)> {
        if let Self::Main = self { Stream::own(io::stderr().as_fd()) } else { Stream::stderr() }
    }
}

/// What a body is called with, and the place for what it returns.
pub(super) struct Call {
    function: Function,
    input: Vec<u8>,
    memory: Mutex<Option<Memory>>,
}

/// Both are memory, so that nobody waits for a reader.
struct Memory {
    input: File,
    output: File,
}

impl Call {
    /// Fails if there is no memory for a copy of the input.
    pub(super) fn new(function: Function, input: &[u8]) -> io::Result<Self> {
        let mut copy = Vec::new();
        copy.try_reserve_exact(input.len())?;
        copy.extend_from_slice(input);
        Ok(Self { function, input: copy, memory: Mutex::new(None) })
    }

    fn memory(&self) -> MutexGuard<'_, Option<Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the memory, unless it is there.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let mut own = self.memory();
        if own.is_some() {
            return Ok(());
        }
        let _reserved = spare::reserve()?;
        let memory = |name| memfd_create(name, MFdFlags::MFD_CLOEXEC).map(File::from);
        let (mut input, output) = (memory(c"belljar-input")?, memory(c"belljar-output")?);
        sys::without_size_signal(|| input.write_all(&self.input))?;
        *own = Some(Memory { input, output });
        Ok(())
    }

    /// Closes the memory, so that it takes no descriptors while the body waits for its turn.
    pub(super) fn release(&self) {
        *self.memory() = None;
    }

    /// The bytes that stand for the function.
    pub(super) fn function(&self) -> [u8; FUNCTION_SIZE] {
        self.function.encode()
    }

    /// What is sent with them, once it is prepared.
    pub(super) fn descriptors(&self) -> Option<[RawFd; 2]> {
        self.memory().as_ref().map(|Memory { input, output }| map_both([input, output], |file| file.as_raw_fd()))
    }

    /// What the body has returned.
    pub(super) fn output(&self) -> io::Result<Vec<u8>> {
        let own = self.memory();
        let Some(Memory { output, .. }) = &*own else { return Ok(Vec::new()) };
        let length = usize::try_from(output.metadata()?.len()).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length)?;
        bytes.resize(length, 0);
        output.read_exact_at(&mut bytes, 0).map(|()| bytes)
    }
}
