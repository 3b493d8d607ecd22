//! Who is calling: the address at the other end of the connection, or the one that proxies in front of the gateway
//! name.
//!
//! What is promised: nobody is believed but the blocks that the operator trusts. A list of addresses is read from its
//! right end, where the nearest proxy wrote, and only as far as each address is a trusted one; whatever stands further
//! left is anybody's word. Two lists that disagree are not believed either: a proxy writes one of them and leaves the
//! other as the caller sent it.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};

use crate::model::Block;

/// The address that limits and logs go by. Every request carries it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Proxies in a row at most.
const MAX_STEPS: usize = 64;

/// Whether an address is one of a trusted proxy.
pub(super) fn is_trusted(address: IpAddr, trusted: &[Block]) -> bool {
    trusted.iter().any(|block| block.holds(address))
}

/// The caller's address: the connection's, or the rightmost one that is not a trusted proxy's.
pub(super) fn client(peer: IpAddr, trusted: &[Block], headers: &HeaderMap) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let walk = |steps: Option<Vec<Option<IpAddr>>>| {
        steps.map(|steps| {
            let mut last = peer;
            for step in steps {
                match step {
                    Some(address) if is_trusted(last, trusted) => last = address,
                    _ => break,
                }
            }
            last
        })
    };
    match (walk(x_forwarded_for(headers)), walk(forwarded(headers))) {
        (Some(one), Some(other)) if one != other => peer,
        (Some(address), _) | (None, Some(address)) => address,
        (None, None) => peer,
    }
}

/// The addresses of `X-Forwarded-For`, the last one first. What is no address is none.
fn x_forwarded_for(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let lines: Vec<&[u8]> = headers.get_all(X_FORWARDED_FOR).iter().map(http::HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return None;
    }
    let parts = lines.iter().rev().flat_map(|line| line.rsplit(|b| *b == b','));
    let parts = parts.map(<[u8]>::trim_ascii).filter(|part| !part.is_empty());
    Some(parts.take(MAX_STEPS).map(|part| address(std::str::from_utf8(part).ok()?)).collect())
}

/// The `for` addresses of `Forwarded` (RFC 7239), the last one first.
fn forwarded(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let lines: Vec<&[u8]> = headers.get_all(FORWARDED).iter().map(http::HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return None;
    }
    let mut steps = Vec::new();
    for line in lines.iter().rev() {
        let parts = split(line, b',');
        for part in parts.iter().rev().map(|part| part.trim_ascii()).filter(|part| !part.is_empty()) {
            if steps.len() == MAX_STEPS {
                return Some(steps);
            }
            steps.push(for_of(part));
        }
    }
    Some(steps)
}

fn for_of(element: &[u8]) -> Option<IpAddr> {
    let pairs = split(element, b';');
    let mut named = pairs.iter().filter_map(|pair| {
        let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value.trim())
    });
    let (Some(value), None) = (named.next(), named.next()) else { return None };
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
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let parsed = match bare {
        Some(v6) => v6.parse().map(IpAddr::V6).ok(),
        None => text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip())),
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
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        let trusted: Vec<Block> = trusted.iter().map(|block| block.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &trusted, &headers).to_string()
    }

    #[test]
    fn t37_t38_the_table_of_client_addresses() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora/edge-cases/client-address.json");
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}; this file is part of the repository", file.display()));
        let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert!(cases.len() > 10, "saw {} cases", cases.len());
        for case in &cases {
            let texts = |key: &str| -> Vec<&str> {
                case[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
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
                assert_eq!(bucket(got.parse().unwrap()).to_string(), wanted, "{}", case["why"]);
            }
        }
    }

    #[test]
    fn t37_forwarded_is_read_as_the_other_list_is_and_two_that_disagree_are_not_believed() {
        let proxies = ["10.0.0.0/8"];
        for (value, client) in [
            ("for=198.51.100.7", "198.51.100.7"),
            ("for=1.1.1.1, For=\"198.51.100.7:80\";proto=https", "198.51.100.7"),
            ("for=1.1.1.1;by=\"a,b\", for=\"[2001:db8::7]:443\", for=10.1.1.1", "2001:db8::7"),
            ("for=1.1.1.1, for=unknown", "10.0.0.5"),
            ("for=1.1.1.1, for=_hidden", "10.0.0.5"),
            ("for=1.1.1.1;for=2.2.2.2", "10.0.0.5"),
            ("proto=https", "10.0.0.5"),
            ("for=\"1.1.1.1", "10.0.0.5"),
        ] {
            assert_eq!(judged("10.0.0.5", &proxies, &[("forwarded", value)]), client, "{value}");
        }
        let agree = [("forwarded", "for=198.51.100.7"), ("x-forwarded-for", "198.51.100.7")];
        assert_eq!(judged("10.0.0.5", &proxies, &agree), "198.51.100.7");
        let differ = [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "198.51.100.7")];
        assert_eq!(judged("10.0.0.5", &proxies, &differ), "10.0.0.5");
    }

    #[test]
    fn t38_a_list_is_followed_only_so_far_and_over_all_its_lines() {
        let proxies = ["10.0.0.0/8"];
        let lines = [("x-forwarded-for", "1.1.1.1, 198.51.100.7"), ("x-forwarded-for", "10.0.0.9")];
        assert_eq!(judged("10.0.0.5", &proxies, &lines), "198.51.100.7");
        let long = format!("1.1.1.1, {}", vec!["10.0.0.7"; MAX_STEPS].join(", "));
        assert_eq!(judged("10.0.0.5", &proxies, &[("x-forwarded-for", &long)]), "10.0.0.7");
        let just = format!("1.1.1.1, {}", vec!["10.0.0.7"; MAX_STEPS - 1].join(", "));
        assert_eq!(judged("10.0.0.5", &proxies, &[("x-forwarded-for", &just)]), "1.1.1.1");
    }
}
