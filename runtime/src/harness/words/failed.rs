//! What each message about a test that failed begins with, and what calls without an answer are to a test.

pub(super) fn failed(test: &str) -> String {
    format!("belljar: `{test}` failed")
}

/// The body returned, and did not meet what it was to meet.
pub(in crate::harness) fn calls_unanswered(test: &str) -> String {
    format!("{}: its body returned, but calls that are watched for faults had no answer", failed(test))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn a_body_that_had_no_answers_is_told() {
        assert_snapshot!(calls_unanswered("commits"), @"belljar: `commits` failed: its body returned, but calls that are watched for faults had no answer");
    }
}
