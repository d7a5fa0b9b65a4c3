//! The packets of laboratories whose tests fail: each becomes a file in the target directory.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::{env, thread};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::stat::fstat;

use super::evidence::Evidence;
use super::words;
use crate::collect::CollectVec as _;
use crate::diagnosis::lack;
use crate::net;
use crate::rootfs::context::target_of;
use crate::spec::Test;

/// The directory of all captures, below the target directory.
const CAPTURES: &str = "belljar-captures";

/// Of how many laboratories a test's packets are kept.
const CAPTURES_MAX: usize = 8;

/// The most that one takes: the packets, and what is kept about them.
const LENGTH_MAX: u64 = net::MOST_CAPTURE as u64 + (1 << 20);

/// Takes what came from a body with a laboratory: the memory of its packets, unless there is enough, and that which says what went wrong in all
/// laboratories of the test.
pub(super) fn take(packets: Option<OwnedFd>, trouble: Option<OwnedFd>, evidence: &mut Evidence) {
    if evidence.captures.len() < CAPTURES_MAX {
        evidence.captures.extend(packets.and_then(taken));
    } else {
        packets.into_iter().for_each(super::replies::discard);
    }
    match trouble {
        Some(memory) if evidence.trouble.is_none() => evidence.trouble = taken(memory),
        more => more.into_iter().for_each(super::replies::discard),
    }
}

/// What came from a body, if it is memory, which answers at once, and of a length that is no larger than that of a laboratory's and will stay
/// so.
fn taken(memory: OwnedFd) -> Option<File> {
    let sealed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    let is_sealed =
        fcntl(&memory, FcntlArg::F_GET_SEALS).is_ok_and(|seals| SealFlag::from_bits_retain(seals).contains(sealed));
    if is_sealed && fstat(&memory).is_ok_and(|stat| u64::try_from(stat.st_size).is_ok_and(|size| size <= LENGTH_MAX)) {
        return Some(memory.into());
    }
    super::replies::discard(memory);
    None
}

/// Writes what `test` has sent and received, and returns what is to be said of that.
pub(super) fn write(test: &Test, evidence: &Evidence) -> Vec<String> {
    let write = |(number, memory): (usize, &File)| {
        let path = path_of(test, number);
        let written =
            path.as_deref().map_or_else(|| Err(io::ErrorKind::NotFound.into()), |path| write_to(path, memory));
        let path = path.unwrap_or_else(|| CAPTURES.into());
        match written {
            Ok(()) => words::captured(test.short_name(), &path),
            Err(error) => words::not_captured(test.short_name(), &path, &error),
        }
    };
    let (trouble, laboratories) = net::trouble(evidence.trouble.as_ref(), evidence.wires_killed);
    let mut told = trouble.iter().map(|trouble| words::trouble(test.short_name(), trouble)).collect_vec();
    told.extend(evidence.captures.iter().enumerate().map(write));
    if laboratories > CAPTURES_MAX as u64 {
        told.push(words::captures_left_out(test.short_name(), laboratories, CAPTURES_MAX));
    }
    if evidence.has_lost_captures {
        told.push(words::captures_lost(test.short_name(), lack(Errno::EMFILE).as_ref()));
    }
    if !told.is_empty() {
        // What an earlier run has left that had more of them.
        let others = (evidence.captures.len()..CAPTURES_MAX).filter_map(|number| path_of(test, number));
        others.for_each(|path| drop(fs::remove_file(path)));
    }
    told
}

/// Where the packets of a test's laboratory of this number go: into a file that its next run writes anew.
fn path_of(test: &Test, number: usize) -> Option<PathBuf> {
    let binary = env::current_exe().ok()?;
    // Tests of two packages may have the same name, crate and all.
    let of_directory = || test.spec.manifest_dir.and_then(|directory| Path::new(directory).file_name());
    let package = env::var_os("CARGO_PKG_NAME").or_else(|| of_directory().map(OsStr::to_owned)).unwrap_or_default();
    let package = plain_name(&package.to_string_lossy());
    let name = plain_name(&test.name.replace("::", "."));
    let number = if number == 0 { String::new() } else { format!("-{}", number + 1) };
    Some(target_of(&binary)?.join(CAPTURES).join(package).join(format!("{name}{number}.pcapng")))
}

/// The same with `_` for what may mean something in a path.
fn plain_name(name: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || matches!(char, '_' | '-' | '.');
    let name: String = name.chars().map(|char| if is_plain(char) { char } else { '_' }).collect();
    // `.` and `..`, which lead elsewhere.
    if name.bytes().all(|byte| byte == b'.') { "_".to_owned() } else { name }
}

/// Writes a whole file, or none: another run may write the same one. Packets may hold what others are not to read.
fn write_to(path: &Path, memory: &File) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::NotFound)?;
    fs::create_dir_all(directory)?;
    let unfinished = path.with_extension(format!("{}-{:?}", std::process::id(), thread::current().id()));
    // What is there was left by a process of the same number. Whatever it is, such as a link, it is not followed.
    let _ = fs::remove_file(&unfinished);
    let file =
        File::options().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&unfinished)?;
    let write = || {
        let mut out = BufWriter::new(file);
        net::write_capture(memory, &mut out)?;
        out.flush()?;
        fs::rename(&unfinished, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    /// Memory with these seals, of this length.
    fn memory(seals: SealFlag, length: u64) -> OwnedFd {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(c"capture", flags).expect("memory"));
        file.set_len(length).expect("a length");
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).expect("seals");
        file.into()
    }

    #[test]
    fn memory_is_taken_whose_length_is_known() {
        let both = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        assert!(taken(memory(both, LENGTH_MAX)).is_some());
        assert!(taken(memory(both, LENGTH_MAX + 1)).is_none());
        for seals in [SealFlag::empty(), SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW] {
            assert!(taken(memory(seals, 4096)).is_none(), "{seals:?}");
        }
        assert!(taken(File::open("/dev/null").expect("open").into()).is_none());
    }

    #[test]
    fn names_lead_nowhere_else() {
        for (name, plain) in [("a.b-c_1", "a.b-c_1"), ("../a", ".._a"), ("..", "_"), ("", "_"), ("a b", "a_b")] {
            assert_eq!(plain_name(name), plain);
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = env::temp_dir().join(format!("belljar-captures-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let (target, path) = (directory.join("target"), directory.join("test.pcapng"));
        let unfinished = path.with_extension(format!("{}-{:?}", std::process::id(), thread::current().id()));
        std::os::unix::fs::symlink(&target, &unfinished).expect("a link");
        // What is no capture may be refused, but it goes to no other place.
        let _ = write_to(&path, &memory(SealFlag::empty(), 4096).into());
        let is_followed = target.exists();
        fs::remove_dir_all(&directory).expect("remove");
        assert!(!is_followed);
    }
}
