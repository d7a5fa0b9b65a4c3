//! The crate [`posixmq`] opens message queues of POSIX, whose names are the machine's, and which stay until somebody
//! unlinks them.
//!
//! As plain `#[test]`s, the second of these finds the first one's queue, and a run that fails leaves its messages for the
//! next.

use belljar::isolated;
use posixmq::{OpenOptions, PosixMq};

/// A queue that must not exist yet.
fn new_queue() -> PosixMq {
    let mut options = OpenOptions::readwrite();
    options.create_new().capacity(4).max_msg_len(64).open("/jobs").expect("the name is free")
}

#[isolated]
fn urgent_messages_come_first() {
    let queue = new_queue();
    queue.send(1, b"sweep").expect("sent");
    queue.send(9, b"put out the fire").expect("sent");
    let mut buffer = [0; 64];
    let (priority, length) = queue.recv(&mut buffer).expect("received");
    assert_eq!((priority, &buffer[..length]), (9, b"put out the fire".as_slice()));
}

#[isolated]
fn a_full_queue_refuses_without_waiting() {
    let queue = new_queue();
    queue.set_nonblocking(true).expect("set");
    for _ in 0..4 {
        queue.send(0, b"job").expect("sent");
    }
    let error = queue.send(0, b"one too many").expect_err("full");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}
