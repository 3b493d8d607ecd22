//! See it work: a gateway and a stand-in for the upstream on free ports, a scratch inbox, really signed events. The
//! gateway is the one that `serve` runs; nothing of it knows that this is a demo.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::sheet::{Paper as _, Times, Tone, columns_of, sheets};
use super::{CommandResult, answer, print, stop_signal};
use crate::app::{App, Listeners};
use crate::config::{Config, Problems, Section, Table};
use crate::model::{Clock, Received, RequestId, Roles, Timestamp};
use crate::net::Client;
use crate::source::{Source, Sources};
use crate::stub::{self, Stub, StubOptions};
use crate::telemetry::log;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Stay up afterwards, and say what to try with curl
    #[arg(long)]
    serve: bool,
}

const ADMIN_TOKEN: &str = "demo-admin-token";

/// The demo's sources.
const SOURCES: &str = include_str!("../../config/demo/sources.toml");

/// Events that are sent to the demo's sources.
const EVENTS: &str = include_str!("../../config/demo/events.toml");

/// Commands to try while the demo stays up. Names in braces stand for the addresses and the token.
const TO_TRY: &str = include_str!("../../config/demo/try.txt");

/// A deliberate fault of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    Forged,
    Repeated,
}

/// A request of the demo.
struct DemoEvent {
    title: String,
    source: String,
    headers: Vec<(String, String)>,
    body: String,
    flaw: Flaw,
}

impl DemoEvent {
    /// Reads them all.
    fn all() -> anyhow::Result<Vec<Self>> {
        let problems = Problems::default();
        let table = Table::parse("config/demo/events.toml", EVENTS, &problems);
        let file = Section::new(&table, "", &problems);
        let text = |event: &Section<'_>, key: &str| {
            event.text(key).map_or_else(String::new, |text| text.value)
        };
        let all = file.sections("event").into_iter().map(|event| Self {
            title: text(&event, "title"),
            source: text(&event, "source"),
            headers: event
                .text_table("headers")
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name.value, value.value))
                .collect(),
            body: text(&event, "body"),
            flaw: event
                .one_of(
                    "flaw",
                    &[("forged", Flaw::Forged), ("repeated", Flaw::Repeated)],
                )
                .map_or(Flaw::None, |flaw| flaw.value),
        });
        let all = all.collect();
        drop(file);
        match problems.into_sorted().first() {
            Some(problem) => bail!("{problem}"),
            None => Ok(all),
        }
    }
}

/// Longest time for the deliveries of the demo.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn run(demo: &Demo) -> CommandResult {
    let folder = Scratch::new()?;
    let stub_listener = TcpListener::bind("127.0.0.1:0")
        .await
        .context("cannot listen on 127.0.0.1")?;
    let upstream = stub_listener.local_addr()?;
    let (config, sources) = configure(upstream, &folder.0)?;
    log::start(&config.log)?;
    let listeners = Listeners::bind(&config, Roles::ALL).await?;
    let public = listeners
        .public
        .as_ref()
        .context("a gateway with all roles has a public listener")?
        .local_addr()?;
    let admin = listeners.admin.local_addr()?;
    let stopping = CancellationToken::new();
    let stub = Stub::new(StubOptions {
        delay: Duration::from_millis(150),
        ..StubOptions::default()
    })?;
    let stub = tokio::spawn(stub::serve(
        stub_listener,
        Arc::new(stub),
        stopping.clone().cancelled_owned(),
    ));
    // The gateway's own are its alone: it gives them the names and marks of its inbox.
    let signers: Vec<_> = Sources::compile(&config, &Problems::default())
        .iter()
        .cloned()
        .collect();
    let app = App::build(config, sources, Roles::ALL, Clock::system()).await?;
    let (_, no_reloads) = mpsc::channel(1);
    let gateway =
        tokio::spawn(app.serve(listeners, no_reloads, stopping.clone().cancelled_owned()));

    answer(&format!(
        "A gateway at             http://{public}\n\
         its admin API at         http://{admin}\n\
         and a stand-in for the agent platform at http://{upstream}\n"
    ))?;
    let visitor = Visitor {
        client: Client::new(Duration::from_secs(5), None)?,
        public,
        admin,
    };
    let good = show(&visitor, &signers).await?;
    if demo.serve {
        answer(&what_to_try(public, admin))?;
        stop_signal()?.await;
    }
    stopping.cancel();
    gateway.await.context("the gateway panicked")??;
    stub.await.context("the stand-in panicked")?;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn configure(upstream: SocketAddr, folder: &Path) -> anyhow::Result<(Config, Sources)> {
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://hooks.example.com\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"literal:{ADMIN_TOKEN}\"\n\
         [upstream]\nbase_url = \"http://{upstream}\"\napi_key = \"literal:demo-upstream-key\"\n\
         [inbox]\nurl = \"sqlite:inbox.db\"\n[log]\nfilter = \"error\"\n{SOURCES}"
    );
    let problems = Problems::default();
    let config = Config::parse(
        "the demo's configuration",
        &text,
        folder,
        std::iter::empty(),
        &problems,
    );
    let sources = config
        .as_ref()
        .map(|config| Sources::compile(config, &problems));
    match (config, sources) {
        (Some(config), Some(sources)) if !problems.any_error() => Ok((config, sources)),
        _ => bail!(
            "{}",
            problems
                .into_sorted()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        ),
    }
}

/// The client that sends the demo's events and looks at what became of them.
struct Visitor {
    client: Client,
    public: SocketAddr,
    admin: SocketAddr,
}

/// A row of the table.
struct DemoRow {
    title: String,
    verdict: String,
    thread: String,
    invoke: String,
    result: String,
}

/// Sends the samples one by one and prints what became of them. False when something did not go as it must.
async fn show(visitor: &Visitor, sources: &[Arc<Source>]) -> anyhow::Result<bool> {
    let mut rows = Vec::new();
    let mut good = true;
    let mut answers = Vec::new();
    let samples = DemoEvent::all()?;
    for sample in &samples {
        answers.push(visitor.send(sample, sources).await?);
    }
    for (sample, (status, body)) in samples.iter().zip(answers) {
        let said = body["status"].as_str().unwrap_or_default();
        good &= match sample.flaw {
            Flaw::None => status == 202 && matches!(said, "accepted" | "filtered"),
            Flaw::Repeated => status == 202 && said == "duplicate",
            Flaw::Forged => status == 401,
        };
        let mut row = DemoRow {
            title: sample.title.clone(),
            verdict: format!(
                "{status} {}",
                if said.is_empty() {
                    body["code"].as_str().unwrap_or_default()
                } else {
                    said
                }
            ),
            thread: String::new(),
            invoke: String::new(),
            result: String::new(),
        };
        if said == "accepted" || said == "filtered" {
            let event = visitor
                .settled(body["event_id"].as_str().unwrap_or_default())
                .await?;
            good &= row.tell(&event, said);
        }
        rows.push(row);
    }
    print_all(&rows)?;
    let runs = rows
        .iter()
        .filter(|row| row.result.starts_with("completed"))
        .count();
    answer(&format!(
        "{} requests: {runs} runs, one for each wanted event.\n\
         The forged one was refused, the repeated one ran nothing.",
        rows.len()
    ))?;
    Ok(good)
}

impl DemoRow {
    /// Fills in what the admin API says of an event. False when its run did not end well.
    fn tell(&mut self, event: &Value, said: &str) -> bool {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.verdict = format!("{said}, {}", text(&event["verification"]["strength"]));
        self.thread = text(&event["thread"]);
        if said == "filtered" {
            self.invoke = format!("none: {}", text(&event["filtered"]));
            return true;
        }
        let delivery = &event["deliveries"][0];
        let prompt = event["params"]
            .as_array()
            .and_then(|list| list.iter().find(|param| param["name"] == "prompt"));
        self.invoke = format!(
            "{}: {}",
            text(&delivery["destination"]),
            text(&prompt.unwrap_or(&Value::Null)["value"])
        );
        self.result = format!(
            "{}: {}",
            text(&delivery["answer"]["status"]),
            text(&delivery["answer"]["result"])
        );
        delivery["state"] == "delivered" && delivery["answer"]["status"] == "completed"
    }
}

impl Visitor {
    /// Signs a sample as its provider would, and posts it.
    async fn send(
        &self,
        sample: &DemoEvent,
        sources: &[Arc<Source>],
    ) -> anyhow::Result<(u16, Value)> {
        let source = sources
            .iter()
            .find(|source| source.config.name == sample.source)
            .context("the demo knows its sources")?;
        let target = format!("/hooks/{}", sample.source);
        let body = Bytes::from(sample.body.clone());
        let mut received = Received {
            id: RequestId::new(),
            at: now(),
            method: Method::POST,
            url: format!("https://hooks.example.com{target}"),
            target: target.clone(),
            headers: HeaderMap::new(),
            body: if sample.flaw == Flaw::Forged {
                Bytes::from_static(b"something else")
            } else {
                body.clone()
            },
            peer: self.public.ip(),
            certificate: None,
        };
        received
            .headers
            .insert("content-type", HeaderValue::from_static("application/json"));
        for (name, value) in &sample.headers {
            received
                .headers
                .insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        let signed = source
            .scheme
            .sign(0, &received, now())
            .map_err(anyhow::Error::msg)?;
        let mut request = Request::post(format!("http://{}{target}", self.public)).body(body)?;
        *request.headers_mut() = received.headers;
        for (name, value) in signed {
            request.headers_mut().insert(name, value);
        }
        let answer = self.client.send(request, PATIENCE, 1 << 20).await?;
        Ok((
            answer.status().as_u16(),
            serde_json::from_slice(answer.body()).unwrap_or(Value::Null),
        ))
    }

    /// An event, once all its deliveries have ended.
    async fn settled(&self, id: &str) -> anyhow::Result<Value> {
        let look = async {
            loop {
                let request = Request::get(format!("http://{}/api/v1/events/{id}", self.admin))
                    .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
                    .body(Bytes::new())?;
                let answer = self.client.send(request, PATIENCE, 1 << 20).await?;
                let event: Value =
                    serde_json::from_slice(answer.body()).context("the admin API answers JSON")?;
                let ended = event["deliveries"].as_array().is_some_and(|list| {
                    list.iter().all(|delivery| {
                        delivery["state"] != "pending" && delivery["state"] != "leased"
                    })
                });
                if ended {
                    return anyhow::Ok(event);
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look)
            .await
            .with_context(|| format!("the delivery of {id} did not end"))?
    }
}

fn now() -> Timestamp {
    Clock::system().now()
}

/// Prints a block for each.
fn print_all(rows: &[DemoRow]) -> std::io::Result<()> {
    for row in rows {
        let tone = if row.verdict.starts_with("4") {
            Tone::Bad
        } else {
            Tone::Good
        };
        block(row, tone)?;
    }
    Ok(())
}

/// Prints a request and what became of it, in a few lines that fit every terminal.
fn block(row: &DemoRow, tone: Tone) -> std::io::Result<()> {
    let (mut out, _) = sheets(Times::Ago);
    let look = *out.look();
    let gap = " ".repeat(TITLE.saturating_sub(columns_of(&row.title)).max(1));
    writeln!(out, "{}{gap}{}", row.title, look.paint(&row.verdict, tone))?;
    for (label, text, most) in [
        ("thread", &row.thread, 60),
        ("invoke", &row.invoke, 200),
        ("result", &row.result, 130),
    ] {
        if !text.is_empty() {
            print::labelled(&mut out, 2, 6, label, &cut(text, most))?;
        }
    }
    writeln!(out)?;
    out.flush()
}

/// Column of the verdict.
const TITLE: usize = 46;

/// One line, cut with a mark.
fn cut(text: &str, most: usize) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(most)
        .collect();
    if text.chars().count() > most {
        line.chars().take(most - 1).chain(['…']).collect()
    } else {
        line
    }
}

fn what_to_try(public: SocketAddr, admin: SocketAddr) -> String {
    TO_TRY
        .replace("{public}", &public.to_string())
        .replace("{admin}", &admin.to_string())
        .replace("{token}", ADMIN_TOKEN)
}

/// A folder that goes away with the demo.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let folder =
            std::env::temp_dir().join(format!("sluicegate-demo-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
