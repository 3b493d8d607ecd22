//! One request head, judged before the HTTP library sees it.
//!
//! The library takes more than any two programs agree on: several codings as `chunked`, a length twice, targets that
//! are not a path. A proxy in front of the gateway or behind it may read such a head differently and see other requests
//! in the same bytes. Here a head has exactly one meaning, or it is refused. Nothing is changed: what passes, passes as it came.

use std::mem::MaybeUninit;

use http::Uri;

/// Headers of one request at most; the library's own bound, too, as long as it is not told another.
const MAX_HEADERS: usize = 100;

/// Fault of a request head. The texts are for the operator and repeat nothing of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// The head is invalid.
    Head(&'static str),
    /// The framing of the body is ambiguous.
    Framing(&'static str),
    /// The target is neither a path nor an address.
    Target(&'static str),
    /// The target is longer than a whole head may be.
    TargetTooLong,
    /// The head is longer than it may be, or has more headers.
    TooLarge,
    /// A version of HTTP that is not spoken here.
    Version,
    /// The head did not come in time.
    Slow,
}

/// Framing of the body that follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// A number of bytes, perhaps 0.
    Length(u64),
    /// Chunks, each with its own size.
    Chunked,
}

/// Judges what is at least one whole head; gives its length in bytes and how its body is framed.
pub(super) fn judge(bytes: &[u8]) -> Result<(usize, BodyFraming), HeadFault> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => {
            return Err(HeadFault::Head("the head ends before it is whole"));
        }
        Err(error) => return Err(syntax(error, bytes)),
    };
    let one_one = request.version == Some(1);
    judge_target(request.method.unwrap_or(""), request.path.unwrap_or(""))?;
    let mut said: Option<u64> = None;
    let mut chunked = false;
    for header in request.headers.iter() {
        match header.name.len() {
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                if said.is_some() {
                    return Err(HeadFault::Framing("there are two Content-Length lines"));
                }
                said = Some(
                    length_of(header.value)
                        .ok_or(HeadFault::Framing("Content-Length is no whole number"))?,
                );
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                if chunked || !is_chunked(header.value) {
                    return Err(HeadFault::Framing(
                        "Transfer-Encoding is not exactly chunked",
                    ));
                }
                chunked = true;
            }
            _ => {}
        }
    }
    match (said, chunked) {
        (Some(_), true) => Err(HeadFault::Framing(
            "there are a Content-Length and a Transfer-Encoding",
        )),
        (None, true) if !one_one => Err(HeadFault::Framing(
            "there is a Transfer-Encoding in HTTP/1.0",
        )),
        (None, true) => Ok((length, BodyFraming::Chunked)),
        (said, false) => Ok((length, BodyFraming::Length(said.unwrap_or(0)))),
    }
}

/// Judges the beginning of a head, of which `seen` bytes were judged before. A caller that speaks another protocol is
/// answered at once and not after a time-out.
pub(super) fn judge_early(bytes: &[u8], seen: usize) -> Result<(), HeadFault> {
    let from = seen.saturating_sub(1);
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'\r' if bytes.get(at + 1).is_some_and(|next| *next != b'\n') => {
                return Err(HeadFault::Head("a line is ended by CR alone"));
            }
            b'\r' | b'\n' | b'\t' => {}
            0..=31 | 127 => return Err(HeadFault::Head("there is a control byte in it")),
            _ => {}
        }
    }
    let first = bytes.iter().find(|byte| !matches!(byte, b'\r' | b'\n'));
    if first.is_some_and(|first| !first.is_ascii_graphic()) {
        return Err(HeadFault::Head("it begins with no method"));
    }
    Ok(())
}

/// A path, an address, or `*` for OPTIONS. CONNECT has a form of its own and is refused by its method.
fn judge_target(method: &str, target: &str) -> Result<(), HeadFault> {
    if method == "CONNECT" || (method == "OPTIONS" && target == "*") {
        return Ok(());
    }
    if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(HeadFault::Target(unfit(target.as_bytes())));
    }
    let uri: Uri = target
        .parse()
        .map_err(|_| HeadFault::Target(unfit(target.as_bytes())))?;
    let is_good = match uri.scheme_str() {
        None => target.starts_with('/'),
        Some(scheme) => matches!(scheme, "http" | "https") && uri.authority().is_some(),
    };
    if is_good {
        Ok(())
    } else {
        Err(HeadFault::Target(NO_PATH))
    }
}

const NO_PATH: &str = "The request target is neither a path nor an address.";

/// Names the invalid part of a target, and how to write it instead. The sentence goes to the caller as it is.
fn unfit(target: &[u8]) -> &'static str {
    let first = target
        .iter()
        .find(|b| !b.is_ascii_graphic() || matches!(b, b'"' | b'<' | b'>' | b'`' | b'#'));
    match first {
        Some(b'"') => r#"There is a raw " in the address. Write it as %22."#,
        Some(b'<') => "There is a raw < in the address. Write it as %3C.",
        Some(b'>') => "There is a raw > in the address. Write it as %3E.",
        Some(b'`') => "There is a raw ` in the address. Write it as %60.",
        Some(b'#') => {
            "There is a raw # in the address. Write it as %23, or leave it and what follows out."
        }
        Some(b' ') => "There is a blank in the address. Write it as %20.",
        Some(0x80..) => {
            "There is a character beyond ASCII in the address. Write its bytes in UTF-8 as %XX."
        }
        Some(_) => "There is a control character in the address.",
        None => NO_PATH,
    }
}

/// Digits and nothing else, and a number that can be counted to.
fn length_of(value: &[u8]) -> Option<u64> {
    let good = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    good.then(|| std::str::from_utf8(value).ok()?.parse().ok())
        .flatten()
}

fn is_chunked(value: &[u8]) -> bool {
    let from = value
        .iter()
        .position(|b| !matches!(b, b' ' | b'\t'))
        .unwrap_or(value.len());
    let to = value
        .iter()
        .rposition(|b| !matches!(b, b' ' | b'\t'))
        .map_or(from, |last| last + 1);
    value[from..to].eq_ignore_ascii_case(b"chunked")
}

fn syntax(error: httparse::Error, bytes: &[u8]) -> HeadFault {
    match error {
        httparse::Error::TooManyHeaders => HeadFault::TooLarge,
        httparse::Error::HeaderName => HeadFault::Head("invalid header name"),
        httparse::Error::HeaderValue => {
            HeadFault::Head("a header's value has a byte that cannot stand there")
        }
        httparse::Error::NewLine => HeadFault::Head("a line is not ended as lines are"),
        httparse::Error::Version if names_version(bytes) => HeadFault::Version,
        _ if has_blank_in_target(bytes) => HeadFault::Target(unfit(b" ")),
        _ => HeadFault::Head("invalid request line"),
    }
}

fn words_of_line(bytes: &[u8]) -> Vec<&[u8]> {
    let line = bytes
        .split(|b| *b == b'\n')
        .find(|line| !line.is_empty() && *line != b"\r")
        .unwrap_or_default();
    line.trim_ascii_end().split(|b| *b == b' ').collect()
}

/// True if blanks in the target are the only fault of a request line.
fn has_blank_in_target(bytes: &[u8]) -> bool {
    let words = words_of_line(bytes);
    let [method, target, .., version] = words[..] else {
        return false;
    };
    let is_method = !method.is_empty() && method.iter().all(u8::is_ascii_alphabetic);
    is_method
        && words.len() > 3
        && target.starts_with(b"/")
        && matches!(version, b"HTTP/1.0" | b"HTTP/1.1")
}

/// True if another version is the only fault of a request line.
fn names_version(bytes: &[u8]) -> bool {
    let parts = words_of_line(bytes);
    let [_, _, version] = parts[..] else {
        return false;
    };
    let Some(digits) = version.strip_prefix(b"HTTP/") else {
        return false;
    };
    !digits.is_empty() && digits.iter().all(|b| b.is_ascii_digit() || *b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &str) -> Result<BodyFraming, HeadFault> {
        let text = format!("POST /hook HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        judge(text.as_bytes()).map(|(length, framing)| {
            assert_eq!(length, text.len());
            framing
        })
    }

    #[test]
    fn t1_to_t5_a_body_is_framed_in_one_way_or_not_at_all() {
        assert_eq!(head(""), Ok(BodyFraming::Length(0)));
        assert_eq!(head("Content-Length: 7\r\n"), Ok(BodyFraming::Length(7)));
        assert_eq!(
            head("transfer-encoding:\tChunked \r\n"),
            Ok(BodyFraming::Chunked)
        );
        assert_eq!(
            head("Transfer_Encoding: chunked\r\ncontent-length: 7\r\n"),
            Ok(BodyFraming::Length(7))
        );
        for lines in [
            "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 7\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked,\r\n",
            "Transfer-Encoding: ,chunked\r\n",
            "Transfer-Encoding: chunked;a=b\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: \r\n",
            "Transfer-Encoding: \u{a0}chunked\r\n",
            "Content-Length: 7\r\nContent-Length: 7\r\n",
            "Content-Length: 7, 7\r\n",
            "Content-Length: 7,8\r\n",
            "Content-Length: +7\r\n",
            "Content-Length: -7\r\n",
            "Content-Length: 0x7\r\n",
            "Content-Length: 7 7\r\n",
            "Content-Length: \r\n",
            "Content-Length: 18446744073709551616\r\n",
        ] {
            assert!(
                matches!(head(lines), Err(HeadFault::Framing(_))),
                "{lines:?}: {:?}",
                head(lines)
            );
        }
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(matches!(judge(old.as_bytes()), Err(HeadFault::Framing(_))));
    }

    #[test]
    fn t9_an_invalid_head_is_a_fault() {
        for lines in [
            "X-A : one\r\n",
            "X-A: o\0ne\r\n",
            ": one\r\n",
            ":\r\n",
            "X-A one\r\n",
            "X-A: one\r\r\n",
            "\tX-A: one\r\n",
            "X-A: one\r\n two\r\n",
            "X-A: o\x7fne\r\n",
        ] {
            assert!(
                matches!(head(lines), Err(HeadFault::Head(_))),
                "{lines:?}: {:?}",
                head(lines)
            );
        }
        assert_eq!(
            head(&"X-A: 1\r\n".repeat(MAX_HEADERS)),
            Err(HeadFault::TooLarge)
        );
        // T10: a bare LF ends a line, and what is passed on has lines of its own.
        assert!(judge(b"GET / HTTP/1.1\nHost: a\n\n").is_ok());
    }

    #[test]
    fn t12_t14_request_lines() {
        let line = |line: &str| judge(format!("{line}\r\nHost: a\r\n\r\n").as_bytes()).map(|_| ());
        for good in [
            "GET / HTTP/1.0",
            "GET /a?b=%00 HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "CONNECT a:1 HTTP/1.1",
            "GET http://other.test/hook HTTP/1.1",
            "\r\nBREW /pot HTTP/1.1",
        ] {
            assert_eq!(line(good), Ok(()), "{good}");
        }
        for bad in [
            "POST /a b HTTP/1.1",
            "POST ! HTTP/1.1",
            "GET * HTTP/1.1",
            "GET a HTTP/1.1",
            "GET ftp://a/ HTTP/1.1",
            "GET /a#b HTTP/1.1",
        ] {
            assert!(
                matches!(line(bad), Err(HeadFault::Target(_))),
                "{bad}: {:?}",
                line(bad)
            );
        }
        for bad in [
            "POST  / HTTP/1.1",
            "\0 / HTTP/1.1",
            "POST /a\rb HTTP/1.1",
            "G@T / HTTP/1.1",
            "GET /",
        ] {
            assert!(
                matches!(line(bad), Err(HeadFault::Head(_))),
                "{bad}: {:?}",
                line(bad)
            );
        }
        for bad in [
            "GET / HTTP/1.32",
            "GET / HTTP/2.0",
            "GET / HTTP/0.9",
            "PRI * HTTP/2.0",
        ] {
            assert_eq!(line(bad), Err(HeadFault::Version), "{bad}");
        }
    }

    #[test]
    fn t18_another_protocol_is_seen_at_once() {
        assert!(judge_early(b"\x16\x03\x01\x00", 0).is_err());
        assert!(judge_early(b"GET / HTTP/1.1\rHost", 0).is_err());
        assert!(judge_early(b" GET", 0).is_err());
        assert!(judge_early(b"GET / HTTP/1.1\rH", 15).is_err());
        for good in [&b"GET / HTTP/1.1\r"[..], b"\r\n", b"", b"POST /\xc3\xa9"] {
            assert!(judge_early(good, 0).is_ok(), "{good:?}");
        }
    }
}
