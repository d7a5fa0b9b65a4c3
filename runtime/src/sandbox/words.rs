//! The messages of the test's process: errors for the body, and the last words before it exits.

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

/// The body of `outer` has called `test`.
pub(super) fn called_inside(test: &str, outer: &str) -> String {
    format!(
        "belljar: the body of `{outer}` has called `{test}`, which is an isolated test itself: no sandbox can be made inside of one. \
         So the process ends here. Put what both do into a function, and call that in both.\n"
    )
}
