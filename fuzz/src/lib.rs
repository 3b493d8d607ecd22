//! Every parser that reads what others wrote, as a function of bytes that must neither panic nor take long.
//!
//! Used twice: by `fuzz/run` under libFuzzer, as long as one likes, and by `tests/it/fuzz.rs`, a short while with every
//! test run. An input that needs several texts holds them one after the other, with a byte 0xFF between.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use serde_json::Value;
use sluicegate::config::{Config, Problems, Provider, Secret, Table};
use sluicegate::inbox::seal::{SealedPart, Sealer};
use sluicegate::mapping::getter::{Getter, shape};
use sluicegate::mapping::hosted::{self, CallBody, CallRequest};
use sluicegate::model::{EventId, Received, RequestId, Timestamp};
use sluicegate::source::{Source, Sources};
use sluicegate::text::{fields, multipart as parts};
use sluicegate::upstream::{answer, stream::SseParser};
use sluicegate::verify::{CheckConfig, DryRun};

/// One parser.
#[derive(Debug)]
pub struct Parser {
    /// What it goes by.
    pub name: &'static str,
    /// Inputs to begin with, which come far.
    pub seeds: &'static [&'static [u8]],
    feed: fn(&[u8]),
}

/// How long an input may take; without optimisation everything takes longer.
const LONGEST: Duration = if cfg!(debug_assertions) {
    Duration::from_secs(2)
} else {
    Duration::from_millis(100)
};

/// The largest input.
pub const LARGEST: usize = 64 * 1024;

/// All of them.
pub static PARSERS: &[Parser] = &[
    Parser {
        name: "config",
        seeds: &[
            b"[server]\nlisten = \"127.0.0.1:0\"\n[sources.x]\nprovider = \"github\"\nsecrets = [\"literal:0123456789abcdef\"]\nagent = \"a\"\nprompt = \"{{ body.a }}\"\nthread = \"a.b\"\n",
            b"[limits]\ncaller = \"1/s\"\n[[proxy]]\nprefix = \"/v1\"\nupstream = \"http://x\"\n[keys.a]\nkey = \"literal:abcdefghijk\"\n",
        ],
        feed: config,
    },
    Parser {
        name: "provider",
        seeds: &[
            include_bytes!("../../config/providers/github.toml"),
            include_bytes!("../../config/providers/stripe.toml"),
            include_bytes!("../../config/providers/slack.toml"),
            include_bytes!("../../config/providers/twilio.toml"),
        ],
        feed: provider,
    },
    Parser {
        name: "signature",
        seeds: &[
            b"github\xffx-hub-signature-256\xffsha256=0000000000000000000000000000000000000000000000000000000000000000\xff{}",
            b"stripe\xffstripe-signature\xfft=1800000000,v1=00,v1=11,v0=22\xff{}",
            b"slack\xffx-slack-signature\xffv0=00\xffx-slack-request-timestamp\xff1800000000\xfftoken=x",
            b"twilio\xffx-twilio-signature\xffAAAA\xffcontent-type\xffapplication/x-www-form-urlencoded\xffa=b&c=d",
            b"discord\xffx-signature-ed25519\xff00\xffx-signature-timestamp\xff1\xff{\"type\":1}",
        ],
        feed: signature,
    },
    Parser {
        name: "mapping",
        seeds: &[
            b"application/json\xffa=b\xff{\"message\":{\"chat\":{\"id\":1},\"text\":\"x\"},\"list\":[{\"a\":1e400}],\"user\":{\"email\":\"a@b\"}}",
            b"application/x-www-form-urlencoded\xff\xffmessage.text=x&list=1",
        ],
        feed: mapping,
    },
    Parser {
        name: "hosted",
        seeds: &[
            b"agent\xffprompt=x&getter=a.b&params_mapping=%7B%22prompt%22%3A%22a%22%7D\xffapplication/json\xff{\"a\":1,\"user_tokens\":{},\"params_mapping\":{\"prompt\":\"b.c\"},\"b\":{\"c\":\"d\"}}",
            b"\xffagent_id=1\xfftext/plain\xffhello",
        ],
        feed: hosted_call,
    },
    Parser { name: "extract", seeds: &[b"a.b.0\xff{\"a\":{\"b\":[1.50,2]},\"a\":{\"b\":[\"\\u00e9\"]}}"], feed: extract },
    Parser {
        name: "shape",
        seeds: &[b"result.a\xff{\"result\":\"{\\\"a\\\": [1,2]}\",\"status\":\"completed\"}", b"result\xff{}"],
        feed: shaped,
    },
    Parser {
        name: "template",
        seeds: &[
            b"{% for x in body.list %}{{ x | upper }}{% endfor %}\xff{\"list\":[1,\"a\"]}",
            b"{{ body.a.b[0] if body.a else headers['x'] }}\xff{\"a\":{\"b\":[1]}}",
        ],
        feed: template,
    },
    Parser {
        name: "multipart",
        seeds: &[
            b"multipart/form-data; boundary=x\xff--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n",
            b"multipart/form-data; boundary=\"a b\"\xff--a b\r\nContent-Disposition: form-data; name=a; filename*=utf-8''x\r\nContent-Type: a/b\r\n\r\n\r\n--a b--",
        ],
        feed: multipart,
    },
    Parser {
        name: "text",
        seeds: &[
            b"application/json; charset=latin1\xff{\"a\":\"\\ud83d\",\"b\":[1,\"\xe9\"]}",
            b"application/x-www-form-urlencoded\xffa=%E9&charset=windows-1252",
        ],
        feed: text_of,
    },
    Parser {
        name: "events",
        seeds: &[b"event: x\ndata: {\"type\":\"task_finished\"}\n\ndata: 1\r\ndata: 2\r\n\r\n: c\n\n", b"\xef\xbb\xbfdata:x\r\r"],
        feed: events,
    },
    Parser {
        name: "answer",
        seeds: &[
            b"200\xff\xff{\"id\":\"1\",\"status\":\"completed\",\"result\":\"x\",\"input\":{\"text\":\"y\"}}",
            b"429\xffretry-after: 5\xff{\"detail\":\"slow down\"}",
            b"503\xffretry-after: Wed, 21 Oct 2026 07:28:00 GMT\xffno",
        ],
        feed: answered,
    },
    Parser { name: "link", seeds: &[b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"], feed: link },
];

/// The parser of a name.
#[allow(dead_code)] // one of the two that use this file takes them all
pub fn find(name: &str) -> Option<&'static Parser> {
    PARSERS.iter().find(|parser| parser.name == name)
}

impl Parser {
    /// Feeds it with an input.
    pub fn feed(&self, input: &[u8]) {
        if input.len() > LARGEST {
            return;
        }
        let begun = Instant::now();
        (self.feed)(input);
        let took = begun.elapsed();
        assert!(
            took <= LONGEST,
            "{} took {} ms for {} bytes",
            self.name,
            took.as_millis(),
            input.len()
        );
    }
}

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// The texts that an input holds.
fn texts(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input.split(|byte| *byte == 0xFF)
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

/// Names no file and no variable: what is fuzzed must not read the machine's.
fn is_harmless(text: &str) -> bool {
    ![
        "file:",
        "env:",
        "folder",
        "ca_file",
        "enrol_file",
        "sqlite:",
        "cert",
    ]
    .iter()
    .any(|word| text.contains(word))
}

fn config(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if !is_harmless(&text) {
        return;
    }
    let problems = Problems::default();
    if let Some(config) = Config::parse(
        "fuzz.toml",
        &text,
        Path::new("."),
        std::iter::empty(),
        &problems,
    ) {
        Sources::compile(&config, &problems);
    }
    for problem in problems.into_sorted() {
        assert!(!problem.to_string().is_empty());
    }
}

fn provider(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if !is_harmless(&text) {
        return;
    }
    let problems = Problems::default();
    let table = Table::parse("fuzz.toml", &text, &problems);
    let provider = Provider::read("fuzz", &table, &problems);
    let secrets = vec![Secret::new("fuzz", "0123456789abcdef0123456789abcdef")];
    if let Some(written) = CheckConfig::of_provider(&provider, secrets, Vec::new())
        && let Ok(trial) = DryRun::compile(written)
    {
        trial.judge(
            &request(Method::POST, "/hooks/fuzz", &[], b"{\"a\":1}"),
            NOW,
        );
    }
}

/// What every shipped provider says of a request that is anything but signed: never that it is.
fn signature(input: &[u8]) {
    static TRIALS: LazyLock<Vec<(String, DryRun)>> = LazyLock::new(|| {
        let problems = Problems::default();
        let config = Config::parse(
            "fuzz.toml",
            "",
            Path::new("."),
            std::iter::empty(),
            &problems,
        );
        let mut trials = Vec::new();
        for (name, provider) in config.expect("the defaults are sound").providers {
            let secrets = vec![Secret::new(
                "fuzz",
                "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            )];
            if let Some(written) = CheckConfig::of_provider(&provider, secrets, Vec::new())
                && let Ok(trial) = DryRun::compile(written)
            {
                trials.push((name, trial));
            }
        }
        assert!(trials.len() > 50, "{} providers compile", trials.len());
        trials
    });
    let mut all: Vec<&[u8]> = texts(input).collect();
    let body = all.pop().unwrap_or_default();
    let mut all = all.into_iter();
    let name = text(all.next());
    let number = name.bytes().fold(0_usize, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    let (_, trial) = TRIALS
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap_or(&TRIALS[number % TRIALS.len()]);
    let mut headers = Vec::new();
    while let (Some(name), Some(value)) = (all.next(), all.next()) {
        headers.push((name, value));
    }
    let request = request(Method::POST, "/hooks/fuzz?token=x", &headers, body);
    trial.judge(&request, NOW);
}

fn source(written: &str) -> Option<Arc<Source>> {
    let problems = Problems::default();
    let config = Config::parse(
        "fuzz.toml",
        written,
        Path::new("."),
        std::iter::empty(),
        &problems,
    )?;
    Sources::compile(&config, &problems).get("fuzz").cloned()
}

const CUSTOM: &str =
    "[sources.fuzz]\nprovider = \"custom\"\nagent = \"a\"\nverify = { scheme = \"none\" }\n";

fn mapping(input: &[u8]) {
    static SOURCE: LazyLock<Arc<Source>> = LazyLock::new(|| {
        let more = "thread = \"message.chat.id\"\nwhen = \"body.a != 1\"\nprompt = \"{{ body.message.text }}{{ query.a }}\"\n\
                    strict_template = false\n[sources.fuzz.params_mapping]\nuser_email = \"user.email\"\n\
                    title = \"$.list[?@.a > 0].a\"\n";
        let with = source(&format!("{CUSTOM}{more}"));
        with.or_else(|| source(CUSTOM))
            .expect("a source that is sound")
    });
    let mut all = texts(input);
    let (kind, query) = (all.next().unwrap_or_default(), text(all.next()));
    let body = all.next().unwrap_or_default();
    let target = format!("/hooks/fuzz?{query}");
    let explained = SOURCE.mapping.explain(&request(
        Method::POST,
        &target,
        &[(b"content-type", kind)],
        body,
    ));
    if let Ok(mapped) = explained.mapped {
        assert!(
            mapped
                .thread
                .is_none_or(|thread| thread.len() <= 512 && !thread.contains('\0'))
        );
        assert!(
            mapped
                .dedup
                .is_none_or(|dedup| dedup.len() <= 512 && !dedup.contains('\0'))
        );
    }
}

fn template(input: &[u8]) {
    let mut all = texts(input);
    let written = text(all.next());
    let quoted = serde_json::to_string(&written).unwrap_or_default();
    let Some(source) = source(&format!("{CUSTOM}prompt = {quoted}\n")) else {
        return;
    };
    let json: (&[u8], &[u8]) = (b"content-type", b"application/json");
    let _ = source.mapping.explain(&request(
        Method::POST,
        "/hooks/fuzz",
        &[json],
        all.next().unwrap_or(b"{}"),
    ));
}

fn hosted_call(input: &[u8]) {
    let mut all = texts(input);
    let (agent, query, kind) = (text(all.next()), text(all.next()), text(all.next()));
    let body = CallBody::Whole(all.next().unwrap_or_default());
    let asked = CallRequest {
        path_agent: &agent,
        query: &query,
        content_type: &kind,
        body,
    };
    let _ = hosted::explain(&asked);
}

/// Taken out of the text as serde_json finds it in the tree.
fn extract(input: &[u8]) {
    let Some(cut) = input.iter().position(|byte| *byte == 0xFF) else {
        return;
    };
    let (path, task) = (String::from_utf8_lossy(&input[..cut]), &input[cut + 1..]);
    let Ok(getter) = Getter::parse(&path) else {
        return;
    };
    let Ok(tree) = serde_json::from_slice::<Value>(task) else {
        return;
    };
    if path.starts_with("result") {
        return;
    }
    let mut found = Some(&tree);
    for step in path.split('.') {
        found = found.and_then(|value| match value {
            Value::Object(members) => members.get(step),
            // An index is written as it is counted, or it is a name.
            Value::Array(items) => step
                .parse::<usize>()
                .ok()
                .filter(|index| index.to_string() == step)
                .and_then(|index| items.get(index)),
            _ => None,
        });
    }
    let ours = shape(task, Some(&getter), false);
    let ours: Value = serde_json::from_slice(&ours).expect("what is given is JSON");
    assert_eq!(&ours, found.unwrap_or(&Value::Null), "{path}");
}

fn shaped(input: &[u8]) {
    let Some(cut) = input.iter().position(|byte| *byte == 0xFF) else {
        return;
    };
    let getter = Getter::parse(&String::from_utf8_lossy(&input[..cut])).ok();
    let task = &input[cut + 1..];
    for json in [false, true] {
        let given = shape(task, getter.as_ref(), json);
        // What is no text is given back as it is.
        let is_text = std::str::from_utf8(task).is_ok();
        if is_text && getter.is_some() || serde_json::from_slice::<Value>(task).is_ok() {
            assert!(
                serde_json::from_slice::<Value>(&given).is_ok(),
                "what is given is JSON"
            );
        }
    }
}

/// The same parts however the body is cut.
fn multipart(input: &[u8]) {
    let Some(cut) = input.iter().position(|byte| *byte == 0xFF) else {
        return;
    };
    let (kind, body) = (String::from_utf8_lossy(&input[..cut]), &input[cut + 1..]);
    let whole = parts::read(&kind, body);
    let Ok(mut reader) = parts::MultipartReader::new(&kind) else {
        return;
    };
    let size = body.first().map_or(1, |byte| usize::from(*byte % 64) + 1);
    let mut pieces = Ok(0);
    'pieces: for piece in body.chunks(size) {
        reader.feed(Bytes::copy_from_slice(piece));
        loop {
            match reader.piece() {
                Ok(Some(parts::MultipartPiece::Head(_))) => {
                    pieces = pieces.map(|count: usize| count + 1)
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(fault) => {
                    pieces = Err(fault);
                    break 'pieces;
                }
            }
        }
    }
    let pieces = pieces.and_then(|count| reader.end().map(|()| count));
    assert_eq!(pieces.is_ok(), whole.is_ok());
    if let (Ok(count), Ok(whole)) = (pieces, whole) {
        assert_eq!(count, whole.len());
    }
    let _ = fields::in_parts(&kind, body);
}

/// Any bytes are a text, and what is cut of JSON is JSON.
fn text_of(input: &[u8]) {
    let mut all = texts(input);
    let kind = text(all.next());
    let body = &input[kind.len().min(input.len())..];
    let declared = sluicegate::text::declared(&kind);
    let json = sluicegate::text::json(body, declared.as_deref()).text;
    let _ = sluicegate::text::plain(body, declared.as_deref());
    let _ = fields::split(body).map(|raw| fields::form(raw, declared.as_deref()));
    let mended = sluicegate::text::mended(json);
    if let Ok(value) = serde_json::from_str::<Value>(&mended) {
        let short = sluicegate::json::shorten(&value.to_string(), 300);
        assert!(serde_json::from_str::<Value>(&short).is_ok(), "{short}");
    }
}

/// The same events however the stream is cut.
fn events(input: &[u8]) {
    let mut whole = SseParser::new(LARGEST);
    let all = whole.feed(input);
    let cut = input
        .first()
        .map_or(0, |byte| usize::from(*byte) % input.len());
    let mut pieces = SseParser::new(LARGEST);
    let (first, second) = input.split_at(cut);
    let halves = pieces.feed(first).and_then(|mut events| {
        events.extend(pieces.feed(second)?);
        Ok(events)
    });
    assert_eq!(all, halves);
    let mut small = SseParser::new(16);
    for byte in input {
        if small.feed(&[*byte]).is_err() {
            break;
        }
    }
}

fn answered(input: &[u8]) {
    let mut all = texts(input);
    let status = text(all.next())
        .parse()
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok());
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = status.unwrap_or(StatusCode::OK);
    if let Some((name, value)) = text(all.next()).split_once(": ")
        && let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
    {
        answer.headers_mut().insert(name, value);
    }
    *answer.body_mut() = Bytes::copy_from_slice(all.next().unwrap_or_default());
    let key = Secret::new("fuzz", "a-key-of-the-upstream");
    let _ = answer::invoke(&answer, Some(&key), NOW);
    let _ = answer::lookup(&answer, Some(&key), NOW);
}

fn link(input: &[u8]) {
    static SEALER: LazyLock<Sealer> = LazyLock::new(|| {
        Sealer::new(&Secret::new("fuzz", "0123456789abcdef0123456789abcdef"))
            .expect("a key of good length")
    });
    let event = EventId::new();
    let token = String::from_utf8_lossy(input);
    assert!(
        !SEALER.is_link_token(event, &token),
        "nobody guesses a token"
    );
    assert!(
        SEALER.open(input, SealedPart::Body(event)).is_err(),
        "nobody guesses a seal"
    );
}

fn request(method: Method, target: &str, headers: &[(&[u8], &[u8])], body: &[u8]) -> Received {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    Received {
        id: RequestId::new(),
        at: NOW,
        method,
        target: target.to_owned(),
        url: format!("https://hooks.example.com{target}"),
        headers: map,
        body: Bytes::copy_from_slice(body),
        peer: Ipv4Addr::LOCALHOST.into(),
        certificate: None,
    }
}
