//! Frames of all interfaces of a network, as packet(7) has them: received in a ring that the kernel shares, and sent by a socket.

use std::ffi::{c_int, c_uint, c_void};
use std::mem::{self, offset_of};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{sockaddr_ll, tpacket_req, tpacket_stats, tpacket2_hdr};
use nix::errno::Errno;

/// The kernel's memory for a ring is made of such pieces, of which each lies in one place.
const BLOCK: usize = 1 << 16;

/// Where the address of a frame is: behind its head, which has 32 bytes.
const ADDRESS: usize = size_of::<tpacket2_hdr>();

/// A packet socket, with a ring for what it receives. It may move to a clone of this process.
#[derive(Debug)]
pub(crate) struct PacketRing {
    socket: OwnedFd,
    map: NonNull<u8>,
    /// The size of a slot of the ring.
    slot: usize,
    count: usize,
    /// The slot that the kernel fills next.
    at: usize,
}

// SAFETY: the mapping belongs to this value alone, wherever that is.
unsafe impl Send for PacketRing {}

/// A frame in the ring. It stays there until [`PacketRing::release`].
pub(crate) struct Received<'r> {
    /// Where it came from.
    pub(crate) ifindex: i32,
    /// From the destination's address on.
    pub(crate) bytes: &'r mut [u8],
    /// How many bytes the frame has. They are more than `bytes` if a slot was too small.
    pub(crate) length: usize,
    /// The tag that the kernel has taken out of the frame: its type, and what follows that.
    pub(crate) vlan: Option<[u16; 2]>,
    /// Whether the kernel has left the checksum to the network card.
    pub(crate) lacks_checksum: bool,
    /// Whether it is one that this network sends, and has not received.
    pub(crate) is_outgoing: bool,
}

/// Sends frames, by the socket of a ring.
pub(crate) struct PacketSender<'r>(BorrowedFd<'r>);

impl PacketRing {
    /// Receives what comes in at any interface of the network that this thread is in, from now on. `slot` is what a slot of the ring has
    /// room for, in bytes: a power of two up to 64 KiB. Some dozens of them are the kernel's.
    ///
    /// This takes some milliseconds, in which the kernel waits for all processors.
    pub(crate) fn new(slot: usize, count: usize) -> nix::Result<Self> {
        if !slot.is_power_of_two() || !(256..=BLOCK).contains(&slot) {
            return Err(Errno::EINVAL);
        }
        // Of no protocol, so that nothing comes in before the ring is there.
        // SAFETY: socket takes integers.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        let socket = Errno::result(socket)?;
        // SAFETY: the kernel has just made the descriptor.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        set(&socket, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as c_int))?;
        // What is sent must not come in again. Older kernels tell by `is_outgoing`.
        let _ = set(&socket, libc::PACKET_IGNORE_OUTGOING, &1);
        // Past queues that interfaces may have. Without it, sending takes longer.
        let _ = set(&socket, libc::PACKET_QDISC_BYPASS, &1);
        let per_block = BLOCK / slot;
        let blocks = count.div_ceil(per_block);
        let count = blocks * per_block;
        let request = tpacket_req {
            tp_block_size: BLOCK as c_uint,
            tp_block_nr: blocks as c_uint,
            tp_frame_size: slot as c_uint,
            tp_frame_nr: count as c_uint,
        };
        set(&socket, libc::PACKET_RX_RING, &request)?;
        let (access, length) = (libc::PROT_READ | libc::PROT_WRITE, blocks * BLOCK);
        // SAFETY: a new mapping disturbs nothing.
        let map = unsafe { libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, socket.as_raw_fd(), 0) };
        if map == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let map = NonNull::new(map.cast()).ok_or(Errno::EFAULT)?;
        let ring = Self { socket, map, slot, count, at: 0 };
        // SAFETY: `address` outlives the call, and has this size.
        let bound = unsafe {
            let address = address_of(0);
            libc::bind(ring.socket.as_raw_fd(), (&raw const address).cast(), size_of::<sockaddr_ll>() as _)
        };
        Errno::result(bound)?;
        Ok(ring)
    }

    /// The next frame, if there is one, and what sends frames.
    pub(crate) fn next(&mut self) -> Option<(Received<'_>, PacketSender<'_>)> {
        // SAFETY: `at` is below `count`, so that the slot is in the mapping, and aligned for its head.
        let slot = unsafe { self.map.add(self.at * self.slot) };
        // SAFETY: the status is the first word of the head. The kernel and this process share it, and both use it atomically.
        let status = unsafe { AtomicU32::from_ptr(slot.as_ptr().cast()) }.load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the kernel has written the head and the address behind it, and leaves them alone until the slot is released.
        let (head, address) = unsafe {
            let head = slot.as_ptr().cast::<tpacket2_hdr>();
            (head.read(), slot.as_ptr().add(ADDRESS).cast::<sockaddr_ll>().read())
        };
        let start = usize::from(head.tp_mac).min(self.slot);
        let length = (head.tp_snaplen as usize).min(self.slot - start);
        // SAFETY: these bytes are in the slot, and the kernel leaves them alone until that is released, which takes another `&mut self`.
        let bytes = unsafe { slice::from_raw_parts_mut(slot.as_ptr().add(start), length) };
        let kind =
            if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { head.tp_vlan_tpid } else { libc::ETH_P_8021Q as u16 };
        let received = Received {
            ifindex: address.sll_ifindex,
            bytes,
            length: head.tp_len as usize,
            vlan: (status & libc::TP_STATUS_VLAN_VALID != 0).then_some([kind, head.tp_vlan_tci]),
            lacks_checksum: status & libc::TP_STATUS_CSUMNOTREADY != 0,
            is_outgoing: address.sll_pkttype == libc::PACKET_OUTGOING,
        };
        Some((received, PacketSender(self.socket.as_fd())))
    }

    /// Gives the slot of the frame that came last back to the kernel.
    pub(crate) fn release(&mut self) {
        // SAFETY: as in `next`.
        let status = unsafe { AtomicU32::from_ptr(self.map.add(self.at * self.slot).as_ptr().cast()) };
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.at = (self.at + 1) % self.count;
    }

    /// What sends frames.
    pub(crate) fn sender(&self) -> PacketSender<'_> {
        PacketSender(self.socket.as_fd())
    }

    /// How many frames found no slot since this was asked last.
    pub(crate) fn overruns(&self) -> nix::Result<u32> {
        let mut stats = tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut size = size_of::<tpacket_stats>() as libc::socklen_t;
        let (fd, stats_at) = (self.socket.as_raw_fd(), (&raw mut stats).cast());
        // SAFETY: `stats` and `size` outlive the call, which writes no more than this size.
        Errno::result(unsafe {
            libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, stats_at, &raw mut size)
        })?;
        Ok(stats.tp_drops)
    }
}

impl AsFd for PacketRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: `new` has mapped it, and nobody borrows from it any more.
        unsafe { libc::munmap(self.map.as_ptr().cast::<c_void>(), self.count * self.slot) };
    }
}

impl PacketSender<'_> {
    /// Sends a frame out at the interface, at once: it fails with ENOBUFS or EAGAIN if nobody has room for it.
    pub(crate) fn send(&self, ifindex: i32, frame: &[u8]) -> nix::Result<()> {
        let address = address_of(ifindex);
        let (start, size) = ((&raw const address).cast(), size_of::<sockaddr_ll>() as libc::socklen_t);
        // SAFETY: `frame` and `address` outlive the call, and have these sizes.
        let sent = unsafe {
            libc::sendto(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT, start, size)
        };
        Errno::result(sent).map(drop)
    }
}

/// An interface, or all for 0, with whatever it sends and receives.
fn address_of(ifindex: i32) -> sockaddr_ll {
    // SAFETY: `sockaddr_ll` is integers, for which zero is a value.
    let mut address: sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = ifindex;
    address
}

fn set<T>(socket: &OwnedFd, option: c_int, value: &T) -> nix::Result<()> {
    let (fd, start, size) = (socket.as_raw_fd(), ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: `value` outlives the call, and has this size. All options that are set here are plain integers.
    Errno::result(unsafe { libc::setsockopt(fd, libc::SOL_PACKET, option, start, size) }).map(drop)
}

// The kernel's `TPACKET2_HDRLEN` counts on it.
const _: () =
    assert!(offset_of!(tpacket2_hdr, tp_status) == 0 && ADDRESS == 32 && ADDRESS % align_of::<sockaddr_ll>() == 0);
