//! Channels for one thing: one thread sends it, another waits for it. They cost a user's build little: those of the standard library are 7,000
//! lines of LLVM's language for each type.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

struct State<T> {
    sent: Option<T>,
    /// Whether the sender is gone.
    is_over: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a channel that sends one thing, or is dropped.
pub(super) struct Sender<T>(Arc<Shared<T>>);

/// The other end.
pub(super) struct Receiver<T>(Arc<Shared<T>>);

pub(super) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = Mutex::new(State { sent: None, is_over: false });
    let shared = Arc::new(Shared { state, changed: Condvar::new() });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Sender<T> {
    pub(super) fn send(&self, item: T) {
        self.0.lock().sent = Some(item);
        self.0.changed.notify_one();
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_one();
    }
}

impl<T> Receiver<T> {
    /// Waits for what is sent. `None` if the sender is dropped instead.
    pub(super) fn recv(&self) -> Option<T> {
        let mut state = self.0.lock();
        while state.sent.is_none() && !state.is_over {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.sent.take()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_is_sent_arrives_and_a_sender_that_is_gone_shows() {
        let (sender, receiver) = channel();
        let thread = thread::spawn(move || sender.send(7));
        assert_eq!((receiver.recv(), receiver.recv()), (Some(7), None));
        thread.join().expect("no panic");
        let (sender, receiver) = channel::<u8>();
        let thread = thread::spawn(move || drop(sender));
        assert_eq!(receiver.recv(), None);
        thread.join().expect("no panic");
    }
}
