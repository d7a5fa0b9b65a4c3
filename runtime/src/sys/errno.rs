//! Errors of system calls, as numbers.

use std::time::{Duration, Instant};
use std::{io, thread};

use nix::errno::Errno;

/// The kernel's number for an error. Of those that did not come from there, EINVAL stands for a path with a NUL in it, ENOMEM for no room to
/// read into, and EIO for the rest.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    let other = match error.kind() {
        io::ErrorKind::InvalidInput => Errno::EINVAL,
        io::ErrorKind::OutOfMemory => Errno::ENOMEM,
        _ => Errno::EIO,
    };
    error.raw_os_error().map_or(other, Errno::from_raw)
}

/// Whether a call has failed because there are too many descriptors: in a process, on the machine, or on their way through sockets.
pub(crate) fn is_of_descriptors(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ETOOMANYREFS)
}

/// How long a call that fails with ETOOMANYREFS is tried again, and the pause between. The kernel counts the descriptors that all processes of this
/// user have sent and nobody has received. It tells nobody when there are fewer.
pub(crate) const ON_THE_WAY: Duration = Duration::from_secs(10);
pub(crate) const ON_THE_WAY_PAUSE: Duration = Duration::from_millis(10);

/// Calls `send` until it does not fail with ETOOMANYREFS, for [`ON_THE_WAY`].
pub(crate) fn send_in_time<T>(mut send: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    let started = Instant::now();
    loop {
        match send() {
            Err(Errno::ETOOMANYREFS) if started.elapsed() < ON_THE_WAY => thread::sleep(ON_THE_WAY_PAUSE),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_standard_library_have_numbers() {
        let no_room = Vec::<u8>::new().try_reserve_exact(usize::MAX).expect_err("more than a Vec can have");
        assert_eq!(errno_of(&no_room.into()), Errno::ENOMEM);
        assert_eq!(errno_of(&std::fs::read("a\0b").expect_err("a NUL")), Errno::EINVAL);
        assert_eq!(errno_of(&io::Error::from(io::ErrorKind::WriteZero)), Errno::EIO);
        assert_eq!(errno_of(&Errno::EACCES.into()), Errno::EACCES);
    }
}
