//! The `Host` header: present once and a host, or the request goes no further (RFC 9112, 3.2). Nothing of ours is
//! ever built from it.

use http::HeaderMap;
use http::header::HOST;
use http::uri::Authority;

/// Whether a request names its host as it must.
pub(super) fn is_good(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(HOST).iter();
    let (Some(host), None) = (lines.next(), lines.next()) else { return false };
    let Ok(text) = host.to_str() else { return false };
    // `Authority` lets user parts and odd characters through; a host is narrower.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']' | b'~' | b'%');
    if text.is_empty() || !text.bytes().all(plain) {
        return false;
    }
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let port_is_good = match text.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => !port.is_empty() && authority.port_u16().is_some(),
        _ => true,
    };
    !authority.host().is_empty() && port_is_good
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn judged(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HOST, HeaderValue::from_bytes(line.as_bytes()).expect("a header"));
        }
        is_good(&headers)
    }

    #[test]
    fn t11_one_plain_host_is_good_and_everything_else_is_not() {
        for good in ["a", "hooks.example.com", "hooks.example.com:8080", "127.0.0.1:1", "[::1]:8080", "[::1]", "a_b"] {
            assert!(judged(&[good]), "{good}");
        }
        for bad in ["", "a, b", "a b", "u@h", "a:", "a:x", "a:99999", "a/b", "a?b", "a#b", "\"a\"", "[::1", ":80"] {
            assert!(!judged(&[bad]), "{bad}");
        }
        assert!(!judged(&[]));
        assert!(!judged(&["a", "a"]));
    }
}
