//! Writes what was captured as a file of pcapng, which Wireshark, tshark and tcpdump read: an interface for each port, and a comment at each
//! frame that something happened to. See <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html>.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

use super::board::{CAUSES, Cause, Way};
use super::capture::{Head, NAMES, RECORD, Seen, WORDS, marks};

/// What is read from the file of a capture. It may be anything: the body has it too.
struct Captured {
    names: Vec<String>,
    seed: u64,
    clock_offset: u64,
    /// How many frames are not there any more, and the room that there was.
    gone: u64,
    size: u64,
    /// The records, one after the other.
    records: Vec<u8>,
}

fn head_of(words: &[u8], head: Head) -> u64 {
    let at = head as usize * 8;
    words.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u64::from_ne_bytes)
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "something else has written to the memory of the capture")
}

impl Captured {
    fn read(file: &File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut words = [0; WORDS * 8];
        file.read_exact_at(&mut words, 0)?;
        let head = |head| head_of(&words, head);
        let (start, size, end) = (head(Head::Start), head(Head::Size), head(Head::End));
        if size == 0 || size % 8 != 0 || start < NAMES as u64 || start.checked_add(size) != Some(length) {
            return Err(invalid());
        }
        let mut names = vec![0; (start - NAMES as u64) as usize];
        file.read_exact_at(&mut names, NAMES as u64)?;
        let begin = head(Head::Begin).max(end.saturating_sub(size));
        if begin > end {
            return Err(invalid());
        }
        let mut records = vec![0; (end - begin) as usize];
        let (first, rest) = records.split_at_mut((end - begin).min(size - begin % size) as usize);
        file.read_exact_at(first, start + begin % size)?;
        file.read_exact_at(rest, start)?;
        // What the wire has written over meanwhile.
        file.read_exact_at(&mut words, 0)?;
        let over = head_of(&words, Head::Begin).saturating_sub(begin).min(records.len() as u64);
        records.drain(..over as usize);
        Ok(Self {
            names: names_of(&names, head_of(&words, Head::Ports)),
            seed: head_of(&words, Head::Seed),
            clock_offset: head_of(&words, Head::ClockOffset),
            gone: head_of(&words, Head::Gone),
            size,
            records,
        })
    }
}

fn names_of(mut list: &[u8], count: u64) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((length, rest)) = list.split_first().filter(|_| (names.len() as u64) < count) {
        let Some((name, rest)) = rest.split_at_checked((*length).into()) else { break };
        names.push(String::from_utf8_lossy(name).into_owned());
        list = rest;
    }
    names
}

/// The first record, its frame, and the rest.
fn next_record(records: &[u8]) -> Option<(Seen, &[u8], &[u8])> {
    let (record, rest) = records.split_at_checked(RECORD)?;
    let long = |at: usize| record.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    let longest = |at: usize| record.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
    let (size, captured, length) = (long(0)? as usize, long(4)? as usize, long(8)?);
    let rest_at = size.checked_sub(RECORD)?;
    let (frame, rest) = (rest.get(..captured.min(rest_at))?, rest.get(rest_at..)?);
    let places = long(12)?;
    let ways = longest(32)?;
    let lost = CAUSES.into_iter().find(|cause| *cause as u64 + 1 == ways & 0xff);
    let way = if ways >> 8 & 1 == 0 { Way::FromHost } else { Way::ToHost };
    let seen = Seen {
        time: longest(16)?,
        port: places as u16,
        way,
        lost,
        marks: (places >> 16) as u16,
        number: longest(24)?,
        length,
    };
    Some((seen, frame, rest))
}

/// Writes all that is in the file of a capture.
pub(crate) fn write(capture: &File, out: &mut impl Write) -> io::Result<()> {
    let captured = Captured::read(capture)?;
    let mut block = Vec::with_capacity(4096);
    section(&captured, &mut block);
    out.write_all(&block)?;
    for name in &captured.names {
        block.clear();
        interface(name, &mut block);
        out.write_all(&block)?;
    }
    let mut records = &captured.records[..];
    while let Some((seen, frame, rest)) = next_record(records) {
        if usize::from(seen.port) < captured.names.len() {
            block.clear();
            packet(&seen, frame, captured.clock_offset, &mut block);
            out.write_all(&block)?;
        }
        records = rest;
    }
    out.flush()
}

/// A block of this kind around what `body` adds.
fn block(kind: u32, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let length = (out.len() - start + 4) as u32;
    out.extend(length.to_le_bytes());
    if let Some(place) = out.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

/// An option: the last has the code 0 and is empty.
fn option(code: u16, value: &[u8], out: &mut Vec<u8>) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    out.extend(value);
    pad(out);
}

const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;

fn section(captured: &Captured, out: &mut Vec<u8>) {
    block(0x0a0d_0d0a, out, |out| {
        out.extend(0x1a2b_3c4d_u32.to_le_bytes());
        // The version, and an unknown length.
        out.extend([1_u16, 0].into_iter().flat_map(u16::to_le_bytes));
        out.extend(u64::MAX.to_le_bytes());
        let comment = match captured.gone {
            0 => format!("seed {}", captured.seed),
            gone => format!(
                "seed {}. The first {gone} records are not here: the capture keeps {} bytes, and the newest of them.",
                captured.seed, captured.size
            ),
        };
        option(COMMENT, comment.as_bytes(), out);
        option(4, b"belljar", out);
        option(END_OF_OPTIONS, &[], out);
    });
}

fn interface(name: &str, out: &mut Vec<u8>) {
    block(1, out, |out| {
        // Ethernet, and frames of any length.
        out.extend([1_u16, 0].into_iter().flat_map(u16::to_le_bytes));
        out.extend(0_u32.to_le_bytes());
        option(2, name.as_bytes(), out);
        // Times are in nanoseconds.
        option(9, &[9], out);
        option(END_OF_OPTIONS, &[], out);
    });
}

fn packet(seen: &Seen, frame: &[u8], clock_offset: u64, out: &mut Vec<u8>) {
    block(6, out, |out| {
        let time = seen.time.wrapping_add(clock_offset);
        let words = [u32::from(seen.port), (time >> 32) as u32, time as u32, frame.len() as u32];
        out.extend(words.into_iter().flat_map(u32::to_le_bytes));
        out.extend(seen.length.max(frame.len() as u32).to_le_bytes());
        out.extend(frame);
        pad(out);
        let comment = comment(seen);
        if !comment.is_empty() {
            option(COMMENT, comment.as_bytes(), out);
        }
        // The direction, as the host sees it: 1 stands for what comes in, 2 for what goes out.
        let direction = if seen.way == Way::ToHost { 1_u32 } else { 2 };
        option(2, &direction.to_le_bytes(), out);
        option(END_OF_OPTIONS, &[], out);
    });
}

/// What has happened to a frame, in words. Empty for one that nothing has happened to.
fn comment(seen: &Seen) -> String {
    let way = if seen.way == Way::FromHost { "from" } else { "to" };
    let mut said = Vec::new();
    if let Some(cause) = seen.lost {
        said.push(format!("lost on its way {way} the host: {}", reason(cause)));
    }
    let words = [
        (marks::DUPLICATED, "sent twice"),
        (marks::COPY, "the second copy"),
        (marks::CORRUPTED, "one bit was changed"),
        (marks::OVERTAKEN, "another one has overtaken it"),
        (marks::HELD, "held back, for others to overtake it"),
    ];
    // Of one that was overtaken, it is clear that it was held back.
    let hides = if seen.marks & marks::OVERTAKEN != 0 { marks::HELD } else { 0 };
    said.extend(words.iter().filter(|(mark, _)| seen.marks & mark & !hides != 0).map(|(_, word)| (*word).to_owned()));
    if !said.is_empty() {
        said.push(format!("number {} of its flow", seen.number));
    }
    said.join("; ")
}

fn reason(cause: Cause) -> &'static str {
    match cause {
        Cause::Chance => "by chance",
        Cause::Numbered => "by its number",
        Cause::Matched => "a matcher says so",
        Cause::Cut => "the port is cut",
        Cause::Blocked => "the two ports are kept apart",
        Cause::TooLong => "it is longer than the MTU",
        Cause::QueueFull => "the queue of the rate is full",
        Cause::NoRoom => "belljar or the kernel had no room for it",
    }
}
