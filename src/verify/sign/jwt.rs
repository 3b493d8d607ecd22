//! Signed token, made.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value as JsonValue};

use super::Signer;
use super::draft::Draft;
use crate::model::Timestamp;
use crate::verify::keys::jwt::{Jwt, JwtAlgorithm};
use crate::verify::keys::mac::Key;
use crate::verify::template::render::Context;

/// Seconds that a made token is good for.
const LIFETIME: i64 = 300;

impl Jwt {
    /// Puts a token into a draft.
    pub(super) fn sign(
        &self,
        by: Signer<'_>,
        draft: &mut Draft<'_>,
        now: Timestamp,
    ) -> Result<(), String> {
        let fits = |algorithm: &JwtAlgorithm| match algorithm {
            JwtAlgorithm::Hmac(_) => by.pair().is_none(),
            JwtAlgorithm::Pair(..) => by.pair().is_some(),
        };
        let (name, algorithm) = self
            .ways
            .iter()
            .find(|(_, algorithm)| fits(algorithm))
            .ok_or("tokens of this scheme are not signed so")?;
        let secret = by.secret(&self.keys)?;
        let token = {
            let view = draft.view();
            let context = Context {
                key: secret,
                ..Context::new(&view)
            };
            let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
            let head = encode(&self.header(name, &context)?);
            let signed = format!("{head}.{}", encode(&self.payload(&context, now)?));
            let signature = signature(algorithm, by, secret, signed.as_bytes())?;
            let signed = if self.detached {
                format!("{head}.")
            } else {
                signed
            };
            self.places.wrapped(
                format!("{}{signed}.{}", self.places.prefix, encode(&signature)).as_bytes(),
            )
        };
        draft.put_first(&self.places, &token)
    }

    fn header(&self, algorithm: &str, context: &Context<'_, '_>) -> Result<Vec<u8>, String> {
        let mut head = Map::new();
        head.insert("alg".into(), algorithm.into());
        head.insert("typ".into(), "JWT".into());
        let kid = self
            .kid
            .as_ref()
            .map(|kid| kid.bytes(context))
            .transpose()?;
        let known = self.public.iter().find_map(|key| key.kid.clone());
        if let Some(kid) = kid
            .map(|kid| String::from_utf8_lossy(&kid).into_owned())
            .or(known)
        {
            head.insert("kid".into(), kid.into());
        }
        Ok(JsonValue::Object(head).to_string().into_bytes())
    }

    fn payload(&self, context: &Context<'_, '_>, now: Timestamp) -> Result<Vec<u8>, String> {
        let body = &context.request.received.body;
        if self.detached {
            return Ok(body.to_vec());
        }
        // A token that is the body takes its claims from the body that was to be sent.
        let mut claims = match serde_json::from_slice(body) {
            Ok(JsonValue::Object(claims)) if self.is_body() => claims,
            _ => Map::new(),
        };
        let seconds = now.seconds();
        claims.insert("iat".into(), seconds.into());
        claims.insert("exp".into(), (seconds + LIFETIME).into());
        for name in &self.required {
            let made = match name.as_str() {
                "iat" | "exp" => continue,
                "nbf" => seconds.into(),
                _ => format!("made-{}", now.millis()).into(),
            };
            claims.entry(name.clone()).or_insert(made);
        }
        for (name, template) in &self.claims {
            let value = template.bytes(context)?;
            claims.insert(
                name.clone(),
                String::from_utf8_lossy(&value).into_owned().into(),
            );
        }
        Ok(JsonValue::Object(claims).to_string().into_bytes())
    }
}

fn signature(
    algorithm: &JwtAlgorithm,
    by: Signer<'_>,
    secret: Option<&Key>,
    signed: &[u8],
) -> Result<Vec<u8>, String> {
    match (algorithm, by.pair(), secret) {
        (JwtAlgorithm::Hmac(algorithm), _, Some(key)) => {
            let mut mac = key.hmac(*algorithm);
            mac.take(signed);
            Ok(mac.finish().as_bytes().to_vec())
        }
        (JwtAlgorithm::Pair(kind, algorithm), Some(pair), _) => {
            pair.sign(*kind, *algorithm, signed)
        }
        _ => Err("there is nothing to sign with".into()),
    }
}
