//! Explanation of a call to its caller: the origin of each parameter, the paths that gave no value, and the request that
//! would be sent upstream. Nothing of it is kept or sent.

use http::header::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use crate::config::{DropIn, RunMode};
use crate::mapping::PathMiss;
use crate::model::{EventId, HostedCall, Marks, Name, Origin, Param, Refusal};
use crate::upstream::hosted;

const HEADER: HeaderName = HeaderName::from_static("x-sluicegate-explain");

/// True if a caller asks for the explanation of its call.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    headers
        .get(HEADER)
        .is_some_and(|value| !matches!(value.as_bytes(), b"" | b"0" | b"false"))
}

/// Explains how a request at the drop-in was read.
pub fn call(
    config: &DropIn,
    read: &Result<HostedCall, Refusal>,
    notes: &[PathMiss],
    marks: &Marks,
) -> Value {
    let call = match read {
        Ok(call) => call,
        Err(refusal) => {
            return json!({ "source": "dropin", "misses": misses(notes), "refused": refused(refusal) });
        }
    };
    let manner = if call.asynchronous {
        RunMode::Async
    } else {
        RunMode::Call
    };
    let sent = hosted::body(call, config, None, EventId::new(), marks);
    let mut sent: Value = serde_json::from_slice(&sent.to_json()).unwrap_or_default();
    if let Some(tokens) = sent.get_mut("user_tokens") {
        *tokens = "***".into();
    }
    let settings = call.settings.iter();
    let settings: Vec<Value> = settings
        .map(|setting| json!({ "name": setting.name, "from": setting.from, "over": setting.over }))
        .collect();
    json!({
        "source": "dropin",
        "agent_id": call.agent_id,
        "params": call.params.iter().map(param).collect::<Vec<_>>(),
        "settings": settings,
        "misses": misses(notes),
        "call": { "path": hosted::path(call, manner), "body": sent },
    })
}

/// Paths that gave no value, each with one that would, where there is one like it.
pub fn misses(notes: &[PathMiss]) -> Vec<Value> {
    let miss = |note: &PathMiss| {
        let mut miss = json!({ "of": note.of, "path": note.path, "why": note.miss.as_str() });
        if let Some(near) = &note.near {
            miss["near"] = near.as_str().into();
        }
        miss
    };
    notes.iter().map(miss).collect()
}

/// The reason why a request makes no call.
pub fn refused(refusal: &Refusal) -> Value {
    json!({ "code": refusal.code(), "cause": refusal.cause() })
}

/// A parameter and where it came from.
pub fn param(param: &Param) -> Value {
    json!({
        "name": param.name.as_str(),
        "value": param.value,
        "from": origin(&param.origin, param.name),
        "over": param.over.iter().map(|over| origin(over, param.name)).collect::<Vec<_>>(),
    })
}

fn origin(origin: &Origin, name: Name) -> String {
    match origin {
        Origin::Mapping(path) => format!("params_mapping {path}"),
        Origin::Template => "the source's prompt template".into(),
        Origin::Fixed => "the fixed value".into(),
        Origin::Query => format!("the query's {}", name.as_str()),
        Origin::Body => format!("the body's {}", name.as_str()),
        Origin::Default => "the default".into(),
        Origin::Event => "nothing gave one: the event itself".into(),
    }
}
