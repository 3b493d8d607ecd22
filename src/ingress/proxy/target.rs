//! Target of a request upstream: the upstream's own path, then the caller's path and query as they came. Nothing is
//! decoded or normalised. A path that could climb out of the upstream's own is refused, in every spelling that a server
//! may take for `..`.

use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;

use crate::config::ProxyConfig;
use crate::model::Refusal;

/// The part of a path below a prefix: empty, or a slash and the rest. A prefix ends where a segment ends.
pub(super) fn below<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    path.strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The target upstream.
pub(super) fn target(proxy: &ProxyConfig, uri: &Uri) -> Result<PathAndQuery, Refusal> {
    let path = uri.path();
    let rest = below(&proxy.prefix, path).ok_or(Refusal::NotFound)?;
    if climbs(rest) {
        return Err(Refusal::BadPath);
    }
    let base = proxy.upstream.path().trim_end_matches('/');
    let path = if proxy.strip_prefix { rest } else { path };
    let query = uri.query();
    let mut whole = String::with_capacity(base.len() + path.len() + query.map_or(0, str::len) + 2);
    whole.push_str(base);
    whole.push_str(path);
    if whole.is_empty() {
        whole.push('/');
    }
    if let Some(query) = query {
        whole.push('?');
        whole.push_str(query);
    }
    PathAndQuery::from_maybe_shared(Bytes::from(whole)).map_err(|_| Refusal::BadPath)
}

/// True if some server would read a segment of it as `..`.
fn climbs(path: &str) -> bool {
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    decoded.split(|b| matches!(b, b'/' | b'\\')).any(|segment| {
        // Some servers cut parameters off a segment before they look at it.
        segment
            .split(|b| *b == b';')
            .next()
            .is_some_and(|name| name == b"..")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Located, Place};

    fn proxy(prefix: &str, upstream: &str, strip_prefix: bool) -> ProxyConfig {
        ProxyConfig {
            prefix: Located {
                value: prefix.to_owned(),
                place: Place {
                    file: "t".into(),
                    line: 1,
                },
            },
            upstream: upstream.parse().unwrap(),
            login: None,
            strip_prefix,
            exchange_keys: true,
            upstream_key: None,
            require_key: false,
            forward_authorization: false,
            heartbeat: std::time::Duration::ZERO,
            max_body: None,
            rate: None,
            timeout: std::time::Duration::ZERO,
        }
    }

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        assert_eq!(below("/v1", "/v1"), Some(""));
        assert_eq!(below("/v1", "/v1/"), Some("/"));
        assert_eq!(below("/v1", "/v1/x"), Some("/x"));
        for other in ["/v10", "/v1x/y", "/V1/x", "/", "/x/v1", "/v1%2fx"] {
            assert_eq!(below("/v1", other), None, "{other}");
        }
    }

    #[test]
    fn path_and_query_are_kept_byte_for_byte() {
        let there = |proxy: &ProxyConfig, uri: &str| {
            target(proxy, &uri.parse().unwrap()).unwrap().to_string()
        };
        let kept = proxy("/v1", "https://api.test", false);
        for same in [
            "/v1",
            "/v1/",
            "/v1//a/./b%2Fc%20d/%zz",
            "/v1/a?",
            "/v1/a?b=%41+%20&&c=?/../",
        ] {
            assert_eq!(there(&kept, same), same);
        }
        assert_eq!(there(&kept, "http://else.test/v1/x?y"), "/v1/x?y");
        let cut = proxy("/xp", "https://api.test/base/", true);
        assert_eq!(there(&cut, "/xp"), "/base");
        assert_eq!(there(&cut, "/xp/"), "/base/");
        assert_eq!(there(&cut, "/xp?q"), "/base?q");
        assert_eq!(there(&cut, "/xp/a/b"), "/base/a/b");
        assert_eq!(
            there(&proxy("/xp", "https://api.test", true), "/xp?q"),
            "/?q"
        );
    }

    #[test]
    fn no_spelling_of_two_dots_leaves_the_upstreams_path() {
        let proxy = proxy("/v1", "https://api.test/base", true);
        let bad = [
            "/v1/..",
            "/v1/../x",
            "/v1/a/../../x",
            "/v1/%2e%2e/x",
            "/v1/.%2E/x",
            "/v1/a%2f..%2fx",
            "/v1/a%5c..%5Cx",
            "/v1/..;a=b/x",
            "/v1/a%2F%2e%2e",
        ];
        for path in bad {
            assert_eq!(
                target(&proxy, &path.parse().unwrap()),
                Err(Refusal::BadPath),
                "{path}"
            );
        }
        for good in [
            "/v1/...",
            "/v1/a..b",
            "/v1/..a",
            "/v1/%252e%252e/",
            "/v1/a?../..",
        ] {
            assert!(target(&proxy, &good.parse().unwrap()).is_ok(), "{good}");
        }
    }
}
