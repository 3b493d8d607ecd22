//! Schemes with key pairs and tokens, judged against what made pairs sign.

use http::HeaderValue;
use serde_json::json;

use super::support::{NOW, compile, fault, post, scheme, source};
use crate::model::{OriginFault, Strength, Verify as _};
use crate::verify::keys::pair::KeyPair;
use crate::verify::scheme::Scheme;
use crate::verify::sign::Signer;

const LIST: &str = "signature = 'header:x-sig'\nsplit = ','\npair = '='\nselect = 'v1'\nencoding = 'base64'\n\
                    signed_content = '{ts}.{body}'\ntimestamp = { from = 'signature:t', tolerance = 300 }\n";

/// A scheme with a made pair's public key as its only one.
fn paired(
    verify: &str,
    kind: crate::verify::keys::public::PublicKeyAlgorithm,
    notation: crate::verify::keys::public::PublicKeyEncoding,
) -> (Scheme, KeyPair) {
    let pair = KeyPair::make(kind).unwrap();
    let public = pair.public(notation, NOW).unwrap();
    let (scheme, _) = compile(&source(&[&public], &[], verify), None).unwrap();
    (scheme, pair)
}

#[test]
fn a_key_pair_proves_what_it_signed_and_nothing_else() {
    use crate::verify::keys::public::{PublicKeyAlgorithm, PublicKeyEncoding};
    for (word, kind, notation, encoding) in [
        (
            "ed25519",
            PublicKeyAlgorithm::Ed25519,
            PublicKeyEncoding::Hex,
            "hex",
        ),
        (
            "ed25519",
            PublicKeyAlgorithm::Ed25519,
            PublicKeyEncoding::Whpk,
            "whpk",
        ),
        (
            "ecdsa-p256",
            PublicKeyAlgorithm::EcdsaP256 { raw: false },
            PublicKeyEncoding::SpkiBase64,
            "spki-base64",
        ),
        (
            "rsa-pss",
            PublicKeyAlgorithm::RsaPss,
            PublicKeyEncoding::Pem,
            "pem",
        ),
        (
            "rsa-pkcs1",
            PublicKeyAlgorithm::RsaPkcs1,
            PublicKeyEncoding::X509,
            "x509",
        ),
    ] {
        let verify = format!("scheme = '{word}'\nkey_encoding = '{encoding}'\n{LIST}");
        let (scheme, pair) = paired(&verify, kind, notation);
        let good = scheme
            .signed(Signer::Pair(&pair), &post(&[], "{\"a\":1}"), NOW)
            .unwrap();
        let proof = scheme
            .judge(&good, NOW)
            .unwrap_or_else(|refusal| panic!("{word}: {refusal:?}"));
        assert_eq!(
            (proof.strength, proof.secret.as_deref()),
            (Strength::Signed, Some("literal 1"))
        );
        let mut changed = good.clone();
        changed.body = "{\"a\":2}".into();
        assert_eq!(
            fault(scheme.judge(&changed, NOW)),
            Some(OriginFault::WrongSignature),
            "{word}"
        );
        let late = NOW + std::time::Duration::from_secs(301);
        assert_eq!(
            fault(scheme.judge(&good, late)),
            Some(OriginFault::Stale),
            "{word}"
        );
        let other = KeyPair::make(kind).unwrap();
        let forged = scheme
            .signed(Signer::Pair(&other), &post(&[], "{\"a\":1}"), NOW)
            .unwrap();
        assert_eq!(
            fault(scheme.judge(&forged, NOW)),
            Some(OriginFault::WrongSignature),
            "{word}"
        );
        assert_eq!(
            fault(scheme.judge(&post(&[], "{}"), NOW)),
            Some(OriginFault::MissingSignature)
        );
    }
}

const TOKEN: &str = "scheme = 'jwt'\nsignature = 'header:authorization'\nalgorithms = ['HS256']\nrequired_claims = ['exp']\n\
    claims = { iss = '{config:issuer}', sha256 = '{body|sha256|base64}' }\nconfig = ['issuer']\nmax_age = 300\n";

/// A token by hand, so that every part of it can be wrong.
fn token(secret: &str, head: &str, claims: &str) -> String {
    use base64::Engine;
    let b64 = |bytes: &[u8]| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", b64(head.as_bytes()), b64(claims.as_bytes()));
    let mut mac = crate::verify::keys::mac::RunningDigest::keyed(
        crate::verify::keys::mac::Algorithm::Sha256,
        secret.as_bytes(),
    );
    mac.take(signed.as_bytes());
    format!("{signed}.{}", b64(mac.finish().as_bytes()))
}

#[test]
fn t54_a_token_is_what_the_file_says_and_never_what_it_says_of_itself() {
    let (scheme, _) = compile(
        &source(&["a-long-secret"], &[("issuer", "me")], TOKEN),
        None,
    )
    .unwrap();
    let good = scheme
        .signed(Signer::Secret(0), &post(&[], "{\"a\":1}"), NOW)
        .unwrap();
    assert_eq!(scheme.judge(&good, NOW).unwrap().strength, Strength::Signed);
    let mut changed = good.clone();
    changed.body = "{\"a\":2}".into();
    assert_eq!(
        fault(scheme.judge(&changed, NOW)),
        Some(OriginFault::BodyChanged)
    );
    let late = NOW + std::time::Duration::from_secs(301);
    assert_eq!(fault(scheme.judge(&good, late)), Some(OriginFault::Stale));

    let (now, digest) = (
        NOW.seconds(),
        "0OCXGzVRJ2kMKhHWBEaOCWg5LzNfJEdwGUhBFzTYhwc=",
    );
    let head = r#"{"alg":"HS256"}"#;
    let body = "{\"a\":1}";
    use base64::Engine;
    use sha2::Digest as _;
    let real = base64::prelude::BASE64_STANDARD.encode(sha2::Sha256::digest(body));
    let claims = |exp: i64, iat: i64, iss: &str| {
        json!({ "iss": iss, "sha256": real, "exp": exp, "iat": iat }).to_string()
    };
    let judge = |token: &str| fault(scheme.judge(&post(&[("authorization", token)], body), NOW));
    let by = |head: &str, claims: &str| judge(&token("a-long-secret", head, claims));
    assert_eq!(by(head, &claims(now + 9, now, "me")), None);
    assert_eq!(
        by(head, &claims(now + 9, now, "you")),
        Some(OriginFault::ClaimMismatch)
    );
    assert_eq!(by(head, &claims(now, now, "me")), Some(OriginFault::Stale));
    assert_eq!(
        by(head, &claims(now + 999, now - 301, "me")),
        Some(OriginFault::Stale)
    );
    assert_eq!(
        by(head, &claims(now + 999, now + 61, "me")),
        Some(OriginFault::Future)
    );
    assert_eq!(
        by(head, &claims(now + 9, now, "me").replace(&real, digest)),
        Some(OriginFault::BodyChanged)
    );
    assert_eq!(by(head, "{}"), Some(OriginFault::MissingPart));
    assert_eq!(
        by(
            head,
            &claims(now + 9, now, "me").replace("\"exp\":", "\"exp\":true,\"x\":")
        ),
        Some(OriginFault::BadTimestamp)
    );
    for wrong in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"HS512"}"#,
        "{}",
        "[]",
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
    ] {
        assert_eq!(
            by(wrong, &claims(now + 9, now, "me")),
            Some(OriginFault::MalformedSignature),
            "{wrong}"
        );
    }
    let whole = token("a-long-secret", head, &claims(now + 9, now, "me"));
    assert_eq!(
        judge(&token("another-secret", head, &claims(now + 9, now, "me"))),
        Some(OriginFault::WrongSignature)
    );
    let (parts, none) = whole.rsplit_once('.').unwrap();
    assert!(!none.is_empty());
    for wrong in [
        format!("{parts}."),
        parts.to_owned(),
        format!("{whole}.x"),
        format!("{whole}="),
        "a.b.c".into(),
        "..".into(),
    ] {
        assert_eq!(
            judge(&wrong),
            Some(OriginFault::MalformedSignature),
            "{wrong}"
        );
    }
    assert_eq!(
        judge(&"a".repeat(17_000)),
        Some(OriginFault::MalformedSignature)
    );
    assert_eq!(judge(""), Some(OriginFault::MissingSignature));
}

#[test]
fn a_public_key_proves_no_hmac_and_keys_are_found_by_their_id() {
    use crate::verify::keys::public::{PublicKeyAlgorithm, PublicKeyEncoding};
    let verify = "scheme = 'jwt'\nsignature = 'header:x-jwt'\nalgorithms = ['HS256', 'ES256']\n";
    let (both, pair) = paired(
        verify,
        PublicKeyAlgorithm::EcdsaP256 { raw: true },
        PublicKeyEncoding::Pem,
    );
    let good = both
        .signed(Signer::Pair(&pair), &post(&[], "x"), NOW)
        .unwrap();
    assert_eq!(
        both.judge(&good, NOW).unwrap().strength,
        Strength::Origin,
        "no claim is about the body"
    );
    let public = pair.public(PublicKeyEncoding::Pem, NOW).unwrap();
    for secret in [public.as_str(), public.trim()] {
        let forged = token(secret, r#"{"alg":"HS256"}"#, "{}");
        assert_eq!(
            fault(both.judge(&post(&[("x-jwt", &forged)], "x"), NOW)),
            Some(OriginFault::NotAttempted)
        );
    }

    let (one, two) = (
        KeyPair::make(PublicKeyAlgorithm::Ed25519).unwrap(),
        KeyPair::make(PublicKeyAlgorithm::Ed25519).unwrap(),
    );
    let jwk = |pair: &KeyPair, kid: &str| {
        let mut jwk: serde_json::Value =
            serde_json::from_str(&pair.public(PublicKeyEncoding::Jwk, NOW).unwrap()).unwrap();
        jwk["kid"] = kid.into();
        jwk
    };
    let verify =
        "scheme = 'jwt'\nsignature = 'body'\nalgorithms = ['EdDSA']\nkey_encoding = 'jwk'\n";
    let set = json!({ "keys": [jwk(&one, "1"), jwk(&two, "2")] }).to_string();
    let (scheme, _) = compile(&source(&[&set], &[], verify), None).unwrap();
    let good = scheme
        .signed(Signer::Pair(&one), &post(&[], "{\"type\":\"t\"}"), NOW)
        .unwrap();
    assert_eq!(
        fault(
            scheme.judge(
                &scheme
                    .signed(Signer::Pair(&two), &post(&[], "{}"), NOW)
                    .unwrap(),
                NOW
            )
        ),
        Some(OriginFault::WrongSignature)
    );
    let verified = good.verify(&scheme, NOW).unwrap();
    assert_eq!(
        verified.proof().strength,
        Strength::Signed,
        "the token is the body"
    );
    let claims: serde_json::Value = serde_json::from_slice(&verified.request().body).unwrap();
    assert_eq!(claims["type"], "t");
}

#[test]
fn a_detached_token_covers_the_body() {
    let scheme = scheme(
        "scheme = 'jwt'\nsignature = 'header:x-jws'\nalgorithms = ['HS512']\ndetached = true\n",
    );
    let mut good = scheme
        .signed(Signer::Secret(0), &post(&[], "{\"a\":1}"), NOW)
        .unwrap();
    assert_eq!(scheme.judge(&good, NOW).unwrap().strength, Strength::Signed);
    good.body = "{\"a\":2}".into();
    assert_eq!(
        fault(scheme.judge(&good, NOW)),
        Some(OriginFault::WrongSignature)
    );
}

#[test]
fn signatures_are_put_wherever_they_are_looked_for() {
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for (verify, request) in [
        (
            "signature = 'json:sig.value'\nsigned_content = '{json:sig.at}{json:id}'\ntimestamp = { from = 'json:sig.at', tolerance = 9 }",
            post(&[], r#"{"id":7,"sig":{}}"#),
        ),
        (
            "signature = 'json:sig'\neach = 'items[*].item'\nsigned_content = '{json:id}'",
            post(&[], r#"{"items":[{"item":{"id":1}},{"item":{"id":2}}]}"#),
        ),
        (
            "signature = 'form:sig'\nsplit = '&'\npair = '|'\nselect = 'k'\nsigned_content = '{form:payload}'",
            post(&form, "payload=a%20b"),
        ),
        (
            "signature = 'query:hmac'\nalgorithm = 'sha512'\nsigned_content = '{json:a}{json:b}'",
            post(&[], r#"{"a":1,"b":true}"#),
        ),
        (
            "signature = 'header:x'\nunwrap = 'base64-json:inner.sig'\nencoding = 'base64'",
            post(&[], "{}"),
        ),
        (
            "scheme = 'token'\nsignature = 'json:token'",
            post(&[], "{}"),
        ),
        ("scheme = 'token'\nsignature = 'query:key'", post(&[], "")),
        (
            "scheme = 'token'\nsignature = 'json:state'\neach = 'value[*]'",
            post(&[], r#"{"value":[{},{}]}"#),
        ),
        (
            "signature = 'header:x'\npositional = ['t', 'n']\nsplit = ':'\nsigned_content = '{signature:n}.{ts}.{header:id}.{body}'\ntimestamp = { from = 'signature:t', tolerance = 9 }",
            post(&[], "b"),
        ),
    ] {
        let scheme = scheme(verify);
        let signed = scheme
            .signed(Signer::Secret(0), &request, NOW)
            .unwrap_or_else(|what| panic!("{verify}: {what}"));
        assert!(scheme.judge(&signed, NOW).is_ok(), "{verify}");
    }
    let inside = scheme("signature = 'json:sig'\nsigned_content = '{body}'");
    assert!(
        inside
            .signed(Signer::Secret(0), &post(&[], "{}"), NOW)
            .is_err(),
        "a signature inside of what it covers"
    );
}

#[test]
fn no_token_makes_it_panic() {
    let scheme = scheme("scheme = 'jwt'\nsignature = 'header:x'\nalgorithms = ['HS256']\n");
    let parts = proptest::collection::vec("[A-Za-z0-9_.=-]{0,40}", 0..5);
    proptest::proptest!(|(parts in parts)| {
        let mut received = post(&[], "body");
        if let Ok(value) = HeaderValue::from_str(&parts.join(".")) {
            received.headers.insert("x", value);
            proptest::prop_assert!(scheme.judge(&received, NOW).is_err());
        }
    });
}

#[test]
fn every_sample_of_every_provider_is_sent_as_the_provider_would() {
    use crate::config::Secret;
    let (mut seen, mut wrong) = (0, Vec::new());
    for (name, _) in crate::config::shipped_providers() {
        let provider = super::support::shipped(name);
        let good = super::support::cases(name)
            .into_iter()
            .find(super::support::Case::is_good)
            .unwrap();
        let scheme = good.scheme(&provider);
        let pair = scheme.has_key_pair().then(|| scheme.make_pair().unwrap());
        // A pair's public key takes the place of the real one.
        let scheme = match &pair {
            Some(pair) => {
                let mut source = good.source();
                let public = scheme.public_key(pair, NOW).unwrap();
                source.secrets[0].value = Secret::new("made", public);
                source.secrets.truncate(1);
                compile(&source, Some(&provider))
                    .unwrap_or_else(|problems| panic!("{name}: {problems:#?}"))
                    .0
            }
            None => scheme,
        };
        let by = pair.as_ref().map_or(Signer::Secret(0), Signer::Pair);
        for sample in &provider.samples {
            let mut request = post(&[("content-type", "application/json")], &sample.body);
            for (name, value) in &sample.headers {
                request.headers.insert(
                    http::HeaderName::try_from(name).unwrap(),
                    HeaderValue::try_from(value).unwrap(),
                );
            }
            let signed = scheme.signed(by, &request, NOW);
            let judged = signed.and_then(|signed| {
                scheme
                    .judge(&signed, NOW)
                    .map_err(|refusal| refusal.cause())
            });
            match judged {
                Ok(_) => seen += 1,
                Err(what) => wrong.push(format!("{name}: {}: {what}", sample.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen >= 260, "only {seen} samples seen");
}
