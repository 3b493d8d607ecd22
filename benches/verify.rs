//! What a check costs and what its time tells: an 8 KB event of the usual kind against the bare HMAC of the same bytes,
//! and a signature that is wrong in its first byte against one that is wrong in its last.
//!
//! Everything runs interleaved in rounds and is told as medians, so that a busy machine disturbs both sides alike.
//! Exits with 1 when a bound is not held: 1.3 times the bare HMAC, 1 % between the wrong bytes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderValue, Method};
use sha2::Sha256;
use sluicegate::config::{Config, Problems, Secret};
use sluicegate::model::{Received, RequestId, Timestamp, Verify as _};
use sluicegate::verify::{CheckConfig, DryRun, Signer};

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);
const SECRET: &str = "a-long-secret-for-the-benchmark";
const BODY: usize = 8 * 1024;

/// Checks in one measurement, and measurements of each side.
const CHECKS: u32 = 50;
const ROUNDS: usize = 2_000;

/// What an event may cost of the bare HMAC, and what two wrong bytes may differ.
const COST: f64 = 1.3;
const DIFFERENCE: f64 = 0.01;

fn main() -> ExitCode {
    let config = Config::parse(
        "",
        "",
        std::path::Path::new("."),
        std::iter::empty(),
        &Problems::default(),
    )
    .unwrap();
    let secrets = vec![Secret::new("secret", SECRET)];
    let written =
        CheckConfig::of_provider(&config.providers["github"], secrets, Vec::new()).unwrap();
    let trial = DryRun::compile(written).unwrap();
    let request = trial
        .scheme()
        .signed(Signer::Secret(0), &event(), NOW)
        .unwrap();

    let prepared = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    let bare = || {
        let mut mac = prepared.clone();
        mac.update(black_box(&request.body));
        black_box(mac.finalize());
    };
    let whole = || {
        black_box(trial.scheme().judge(black_box(&request), NOW)).unwrap();
    };
    let [bare, whole] = medians([&bare, &whole]);
    let ratio = whole.as_secs_f64() / bare.as_secs_f64();
    println!(
        "8 KB event: {} ns, bare HMAC: {} ns, ratio {ratio:.3} (at most {COST})",
        whole.as_nanos(),
        bare.as_nanos()
    );

    let (first, last) = (wrong(&request, 0), wrong(&request, 63));
    let judge = |request: &Received| {
        black_box(trial.scheme().judge(black_box(request), NOW)).unwrap_err();
    };
    let (first, last) = (|| judge(&first), || judge(&last));
    // Whichever stands first has the colder caches; so each is measured in both places.
    let [a, b] = medians([&first, &last]);
    let [c, d] = medians([&last, &first]);
    let (first, last) = (a + d, b + c);
    let difference = (first.as_secs_f64() - last.as_secs_f64()).abs() / first.as_secs_f64();
    println!(
        "wrong first byte: {} ns, wrong last byte: {} ns, difference {:.3} % (at most {:.0} %)",
        first.as_nanos() / 2,
        last.as_nanos() / 2,
        difference * 100.0,
        DIFFERENCE * 100.0
    );
    if ratio < COST && difference < DIFFERENCE {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// An event of 8 KB.
fn event() -> Received {
    let mut body = String::from("{\"ref\":\"refs/heads/main\",\"commits\":[");
    while body.len() < BODY - 120 {
        body.push_str(
            "{\"id\":\"6dcb09b5b57875f334f61aebed695e2e4193db5e\",\"message\":\"a line of work\"},",
        );
    }
    body.push_str("{}]}");
    body.extend(std::iter::repeat_n(' ', BODY - body.len()));
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("user-agent", "a-sender/1"),
        ("x-github-event", "push"),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Received {
        id: RequestId::new(),
        at: NOW,
        method: Method::POST,
        target: "/hooks/a".into(),
        url: "https://hooks.example.com/hooks/a".into(),
        headers,
        body: body.into(),
        peer: Ipv4Addr::LOCALHOST.into(),
        certificate: None,
    }
}

/// The same with one digit of the signature changed.
fn wrong(request: &Received, at: usize) -> Received {
    let mut request = request.clone();
    let mut text = request.headers["x-hub-signature-256"].as_bytes().to_vec();
    let digit = &mut text["sha256=".len() + at];
    *digit = if *digit == b'0' { b'1' } else { b'0' };
    request.headers.insert(
        "x-hub-signature-256",
        HeaderValue::from_bytes(&text).unwrap(),
    );
    request
}

/// The median time of each, measured in turns.
fn medians<const N: usize>(sides: [&dyn Fn(); N]) -> [Duration; N] {
    let mut times = [(); N].map(|()| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for (side, times) in sides.iter().zip(&mut times) {
            let begun = Instant::now();
            for _ in 0..CHECKS {
                side();
            }
            times.push(begun.elapsed() / CHECKS);
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2]
    })
}
