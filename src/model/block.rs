//! Block of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address alone.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A block of addresses. An IPv4 address and the IPv6 address it is mapped to are the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(IpNet);

/// A text that is not a block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a block of addresses")]
pub struct InvalidBlock;

impl Block {
    /// Length of the prefix that all of its addresses share, in bits.
    pub fn bits(&self) -> u8 {
        self.0.prefix_len()
    }

    /// True for a block of IPv4.
    pub const fn is_v4(&self) -> bool {
        matches!(self.0, IpNet::V4(_))
    }

    /// True if an address lies in the block.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
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
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().map_err(|_| InvalidBlock)?
            }
            Some(_) => return Err(InvalidBlock),
        };
        let base = written.to_canonical();
        // A mapped block is a block of IPv4 as long as it is not wider than all of IPv4.
        let bits = match base {
            IpAddr::V4(_) if written.is_ipv6() => bits.checked_sub(96).ok_or(InvalidBlock)?,
            _ => bits,
        };
        IpNet::new(base, bits).map(Self).map_err(|_| InvalidBlock)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
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
}
