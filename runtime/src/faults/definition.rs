//! What a fault is: of which calls, when, and what becomes of them. It crosses to the supervisor as numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::calls::{Calls, Operand};
use super::pattern;
use crate::chance::{hash, mix};
use crate::collect::CollectVec as _;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The call is made as usual, perhaps later.
    GoOn,
    Errno(i32),
    Returns(i64),
    /// So many bytes are read or written.
    Short(u64),
    Signal(i32),
    /// It goes on, and what it syncs is copied: for a sweep.
    Keep,
}

/// Which of the calls it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    Nth(u64),
    First(u64),
    Every(u64),
    After(u64),
    Seeded { seed: u64, odds: u64 },
}

/// Where a call stands among those of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Among those of all threads, from 1.
    pub(crate) of_all: u64,
    /// Among those of its thread, from 1.
    pub(crate) of_thread: u64,
}

impl When {
    pub(crate) fn happens(self, Position { of_all, of_thread }: Position) -> bool {
        match self {
            Self::Always => true,
            Self::Nth(n) => of_all == n,
            Self::First(n) => of_all <= n,
            Self::Every(n) => n != 0 && of_all % n == 0,
            Self::After(n) => of_all > n,
            Self::Seeded { seed, odds } => odds == u64::MAX || mix(hash(&[seed, of_thread])) < odds,
        }
    }
}

/// Which of two files a path is for, where a call has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Any,
    Read,
    Written,
}

impl Side {
    /// Whether what this operand names is meant.
    pub(crate) fn has(self, operand: Operand) -> bool {
        !matches!((self, operand), (Self::Read, Operand::Target(_)) | (Self::Written, Operand::Source(_)))
    }
}

/// The address that a call has, and its port.
pub(crate) type Peer = (IpAddr, u16);

/// A fault, as the supervisor knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) calls: Calls,
    pub(crate) side: Side,
    pub(crate) when: When,
    pub(crate) effect: Effect,
    /// In nanoseconds.
    pub(crate) delay: u64,
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) port: Option<u16>,
    pub(crate) address: Option<IpAddr>,
}

/// Room for the numbers of a definition that have a fixed position: there are 12.
const HEAD: usize = 16;

/// How many words a definition has.
pub(super) const WORDS: usize = HEAD + Calls::WORDS + pattern::LENGTH_MAX / 8;

impl Definition {
    /// Whether the pattern matches this path, as the sandbox sees it or as the caller sees it below its own root. `root` is asked only if that can
    /// matter.
    pub(crate) fn is_of_path<'r>(&self, path: &Path, root: impl FnOnce() -> &'r Path) -> bool {
        self.path.as_ref().is_none_or(|pattern| {
            let path = path.as_os_str().as_bytes();
            let inner = || pattern::below(root().as_os_str().as_bytes(), path);
            pattern::matches(pattern, path)
                || pattern::may_match_below(pattern, path)
                    && inner().is_some_and(|path| pattern::matches(pattern, path))
        })
    }

    /// Whether this address is meant. An address of version 4 may be written as one of version 6.
    pub(crate) fn is_of_peer(&self, peer: Option<Peer>) -> bool {
        let address = peer.map(|(address, _)| address.to_canonical());
        self.port.is_none_or(|port| peer.is_some_and(|(_, other)| other == port))
            && self.address.is_none_or(|wanted| address == Some(wanted.to_canonical()))
    }

    pub(super) fn encode(&self) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        let (when, first, second) = match self.when {
            When::Always => (0, 0, 0),
            When::Nth(n) => (1, n, 0),
            When::First(n) => (2, n, 0),
            When::Every(n) => (3, n, 0),
            When::After(n) => (4, n, 0),
            When::Seeded { seed, odds } => (5, seed, odds),
        };
        let (effect, value) = match self.effect {
            Effect::GoOn => (0, 0),
            Effect::Errno(errno) => (1, errno as u64),
            Effect::Returns(value) => (2, value as u64),
            Effect::Short(count) => (3, count),
            Effect::Signal(signal) => (4, signal as u64),
            Effect::Keep => (5, 0),
        };
        let (family, bytes) = match self.address {
            None => (0, 0),
            Some(IpAddr::V4(address)) => (4, u128::from(u32::from(address))),
            Some(IpAddr::V6(address)) => (6, u128::from(address)),
        };
        let length = self.path.as_ref().map_or(0, |path| path.len() as u64 + 1);
        let port = self.port.map_or(0, |port| u64::from(port) + 1);
        let side = self.side as u64;
        let address = [(bytes >> 64) as u64, bytes as u64];
        let head = [when, first, second, effect, value, self.delay, side, port, family, address[0], address[1], length];
        words[..head.len()].copy_from_slice(&head);
        words[HEAD..HEAD + Calls::WORDS].copy_from_slice(&self.calls.0);
        let path = self.path.as_deref().unwrap_or_default();
        for (word, bytes) in words[HEAD + Calls::WORDS..].iter_mut().zip(path.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(whole);
        }
        words
    }

    /// Reads what another process has written. `None` if it can't be.
    pub(super) fn decode(words: &[u64; WORDS]) -> Option<Self> {
        let [when, first, second, effect, value, delay, side, port, family, high, low, length, ..] = *words;
        let (head, path) = words[HEAD..].split_at(Calls::WORDS);
        let length = usize::try_from(length).ok()?.checked_sub(1);
        if length.is_some_and(|length| length > pattern::LENGTH_MAX) {
            return None;
        }
        let path = length.map(|length| path.iter().flat_map(|word| word.to_le_bytes()).take(length).collect_vec());
        Some(Self {
            calls: Calls(head.try_into().ok()?),
            side: *[Side::Any, Side::Read, Side::Written].get(usize::try_from(side).ok()?)?,
            when: match when {
                0 => When::Always,
                1 => When::Nth(first),
                2 => When::First(first),
                3 => When::Every(first),
                4 => When::After(first),
                5 => When::Seeded { seed: first, odds: second },
                _ => return None,
            },
            effect: match effect {
                0 => Effect::GoOn,
                // What the kernel takes for an error.
                1 => Effect::Errno(i32::try_from(value).ok().filter(|errno| (1..4096).contains(errno))?),
                2 => Effect::Returns(value as i64),
                3 => Effect::Short(value),
                4 => Effect::Signal(i32::try_from(value).ok().filter(|signal| (1..=64).contains(signal))?),
                5 => Effect::Keep,
                _ => return None,
            },
            delay,
            path,
            port: port.checked_sub(1).map(u16::try_from).transpose().ok()?,
            address: match family {
                0 => None,
                4 => Some(Ipv4Addr::from(u32::try_from(low).ok()?).into()),
                6 => Some(Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)).into()),
                _ => return None,
            },
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::faults) fn some() -> Definition {
        Definition {
            calls: Calls::of("read fsync"),
            side: Side::Written,
            when: When::Seeded { seed: 7, odds: 1 << 60 },
            effect: Effect::Errno(libc::EIO),
            delay: 1 << 40,
            path: Some(b"/data/a-long-name".to_vec()),
            port: Some(0),
            address: Some("fd00::1".parse().expect("an address")),
        }
    }

    #[test]
    fn definitions_survive_the_way() {
        let whens = [When::Always, When::Nth(1), When::First(2), When::Every(3), When::After(4)];
        let effects = [Effect::GoOn, Effect::Returns(-1), Effect::Short(3), Effect::Signal(9), Effect::Keep];
        for when in whens {
            for effect in effects {
                let address = Some("10.0.0.1".parse().expect("an address"));
                let one = Definition { when, effect, address, path: None, port: None, ..some() };
                assert_eq!(Definition::decode(&one.encode()), Some(one));
            }
        }
        assert_eq!(Definition::decode(&some().encode()), Some(some()));
        let longest = Definition { path: Some(vec![b'a'; pattern::LENGTH_MAX]), ..some() };
        assert_eq!(Definition::decode(&longest.encode()), Some(longest));
    }

    #[test]
    fn what_is_none_is_no_definition() {
        let words = some().encode();
        for (at, value) in [(0, 6), (3, 6), (4, 0), (4, 4096), (6, 3), (7, 1 << 17), (8, 5), (11, 1026), (11, u64::MAX)]
        {
            let mut words = words;
            words[at] = value;
            assert_eq!(Definition::decode(&words), None, "{at}: {value}");
        }
        // No numbers have it panic.
        for at in 0..WORDS {
            for value in [0, 1, 2, u64::MAX, 1 << 63] {
                let mut words = words;
                words[at] = value;
                let _ = Definition::decode(&words);
            }
        }
    }

    #[test]
    fn happens_when_it_is_said() {
        let of = |when: When| {
            let position = |n| Position { of_all: n, of_thread: n };
            (1..=9).filter(|n| when.happens(position(*n))).collect::<Vec<_>>()
        };
        assert_eq!(of(When::Always).len(), 9);
        assert_eq!(of(When::Nth(2)), [2]);
        assert_eq!(of(When::First(3)), [1, 2, 3]);
        assert_eq!(of(When::Every(4)), [4, 8]);
        assert_eq!(of(When::Every(0)), [0; 0]);
        assert_eq!(of(When::After(7)), [8, 9]);
        let seeded = When::Seeded { seed: 7, odds: u64::MAX / 10 };
        let count = (0..10_000).filter(|n| seeded.happens(Position { of_all: 0, of_thread: *n })).count();
        assert!((900..1100).contains(&count), "{count}");
    }

    #[test]
    fn peers_are_compared_as_what_they_are() {
        let peer = |address: &str| Some((address.parse().expect("an address"), 80));
        let mut one = Definition { port: Some(80), address: Some("10.0.0.1".parse().expect("an address")), ..some() };
        assert!(one.is_of_peer(peer("::ffff:10.0.0.1")) && !one.is_of_peer(peer("10.0.0.2")) && !one.is_of_peer(None));
        (one.port, one.address) = (Some(81), None);
        assert!(!one.is_of_peer(peer("10.0.0.1")));
        one.port = None;
        assert!(one.is_of_peer(None));
    }
}
