//! What ethtool(8) asks of Ethernet interfaces.

use std::ffi::c_char;
use std::mem;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// See `linux/sockios.h` and `linux/ethtool.h`.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GLINK: u32 = 0x0a;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_SGRO: u32 = 0x2c;

/// The interfaces of one network namespace: of the one that the thread was in which has made this.
pub(crate) struct Ethernet(OwnedFd);

impl Ethernet {
    pub(crate) fn new() -> nix::Result<Self> {
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map(Self)
    }

    /// Has each packet leave an interface as it would travel: of the size that fits, and with its checksums.
    pub(crate) fn disable_offloads(&self, interface: &str) -> nix::Result<()> {
        // Without checksums there is no segmentation, but not every kernel turns that off together with them.
        for command in [ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO, ETHTOOL_STXCSUM] {
            self.ask(interface, command)?;
        }
        Ok(())
    }

    /// Has the kernel see now that an interface has a carrier. Otherwise a worker of the kernel sees it: up to a second later if both ends of a veth
    /// pair have the same number (`linkwatch_urgent_event` in `net/core/link_watch.c`). Packets pass before too, but until then the interface does
    /// not say that it is up: in `operstate`. Linux 5.10 leaves it to the worker all the same.
    pub(crate) fn see_carrier(&self, interface: &str) -> nix::Result<()> {
        self.ask(interface, ETHTOOL_GLINK)
    }

    fn ask(&self, interface: &str, command: u32) -> nix::Result<()> {
        /// `struct ethtool_value`.
        #[repr(C)]
        struct Value {
            command: u32,
            data: u32,
        }
        let mut value = Value { command, data: 0 };
        // SAFETY: `ifreq` is integers, and pointers for which null is a value.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        if interface.len() >= request.ifr_name.len() {
            return Err(Errno::ENAMETOOLONG);
        }
        for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *place = byte as c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: of these commands, the kernel reads and writes a `struct ethtool_value`, which outlives the call.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) }).map(drop)
    }
}
