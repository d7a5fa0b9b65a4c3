//! The messages of the test's process: errors for the body, and the last words before it exits.

use std::io;

use crate::sys::errno_of;
use crate::text;

pub(super) fn bad_name(name: &str) -> String {
    format!(
        "belljar: {name:?} is no name for a group: it must have 1 to 255 bytes, no `/`, not begin with `belljar.`, and be \
         neither `.` nor `..`."
    )
}

pub(super) fn bad_value(group: &str, value: &str, expected: &str) -> String {
    format!("belljar: the group `{group}` can't have {value}: expected {expected}.")
}

pub(super) fn no_group(group: &str) -> String {
    format!(
        "belljar: there can be no group `{group}` here: this is no sandbox, or it has closed the descriptor that leads to the test binary."
    )
}

pub(super) fn freezing_needs_proc(group: &str) -> String {
    format!(
        "belljar: the group `{group}` was not frozen: there is no /proc to see whether its processes have stopped. Mount one."
    )
}

pub(super) fn is_elsewhere(group: &str) -> String {
    format!(
        "belljar: this pid namespace does not know the processes of the group `{group}`. Use it in the one that it was made in."
    )
}

pub(super) fn has_caller(group: &str) -> String {
    format!("belljar: the group `{group}` was not frozen, because this process is in it, and would not go on.")
}

pub(super) fn no_changes() -> String {
    "belljar: nothing is known of changes here: this is no sandbox, or it has closed the descriptor that leads to the test binary."
        .to_owned()
}

pub(super) fn no_copy() -> String {
    "belljar: nothing is known of changes here: the root of this sandbox is no copy of another tree. Write `root = \"overlay\"`, or \
     the path of a directory."
        .to_owned()
}

pub(super) fn outside(test: &str) -> String {
    format!(
        "belljar: `{test}` failed: it would have run outside of its sandbox, because an attribute below `#[isolated]` has dropped that. Write \
         `#[isolated]` last. All other tests of this binary end with it.\n"
    )
}

/// What `belljar::run` was given to call is not in the sandbox.
pub(super) fn no_function() -> String {
    "belljar: the sandbox does not have the code of this body. It is a fork of the process as it was before `main`, and the library with \
     this function was loaded later. Give `belljar::run` a function of the program, and load the library in that."
        .to_owned()
}

/// What `belljar::run` was given did not arrive.
pub(super) fn no_input(error: &io::Error) -> String {
    format!("belljar: the input of this body could not be read: {}", text::error(errno_of(error)))
}

/// What the body of `belljar::run` has returned can't leave the sandbox.
pub(super) fn no_output(bytes: usize, error: &io::Error) -> String {
    format!(
        "belljar: the {bytes} bytes that this body has returned could not be handed over: {}. Close only descriptors that you opened.",
        text::error(errno_of(error))
    )
}

/// The body of `outer` has called `test`.
pub(super) fn called_inside(test: &str, outer: &str) -> String {
    format!(
        "belljar: the body of `{outer}` has called `{test}`, which is an isolated test itself: no sandbox can be made inside of one. \
         So the process ends here. Put what both do into a function, and call that in both.\n"
    )
}

#[cfg(any(feature = "net", test))]
/// The body has returned, and a thread on a host of its laboratory has panicked before, as `how` says.
pub(super) fn panicked_on_host(test: &str, how: &str) -> String {
    format!("belljar: `{test}` failed: {how}\n")
}

#[cfg(any(feature = "net", test))]
/// What is to be said of a laboratory of `test`, which has failed.
pub(super) fn note_on_lab(test: &str, note: &str) -> String {
    format!("belljar: `{test}`: {note}\n")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use nix::errno::Errno;

    use crate::sandbox::words;
    use crate::text::snapshots::{lacking, page, told};

    #[test]
    fn each_message_has_its_words() {
        let told: Vec<(&str, String)> = told!(words::[
            bad_name("a/b\n"),
            bad_value("group", "cpu = 0", "EXPECTED"),
            no_group("group"),
            freezing_needs_proc("group"),
            is_elsewhere("group"),
            has_caller("group"),
            no_changes(),
            no_copy(),
            outside("tests::a"),
            no_function(),
            no_input(&Errno::EIO.into()),
            no_output(7, &Errno::ENOSPC.into()),
            called_inside("tests::a", "tests::b"),
            panicked_on_host("tests::a", "HOW"),
            note_on_lab("tests::a", "NOTE"),
        ]);
        let names: Vec<_> = told.iter().map(|(name, _)| *name).collect();
        assert_eq!(lacking(include_str!("words.rs"), &names), [""; 0], "these have no snapshot");
        assert_snapshot!(page(told), @r#"
        # bad_name
        belljar: "a/b\n" is no name for a group: it must have 1 to 255 bytes, no `/`, not begin with `belljar.`, and be neither `.` nor `..`.
        # bad_value
        belljar: the group `group` can't have cpu = 0: expected EXPECTED.
        # no_group
        belljar: there can be no group `group` here: this is no sandbox, or it has closed the descriptor that leads to the test binary.
        # freezing_needs_proc
        belljar: the group `group` was not frozen: there is no /proc to see whether its processes have stopped. Mount one.
        # is_elsewhere
        belljar: this pid namespace does not know the processes of the group `group`. Use it in the one that it was made in.
        # has_caller
        belljar: the group `group` was not frozen, because this process is in it, and would not go on.
        # no_changes
        belljar: nothing is known of changes here: this is no sandbox, or it has closed the descriptor that leads to the test binary.
        # no_copy
        belljar: nothing is known of changes here: the root of this sandbox is no copy of another tree. Write `root = "overlay"`, or the path of a directory.
        # outside
        belljar: `tests::a` failed: it would have run outside of its sandbox, because an attribute below `#[isolated]` has dropped that. Write `#[isolated]` last. All other tests of this binary end with it.
        # no_function
        belljar: the sandbox does not have the code of this body. It is a fork of the process as it was before `main`, and the library with this function was loaded later. Give `belljar::run` a function of the program, and load the library in that.
        # no_input
        belljar: the input of this body could not be read: EIO (I/O error)
        # no_output
        belljar: the 7 bytes that this body has returned could not be handed over: ENOSPC (No space left on device). Close only descriptors that you opened.
        # called_inside
        belljar: the body of `tests::b` has called `tests::a`, which is an isolated test itself: no sandbox can be made inside of one. So the process ends here. Put what both do into a function, and call that in both.
        # panicked_on_host
        belljar: `tests::a` failed: HOW
        # note_on_lab
        belljar: `tests::a`: NOTE
        "#);
    }
}
