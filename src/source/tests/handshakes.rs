//! Handshakes that bring a secret or ask for a signature, compressed bodies, and sources that refuse nobody.

use std::path::Path;

use crate::config::{Config, Problems, Provider, Table};
use crate::model::{Received, Refusal, Strength, Timestamp};
use crate::source::{Source, Sources};
use crate::verify::Signer;
use crate::verify::tests::support::{NOW, hmac_sha256, post, request, shipped};

/// The one source of a configuration, with a provider of its own.
fn configured(provider: &str, source: &str) -> Sources {
    let problems = Problems::default();
    let text = format!("[sources.s]\nprovider = 'p'\nagent = 'a'\n{source}");
    let mut config =
        Config::parse("t", &text, Path::new("."), std::iter::empty(), &problems).unwrap();
    let read = Provider::read("p", &Table::parse("p", provider, &problems), &problems);
    config
        .providers
        .insert("p".into(), std::sync::Arc::new(read));
    let sources = Sources::compile(&config, &problems);
    assert!(!problems.any_error(), "{:#?}", problems.into_sorted());
    sources
}

const BRINGS: &str = "title = 'P'\n[verify]\nsignature = 'header:x-sig'\n\
    [[challenge]]\nmethod = 'POST'\nwhen = { 'header:x-secret' = '*' }\nstore_secret = 'header:x-secret'\n\
    reply = { status = 200, headers = { x-secret = '{header:x-secret}' } }\n";

fn brings(secret: &str) -> Received {
    post(&[("x-secret", secret)], "")
}

/// A request signed with a secret of somebody else's making.
fn signed_with(secret: &str, body: &str) -> Received {
    post(&[("x-sig", &hmac_sha256(secret, body))], body)
}

fn reason(
    result: Result<crate::model::Verified, Box<(Received, Refusal)>>,
) -> Option<&'static str> {
    result.err().map(|refused| refused.1.reason())
}

/// The same, at the address that a window's word is in.
fn brings_by(word: &str, secret: &str) -> Received {
    request(
        "POST",
        &format!("/hooks/s?enrol={word}"),
        &[("x-secret", secret)],
        b"",
    )
}

#[test]
fn s17_a_secret_is_brought_by_who_has_the_address_and_counts_when_it_is_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys/s.secrets");
    let enrol = format!("enrol_file = '{}'\n", file.display());
    let (first, second) = ("first-secret-0123456789", "other-secret-0123456789");
    let sources = configured(BRINGS, &enrol);
    let source = sources.get("s").unwrap();
    let refused = |request: &Received, at| {
        matches!(
            source.handshake(request, at),
            Some(Err(Refusal::Challenge(_)))
        )
    };
    assert_eq!(
        reason(source.verify(signed_with(first, "b"), NOW)),
        Some("not_attempted")
    );
    assert!(refused(&brings(first), NOW), "no window is open");

    let minute = std::time::Duration::from_secs(60);
    let word = source.open_window(NOW + minute).unwrap().unwrap();
    assert!(
        word.len() == 32 && source.open_window(NOW + minute).unwrap().unwrap() != word,
        "a word is said once"
    );
    let word = source.open_window(NOW + minute).unwrap().unwrap();
    // Whoever knocks all the time and does not know the address wins nothing, and takes nobody's place.
    for stranger in [
        brings(second),
        brings_by("", second),
        brings_by(&"0".repeat(32), second),
        brings_by(&word[..31], second),
        brings_by(&format!("{word}&enrol={word}"), second),
    ] {
        assert!(refused(&stranger, NOW), "{}", stranger.target);
    }
    for weak in ["", "short", "with a blank in the middle of it"] {
        assert!(
            !matches!(source.handshake(&brings_by(&word, weak), NOW), Some(Ok(_))),
            "{weak}"
        );
    }
    assert!(
        refused(&brings_by(&word, first), NOW + minute + minute),
        "the window is over"
    );
    let answer = source
        .handshake(&brings_by(&word, first), NOW)
        .unwrap()
        .unwrap();
    assert!(answer.headers.contains(&("x-secret".into(), first.into())));
    assert!(
        refused(&brings_by(&word, second), NOW),
        "one for each window"
    );
    assert!(
        matches!(source.handshake(&brings_by(&word, first), NOW), Some(Ok(_))),
        "the answer was lost"
    );

    // It counts for nothing until the operator has said so.
    assert_eq!(
        reason(source.verify(signed_with(first, "b"), NOW)),
        Some("not_attempted")
    );
    assert!(!file.exists());
    let brought = source.brought().unwrap();
    assert_eq!(
        (brought.fingerprint.len(), brought.peer),
        (16, [127, 0, 0, 1].into())
    );
    assert!(source.confirm_secret("0000000000000000", NOW).is_none());
    assert_eq!(
        source.confirm_secret(&brought.fingerprint, NOW),
        Some(Ok(()))
    );
    assert_eq!(reason(source.verify(signed_with(first, "b"), NOW)), None);
    assert!(
        matches!(source.handshake(&brings(first), NOW), Some(Ok(_))),
        "it is known"
    );
    assert_eq!(
        reason(source.verify(signed_with(second, "b"), NOW)),
        Some("wrong_signature")
    );
    assert!(
        source.confirm_secret(&brought.fingerprint, NOW).is_none(),
        "it waits no longer"
    );
    assert!(!format!("{source:?}").contains(first));

    // The word stays in the provider's address and means nothing any more, nor is it kept.
    let mut event = signed_with(first, "b");
    event.target = format!("/hooks/s?enrol={word}&a=1");
    assert!(!format!("{:?}", source.kept(&event)).contains(&word));

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    let again = configured(BRINGS, &enrol);
    assert_eq!(
        reason(again.get("s").unwrap().verify(signed_with(first, "b"), NOW)),
        None,
        "kept over a restart"
    );

    let without = configured(BRINGS, "secrets = ['literal:a-long-secret']\n");
    let without = without.get("s").unwrap();
    assert!(
        without.open_window(NOW).is_none(),
        "there is no file to keep it in"
    );
    assert!(matches!(
        without.handshake(&brings(first), NOW),
        Some(Err(_))
    ));
}

#[test]
fn t56_nothing_but_a_plain_token_is_signed_for_a_stranger_and_no_markup_is_reflected() {
    let provider = "title = 'P'\n[verify]\nsignature = 'header:x-sig'\nbody_kind = 'json'\nreject_status = 418\n\
        [[challenge]]\nmethod = 'GET'\nwhen = { 'query:crc' = '*' }\notherwise = 404\npattern = '[a-zA-Z0-9_.-]+=?'\n\
        reply = { json = { token = '{query:crc|hmac-sha256|hex}' } }\n\
        [[challenge]]\nmethod = 'GET'\nwhen = { 'query:echo' = '*' }\nreply = { text = '{query:echo}' }\n";
    let sources = configured(provider, "secrets = ['literal:a-long-secret']\n");
    let source = sources.get("s").unwrap();
    let get = |query: &str| {
        source
            .handshake(&request("GET", &format!("/hooks/s?{query}"), &[], b""), NOW)
            .unwrap()
    };
    for good in ["crc=abc-DEF_123", "crc=aGVsbG8%3D", "echo=hello%20there"] {
        assert!(get(good).is_ok(), "{good}");
    }
    let event = format!("crc={}", "%7B%22type%22:%22payment%22%7D");
    for wrong in [
        event.as_str(),
        "crc=a=b%26c=d",
        "crc=a%0Ab",
        "crc=1700000000.%7B%7D",
        "crc=",
        &format!("crc={}", "a".repeat(300)),
    ] {
        assert!(
            matches!(
                get(wrong),
                Err(Refusal::Answered(_, 404)) | Err(Refusal::Method(_))
            ),
            "{wrong}"
        );
    }
    assert!(matches!(
        get("echo=%3Cscript%3E"),
        Err(Refusal::Challenge(_))
    ));
    let refused = source
        .verify(post(&[("x-sig", "00")], ""), NOW)
        .unwrap_err();
    assert!(matches!(&refused.1, Refusal::Answered(_, 418)) && refused.1.code() == "bad_signature");
}

#[test]
fn a_source_that_does_not_enforce_lets_pass_and_says_what_was_wrong() {
    let provider = "title = 'P'\n[verify]\nsignature = 'header:x-sig'\n";
    let sources = configured(
        provider,
        "secrets = ['literal:a-long-secret']\nenforce = false\n",
    );
    let source: &Source = sources.get("s").unwrap();
    for (request, strength) in [
        (signed_with("a-long-secret", "b"), "signed"),
        (
            signed_with("another-secret", "b"),
            "observed:wrong_signature",
        ),
        (post(&[], "b"), "observed:missing_signature"),
    ] {
        let proof = source.verify(request, NOW).unwrap().proof().clone();
        assert_eq!(proof.strength.as_str(), strength);
        assert_eq!(proof.secret.is_some(), proof.strength == Strength::Signed);
    }
}

#[test]
fn t67_a_compressed_body_is_judged_by_the_bytes_that_the_file_says_and_read_as_it_was() {
    use std::io::Write as _;
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    for way in ["as-received", "decompressed"] {
        let provider =
            format!("title = 'P'\n[verify]\nsignature = 'header:x-sig'\nbody = '{way}'\n");
        let sources = configured(&provider, "secrets = ['literal:a-long-secret']\n");
        let source = sources.get("s").unwrap();
        assert!(source.takes_compressed());
        let mut sent = post(&[], "{\"a\":1}");
        let packed = gzip("{\"a\":1}");
        if way == "as-received" {
            sent.body = packed.clone().into();
        }
        let mut sent = source.scheme.signed(Signer::Secret(0), &sent, NOW).unwrap();
        sent.body = packed.into();
        sent.headers
            .insert("content-encoding", http::HeaderValue::from_static("gzip"));
        let opened = source.opened(sent.clone()).unwrap();
        let verified = source
            .verify(opened, NOW)
            .unwrap_or_else(|refused| panic!("{way}: {:?}", refused.1));
        assert_eq!(&verified.request().body[..], b"{\"a\":1}", "{way}");
        assert!(!verified.request().headers.contains_key("content-encoding"));
        sent.body = gzip("{\"a\":2}").into();
        let opened = source.opened(sent).unwrap();
        assert_eq!(
            reason(source.verify(opened, NOW)),
            Some("wrong_signature"),
            "{way}"
        );
    }
}

#[test]
fn a_subscription_is_confirmed_only_at_the_pinned_host() {
    let scheme = "title = 'P'\n[verify]\nsignature = 'header:x-sig'\n[confirm]\nfrom = 'json:Url'\nhost = 'ok\\.example\\.com'\npath = '/x'\nwhen = { 'json:Type' = 'Confirm' }\n";
    let sources = configured(scheme, "secrets = ['literal:a-long-secret']\n");
    let source = sources.get("s").unwrap();
    let confirms = |body: &str| {
        source.confirms(
            &source
                .verify(signed_with("a-long-secret", body), NOW)
                .unwrap(),
        )
    };
    assert_eq!(
        confirms(r#"{"Type":"Event","Url":"https://ok.example.com/x"}"#),
        Ok(None)
    );
    let address = "https://ok.example.com/x?a=1";
    assert_eq!(
        confirms(&format!(r#"{{"Type":"Confirm","Url":"{address}"}}"#)),
        Ok(Some(address.into()))
    );
    for wrong in [
        "http://ok.example.com/x",
        "https://ok.example.com/y",
        "https://ok.example.com.evil.org/",
        "https://10.0.0.1/",
    ] {
        assert!(
            confirms(&format!(r#"{{"Type":"Confirm","Url":"{wrong}"}}"#)).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn the_shipped_handshakes_that_bring_a_secret_take_one() {
    let mut seen = 0;
    for (name, _) in crate::config::shipped_providers() {
        let provider = shipped(name);
        if !provider
            .challenges
            .iter()
            .any(|challenge| challenge.get("store_secret").is_some())
        {
            continue;
        }
        let written =
            crate::verify::CheckConfig::of_provider(&provider, Vec::new(), Vec::new()).unwrap();
        let trial = crate::verify::DryRun::compile(written)
            .unwrap_or_else(|problems| panic!("{name}: {problems:#?}"));
        let secret = "brought-secret-0123456789";
        let body = format!("{{\"verification_token\":\"{secret}\"}}");
        let judged = trial.judge(
            &post(&[("x-hook-secret", secret)], &body),
            Timestamp::default(),
        );
        assert_eq!(judged.reply.map(|reply| reply.status), Some(200), "{name}");
        seen += 1;
    }
    assert!(seen >= 3, "only {seen} seen");
}

#[test]
fn s1_a_secret_that_signs_for_strangers_is_of_one_kind_of_source() {
    let check = |other: &str| {
        let problems = Problems::default();
        let text = format!(
            "[sources.feed]\nprovider = 'x'\nagent = 'a'\nsecrets = ['literal:a-long-secret']\n\
             [sources.other]\nagent = 'a'\nsecrets = ['literal:a-long-secret']\n{other}\n"
        );
        let config =
            Config::parse("t", &text, Path::new("."), std::iter::empty(), &problems).unwrap();
        Sources::compile(&config, &problems);
        problems
            .into_sorted()
            .iter()
            .map(|problem| format!("{problem}\n"))
            .collect::<String>()
    };
    let found = check("provider = 'custom'\nverify = { signature = 'header:x-sig' }");
    assert!(
        found.contains("t:7: error: source other has the secret of source feed"),
        "{found}"
    );
    assert!(!check("provider = 'x'").contains("error"));
}

/// What the shipped providers' handshakes sign for any caller, as (request that asks, answer's signature).
fn oracle(source: &Source, name: &str, token: &str) -> Option<String> {
    let target = match name {
        "x" => format!("/hooks/s?crc_token={token}"),
        "linkedin" => format!("/hooks/s?challengeCode={token}"),
        "braintree" => format!("/hooks/s?bt_challenge={token}"),
        _ => return None,
    };
    let answer = source
        .handshake(&request("GET", &target, &[], b""), NOW)?
        .ok()?;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    Some(
        text.rsplit_once([':', '|'])
            .map_or(text.clone(), |(_, last)| {
                last.trim_matches(['"', '}']).to_owned()
            }),
    )
}

#[test]
fn s1_what_a_handshake_signs_for_a_stranger_is_no_event() {
    let secrets = "secrets = ['literal:a-long-secret']\n";
    for (name, header, tokens) in [
        (
            "x",
            "x-twitter-webhooks-signature",
            ["promptDoEvil", "abc.DEF-123=", "0123456789abcdef01234567"],
        ),
        (
            "linkedin",
            "x-li-signature",
            ["promptDoEvil", "12-34", "0123456789abcdef01234567"],
        ),
    ] {
        let (_, file) = crate::config::shipped_providers()
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap();
        let sources = configured(file, secrets);
        let source = sources.get("s").unwrap();
        for token in tokens {
            let Some(signature) = oracle(source, name, token) else {
                continue;
            };
            for body in [
                token.to_owned(),
                format!("{token}\n"),
                format!("hmacsha256={token}"),
            ] {
                for kind in [
                    "application/json",
                    "application/x-www-form-urlencoded",
                    "text/plain",
                ] {
                    let event = post(&[(header, &signature), ("content-type", kind)], &body);
                    assert!(
                        source.verify(event, NOW).is_err(),
                        "{name}: {body:?} as {kind}"
                    );
                }
            }
        }
    }
    // Nothing but what Braintree itself asks with is signed, and no payload is it.
    let (_, file) = crate::config::shipped_providers()
        .iter()
        .find(|(known, _)| *known == "braintree")
        .unwrap();
    let sources = configured(
        file,
        "secrets = ['literal:a-long-secret']\nvalues = { public_key = 'pub' }\n",
    );
    let source = sources.get("s").unwrap();
    assert!(oracle(source, "braintree", "PG5vdGlmaWNhdGlvbj4").is_none());
    assert!(oracle(source, "braintree", "0123456789abcdef0123456789abcdef0").is_none());
    let token = "0123456789abcdef0123456789abcdef";
    let signature = oracle(source, "braintree", token).unwrap();
    let body = format!("bt_signature=pub%7C{signature}&bt_payload={token}");
    let event = post(
        &[("content-type", "application/x-www-form-urlencoded")],
        &body,
    );
    assert_eq!(
        reason(source.verify(event, NOW)),
        Some("signed_for_stranger")
    );
}

#[test]
fn s1_a_handshake_that_signs_says_what_and_its_events_are_of_some_kind() {
    let compiled = |verify: &str, challenge: &str| {
        let text = format!(
            "title = 'P'\n[verify]\nsignature = 'header:x-sig'\n{verify}\n\
             [[challenge]]\nmethod = 'GET'\nwhen = {{ 'query:crc' = '*' }}\n{challenge}\n"
        );
        let problems = Problems::default();
        let provider = Provider::read("p", &Table::parse("p.toml", &text, &problems), &problems);
        let source = crate::verify::tests::support::source(&["a-long-secret"], &[], "");
        let found = crate::verify::tests::support::compile(&source, Some(&provider))
            .err()
            .unwrap_or_default();
        found
            .iter()
            .map(|problem| format!("{problem}\n"))
            .collect::<String>()
    };
    let keyed = "reply = { text = '{query:crc|hmac-sha256|hex}' }";
    let pattern = "pattern = '[a-f0-9]{20,32}'";
    for (verify, challenge, expected) in [
        (
            "body_kind = 'json'",
            keyed.to_owned(),
            "p.toml:5: error: challenge[0] has a keyed digest of what is asked",
        ),
        (
            "",
            format!("{pattern}\n{keyed}"),
            "p.toml:2: error: its handshake signs for any caller",
        ),
        (
            "body_kind = 'any'",
            format!("{pattern}\n{keyed}"),
            "its handshake signs for any caller",
        ),
        (
            "body_kind = 'json'",
            format!("pattern = '.*'\n{keyed}"),
            "lets any caller have an event signed",
        ),
        (
            "body_kind = 'json'",
            format!("pattern = '('\n{keyed}"),
            "is not a regular expression",
        ),
        (
            "body_kind = 'json'",
            format!("{pattern}\nreply = {{ text = '{{query:crc}}' }}"),
            "nothing is signed",
        ),
        (
            "body_kind = 'jsonn'",
            format!("{pattern}\n{keyed}"),
            "no kind of body is called",
        ),
    ] {
        let found = compiled(verify, &challenge);
        assert!(
            found.contains(expected),
            "{verify} {challenge}: {expected} is not in\n{found}"
        );
    }
    assert_eq!(
        compiled("body_kind = 'json'", &format!("{pattern}\n{keyed}")),
        ""
    );
    assert_eq!(
        compiled("", &format!("signed = true\n{pattern}\n{keyed}")),
        "",
        "only who is proved may ask"
    );
}
