//! Our mark on requests that we send (`CDN-Loop`, RFC 8586), so that one of them which comes back is told from others:
//! a base address that leads to the gateway itself would otherwise send it round for ever.

use http::Uri;
use http::header::{HeaderMap, HeaderName, HeaderValue, VIA};
use sha2::{Digest as _, Sha256};

/// The header.
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// A gateway's marks: the same in all its processes, others in every gateway, and one for each server that it calls, so
/// that two servers cannot tell from them that the same gateway calls both.
#[derive(Clone, Debug)]
pub struct LoopGuard(Vec<(String, HeaderValue)>);

impl LoopGuard {
    /// The marks of the gateway with this secret for the servers that it calls.
    pub fn new<'u>(secret: &str, servers: impl IntoIterator<Item = &'u Uri>) -> Self {
        let mark = |server: String| {
            let digest = Sha256::digest(format!("{secret}\0{server}"));
            let value = HeaderValue::try_from(format!("sluicegate-{}", hex::encode(&digest[..8])));
            (
                server,
                value.unwrap_or(HeaderValue::from_static("sluicegate")),
            )
        };
        Self(servers.into_iter().map(server_of).map(mark).collect())
    }

    /// Puts the one for a server on a request to it, beside the marks of others.
    pub fn put_on(&self, headers: &mut HeaderMap, server: &Uri) {
        if let Some(mark) = self.of(server) {
            headers.append(CDN_LOOP, mark.clone());
        }
    }

    /// The one for a server.
    pub fn of(&self, server: &Uri) -> Option<&HeaderValue> {
        let name = server_of(server);
        self.0
            .iter()
            .find(|(server, _)| *server == name)
            .map(|(_, mark)| mark)
    }

    /// True if a request carries one of them, in `CDN-Loop` or in `Via` (RFC 9110, 7.6.3): a proxy on the way may drop the
    /// first header, and must not drop the second.
    pub fn is_on(&self, headers: &HeaderMap) -> bool {
        let members = |name: HeaderName| {
            headers
                .get_all(name)
                .into_iter()
                .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        };
        // Parameters may follow a mark.
        let loops = members(CDN_LOOP)
            .filter_map(|mark| mark.split(|b| *b == b';').next())
            .map(<[u8]>::trim_ascii);
        // A protocol, who received it, and perhaps a comment.
        let passed = members(VIA).filter_map(|hop| {
            hop.split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty())
                .nth(1)
        });
        loops
            .chain(passed)
            .any(|mark| self.0.iter().any(|(_, ours)| mark == ours.as_bytes()))
    }
}

/// The name by which servers are told apart.
fn server_of(uri: &Uri) -> String {
    uri.authority()
        .map(|authority| authority.as_str().to_ascii_lowercase())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s33_our_marks_are_told_from_those_of_others_and_differ_by_server() {
        let servers: [Uri; 2] =
            ["https://a.test/base", "https://b.test"].map(|uri| uri.parse().unwrap());
        let (ours, theirs) = (
            LoopGuard::new("0011", &servers),
            LoopGuard::new("0012", &servers),
        );
        let put = |marks: &LoopGuard, server: &Uri| {
            let mut headers = HeaderMap::new();
            headers.insert(
                CDN_LOOP,
                HeaderValue::from_static("example.test; v=1, other"),
            );
            marks.put_on(&mut headers, server);
            headers
        };
        let mark = |headers: &HeaderMap| headers.get_all(CDN_LOOP).iter().nth(1).cloned().unwrap();
        let (a, b) = (put(&ours, &servers[0]), put(&ours, &servers[1]));
        assert!(ours.is_on(&a) && ours.is_on(&b) && !theirs.is_on(&a) && !theirs.is_on(&b));
        assert_ne!(mark(&a), mark(&b));
        assert_ne!(mark(&a), mark(&put(&theirs, &servers[0])));
        let said = mark(&a).to_str().unwrap().to_owned();
        for line in [
            said.clone(),
            format!("x,{said};a=b"),
            format!("y ; q , {said} "),
        ] {
            assert!(
                ours.is_on(&HeaderMap::from_iter([(
                    CDN_LOOP,
                    HeaderValue::try_from(&line).unwrap()
                )])),
                "{line}"
            );
        }
        for line in [
            format!("{said}2"),
            "sluicegate".to_owned(),
            format!("x;{said}"),
            String::new(),
        ] {
            assert!(
                !ours.is_on(&HeaderMap::from_iter([(
                    CDN_LOOP,
                    HeaderValue::try_from(&line).unwrap()
                )])),
                "{line}"
            );
        }
        assert!(!ours.is_on(&HeaderMap::new()));
        let via =
            |line: String| HeaderMap::from_iter([(VIA, HeaderValue::try_from(line).unwrap())]);
        for line in [
            format!("1.1 {said}"),
            format!("1.0 other, HTTP/1.1  {said} (a comment)"),
            format!("2 {said},1.1 x"),
        ] {
            assert!(ours.is_on(&via(line.clone())), "RFC 9110, 7.6.3: {line}");
        }
        for line in [
            format!("1.1 {said}2"),
            said.clone(),
            "1.1 sluicegate".to_owned(),
        ] {
            assert!(!ours.is_on(&via(line.clone())), "{line}");
        }
    }
}
