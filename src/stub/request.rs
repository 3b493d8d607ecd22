//! Check of an invoke request against the API's schema: required fields, types of fields, and fields that are dropped.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use super::ledger::{InvokeRequest, RequestRecord};

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

/// Reads a request for an agent or a workflow. The error is the value of `detail` in a 422.
pub(super) fn read(
    kind: &str,
    agent_id: &str,
    headers: &HeaderMap,
    request: RequestRecord,
) -> Result<InvokeRequest, Value> {
    let wrong = |loc: &[&str], kind: &str, msg: &str| json!({"type": kind, "loc": loc, "msg": msg});
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
    let not_an_object = "Input should be a valid dictionary or object to extract fields from";
    if !is_json {
        return Err(json!([wrong(
            &["body"],
            "model_attributes_type",
            not_an_object
        )]));
    }
    let mut body = match serde_json::from_slice::<Value>(&request.body) {
        Ok(Value::Object(body)) => body,
        Ok(_) => {
            return Err(json!([wrong(
                &["body"],
                "model_attributes_type",
                not_an_object
            )]));
        }
        Err(_) => {
            return Err(json!([wrong(
                &["body"],
                "json_invalid",
                "JSON decode error"
            )]));
        }
    };
    body.retain(|_, value| !value.is_null());

    let mut problems = Vec::new();
    let mut check = |loc: &[&str], right: bool, kind: &str, msg: &str| {
        if !right {
            problems.push(wrong(loc, kind, msg));
        }
    };
    let (text, object) = (
        ("string_type", "Input should be a valid string"),
        ("dict_type", "Input should be a valid dictionary"),
    );
    for key in TEXTS {
        check(
            &["body", key],
            body.get(*key).is_none_or(Value::is_string),
            text.0,
            text.1,
        );
    }
    for (key, words) in WORDS {
        let right = body
            .get(*key)
            .is_none_or(|value| value.as_str().is_some_and(|word| words.contains(&word)));
        check(
            &["body", key],
            right,
            "enum",
            &format!("Input should be one of {}", words.join(", ")),
        );
    }
    for key in OBJECTS {
        check(
            &["body", key],
            body.get(*key).is_none_or(Value::is_object),
            object.0,
            object.1,
        );
    }
    for key in TRUTHS {
        let right = body
            .get(*key)
            .is_none_or(|value| value.is_boolean() || value.is_string());
        check(
            &["body", key],
            right,
            "bool_type",
            "Input should be a valid boolean",
        );
    }
    check(
        &["body", "mcp_servers"],
        body.get("mcp_servers").is_none_or(|all| {
            all.as_array()
                .is_some_and(|all| all.iter().all(Value::is_object))
        }),
        "list_type",
        "Input should be a valid list",
    );

    let mut known = Map::new();
    match body.remove("input") {
        None => check(&["body", "input"], false, "missing", "Field required"),
        Some(Value::Object(mut input)) => {
            input.retain(|_, value| !value.is_null());
            let said = input.remove("text").unwrap_or_else(|| "".into());
            check(&["body", "input", "text"], said.is_string(), text.0, text.1);
            known.insert("text".into(), said);
            let files = input.remove("files").unwrap_or_else(|| json!([]));
            let right = files
                .as_array()
                .is_some_and(|files| files.iter().all(Value::is_string));
            check(
                &["body", "input", "files"],
                right,
                "list_type",
                "Input should be a valid list",
            );
            known.insert("files".into(), files);
            if let Some(user) = input.remove("user") {
                check(
                    &["body", "input", "user"],
                    user.is_object(),
                    object.0,
                    object.1,
                );
                let email = user.get("email").filter(|email| !email.is_null());
                let loc = ["body", "input", "user", "email"];
                check(
                    &loc,
                    !user.is_object() || email.is_some(),
                    "missing",
                    "Field required",
                );
                check(&loc, email.is_none_or(Value::is_string), text.0, text.1);
                for key in ["id", "first_name", "last_name"] {
                    let right = user
                        .get(key)
                        .is_none_or(|value| value.is_string() || value.is_null());
                    check(&["body", "input", "user", key], right, text.0, text.1);
                }
                known.insert("user".into(), user);
            }
        }
        Some(_) => check(&["body", "input"], false, object.0, object.1),
    }
    if !problems.is_empty() {
        return Err(problems.into());
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
        input: known,
        fields: body,
        request,
    })
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
