//! What each message about a test that failed begins with.

pub(super) fn failed(test: &str) -> String {
    format!("belljar: `{test}` failed")
}
