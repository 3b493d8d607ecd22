//! Encodings of a signature: hexadecimal digits and the kinds of base64.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;

/// Encoding of a digest or signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Hex,
    HexLower,
    Base64,
    Base64Url,
    Base64Hex,
}

/// Base64 for addresses, which senders write with and without padding.
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Encoding {
    /// The words of provider files.
    pub(crate) const WORDS: [(&'static str, Self); 5] = [
        ("hex", Self::Hex),
        ("hex-lower", Self::HexLower),
        ("base64", Self::Base64),
        ("base64url", Self::Base64Url),
        ("base64-hex", Self::Base64Hex),
    ];

    /// Its word in provider files.
    pub(crate) fn word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, known)| *known == self)
            .map_or("", |(word, _)| word)
    }

    /// The bytes, when the text is written exactly so.
    pub(crate) fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => hex::decode(text).ok(),
            Self::HexLower if text.bytes().any(|b| b.is_ascii_uppercase()) => None,
            Self::HexLower => hex::decode(text).ok(),
            Self::Base64 => BASE64_STANDARD.decode(text).ok(),
            Self::Base64Url => BASE64_URL.decode(text).ok(),
            Self::Base64Hex => hex::decode(BASE64_STANDARD.decode(text).ok()?).ok(),
        }
    }

    /// The text the sender would write.
    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex | Self::HexLower => hex::encode(bytes),
            Self::Base64 => BASE64_STANDARD.encode(bytes),
            Self::Base64Url => BASE64_URL.encode(bytes),
            Self::Base64Hex => BASE64_STANDARD.encode(hex::encode(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_strict() {
        let bytes = [0xfb, 0xff, 0x01, 0x02];
        for (_, encoding) in Encoding::WORDS {
            assert_eq!(
                encoding.decode(&encoding.encode(&bytes)).as_deref(),
                Some(&bytes[..]),
                "{encoding:?}"
            );
            for wrong in ["z", " ", "ab\n", "ä"] {
                assert_eq!(encoding.decode(wrong), None, "{encoding:?} {wrong:?}");
            }
        }
        assert!(Encoding::Hex.decode("FBff").is_some());
        assert!(Encoding::HexLower.decode("FBff").is_none());
        assert!(Encoding::Base64.decode("+/8BAg").is_none(), "no padding");
        assert!(
            Encoding::Base64.decode("-_8BAg==").is_none(),
            "other alphabet"
        );
        assert!(
            Encoding::Base64.decode("+/8BAh==").is_none(),
            "bits left over"
        );
        assert!(Encoding::Base64Url.decode("-_8BAg==").is_some());
    }
}
