//! What each message about a test that failed begins with, and what calls without an answer are to a test.

pub(super) fn failed(test: &str) -> String {
    format!("belljar: `{test}` failed")
}

/// `what` the body did, one of whose calls did what it was not to do.
pub(in crate::harness) fn fault_unmet(test: &str, what: &str) -> String {
    format!("{}: {what}, but a call did not meet a fault that is for it", failed(test))
}

/// `what` the body or its process did, which did not meet what it was to meet.
pub(in crate::harness) fn calls_unanswered(test: &str, what: &str) -> String {
    format!(
        "{}: {what}, but belljar could not answer some of its watched calls: these failed with ENOSYS, and no fault happened to them",
        failed(test)
    )
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn a_body_that_did_not_meet_its_fault_is_told() {
        assert_snapshot!(fault_unmet("commits", "its body returned"), @"belljar: `commits` failed: its body returned, but a call did not meet a fault that is for it");
    }

    #[test]
    fn a_body_that_had_no_answers_is_told() {
        assert_snapshot!(calls_unanswered("commits", "its body returned"), @"belljar: `commits` failed: its body returned, but belljar could not answer some of its watched calls: these failed with ENOSYS, and no fault happened to them");
    }
}
