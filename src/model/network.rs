//! Groups of addresses that limits count together, so that a caller with many addresses has one share.

use std::net::{IpAddr, Ipv6Addr};

/// Address that limits count a caller by: an IPv4 address itself, or the /64 in which an IPv6 caller can choose addresses.
pub fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// Number of the network of an address, for a share that all addresses of one owner have together: the /24 of an IPv4
/// address, the /48 of an IPv6 address. No network of IPv4 has the number of one of IPv6.
pub fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_bits() >> 8) | 1 << 100,
        IpAddr::V6(v6) => v6.to_bits() >> 80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
