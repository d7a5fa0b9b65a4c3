//! Descriptors of the test binary that are kept to spare: other files may take all that are left.

use std::any::Any;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nix::fcntl::{OFlag, open};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::Mode;

/// They are closed while `/proc` or a frame is read, so that there is room though other files take all that is left.
///
/// Whoever closes them has the lock alone. Whoever makes descriptors for a sandbox shares it, and so takes none of that room.
static RESERVE: RwLock<Vec<OwnedFd>> = RwLock::new(Vec::new());

/// How many there are: two come with `Frame::Faults`, and two are opened then, one of them in the place of the memory that came.
const RESERVED: usize = 3;

/// Descriptors are scarce where no more than these are left.
const FREE: u64 = 16;

/// Whether descriptors were scarce when a sandbox was asked for.
static ARE_SCARCE: AtomicBool = AtomicBool::new(false);

/// While this is there, no spare descriptor is closed.
pub(crate) struct Reserved {
    _reserve: RwLockReadGuard<'static, Vec<OwnedFd>>,
}

/// Keeps the spare descriptors open until what is returned is dropped. Fails if there are none.
pub(crate) fn reserve() -> nix::Result<Reserved> {
    loop {
        let reserve = RESERVE.read().unwrap_or_else(PoisonError::into_inner);
        if reserve.len() >= RESERVED {
            return Ok(Reserved { _reserve: reserve });
        }
        drop(reserve);
        fill(&mut RESERVE.write().unwrap_or_else(PoisonError::into_inner))?;
    }
}

fn fill(reserve: &mut Vec<OwnedFd>) -> nix::Result<()> {
    while reserve.len() < RESERVED {
        reserve.push(make()?);
    }
    Ok(())
}

/// Has no other thread make descriptors for a sandbox, or free the spare ones, meanwhile.
pub(crate) fn hold() -> Box<dyn Any> {
    Box::new(RESERVE.write().unwrap_or_else(PoisonError::into_inner))
}

/// A descriptor that keeps a place.
pub(crate) fn make() -> nix::Result<OwnedFd> {
    open(c"/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

/// Notes the number of a descriptor that was just made. It is the lowest that was free: if it is near the limit, descriptors are scarce.
#[expect(clippy::useless_conversion, reason = "on other targets, a limit has another type")]
pub(crate) fn note_number(fd: &OwnedFd) {
    let number = u64::try_from(fd.as_raw_fd()).unwrap_or_default();
    let are_scarce = getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(limit, _)| number + FREE >= u64::from(limit));
    if are_scarce {
        ARE_SCARCE.store(true, Ordering::Relaxed);
    }
}

/// Room for some descriptors, until it is dropped.
pub(crate) struct Freed {
    reserve: RwLockWriteGuard<'static, Vec<OwnedFd>>,
}

impl Freed {
    pub(crate) fn now() -> Self {
        let mut reserve = RESERVE.write().unwrap_or_else(PoisonError::into_inner);
        reserve.clear();
        Self { reserve }
    }

    /// Makes room to receive what may come with descriptors, where they are scarce: where there is no room for them, they are lost.
    pub(crate) fn where_scarce() -> Option<Self> {
        ARE_SCARCE.load(Ordering::Relaxed).then(Self::now)
    }
}

impl Drop for Freed {
    fn drop(&mut self) {
        // Where there is none any more, the next sandbox is not asked for.
        let _ = fill(&mut self.reserve);
    }
}

/// Runs `look` with room for some descriptors.
pub(crate) fn look<T>(look: impl FnOnce() -> T) -> T {
    let _freed = Freed::now();
    look()
}
