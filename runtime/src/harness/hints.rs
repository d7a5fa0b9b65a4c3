//! One note for a test that failed: its sandbox may be the reason.
//!
//! The note appears only if the text of the panic or of the error shows what a sandbox causes and the host does not. It names the option that
//! helps. A test that ran out of time may have waited for a thread that sandboxes lack.

use nix::errno::Errno;

use super::evidence::Evidence;
use super::judge::Verdict;
use super::run_by::RunBy;
use super::words;
use crate::frame::Outcome;
use crate::spec::{Ids, Root, Spec, Test};
use crate::zygote;

/// The note on a test that has failed, if there is one.
pub(super) fn note(test: &Test, verdict: &Verdict, evidence: &Evidence, caller: &RunBy) -> Option<String> {
    if *verdict == Verdict::Passed || verdict.is_expected(test) || evidence.faults.hits > 0 {
        return None;
    }
    let reason = match (evidence.outcome, zygote::threads_lost_in_fork()) {
        (None, threads @ [_, ..]) if evidence.timed_out.is_some() => words::note_on_threads(threads),
        (Some(Outcome::Panicked { .. }), _) => {
            find(&String::from_utf8_lossy(&evidence.panic_text), &test.spec, evidence)?
        }
        // What takes bytes returns its error as bytes, and 1. The others have printed theirs.
        (Some(Outcome::Returned(status)), _) => match caller.call() {
            Some(call) if status == 1 => find(&String::from_utf8_lossy(&call.output().ok()?), &test.spec, evidence)?,
            Some(_) => return None,
            None => find(&evidence.last_line, &test.spec, evidence)?,
        },
        (Some(Outcome::Vanished) | None, _) => return None,
    };
    Some(format!("belljar: `{}` may have failed because of its sandbox: {reason}.", test.short_name()))
}

fn find(text: &str, spec: &Spec, evidence: &Evidence) -> Option<String> {
    let shows = |errno| shows(text, errno);
    let tells_of = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let has_own_root = spec.mount && spec.root == Root::Tmpfs;
    if has_own_root && shows(Errno::EROFS) {
        Some(words::note_on_read_only().to_owned())
    } else if !evidence.captures.is_empty() {
        // What it did not reach may be on a host of its laboratory.
        None
    } else if spec.net && tells_of(&NO_NAME) {
        Some(words::note_on_names().to_owned())
    } else if spec.net && (shows(Errno::ENETUNREACH) || shows(Errno::EHOSTUNREACH)) {
        Some(words::note_on_network().to_owned())
    } else if spec.ids == Ids::One && (tells_of(&["setgroups"]) && shows(Errno::EPERM) || is_of_ids(text)) {
        Some(words::note_on_ids().to_owned())
    } else if let (Some(limit), true, 0) = (spec.pids, evidence.has_process_limit, evidence.events.forks_refused) {
        shows(Errno::EAGAIN).then(|| words::note_on_processes(limit))
    } else {
        None
    }
}

/// How name resolution fails, in the words of the C library, the standard library and curl.
const NO_NAME: [&str; 4] = [
    "failed to lookup address information",
    "Temporary failure in name resolution",
    "Name or service not known",
    "Could not resolve host",
];

/// Whether a text tells of a user or a group that has no number: EINVAL of a call that takes one, or of one that is not named.
fn is_of_ids(text: &str) -> bool {
    const CALLS: [&str; 7] = ["chown", "setuid", "setgid", "seteuid", "setegid", "setres", "setre"];
    // Of `unwrap`, and of what a test returns.
    const UNNAMED: [&str; 2] = ["called `Result::unwrap()` on an `Err` value: ", "Error: "];
    let is_bare = |rest: &str| rest == "EINVAL" || rest.starts_with("EINVAL: ") || rest.starts_with("Os { code: 22,");
    let is_unnamed = || UNNAMED.iter().any(|before| text.strip_prefix(before).is_some_and(is_bare));
    shows(text, Errno::EINVAL) && (CALLS.iter().any(|call| text.contains(call)) || is_unnamed())
}

/// Whether a text shows an error: by its name, by its description, or by its number as the standard library writes that.
fn shows(text: &str, errno: Errno) -> bool {
    let (name, number) = (format!("{errno:?}"), errno as i32);
    let is_name = |(at, _): (usize, &str)| {
        let around = [text[..at].chars().next_back(), text[at + name.len()..].chars().next()];
        around.into_iter().flatten().all(|char| !char.is_alphanumeric() && char != '_')
    };
    text.contains(errno.desc())
        || text.match_indices(&name).any(is_name)
        || [format!("(os error {number})"), format!("code: {number},")].iter().any(|shown| text.contains(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_recognised() {
        let error = std::io::Error::from(Errno::EROFS);
        for text in [format!("{error}"), format!("{error:?}"), "mkdir: EROFS".to_owned(), "EROFS".to_owned()] {
            assert!(shows(&text, Errno::EROFS), "{text}");
        }
        for text in ["", "EROFSX", "NOT_EROFS", "code: 300,", "os error 30"] {
            assert!(!shows(text, Errno::EROFS), "{text}");
        }
    }

    #[test]
    fn ids_are_recognised() {
        assert!(is_of_ids("chown: EINVAL: Invalid argument"));
        assert!(is_of_ids("called `Result::unwrap()` on an `Err` value: EINVAL"));
        assert!(is_of_ids("Error: EINVAL"));
        assert!(is_of_ids("Error: Os { code: 22, kind: InvalidInput, message: \"Invalid argument\" }"));
        let unwrapped = "called `Result::unwrap()` on an `Err` value: EPERM";
        for text in ["mount: EINVAL", "chown: EPERM", unwrapped, "Error: Mount(EINVAL)", "Error: \"mount: EINVAL\""] {
            assert!(!is_of_ids(text), "{text}");
        }
    }
}
