//! Encodings of shared secrets: text, base64, hexadecimal digits, `whsec_` and base64.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Encoding of a shared secret in the operator's text.
#[derive(Clone, Copy)]
pub(crate) enum SecretEncoding {
    Utf8,
    Base64,
    Hex,
    Whsec,
}

impl SecretEncoding {
    /// The words of provider files.
    pub(crate) const WORDS: [(&'static str, Self); 4] = [
        ("utf8", Self::Utf8),
        ("base64", Self::Base64),
        ("hex", Self::Hex),
        ("whsec", Self::Whsec),
    ];

    /// The bytes of a secret that is written so.
    pub(crate) fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Utf8 => Some(text.to_vec()),
            Self::Base64 => shared_base64(text),
            Self::Hex => hex::decode(text).ok(),
            Self::Whsec => {
                let mark = b"whsec_";
                let start = text
                    .windows(mark.len())
                    .position(|w| w == mark)
                    .map_or(0, |at| at + mark.len());
                shared_base64(&text[start..])
            }
        }
    }

    /// Name of the encoding for a sentence.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Utf8 => "text",
            Self::Base64 => "base64",
            Self::Hex => "hexadecimal digits",
            Self::Whsec => "whsec_ and base64",
        }
    }
}

/// Base64 as operators paste it: with and without padding.
pub(crate) const PASTED: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Base64 of a shared secret, which may be a made-up text of its letters: bits that fill no byte do not
/// count.
const MADE_UP: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes of a shared secret that is written in base64, as the senders' libraries read them: padding may be missing or
/// be too much, and what is left of the last letters and fills no byte is left out.
fn shared_base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text
        .iter()
        .rposition(|byte| *byte != b'=')
        .map_or(0, |at| at + 1);
    if text.len() - end > 2 {
        return None;
    }
    // Six bits alone are no byte.
    let end = if end % 4 == 1 { end - 1 } else { end };
    MADE_UP
        .decode(&text[..end])
        .ok()
        .filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_secret_in_base64_is_read_as_the_libraries_of_senders_read_it() {
        let key = |text: &str| shared_base64(text.as_bytes());
        assert_eq!(key("AQID").as_deref(), Some(&[1, 2, 3][..]));
        assert_eq!(key("AQIDBA==").as_deref(), Some(&[1, 2, 3, 4][..]));
        for also in ["AQIDBA", "AQIDBA=", "AQIDBP", "AQIDBP==", "AQIDBP="] {
            assert_eq!(key(also).as_deref(), Some(&[1, 2, 3, 4][..]), "{also}");
        }
        assert_eq!(
            key("AQIDq").as_deref(),
            Some(&[1, 2, 3][..]),
            "six bits are no byte"
        );
        for wrong in ["", "A", "==", "AQID===", "AQ ID", "AQ=D", "AQI-", "äöü"] {
            assert_eq!(key(wrong), None, "{wrong:?}");
        }
    }
}
