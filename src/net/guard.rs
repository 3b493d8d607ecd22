//! Addresses that are not the operator's: what a payload names must not lead into the network the gateway stands in.
//!
//! What is promised: every address that a name resolves to is judged, and one of the judged ones is connected; nobody
//! asks for the name again in between. An address is reached only where it is one of the public internet, or lies in a
//! block that the operator allows. An address in a form of its own (octal, one number, five parts) is no address.

use std::fmt;
use std::future::Future;
use std::io::{Error, ErrorKind, Result as IoResult};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::dns::Name;
use tower::Service;

use crate::model::Block;

/// Reason why an address must not be called. It does not say what the name resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address must not be asked: {0}")]
pub struct Forbidden(pub &'static str);

/// Rules for the addresses that may be reached.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    /// Blocks that are reached although they are not public.
    allow: Arc<[Block]>,
}

/// Blocks of IPv4 that are not the public internet (RFC 6890 and its registry).
const NOT_PUBLIC: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

impl Guard {
    pub(super) fn new(allow: &[Block]) -> Self {
        Self {
            allow: allow.into(),
        }
    }

    /// Judges an address as it is written, without resolving its name.
    pub(super) fn judge(&self, address: &str) -> Result<Uri, Forbidden> {
        if !address.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
            return Err(Forbidden("it has a character that cannot stand in one"));
        }
        let uri: Uri = address.parse().map_err(|_| Forbidden("invalid address"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(Forbidden("it is neither http nor https"));
        }
        let authority = uri.authority().ok_or(Forbidden("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(Forbidden("it has a user in it"));
        }
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(Forbidden("invalid port"));
        }
        match literal(authority.host())? {
            Some(address) => self.admit(address)?,
            None if is_name(authority.host()) => {}
            None => return Err(Forbidden("it names no host")),
        }
        Ok(uri)
    }

    /// Judges one IP address.
    fn admit(&self, address: IpAddr) -> Result<(), Forbidden> {
        if is_public(address) || self.allow.iter().any(|block| block.holds(address)) {
            Ok(())
        } else {
            Err(Forbidden("it is not one of the public internet"))
        }
    }
}

/// The address that a host is, where it is one. What looks like one and is not is no name either.
fn literal(host: &str) -> Result<Option<IpAddr>, Forbidden> {
    if let Some(rest) = host.strip_prefix('[') {
        let inside = rest
            .strip_suffix(']')
            .ok_or(Forbidden("it names no host"))?;
        return inside
            .parse()
            .map(|v6| Some(IpAddr::V6(v6)))
            .map_err(|_| Forbidden("it names no host"));
    }
    let last = host
        .trim_end_matches('.')
        .rsplit('.')
        .next()
        .unwrap_or_default();
    let is_number = last.bytes().all(|b| b.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .or_else(|| last.strip_prefix("0X"))
            .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if !is_number {
        return Ok(None);
    }
    host.parse()
        .map(|v4| Some(IpAddr::V4(v4)))
        .map_err(|_| Forbidden("it is a number in a form of its own"))
}

fn is_name(host: &str) -> bool {
    let good = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.eq_ignore_ascii_case("xn--")
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    host.len() <= 253 && host.split('.').all(good)
}

/// True for an address of the public internet.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let held = |(base, bits): &(Ipv4Addr, u32)| {
                (v4.to_bits() ^ base.to_bits()) >> (32 - bits) == 0
            };
            !NOT_PUBLIC.iter().any(held)
        }
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// Only what is given out for use, without what holds an IPv4 address or is for documents.
fn is_public_v6(v6: Ipv6Addr) -> bool {
    let [a, b, ..] = v6.segments();
    let given_out = a & 0xe000 == 0x2000;
    // 2001::/23 (Teredo and other protocols), documents (2001:db8::/32, 3fff::/20), 6to4.
    let special =
        (a == 0x2001 && (b < 0x0200 || b == 0x0db8)) || a == 0x2002 || (a == 0x3fff && b < 0x1000);
    given_out && !special
}

/// Name resolution: the addresses of a host name.
pub(super) trait NameLookup: Send + Sync {
    /// All addresses of a name; the ports are of no meaning.
    fn find(&self, name: String)
    -> Pin<Box<dyn Future<Output = IoResult<Vec<SocketAddr>>> + Send>>;
}

/// Name resolution of the system.
pub(super) struct System;

impl NameLookup for System {
    fn find(
        &self,
        name: String,
    ) -> Pin<Box<dyn Future<Output = IoResult<Vec<SocketAddr>>> + Send>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
    }
}

/// Resolver of the client: it refuses a name if one of its addresses must not be reached.
#[derive(Clone)]
pub(super) struct Resolver {
    lookup: Arc<dyn NameLookup>,
    /// None where the operator wrote the address.
    guard: Option<Guard>,
}

impl Resolver {
    pub(super) fn new(lookup: Arc<dyn NameLookup>, guard: Option<Guard>) -> Self {
        Self { lookup, guard }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = IoResult<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<IoResult<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (found, guard) = (
            self.lookup.find(name.as_str().to_owned()),
            self.guard.clone(),
        );
        Box::pin(async move {
            let found = found.await?;
            // One that must not be reached spoils all: a name that points at both is no accident.
            for address in &found {
                if let Some(guard) = &guard {
                    guard
                        .admit(address.ip())
                        .map_err(|error| Error::new(ErrorKind::PermissionDenied, error))?;
                }
            }
            Ok(found.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn t70_the_table_of_addresses() {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora/edge-cases/ssrf-urls.json");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| {
            panic!(
                "{}: {error}; this file is part of the repository",
                file.display()
            )
        });
        let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert!(cases.len() > 30, "saw {} cases", cases.len());
        for case in &cases {
            let judged = Guard::default().judge(case["url"].as_str().unwrap());
            assert_eq!(
                judged.is_ok(),
                case["expect"] == "allow",
                "{case}: {judged:?}"
            );
        }
    }

    #[test]
    fn t70_more_forms_of_what_is_not_public() {
        for wrong in [
            "http://127.1/",
            "http://0x7f.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://0/",
            "http://127.0.0.1.",
            "http://example.com./",
            "http://a..b/",
            "http://[::]/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://[::10.0.0.1]/",
            "http://[fd00::1]/",
            "http://[fec0::1]/",
            "http://[64:ff9b:1::1]/",
            "http://[2001:0:1::1]/",
            "http://[3fff::1]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://192.168.1.1:8080/",
            "http://example.com:/",
            "http://example.com:99999/",
            "ftp://example.com/",
            "/x",
            "",
        ] {
            assert!(Guard::default().judge(wrong).is_err(), "{wrong}");
        }
        for good in [
            "https://example.com/a?b=c",
            "http://a_b.example.com:8080",
            "https://8.8.8.8/",
            "http://1.example",
        ] {
            assert!(Guard::default().judge(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_reached() {
        let guard = Guard::new(&["10.1.0.0/16".parse().unwrap(), "::1".parse().unwrap()]);
        assert!(guard.judge("http://10.1.2.3/").is_ok());
        assert!(guard.judge("http://[::1]:8080/").is_ok());
        assert!(guard.judge("http://10.2.0.1/").is_err());
    }

    struct FixedAddresses(Vec<&'static str>);

    impl NameLookup for FixedAddresses {
        fn find(
            &self,
            _: String,
        ) -> Pin<Box<dyn Future<Output = IoResult<Vec<SocketAddr>>> + Send>> {
            let found = self
                .0
                .iter()
                .map(|text| SocketAddr::new(text.parse().unwrap(), 0))
                .collect();
            Box::pin(std::future::ready(Ok(found)))
        }
    }

    #[tokio::test]
    async fn t71_every_address_of_a_name_is_judged() {
        for (addresses, good) in [
            (vec!["8.8.8.8"], true),
            (vec!["8.8.8.8", "2606:2800:21f:cb07::1"], true),
            (vec!["8.8.8.8", "127.0.0.1"], false),
            (vec!["::ffff:10.0.0.1"], false),
            (vec!["fe80::1"], false),
        ] {
            let mut resolver = Resolver::new(
                Arc::new(FixedAddresses(addresses.clone())),
                Some(Guard::default()),
            );
            let found = resolver.call("rebind.test".parse().unwrap()).await;
            assert_eq!(found.is_ok(), good, "{addresses:?}");
            let mut operators = Resolver::new(Arc::new(FixedAddresses(addresses)), None);
            assert!(
                operators
                    .call("upstream.test".parse().unwrap())
                    .await
                    .is_ok()
            );
        }
    }
}
