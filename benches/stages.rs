//! What each stage of a signed event of 8 KB takes by itself, beside the bare HMAC of the same bytes: the check, the
//! mapping, the event, the call that it becomes, its encryption, and a limiter's yes and no.
//!
//! `cargo bench --bench stages`. Medians of rounds in turns; the ratios hold from machine to machine. Ends with 1 when a
//! stage takes more than its share.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderValue, Method};
use sha2::Sha256;
use sluicegate::config::{Config, Problems, Rate, RunMode, Secret};
use sluicegate::inbox::seal::{SealedPart, Sealer};
use sluicegate::intake;
use sluicegate::limit::{Limiter, Share};
use sluicegate::model::{Received, RequestId, Timestamp};
use sluicegate::source::Sources;
use sluicegate::upstream::Call;

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);
const SECRET: &str = "a-long-secret-for-the-benchmark";
const BODY: usize = 8 * 1024;

/// Calls in one measurement, and measurements of each stage.
const CALLS: u32 = 20;
const ROUNDS: usize = 500;

const CONFIG: &str = r#"
[upstream]
base_url = "http://127.0.0.1:9"
api_key = "literal:key"
[sources.github]
provider = "github"
secrets = ["literal:a-long-secret-for-the-benchmark"]
agent = "a"
thread = "repository.full_name"
prompt = "push to {{ body.repository.full_name }} by {{ body.sender.login }}"
event_json = "text"
[sources.github.params_mapping]
user_email = "pusher.email"
"#;

/// A stage: what it is called, what it may take of the bare HMAC at most, and it.
type Stage<'s> = (&'static str, f64, Box<dyn Fn() + 's>);

fn main() -> ExitCode {
    let problems = Problems::default();
    let config = Config::parse(
        "bench",
        CONFIG,
        Path::new("."),
        std::iter::empty(),
        &problems,
    )
    .unwrap();
    let sources = Sources::compile(&config, &problems);
    let source = sources.get("github").unwrap();
    let received = push();
    let verified = source
        .verify(received.clone(), NOW)
        .map_err(|refused| refused.1.cause())
        .unwrap();
    let event = intake::event(source, &verified, source.apply(&verified, false).unwrap());
    let sealer = Sealer::new(&Secret::new("key", "0123456789abcdef0123456789abcdef")).unwrap();
    let part = SealedPart::Body(event.id);
    let marks = sealer.marks().clone();
    let sealed = sealer.seal(&event.body, part).unwrap();
    let rate = |count| Rate {
        count,
        per: Duration::from_secs(1),
    };
    let (open, shut) = (
        Limiter::new(rate(1_000_000_000), Share::default()),
        Limiter::new(rate(1), Share::default()),
    );
    let prepared = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();

    let stages: [Stage<'_>; 8] = [
        ("bare HMAC", 1.0, {
            let body = received.body.clone();
            Box::new(move || {
                let mut mac = prepared.clone();
                mac.update(black_box(&body));
                black_box(mac.finalize());
            })
        }),
        (
            "check",
            1.5,
            Box::new(|| drop(black_box(source.verify(received.clone(), NOW)))),
        ),
        (
            "mapping: a thread, a template, a parameter",
            3.0,
            Box::new(|| drop(black_box(source.apply(&verified, false)))),
        ),
        ("mapping and event", 3.0, {
            Box::new(|| {
                let mapped = source.apply(&verified, false).unwrap();
                drop(black_box(intake::event(source, &verified, mapped)));
            })
        }),
        ("call, with the event in it", 5.0, {
            Box::new(|| {
                let call = Call::of_event(
                    &event,
                    &event.deliveries[0],
                    &source.config,
                    &marks,
                    RunMode::Call,
                );
                drop(black_box(call.body.to_json()));
            })
        }),
        ("encryption, and back", 1.0, {
            Box::new(|| {
                black_box(sealer.seal(&event.body, part)).unwrap();
                black_box(sealer.open(&sealed, part)).unwrap();
            })
        }),
        (
            "limiter, yes",
            0.05,
            Box::new(|| {
                black_box(open.check()).ok();
            }),
        ),
        (
            "limiter, no",
            0.05,
            Box::new(|| {
                black_box(shut.check()).ok();
            }),
        ),
    ];
    let mut times: Vec<Vec<Duration>> = stages.iter().map(|_| Vec::with_capacity(ROUNDS)).collect();
    for _ in 0..ROUNDS {
        for ((_, _, stage), times) in stages.iter().zip(&mut times) {
            let begun = Instant::now();
            for _ in 0..CALLS {
                stage();
            }
            times.push(begun.elapsed() / CALLS);
        }
    }
    let medians: Vec<f64> = times
        .iter_mut()
        .map(|times| {
            times.sort_unstable();
            times[ROUNDS / 2].as_secs_f64()
        })
        .collect();
    let mut holds = true;
    for ((name, most, _), time) in stages.iter().zip(&medians) {
        let ratio = time / medians[0];
        holds &= ratio <= *most;
        println!(
            "{name:<44} {:>8.0} ns  {ratio:>5.2} of the bare HMAC, at most {most}",
            time * 1e9
        );
    }
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A signed push of 8 KB.
fn push() -> Received {
    let mut body = String::from(
        r#"{"ref":"refs/heads/main","repository":{"full_name":"octo/gate","owner":{"login":"octo"}},"pusher":{"email":"ada@example.com"},"sender":{"login":"ada"},"commits":["#,
    );
    while body.len() < BODY - 100 {
        body.push_str(
            "{\"id\":\"6dcb09b5b57875f334f61aebed695e2e4193db5e\",\"message\":\"a line of work\"},",
        );
    }
    body.push_str("{}]}");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-github-event", "push"),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("x-hub-signature-256", signature.as_str()),
    ] {
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    Received {
        id: RequestId::new(),
        at: NOW,
        method: Method::POST,
        target: "/hooks/github".into(),
        url: "https://hooks.example.com/hooks/github".into(),
        headers,
        body: body.into(),
        peer: Ipv4Addr::LOCALHOST.into(),
        certificate: None,
    }
}
