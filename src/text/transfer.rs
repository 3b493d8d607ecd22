//! The transfer encodings of a part (RFC 2045, 6), undone piece by piece. Forms should have none (RFC 7578, 4.7); older
//! senders write them all the same.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A part's encoding, and what of it waits for more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Transfer {
    /// As it is.
    #[default]
    Plain,
    Base64(Vec<u8>),
    Quoted(Vec<u8>),
}

impl Transfer {
    /// By the name in a part's head. None for one that is unknown.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "7bit" | "8bit" | "binary" => Some(Self::Plain),
            "base64" => Some(Self::Base64(Vec::new())),
            "quoted-printable" => Some(Self::Quoted(Vec::new())),
            _ => None,
        }
    }

    /// Takes the next bytes. None: they are not encoded as was said.
    pub(super) fn take(&mut self, piece: Bytes) -> Option<Bytes> {
        match self {
            Self::Plain => Some(piece),
            Self::Base64(waiting) => {
                waiting.extend(piece.iter().filter(|byte| !byte.is_ascii_whitespace()));
                // A padded group is the last one and is left for the end.
                let padded = waiting
                    .iter()
                    .position(|byte| *byte == b'=')
                    .unwrap_or(waiting.len());
                if waiting.len() - padded > 2 {
                    return None;
                }
                let whole: Vec<u8> = waiting.drain(..padded / 4 * 4).collect();
                BASE64.decode(whole).ok().map(Bytes::from)
            }
            Self::Quoted(waiting) => {
                let mut all = std::mem::take(waiting);
                all.extend_from_slice(&piece);
                let (plain, read) = unquoted(&all, false);
                waiting.extend_from_slice(&all[read..]);
                Some(plain.into())
            }
        }
    }

    /// Returns the rest at the end of a part.
    pub(super) fn end(&mut self) -> Option<Bytes> {
        match std::mem::take(self) {
            Self::Plain => Some(Bytes::new()),
            Self::Base64(waiting) => BASE64.decode(waiting).ok().map(Bytes::from),
            Self::Quoted(waiting) => Some(unquoted(&waiting, true).0.into()),
        }
    }
}

/// Undoes quoted-printable as far as it can be told, or to the end. What is no escape stands for itself.
fn unquoted(text: &[u8], is_end: bool) -> (Vec<u8>, usize) {
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte != b'=' {
            plain.push(*byte);
            at += 1;
            continue;
        }
        match text.get(at + 1..) {
            Some([b'\n', ..]) => at += 2,
            Some([b'\r', b'\n', ..]) => at += 3,
            Some([high, low, ..]) => {
                let digit = |byte: u8| {
                    char::from(byte)
                        .to_digit(16)
                        .and_then(|digit| u8::try_from(digit).ok())
                };
                match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => {
                        plain.push(high * 16 + low);
                        at += 3;
                    }
                    _ => {
                        plain.push(b'=');
                        at += 1;
                    }
                }
            }
            Some([_]) if is_end => {
                plain.extend_from_slice(&text[at..]);
                at = text.len();
            }
            // A soft line break at the very end.
            _ if is_end => at = text.len(),
            _ => break,
        }
    }
    (plain, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undone(name: &str, text: &[u8], size: usize) -> Option<Vec<u8>> {
        let mut transfer = Transfer::named(name)?;
        let mut all = Vec::new();
        for piece in text.chunks(size) {
            all.extend_from_slice(&transfer.take(Bytes::copy_from_slice(piece))?);
        }
        all.extend_from_slice(&transfer.end()?);
        Some(all)
    }

    #[test]
    fn rfc_2045_6_encodings_are_undone_however_they_are_cut() {
        for size in [1, 2, 3, 4, 5, 100] {
            assert_eq!(
                undone("BASE64", b"aGVs\r\nbG8=\r\n", size).as_deref(),
                Some(&b"hello"[..]),
                "{size}"
            );
            assert_eq!(
                undone("base64", b"aGVsbG8", size).as_deref(),
                Some(&b"hello"[..])
            );
            let quoted = undone("Quoted-Printable", b"caf=C3=A9 =\r\nx =3D=3d 5=6 =zz", size);
            assert_eq!(
                quoted.as_deref(),
                Some("café x == 5=6 =zz".as_bytes()),
                "{size}"
            );
            assert_eq!(
                undone("binary", b"a=00", size).as_deref(),
                Some(&b"a=00"[..])
            );
        }
        for wrong in [&b"a*b="[..], b"aGVsbG8=aGVsbG8=", b"a", b"===="] {
            assert_eq!(undone("base64", wrong, 3), None, "{wrong:?}");
        }
        assert_eq!(undone("x-zip", b"", 1), None);
    }
}
