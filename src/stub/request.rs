//! Check of an invoke request against the API's schema: required fields, types of fields, and fields that are dropped.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

/// A call that is well formed.
#[derive(Debug)]
pub(super) struct InvokeRequest {
    /// `agents` or `workflows`, and the id.
    pub(super) destination: String,
    /// The agent's or workflow's id.
    pub(super) agent_id: String,
    /// The record to continue.
    pub(super) id: Option<String>,
    /// `input`, with the fields that are known.
    pub(super) input: Map<String, Value>,
    /// The other fields that a task shows.
    pub(super) fields: Map<String, Value>,
    /// The request as it came.
    pub(super) request: RequestRecord,
}

impl InvokeRequest {
    /// The text of the input.
    pub(super) fn text(&self) -> &str {
        self.input
            .get("text")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Digest of destination, id and text, by which equal calls are counted.
    pub(super) fn digest(&self) -> u64 {
        let mut digest = DefaultHasher::new();
        (&self.destination, &self.id, self.text()).hash(&mut digest);
        digest.finish()
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct RequestRecord {
    /// The query.
    pub(super) query: String,
    /// The headers' names; their values may be secrets.
    pub(super) headers: Vec<String>,
    /// The body.
    pub(super) body: Bytes,
}

impl RequestRecord {
    /// Size of the record in memory.
    pub(super) fn size(&self) -> usize {
        self.body.len() + self.query.len() + self.headers.iter().map(String::len).sum::<usize>()
    }
}

const TEXTS: &[&str] = &[
    "id",
    "source",
    "title",
    "additional_context",
    "instructions_override",
    "expected_output",
    "user_oidc_token",
    "llm_model_provider",
    "llm_model_name",
];
const WORDS: &[(&str, &[&str])] = &[
    (
        "source_node_type",
        &[
            "workbench",
            "sdk",
            "task",
            "assistant",
            "webhook",
            "mcp",
            "a2a",
            "telegram",
            "slack",
            "email",
            "api",
        ],
    ),
    ("output_format", &["text", "markdown", "json", "voice"]),
    ("think_mode", &["default", "harder"]),
    ("llm_reasoning_effort", &["low", "medium", "high", "xhigh"]),
];
const OBJECTS: &[&str] = &["output_schema", "user_tokens", "payload_extension"];
const TRUTHS: &[&str] = &["disable_attachment_injection", "events_streaming"];

/// Fields from above that a task shows.
const SHOWN: &[&str] = &[
    "source",
    "source_node_type",
    "title",
    "llm_model_provider",
    "llm_model_name",
    "llm_reasoning_effort",
];

const TEXT: (&str, &str) = ("string_type", "Input should be a valid string");
const OBJECT: (&str, &str) = ("dict_type", "Input should be a valid dictionary");

/// Mistakes of a request, each as an entry of `detail` in a 422.
#[derive(Default)]
struct Mistakes(Vec<Value>);

impl Mistakes {
    fn check(&mut self, loc: &[&str], is_right: bool, (kind, msg): (&str, &str)) {
        if !is_right {
            self.0.push(mistake(loc, kind, msg));
        }
    }
}

fn mistake(loc: &[&str], kind: &str, msg: &str) -> Value {
    json!({"type": kind, "loc": loc, "msg": msg})
}

/// Reads a request for an agent or a workflow. The error is the value of `detail` in a 422.
pub(super) fn read(
    kind: &str,
    agent_id: &str,
    headers: &HeaderMap,
    request: RequestRecord,
) -> Result<InvokeRequest, Value> {
    let mut body = object(headers, &request.body)?;
    body.retain(|_, value| !value.is_null());

    let mut mistakes = Mistakes::default();
    check_fields(&body, &mut mistakes);
    let input = match body.remove("input") {
        None => {
            mistakes.check(&["body", "input"], false, ("missing", "Field required"));
            Map::new()
        }
        Some(Value::Object(input)) => read_input(input, &mut mistakes),
        Some(_) => {
            mistakes.check(&["body", "input"], false, OBJECT);
            Map::new()
        }
    };
    if !mistakes.0.is_empty() {
        return Err(mistakes.0.into());
    }
    let id = body
        .get("id")
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty())
        .map(str::to_owned);
    body.retain(|key, _| SHOWN.contains(&key.as_str()));
    Ok(InvokeRequest {
        destination: format!("{kind}/{agent_id}"),
        agent_id: agent_id.to_owned(),
        id,
        input,
        fields: body,
        request,
    })
}

/// The JSON object that the body has to be.
fn object(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, Value> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let content_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let is_json = content_type == "application/json"
        || (content_type.starts_with("application/") && content_type.ends_with("+json"));
    let not_an_object = || {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        json!([mistake(&["body"], "model_attributes_type", msg)])
    };
    if !is_json {
        return Err(not_an_object());
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err(not_an_object()),
        Err(_) => Err(json!([mistake(
            &["body"],
            "json_invalid",
            "JSON decode error"
        )])),
    }
}

/// Checks the types of the fields beside `input`.
fn check_fields(body: &Map<String, Value>, mistakes: &mut Mistakes) {
    for key in TEXTS {
        let is_right = body.get(*key).is_none_or(Value::is_string);
        mistakes.check(&["body", key], is_right, TEXT);
    }
    for (key, words) in WORDS {
        let is_right = body
            .get(*key)
            .is_none_or(|value| value.as_str().is_some_and(|word| words.contains(&word)));
        let msg = format!("Input should be one of {}", words.join(", "));
        mistakes.check(&["body", key], is_right, ("enum", &msg));
    }
    for key in OBJECTS {
        let is_right = body.get(*key).is_none_or(Value::is_object);
        mistakes.check(&["body", key], is_right, OBJECT);
    }
    for key in TRUTHS {
        let is_right = body
            .get(*key)
            .is_none_or(|value| value.is_boolean() || value.is_string());
        let wrong = ("bool_type", "Input should be a valid boolean");
        mistakes.check(&["body", key], is_right, wrong);
    }
    let is_right = body.get("mcp_servers").is_none_or(|all| {
        all.as_array()
            .is_some_and(|all| all.iter().all(Value::is_object))
    });
    let wrong = ("list_type", "Input should be a valid list");
    mistakes.check(&["body", "mcp_servers"], is_right, wrong);
}

/// Checks `input` and keeps its known fields.
fn read_input(mut input: Map<String, Value>, mistakes: &mut Mistakes) -> Map<String, Value> {
    input.retain(|_, value| !value.is_null());
    let mut known = Map::new();
    let text = input.remove("text").unwrap_or_else(|| "".into());
    mistakes.check(&["body", "input", "text"], text.is_string(), TEXT);
    known.insert("text".into(), text);
    let files = input.remove("files").unwrap_or_else(|| json!([]));
    let is_right = files
        .as_array()
        .is_some_and(|files| files.iter().all(Value::is_string));
    let wrong = ("list_type", "Input should be a valid list");
    mistakes.check(&["body", "input", "files"], is_right, wrong);
    known.insert("files".into(), files);
    if let Some(user) = input.remove("user") {
        mistakes.check(&["body", "input", "user"], user.is_object(), OBJECT);
        let email = user.get("email").filter(|email| !email.is_null());
        let loc = ["body", "input", "user", "email"];
        let is_there = !user.is_object() || email.is_some();
        mistakes.check(&loc, is_there, ("missing", "Field required"));
        mistakes.check(&loc, email.is_none_or(Value::is_string), TEXT);
        for key in ["id", "first_name", "last_name"] {
            let is_right = user
                .get(key)
                .is_none_or(|value| value.is_string() || value.is_null());
            mistakes.check(&["body", "input", "user", key], is_right, TEXT);
        }
        known.insert("user".into(), user);
    }
    known
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read_as(content_type: &'static str, body: &str) -> Result<InvokeRequest, Value> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let request = RequestRecord {
            query: String::new(),
            headers: vec![],
            body: body.to_owned().into(),
        };
        read("agents", "a", &headers, request)
    }

    #[test]
    fn what_does_not_fit_the_schema_is_refused_with_its_place() {
        for (body, loc) in [
            ("{", r#"["body"]"#),
            ("[]", r#"["body"]"#),
            ("{}", r#"["body","input"]"#),
            (r#"{"input":null}"#, r#"["body","input"]"#),
            (r#"{"input":"hi"}"#, r#"["body","input"]"#),
            (r#"{"input":{"text":1}}"#, r#"["body","input","text"]"#),
            (r#"{"input":{"files":[1]}}"#, r#"["body","input","files"]"#),
            (
                r#"{"input":{"user":{}}}"#,
                r#"["body","input","user","email"]"#,
            ),
            (r#"{"input":{},"id":7}"#, r#"["body","id"]"#),
            (
                r#"{"input":{},"think_mode":"hard"}"#,
                r#"["body","think_mode"]"#,
            ),
            (
                r#"{"input":{},"user_tokens":"{}"}"#,
                r#"["body","user_tokens"]"#,
            ),
        ] {
            let detail = read_as("application/json", body).unwrap_err();
            assert_eq!(detail[0]["loc"].to_string(), loc, "{body}");
        }
        assert!(read_as("application/x-www-form-urlencoded", r#"{"input":{}}"#).is_err());
    }

    #[test]
    fn unknown_fields_vanish_and_null_is_absent() {
        let told = read_as(
            "application/json; charset=utf-8",
            r#"{"input":{"text":"hi","images":[1],"user":null},"id":null,"source":"webhook","prompt":"x"}"#,
        )
        .unwrap();
        assert_eq!(Value::from(told.input), json!({"text": "hi", "files": []}));
        assert_eq!(Value::from(told.fields), json!({"source": "webhook"}));
        assert_eq!(told.id, None);
    }
}
