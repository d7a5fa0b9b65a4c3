//! What reads bytes that others have written: the doors by which a fuzzer comes in. No build of a user has this module. `fuzz/` in the
//! repository has the fuzzer, and the test below plays its seeds.
//!
//! Each function takes any bytes. It panics if belljar breaks a promise:
//!
//! - No input makes a reader panic. What a reader accepts is written back as the same bytes.
//! - A test passes only after two frames. First, the test's process says that the body returned. Then init says that this process ended as it does
//!   after that. Init is the process that sent the frame `Born`. Three things keep a test from passing: a message that is no frame, a frame of
//!   init's from somebody else, and another end of the body.
//! - A test is skipped only if a frame says that the host refused a step. If another frame says that the body has ended, the refusal must come from
//!   init.
//! - Messages show what a test has written without its control characters.
//!
//! What is not promised: that a body is found out which writes that it returned, and ends its process itself as belljar does. It is in the
//! same process. And root of a sandbox may send a message in the name of init, see unix(7) on SCM_CREDENTIALS. belljar is no boundary against
//! hostile code.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::cgroup::{self, GroupHandle};
use crate::frame::changes;
use crate::frame::usage::{USAGE_SIZE, Usage};
use crate::harness::fuzzed;
use crate::proc::{Stat, mounts_in};
use crate::settings::Settings;
use crate::zygote::{ids, request};

/// Messages between belljar's processes. The first byte says between which.
pub fn messages(input: &[u8]) {
    let Some((&way, input)) = input.split_first() else { return };
    match way {
        0 => drop(fuzzed::reports(input)),
        1 => request::fuzz(input, &fuzzed::TESTS[0].spec),
        2 => replies(input),
        _ => {}
    }
}

/// What the test's process is told.
fn replies(input: &[u8]) {
    if let Some(list) = changes::decode(input) {
        assert_eq!(changes::encode(&list), input);
    }
    if let Some(figures) = input.first_chunk::<USAGE_SIZE>() {
        let usage = Usage::decode(figures);
        assert_eq!(Usage::decode(&usage.encode()), usage);
    }
    if let Some((count, message)) = input.split_first() {
        let fds: Vec<_> = (0..count % 4).filter_map(|_| File::open("/dev/null").ok()).map(Into::into).collect();
        let count = fds.len();
        if let Some(Ok(directories)) = GroupHandle::decode(message, fds) {
            assert_eq!(directories.len(), count);
        }
    }
}

/// What the kernel, the environment, files of the system and tests say in words. The first byte says which words.
pub fn texts(input: &[u8]) {
    let Some((&way, bytes)) = input.split_first() else { return };
    let text = &*String::from_utf8_lossy(bytes);
    match way {
        0 => {
            let mounts = mounts_in(bytes);
            assert!(mounts.len() <= bytes.split(|byte| *byte == b'\n').count());
        }
        1 => {
            if let Some(stat) = Stat::parse(bytes) {
                let _ = (stat.state(), stat.parent(), stat.flags(), stat.faults_of_children(), stat.began());
                let _ = stat.wait_status();
            }
        }
        2 => {
            cgroup::fuzz(bytes);
            cgroup::fuzz_counts(bytes);
        }
        3 => {
            let variables = bytes.split(|byte| *byte == 0).filter_map(|line| {
                let at = line.iter().position(|byte| *byte == b'=')?;
                Some((OsStr::from_bytes(&line[..at]).to_owned(), OsStr::from_bytes(&line[at + 1..]).to_owned()))
            });
            drop(Settings::read(variables, Path::new("/"), true));
        }
        4 => drop(ids::ranges(text, "ann", 1000)),
        5 => drop(ids::lines_for_init(text)),
        _ => fuzzed::texts(way - 6, bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;
    use std::{env, thread};

    use fastrand::Rng;

    use super::*;
    use crate::frame::changes::Change;
    use crate::frame::examples;
    use crate::frame::{Buffer, Frame, Outcome, REPORTED};
    use crate::harness::fuzzed::{BY_INIT, HAS_TRACE, IS_BORN};
    use crate::sys::{Crash, End};

    /// What is a seed: its name, and what it holds.
    type Seeds = BTreeMap<String, Vec<u8>>;

    fn directory(of: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(of)
    }

    fn read(of: &str) -> Seeds {
        let entries = fs::read_dir(directory(of)).expect("the seeds").map(|entry| entry.expect("a seed"));
        let seed = |entry: fs::DirEntry| {
            (entry.file_name().into_string().expect("a name"), fs::read(entry.path()).expect("a seed"))
        };
        entries.map(seed).collect()
    }

    /// A seed in which a sandbox sends these frames, each with the byte that says how.
    fn reports(flags: u8, frames: &[(u8, Frame<'_>)]) -> Vec<u8> {
        let mut seed = vec![0, flags];
        for (how, frame) in frames {
            let mut buffer = Buffer::new();
            let bytes = frame.encode(&mut buffer);
            seed.extend((bytes.len() as u16).to_le_bytes());
            seed.push(*how);
            seed.extend_from_slice(bytes);
        }
        seed
    }

    /// Messages as belljar writes them: each frame, some whole lives, a request, and replies.
    fn real() -> Seeds {
        let returned = Frame::Finished(Outcome::Returned(0));
        let panicked = Frame::Finished(Outcome::Panicked { text: true });
        let ended = |status| Frame::Ended { end: End::Exited(status), execed: false, stays: false, cpu: 7 };
        let killed = Frame::Ended { end: End::Killed { signal: 11, core: false }, execed: false, stays: false, cpu: 7 };
        let refused = examples().into_iter().find(|frame| matches!(frame, Frame::Refused(_))).expect("a refusal");
        let lives: [(&str, &[(u8, Frame<'_>)]); 9] = [
            ("passes", &[(0, returned), (BY_INIT, ended(REPORTED))]),
            ("panics", &[(0, Frame::PanicText(b"on purpose")), (0, panicked), (BY_INIT, ended(REPORTED))]),
            ("exits", &[(0, Frame::Exiting), (BY_INIT, ended(0))]),
            ("dies", &[(0, Frame::Crash(Crash::StackOverflow)), (BY_INIT, killed)]),
            ("is-refused", &[(0, refused)]),
            ("ends-itself", &[(0, returned), (0, ended(REPORTED))]),
            ("finishes-twice", &[(0, panicked), (0, returned), (BY_INIT, ended(REPORTED))]),
            ("passes-and-is-refused", &[(0, returned), (0, refused), (BY_INIT, ended(REPORTED))]),
            ("is-refused-and-passes", &[(0, refused), (0, returned), (BY_INIT, ended(REPORTED))]),
        ];
        let lives = lives.map(|(name, frames)| (name.to_owned(), reports(IS_BORN, frames)));
        // One of each kind, which is the first word of its name in the code.
        let frame = |frame: Frame<'_>| {
            let name = format!("{frame:?}");
            let name = name.split(|char: char| !char.is_alphanumeric()).next().unwrap_or_default().to_lowercase();
            (format!("frame-{name}"), reports(IS_BORN | HAS_TRACE, &[(BY_INIT | 1, frame)]))
        };
        let changes = [Change::Created("/a".into()), Change::Changed("/b".into()), Change::Removed("/c".into())];
        let usage = Usage { memory: Some(1), pids: Some(2), ..Usage::default() };
        let others = [
            ("request", request::example(&fuzzed::TESTS[0].spec)),
            ("changes", [&[2], &*changes::encode(&changes)].concat()),
            ("usage", [&[2], &usage.encode()[..]].concat()),
            ("group", vec![2, 1, 0, 0x83]),
        ];
        let others = others.map(|(name, seed)| (name.to_owned(), seed));
        examples().into_iter().map(frame).chain(lives).chain(others).collect()
    }

    /// A seed with some bytes changed, cut off, doubled, or taken from another one.
    fn mutate(seed: &[u8], other: &[u8], random: &mut Rng) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(..=bytes.len());
            let end = random.usize(at..=bytes.len()).min(at + 64);
            match random.u8(..6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
                1 if at < bytes.len() => bytes[at] = random.choice([0, 1, 0x7f, 0x80, 0xff]).expect("one"),
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let twice = bytes[at..end].to_vec();
                    drop(bytes.splice(at..at, twice));
                }
                _ => {
                    let from = random.usize(..=other.len());
                    let piece = other[from..].iter().take(random.usize(..=64)).copied();
                    drop(bytes.splice(at..at, piece));
                }
            }
        }
        bytes
    }

    /// Bytes that are shown if they make a reader panic.
    struct Shown(Vec<u8>);

    impl Drop for Shown {
        fn drop(&mut self) {
            if thread::panicking() {
                println!("it was {:?}", self.0);
            }
        }
    }

    /// How many mutations of a seed are read. More, if the environment asks for more rounds.
    const MUTATIONS: u64 = 200;

    /// Reads the seeds, and mutations of them: the same in each run.
    fn play(of: &str, door: fn(&[u8])) {
        let rounds = env::var_os("BELLJAR_TESTS_ROUNDS");
        let rounds =
            rounds.map_or(1, |rounds| rounds.to_str().and_then(|rounds| rounds.parse().ok()).expect("a number"));
        let seeds: Vec<_> = read(of).into_iter().collect();
        let mut random = Rng::with_seed(17);
        for (name, seed) in &seeds {
            println!("{name}");
            door(seed);
            for _ in 0..MUTATIONS * rounds {
                let (_, other) = random.choice(&seeds).expect("a seed");
                let mutated = Shown(mutate(seed, other, &mut random));
                door(&mutated.0);
            }
        }
    }

    /// The numbers in the seeds are as this kind of machine writes them.
    #[test]
    #[cfg(all(target_endian = "little", target_pointer_width = "64"))]
    fn seeds_are_real_messages() {
        let seeds = read("messages");
        for (name, real) in real() {
            assert_eq!(seeds.get(&name), Some(&real), "{name}: run the test `write_seeds`, which is ignored");
        }
    }

    #[test]
    #[ignore = "writes the seeds to the source tree"]
    fn write_seeds() {
        for (name, real) in real() {
            fs::write(directory("messages").join(name), real).expect("write");
        }
    }

    #[test]
    fn messages_may_be_anything() {
        play("messages", messages);
    }

    #[test]
    fn texts_may_be_anything() {
        play("texts", texts);
    }
}
