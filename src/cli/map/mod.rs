//! Explanation of a mapping: every parameter with its origin, and the call that would be made. Nothing is sent, and
//! nothing of a key is printed.

mod capture;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use uuid::Uuid;

use self::capture::Capture;
use super::event::EventName;
use super::gateway::{ApiAnswer, GatewayArgs};
use super::sheet::{out_columns, prose};
use super::{CommandResult, ConfigFile, answer, say, tally, usage};
use crate::app;
use crate::config::{Config, Problems};
use crate::inbox::Claimed;
use crate::ingress::explain::{self, misses, param, refused};
use crate::mapping::{Explained, hosted as reading};
use crate::model::{DeliveryId, EventId, Marks, Param, Received, Refusal, Strength, Timestamp};
use crate::source::{Source, Sources};
use crate::text::{fields, multipart};
use crate::upstream::Call;

#[derive(Debug, Subcommand)]
pub(super) enum MapCommand {
    /// Show what a captured request would be mapped to, and why
    Explain(ExplainMapping),
}

#[derive(Debug, Args)]
pub(super) struct ExplainMapping {
    #[command(flatten)]
    file: ConfigFile,
    /// The source whose mapping is followed
    #[arg(long, value_name = "NAME", required_unless_present_any = ["dropin", "event"], conflicts_with = "dropin")]
    source: Option<String>,
    /// Read the request as the drop-in door does, instead of a source
    #[arg(long)]
    dropin: bool,
    /// The request: request line, headers, an empty line, body; or JSON with method, url, headers and body
    #[arg(long, value_name = "FILE", required_unless_present = "event")]
    request: Option<PathBuf>,
    /// An event that a running gateway keeps, like evt_0193ab12, instead of a file; its source is followed
    #[arg(long, value_name = "ID", conflicts_with_all = ["request", "dropin"])]
    event: Option<EventName>,
    /// With --event, the address of the admin API instead of the configuration file's
    #[arg(long, value_name = "URL", requires = "event")]
    admin: Option<String>,
    /// With --event, the environment variable that holds the admin token
    #[arg(long, value_name = "NAME", requires = "event")]
    token_env: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: MapCommand) -> CommandResult {
    let MapCommand::Explain(explain) = command;
    let problems = Problems::default();
    let compiled = match &explain.source {
        Some(source) => app::compile_source(&explain.file.config, source, &problems),
        None => app::compile(&explain.file.config, &problems),
    };
    let Some((config, sources)) = compiled else {
        let problems = problems.into_sorted();
        for problem in &problems {
            say(&problem.to_string());
        }
        say(&format!(
            "{}: {}",
            explain.file.config.display(),
            tally(&problems)
        ));
        return Ok(ExitCode::FAILURE);
    };
    let (capture, came_by) = match (&explain.event, &explain.request) {
        (Some(id), _) => fetch(&explain, id).await?,
        (None, Some(request)) => {
            let file = request.display();
            let bytes = std::fs::read(request).with_context(|| format!("cannot read {file}"))?;
            (
                Capture::parse(&bytes).map_err(|what| anyhow!("{file} is no request: {what}"))?,
                None,
            )
        }
        (None, None) => return Err(usage("name the request: --request FILE, or --event ID")),
    };
    let view = match explain.source.as_ref().or(came_by.as_ref()) {
        Some(name) => at_source(
            find(&sources, name)?,
            &capture.received(&config.server.public_url),
        ),
        None => at_dropin(&config, &capture),
    };
    if explain.json {
        answer(&view.to_string())?;
    } else {
        answer(printed(&view).trim_end())?;
    }
    Ok(if view["refused"].is_null() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// An event's request, and the source that it came by.
async fn fetch(
    explain: &ExplainMapping,
    id: &EventName,
) -> anyhow::Result<(Capture, Option<String>)> {
    let (admin, token_env) = (explain.admin.clone(), explain.token_env.clone());
    let gateway = GatewayArgs::of(explain.file.config.clone(), admin, token_env).find()?;
    let missing = |why: String| anyhow!("{id}: {why}");
    let event = match gateway.ask(&format!("/events/{id}")).await? {
        ApiAnswer::Answered(event) => event,
        ApiAnswer::NotFound(why) => return Err(missing(why)),
    };
    let body = gateway
        .fetch(&format!("/events/{id}/body"))
        .await?
        .map_err(missing)?;
    let capture = Capture::of_event(&event, body).map_err(|what| anyhow!("{id}: {what}"))?;
    Ok((capture, event["source"].as_str().map(str::to_owned)))
}

fn find<'s>(sources: &'s Sources, name: &str) -> anyhow::Result<&'s Source> {
    sources.get(name).map(|source| &**source).ok_or_else(|| {
        let names: Vec<&str> = sources
            .iter()
            .map(|source| source.config.name.as_str())
            .collect();
        anyhow!(
            "there is no source {name:?}; there are: {}",
            names.join(", ")
        )
    })
}

fn at_source(source: &Source, request: &Received) -> Value {
    let (first, count) = match source.mapping.first_item(request) {
        Ok(Some(found)) if !source.passes_on() => found,
        Ok(_) => (request.clone(), 1),
        Err(refusal) => {
            return json!({ "source": source.config.name, "misses": [], "refused": refused(&refusal) });
        }
    };
    let mut view = of_event(source, &first);
    if count > 1 {
        view["items"] = count.into();
    }
    view
}

/// The mapping of one event, as JSON.
fn of_event(source: &Source, request: &Received) -> Value {
    let Explained { mapped, notes } = source.mapping.explain(request);
    let notes = misses(&notes);
    let mapped = match mapped {
        Ok(mapped) => mapped,
        Err(refusal) => {
            return json!({ "source": source.config.name, "misses": notes, "refused": refused(&refusal) });
        }
    };
    let id = DeliveryId {
        event: EventId::new(),
        number: 0,
    };
    let call = mapped
        .filtered
        .is_none()
        .then(|| source.owed(id, mapped.thread.as_deref()))
        .flatten();
    let call = call.map(|owed| {
        let claimed = Claimed {
            id,
            key: 0,
            lane: Uuid::nil(),
            fence: 0,
            destination: owed.destination,
            account: owed.account,
            class: owed.class,
            upstream_id: owed.upstream_id,
            attempt: 1,
            strikes: 1,
            doubt: None,
            source: source.config.name.clone(),
            event_type: mapped.event_type.clone(),
            thread: mapped.thread.clone(),
            received_at: Timestamp::default(),
            params: mapped.params.clone(),
            headers: source.kept(request).headers,
            body: request.body.clone(),
            attachments: Vec::new(),
            sealed: None,
            answers: None,
            merged: Vec::new(),
            dropped: 0,
        };
        let call = Call::new(&claimed, &source.config, &Marks::default());
        json!({ "path": call.path, "body": body(&call.body.to_json()) })
    });
    json!({
        "source": source.config.name,
        "event_type": mapped.event_type,
        "dedup": mapped.dedup,
        "thread": mapped.thread,
        "filtered": mapped.filtered,
        "params": mapped.params.iter().map(|one| with_backing(source, one)).collect::<Vec<_>>(),
        "notes": mapped.params.notes().sentences(),
        "misses": notes,
        "call": call,
    })
}

fn at_dropin(config: &Config, capture: &Capture) -> Value {
    let kind = capture
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let parts = match multipart::is_form(kind) {
        true => match fields::in_parts(kind, &capture.body) {
            Ok(form) => Some(form.fields),
            Err(fault) => {
                let refusal = Refusal::Malformed(fault.to_string());
                return json!({ "source": "dropin", "refused": refused(&refusal) });
            }
        },
        false => None,
    };
    let (path, query) = capture
        .target
        .split_once('?')
        .unwrap_or((&capture.target, ""));
    let (read, notes) = reading::explain(&reading::CallRequest {
        path_agent: path.trim_matches('/'),
        query,
        content_type: kind,
        body: parts.as_deref().map_or(
            reading::CallBody::Whole(&capture.body),
            reading::CallBody::Parts,
        ),
    });
    explain::call(&config.dropin, &read, &notes, &Marks::default())
}

/// The same, with on whose word it stands once the request is proved.
fn with_backing(source: &Source, one: &Param) -> Value {
    let mut view = param(one);
    view["backing"] = source
        .backing(Strength::Signed.as_str(), &one.origin)
        .as_str()
        .into();
    view
}

/// A body that we have made ourselves.
fn body(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// The same for people.
fn printed(view: &Value) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let mut line = |label: &str, text: &str| {
        let _ = writeln!(
            out,
            "{}",
            prose(&format!("{label:<18} {text}"), out_columns())
        );
    };
    line("source", &plain(&view["source"]));
    if let Some(count) = view.get("items") {
        line(
            "items",
            &format!("{count} in this request, each an event of its own; this is the first"),
        );
    }
    for (label, key) in [
        ("agent", "agent_id"),
        ("event type", "event_type"),
        ("dedup key", "dedup"),
        ("thread", "thread"),
    ] {
        match view.get(key) {
            Some(Value::Null) => line(label, "none"),
            Some(value) => line(label, &shown(&plain(value))),
            None => {}
        }
    }
    match view.get("filtered") {
        Some(Value::Null) => line("filter", "passes"),
        Some(rule) => line("filter", &format!("goes no further: {}", plain(rule))),
        None => {}
    }
    print_params(view, &mut line);
    print_settings(view, &mut line);
    for miss in list(view, "misses") {
        let near = miss["near"]
            .as_str()
            .map_or_else(String::new, |near| format!("; {near} leads to a value"));
        let (of, path, why) = (
            plain(&miss["of"]),
            plain(&miss["path"]),
            plain(&miss["why"]),
        );
        line("found nothing", &format!("{of}: {path} {why}{near}"));
    }
    if let Some(refused) = view.get("refused") {
        line(
            "refused",
            &format!("{}: {}", plain(&refused["code"]), plain(&refused["cause"])),
        );
    }
    if let Some(call) = view.get("call").filter(|call| !call.is_null()) {
        line("call", &format!("POST {}", plain(&call["path"])));
        let _ = write!(out, "{:#}", call["body"]);
    }
    out
}

/// A text without its quotes; anything else as JSON.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The items of a list; nothing where there is no list.
fn list<'v>(view: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    view.get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Prints each parameter, its origin, and the values that it went before.
fn print_params(view: &Value, line: &mut impl FnMut(&str, &str)) {
    for param in list(view, "params") {
        line(
            &plain(&param["name"]),
            &format!("{:?}", shown(&plain(&param["value"]))),
        );
        let backing = param["backing"]
            .as_str()
            .map_or_else(String::new, |backing| format!(" ({backing})"));
        line("", &format!("from {}{backing}", plain(&param["from"])));
        for over in param["over"].as_array().into_iter().flatten() {
            line("", &format!("over {}", plain(over)));
        }
    }
}

/// Prints each setting of the call, and the places that it went before.
fn print_settings(view: &Value, line: &mut impl FnMut(&str, &str)) {
    for setting in list(view, "settings") {
        let over: Vec<String> = list(setting, "over").map(plain).collect();
        let over = if over.is_empty() {
            String::new()
        } else {
            format!(", over the {}", over.join(", the "))
        };
        line(
            &plain(&setting["name"]),
            &format!("from the {}{over}", plain(&setting["from"])),
        );
    }
}

/// A value on one line of the terminal.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(200).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
