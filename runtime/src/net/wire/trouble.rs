//! What a wire has had trouble with.

/// What made the promise of the seed impossible, and other trouble: counts, which are zero if all went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Frames that came faster than the wire could take them, and are lost.
    pub(crate) overruns: u64,
    /// Frames that were larger than the largest MTU that was announced, and are lost.
    pub(crate) too_large: u64,
    /// Frames that left more than 5 ms later than they should have, and by how many nanoseconds at most.
    pub(crate) late: u64,
    pub(crate) latest: u64,
    /// Frames that found no room while they were to wait.
    pub(crate) no_room: u64,
    /// Frames that the kernel did not take for a host: its end of the link may be down.
    pub(crate) refused: u64,
    /// Flows that were forgotten, because there were too many at a time.
    pub(crate) forgotten: u64,
    /// How often it was asked to decide about all that was sent before, and did not answer in time.
    pub(crate) unanswered: u64,
    /// Whether somebody has ended the process.
    pub(crate) has_died: bool,
}
