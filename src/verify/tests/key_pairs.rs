//! Schemes with key pairs and tokens, judged against what made pairs sign.

use std::sync::Mutex;

use bytes::Bytes;
use http::HeaderValue;
use serde_json::json;

use super::requests::{NOW, compile, fault, post, scheme, source};
use crate::model::{OriginFault, Received, Strength, Verify as _};
use crate::verify::keys::certificate::WebClient;
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

const NOTE: &str = "scheme = 'rsa-pkcs1'\nsignature = 'json:Signature'\nencoding = 'base64'\nkey_encoding = 'x509'\n\
    algorithm = { from = 'json:Version', map = { 1 = 'sha1', 2 = 'sha256' } }\n\
    cert_url = { from = 'json:Cert', host = 'certs\\.[a-z]+\\.example\\.com', path = '/[a-z0-9]+\\.pem' }\n\
    signed_content = 'Message\\n{json:Message}\\n[Subject\\n{json:Subject}\\n]Topic\\n{json:Topic}\\n'\n\
    config = ['topic']\nequal = [['{json:Topic}', '{config:topic}']]\n";

/// A web with one page, which remembers what was asked.
#[derive(Debug)]
struct Web(String, Mutex<Vec<String>>);

#[async_trait::async_trait]
impl WebClient for Web {
    async fn get(&self, address: &str) -> Result<Bytes, String> {
        self.1.lock().unwrap().push(address.to_owned());
        Ok(self.0.clone().into())
    }
}

fn note(cert: &str, topic: &str) -> Received {
    post(
        &[],
        &json!({ "Message": "m", "Topic": topic, "Version": "1", "Cert": cert, "Signature": "" })
            .to_string(),
    )
}

#[tokio::test]
async fn t55_a_certificate_is_fetched_once_from_the_pinned_host_and_only_for_a_request_that_is_right()
 {
    let (scheme, _) = compile(&source(&[], &[("topic", "t")], NOTE), None).unwrap();
    let pair = scheme.make_pair().unwrap();
    let web = Web(scheme.public_key(&pair, NOW).unwrap(), Mutex::default());
    let address = "https://certs.eu.example.com/a.pem";
    let good = scheme
        .signed(Signer::Pair(&pair), &note(address, "t"), NOW)
        .unwrap();
    assert_eq!(
        fault(scheme.judge(&good, NOW)),
        Some(OriginFault::UnknownKey),
        "not at hand"
    );
    for _ in 0..3 {
        scheme.prepare(&good, &web, NOW).await.unwrap();
        assert_eq!(
            scheme.judge(&good, NOW).unwrap().secret.as_deref(),
            Some(address)
        );
    }
    assert_eq!(*web.1.lock().unwrap(), [address]);
    let mut changed = good.clone();
    changed.body = String::from_utf8_lossy(&good.body)
        .replace("\"m\"", "\"n\"")
        .into();
    assert_eq!(
        fault(scheme.judge(&changed, NOW)),
        Some(OriginFault::WrongSignature)
    );

    let year = std::time::Duration::from_secs(365 * 86_400);
    assert!(
        scheme.prepare(&good, &web, NOW + year).await.is_err(),
        "a certificate that ran out is none"
    );
    web.1.lock().unwrap().clear();
    for wrong in [
        "http://certs.eu.example.com/a.pem",
        "https://certs.eu.example.com.evil.org/a.pem",
        "https://evil.org/certs.eu.example.com/a.pem",
        "https://certs.eu.example.com@evil.org/a.pem",
        "https://certs.eu.example.com:8443/a.pem",
        "https://certs.eu.example.com/a.pem#.pem",
        "https://certs.eu.example.com/../a.txt",
        "https://certs.eu.example.com/a.txt",
        "https://certs.eu.example.com/a.pem?1",
        "//certs.eu.example.com/a.pem",
        "file:///a.pem",
        "",
    ] {
        let request = scheme
            .signed(Signer::Pair(&pair), &note(wrong, "t"), NOW)
            .unwrap();
        assert!(
            scheme.prepare(&request, &web, NOW).await.is_err(),
            "{wrong}"
        );
        assert!(
            matches!(
                fault(scheme.judge(&request, NOW)),
                Some(OriginFault::UnknownKey)
            ),
            "{wrong}"
        );
    }
    let other = scheme
        .signed(
            Signer::Pair(&pair),
            &note("https://certs.us.example.com/a.pem", "other"),
            NOW,
        )
        .unwrap();
    assert!(
        scheme.prepare(&other, &web, NOW).await.is_err(),
        "another topic"
    );
    assert!(
        scheme
            .prepare(&note("https://certs.us.example.com/a.pem", "t"), &web, NOW)
            .await
            .is_err(),
        "unsigned"
    );
    assert_eq!(
        *web.1.lock().unwrap(),
        [""; 0],
        "nothing was asked for any of them"
    );
}

/// A web where most addresses have no certificate.
#[derive(Debug)]
struct Junk {
    pem: String,
    at: &'static str,
    asked: std::sync::atomic::AtomicUsize,
}

#[async_trait::async_trait]
impl WebClient for Junk {
    async fn get(&self, address: &str) -> Result<Bytes, String> {
        self.asked
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if address == self.at {
            Ok(self.pem.clone().into())
        } else {
            Err("it answered 404 Not Found".into())
        }
    }
}

#[tokio::test]
async fn security_f22_made_up_addresses_do_not_keep_the_true_one_from_being_fetched_nor_kept() {
    let (scheme, _) = compile(&source(&[], &[("topic", "t")], NOTE), None).unwrap();
    let pair = scheme.make_pair().unwrap();
    let at = "https://certs.eu.example.com/true.pem";
    let web = Junk {
        pem: scheme.public_key(&pair, NOW).unwrap(),
        at,
        asked: Default::default(),
    };
    let made_up = |number: u32| {
        let cert = format!("https://certs.us.example.com/{number}.pem");
        scheme
            .signed(Signer::Pair(&pair), &note(&cert, "t"), NOW)
            .unwrap()
    };
    let junk: Vec<_> = (0..100).map(made_up).collect();
    let all = futures_util::future::join_all(
        junk.iter()
            .map(|request| scheme.prepare(request, &web, NOW)),
    )
    .await;
    assert!(all.iter().all(Result::is_err));
    let good = scheme
        .signed(Signer::Pair(&pair), &note(at, "t"), NOW)
        .unwrap();
    scheme.prepare(&good, &web, NOW).await.unwrap();
    assert!(scheme.judge(&good, NOW).is_ok());

    // Certificates that prove nothing do not take the place of one that did.
    let everywhere = Web(scheme.public_key(&pair, NOW).unwrap(), Mutex::default());
    for number in 100..140 {
        scheme
            .prepare(&made_up(number), &everywhere, NOW)
            .await
            .unwrap();
    }
    let before = web.asked.load(std::sync::atomic::Ordering::Relaxed);
    scheme.prepare(&good, &web, NOW).await.unwrap();
    assert!(scheme.judge(&good, NOW).is_ok());
    assert_eq!(
        web.asked.load(std::sync::atomic::Ordering::Relaxed),
        before,
        "it is still at hand"
    );
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
        let provider = super::requests::shipped(name);
        let good = super::requests::cases(name)
            .into_iter()
            .find(super::requests::Case::is_good)
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
