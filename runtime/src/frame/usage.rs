//! What a sandbox has cost: plain data, read by the test binary, and sent to a test that asks for it.

use std::time::Duration;

/// What a sandbox has used, as far as the kernel tells: all its processes together. What is not known is `None`.
///
/// The figures are those of the sandbox's cgroup, see cgroups(7): of version 2 the files `memory.current`, `memory.peak` (since
/// Linux 5.19), `cpu.stat`, `pids.current` and `pids.peak` (since 6.11), and of version 1 those that correspond. To count takes
/// time, so that a figure is there for certain only where the test has written a limit for it, or `BELLJAR_REPORT` is set: a test
/// that looks at its memory says `memory = "1GiB"`, say. Where the user can have no cgroup, none is there.
///
/// ```test_harness
/// # use belljar::isolated;
/// #[isolated(memory = "1GiB", unsupported = "skip")]
/// fn files_take_memory() -> std::io::Result<()> {
///     std::fs::write("/tmp/data", vec![1; 32 << 20])?;
///     assert!(belljar::usage().memory > Some(32 << 20));
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The memory in use, in bytes. What is written to the tmpfs counts.
    pub memory: Option<u64>,
    /// The most memory that was in use at a time, in bytes.
    pub memory_peak: Option<u64>,
    /// The CPU time, of user and system together. What it took to set the sandbox up counts.
    pub cpu: Option<Duration>,
    /// How many processes and threads there are. belljar's own init is one.
    pub pids: Option<u64>,
    /// The most processes and threads that there were at a time.
    pub pids_peak: Option<u64>,
}

/// How many bytes a [`Usage`] takes on its way to the test.
pub(crate) const USAGE_SIZE: usize = 5 * FIGURE_SIZE;

/// A flag that says whether the figure is known, and the figure.
const FIGURE_SIZE: usize = 1 + size_of::<u64>();

impl Usage {
    pub(crate) fn encode(&self) -> [u8; USAGE_SIZE] {
        let Self { memory, memory_peak, cpu, pids, pids_peak } = *self;
        let cpu = cpu.and_then(|cpu| u64::try_from(cpu.as_nanos()).ok());
        let mut bytes = [0; USAGE_SIZE];
        for (place, figure) in bytes.chunks_exact_mut(FIGURE_SIZE).zip([memory, memory_peak, cpu, pids, pids_peak]) {
            place[0] = u8::from(figure.is_some());
            place[1..].copy_from_slice(&figure.unwrap_or_default().to_ne_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; USAGE_SIZE]) -> Self {
        let mut figures = bytes.chunks_exact(FIGURE_SIZE).map(|place| {
            let (known, figure) = place.split_first()?;
            (*known != 0).then_some(u64::from_ne_bytes(figure.try_into().ok()?))
        });
        let mut next = || figures.next().flatten();
        Self {
            memory: next(),
            memory_peak: next(),
            cpu: next().map(Duration::from_nanos),
            pids: next(),
            pids_peak: next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_survive_the_way() {
        let all = Usage {
            memory: Some(1),
            memory_peak: Some(u64::MAX),
            cpu: Some(Duration::from_millis(3)),
            pids: Some(0),
            pids_peak: Some(5),
        };
        let some = Usage { memory_peak: None, pids: None, ..all };
        for usage in [all, some, Usage::default()] {
            assert_eq!(Usage::decode(&usage.encode()), usage);
        }
    }
}
