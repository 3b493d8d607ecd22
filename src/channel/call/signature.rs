//! Signature of a callback, as the specification Standard Webhooks describes it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;
use uuid::Uuid;

use super::CallError;
use crate::model::Timestamp;

/// Adds the three headers: id, time, and the signature over both and the body.
pub(super) fn sign(
    headers: &mut HeaderMap,
    key: &[u8],
    id: Uuid,
    now: Timestamp,
    body: &[u8],
) -> Result<(), CallError> {
    let unfit = || CallError::Secret("key");
    let seconds = now.seconds();
    let mut mac = Hmac::<Sha256>::new_from_slice(&decoded(key)).map_err(|_| unfit())?;
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    let pairs = [
        ("webhook-id", id.to_string()),
        ("webhook-timestamp", seconds.to_string()),
        ("webhook-signature", format!("v1,{signature}")),
    ];
    for (name, text) in pairs {
        let value = HeaderValue::try_from(text).map_err(|_| unfit())?;
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(())
}

/// The bytes of a key: `whsec_` and base64 as the specification writes keys, or any other text as it is.
fn decoded(key: &[u8]) -> Vec<u8> {
    key.strip_prefix(b"whsec_")
        .and_then(|text| BASE64_STANDARD.decode(text).ok())
        .unwrap_or_else(|| key.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_time_and_body_are_signed_with_the_decoded_key() {
        let key = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        assert_eq!(decoded(key).len(), 24);
        let mut headers = HeaderMap::new();
        let id = Uuid::nil();
        let now = Timestamp::from_seconds(1_614_265_330);
        sign(&mut headers, key, id, now, br#"{"test": 2432232314}"#).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&decoded(key)).unwrap();
        mac.update(b"00000000-0000-0000-0000-000000000000.1614265330.{\"test\": 2432232314}");
        let expected = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        assert_eq!(headers["webhook-signature"], format!("v1,{expected}"));
        assert_eq!(headers["webhook-timestamp"], "1614265330");
    }
}
