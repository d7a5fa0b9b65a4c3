//! Messages about bodies that `belljar::run` was given.

use std::io;

use nix::errno::Errno;

use super::beginning::failed;
use super::may_be::MayBe;
use crate::diagnosis::Cause;
use crate::sys::errno_of;
use crate::text;

pub(in crate::harness) fn returned_error(test: &str, text: &str) -> String {
    format!("{}: its body returned an error: {text}", failed(test))
}

/// `cause` is why, if something shows.
pub(in crate::harness) fn input_not_kept(test: &str, errno: Errno, cause: Option<&Cause>) -> String {
    let cause = cause.map_or(String::new(), |cause| format!(" {}", MayBe(cause)));
    format!("{}: its input could not be kept: {}.{cause}", failed(test), text::error(errno))
}

pub(in crate::harness) fn output_lost(test: &str, error: &io::Error) -> String {
    format!("{}: what its body returned could not be read: {}.", failed(test), text::error(errno_of(error)))
}

/// The body of `outer` has called `belljar::run`.
pub(in crate::harness) fn run_inside(test: &str, outer: &str) -> String {
    format!(
        "{}: the body of `{outer}` has called `belljar::run`, and no sandbox can be made inside of one. Call the function itself.",
        failed(test)
    )
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use nix::errno::Errno;

    use crate::harness::words;
    use crate::text::snapshots::{lacking, page, told};

    #[test]
    fn each_message_has_its_words() {
        let told: Vec<(&str, String)> = told!(words::[
            returned_error("spec! at a.rs:7", "no such luck"),
            input_not_kept("spec! at a.rs:7", Errno::ENFILE, None),
            output_lost("spec! at a.rs:7", &Errno::ENOMEM.into()),
            run_inside("spec! at a.rs:7", "tests::a"),
        ]);
        let names: Vec<_> = told.iter().map(|(name, _)| *name).collect();
        assert_eq!(lacking(include_str!("bytes.rs"), &names), [""; 0], "these have no snapshot");
        assert_snapshot!(page(told), @"
        # returned_error
        belljar: `spec! at a.rs:7` failed: its body returned an error: no such luck
        # input_not_kept
        belljar: `spec! at a.rs:7` failed: its input could not be kept: ENFILE (File table overflow).
        # output_lost
        belljar: `spec! at a.rs:7` failed: what its body returned could not be read: ENOMEM (Out of memory).
        # run_inside
        belljar: `spec! at a.rs:7` failed: the body of `tests::a` has called `belljar::run`, and no sandbox can be made inside of one. Call the function itself.
        ");
    }
}
