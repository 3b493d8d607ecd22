//! Headers that are passed on. Headers of one connection are not (RFC 9110, 7.6.1): those that `Connection` names, and the
//! known ones. `Via` records that a message came by here (7.6.3), and `Max-Forwards` is counted down (7.6.2). Headers that
//! claim where a request came from or what it really asks for are not passed on either, in any spelling that an upstream
//! may take for them.

use http::header::{
    CONNECTION, COOKIE, HOST, HeaderName, HeaderValue, MAX_FORWARDS, TRANSFER_ENCODING, VIA,
};
use http::{HeaderMap, Version, header};

use super::key::X_API_KEY;

/// Headers of the request that goes upstream. `key` is set last, so that no `Connection` line can remove it.
pub(super) fn upward(
    mut headers: HeaderMap,
    version: Version,
    authorization: bool,
    key: Option<HeaderValue>,
) -> HeaderMap {
    // Checked at the door to be exactly this. Without it a body of unknown length would be dropped where methods
    // seldom have one.
    let is_chunked = headers.contains_key(TRANSFER_ENCODING);
    remove(&mut headers, |name| {
        is_of_one_connection(name)
            || is_a_claim(name)
            || *name == HOST
            || *name == header::EXPECT
            || *name == X_API_KEY
            || (*name == header::AUTHORIZATION && !authorization)
            || is_a_twin(name)
    });
    if version == Version::HTTP_2 {
        join_cookies(&mut headers);
    }
    if is_chunked {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(key) = key {
        headers.insert(X_API_KEY, key);
    }
    headers
}

/// Name of a gateway in `Via` where it has no name of its own.
const NAME: &str = "sluicegate";

/// Records in `Via` that a message came by here, and its protocol (RFC 9110, 7.6.3). `name` is the gateway's name there.
pub(super) fn pass_via(headers: &mut HeaderMap, received: Version, name: Option<&HeaderValue>) {
    let protocol = match received {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    };
    let name = name.and_then(|name| name.to_str().ok()).unwrap_or(NAME);
    if let Ok(hop) = HeaderValue::try_from(format!("{protocol} {name}")) {
        headers.append(VIA, hop);
    }
}

/// The number of times that a request may still be passed on, where it has one (RFC 9110, 7.6.2).
pub(super) fn max_forwards(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(MAX_FORWARDS)?.to_str().ok()?.trim();
    // A number that is too large for us is large enough.
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().unwrap_or(u64::MAX))
}

/// Joins a cookie line that HTTP/2 splits to compress it: HTTP/1 wants one line (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if lines.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        headers.insert(COOKIE, whole);
    }
}

/// Prepares the headers of an answer for the caller.
pub(super) fn downward(headers: &mut HeaderMap, received: Version) {
    remove(headers, is_of_one_connection);
    pass_via(headers, received, None);
}

fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let named = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','));
    let named = named.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    // How long a body is was agreed on by everybody who read it; it is not for this header to take away.
    let mut gone: Vec<HeaderName> = named
        .filter(|name| *name != header::CONTENT_LENGTH)
        .collect();
    gone.extend(headers.keys().filter(|name| unwanted(name)).cloned());
    for name in gone {
        headers.remove(name);
    }
}

/// Headers of one connection, which the next one has of its own.
fn is_of_one_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade"
    ) || name.as_str().starts_with("proxy-")
}

/// Headers by which a caller would say where it is or what it really asks for.
fn is_a_claim(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == "forwarded"
        || name.starts_with("x-forwarded-")
        || matches!(
            name,
            "x-real-ip"
                | "x-original-url"
                | "x-rewrite-url"
                | "x-http-method-override"
                | "x-http-method"
                | "x-method-override"
        )
}

/// Names that differ from one that matters only in underscores: gateways of scripts make the same variable of both.
fn is_a_twin(name: &HeaderName) -> bool {
    if !name.as_str().contains('_') {
        return false;
    }
    let Ok(plain) = HeaderName::try_from(name.as_str().replace('_', "-")) else {
        return true;
    };
    let matters = [
        X_API_KEY,
        HOST,
        header::AUTHORIZATION,
        header::CONTENT_LENGTH,
        header::EXPECT,
    ];
    is_of_one_connection(&plain) || is_a_claim(&plain) || matters.contains(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        headers
    }

    fn passed(
        lines: &[(&str, &str)],
        authorization: bool,
        key: Option<&'static str>,
    ) -> Vec<String> {
        let passed = upward(
            headers(lines),
            Version::HTTP_11,
            authorization,
            key.map(HeaderValue::from_static),
        );
        let mut lines: Vec<_> = passed
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn t20_the_key_is_set_after_what_connection_names_is_gone() {
        let lines = [
            ("connection", "x-api-key, X-Mine ,close"),
            ("x-api-key", "theirs"),
            ("x-mine", "1"),
            ("x-b", "2"),
        ];
        assert_eq!(
            passed(&lines, false, Some("ours")),
            ["x-api-key: ours", "x-b: 2"]
        );
        assert_eq!(passed(&lines, false, None), ["x-b: 2"]);
    }

    #[test]
    fn t21_claims_and_headers_of_one_connection_stay_behind_in_every_spelling() {
        let gone = [
            "host",
            "expect",
            "keep-alive",
            "te",
            "trailer",
            "upgrade",
            "proxy-authorization",
            "proxy-connection",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-anything",
            "x-original-url",
            "x-rewrite-url",
            "x-http-method-override",
            "x_forwarded_for",
            "x-forwarded_host",
            "x_api_key",
            "x_original_url",
            "transfer_encoding",
            "content_length",
            "authorization",
        ];
        for name in gone {
            assert_eq!(
                passed(&[(name, "1")], false, None),
                Vec::<String>::new(),
                "{name}"
            );
        }
        let kept = [
            ("cookie", "a=b"),
            ("accept-encoding", "br"),
            ("x_custom", "1"),
            ("content-length", "3"),
        ];
        assert_eq!(passed(&kept, false, None).len(), kept.len());
        assert_eq!(
            passed(&[("authorization", "Bearer t")], true, None),
            ["authorization: Bearer t"]
        );
    }

    #[test]
    fn a_chunked_body_stays_announced_and_a_length_cannot_be_taken_away() {
        assert_eq!(
            passed(&[("transfer-encoding", "Chunked")], false, None),
            ["transfer-encoding: chunked"]
        );
        let lines = [
            ("connection", "content-length, transfer-encoding"),
            ("content-length", "3"),
        ];
        assert_eq!(passed(&lines, false, None), ["content-length: 3"]);
    }

    #[test]
    fn s27_a_cookie_that_http_2_split_is_one_line_again() {
        let lines = [
            ("cookie", "a=1"),
            ("x-b", "2"),
            ("cookie", "b=2"),
            ("cookie", "c=3"),
        ];
        let passed = |version| upward(headers(&lines), version, false, None);
        let two = passed(Version::HTTP_2);
        assert_eq!(
            two.get_all(COOKIE).iter().collect::<Vec<_>>(),
            ["a=1; b=2; c=3"]
        );
        assert_eq!(
            passed(Version::HTTP_11).get_all(COOKIE).iter().count(),
            3,
            "as it came"
        );
    }

    #[test]
    fn rfc_9110_7_6_3_via_says_who_passed_a_message_on_and_how_it_came() {
        for (version, name, hop) in [
            (Version::HTTP_10, None, "1.0 sluicegate"),
            (Version::HTTP_11, Some("sluicegate-1a"), "1.1 sluicegate-1a"),
            (Version::HTTP_2, None, "2 sluicegate"),
        ] {
            let mut passed = headers(&[("via", "1.0 fred, 1.1 p.example.net (a cache)")]);
            pass_via(
                &mut passed,
                version,
                name.map(HeaderValue::from_static).as_ref(),
            );
            let hops: Vec<_> = passed
                .get_all(VIA)
                .iter()
                .map(|hop| hop.to_str().unwrap())
                .collect();
            assert_eq!(
                hops,
                ["1.0 fred, 1.1 p.example.net (a cache)", hop],
                "those before it stay before it"
            );
        }
    }

    #[test]
    fn rfc_9110_7_6_2_max_forwards_is_a_number_or_is_left_alone() {
        for (line, most) in [
            ("0", Some(0)),
            (" 7", Some(7)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("-1", None),
        ] {
            assert_eq!(
                max_forwards(&headers(&[("max-forwards", line)])),
                most,
                "{line}"
            );
        }
        assert_eq!(max_forwards(&HeaderMap::new()), None);
    }

    #[test]
    fn an_answer_loses_only_what_is_of_its_connection() {
        let mut answer = headers(&[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "x"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("retry-after", "7"),
            ("location", "/x"),
            ("content-length", "9"),
        ]);
        downward(&mut answer, Version::HTTP_10);
        assert_eq!(answer.len(), 6);
        assert_eq!(answer["via"], "1.0 sluicegate");
        assert_eq!(answer.get_all("set-cookie").iter().count(), 2);
    }
}
