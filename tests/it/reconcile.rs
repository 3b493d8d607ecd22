//! What never arrived, from the provider's own log: a scripted stand-in for each API, over real sockets.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};
use sluicegate::model::{Clock, Timestamp};
use sluicegate::net::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::world::{
    Gateway, TOKEN, Upstream, binary, borrowed, github, json as body_of, signal, unmarked, wait_for,
};

const SECRET: &str = "a-github-secret-for-tests";
const API_TOKEN: &str = "planted-api-token-4711";

/// What the API was asked.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    target: String,
    headers: Vec<(String, String)>,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    fn query(&self, name: &str) -> Option<String> {
        let query = self.target.split_once('?')?.1;
        form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// What it says.
pub(crate) struct Said {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    /// Waits for this before it answers.
    hold: Option<Arc<Notify>>,
}

fn said(status: u16, body: impl Into<String>) -> Said {
    Said {
        status,
        headers: Vec::new(),
        body: body.into(),
        hold: None,
    }
}

/// A provider's API that answers by a script.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Api {
    pub(crate) async fn start(
        script: impl Fn(SocketAddr, &Seen, usize) -> Said + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (all, script) = (seen.clone(), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (all, script) = (all.clone(), script.clone());
                tokio::spawn(async move { answer(stream, address, &all, &*script).await });
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no script panics").clone()
    }

    /// How often a path was asked for whose beginning is this.
    fn asked(&self, start: &str) -> usize {
        self.seen()
            .iter()
            .filter(|seen| seen.target.starts_with(start))
            .count()
    }
}

async fn answer(
    mut stream: TcpStream,
    address: SocketAddr,
    all: &Mutex<Vec<Seen>>,
    script: &(impl Fn(SocketAddr, &Seen, usize) -> Said + Send + Sync),
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).expect("text");
    let mut lines = head.lines();
    let target = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .expect("a request line")
        .to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let seen = Seen { target, headers };
    let said = {
        let mut all = all.lock().expect("no script panics");
        all.push(seen.clone());
        script(address, &seen, all.len())
    };
    if let Some(hold) = said.hold {
        hold.notified().await;
    }
    let headers: String = said
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = said.body.len();
    let head = format!(
        "HTTP/1.1 {} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n",
        said.status
    );
    let _ = stream
        .write_all(format!("{head}{}", said.body).as_bytes())
        .await;
}

fn now() -> Timestamp {
    Clock::system().now()
}

/// A delivery in the log of a hook.
#[derive(Clone)]
pub(crate) struct Delivery {
    id: &'static str,
    guid: &'static str,
    ago: Duration,
    action: &'static str,
    payload: String,
    kind: &'static str,
}

pub(crate) fn delivery(
    id: &'static str,
    guid: &'static str,
    minutes: u64,
    payload: impl Into<String>,
) -> Delivery {
    let ago = Duration::from_secs(minutes * 60);
    Delivery {
        id,
        guid,
        ago,
        action: "opened",
        payload: payload.into(),
        kind: "application/json",
    }
}

pub(crate) fn issue(number: u32, title: &str) -> String {
    json!({"action": "opened", "issue": {"number": number, "title": title}}).to_string()
}

const HOOK: &str = "/api/v3/repos/octo/app/hooks/42/deliveries";

/// The log of a hook, newest first, two on a page.
pub(crate) fn hook_log(
    deliveries: Vec<Delivery>,
) -> impl Fn(SocketAddr, &Seen) -> Said + Send + Sync {
    let begun = now();
    move |address, seen| {
        let path = seen.target.split('?').next().unwrap_or_default();
        if let Some(id) = path.strip_prefix(&format!("{HOOK}/")) {
            let Some(found) = deliveries.iter().find(|delivery| delivery.id == id) else {
                return said(404, "{}");
            };
            // As text, so that the payload's digits are what they are.
            return said(
                200,
                format!(
                    r#"{{"id":{},"guid":"{}","event":"issues","request":{{"headers":{{"Accept":"*/*","Host":"x","X-GitHub-Delivery":"{}","X-GitHub-Event":"issues","X-GitHub-Hook-ID":"42","Content-Type":"{}","X-Hub-Signature-256":"sha256=planted"}},"payload": {} }},"response":{{"headers":{{}},"payload":"no"}}}}"#,
                    found.id, found.guid, found.guid, found.kind, found.payload
                ),
            );
        }
        let start: usize = seen
            .query("cursor")
            .map_or(0, |cursor| cursor[3..].parse().expect("a cursor of ours"));
        let page: Vec<String> = deliveries[start..]
            .iter()
            .take(2)
            .map(|delivery| {
                let at = begun - delivery.ago;
                format!(
                    r#"{{"id":{},"guid":"{}","delivered_at":"{at}","redelivery":false,"status":"failed","status_code":502,"event":"issues","action":"{}"}}"#,
                    delivery.id, delivery.guid, delivery.action
                )
            })
            .collect();
        let mut said = said(200, format!("[{}]", page.join(",")));
        // These stand on every answer and are no reason to wait.
        said.headers.push(("x-ratelimit-remaining", "4999".into()));
        said.headers
            .push(("x-ratelimit-reset", "4102444800".into()));
        if start + 2 < deliveries.len() {
            let next = format!(
                "<http://{address}/api/v3/repositories/1/x?per_page=2&cursor=v1_{}>; rel=\"next\"",
                start + 2
            );
            said.headers.push((
                "link",
                format!("<http://{address}/first>; rel=\"first\", {next}"),
            ));
        }
        said
    }
}

fn triage(api: SocketAddr) -> String {
    format!(
        r#"
[sources.triage]
provider = "github"
secrets = ["literal:{SECRET}"]
agent = "a"
events = ["issues.opened"]
thread = "issue.number"
prompt = "Triage {{{{ body.issue.title }}}}"
[sources.triage.reconcile]
api = "http://{api}/api/v3/"
token = "literal:{API_TOKEN}"
hook = "repos/octo/app/hooks/42"
"#
    )
}

async fn post(gateway: &Gateway, source: &str, body: &str) -> (u16, Value) {
    let client = Client::new(Duration::from_secs(5), None).expect("a client");
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!(
            "http://{}/api/v1/sources/{source}/reconcile",
            gateway.admin
        ))
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(Bytes::from(body.to_owned()))
        .expect("a request");
    let answer = client
        .send(request, Duration::from_secs(60), 1 << 24)
        .await
        .expect("the admin API answers");
    (answer.status().as_u16(), body_of(&answer))
}

async fn reconcile(gateway: &Gateway, source: &str, asked: Value) -> Value {
    let (status, report) = post(gateway, source, &asked.to_string()).await;
    assert_eq!(status, 200, "{report:#}");
    report
}

fn sums(report: &Value) -> [u64; 6] {
    [
        "listed",
        "already_here",
        "missing",
        "pulled_in",
        "filtered",
        "failed",
    ]
    .map(|key| {
        report[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key} of {report:#}"))
    })
}

/// What became of each, by its id in the log.
fn became(report: &Value) -> Vec<(String, String)> {
    let text = |line: &Value, key: &str| line[key].as_str().expect("a text").to_owned();
    let lines = report["lines"].as_array().expect("a list");
    lines
        .iter()
        .map(|line| (text(line, "id"), text(line, "became")))
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(id, became)| ((*id).to_owned(), (*became).to_owned()))
        .collect()
}

/// Odd blanks and digits that no number type holds.
const EXACT: &str = r#"{ "action":"opened",  "issue":{"number":7,"title":"Exact \u00e9", "n":[12345678901234567890123.4500,1e400,9007199254740993]} }"#;

#[tokio::test]
async fn what_never_arrived_is_pulled_in_oldest_first_and_only_once() {
    let log = vec![
        delivery("9007199254740999", "g-4", 10, issue(8, "four")),
        delivery("105", "g-1", 20, issue(7, "one")),
        delivery("104", "g-3", 30, EXACT),
        delivery("103", "g-2", 40, issue(7, "two")),
        Delivery {
            action: "closed",
            ..delivery(
                "102",
                "g-5",
                45,
                r#"{"action":"closed","issue":{"number":7,"title":"five"}}"#,
            )
        },
        delivery("101", "g-1", 50, issue(7, "one")),
        delivery("100", "g-0", 200, issue(7, "too old")),
        delivery("99", "g-00", 300, issue(7, "far too old")),
        delivery("98", "g-000", 400, issue(7, "never looked at")),
    ];
    let script = hook_log(log);
    let api = Api::start(move |address, seen, _| script(address, seen)).await;
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &triage(api.address)).await;
    let headers = github(SECRET, "g-2", "issues", &issue(7, "two"));
    assert_eq!(
        gateway
            .post("/hooks/triage", &borrowed(&headers), issue(7, "two"))
            .await
            .status(),
        202
    );
    upstream.wait_for_runs(1).await;

    let report = reconcile(&gateway, "triage", json!({"since": "2h"})).await;
    assert_eq!(sums(&report), [5, 1, 0, 3, 1, 0], "{report:#}");
    let wanted = [
        ("101", "pulled_in"),
        ("102", "filtered"),
        ("103", "already_here"),
        ("104", "pulled_in"),
        ("9007199254740999", "pulled_in"),
    ];
    assert_eq!(became(&report), pairs(&wanted));
    assert_eq!(
        (&report["stopped"], &report["reached"]),
        (&Value::Null, &report["until"])
    );
    assert_eq!(report["lines"][3]["dedup"], "g-3");
    assert_eq!(report["lines"][3]["event_type"], "issues.opened");

    // In their thread, in the order of the log, and as they were sent.
    let runs = upstream.wait_for_runs(4).await;
    let texts: Vec<&str> = runs
        .iter()
        .filter_map(|run| run["body"]["input"]["text"].as_str())
        .collect();
    let place = |title: &str| {
        texts
            .iter()
            .position(|text| unmarked(text) == title)
            .unwrap_or_else(|| panic!("{title}: {texts:?}"))
    };
    assert!(place("Triage one") < place("Triage «Exact é»"), "{texts:?}");
    let id = report["lines"][3]["event"]
        .as_str()
        .expect("an event")
        .to_owned();
    let event = gateway.settled(&id).await;
    assert_eq!(event["body"], EXACT);
    assert_eq!(
        event["verification"],
        json!({"strength": "fetched", "secret": "literal 1"})
    );
    assert_eq!(
        (&event["thread"], &event["dedup"]),
        (&json!("7"), &json!("g-3"))
    );
    assert_eq!(event["request_line"], "POST /hooks/triage");
    let kept = event["headers"].to_string();
    assert!(
        kept.contains("x-github-hook-id") && !kept.contains("\"host\""),
        "{kept}"
    );

    // What is known is not fetched, and what lies before the time is not even listed.
    assert_eq!(api.asked(&format!("{HOOK}/103")), 0);
    assert_eq!(
        api.asked(&format!("{HOOK}/105")),
        0,
        "a delivery that was made again is one event"
    );
    assert_eq!(api.asked(&format!("{HOOK}?")), 4);
    for seen in api.seen() {
        assert_eq!(seen.header("authorization"), format!("Bearer {API_TOKEN}"));
        assert_eq!(seen.header("x-github-api-version"), "2022-11-28");
        assert_eq!(seen.header("accept"), "application/vnd.github+json");
        assert_eq!(
            seen.header("user-agent"),
            format!("sluicegate/{}", env!("CARGO_PKG_VERSION"))
        );
    }

    let again = reconcile(&gateway, "triage", json!({"since": "2h"})).await;
    assert_eq!(sums(&again), [5, 5, 0, 0, 0, 0], "{again:#}");
    assert_eq!(upstream.runs().await.len(), 4);
    let counted =
        |word: &str| format!(r#"sluicegate_reconciled_total{{became="{word}",source="triage"}}"#);
    gateway.metric_is(&counted("pulled_in"), 3.0).await;
    gateway.metric_is(&counted("already_here"), 6.0).await;
    let everything = format!("{report}{again}{event}{}", gateway.log());
    assert!(!everything.contains(API_TOKEN), "the token is told");
}

#[tokio::test]
async fn a_dry_run_says_the_same_and_changes_nothing() {
    let log = vec![
        delivery("2", "g-2", 10, issue(7, "two")),
        Delivery {
            action: "closed",
            ..delivery("1", "g-1", 20, r#"{"action":"closed"}"#)
        },
    ];
    let script = hook_log(log);
    let api = Api::start(move |address, seen, _| script(address, seen)).await;
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &triage(api.address)).await;
    let report = reconcile(&gateway, "triage", json!({"since": "2h", "dry_run": true})).await;
    assert_eq!(sums(&report), [2, 0, 1, 0, 1, 0], "{report:#}");
    assert_eq!(
        became(&report),
        pairs(&[("1", "filtered"), ("2", "missing")])
    );
    assert!(
        report["lines"][0]["why"]
            .as_str()
            .is_some_and(|why| why.contains("issues.closed")),
        "{report:#}"
    );
    assert_eq!(gateway.admin_json("/events").await["items"], json!([]));
    let until = (now() - Duration::from_secs(15 * 60)).to_string();
    let report = reconcile(
        &gateway,
        "triage",
        json!({"since": "2h", "until": until, "dry_run": true}),
    )
    .await;
    assert_eq!(became(&report), pairs(&[("1", "filtered")]), "{report:#}");
}

#[tokio::test]
async fn a_form_hook_is_pulled_in_as_a_form_and_what_cannot_be_had_holds_up_nothing() {
    let form = Delivery {
        kind: "application/x-www-form-urlencoded",
        ..delivery("3", "g-3", 10, issue(7, "a & b"))
    };
    let log = vec![
        form,
        delivery("2", "g-2", 20, "null"),
        delivery("1", "g-1", 30, "{}"),
    ];
    let script = hook_log(log);
    let api = Api::start(move |address, seen, _| {
        if seen.target.ends_with("/1") {
            said(404, "{}")
        } else {
            script(address, seen)
        }
    })
    .await;
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &triage(api.address)).await;
    let report = reconcile(&gateway, "triage", json!({"since": "2h"})).await;
    assert_eq!(
        became(&report),
        pairs(&[("1", "failed"), ("2", "failed"), ("3", "pulled_in")]),
        "{report:#}"
    );
    for number in 0..2 {
        assert!(
            report["lines"][number]["why"]
                .as_str()
                .is_some_and(|why| why.starts_with("gone: ")),
            "{report:#}"
        );
    }
    let runs = upstream.wait_for_runs(1).await;
    assert_eq!(
        unmarked(runs[0]["body"]["input"]["text"].as_str().expect("a text")),
        "Triage «a & b»"
    );
    let event = gateway
        .settled(report["lines"][2]["event"].as_str().expect("an event"))
        .await;
    assert!(
        event["body"]
            .as_str()
            .is_some_and(|body| body.starts_with("payload=%7B")),
        "{event:#}"
    );
}

#[tokio::test]
async fn an_event_that_arrives_in_the_meantime_runs_once_and_only_one_reconcile_at_a_time() {
    let script = hook_log(vec![delivery("1", "g-1", 10, issue(7, "one"))]);
    let hold = Arc::new(Notify::new());
    let held = hold.clone();
    let api = Api::start(move |address, seen, _| {
        let hold = seen.target.ends_with("/1").then(|| held.clone());
        Said {
            hold,
            ..script(address, seen)
        }
    })
    .await;
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &triage(api.address)).await;
    let race = async {
        wait_for("the delivery to be asked for", async || {
            (api.asked(&format!("{HOOK}/1")) == 1).then_some(())
        })
        .await;
        let (status, refused) = post(&gateway, "triage", r#"{"since":"2h"}"#).await;
        assert_eq!(
            (status, refused["code"].as_str()),
            (409, Some("reconciling")),
            "{refused:#}"
        );
        let headers = github(SECRET, "g-1", "issues", &issue(7, "one"));
        assert_eq!(
            gateway
                .post("/hooks/triage", &borrowed(&headers), issue(7, "one"))
                .await
                .status(),
            202
        );
        hold.notify_one();
    };
    let (report, ()) = tokio::join!(reconcile(&gateway, "triage", json!({"since": "2h"})), race);
    assert_eq!(sums(&report), [1, 1, 0, 0, 0, 0], "{report:#}");
    upstream.wait_for_runs(1).await;
    let again = reconcile(&gateway, "triage", json!({"since": "2h"})).await;
    assert_eq!(sums(&again), [1, 1, 0, 0, 0, 0], "the first one has ended");
    assert_eq!(upstream.runs().await.len(), 1);
}

#[tokio::test]
async fn a_short_pause_is_waited_for_and_a_long_one_ends_it_with_what_was_done() {
    let log = vec![
        delivery("2", "g-2", 10, issue(7, "two")),
        delivery("1", "g-1", 20, issue(7, "one")),
    ];
    let script = hook_log(log);
    let limited = Mutex::new(0);
    let api = Api::start(move |address, seen, count| {
        let mut limited = limited.lock().expect("no script panics");
        if count == 1 {
            // The list, at first.
            return Said {
                headers: vec![("retry-after", "1".into())],
                ..said(429, "{}")
            };
        }
        if seen.target.ends_with("/2") && *limited < 1 {
            *limited += 1;
            let reset = (now().seconds() + 3_600).to_string();
            let headers = vec![
                ("x-ratelimit-remaining", "0".into()),
                ("x-ratelimit-reset", reset),
            ];
            return Said {
                headers,
                ..said(403, "{}")
            };
        }
        script(address, seen)
    })
    .await;
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &triage(api.address)).await;
    let begun = Instant::now();
    let report = reconcile(&gateway, "triage", json!({"since": "2h"})).await;
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(30));
    assert_eq!(report["stopped"]["code"], "rate_limited", "{report:#}");
    assert_eq!(sums(&report), [2, 0, 0, 1, 0, 0], "{report:#}");
    assert_eq!(report["reached"], report["lines"][0]["at"]);
    upstream.wait_for_runs(1).await;
    let rest = reconcile(&gateway, "triage", json!({"since": report["reached"]})).await;
    assert_eq!(sums(&rest), [2, 1, 0, 1, 0, 0], "{rest:#}");
}

#[tokio::test]
async fn the_token_goes_to_the_apis_own_host_only() {
    let other = Api::start(|_, _, _| said(200, "[]")).await;
    let elsewhere = other.address;
    let script = hook_log(vec![delivery("1", "g-1", 10, issue(7, "one"))]);
    let api = Api::start(move |address, seen, count| match count {
        1 => {
            let link = format!("<http://{elsewhere}/repos/octo/app/hooks/42/deliveries?cursor=v1_2>; rel=\"next\"");
            Said { headers: vec![("link", link)], ..script(address, seen) }
        }
        2 => Said { headers: vec![("location", format!("http://{elsewhere}/"))], ..said(302, "") },
        3 => said(401, r#"{"message":"Bad credentials"}"#),
        4 => said(403, r#"{"message":"Resource not accessible"}"#),
        5 => said(404, "{}"),
        6 => said(200, "<html>"),
        _ => {
            let at = now() - Duration::from_secs(60);
            said(200, format!(r#"[{{"id":"../../x","guid":"g","delivered_at":"{at}","event":"e","action":null}}]"#))
        }
    })
    .await;
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &triage(api.address)).await;
    let mut told = String::new();
    for code in [
        "strange_link",
        "redirected",
        "token_refused",
        "token_refused",
        "not_found",
        "strange_answer",
        "strange_answer",
    ] {
        let report = reconcile(&gateway, "triage", json!({"since": "2h"})).await;
        assert_eq!(report["stopped"]["code"], code, "{report:#}");
        assert_eq!(sums(&report), [0; 6], "{report:#}");
        assert_eq!(report["reached"], Value::Null, "{report:#}");
        told.push_str(&report.to_string());
    }
    let (status, refused) = post(&gateway, "triage", r#"{"since":"2020-01-01T00:00:00Z"}"#).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (409, Some("forgotten")),
        "{refused:#}"
    );
    assert!(other.seen().is_empty(), "asked {:?}", other.seen());
    told.push_str(&gateway.log());
    assert!(told.contains("literal 1") && !told.contains(API_TOKEN));
    assert_eq!(gateway.admin_json("/events").await["items"], json!([]));
}

#[tokio::test]
async fn what_is_asked_wrongly_is_said() {
    let upstream = Upstream::start(&[]).await;
    let plain = "[sources.plain]\nprovider = \"github\"\nsecrets = [\"literal:a-long-secret\"]\nagent = \"a\"\n";
    let gateway = Gateway::start(
        upstream.address,
        &format!("{}{plain}", triage(upstream.address)),
    )
    .await;
    for (source, body, status, code) in [
        ("triage", "", 400, "bad_body"),
        ("triage", r#"{"since":"soon"}"#, 400, "bad_body"),
        ("triage", r#"{"since":"1h","until":"2h"}"#, 400, "bad_body"),
        ("nobody", r#"{"since":"1h"}"#, 404, "not_found"),
        ("plain", r#"{"since":"1h"}"#, 409, "no_log"),
    ] {
        let (got, answer) = post(&gateway, source, body).await;
        assert_eq!(
            (got, answer["code"].as_str()),
            (status, Some(code)),
            "{source} {body}: {answer}"
        );
        assert!(
            answer["detail"]
                .as_str()
                .is_some_and(|detail| detail.len() > 20),
            "{answer}"
        );
    }
    assert_eq!(
        gateway
            .admin(Method::GET, "/sources/triage/reconcile")
            .await
            .status(),
        405
    );
}

#[tokio::test]
async fn a_gateway_that_stops_waits_for_no_provider() {
    let script = hook_log(vec![
        delivery("2", "g-2", 10, issue(7, "two")),
        delivery("1", "g-1", 20, issue(7, "one")),
    ]);
    let never = Arc::new(Notify::new());
    let api = Api::start(move |address, seen, _| {
        let hold = seen.target.ends_with("/2").then(|| never.clone());
        Said {
            hold,
            ..script(address, seen)
        }
    })
    .await;
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &triage(api.address)).await;
    let stop = async {
        wait_for("the second one to be asked for", async || {
            (api.asked(&format!("{HOOK}/2")) == 1).then_some(())
        })
        .await;
        signal(gateway.pid(), "TERM");
    };
    let (report, ()) = tokio::join!(reconcile(&gateway, "triage", json!({"since": "2h"})), stop);
    assert_eq!(
        (&report["stopped"]["code"], &report["pulled_in"]),
        (&json!("stopping"), &json!(1)),
        "{report:#}"
    );
}

const BILLING: &str = r#"
[sources.billing]
provider = "stripe"
secrets = ["literal:whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH"]
workflow = "w"
prompt = "Charge {{ body.data.object.id }}"
when = "body.livemode"
[sources.billing.reconcile]
api = "http://API"
token = "literal:planted-api-token-4711"
types = ["charge.failed", "invoice.paid"]
account = "acct_1"
"#;

/// An event object, with the digits and blanks of its own.
fn charge(id: &str, created: i64, livemode: bool) -> String {
    format!(
        "{{\n  \"id\": \"{id}\", \"object\": \"event\", \"created\": {created}, \"type\": \"charge.failed\", \
         \"livemode\": {livemode}, \"data\": {{\"object\": {{\"id\": \"ch_{id}\", \"amount\": 12345678901234567890.10}}}} }}"
    )
}

#[tokio::test]
async fn an_accounts_events_are_read_page_by_page() {
    let begun = now().seconds();
    let events: Vec<(String, String)> = [
        ("evt_5", 60),
        ("evt_4", 120),
        ("evt_3", 180),
        ("evt_2", 180),
        ("evt_1", 240),
    ]
    .map(|(id, ago)| (id.to_owned(), charge(id, begun - ago, id != "evt_4")))
    .into();
    let all = events.clone();
    let api = Api::start(move |_, seen, count| {
        let path = seen.target.split('?').next().unwrap_or_default();
        if let Some(id) = path.strip_prefix("/v1/events/") {
            let found = all.iter().find(|(known, _)| known == id);
            return found.map_or_else(|| said(404, "{}"), |(_, body)| said(200, body.clone()));
        }
        match count {
            1 => return said(503, "{}"),
            // A page that is too large is asked for in smaller ones.
            2 => return said(200, " ".repeat(5 << 20)),
            _ => {}
        }
        let start = match seen.query("starting_after") {
            None => 0,
            Some(after) => {
                all.iter()
                    .position(|(id, _)| *id == after)
                    .expect("a known id")
                    + 1
            }
        };
        let end = (start + 2).min(all.len());
        let page: Vec<&str> = all[start..end]
            .iter()
            .map(|(_, body)| body.as_str())
            .collect();
        said(
            200,
            format!(
                r#"{{"object":"list","data":[{}],"has_more":{}}}"#,
                page.join(","),
                end < all.len()
            ),
        )
    })
    .await;
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(
        upstream.address,
        &BILLING.replace("API", &api.address.to_string()),
    )
    .await;
    let report = reconcile(&gateway, "billing", json!({"since": "1h"})).await;
    assert_eq!(sums(&report), [5, 0, 0, 4, 1, 0], "{report:#}");
    let order: Vec<String> = became(&report).into_iter().map(|(id, _)| id).collect();
    assert_eq!(order, ["evt_1", "evt_2", "evt_3", "evt_4", "evt_5"]);
    assert_eq!(
        (&report["lines"][3]["became"], &report["lines"][3]["why"]),
        (&json!("filtered"), &json!("when"))
    );
    let event = gateway
        .settled(report["lines"][0]["event"].as_str().expect("an event"))
        .await;
    assert_eq!(
        (&event["body"], &event["event_type"]),
        (&json!(events[4].1), &json!("charge.failed"))
    );
    assert_eq!(event["verification"]["strength"], "fetched");
    upstream.wait_for_runs(4).await;

    let seen = api.seen();
    let list = &seen[0];
    assert_eq!(
        (list.header("authorization"), list.header("stripe-account")),
        ("Bearer planted-api-token-4711", "acct_1")
    );
    assert_eq!(list.header("stripe-version"), "", "the account's own");
    let types: Vec<String> =
        form_urlencoded::parse(list.target.split_once('?').expect("a query").1.as_bytes())
            .filter(|(key, _)| key == "types[]")
            .map(|(_, value)| value.into_owned())
            .collect();
    assert_eq!(types, ["charge.failed", "invoice.paid"]);
    let since: i64 = list
        .query("created[gte]")
        .expect("it says since when")
        .parse()
        .expect("a number");
    assert!((begun - 3_610..=begun - 3_590).contains(&since), "{since}");
    let limits: Vec<_> = seen[..4]
        .iter()
        .filter_map(|seen| seen.query("limit"))
        .collect();
    assert_eq!(limits, ["100", "100", "20", "100"]);

    let again = reconcile(&gateway, "billing", json!({"since": "1h"})).await;
    assert_eq!(sums(&again), [5, 5, 0, 0, 0, 0]);
    assert_eq!(api.asked("/v1/events/"), 5, "what is known is not fetched");
}

fn run(arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .env("SLUICEGATE_ADMIN_TOKEN", TOKEN)
        .output()
        .expect("it runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_types_it() {
    let script = hook_log(vec![
        delivery("2", "g-2", 10, issue(7, "two")),
        delivery("1", "g-1", 20, "{}"),
    ]);
    let api = Api::start(move |address, seen, _| {
        if seen.target.ends_with("/1") {
            said(404, "{}")
        } else {
            script(address, seen)
        }
    })
    .await;
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &triage(api.address)).await;
    let admin = format!("http://{}", gateway.admin);
    let typed = |words: &[&str]| run(&[&["reconcile"], words, &["--admin", &admin]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let dry = typed(&[
        "triage",
        "--since",
        "2h",
        "--until",
        "15min",
        "--dry-run",
        "--json",
    ]);
    let report: Value = serde_json::from_slice(&dry.stdout).expect("JSON");
    assert_eq!(
        (dry.status.code(), sums(&report)),
        (Some(1), [1, 0, 0, 0, 0, 1]),
        "{report:#}"
    );
    let done = typed(&["triage", "--since", "15min"]);
    let said = text(&done.stdout);
    assert!(
        done.status.success()
            && said.ends_with("1 listed: 0 already here, 1 pulled in, 0 filtered, 0 failed\n"),
        "{said}"
    );
    assert!(
        said.contains("g-2") && said.contains("issues.opened") && said.contains("evt_"),
        "{said}"
    );
    let missing = typed(&["nobody", "--since", "2h"]);
    assert_eq!(missing.status.code(), Some(3), "{}", text(&missing.stderr));
    let wrong = typed(&["triage", "--since", "soon"]);
    assert!(
        wrong.status.code() == Some(2) && text(&wrong.stderr).contains("--since cannot be"),
        "{}",
        text(&wrong.stderr)
    );
    let far = typed(&["triage", "--since", "60d"]);
    assert!(text(&far.stderr).contains("647h"), "{}", text(&far.stderr));
}
