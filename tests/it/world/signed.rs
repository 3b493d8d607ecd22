//! Requests as providers sign them.

/// A lower-case hex HMAC-SHA256, as a sender of signed webhooks makes it.
pub fn hmac_sha256(secret: &[u8], message: &[u8]) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).expect("any key length");
    mac.update(message);
    hex::encode(mac.finalize().into_bytes())
}

/// The headers of a signed GitHub event.
pub fn github(
    secret: &str,
    delivery: &str,
    event: &str,
    body: &str,
) -> Vec<(&'static str, String)> {
    vec![
        ("content-type", "application/json".to_owned()),
        ("x-github-delivery", delivery.to_owned()),
        ("x-github-event", event.to_owned()),
        (
            "x-hub-signature-256",
            format!("sha256={}", hmac_sha256(secret.as_bytes(), body.as_bytes())),
        ),
    ]
}

/// Headers as `Gateway::post` takes them.
pub fn borrowed<'a>(headers: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}
