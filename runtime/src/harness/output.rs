//! Passes on what a sandbox writes, through the `print!` of the test's own thread: the harness captures that with the
//! right test, and shows it live if it is told to.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use crate::sys;

/// How much is read at once, in bytes.
const CHUNK: usize = 4 * 1024;

/// How much of what came last is kept, in bytes.
const TAIL: usize = 1024;

/// One of the standard streams of a sandbox.
pub(super) struct Stream {
    pipe: OwnedFd,
    print: fn(&str),
    /// The beginning of a character whose end has not come yet.
    pending: Vec<u8>,
    /// Whether more may come.
    open: bool,
    /// Whether a line has begun and not ended.
    mid_line: bool,
    /// The end of what has been passed on.
    tail: String,
}

/// A pipe whose first end does not block.
fn output_pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((ours, theirs))
}

impl Stream {
    /// One that is passed on by `print!`, with what the sandbox writes to.
    pub(super) fn stdout() -> nix::Result<(Self, OwnedFd)> {
        let (ours, theirs) = output_pipe()?;
        Ok((Self::new(ours, |text| print!("{text}")), theirs))
    }

    /// The same for standard error.
    pub(super) fn stderr() -> nix::Result<(Self, OwnedFd)> {
        let (ours, theirs) = output_pipe()?;
        Ok((Self::new(ours, |text| eprint!("{text}")), theirs))
    }

    /// One of which nothing comes this way: what the sandbox writes to is one of this process's own.
    pub(super) fn own(stream: BorrowedFd<'_>) -> nix::Result<(Self, OwnedFd)> {
        let duplicate = || stream.try_clone_to_owned().map_err(|error| sys::errno_of(&error));
        let (ours, theirs) = (duplicate()?, duplicate()?);
        Ok((Self { open: false, ..Self::new(ours, |_| {}) }, theirs))
    }

    fn new(pipe: OwnedFd, print: fn(&str)) -> Self {
        Self { pipe, print, pending: Vec::new(), open: true, mid_line: false, tail: String::new() }
    }

    /// What to wait for: nothing if nothing more can come.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.open.then(|| self.pipe.as_fd())
    }

    pub(super) fn is_mid_line(&self) -> bool {
        self.mid_line
    }

    /// The last line that is not empty, or its end if it is long.
    pub(super) fn last_line(&self) -> &str {
        self.tail.trim_end().lines().next_back().unwrap_or_default()
    }

    /// Passes on what is there, at most one chunk. Returns whether there was anything.
    pub(super) fn pump(&mut self) -> nix::Result<bool> {
        if !self.open {
            return Ok(false);
        }
        let mut chunk = [0; CHUNK];
        match nix::unistd::read(&self.pipe, &mut chunk) {
            Ok(0) => self.open = false,
            Ok(length) => {
                self.pending.extend_from_slice(&chunk[..length]);
                let text = whole_characters(&mut self.pending);
                self.print(&text);
                return Ok(true);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(false)
    }

    /// Passes on all that is there, and what can't become a whole character any more.
    pub(super) fn finish(&mut self) {
        while let Ok(true) = self.pump() {}
        let rest = std::mem::take(&mut self.pending);
        self.print(&String::from_utf8_lossy(&rest));
    }

    fn print(&mut self, text: &str) {
        if let Some(last) = text.as_bytes().last() {
            (self.print)(text);
            self.mid_line = *last != b'\n';
            self.tail.push_str(text);
            let excess = self.tail.len().saturating_sub(TAIL);
            let excess = (excess..).find(|at| self.tail.is_char_boundary(*at)).unwrap_or_default();
            self.tail.drain(..excess);
        }
    }
}

/// Takes the text out of `bytes`, and leaves a character at the end of which only the beginning has come. What is no
/// UTF-8 becomes U+FFFD, because the harness captures nothing else.
pub(super) fn whole_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        rest += chunk.valid().len();
        let at_end = rest + chunk.invalid().len() == bytes.len();
        if !chunk.invalid().is_empty() {
            if at_end && may_become_a_character(chunk.invalid()) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            rest += chunk.invalid().len();
        }
    }
    bytes.drain(..rest);
    text
}

/// Whether more bytes could make a character of these, which are invalid at the end of a text.
fn may_become_a_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_out_the_same_in_pieces_of_any_size() {
        let bytes = b"a\xc3\xa4\xff\xe2\x82\xac \xf0\x9f\xa6\x80\xe2\x82".as_slice();
        let whole = String::from_utf8_lossy(bytes);
        for size in 1..=bytes.len() {
            let (mut pending, mut text) = (Vec::new(), String::new());
            for piece in bytes.chunks(size) {
                pending.extend_from_slice(piece);
                text.push_str(&whole_characters(&mut pending));
            }
            text.push_str(&String::from_utf8_lossy(&pending));
            assert_eq!(text, whole, "in pieces of {size}");
        }
    }
}
