//! PROXY protocol, versions 1 and 2: the header in which a proxy names its caller, before the first byte of the caller.
//! It is read from trusted proxies only, and they must send it. Anything else is an error.

use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// First bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, its end included.
const MAX_LINE: usize = 107;

/// The longest version 2 header behind its fixed part; proxies put more than addresses there.
const MAX_REST: usize = 2048;

/// Reads the header, and not a byte more. Gives the caller's address; `None` if the proxy speaks for itself.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>> {
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).await?;
    if begin == *SIGNATURE {
        return version_2(stream).await;
    }
    let mut line = begin.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE || !line.starts_with(b"PROXY ") {
            return Err(wrong("it is no PROXY header"));
        }
        line.push(stream.read_u8().await?);
    }
    let line = std::str::from_utf8(&line).map_err(|_| wrong("it is no text"))?;
    version_1(line.trim_end_matches("\r\n"))
}

fn version_1(line: &str) -> Result<Option<IpAddr>> {
    let parts: Vec<&str> = line.split(' ').collect();
    let is_port =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok();
    match parts[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family, from, to, from_port, to_port]
            if is_port(from_port) && is_port(to_port) =>
        {
            let read = |text: &str| {
                text.parse::<IpAddr>()
                    .ok()
                    .filter(|a| a.is_ipv4() == (family == "TCP4"))
            };
            let known = matches!(family, "TCP4" | "TCP6");
            match (read(from), read(to)) {
                (Some(from), Some(_)) if known => Ok(Some(from.to_canonical())),
                _ => Err(wrong("not an IP address")),
            }
        }
        _ => Err(wrong("its line is malformed")),
    }
}

async fn version_2(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>> {
    let command = stream.read_u8().await?;
    let family = stream.read_u8().await?;
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_REST {
        return Err(wrong("it is too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match (command, family) {
        (0x20, _) => Ok(None),
        (0x21, 0x11 | 0x12) => match rest[..] {
            [a, b, c, d, _, _, _, _, _, _, _, _, ..] => Ok(Some(Ipv4Addr::new(a, b, c, d).into())),
            _ => Err(wrong("it is too short")),
        },
        (0x21, 0x21 | 0x22) => match rest.first_chunk::<16>() {
            Some(address) if rest.len() >= 36 => {
                Ok(Some(IpAddr::V6(Ipv6Addr::from(*address)).to_canonical()))
            }
            _ => Err(wrong("it is too short")),
        },
        // Of no family, or of this machine's own.
        (0x21, 0x00 | 0x31 | 0x32) => Ok(None),
        _ => Err(wrong("its command or family is unknown")),
    }
}

fn wrong(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn judged(bytes: &[u8]) -> std::result::Result<(Option<String>, usize), ErrorKind> {
        let mut left = bytes;
        match read(&mut left).await {
            Ok(address) => Ok((address.map(|a| a.to_string()), left.len())),
            Err(error) => Err(error.kind()),
        }
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest, b"GET"].concat()
    }

    #[tokio::test]
    async fn both_versions_name_the_caller_and_leave_what_follows() {
        let named = |text: &str| Ok((Some(text.to_owned()), 3));
        assert_eq!(
            judged(b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 443\r\nGET").await,
            named("192.0.2.7")
        );
        assert_eq!(
            judged(b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\nGET").await,
            named("2001:db8::7")
        );
        assert_eq!(judged(b"PROXY UNKNOWN\r\nGET").await, Ok((None, 3)));
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0, 1, 0, 2, 9, 9, 9];
        assert_eq!(judged(&binary(0x21, 0x11, &v4)).await, named("192.0.2.7"));
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"::ffff:192.0.2.7".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(judged(&binary(0x21, 0x21, &v6)).await, named("192.0.2.7"));
        assert_eq!(judged(&binary(0x20, 0, &[])).await, Ok((None, 3)));
    }

    #[tokio::test]
    async fn whatever_is_not_exactly_that_is_an_error() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 40000\r\n",
            "PROXY TCP4 192.0.2.007 10.0.0.1 1 1\r\n",
            "PROXY TCP4 2001:db8::7 ::1 1 1\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 99999\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 +1 1\r\n",
            "PROXY UDP4 192.0.2.7 10.0.0.1 1 1\r\n",
            "PROXY TCP4 192.0.2.7  10.0.0.1 1 1\r\n",
        ] {
            assert_eq!(
                judged(text.as_bytes()).await,
                Err(ErrorKind::InvalidData),
                "{text}"
            );
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert_eq!(judged(long.as_bytes()).await, Err(ErrorKind::InvalidData));
        assert_eq!(
            judged(&binary(0x21, 0x11, &[0; 4])).await,
            Err(ErrorKind::InvalidData)
        );
        assert_eq!(
            judged(&binary(0x31, 0x11, &[0; 12])).await,
            Err(ErrorKind::InvalidData)
        );
        assert_eq!(
            judged(&binary(0x21, 0x11, &[0; 3000])).await,
            Err(ErrorKind::InvalidData)
        );
        assert_eq!(judged(b"PROXY TCP4").await, Err(ErrorKind::UnexpectedEof));
    }
}
