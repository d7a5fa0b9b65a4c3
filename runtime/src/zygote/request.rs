//! What the test binary asks the zygote for: sandboxes, which the zygote hands on to a template, and what those need. The first byte of a
//! message says which.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::cgroup::{Joining, V1Hierarchy};
use crate::collect::{CollectVec as _, map_both};
use crate::frame::address::{self, ADDRESS_SIZE, decode_spec, decode_test};
use crate::sandbox::Channel;
use crate::spec::{Spec, Test};

/// A sandbox that the zygote is asked for.
pub(super) struct Request {
    pub(super) spec: &'static Spec,
    pub(super) channel: Channel,
    pub(super) joining: Joining,
}

/// The most bytes of a message: those of a path, or of a request, which are the address of the spec, the generation of templates, two flags, and
/// the mount points of v1.
pub(super) const MESSAGE_SIZE: usize = 1 + ADDRESS_SIZE + libc::PATH_MAX as usize;

/// A request.
const SANDBOX: u8 = b's';

/// A sweeper is wanted. With it comes that one's socket.
pub(super) const SWEEPER: u8 = b'w';

/// The zygote is to keep the root of the preparation whose address follows. With it comes a descriptor of that.
const KEEP: u8 = b'k';

/// The root of the preparation whose address follows lies in the directory whose path follows that. Without a path, it lies nowhere.
const PLACE: u8 = b'p';

/// The image that the spec asks for whose address follows has been unpacked to the directory whose path follows that.
#[cfg(feature = "images")]
const IMAGE: u8 = b'i';

/// The message by which the zygote is told where the image lies that `spec` asks for.
#[cfg(feature = "images")]
pub(super) fn encode_image(spec: &'static Spec, directory: &Path) -> Vec<u8> {
    [&[IMAGE], &address::encode(spec)[..], directory.as_os_str().as_bytes()].concat()
}

/// The spec that asks for an image, and where that lies, if this is what a message says.
#[cfg(feature = "images")]
pub(super) fn decode_image(message: &[u8]) -> Option<(&'static Spec, PathBuf)> {
    let (address, path) = message.strip_prefix(&[IMAGE])?.split_at_checked(ADDRESS_SIZE)?;
    Some((decode_spec(address)?, OsStr::from_bytes(path).into()))
}

/// Where the root is that tests start from.
pub(super) enum RootAt {
    /// It is mounted in what came with the message.
    Descriptor,
    Directory(PathBuf),
}

/// The message by which the zygote is told where the root of `preparation` is: in a directory, or in what comes with the message.
pub(super) fn encode_root_at(preparation: &'static Test, directory: Option<&Path>) -> Vec<u8> {
    let kind = if directory.is_some() { PLACE } else { KEEP };
    let path = directory.map_or(&b""[..], |directory| directory.as_os_str().as_bytes());
    [&[kind], &address::encode(preparation)[..], path].concat()
}

/// The preparation whose root is told of, and where that is, if this is what a message says.
pub(super) fn decode_root_at(message: &[u8]) -> Option<(&'static Test, RootAt)> {
    let (&kind, rest) = message.split_first()?;
    let (address, path) = rest.split_at_checked(ADDRESS_SIZE)?;
    let place = match kind {
        KEEP => RootAt::Descriptor,
        PLACE => RootAt::Directory(OsStr::from_bytes(path).into()),
        _ => return None,
    };
    Some((decode_test(address)?, place))
}

impl Request {
    /// The message that stands for this, but for its descriptors.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Joining { v1, v2, process_limit, generation } = &self.joining;
        let flags = map_both([v2.is_some(), *process_limit], u8::from);
        let mount_points = v1.iter().map(|tree| tree.mount_point.as_bytes_with_nul());
        let head = [&[SANDBOX], &address::encode(self.spec)[..], &generation.to_ne_bytes(), &flags];
        head.into_iter().chain(mount_points).collect_vec().concat()
    }

    /// Its descriptors, in their order: the channel, v1's files, v2's directory and file.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        let Channel { socket, stdout, stderr } = &self.channel;
        let mut descriptors = vec![socket.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()];
        descriptors.extend(self.joining.descriptors());
        descriptors
    }

    /// `None` if the message or one of the descriptors got lost.
    pub(super) fn decode(message: &[u8], descriptors: Vec<OwnedFd>) -> Option<Self> {
        let (address, rest) = message.strip_prefix(&[SANDBOX])?.split_at_checked(ADDRESS_SIZE)?;
        let (generation, &[has_v2, process_limit, ref mount_points @ ..]) = rest.split_first_chunk()? else {
            return None;
        };
        let spec = decode_spec(address)?;
        let mut descriptors = descriptors.into_iter();
        let channel = Channel { socket: descriptors.next()?, stdout: descriptors.next()?, stderr: descriptors.next()? };
        let mut v1 = Vec::new();
        for path in mount_points.split_inclusive(|byte| *byte == 0) {
            let mount_point = CString::from_vec_with_nul(Vec::from(path)).ok()?;
            v1.push(V1Hierarchy { mount_point, tasks: descriptors.next()? });
        }
        let v2 = if has_v2 == 0 { None } else { Some((descriptors.next()?, descriptors.next()?)) };
        let generation = u32::from_ne_bytes(*generation);
        let joining = Joining { v1, v2, process_limit: process_limit != 0, generation };
        Some(Self { spec, channel, joining })
    }
}

/// For [`fuzzed`](crate::fuzzed): a message to the zygote, which has the address of a real spec, or one that there can't be. The first byte
/// says which, and how many descriptors come with it.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(input: &[u8], spec: &'static Spec) {
    const IS_NULL: u8 = 128;
    const IS_CROOKED: u8 = 64;
    let Some((&how, rest)) = input.split_first() else { return };
    let mut message = [&[SANDBOX], rest].concat();
    let mut address = std::ptr::from_ref(spec).expose_provenance();
    if how & IS_NULL != 0 {
        address = 0;
    } else if how & IS_CROOKED != 0 {
        address += 1;
    }
    if let Some(place) = message[1..].first_chunk_mut() {
        *place = address.to_ne_bytes();
    }
    let open = |_| std::fs::File::open("/dev/null").ok().map(Into::into);
    let fds: Vec<_> = (0..how % 8).filter_map(open).collect();
    let count = fds.len();
    let Some(request) = Request::decode(&message, fds) else { return };
    assert!(how & (IS_NULL | IS_CROOKED) == 0 && std::ptr::eq(request.spec, spec));
    assert!(request.descriptors().len() <= count);
    let encoded = request.encode();
    let head = 1 + ADDRESS_SIZE + size_of::<u32>();
    let (flags, others) = (head..head + 2, head + 2..);
    assert_eq!(encoded[..flags.start], message[..flags.start]);
    assert_eq!(encoded[others.clone()], message[others]);
    assert!(encoded[flags.clone()].iter().zip(&message[flags]).all(|(ours, theirs)| (*ours != 0) == (*theirs != 0)));
}

/// For [`fuzzed`](crate::fuzzed): a real request, with no address.
#[cfg(test)]
pub(crate) fn example(spec: &'static Spec) -> Vec<u8> {
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").expect("null"));
    let channel = Channel { socket: null(), stdout: null(), stderr: null() };
    let tree = V1Hierarchy { mount_point: c"sys/fs/cgroup/pids".into(), tasks: null() };
    let joining = Joining { v1: vec![tree], v2: Some((null(), null())), process_limit: true, generation: 3 };
    let request = Request { spec, channel, joining };
    [&[1, 6], &[0; ADDRESS_SIZE][..], &request.encode()[1 + ADDRESS_SIZE..]].concat()
}
