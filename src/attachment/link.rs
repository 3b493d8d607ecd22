//! The gateway's own links: `{public_url}/files/{token}/{name}`.
//!
//! A token is the file's id and the end of the link's time, signed with a key that is derived from the gateway's own. It
//! tells its reader nothing and cannot be guessed. The name behind it is for people, and for programs that read a file's
//! kind from its ending; the gateway ignores it. Earlier keys are still accepted, so that a new one breaks no link.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;
use subtle::ConstantTimeEq as _;

use crate::model::{Attachment, AttachmentId, Timestamp};

/// The path of files.
const PATH: &str = "/files/";

/// Characters that are escaped in a path segment: all but the unreserved ones (RFC 3986).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The lengths of a token's parts: id, seconds, signature.
const ID: usize = 16;
const TIME: usize = 8;
const MARK: usize = 16;

/// Makes links and checks their tokens.
pub struct Links {
    public_url: String,
    keys: Vec<hmac::Key>,
}

/// The content of a valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The file.
    pub id: AttachmentId,
    /// The end of the link's time.
    pub until: Timestamp,
}

impl Links {
    /// Links below an address, signed with the first key; the other keys are accepted for links that were made before.
    pub fn new(public_url: &str, keys: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let keys = keys
            .into_iter()
            .map(|key| hmac::Key::new(hmac::HMAC_SHA256, &key))
            .collect();
        Self {
            public_url: public_url.to_owned(),
            keys,
        }
    }

    /// A link to a file that is valid until a time.
    pub fn make(&self, file: &Attachment, until: Timestamp) -> String {
        let mut token = Vec::with_capacity(ID + TIME + MARK);
        token.extend_from_slice(file.id.as_bytes());
        token.extend_from_slice(&until.seconds().to_be_bytes());
        if let Some(key) = self.keys.first() {
            let mark = hmac::sign(key, &token);
            token.extend_from_slice(&mark.as_ref()[..MARK]);
        }
        let name = utf8_percent_encode(&file.name, ESCAPED);
        format!(
            "{}{PATH}{}/{name}",
            self.public_url,
            URL_SAFE_NO_PAD.encode(token)
        )
    }

    /// The content of a token, if the gateway made it and its time is not over.
    pub fn judge(&self, token: &str, now: Timestamp) -> Option<Linked> {
        let token: [u8; ID + TIME + MARK] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
        let (said, mark) = token.split_at(ID + TIME);
        let good = self.keys.iter().fold(false, |good, key| {
            let own: bool = hmac::sign(key, said).as_ref()[..MARK].ct_eq(mark).into();
            good | own
        });
        let (id, until) = said.split_at(ID);
        let id = AttachmentId::from_bytes(id.try_into().ok()?);
        let until = Timestamp::from_seconds(i64::from_be_bytes(until.try_into().ok()?));
        (good && now < until).then_some(Linked { id, until })
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Links({}, {} keys)", self.public_url, self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Attachment {
        let id = AttachmentId::from_bytes([5; 16]);
        Attachment {
            id,
            name: name.into(),
            content_type: "text/plain".into(),
            size: 1,
            sha256: [0; 32],
            key: id.key(name),
            origin: None,
            expires_at: Timestamp::default(),
        }
    }

    fn token(link: &str) -> &str {
        link.split('/').nth(4).unwrap()
    }

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    #[test]
    fn a_link_is_good_for_its_time_and_ends_with_the_name() {
        let links = Links::new("https://h.example", [[1; 32]]);
        let until = NOW + std::time::Duration::from_secs(60);
        let link = links.make(&file("a b\"é.pdf"), until);
        assert!(
            link.starts_with("https://h.example/files/") && link.ends_with("/a%20b%22%C3%A9.pdf"),
            "{link}"
        );
        let said = Linked {
            id: AttachmentId::from_bytes([5; 16]),
            until,
        };
        assert_eq!(links.judge(token(&link), NOW), Some(said));
        assert_eq!(links.judge(token(&link), until), None, "its time is over");
    }

    #[test]
    fn t93_no_bit_of_a_token_can_be_changed() {
        let links = Links::new("https://h.example", [[1; 32]]);
        let link = links.make(&file("a"), NOW + std::time::Duration::from_secs(60));
        let good = URL_SAFE_NO_PAD.decode(token(&link)).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                links.judge(&URL_SAFE_NO_PAD.encode(&bad), NOW),
                None,
                "bit {bit}"
            );
        }
        for bad in [
            "",
            "x",
            &token(&link)[1..],
            &format!("{}A", token(&link)),
            &"A".repeat(100_000),
        ] {
            assert_eq!(links.judge(bad, NOW), None);
        }
    }

    #[test]
    fn links_outlive_a_new_key_while_the_old_one_is_listed() {
        let old = Links::new("https://h.example", [[1; 32]]);
        let link = old.make(&file("a"), NOW + std::time::Duration::from_secs(60));
        assert!(
            Links::new("", [[2; 32], [1; 32]])
                .judge(token(&link), NOW)
                .is_some()
        );
        assert!(Links::new("", [[2; 32]]).judge(token(&link), NOW).is_none());
        assert!(Links::new("", []).judge(token(&link), NOW).is_none());
    }
}
