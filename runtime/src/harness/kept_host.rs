//! The hosts of a laboratory, of a test whose sandbox is kept if it fails.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process;

use super::replies::discard;
use crate::collect::CollectVec as _;
use crate::frame::HOST_NAME_MAX;

/// Of how many hosts the namespaces are kept. Each takes four descriptors.
pub(super) const HOSTS_MAX: usize = 64;

/// The kinds of namespaces that a host has, as nsenter(1) and links in `/proc` call them.
const KINDS: [(&str, &str); 3] = [("net", "net"), ("uts", "uts"), ("mount", "mnt")];

/// A host of a laboratory. Its namespaces, and what its interfaces lead to, are there for as long as this is: the test's process, which had
/// them, is gone when its sandbox is kept.
#[derive(Debug)]
pub(crate) struct KeptHost {
    name: String,
    namespaces: [OwnedFd; 3],
    _fabric: OwnedFd,
}

impl KeptHost {
    /// What came from a body, if it is what a laboratory sends.
    pub(super) fn taken(name: &[u8], fds: &mut impl Iterator<Item = OwnedFd>) -> Option<Self> {
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty() && name.len() <= HOST_NAME_MAX)?;
        let fds = fds.by_ref().take(KINDS.len() + 1).collect_vec();
        let kinds = KINDS.iter().map(|(_, kind)| *kind).chain(["net"]);
        let are_namespaces = fds.iter().zip(kinds).all(|(fd, kind)| is_namespace(fd, kind));
        if fds.len() != KINDS.len() + 1 || !are_namespaces || !name.bytes().all(|byte| is_name(&byte)) {
            fds.into_iter().for_each(discard);
            return None;
        }
        let [net, uts, mount, fabric] = <[OwnedFd; 4]>::try_from(fds).ok()?;
        Some(Self { name: name.to_owned(), namespaces: [net, uts, mount], _fabric: fabric })
    }

    /// Its name, and the options by which nsenter(1) enters it.
    pub(super) fn told(&self) -> (&str, String) {
        let option = |((option, _), fd): (&(&str, &str), &OwnedFd)| {
            format!(" --{option}=/proc/{}/fd/{}", process::id(), fd.as_raw_fd())
        };
        (&self.name, KINDS.iter().zip(&self.namespaces).map(option).collect())
    }
}

/// Whether a descriptor refers to a namespace of this kind. Of what has a path, none begins like this, and no file system is asked.
fn is_namespace(fd: &OwnedFd, kind: &str) -> bool {
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.is_ok_and(|link| link.to_str().is_some_and(|link| link.starts_with(&format!("{kind}:["))))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn hosts_have_a_name_and_namespaces() {
        let taken = |name: &[u8], files: [&str; 4]| {
            let open = |file: &str| OwnedFd::from(File::open(format!("/proc/self/{file}")).expect("open"));
            KeptHost::taken(name, &mut files.into_iter().map(open)).is_some()
        };
        let right = ["ns/net", "ns/uts", "ns/mnt", "ns/net"];
        assert!(taken(b"server-1", right));
        for name in [&b""[..], b"a b", b"`sh`", b"\xff", &[b'a'; HOST_NAME_MAX + 1]] {
            assert!(!taken(name, right), "{name:?}");
        }
        assert!(!taken(b"server", ["ns/uts", "ns/net", "ns/mnt", "ns/net"]));
        assert!(!taken(b"server", ["ns/net", "ns/uts", "ns/mnt", "status"]));
        assert!(KeptHost::taken(b"server", &mut [].into_iter()).is_none());
    }
}
