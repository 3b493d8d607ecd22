//! Verdicts on answers, also on hostile ones.

use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::channel::tests::{problems, rule, spec, telegram};

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

fn judged(spec: &ChannelSpec, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Judgement {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        map.insert(name, value.parse().unwrap());
    }
    let answer = ChannelAnswer {
        status,
        headers: &map,
        body,
    };
    spec.judge(&answer, NOW)
}

fn verdict(spec: &ChannelSpec, status: u16, body: &str) -> ChannelVerdict {
    judged(spec, status, &[], body.as_bytes()).verdict
}

#[test]
fn an_id_keeps_its_type_and_all_its_digits() {
    let body = r#"{"ok":true,"result":{"message_id":12345678901234567890123}}"#;
    let ChannelVerdict::Sent { id: Some(id) } = verdict(&telegram(), 200, body) else {
        panic!("not sent");
    };
    assert_eq!(id.to_string(), "12345678901234567890123");
}

#[test]
fn without_rules_the_status_decides() {
    let spec = rule("to.chat = 'json:chat'");
    let of = |status| verdict(&spec, status, "");
    assert_eq!(of(204), ChannelVerdict::Sent { id: None });
    assert!(matches!(of(429), ChannelVerdict::Wait { pause: None, .. }));
    assert_eq!(of(401), ChannelVerdict::Alarm);
    for status in [400, 403, 404, 410, 413, 301, 302, 307] {
        assert_eq!(of(status), ChannelVerdict::Dead, "{status}");
    }
    for status in [408, 500, 502, 503, 504, 599, 100, 103] {
        assert_eq!(of(status), ChannelVerdict::Doubt, "{status}");
    }
}

#[test]
fn a_rule_reads_the_text_and_the_values_of_an_error() {
    let spec = telegram();
    let gone =
        r#"{"ok":false,"error_code":400,"description":"Bad Request: message thread not found"}"#;
    assert_eq!(
        verdict(&spec, 400, gone),
        ChannelVerdict::Without("topic".into())
    );
    let moved = r#"{"ok":false,"error_code":400,"description":"Bad Request: group chat was upgraded to a supergroup chat","parameters":{"migrate_to_chat_id":-1001}}"#;
    assert_eq!(
        verdict(&spec, 400, moved),
        ChannelVerdict::With(vec![("chat".into(), json!(-1001))])
    );
    let nowhere = moved.replace("migrate_to_chat_id", "other");
    assert_eq!(verdict(&spec, 400, &nowhere), ChannelVerdict::Dead);
}

#[test]
fn the_channels_own_word_on_waiting_wins_and_is_bounded() {
    let spec = telegram();
    let pause =
        |headers: &[(&str, &str)], body: &str| match judged(&spec, 429, headers, body.as_bytes())
            .verdict
        {
            ChannelVerdict::Wait { pause, .. } => pause.map(|pause| pause.as_millis()),
            other => panic!("{other:?}"),
        };
    let body = r#"{"ok":false,"parameters":{"retry_after":7200}}"#;
    assert_eq!(pause(&[("retry-after", "3")], body), Some(7_200_000));
    assert_eq!(pause(&[("retry-after", "0.5")], "{}"), Some(500));
    let date = [
        ("retry-after", "Tue, 14 Nov 2023 22:14:20 GMT"),
        ("date", "Tue, 14 Nov 2023 22:13:50 GMT"),
    ];
    assert_eq!(pause(&date, ""), Some(30_000));
    assert_eq!(pause(&date[..1], ""), Some(60_000));
    for (odd, expected) in [
        ("soon", None),
        ("-5", None),
        ("NaN", None),
        ("1e300", Some(86_400_000)),
        ("inf", Some(86_400_000)),
    ] {
        assert_eq!(pause(&[("retry-after", odd)], ""), expected, "{odd}");
    }
}

#[test]
fn a_success_that_cannot_be_read_is_in_doubt() {
    let spec = telegram();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let huge = format!(r#"{{"ok":true,"x":"{}"}}"#, "x".repeat(300_000));
    for body in ["", "<html>", "{", &deep, &huge, "\u{0}", "{\"ok\":true"] {
        let name: String = body.chars().take(20).collect();
        assert_eq!(verdict(&spec, 200, body), ChannelVerdict::Doubt, "{name}");
    }
    assert_eq!(
        judged(&spec, 200, &[], b"\xff\xfe").verdict,
        ChannelVerdict::Doubt
    );
    assert_eq!(verdict(&spec, 200, r#"{"ok":false}"#), ChannelVerdict::Dead);
}

#[test]
fn words_of_the_channel_are_bounded_and_in_one_line() {
    let long = "x\\n".repeat(5_000);
    let body = format!(r#"{{"ok":false,"error_code":"a\u0000b","description":"{long}"}}"#);
    let judgement = judged(&telegram(), 400, &[], body.as_bytes());
    assert_eq!(judgement.code, "a b");
    let error = judgement.error.unwrap();
    assert_eq!(error.len(), ERROR);
    assert!(!error.contains('\n'));
}

#[test]
fn an_id_that_could_break_a_later_call_is_dropped() {
    let spec = telegram();
    for id in [r#"{"a":1}"#, "[1]", "null", r#""a\nb""#] {
        let body = format!(r#"{{"ok":true,"result":{{"message_id":{id}}}}}"#);
        assert_eq!(
            verdict(&spec, 200, &body),
            ChannelVerdict::Sent { id: None },
            "{id}"
        );
    }
}

#[test]
fn headers_of_pace_let_a_chat_rest_after_a_success() {
    let spec = spec(
        "[reply]\napi = 'https://api.example.com'\nlimit = 100\nto.chat = 'json:chat'\nheaders = { remaining = 'X-RateLimit-Remaining', reset_after = 'X-RateLimit-Reset-After' }\n[[reply.send]]\ntarget = '/send'\nbody = { text = '{text}' }\n[[reply.verdict]]\nstatus = 429\nwhen = { global = 'true' }\nthen = { wait = 'token' }\n",
    );
    let headers = [
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset-after", "1.5"),
    ];
    let sent = judged(&spec, 200, &headers, b"{}");
    assert_eq!(sent.rest, Some(Duration::from_millis(1_500)));
    let global = judged(&spec, 429, &headers, br#"{"global":true}"#);
    assert!(matches!(
        global.verdict,
        ChannelVerdict::Wait {
            scope: WaitScope::Token,
            pause: Some(_)
        }
    ));
}

#[test]
fn a_verdict_with_mistakes_names_all_of_them() {
    let found = problems(
        "[reply]\napi = 'https://api.example.com'\nlimit = 100\nto.chat = 'json:chat'\n[[reply.send]]\ntarget = '/send'\nbody = { to = '{chat}', text = '{text}' }\n[[reply.verdict]]\nstatus = 'x'\nthen = 'ded'\n[[reply.verdict]]\ncode = 'a'\nthen = { without = 'chat' }\n[[reply.verdict]]\nerror = '/(/'\nthen = { with = { room = 'a' } }\n[[reply.verdict]]\nthen = 'dead'\n",
    );
    let all = found.join("\n");
    for part in [
        "\"x\" is no status",
        "did you mean dead?",
        "needs the code of an answer",
        "a way to send needs {chat}",
        "is no regular expression",
        "no name of the address is \"room\"",
        "fits every answer",
    ] {
        assert!(all.contains(part), "{part} in\n{all}");
    }
}
