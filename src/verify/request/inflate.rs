//! Compressed bodies, for the few senders that compress: back to what they were, within bounds.
//!
//! A small body can hold a huge one, so the result may have at most 10 MiB and a hundred times what came in.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::model::Refusal;

/// Largest inflated body.
const MOST: usize = 10 * 1024 * 1024;

/// Largest ratio of the inflated body to the received one; small bodies are exempt.
const RATIO: usize = 100;
const SMALL: usize = 64 * 1024;

/// Bytes of a compressed request that a scheme's `{body}` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compressed {
    /// The signature is over the bytes as they came.
    AsReceived,
    /// The signature is over what they were before.
    Inflated,
}

/// The largest size that a compressed body of this many bytes may inflate to.
pub(crate) fn most(length: usize) -> usize {
    MOST.min(length.saturating_mul(RATIO).max(SMALL))
}

/// The largest size that a compressed body of this many bytes may inflate to.
pub fn most_inflated(length: u64) -> u64 {
    most(usize::try_from(length).unwrap_or(usize::MAX)) as u64
}

/// The body before it was compressed; none where it is not compressed.
pub(crate) fn inflated(headers: &HeaderMap, body: &Bytes) -> Result<Option<Bytes>, Refusal> {
    let mut lines = headers.get_all(CONTENT_ENCODING).iter();
    let coding = match (lines.next(), lines.next()) {
        (None, _) => return Ok(None),
        (Some(line), None) => line.as_bytes().trim_ascii().to_ascii_lowercase(),
        _ => {
            return Err(Refusal::Unsupported(
                "the body is compressed more than once".into(),
            ));
        }
    };
    let most = most(body.len());
    let mut out = Vec::new();
    let limit = most as u64 + 1;
    let read = match coding.as_slice() {
        b"" | b"identity" => return Ok(None),
        b"gzip" | b"x-gzip" => MultiGzDecoder::new(&body[..])
            .take(limit)
            .read_to_end(&mut out),
        b"deflate" => ZlibDecoder::new(&body[..])
            .take(limit)
            .read_to_end(&mut out),
        _ => {
            return Err(Refusal::Unsupported(
                "the body is compressed in a way that is not known".into(),
            ));
        }
    };
    if out.len() > most {
        return Err(Refusal::TooLarge(most as u64));
    }
    match read {
        Ok(_) => Ok(Some(out.into())),
        Err(_) => Err(Refusal::Malformed(
            "the body is not compressed the way it says".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use http::HeaderValue;

    use super::*;

    fn inflate(coding: &str, body: Vec<u8>) -> Result<Option<Bytes>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_str(coding).unwrap());
        inflated(&headers, &body.into())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_compressed_comes_back() {
        assert_eq!(
            inflate("GZIP", gzip(b"hello")),
            Ok(Some(Bytes::from_static(b"hello")))
        );
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(b"hello").unwrap();
        assert_eq!(
            inflate("deflate", zlib.finish().unwrap()),
            Ok(Some(Bytes::from_static(b"hello")))
        );
        assert_eq!(inflate("identity", b"x".to_vec()), Ok(None));
        assert_eq!(
            inflated(&HeaderMap::new(), &Bytes::from_static(b"x")),
            Ok(None)
        );
    }

    #[test]
    fn t67_bombs_and_broken_bodies_are_refused() {
        for size in [SMALL + 1_000_000, 11 * 1024 * 1024, 200 * 1024 * 1024] {
            assert!(
                matches!(
                    inflate("gzip", gzip(&vec![0; size])),
                    Err(Refusal::TooLarge(_))
                ),
                "{size}"
            );
        }
        let whole = gzip(b"hello");
        for broken in [&whole[..whole.len() - 3], b"hello", b""] {
            assert!(
                matches!(inflate("gzip", broken.to_vec()), Err(Refusal::Malformed(_))),
                "{broken:?}"
            );
        }
        assert!(matches!(
            inflate("br", whole.clone()),
            Err(Refusal::Unsupported(_))
        ));
        assert!(matches!(
            inflate("gzip, gzip", whole),
            Err(Refusal::Unsupported(_))
        ));
    }
}
