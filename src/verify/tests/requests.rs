//! Requests kept as files, judged by the schemes of the shipped providers; and signing, which must agree with judging.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::config::{Located, Place, Problems, Provider, Secret, Table};
use crate::model::{OriginFault, Received, Refusal, Strength, Timestamp, Verify};
use crate::verify::challenge::Challenge;
use crate::verify::challenge::allowed_methods;
use crate::verify::scheme::Scheme;
use crate::verify::scheme::compile::compile_source;
use crate::verify::scheme::secret_strength::weigh;
use crate::verify::{ChallengeResponse, redacted};

use super::support::*;

#[test]
fn every_kept_request_is_judged_as_its_file_says() {
    let mut wrong = Vec::new();
    let (mut seen, mut providers) = (0, 0);
    for (name, text) in crate::config::shipped_providers() {
        let provider = shipped(name);
        let (mut accepted, mut refused, mut proves) = (0, 0, true);
        let mut faults = BTreeSet::new();
        for case in cases(name) {
            let scheme = case.scheme(&provider);
            let received = scheme.opened(case.received.clone());
            let verdict = received.and_then(|received| scheme.judge(&received, case.now));
            match (&verdict, case.is_good()) {
                (Ok(proof), true) => {
                    let secret = case.expect["secret"]
                        .as_u64()
                        .map(|number| format!("literal {number}"));
                    if proof.secret != secret {
                        wrong.push(format!("{}: by {:?}", case.place, proof.secret));
                    }
                    proves = proof.strength != Strength::None;
                    accepted += 1;
                }
                (Err(refusal), false) => {
                    if !says(refusal.reason(), case.expect["fault"].as_str()) {
                        wrong.push(format!(
                            "{}: {}: {}",
                            case.place,
                            refusal.reason(),
                            refusal.cause()
                        ));
                    }
                    for secret in &case.secrets {
                        assert!(!refusal.cause().contains(secret.as_str()), "{}", case.place);
                    }
                    faults.insert(refusal.reason());
                    refused += 1;
                }
                (verdict, _) => wrong.push(format!("{}: {verdict:?}", case.place)),
            }
            seen += 1;
        }
        let timed = text.contains("tolerance =") || text.contains("max_age");
        let kinds = faults.contains("missing_signature") && (!timed || faults.contains("stale"));
        if accepted == 0 || (proves && (refused < 5 || faults.len() < 2 || !kinds)) {
            wrong.push(format!(
                "{name}: {accepted} accepted, {refused} refused, for {faults:?}"
            ));
        }
        providers += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(
        providers >= 270 && seen >= 2800,
        "only {providers} providers and {seen} cases seen"
    );
}

#[test]
fn every_sample_is_an_event_that_the_mapping_understands() {
    let mut wrong = Vec::new();
    for (name, _) in crate::config::shipped_providers() {
        let provider = shipped(name);
        assert!(!provider.samples.is_empty(), "{name} has no sample");
        let good = cases(name).into_iter().find(Case::is_good).unwrap();
        let scheme = good.scheme(&provider);
        for (number, sample) in provider.samples.iter().enumerate() {
            let mut received = good.received.clone();
            for (name, value) in &sample.headers {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                received
                    .headers
                    .insert(name, HeaderValue::from_str(value).unwrap());
            }
            received.body = sample.body.clone().into();
            if received.body.starts_with(b"{") || received.body.starts_with(b"[") {
                assert!(
                    serde_json::from_str::<Value>(&sample.body).is_ok(),
                    "the sample of {name} is no JSON"
                );
            }
            if received
                .header("content-type")
                .is_some_and(|kind| kind.starts_with("multipart/"))
            {
                continue;
            }
            let problems = Problems::default();
            let open = source(&[], &[], "scheme = 'none'");
            let (anybody, _) = compile(&open, None).unwrap();
            let mapping = crate::mapping::Mapping::compile(
                &open,
                Some(&provider),
                &scheme.event_id,
                &scheme.event_type,
                &problems,
            );
            let found = problems.into_sorted();
            assert!(found.is_empty(), "{name}: {found:#?}");
            let mapping = mapping.unwrap();
            let items = mapping
                .items(received.verify(&anybody, NOW).unwrap())
                .unwrap();
            let mapped = mapping.apply(&items[0], false);
            match mapped {
                Ok(mapped) => {
                    // A sample that is not signed has no claims.
                    let claims = scheme.event_id.iter().any(|id| id.starts_with("claim:"));
                    // One whose every part may be missing names only some events.
                    let names_some = scheme.event_id.iter().all(|id| id.starts_with("json?:"));
                    if !claims
                        && !names_some
                        && mapped.dedup.is_none() != scheme.event_id.is_empty()
                    {
                        wrong.push(format!("{name}: the sample has no event id"));
                    }
                    // What nobody said to the agent may be a sample as well, but not the one that is sent first.
                    let shows_silence = |why: &str| number > 0 && why.starts_with("humans_only:");
                    if let Some(filtered) = mapped.filtered.filter(|why| !shows_silence(why)) {
                        wrong.push(format!(
                            "{name}: the sample {} runs nothing: {filtered}",
                            sample.name
                        ));
                    }
                    if mapped.event_type.is_none() != scheme.event_type.is_empty() {
                        wrong.push(format!("{name}: the sample has no event type"));
                    }
                }
                Err(refusal) => wrong.push(format!("{name}: {refusal:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_of_signature_headers_holds() {
    use base64::Engine;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
    let mut seen = 0;
    for row in json(&vectors().join("signature-headers.json"))
        .as_array()
        .unwrap()
    {
        let kind = row["scheme"].as_str().unwrap();
        let (provider, header, time) = match kind {
            "github" => ("github", "x-hub-signature-256", ""),
            "stripe" => ("stripe", "stripe-signature", ""),
            "slack" => ("slack", "x-slack-signature", "x-slack-request-timestamp"),
            "standard" => (
                "standard-webhooks",
                "webhook-signature",
                "webhook-timestamp",
            ),
            "token" => ("gitlab", "x-gitlab-token", ""),
            other => panic!("no scheme {other}"),
        };
        let secret = if kind == "standard" {
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        } else {
            "a-long-secret"
        };
        let (scheme, _) = compile(&source(&[secret], &[], ""), Some(&shipped(provider))).unwrap();
        let lines: Vec<&str> = match &row["value"] {
            Value::String(line) => vec![line.as_str()],
            Value::Array(lines) => lines.iter().map(|line| line.as_str().unwrap()).collect(),
            _ => vec![],
        };
        let seconds = NOW.seconds();
        let timed = |text: &str| {
            text.replace("{now}", &seconds.to_string())
                .replace("{now-301}", &(seconds - 301).to_string())
                .replace("{now+61}", &(seconds + 61).to_string())
        };
        let mut received = post(&[("webhook-id", "msg_1")], "the body 1");
        for line in &lines {
            let (line, ts) = match line.split_once('|') {
                Some((line, ts)) => (line, Some(timed(ts))),
                None => (*line, None),
            };
            let line = timed(line);
            // The signature is right for the time as it is written, wherever it is written.
            let written = match kind {
                "stripe" => line
                    .split([',', ';'])
                    .find_map(|e| e.strip_prefix("t="))
                    .unwrap_or_default()
                    .to_owned(),
                _ => ts.clone().unwrap_or_default(),
            };
            let content = match kind {
                "stripe" => format!("{written}.the body 1"),
                "slack" => format!("v0:{written}:the body 1"),
                "standard" => format!("msg_1.{written}.the body 1"),
                _ => "the body 1".to_owned(),
            };
            let key = match kind {
                "standard" => BASE64_STANDARD.decode(&secret[6..]).unwrap(),
                _ => secret.as_bytes().to_vec(),
            };
            let mut mac = crate::verify::keys::mac::RunningDigest::keyed(
                crate::verify::keys::mac::Algorithm::Sha256,
                &key,
            );
            mac.take(content.as_bytes());
            let digest = mac.finish();
            let (hex, b64) = (
                hex::encode(digest.as_bytes()),
                BASE64_STANDARD.encode(digest.as_bytes()),
            );
            let url = BASE64_URL_SAFE.encode(digest.as_bytes());
            assert!(
                !line.contains("{b64url}") || url != b64,
                "the alphabets must differ for the row to say something"
            );
            let value = line
                .replace("{hex}", &hex)
                .replace("{HEX}", &hex.to_uppercase())
                .replace("{hex-2}", &hex[..62])
                .replace("{b64}", &b64)
                .replace("{b64url}", &url)
                .replace("{b64nopad}", b64.trim_end_matches('='))
                .replace("{zero}", &"0".repeat(64))
                .replace("{b64zero}", &BASE64_STANDARD.encode([0; 32]))
                .replace("{secret}", secret)
                .replace("{secret-1}", &secret[1..]);
            assert!(!value.contains('{'), "{value}");
            received.headers.append(
                HeaderName::from_static(header),
                HeaderValue::from_str(&value).unwrap(),
            );
            if let Some(ts) = ts {
                let value = HeaderValue::from_bytes(ts.as_bytes()).unwrap();
                received
                    .headers
                    .append(HeaderName::from_static(time), value);
            }
        }
        let accepted = scheme.judge(&received, NOW).is_ok();
        assert_eq!(
            accepted,
            row["expect"] == "accept",
            "{kind}: {}",
            row["why"]
        );
        seen += 1;
    }
    assert!(seen >= 33, "only {seen} rows seen");
}

#[test]
fn what_is_signed_like_the_provider_is_accepted_for_every_provider() {
    let mut signed_for = 0;
    for (name, _) in crate::config::shipped_providers() {
        let provider = shipped(name);
        let good = cases(name).into_iter().find(Case::is_good).unwrap();
        let scheme = good.scheme(&provider);
        // What stands inside the document cannot be written there afterwards.
        let Ok(headers) = scheme.sign(0, &good.received, NOW) else {
            continue;
        };
        let mut request = good.received.clone();
        for (name, value) in headers {
            request.headers.insert(name, value);
        }
        let proof = scheme
            .judge(&request, NOW)
            .unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        request.body = "{\"a\":2}".into();
        if proof.strength == Strength::Signed {
            assert!(scheme.judge(&request, NOW).is_err(), "{name}");
        }
        signed_for += 1;
    }
    assert!(signed_for >= 190, "only {signed_for} providers seen");
}

#[test]
fn signed_parts_other_than_the_body_are_the_sender_only() {
    let way = "signature = 'header:x-sig'\nsigned_content = '{url}{form.sorted}'\nalgorithm = 'sha1'\nencoding = 'base64'\n\
               weak = { variants = 'a test' }\n\
               [[variant]]\nwhen = 'query:digest'\nsigned_content = '{url}'\nequal = [['{query:digest}', '{body|sha256|hex}']]";
    let scheme = scheme(way);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let plain = signed(&scheme, request("POST", "/hooks/s?a=1", &form, b"b=2&a=1"));
    assert_eq!(
        scheme.judge(&plain, NOW).map(|proof| proof.strength),
        Ok(Strength::Origin)
    );
    let digest = "230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5";
    let bound = signed(
        &scheme,
        request("POST", &format!("/hooks/s?digest={digest}"), &[], b"body"),
    );
    assert_eq!(
        scheme.judge(&bound, NOW).map(|proof| proof.strength),
        Ok(Strength::Signed)
    );
    let mut changed = bound;
    changed.body = "Body".into();
    assert_eq!(
        fault(scheme.judge(&changed, NOW)),
        Some(OriginFault::BodyChanged)
    );
}

#[test]
fn published_vectors_with_harder_grammars_hold() {
    let twilio = "signature = 'header:X-Twilio-Signature'\nalgorithm = 'sha1'\nencoding = 'base64'\n\
                  signed_content = ['{url.with-port}{form.sorted}', '{url}{form.sorted}']";
    let (scheme, _) = compile(&source(&["12345"], &[], twilio), None).unwrap();
    let mut received = post(
        &[
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-twilio-signature", "L/OH5YylLD5NRKLltdqwSvS0BnU="),
        ],
        "Digits=1234&CallSid=CA1234567890ABCDE&To=%2B18005551212&Caller=%2B14158675310&From=%2B14158675310",
    );
    received.url = "https://example.com/myapp.php?foo=1&bar=2".into();
    assert!(scheme.judge(&received, NOW).is_ok());

    let boxed = "signature = ['header:box-signature-secondary', 'header:box-signature-primary']\nencoding = 'base64'\n\
                 signed_content = '{body}{header:box-delivery-timestamp}'\n\
                 timestamp = { from = 'header:box-delivery-timestamp', unit = 'rfc3339', tolerance = 600 }";
    let (scheme, _) = compile(
        &source(&["another-key", "SamplePrimaryKey"], &[], boxed),
        None,
    )
    .unwrap();
    let received = post(
        &[
            ("box-delivery-timestamp", "2020-01-01T00:00:00-07:00"),
            (
                "box-signature-primary",
                "6TfeAW3A1PASkgboxxA5yqHNKOwFyMWuEXny/FPD5hI=",
            ),
        ],
        r#"{"type":"webhook_event","webhook":{"id":"1234567890"},"trigger":"FILE.UPLOADED","source":{"id":"1234567890","type":"file","name":"Test.txt"}}"#,
    );
    let at = Timestamp::parse("2020-01-01T07:01:00Z").unwrap();
    assert_eq!(
        scheme.judge(&received, at).unwrap().secret.as_deref(),
        Some("literal 2")
    );
    assert_eq!(
        fault(scheme.judge(&received, NOW)),
        Some(OriginFault::Stale)
    );
}

#[test]
fn a_list_proves_each_item_and_an_empty_one_nothing() {
    let way = "signature = 'json:sig'\neach = 'items[*].item'\nsigned_content = '{json:ref}:{json?:other}:{json:amount.value}'";
    let scheme = scheme(way);
    let item = |reference: &str, value: u32| {
        let mut mac = crate::verify::keys::mac::RunningDigest::keyed(
            crate::verify::keys::mac::Algorithm::Sha256,
            b"a-long-secret",
        );
        mac.take(format!("{reference}::{value}").as_bytes());
        let sig = hex::encode(mac.finish().as_bytes());
        format!(r#"{{"item":{{"ref":"{reference}","amount":{{"value":{value}}},"sig":"{sig}"}}}}"#)
    };
    let judge = |body: &str| scheme.judge(&post(&[], body), NOW);
    let good = format!(r#"{{"items":[{},{}]}}"#, item("a", 1), item("b", 2));
    assert!(judge(&good).is_ok());
    assert_eq!(
        fault(judge(&good.replace("\"value\":2", "\"value\":3"))),
        Some(OriginFault::WrongSignature)
    );
    assert_eq!(
        fault(judge(r#"{"items":[]}"#)),
        Some(OriginFault::MissingSignature)
    );
    assert_eq!(
        fault(judge(r#"{"items":[],"items":[]}"#)),
        Some(OriginFault::MissingPart)
    );
    assert_eq!(fault(judge("not json")), Some(OriginFault::MissingPart));
}

#[test]
fn groups_sections_wrapping_and_derived_keys_work() {
    let headers = |value: &str| request("POST", "/h?data.id=7", &[("x-sig", value)], b"b");
    let mac = |algorithm, key: &[u8], text: &str| {
        let mut mac = crate::verify::keys::mac::RunningDigest::keyed(algorithm, key);
        mac.take(text.as_bytes());
        mac.finish().as_bytes().to_vec()
    };
    use crate::verify::keys::mac::Algorithm::{Sha1, Sha256};

    let groups = scheme(
        "signature = 'header:x-sig'\ngroup = ' '\nsplit = ','\npair = '='\nselect = 'v1'\nsigned_content = '{ts}.{body}'\ntimestamp = { from = 'signature:t' }",
    );
    let good = hex::encode(mac(Sha256, b"a-long-secret", "2.b"));
    assert!(
        groups
            .judge(&headers(&format!("t=1,v1={good} t=2,v1={good}")), NOW)
            .is_ok()
    );
    assert!(
        groups
            .judge(&headers(&format!("t=2,v1=00 t=1,v1={good}")), NOW)
            .is_err(),
        "a time counts in its group"
    );

    let sections = scheme(
        "signature = 'header:x-sig'\nsigned_content = '[id:{query:data.id};][rid:{header:x-rid};]end'",
    );
    let good = hex::encode(mac(Sha256, b"a-long-secret", "id:7;end"));
    assert!(sections.judge(&headers(&good), NOW).is_ok());

    let wrapped = scheme(
        "signature = 'header:x-sig'\nunwrap = 'base64-json:signature'\nalgorithm = 'sha1'\nsecret_derive = 'sha1'",
    );
    let mut key = crate::verify::keys::mac::RunningDigest::plain(Sha1);
    key.take(b"a-long-secret");
    let inner = format!(
        r#"{{"signature":"{}"}}"#,
        hex::encode(mac(Sha1, key.finish().as_bytes(), "b"))
    );
    let outer = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, inner);
    assert!(wrapped.judge(&headers(&outer), NOW).is_ok());

    let plain = scheme(
        "scheme = 'hash'\nsignature = 'header:x-sig-*'\nsigned_content = '{(secret)(body)|sha256|hex}{secret}'\nalgorithm = { from = 'query:data.id', map = { 7 = 'sha512' } }",
    );
    let mut request = signed(&plain, headers(""));
    assert!(plain.judge(&request, NOW).is_ok());
    request.target = "/h?data.id=8".into();
    assert_eq!(
        fault(plain.judge(&request, NOW)),
        Some(OriginFault::MalformedSignature)
    );
}

#[test]
fn basic_auth_takes_one_well_formed_line() {
    let (scheme, _) = compile(&source(&["user:pass:word"], &[], "scheme = 'basic'"), None).unwrap();
    let judge = |value: &str| fault(scheme.judge(&post(&[("authorization", value)], ""), NOW));
    assert_eq!(judge("basic dXNlcjpwYXNzOndvcmQ="), None);
    assert_eq!(judge("Basic dXNlcjpwYXNz"), Some(OriginFault::WrongSecret));
    assert_eq!(
        judge("Bearer dXNlcjpwYXNzOndvcmQ="),
        Some(OriginFault::MalformedSignature)
    );
    assert_eq!(judge("Basic %%%"), Some(OriginFault::MalformedSignature));
    assert_eq!(judge(""), Some(OriginFault::MissingSignature));
    assert_eq!(
        fault(scheme.judge(&post(&[], ""), NOW)),
        Some(OriginFault::MissingSignature)
    );
}

fn answered(
    challenges: &[Challenge],
    scheme: &Scheme,
    request: &Received,
) -> Option<Result<ChallengeResponse, Refusal>> {
    let met = challenges
        .iter()
        .find_map(|challenge| challenge.answer(request, scheme, NOW))?;
    Some(met.map(|met| met.answer))
}

#[test]
fn a_signed_challenge_is_answered_only_when_it_is_signed() {
    let (scheme, challenges) = compile(
        &source(&["a-long-secret"], &[], ""),
        Some(&shipped("slack")),
    )
    .unwrap();
    let ask = post(
        &[],
        r#"{"type":"url_verification","challenge":"<script>3eZbrw1a"}"#,
    );
    assert!(matches!(
        answered(&challenges, &scheme, &ask),
        Some(Err(Refusal::Origin(..)))
    ));
    let answer = answered(&challenges, &scheme, &signed(&scheme, ask))
        .unwrap()
        .unwrap();
    assert_eq!(
        (answer.status, &answer.body[..]),
        (200, &b"<script>3eZbrw1a"[..])
    );
    assert_eq!(answer.content_type, "text/plain; charset=utf-8");
    assert!(
        answer
            .headers
            .contains(&("x-content-type-options".into(), "nosniff".into()))
    );
    let long = format!(
        r#"{{"type":"url_verification","challenge":"{}"}}"#,
        "x".repeat(1025)
    );
    assert!(matches!(
        answered(&challenges, &scheme, &signed(&scheme, post(&[], &long))),
        Some(Err(Refusal::Challenge(_)))
    ));
    assert!(
        answered(
            &challenges,
            &scheme,
            &post(&[], r#"{"type":"event_callback"}"#)
        )
        .is_none()
    );
}

#[test]
fn a_token_is_compared_before_anything_is_echoed() {
    let text = "title = 'X'\n[verify]\nsignature = 'header:x-sig'\nbody_kind = 'json'\nconfig = ['verify_token']\n\
        [[challenge]]\nmethod = 'GET'\nwhen = { 'query:hub.mode' = 'subscribe' }\n\
        require = { 'query:hub.verify_token' = '{config:verify_token}' }\nreply = { text = '{query:hub.challenge}' }\n\
        [[challenge]]\nmethod = 'GET'\nwhen = { 'query:crc_token' = '*' }\npattern = '[a-z]+'\n\
        reply = { json = { response_token = 'sha256={query:crc_token|hmac-sha256|base64}', n = 1 } }\n";
    let problems = Problems::default();
    let provider = Provider::read("x", &Table::parse("x", text, &problems), &problems);
    let with = source(&["a-long-secret"], &[("verify_token", "t0ken")], "");
    let (scheme, challenges) = compile(&with, Some(&provider)).unwrap();
    let get = |target: &str| answered(&challenges, &scheme, &request("GET", target, &[], b""));
    let good = get("/h?hub.mode=subscribe&hub.verify_token=t0ken&hub.challenge=123")
        .unwrap()
        .unwrap();
    assert_eq!(&good.body[..], b"123");
    for wrong in [
        "/h?hub.mode=subscribe&hub.verify_token=x&hub.challenge=1",
        "/h?hub.mode=subscribe&hub.challenge=1",
    ] {
        assert!(
            matches!(get(wrong), Some(Err(Refusal::Challenge(_)))),
            "{wrong}"
        );
    }
    let crc = get("/h?crc_token=abc").unwrap().unwrap();
    let json: Value = serde_json::from_slice(&crc.body).unwrap();
    assert!(
        json["response_token"]
            .as_str()
            .unwrap()
            .starts_with("sha256=")
            && json["n"] == 1
    );
    assert_eq!(crc.content_type, "application/json");
    assert!(get("/h").is_none());
    assert_eq!(allowed_methods(&challenges), "GET, POST");

    let problems = compile(&source(&["a-long-secret"], &[], ""), Some(&provider)).unwrap_err();
    assert!(
        problems
            .iter()
            .any(|p| p.what.contains("needs the value verify_token")),
        "{problems:#?}"
    );
}

#[test]
fn everything_that_is_wrong_with_a_section_comes_at_once() {
    let all = |secrets: &[&str], verify: &str| -> String {
        let problems = compile(&source(secrets, &[], verify), None)
            .err()
            .unwrap_or_default();
        problems
            .iter()
            .map(|problem| format!("{problem}\n"))
            .collect()
    };
    let text = all(
        &[],
        "signature = 'hedder:x'\nsigned_content = ['{ts}.{boddy}', '{body|sha265}', '[x]']\nencoding = 'hax'\nsplitt = ','",
    );
    for expected in [
        "hedder:x",
        "{boddy}",
        "did you mean sha256?",
        "[section]",
        "hax",
        "did you mean split?",
        "no secret",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    for (verify, expected) in [
        (
            "scheme = 'ed25519'\nsignature = 'header:x'\nkey_encoding = 'hex'",
            "invalid Ed25519 key",
        ),
        (
            "scheme = 'jwt'\nsignature = 'header:x'\nalgorithms = ['none']",
            "none is not one",
        ),
        ("scheme = 'hmack'", "no scheme is called"),
        (
            "scheme = 'hash'\nsignature = 'header:x'",
            "without {secret}",
        ),
        (
            "signature = 'header:x'\nsigned_content = '{ts}'",
            "no timestamp",
        ),
        ("signature = 'header:x'\nsigned_content = []", "is empty"),
        (
            "signature = 'header:x'\npair = '='",
            "only one of pair and select",
        ),
        (
            "signature = 'header:x'\ntimestamp = { from = 'signature:t' }",
            "neither pair nor positional",
        ),
        (
            "signature = 'header:x'\nsecret_encoding = 'base64'",
            "is not base64",
        ),
        (
            "signature = 'header:x'\nsigned_content = '{config:x}'",
            "not declared",
        ),
        (
            "scheme = 'hash'\nsignature = 'header:x'\nsigned_content = '[{secret}{header:y}]{body}'",
            "without {secret}",
        ),
        (
            "signature = 'header:x'\n[[variant]]\nwhen = 'query:open'\nscheme = 'none'",
            "whoever chooses it",
        ),
        ("scheme = 'basic'", "name and password"),
        ("scheme = 'token'", "signature is missing"),
        (
            "signature = 'header:x'\nsigned_content = '{body'",
            "without }",
        ),
    ] {
        let text = all(&["a-long-secret!"], verify);
        assert!(
            text.contains(expected),
            "{verify}: {expected} is not in\n{text}"
        );
        assert!(!text.contains("a-long-secret!"), "{text}");
    }
}

#[test]
fn the_public_address_is_asked_for_where_it_is_signed() {
    let problems = Problems::default();
    let source = source(
        &["a-long-secret"],
        &[],
        "signature = 'header:x'\nsigned_content = '{url}{body}'",
    );
    assert!(compile_source(&source, None, false, &problems).0.is_none());
    assert!(
        problems.into_sorted()[0]
            .what
            .contains("server.public_url is empty")
    );
}

#[test]
fn t58_weak_secrets_stop_the_start_unless_they_are_for_trying_out() {
    let place = Place {
        file: "t".into(),
        line: 1,
    };
    let weigh = |name: &str, value: &str| {
        let problems = Problems::default();
        weigh(
            &Located {
                value: Secret::new(name, value),
                place: place.clone(),
            },
            &problems,
        );
        (problems.any_error(), problems.into_sorted().len())
    };
    assert_eq!(weigh("env:S", "short12"), (true, 1));
    assert_eq!(weigh("file:s", "Your-Secret"), (true, 1));
    assert_eq!(weigh("literal 1", "try-me"), (false, 1));
    assert_eq!(weigh("env:S", "long-enough"), (false, 0));
}

#[test]
fn what_is_kept_shows_no_secret() {
    let token = scheme("scheme = 'token'\nsignature = ['header:x-token', 'query:pass']");
    let received = request(
        "POST",
        "/hooks/s?pass=tops3cret&a=1&API%5FKEY=tops3cret&token=tops3cret&bare",
        &[
            ("Authorization", "Bearer tops3cret"),
            ("Cookie", "tops3cret"),
            ("X-API-Key", "tops3cret"),
            ("X-Token", "tops3cret"),
            ("X-Other", "caf\u{e9}"),
        ],
        b"",
    );
    let kept = redacted(&token, &received);
    assert_eq!(
        kept.request_line,
        "POST /hooks/s?pass=***&a=1&API%5FKEY=***&token=***&bare"
    );
    let expected = [("x-token", "***"), ("x-other", "caf\\xc3\\xa9")]
        .map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(kept.headers, expected);
    assert!(!format!("{token:?}").contains("a-long-secret"));
}

#[test]
fn no_header_value_makes_it_panic() {
    let grammar = "split = ','\npair = '='\nselect = 'v1'\nsigned_content = '{ts}.{body}'\ntimestamp = { from = 'signature:t', tolerance = 300 }";
    let list = scheme(&format!("signature = 'header:x'\n{grammar}"));
    let wrapped = scheme(&format!(
        "signature = 'header:x'\nunwrap = 'base64-json:s'\n{grammar}"
    ));
    let any_bytes = proptest::collection::vec(0x20_u8..=0xff, 0..200);
    proptest::proptest!(|(bytes in any_bytes)| {
        let mut received = post(&[], "body");
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            received.headers.insert("x", value);
            proptest::prop_assert!(list.judge(&received, NOW).is_err());
            proptest::prop_assert!(wrapped.judge(&received, NOW).is_err());
        }
    });
}
