//! What wires have had trouble with: numbers of all laboratories of a test together, in memory that its wires write to, and that the test binary
//! has too.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::shared::SharedBytes;

/// What made the promise of the seed impossible, and other trouble: counts, which are zero if all went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WireTrouble {
    /// How many laboratories there were.
    pub(crate) laboratories: u64,
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
    /// How often a wire was asked to decide about all that was sent before, and did not answer in time.
    pub(crate) unanswered: u64,
}

/// The numbers of a [`WireTrouble`], in their places.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Laboratories,
    Overruns,
    TooLarge,
    Late,
    Latest,
    NoRoom,
    Refused,
    Forgotten,
    Unanswered,
}

/// How many there are, at least.
const NUMBERS: usize = 16;

/// The memory.
#[derive(Debug)]
pub(crate) struct Troubles {
    memory: SharedBytes,
    file: File,
}

impl Troubles {
    /// Those of this test.
    pub(super) fn get() -> nix::Result<&'static Self> {
        static ALL: OnceLock<Troubles> = OnceLock::new();
        if let Some(all) = ALL.get() {
            return Ok(all);
        }
        let (memory, file) = SharedBytes::new(c"belljar-trouble", NUMBERS * size_of::<u64>())?;
        Ok(ALL.get_or_init(|| Self { memory, file }))
    }

    /// Who has this can read the numbers, also when all processes of the sandbox are gone.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn word(&self, number: Number) -> Option<&AtomicU64> {
        self.memory.words(NUMBERS).get(number as usize)
    }

    /// Counts so many more. Several processes may do so at once.
    pub(super) fn add(&self, number: Number, count: u64) {
        if let Some(word) = self.word(number).filter(|_| count > 0) {
            word.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Remembers the largest.
    pub(super) fn raise(&self, number: Number, value: u64) {
        if let Some(word) = self.word(number) {
            word.fetch_max(value, Ordering::Relaxed);
        }
    }
}

impl WireTrouble {
    /// Reads what [`Troubles::file`] refers to. It may be anything: the body has it too.
    pub(crate) fn read(file: &File) -> io::Result<Self> {
        let mut bytes = [0; NUMBERS * size_of::<u64>()];
        file.read_exact_at(&mut bytes, 0)?;
        let word = |number: Number| {
            bytes.get(number as usize * 8..).and_then(<[u8]>::first_chunk).copied().map_or(0, u64::from_ne_bytes)
        };
        Ok(Self {
            laboratories: word(Number::Laboratories),
            overruns: word(Number::Overruns),
            too_large: word(Number::TooLarge),
            late: word(Number::Late),
            latest: word(Number::Latest),
            no_room: word(Number::NoRoom),
            refused: word(Number::Refused),
            forgotten: word(Number::Forgotten),
            unanswered: word(Number::Unanswered),
        })
    }
}
