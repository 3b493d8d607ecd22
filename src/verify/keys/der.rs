//! DER, as far as public keys and certificates need it (X.690, RFC 5280): reading strictly, and writing the few forms
//! of a key.
//!
//! Lengths are definite and as short as they can be. Any other length, or one past the end, is refused.

use crate::model::Timestamp;

/// `INTEGER`
pub(crate) const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `SEQUENCE`
pub(crate) const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// rsaEncryption, 1.2.840.113549.1.1.1
pub(crate) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// id-RSASSA-PSS, 1.2.840.113549.1.1.10
pub(crate) const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
/// id-ecPublicKey, 1.2.840.10045.2.1
pub(crate) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// secp256r1, 1.2.840.10045.3.1.7
pub(crate) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// id-Ed25519, 1.3.101.112
pub(crate) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// Values that stand one after the other.
pub(crate) struct DerReader<'d>(&'d [u8]);

impl<'d> DerReader<'d> {
    pub(crate) const fn new(bytes: &'d [u8]) -> Self {
        Self(bytes)
    }

    /// The next value: tag, content, and the whole of it.
    fn any(&mut self) -> Option<(u8, &'d [u8], &'d [u8])> {
        let whole = self.0;
        let (&tag, rest) = whole.split_first()?;
        // Tags of more than one byte have no place in keys.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, mut rest) = rest.split_first()?;
        let length = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x83 => {
                let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
                rest = after;
                let length = digits
                    .iter()
                    .fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
                let shortest = if digits.len() == 1 {
                    0x80
                } else {
                    1 << (8 * (digits.len() - 1))
                };
                (length >= shortest).then_some(length)?
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((tag, content, &whole[..whole.len() - after.len()]))
    }

    /// The content of the next value, when it has this tag.
    pub(crate) fn value(&mut self, tag: u8) -> Option<&'d [u8]> {
        self.any()
            .filter(|(found, ..)| *found == tag)
            .map(|(_, content, _)| content)
    }

    /// A number that is not negative, without its leading zero.
    pub(crate) fn unsigned(&mut self) -> Option<&'d [u8]> {
        match self.value(INTEGER)? {
            [0] => Some(&[]),
            [0, rest @ ..] if rest[0] & 0x80 != 0 => Some(rest),
            digits @ [first, ..] if *first != 0 && *first & 0x80 == 0 => Some(digits),
            _ => None,
        }
    }

    pub(crate) const fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads bytes that are exactly one value.
pub(crate) fn only(bytes: &[u8], tag: u8) -> Option<DerReader<'_>> {
    let mut reader = DerReader::new(bytes);
    let content = reader.value(tag)?;
    reader.is_done().then_some(DerReader::new(content))
}

/// A SubjectPublicKeyInfo: the algorithm, its curve where it names one, and the key.
pub(crate) struct Spki<'d> {
    pub(crate) algorithm: &'d [u8],
    pub(crate) curve: Option<&'d [u8]>,
    pub(crate) key: &'d [u8],
}

/// Reads a SubjectPublicKeyInfo.
pub(crate) fn spki(bytes: &[u8]) -> Option<Spki<'_>> {
    let mut info = only(bytes, SEQUENCE)?;
    let mut algorithm = DerReader::new(info.value(SEQUENCE)?);
    // The number of unused bits stands before the key; keys are whole bytes.
    let key = info.value(BIT_STRING)?.strip_prefix(&[0])?;
    let name = algorithm.value(OID)?;
    let curve = if algorithm.is_done() {
        None
    } else {
        algorithm.value(OID)
    };
    info.is_done().then_some(Spki {
        algorithm: name,
        curve,
        key,
    })
}

/// Parts of a certificate: the times between which it is valid, and its key.
pub(crate) struct Certificate<'d> {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) spki: &'d [u8],
}

/// Reads a certificate (RFC 5280, 4.1). Its issuer is not checked: the operator gave it, or it was fetched over TLS from the
/// host that the provider's file names.
pub(crate) fn certificate(bytes: &[u8]) -> Option<Certificate<'_>> {
    let mut outer = only(bytes, SEQUENCE)?;
    let mut body = DerReader::new(outer.value(SEQUENCE)?);
    let (tag, ..) = body.any()?;
    if tag == VERSION {
        body.value(INTEGER)?;
    } else if tag != INTEGER {
        return None;
    }
    body.value(SEQUENCE)?; // the signature's algorithm
    body.value(SEQUENCE)?; // the issuer
    let mut validity = DerReader::new(body.value(SEQUENCE)?);
    body.value(SEQUENCE)?; // the subject
    let (tag, _, spki) = body.any()?;
    let (from, to) = (time(&mut validity)?, time(&mut validity)?);
    (tag == SEQUENCE).then_some(Certificate { from, to, spki })
}

/// A time of a certificate: always in UTC, always to the second.
fn time(reader: &mut DerReader<'_>) -> Option<Timestamp> {
    let (tag, content, _) = reader.any()?;
    let digits = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let long = match (tag, digits.len()) {
        (GENERALIZED_TIME, 14) => digits.to_owned(),
        (UTC_TIME, 12) => format!("{}{digits}", if digits < "50" { "20" } else { "19" }),
        _ => return None,
    };
    let part = |from: usize, to: usize| &long[from..to];
    Timestamp::parse(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    ))
}

/// Writes a value.
pub(crate) fn write(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let digits = content.len().to_be_bytes();
    let digits = &digits[digits
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(digits.len() - 1)..];
    match digits {
        [short @ 0..=0x7f] => out.push(*short),
        // A length has at most eight bytes.
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// Writes a number that is not negative.
pub(crate) fn write_unsigned(digits: &[u8]) -> Vec<u8> {
    let digits = &digits[digits
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(digits.len())..];
    match digits.first() {
        Some(first) if first & 0x80 == 0 => write(INTEGER, digits),
        _ => write(INTEGER, &[&[0], digits].concat()),
    }
}

/// Writes a SubjectPublicKeyInfo.
pub(crate) fn write_spki(algorithm: &[u8], curve: Option<&[u8]>, key: &[u8]) -> Vec<u8> {
    let parameters = match (curve, algorithm == RSA) {
        (Some(curve), _) => write(OID, curve),
        (None, true) => vec![0x05, 0x00],
        (None, false) => Vec::new(),
    };
    let algorithm = write(SEQUENCE, &[write(OID, algorithm), parameters].concat());
    write(
        SEQUENCE,
        &[algorithm, write(BIT_STRING, &[&[0], key].concat())].concat(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_definite_short_and_within_the_bytes() {
        for wrong in [
            &[0x30_u8, 0x80, 0, 0][..],
            &[0x30, 0x81, 0x01, 0],
            &[0x30, 0x82, 0x00, 0x01, 0],
            &[0x30, 2, 0],
        ] {
            assert!(only(wrong, SEQUENCE).is_none(), "{wrong:02x?}");
        }
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let written = write(SEQUENCE, &vec![7; length]);
            let mut read = DerReader::new(&written);
            assert_eq!(read.value(SEQUENCE).map(<[u8]>::len), Some(length));
            assert!(read.is_done());
        }
    }

    #[test]
    fn numbers_keep_their_sign() {
        for digits in [&[1_u8][..], &[0x80], &[0x7f, 0xff], &[]] {
            let written = write_unsigned(digits);
            assert_eq!(DerReader::new(&written).unsigned(), Some(digits));
        }
        assert!(
            DerReader::new(&[INTEGER, 1, 0x80]).unsigned().is_none(),
            "negative"
        );
        assert!(
            DerReader::new(&[INTEGER, 2, 0, 1]).unsigned().is_none(),
            "longer than it has to be"
        );
    }

    #[test]
    fn no_bytes_make_it_panic() {
        proptest::proptest!(|(bytes in proptest::collection::vec(0_u8.., 0..80))| {
            let _ = (spki(&bytes), certificate(&bytes));
        });
    }
}
