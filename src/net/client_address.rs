//! Address of the caller: the other end of the connection, or the address that proxies in front of the gateway name.
//!
//! What is promised: nobody is believed but the blocks that the operator trusts, and of their requests only the one
//! header that the operator says they write: a proxy leaves the others as the caller sent them. A list of addresses is
//! read from its right end, where the nearest proxy wrote, and only as far as each address is a trusted one; whatever
//! stands further left is anybody's word. A caller that cannot be told so is counted with the proxy that brought it, and
//! is known to be in no block.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};

use crate::config::Forwarding;
use crate::model::Block;

/// The address that limits and logs go by. Every request carries it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr, pub AddressOwner);

/// Owner of an address: the caller, or a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressOwner {
    /// The caller.
    Caller,
    /// The last proxy that could be followed: the caller itself is unknown.
    Proxy,
}

impl Peer {
    /// True if the caller is known to call from one of these blocks.
    pub fn is_in(&self, blocks: &[Block]) -> bool {
        self.1 == AddressOwner::Caller && blocks.iter().any(|block| block.holds(self.0))
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Proxies in a row at most.
const MAX_STEPS: usize = 64;

/// True for the address of a trusted proxy.
pub(super) fn is_trusted(address: IpAddr, trusted: &[Block]) -> bool {
    trusted.iter().any(|block| block.holds(address))
}

/// The caller: the connection's other end, or the rightmost address that is not a trusted proxy's.
pub(super) fn client(
    peer: IpAddr,
    trusted: &[Block],
    written: Forwarding,
    headers: &HeaderMap,
) -> Peer {
    let mut last = peer.to_canonical();
    if !is_trusted(last, trusted) {
        return Peer(last, AddressOwner::Caller);
    }
    let steps = match written {
        Forwarding::XForwardedFor => x_forwarded_for(headers),
        Forwarding::Forwarded => forwarded(headers),
        Forwarding::XRealIp => x_real_ip(headers),
        Forwarding::None => None,
    };
    let Some(steps) = steps else {
        // A caller inside that needs no proxy brings no such header. One that brings another has come through a proxy
        // that does not write what the operator says.
        let others = [X_FORWARDED_FOR, FORWARDED, X_REAL_IP]
            .iter()
            .any(|name| headers.contains_key(name));
        return Peer(
            last,
            if others {
                AddressOwner::Proxy
            } else {
                AddressOwner::Caller
            },
        );
    };
    for step in steps {
        if !is_trusted(last, trusted) {
            break;
        }
        match step {
            Some(address) => last = address,
            None => return Peer(last, AddressOwner::Proxy),
        }
    }
    Peer(last, AddressOwner::Caller)
}

/// The address of `X-Real-IP`, which stands there alone.
fn x_real_ip(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let mut lines = headers.get_all(X_REAL_IP).iter();
    let alone = match (lines.next()?, lines.next()) {
        (line, None) => line.to_str().ok().and_then(|text| address(text.trim())),
        _ => None,
    };
    Some(vec![alone])
}

/// The addresses of `X-Forwarded-For`, the last one first; `None` for a part that is not an address.
fn x_forwarded_for(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let parts = lines(headers, X_FORWARDED_FOR)?
        .into_iter()
        .rev()
        .flat_map(|line| line.rsplit(|b| *b == b','));
    let parts = parts
        .map(<[u8]>::trim_ascii)
        .filter(|part| !part.is_empty());
    let steps = parts.map(|part| address(std::str::from_utf8(part).ok()?));
    Some(bounded(steps))
}

/// The lines of a header; none without it.
fn lines(headers: &HeaderMap, name: HeaderName) -> Option<Vec<&[u8]>> {
    let lines: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .map(http::HeaderValue::as_bytes)
        .collect();
    (!lines.is_empty()).then_some(lines)
}

/// So many steps; what lies behind them is known to nobody. A list without any address says nothing.
fn bounded(steps: impl Iterator<Item = Option<IpAddr>>) -> Vec<Option<IpAddr>> {
    let mut steps: Vec<_> = steps.take(MAX_STEPS + 1).collect();
    if steps.is_empty() || steps.len() > MAX_STEPS {
        steps.truncate(MAX_STEPS);
        steps.push(None);
    }
    steps
}

/// The `for` addresses of `Forwarded` (RFC 7239), the last one first.
fn forwarded(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let parts = lines(headers, FORWARDED)?
        .into_iter()
        .rev()
        .flat_map(|line| split(line, b',').into_iter().rev());
    let parts = parts
        .map(<[u8]>::trim_ascii)
        .filter(|part| !part.is_empty());
    Some(bounded(parts.map(for_of)))
}

fn for_of(element: &[u8]) -> Option<IpAddr> {
    let pairs = split(element, b';');
    let mut named = pairs.iter().filter_map(|pair| {
        let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("for")
            .then_some(value.trim())
    });
    let (Some(value), None) = (named.next(), named.next()) else {
        return None;
    };
    match value.strip_prefix('"') {
        Some(rest) => address(rest.strip_suffix('"')?),
        None => address(value),
    }
}

/// Splits where a mark stands outside of quotation marks.
fn split(text: &[u8], mark: u8) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let (mut from, mut quoted) = (0, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            byte if *byte == mark && !quoted => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// An address, with or without a port, with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let parsed = match bare {
        Some(v6) => v6.parse().map(IpAddr::V6).ok(),
        None => text
            .parse()
            .ok()
            .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip())),
    };
    parsed.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::HeaderValue;

    use super::*;
    use crate::model::bucket;

    fn judged(peer: &str, trusted: &[&str], lines: &[(&str, &str)]) -> String {
        told(peer, trusted, Forwarding::XForwardedFor, lines)
            .0
            .to_string()
    }

    fn told(peer: &str, trusted: &[&str], written: Forwarding, lines: &[(&str, &str)]) -> Peer {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        let trusted: Vec<Block> = trusted.iter().map(|block| block.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &trusted, written, &headers)
    }

    #[test]
    fn t37_t38_the_table_of_client_addresses() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/corpora/edge-cases/client-address.json");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| {
            panic!(
                "{}: {error}; this file is part of the repository",
                file.display()
            )
        });
        let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert!(cases.len() > 10, "saw {} cases", cases.len());
        for case in &cases {
            let texts = |key: &str| -> Vec<&str> {
                case[key]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|text| text.as_str().unwrap())
                    .collect()
            };
            let lines = texts("headers");
            let lines: Vec<(&str, &str)> = lines
                .iter()
                .map(|line| {
                    let (name, value) = line.split_once(':').unwrap();
                    (name, value.trim())
                })
                .collect();
            let got = judged(case["peer"].as_str().unwrap(), &texts("trusted"), &lines);
            assert_eq!(got, case["client"].as_str().unwrap(), "{}", case["why"]);
            if let Some(wanted) = case["bucket"].as_str() {
                let wanted = wanted.split('/').next().unwrap();
                assert_eq!(
                    bucket(got.parse().unwrap()).to_string(),
                    wanted,
                    "{}",
                    case["why"]
                );
            }
        }
    }

    #[test]
    fn t37_forwarded_is_read_as_the_other_list_is_where_the_proxy_writes_it() {
        let proxies = ["10.0.0.0/8"];
        for (value, client) in [
            ("for=198.51.100.7", "198.51.100.7"),
            (
                "for=1.1.1.1, For=\"198.51.100.7:80\";proto=https",
                "198.51.100.7",
            ),
            (
                "for=1.1.1.1;by=\"a,b\", for=\"[2001:db8::7]:443\", for=10.1.1.1",
                "2001:db8::7",
            ),
            ("for=1.1.1.1, for=unknown", "10.0.0.5"),
            ("for=1.1.1.1, for=_hidden", "10.0.0.5"),
            ("for=1.1.1.1;for=2.2.2.2", "10.0.0.5"),
            ("proto=https", "10.0.0.5"),
            ("for=\"1.1.1.1", "10.0.0.5"),
        ] {
            let peer = told(
                "10.0.0.5",
                &proxies,
                Forwarding::Forwarded,
                &[("forwarded", value)],
            );
            assert_eq!(peer.0.to_string(), client, "{value}");
            assert_eq!(
                peer.1 == AddressOwner::Proxy,
                client == "10.0.0.5",
                "{value}"
            );
        }
    }

    #[test]
    fn s18_only_the_header_that_the_proxy_writes_is_read_and_who_is_unclear_is_in_no_block() {
        use Forwarding::{Forwarded, None, XForwardedFor, XRealIp};
        let proxies = ["10.0.0.0/8"];
        let blocks = [
            "10.0.0.0/8".parse::<Block>().unwrap(),
            "198.51.100.0/24".parse().unwrap(),
        ];
        let both = [
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-for", "198.51.100.7"),
            ("x-real-ip", "2.2.2.2"),
        ];
        for (written, caller) in [
            (XForwardedFor, "198.51.100.7"),
            (Forwarded, "1.1.1.1"),
            (XRealIp, "2.2.2.2"),
        ] {
            assert_eq!(
                told("10.0.0.5", &proxies, written, &both),
                Peer(caller.parse().unwrap(), AddressOwner::Caller)
            );
        }
        let proxy = Peer("10.0.0.5".parse().unwrap(), AddressOwner::Proxy);
        for (written, lines) in [
            (XForwardedFor, &[("forwarded", "for=10.0.0.7")][..]),
            (XForwardedFor, &[("x-real-ip", "10.0.0.7")]),
            (XForwardedFor, &[("x-forwarded-for", "evil")]),
            (XForwardedFor, &[("x-forwarded-for", "")]),
            (XForwardedFor, &[("x-forwarded-for", " , ")]),
            (Forwarded, &[("x-forwarded-for", "10.0.0.7")]),
            (Forwarded, &[("forwarded", "for=_hidden")]),
            (
                XRealIp,
                &[("x-real-ip", "10.0.0.7"), ("x-real-ip", "10.0.0.7")],
            ),
            (XRealIp, &[("x-real-ip", "10.0.0.7, 10.0.0.8")]),
            (None, &[("x-forwarded-for", "10.0.0.7")]),
        ] {
            let peer = told("10.0.0.5", &proxies, written, lines);
            assert_eq!(
                (peer, peer.is_in(&blocks)),
                (proxy, false),
                "{written:?} {lines:?}"
            );
        }
        // A hop that cannot be followed: the proxy before it counts.
        let peer = told(
            "10.0.0.5",
            &proxies,
            XForwardedFor,
            &[("x-forwarded-for", "10.0.0.7, evil, 10.0.0.9")],
        );
        assert_eq!(
            (peer.0.to_string().as_str(), peer.1),
            ("10.0.0.9", AddressOwner::Proxy)
        );
        // Callers inside who need no proxy.
        for lines in [&[][..], &[("x-forwarded-for", "10.1.1.1")]] {
            assert!(
                told("10.0.0.5", &proxies, XForwardedFor, lines).is_in(&blocks),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn t38_a_list_is_followed_only_so_far_and_over_all_its_lines() {
        let proxies = ["10.0.0.0/8"];
        let lines = [
            ("x-forwarded-for", "1.1.1.1, 198.51.100.7"),
            ("x-forwarded-for", "10.0.0.9"),
        ];
        assert_eq!(judged("10.0.0.5", &proxies, &lines), "198.51.100.7");
        let long = format!("1.1.1.1, {}", vec!["10.0.0.7"; MAX_STEPS].join(", "));
        let peer = told(
            "10.0.0.5",
            &proxies,
            Forwarding::XForwardedFor,
            &[("x-forwarded-for", &long)],
        );
        assert_eq!(
            (peer.0.to_string().as_str(), peer.1),
            ("10.0.0.7", AddressOwner::Proxy)
        );
        let just = format!("1.1.1.1, {}", vec!["10.0.0.7"; MAX_STEPS - 1].join(", "));
        assert_eq!(
            judged("10.0.0.5", &proxies, &[("x-forwarded-for", &just)]),
            "1.1.1.1"
        );
    }
}
