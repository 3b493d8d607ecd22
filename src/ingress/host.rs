//! Host header of a request: exactly one valid host, or the request is refused (RFC 9112, 3.2; RFC 9113, 8.3.1).
//! Nothing in the gateway is built from it.

use http::Version;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

/// True if a request names exactly one valid host.
pub(super) fn is_good(head: &Parts) -> bool {
    let mut lines = head.headers.get_all(HOST).iter();
    let line = match (lines.next(), lines.next()) {
        (line, None) => line,
        _ => return false,
    };
    let line = match line.map(|line| line.to_str()) {
        Some(Ok(text)) => Some(text),
        Some(Err(_)) => return false,
        None => None,
    };
    match (head.version, line) {
        // HTTP/1.0 has no such header.
        (Version::HTTP_10 | Version::HTTP_09, None) => true,
        (Version::HTTP_2, line) => match (head.uri.authority().map(Authority::as_str), line) {
            (Some(named), None) => is_host(named),
            (Some(named), Some(line)) => is_host(named) && named.eq_ignore_ascii_case(line),
            (None, Some(line)) => is_host(line),
            (None, None) => false,
        },
        (_, Some(line)) => is_host(line),
        (_, None) => false,
    }
}

fn is_host(text: &str) -> bool {
    // `Authority` lets user parts and odd characters through; a host is narrower.
    let plain = |b: u8| {
        b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']' | b'~' | b'%')
    };
    if text.is_empty() || !text.bytes().all(plain) {
        return false;
    }
    let Ok(authority) = text.parse::<Authority>() else {
        return false;
    };
    let port_is_good = match text.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => {
            !port.is_empty() && authority.port_u16().is_some()
        }
        _ => true,
    };
    !authority.host().is_empty() && port_is_good
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn judged(version: Version, target: &str, lines: &[&str]) -> bool {
        let mut request = Request::get(target).version(version);
        for line in lines {
            request = request.header(HOST, line.as_bytes());
        }
        is_good(&request.body(()).expect("a request").into_parts().0)
    }

    #[test]
    fn t11_one_plain_host_is_good_and_everything_else_is_not() {
        let judged = |lines: &[&str]| judged(Version::HTTP_11, "/", lines);
        for good in [
            "a",
            "hooks.example.com",
            "hooks.example.com:8080",
            "127.0.0.1:1",
            "[::1]:8080",
            "[::1]",
            "a_b",
        ] {
            assert!(judged(&[good]), "{good}");
        }
        for bad in [
            "", "a, b", "a b", "u@h", "a:", "a:x", "a:99999", "a/b", "a?b", "a#b", "\"a\"", "[::1",
            ":80",
        ] {
            assert!(!judged(&[bad]), "{bad}");
        }
        assert!(!judged(&[]));
        assert!(!judged(&["a", "a"]));
    }

    #[test]
    fn t11_the_version_before_needs_no_host_and_takes_no_bad_one() {
        assert!(judged(Version::HTTP_10, "/", &[]));
        assert!(!judged(Version::HTTP_10, "/", &["u@h"]));
        assert!(!judged(Version::HTTP_10, "/", &["a", "a"]));
    }

    #[test]
    fn t27_host_and_authority_are_the_same_or_the_request_is_refused() {
        let judged = |target: &str, lines: &[&str]| judged(Version::HTTP_2, target, lines);
        assert!(judged("https://a/", &[]));
        assert!(judged("https://a/", &["A"]));
        assert!(judged("/", &["a"]));
        assert!(!judged("https://a/", &["b"]));
        assert!(!judged("https://a:1/", &["a"]));
        assert!(!judged("https://u@a/", &[]));
        assert!(!judged("/", &[]));
    }
}
