//! An HTTP response as an [`AttemptResult`] or a [`Lookup`].
//!
//! The decision is whether something may have run. A refusal is believed only where the upstream's contract says that
//! nothing has; a 5xx from a proxy in between proves nothing. Any 2xx ends a blocking call, readable or not: an answer that
//! cannot be read becomes a completed run whose status text is [`UNREADABLE`].

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use http::{Response, StatusCode};
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::Value;

use crate::config::Secret;
use crate::model::{AttemptResult, Lookup, Run, RunStatus, Timestamp};
use crate::text;

/// The status text of a run whose call ended well, but with an answer that is not a task.
pub const UNREADABLE: &str = "unreadable";

/// The longest text of the upstream's that is kept, in characters.
const MAX_DETAIL: usize = 500;

/// The longest part of an error that is read, in bytes.
const MAX_ERROR: usize = 64 * 1024;

/// The largest task object that is kept whole.
const MAX_TASK: usize = 1 << 20;

/// The depth to which the innermost text of an error is searched for.
const MAX_DEPTH: usize = 16;

/// The result of a call of `…/invoke`. `key` is masked in what is repeated; `now` is the time that dates are compared with
/// where the answer has none itself.
pub fn invoke(answer: &Response<Bytes>, key: Option<&Secret>, now: Timestamp) -> AttemptResult {
    let status = answer.status();
    if status.is_success() {
        return AttemptResult::Ran(run(answer.body()).unwrap_or_else(unreadable));
    }
    let detail = detail(answer, key);
    let retry_after = retry_after(answer.headers(), now);
    let refused = match status {
        StatusCode::TOO_MANY_REQUESTS => true,
        // The upstream says of itself that it did not take the call, if it says when to come back.
        StatusCode::SERVICE_UNAVAILABLE => retry_after.is_some(),
        // A proxy in between timed out; behind it the call may be running.
        StatusCode::REQUEST_TIMEOUT => false,
        status => !status.is_server_error(),
    };
    if refused {
        let retry_after = match status {
            StatusCode::TOO_MANY_REQUESTS => {
                retry_after.or_else(|| limit_reset(answer.headers(), now))
            }
            _ => retry_after,
        };
        AttemptResult::Refused {
            status: status.as_u16(),
            detail,
            retry_after,
        }
    } else {
        AttemptResult::Ambiguous(format!("it answered {}: {detail}", status.as_u16()))
    }
}

/// The answer to `GET /v1/tasks/{id}`. Only the API's own 404 means that there is no such run.
pub fn lookup(answer: &Response<Bytes>, key: Option<&Secret>, now: Timestamp) -> Lookup {
    let status = answer.status();
    if status.is_success() {
        return match run(answer.body()) {
            Some(run) => Lookup::Found(run),
            None => Lookup::Failed {
                status: Some(status.as_u16()),
                detail: "the answer is not a task".into(),
                retry_after: None,
            },
        };
    }
    // An HTML page with a 404 comes from a proxy in between, which knows nothing about runs.
    if status == StatusCode::NOT_FOUND && !is_html(answer) {
        return Lookup::NotFound;
    }
    let retry_after = retry_after(answer.headers(), now).or_else(|| match status {
        StatusCode::TOO_MANY_REQUESTS => limit_reset(answer.headers(), now),
        _ => None,
    });
    let detail = format!("it answered {}: {}", status.as_u16(), detail(answer, key));
    Lookup::Failed {
        status: Some(status.as_u16()),
        detail,
        retry_after,
    }
}

/// The run of a 2xx whose answer could not be read.
pub(super) fn unreadable() -> Run {
    Run {
        status: RunStatus::Completed,
        status_text: UNREADABLE.into(),
        result: None,
        finished_at: None,
        started_at: None,
        input_text: None,
        task: None,
    }
}

/// True if a refusal is about the plan or the bill and not about the rate: waiting does not help then.
pub fn speaks_of_plan(detail: &str) -> bool {
    let detail = detail.to_ascii_lowercase();
    [
        "billing",
        "your plan",
        "plan limit",
        "plan's",
        "upgrade",
        "payment",
        "credits",
    ]
    .iter()
    .any(|word| detail.contains(word))
}

/// Reads a task object tolerantly: only the status is required.
pub(super) fn run(body: &[u8]) -> Option<Run> {
    // An agent's answer may end in half a character as well.
    let task: Value = serde_json::from_str(&text::mended(text::json(body, None).text)).ok()?;
    let said = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let at = |key: &str| task.get(key).and_then(said).filter(|text| !text.is_empty());
    let status_text = task.get("status")?.as_str()?.to_owned();
    Some(Run {
        status: RunStatus::parse(&status_text.to_ascii_lowercase()),
        status_text,
        result: task.get("result").and_then(said),
        finished_at: at("finished_at"),
        started_at: at("started_at").or_else(|| at("created_at")),
        input_text: task
            .get("input")
            .and_then(|input| input.get("text"))
            .and_then(said),
        task: (body.len() <= MAX_TASK).then(|| Bytes::copy_from_slice(body)),
    })
}

/// The upstream's text about an error: the innermost text, on one line, cut, without the key.
fn detail(answer: &Response<Bytes>, key: Option<&Secret>) -> String {
    if answer.status().is_redirection() {
        return "a redirect, which is not followed".into();
    }
    let body = answer.body();
    let body = String::from_utf8_lossy(&body[..body.len().min(MAX_ERROR)]);
    let found = match serde_json::from_str::<Value>(&body) {
        Ok(json) => innermost(&json, 0).unwrap_or_else(|| json.to_string()),
        Err(_) if is_html(answer) => "an HTML page".to_owned(),
        Err(_) => innermost_in_text(&body, 0).unwrap_or_else(|| body.trim().to_owned()),
    };
    clean(&found, key)
}

fn is_html(answer: &Response<Bytes>) -> bool {
    let kind = answer
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    kind.trim_start()
        .get(..9)
        .is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"))
        || answer.body().trim_ascii_start().first() == Some(&b'<')
}

fn innermost(value: &Value, depth: usize) -> Option<String> {
    if depth > MAX_DEPTH {
        return None;
    }
    match value {
        Value::String(text) if text.trim().is_empty() => None,
        Value::String(text) => Some(innermost_in_text(text, depth).unwrap_or_else(|| text.clone())),
        // A list of problems with the body: the place and the problem.
        Value::Array(all) => {
            let all: Vec<String> = all
                .iter()
                .take(5)
                .filter_map(|one| {
                    let said = innermost(one, depth + 1)?;
                    let place = one.get("loc").and_then(Value::as_array).map(|loc| {
                        let part = |part: &Value| {
                            part.as_str()
                                .map_or_else(|| part.to_string(), str::to_owned)
                        };
                        loc.iter()
                            .take(MAX_DEPTH)
                            .map(part)
                            .collect::<Vec<_>>()
                            .join(".")
                    });
                    Some(place.map_or_else(|| said.clone(), |place| format!("{place}: {said}")))
                })
                .collect();
            (!all.is_empty()).then(|| all.join("; "))
        }
        Value::Object(map) => ["detail", "message", "error", "msg"]
            .iter()
            .find_map(|key| innermost(map.get(*key)?, depth + 1)),
        _ => None,
    }
}

/// Reads an error that stands in a text, as JSON or as Python writes it: `429: {'detail': {'detail': '…'}}`.
fn innermost_in_text(text: &str, depth: usize) -> Option<String> {
    let printed = &text[text.find(['{', '['])?..];
    if let Ok(json) = serde_json::from_str::<Value>(printed) {
        return innermost(&json, depth + 1);
    }
    ["'detail': ", "'message': ", "'error': "]
        .iter()
        .find_map(|key| {
            let rest = &printed[printed.rfind(key)? + key.len()..];
            let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
            let rest = &rest[1..];
            let said = &rest[..rest.find(quote).unwrap_or(rest.len())];
            (!said.is_empty()).then(|| said.to_owned())
        })
}

/// One line that can be logged: the key masked, unprintable characters escaped, cut.
fn clean(text: &str, key: Option<&Secret>) -> String {
    let key = key
        .and_then(Secret::expose_text)
        .filter(|key| !key.is_empty());
    // The key is masked before the text is cut, or half a key could stand at the end.
    let text = key.map_or_else(|| text.to_owned(), |key| text.replace(key, "***"));
    if text.is_empty() {
        return "no text".into();
    }
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == MAX_DETAIL {
            out.push('…');
            break;
        }
        // Other line separators, and marks that reverse the direction of a line.
        let misleads = matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || misleads {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// `Retry-After`, in seconds or as a date, bounded to between a second and an hour. `None` where it cannot be read.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        // Too many digits for a number are too long a wait.
        return text.parse::<f64>().ok().map(within_bounds);
    }
    // The upstream's own clock counts, where it sends its time.
    let now = headers
        .get(DATE)
        .and_then(|date| date.to_str().ok())
        .and_then(date)
        .unwrap_or(now);
    date(text).map(|then| within_bounds(then.since(now).as_secs_f64()))
}

/// `X-RateLimit-Reset`: seconds from now, or a point in time in seconds or milliseconds since 1970.
pub(super) fn limit_reset(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let number: f64 = headers
        .get("x-ratelimit-reset")?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let now = now.millis() as f64 / 1e3;
    Some(within_bounds(match number {
        n if n > 1e11 => n / 1e3 - now,
        n if n > 1e8 => n - now,
        n => n,
    }))
}

fn within_bounds(seconds: f64) -> Duration {
    // A NaN is not larger than anything and becomes one second.
    Duration::from_secs_f64(if seconds > 1.0 {
        seconds.min(3_600.0)
    } else {
        1.0
    })
}

/// Reads a date as HTTP writes it.
fn date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new()
        .parse_timestamp(text.trim())
        .ok()
        .map(|t| Timestamp::from_millis(t.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        answer
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .unwrap()
    }

    fn refused(status: u16, detail: &str, seconds: Option<u64>) -> AttemptResult {
        AttemptResult::Refused {
            status,
            detail: detail.into(),
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_task_is_read_whatever_it_lacks_or_adds() {
        let whole = r#"{"id":"t","status":"completed","result":"42","created_at":"c","started_at":"s","finished_at":"f",
            "input":{"text":"hi","files":[]},"tokens":{"n":1}}"#;
        let wanted = Run {
            status: RunStatus::Completed,
            status_text: "completed".into(),
            result: Some("42".into()),
            finished_at: Some("f".into()),
            started_at: Some("s".into()),
            input_text: Some("hi".into()),
            task: Some(whole.into()),
        };
        assert_eq!(
            invoke(&answer(200, &[], whole), None, NOW),
            AttemptResult::Ran(wanted)
        );
        for (body, status, result, started) in [
            (
                r#"{"status":"failed","result":null}"#,
                RunStatus::Failed,
                None,
                None,
            ),
            (
                r#"{"status":"error","result":"why"}"#,
                RunStatus::Failed,
                Some("why"),
                None,
            ),
            (r#"{"status":"stopped"}"#, RunStatus::Stopped, None, None),
            (r#"{"status":"paused"}"#, RunStatus::Paused, None, None),
            (
                r#"{"status":"pending","created_at":"c"}"#,
                RunStatus::Running,
                None,
                Some("c"),
            ),
            (r#"{"status":"brand-new"}"#, RunStatus::Running, None, None),
            (
                r#"{"status":"completed","result":{"n":1.50}}"#,
                RunStatus::Completed,
                Some(r#"{"n":1.50}"#),
                None,
            ),
            (
                r#"{"status":"completed","result":""}"#,
                RunStatus::Completed,
                Some(""),
                None,
            ),
        ] {
            let AttemptResult::Ran(run) = invoke(&answer(200, &[], body), None, NOW) else {
                panic!("{body}")
            };
            let got = (run.status, run.result.as_deref(), run.started_at.as_deref());
            assert_eq!(got, (status, result, started), "{body}");
            assert_eq!(
                lookup(&answer(200, &[], body), None, NOW),
                Lookup::Found(run)
            );
        }
    }

    #[test]
    fn a_2xx_that_is_no_task_has_run_but_says_nothing_to_a_lookup() {
        for (status, body) in [
            (200, "{\"status\":"),
            (200, "<html>"),
            (204, ""),
            (200, "[]"),
            (200, "{}"),
        ] {
            assert_eq!(
                invoke(&answer(status, &[], body), None, NOW),
                AttemptResult::Ran(unreadable()),
                "{body}"
            );
            assert!(
                matches!(
                    lookup(&answer(status, &[], body), None, NOW),
                    Lookup::Failed { .. }
                ),
                "{body}"
            );
        }
    }

    #[test]
    fn only_what_surely_did_not_run_is_refused() {
        let body = r#"{"detail":"why"}"#;
        for status in [400, 401, 403, 404, 405, 409, 413, 415, 422, 451] {
            assert_eq!(
                invoke(&answer(status, &[], body), None, NOW),
                refused(status, "why", None)
            );
        }
        let redirect = answer(
            307,
            &[("location", "http://elsewhere.invalid/")],
            "moved to http://elsewhere.invalid/",
        );
        assert_eq!(
            invoke(&redirect, None, NOW),
            refused(307, "a redirect, which is not followed", None)
        );
        let later = [("retry-after", "7")];
        assert_eq!(
            invoke(&answer(429, &later, body), None, NOW),
            refused(429, "why", Some(7))
        );
        assert_eq!(
            invoke(&answer(429, &[], body), None, NOW),
            refused(429, "why", None)
        );
        assert_eq!(
            invoke(&answer(503, &later, body), None, NOW),
            refused(503, "why", Some(7))
        );
        for (status, headers) in [
            (503, &[][..]),
            (503, &[("retry-after", "soon")]),
            (500, &later),
            (502, &[]),
            (504, &[]),
            (408, &[]),
        ] {
            let wanted = AttemptResult::Ambiguous(format!("it answered {status}: why"));
            assert_eq!(invoke(&answer(status, headers, body), None, NOW), wanted);
        }
    }

    #[test]
    fn only_the_api_itself_can_say_that_a_run_is_not_there() {
        assert_eq!(
            lookup(
                &answer(404, &[], r#"{"detail":"Task not found"}"#),
                None,
                NOW
            ),
            Lookup::NotFound
        );
        assert_eq!(lookup(&answer(404, &[], ""), None, NOW), Lookup::NotFound);
        for other in [
            answer(404, &[("content-type", "text/html")], "gone"),
            answer(404, &[], " <!doctype html>"),
        ] {
            assert!(matches!(lookup(&other, None, NOW), Lookup::Failed { .. }));
        }
        assert_eq!(
            lookup(
                &answer(429, &[("x-ratelimit-reset", "30")], r#"{"detail":"slow"}"#),
                None,
                NOW
            ),
            Lookup::Failed {
                status: Some(429),
                detail: "it answered 429: slow".into(),
                retry_after: Some(Duration::from_secs(30))
            }
        );
    }

    #[test]
    fn waits_are_between_a_second_and_an_hour() {
        let by = |name, value| {
            let answer = answer(429, &[(name, value)], "");
            match invoke(&answer, None, NOW) {
                AttemptResult::Refused { retry_after, .. } => {
                    retry_after.map(|wait| wait.as_secs())
                }
                other => panic!("{other:?}"),
            }
        };
        // 2027-01-15 08:00:00 is `NOW`.
        for (value, wanted) in [
            ("30", Some(30)),
            ("0", Some(1)),
            ("-5", Some(1)),
            ("1.5", Some(1)),
            ("99999", Some(3_600)),
            ("99999999999999999999999999999999", Some(3_600)),
            ("", None),
            ("soon", None),
            ("1e9", None),
            (".", None),
            ("NaN", None),
            ("inf", None),
            ("Fri, 15 Jan 2027 08:01:30 GMT", Some(90)),
            ("Fri, 15 Jan 2027 07:00:00 GMT", Some(1)),
            ("Fri, 15 Jan 2100 07:00:00 GMT", Some(3_600)),
            ("Fri, 15 Jan 99999 07:00:00 GMT", None),
        ] {
            assert_eq!(by("retry-after", value), wanted, "{value}");
        }
        for (value, wanted) in [
            ("30", Some(30)),
            ("1800000060", Some(60)),
            ("1800000060000", Some(60)),
            ("1", Some(1)),
            ("1e300", Some(3_600)),
            ("NaN", Some(1)),
            ("-inf", Some(1)),
            ("soon", None),
        ] {
            assert_eq!(by("x-ratelimit-reset", value), wanted, "{value}");
        }
        let skewed = [
            ("retry-after", "Fri, 15 Jan 2027 09:00:20 GMT"),
            ("date", "Fri, 15 Jan 2027 09:00:00 GMT"),
        ];
        assert_eq!(
            invoke(&answer(503, &skewed, "x"), None, NOW),
            refused(503, "x", Some(20))
        );
    }

    #[test]
    fn the_innermost_text_is_found() {
        for (body, wanted) in [
            (
                r#"{"detail":"Invalid or missing API key"}"#,
                "Invalid or missing API key",
            ),
            (
                r#"{"detail":[{"loc":["body","input"],"msg":"Field required","type":"missing"},{"loc":["body",0],"msg":"No"}]}"#,
                "body.input: Field required; body.0: No",
            ),
            (r#"{"error":{"code":1,"message":"deep"}}"#, "deep"),
            (
                r#"{"detail":"429: {'detail': {'detail': 'plan limit'}}"}"#,
                "plan limit",
            ),
            (r#"{"detail":"502: {\"message\": \"inner\"}"}"#, "inner"),
            (r#"{"detail":"","message":"next"}"#, "next"),
            (r#"{"code":7}"#, r#"{"code":7}"#),
            ("upstream connect error", "upstream connect error"),
            ("", "no text"),
            ("<html><body>502</body></html>", "an HTML page"),
            ("a\r\nb\u{1b}[31m\u{202e}", "a\\r\\nb\\u{1b}[31m\\u{202e}"),
            ("{'detail': '", "{'detail': '"),
        ] {
            assert_eq!(detail(&answer(500, &[], body), None), wanted, "{body}");
        }
        let nested = format!("{}{}", r#"{"detail":"#.repeat(100), "}".repeat(100));
        let long = "é".repeat(10_000);
        for body in [nested, long, "{\"a\":".repeat(200_000)] {
            assert!(detail(&answer(500, &[], &body), None).chars().count() <= MAX_DETAIL + 1);
        }
        assert!(
            speaks_of_plan("You reached the limit of your plan")
                && !speaks_of_plan("Rate limit exceeded")
        );
    }

    #[test]
    fn an_echoed_key_is_masked_even_where_the_text_is_cut() {
        let key = Secret::new("k", "sk-0123456789");
        let body = format!("{}sk-0123456789 is wrong", "x".repeat(MAX_DETAIL - 5));
        let said = detail(&answer(401, &[], &body), Some(&key));
        assert!(said.contains("x***") && !said.contains("sk-"), "{said}");
    }
}
