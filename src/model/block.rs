//! A block of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address alone.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A block of addresses. An IPv4 address and the IPv6 address it is mapped to are the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    base: IpAddr,
    bits: u8,
}

/// A text that names no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no block of addresses")]
pub struct InvalidBlock;

impl Block {
    /// How many bits of its addresses are the same.
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether it is one of IPv4.
    pub const fn is_v4(&self) -> bool {
        self.base.is_ipv4()
    }

    /// Whether an address lies in it.
    pub fn holds(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => same(
                base.to_bits().into(),
                address.to_bits().into(),
                32 - self.bits,
            ),
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                same(base.to_bits(), address.to_bits(), 128 - self.bits)
            }
            _ => false,
        }
    }
}

/// What limits count an address as: an IPv4 address alone, or the /64 that an IPv6 caller can choose addresses in.
pub fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// The network that an address belongs to, for what many addresses of one owner share: the /24 of an IPv4 address, the
/// /48 of an IPv6 address. The numbers of both kinds do not meet.
pub fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_bits() >> 8) | 1 << 100,
        IpAddr::V6(v6) => v6.to_bits() >> 80,
    }
}

impl FromStr for Block {
    type Err = InvalidBlock;

    fn from_str(text: &str) -> Result<Self, InvalidBlock> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| InvalidBlock)?;
        let most: u8 = if written.is_ipv4() { 32 } else { 128 };
        let bits: u8 = match bits {
            None => most,
            Some(bits) if !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= most)
                .ok_or(InvalidBlock)?,
            Some(_) => return Err(InvalidBlock),
        };
        match written.to_canonical() {
            // A mapped block is one of IPv4 as long as it is no wider than all of IPv4.
            base @ IpAddr::V4(_) if written.is_ipv6() => Ok(Self {
                base,
                bits: bits.checked_sub(96).ok_or(InvalidBlock)?,
            }),
            base => Ok(Self { base, bits }),
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

/// Whether two addresses differ only in their last `loose` bits.
fn same(a: u128, b: u128, loose: u8) -> bool {
    (a ^ b).checked_shr(loose.into()).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(block: &str, address: &str) -> bool {
        block
            .parse::<Block>()
            .unwrap()
            .holds(address.parse().unwrap())
    }

    #[test]
    fn blocks_hold_what_they_say() {
        for (block, address) in [
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.9.9.9/8", "10.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3"),
            ("0.0.0.0/0", "1.2.3.4"),
            ("::/0", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1"),
            ("192.0.2.7", "192.0.2.7"),
        ] {
            assert!(holds(block, address), "{block} {address}");
        }
        for (block, address) in [
            ("10.0.0.0/8", "11.0.0.1"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "1.2.3.4"),
            ("192.0.2.7", "192.0.2.8"),
        ] {
            assert!(!holds(block, address), "{block} {address}");
        }
        for wrong in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0/8",
            "10.0.0.0/-1",
            "a/8",
            "::/129",
            "::ffff:1.2.3.4/8",
        ] {
            assert_eq!(wrong.parse::<Block>(), Err(InvalidBlock), "{wrong}");
        }
    }

    #[test]
    fn an_ipv6_caller_has_one_bucket_for_its_64() {
        let bucket_of = |text: &str| bucket(text.parse().expect("an address"));
        assert_eq!(bucket_of("2001:db8::1"), bucket_of("2001:db8::ffff:1"));
        assert_ne!(bucket_of("2001:db8:0:1::1"), bucket_of("2001:db8::1"));
        assert_eq!(bucket_of("::ffff:192.0.2.1"), bucket_of("192.0.2.1"));
        let network_of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(network_of("2001:db8::1"), network_of("2001:db8:0:ffff::1"));
        assert_ne!(network_of("2001:db8:1::1"), network_of("2001:db8::1"));
        assert_eq!(network_of("::ffff:192.0.2.1"), network_of("192.0.2.255"));
        assert_ne!(network_of("192.0.3.1"), network_of("192.0.2.1"));
    }
}
