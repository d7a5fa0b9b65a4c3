//! Frames that are made up, and what the kernel and tests write: for [`fuzzed`](crate::fuzzed).

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;

use super::evidence::{Ended, Evidence};
use super::hints::note;
use super::judge::{Verdict, judge};
use super::output::whole_characters;
use super::run_by::RunBy;
use super::sandbox::Sandbox;
use crate::diagnosis::{self, Cause, Page, barrier_of, holds};
use crate::frame::{Buffer, FRAME_MAX, Frame, MAGIC, Outcome, REPORTED};
use crate::spec::{Root, Spec, Test};
use crate::sys::End;
use crate::terminal::Terminal;

/// Tests that nobody runs.
pub(crate) static TESTS: [Test; 2] =
    [test(Spec::PLAIN), test(Spec { root: Root::Overlay, pids: Some(8), ..Spec::PLAIN })];

const fn test(spec: Spec) -> Test {
    Test { name: "a::test", spec, ..Test::PLAIN }
}

/// Who sends: init and the test's process.
const INIT: i32 = 101;
const BODY: i32 = 102;

// The bits of the first byte: what the test is like.
const HAS_COPY: u8 = 1;
pub(crate) const HAS_TRACE: u8 = 2;
/// Init has been born, so that the test may have begun.
pub(crate) const IS_BORN: u8 = 4;
/// A process limit stands in for a cgroup.
const HAS_PROCESS_LIMIT: u8 = 8;

// The bits of the byte before each message: how it is sent. The lowest two are how many sockets come with it. (For each file of another kind, a
// thread is started to close it.)
const FDS: u8 = 3;
/// Init sends it, and not the test.
pub(crate) const BY_INIT: u8 = 8;
/// It begins as all frames do, and goes on with what is written.
const IS_MARKED: u8 = 16;

/// Each message has its length before it, in two bytes, and then how it is sent.
const HEAD: usize = 3;

/// What a sandbox has sent, as the rules have it and not as [`Sandbox`] does.
#[derive(Default)]
struct Sent {
    /// Whether all were frames.
    is_clean: bool,
    returned: bool,
    failed: bool,
    refused: bool,
    /// Whether init has, which may come after the end of the body.
    refused_by_init: bool,
    /// How the test's process has ended, if init has said so.
    end: Option<End>,
}

/// Has the test binary hear all messages in `input`, and judge.
pub(crate) fn reports(input: &[u8]) -> io::Result<()> {
    let Some((&flags, mut rest)) = input.split_first() else { return Ok(()) };
    let test = &TESTS[usize::from(flags & HAS_COPY != 0)];
    let mut sandbox = Sandbox::made_up(&test.spec, flags & HAS_TRACE != 0)?;
    let is_born = flags & IS_BORN != 0;
    if is_born {
        let null = vec![File::open("/dev/null")?.into()];
        assert_eq!(sandbox.hear(Frame::Born.encode(&mut Buffer::new()), null, INIT), Ok(false));
    }
    let mut sent = Sent { is_clean: true, ..Sent::default() };
    while let Some((&[l0, l1, how], after)) = rest.split_first_chunk::<HEAD>() {
        let (bytes, after) = after.split_at(usize::from(u16::from_le_bytes([l0, l1])).min(after.len()));
        rest = after;
        let begin = if how & IS_MARKED != 0 { &MAGIC[..] } else { &[] };
        let bytes = [begin, bytes].concat();
        let frame = Frame::decode(&bytes).filter(|_| bytes.len() <= FRAME_MAX);
        if let Some(frame) = frame {
            has_one_form(&frame, &bytes);
        }
        // Groups are made in cgroups of this machine.
        let count = if matches!(frame, Some(Frame::AskGroup(_))) { 0 } else { how & FDS };
        let fds = (0..count).map(|_| Ok(UnixStream::pair()?.0.into())).collect::<io::Result<_>>()?;
        // Nobody else is there before.
        let is_init = !is_born || how & BY_INIT != 0;
        match frame {
            Some(Frame::Finished(Outcome::Returned(0))) => sent.returned = true,
            Some(Frame::Finished(_)) => sent.failed = true,
            Some(Frame::Refused(_)) => {
                sent.refused = true;
                sent.refused_by_init |= is_init;
            }
            Some(Frame::Ended { end, .. }) if is_init => sent.end = Some(end),
            Some(_) => {}
            None => sent.is_clean = false,
        }
        match sandbox.hear(&bytes, fds, if is_init { INIT } else { BODY }) {
            Ok(false) => {}
            Ok(true) => break,
            // It is given up.
            Err(_) => return Ok(()),
        }
    }
    let mut evidence = sandbox.heard();
    evidence.has_process_limit = flags & HAS_PROCESS_LIMIT != 0;
    is_judged_rightly(test, &evidence, &sent);
    Ok(())
}

/// What was read as a frame is written as the same bytes. Only the number of an error that nobody knows gets lost.
fn has_one_form(frame: &Frame<'_>, bytes: &[u8]) {
    let mut buffer = Buffer::new();
    let encoded = frame.encode(&mut buffer);
    assert_eq!(Frame::decode(encoded).as_ref(), Some(frame));
    if !matches!(frame, Frame::Refused(_) | Frame::Unanswered(_)) {
        assert_eq!(encoded, bytes);
    }
}

/// No pass without a body that has returned and a process that has ended as such do; and no skip of a test that has ended.
fn is_judged_rightly(test: &Test, evidence: &Evidence, sent: &Sent) {
    if let (Some(refusal), None) = (&evidence.refused, evidence.rubbish) {
        assert!(sent.refused && sent.is_clean && (sent.refused_by_init || !sent.returned && !sent.failed));
        let cause = Cause::program_refuses(&refusal.path(), &String::from_utf8_lossy(&refusal.said));
        let page = Page::new(refusal.step, &refusal.path(), refusal.errno, cause);
        is_plain(&page.in_full(test.short_name()));
        is_plain(&diagnosis::table(&[("a", "b", Some(&page)), ("c", "d", Some(&page))], false, Terminal::NONE));
        return;
    }
    let Ok(verdict) = judge(test, evidence) else { panic!("an obstacle without a refusal") };
    let ended = sent.is_clean && !sent.refused && sent.end == Some(End::Exited(REPORTED));
    match &verdict {
        Verdict::Passed => assert!(ended && sent.returned && !sent.failed),
        Verdict::Panicked(_) => assert!(ended && sent.failed && !sent.returned),
        Verdict::Skipped(_) => panic!("a skip without a refusal"),
        Verdict::Failed(text) => is_plain(text),
    }
    // What tests that pass send is taken for that.
    let Some(Ended { end, .. }) = evidence.ended else { return };
    assert_eq!(Some(end), sent.end);
    if let Some(note) = note(test, &verdict, evidence, &RunBy::Harness) {
        is_plain(&note);
    }
}

/// Nothing that a test chooses can write over what belljar tells.
fn is_plain(text: &str) {
    assert!(!text.contains(|char: char| char.is_control() && char != '\n'), "{text:?}");
}

/// Reads text in one way, by the number of that.
pub(crate) fn texts(way: u8, bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    match way {
        0 => drop(barrier_of(text)),
        1 => {
            holds(text, 0);
            holds(text, u32::MAX);
        }
        2 => drop(crate::proc::kernel_version(text)),
        _ => {
            let (mut pending, mut read) = (Vec::new(), String::new());
            for piece in bytes.chunks(usize::from(way)) {
                pending.extend_from_slice(piece);
                read.push_str(&whole_characters(&mut pending));
                assert!(pending.len() < 4, "more than a character is held back");
            }
            read.push_str(&String::from_utf8_lossy(&pending));
            assert_eq!(read, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Moment, PAYLOAD_MAX};
    use crate::harness::evidence::PANIC_TEXT_MAX;

    /// What is kept of what a test sends without end.
    fn kept(frame: Frame<'_>, times: usize) -> Evidence {
        let mut sandbox = Sandbox::made_up(&TESTS[0].spec, true).expect("descriptors");
        let mut buffer = Buffer::new();
        let bytes = frame.encode(&mut buffer);
        for _ in 0..times {
            assert_eq!(sandbox.hear(bytes, Vec::new(), BODY), Ok(false));
        }
        sandbox.heard()
    }

    #[test]
    fn what_a_test_sends_without_end_is_not_kept() {
        let text = [b'x'; PAYLOAD_MAX];
        let kept_of_panic = kept(Frame::PanicText(&text), PANIC_TEXT_MAX / PAYLOAD_MAX + 10);
        assert_eq!((kept_of_panic.panic_text.len(), kept_of_panic.rubbish), (PANIC_TEXT_MAX, None));
        let mark = Frame::Mark { moment: Moment::Begins, at: 0, path: &text[..500] };
        assert_eq!(kept(mark, 1000).rubbish, None);
        assert!(kept(mark, 4000).rubbish > Some(0));
    }

    #[test]
    fn rubbish_is_counted_to_the_end() {
        let mut evidence = Evidence::default();
        for bytes in [0, usize::MAX, 1] {
            evidence.throw_away(bytes);
        }
        assert_eq!(evidence.rubbish, Some(usize::MAX));
    }
}
