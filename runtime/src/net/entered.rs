//! The hosts that a thread has entered, one after the other, and the ways back.

use std::cell::RefCell;
use std::io;

use super::place::{Back, HostNamespaces};

/// What a thread has entered, by numbers, with the way back of each.
#[derive(Default)]
struct Entries {
    next: u64,
    backs: Vec<(u64, Back)>,
}

thread_local! {
    static ENTRIES: RefCell<Entries> = RefCell::default();
}

/// Moves this thread there. Returns the number to leave with. If that fails, the thread is where it was.
pub(super) fn enter(place: &HostNamespaces) -> io::Result<u64> {
    let back = Back::here()?;
    if let Err(errno) = place.enter() {
        // It may have got half the way.
        back.go()?;
        return Err(errno.into());
    }
    Ok(ENTRIES.with_borrow_mut(|entries| {
        entries.next += 1;
        entries.backs.push((entries.next, back));
        entries.next
    }))
}

/// Moves this thread back to where it was, if it has entered nothing since. Otherwise what it has entered next leads back to there.
pub(super) fn leave(number: u64) -> nix::Result<()> {
    // If the thread is about to end, it doesn't matter where.
    let back = ENTRIES.try_with(|entries| entries.try_borrow_mut().ok().and_then(|mut entries| entries.leave(number)));
    back.ok().flatten().map_or(Ok(()), |back| back.go())
}

impl Entries {
    /// The way that is to be gone now, if any.
    fn leave(&mut self, number: u64) -> Option<Back> {
        let position = self.backs.iter().position(|(own, _)| *own == number)?;
        let (_, back) = self.backs.remove(position);
        match self.backs.get_mut(position) {
            Some((_, next)) => {
                *next = back;
                None
            }
            None => Some(back),
        }
    }
}
