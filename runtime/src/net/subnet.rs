//! Subnets of both kinds of addresses.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A subnet: all addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    /// The bits of its first address, an IPv4 address in the lower half of its own.
    bits: u128,
    prefix: u8,
    is_v4: bool,
}

impl Subnet {
    /// The one that `address` is in. `None` if no address has so many bits.
    pub(super) fn of(address: IpAddr, prefix: u8) -> Option<Self> {
        let (bits, is_v4) = (bits_of(address), address.is_ipv4());
        let free = width(is_v4).checked_sub(prefix)?;
        // To shift by all 128 is an overflow.
        let bits = bits.checked_shr(free.into()).and_then(|bits| bits.checked_shl(free.into())).unwrap_or_default();
        Some(Self { bits, prefix, is_v4 })
    }

    /// Reads an address and how many bits of it are the subnet's: `192.0.2.7/24`.
    pub(super) fn parse(text: &str) -> Option<(IpAddr, Self)> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        if prefix.starts_with('+') {
            return None;
        }
        Some((address, Self::of(address, prefix.parse().ok()?)?))
    }

    /// Its first address.
    pub(super) fn network(&self) -> IpAddr {
        address_of(self.bits, self.is_v4)
    }

    pub(super) fn prefix(&self) -> u8 {
        self.prefix
    }

    pub(super) fn is_v4(&self) -> bool {
        self.is_v4
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        Self::of(address, self.prefix).is_some_and(|other| other == *self)
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    /// The address of everybody in it.
    pub(super) fn broadcast(&self) -> Option<IpAddr> {
        let free = width(self.is_v4) - self.prefix;
        let last = self.bits | 1_u128.checked_shl(free.into()).unwrap_or_default().wrapping_sub(1);
        (self.is_v4 && free > 1).then(|| address_of(last, true))
    }

    /// Whether a host may have this address of it: the first stands for the subnet, and with IPv4 the last for everybody in it.
    pub(super) fn is_for_hosts(&self, address: IpAddr) -> bool {
        let is_whole = address == self.network() || Some(address) == self.broadcast();
        self.contains(address) && !(is_whole && width(self.is_v4) - self.prefix > 1)
    }

    /// Its address of this number, 0 for the first, if a host may have it.
    pub(super) fn address(&self, number: u128) -> Option<IpAddr> {
        let address = address_of(self.bits.checked_add(number)?, self.is_v4);
        Some(address).filter(|address| self.is_for_hosts(*address))
    }
}

fn width(is_v4: bool) -> u8 {
    if is_v4 { 32 } else { 128 }
}

fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address_of(bits: u128, is_v4: bool) -> IpAddr {
    if is_v4 { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() }
}

impl Display for Subnet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).expect(text).1
    }

    #[test]
    fn they_are_read_and_shown() {
        for (text, shown) in [
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("192.0.2.7/0", "0.0.0.0/0"),
            ("192.0.2.7/32", "192.0.2.7/32"),
            ("fd00::7/64", "fd00::/64"),
            ("fd00::7/0", "::/0"),
            ("fd00::7/128", "fd00::7/128"),
        ] {
            assert_eq!(subnet(text).to_string(), shown);
        }
        for text in ["192.0.2.7", "192.0.2.7/33", "fd00::/129", "/24", "192.0.2/24", "192.0.2.7/+24", "192.0.2.7/ 24"] {
            assert_eq!(Subnet::parse(text), None, "{text}");
        }
    }

    #[test]
    fn they_know_what_is_in_them() {
        assert!(subnet("10.0.0.0/8").overlaps(&subnet("10.7.0.0/16")));
        assert!(subnet("10.7.0.0/16").overlaps(&subnet("10.0.0.0/8")));
        assert!(!subnet("10.7.0.0/16").overlaps(&subnet("10.8.0.0/16")));
        assert!(!subnet("0.0.0.0/0").overlaps(&subnet("::/0")));
        assert!(subnet("::/0").overlaps(&subnet("fd00::/64")));
    }

    #[test]
    fn hosts_have_neither_the_first_nor_the_last_address() {
        let numbers = |text: &str| -> Vec<u128> {
            let subnet = subnet(text);
            (0..5).filter(|number| subnet.address(*number).is_some()).collect()
        };
        assert_eq!(numbers("192.0.2.0/30"), [1, 2]);
        assert_eq!(numbers("192.0.2.0/31"), [0, 1]);
        assert_eq!(numbers("192.0.2.0/32"), [0]);
        assert_eq!(numbers("fd00::/126"), [1, 2, 3]);
        assert_eq!(numbers("fd00::/64"), [1, 2, 3, 4]);
        assert_eq!(numbers("::/0"), [1, 2, 3, 4]);
    }
}
