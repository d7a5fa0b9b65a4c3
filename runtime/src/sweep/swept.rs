//! What a sweep tells.

/// How the body of a case has ended, for the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It returned, and not an error.
    Returned,
    /// It returned an error.
    Failed,
    /// The fault killed its process.
    Killed,
}

/// What a sweep has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// How many calls of the kind the body makes if none of them fails.
    pub calls: u64,
    /// How many cases were run.
    pub cases: usize,
    /// In how many of these the body ended without making the call that was to fail. It makes other calls from run to run then.
    pub missed: usize,
}
