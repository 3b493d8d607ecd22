//! Channels for tests, and the channels of the provider files.

mod bots;
mod described;
mod forges;
mod phones;
mod slack;

use std::collections::BTreeSet;

use http::HeaderMap;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    CallContext, CallError, CallMessage, CallOf, ChannelAnswer, ChannelCall, ChannelSecrets,
    ChannelSpec, ChannelVerdict, EventFields, Judgement, OutgoingPart, ReplyAddress,
};
use crate::config::chat::ChatConfig;
use crate::config::reply::ReplyConfig;
use crate::config::{Problems, Section, Table};
use crate::model::Timestamp;

/// The problems of a `[reply]` section, one a line.
pub(crate) fn problems(text: &str) -> Vec<String> {
    compile(text).err().unwrap_or_default()
}

pub(crate) fn compile(text: &str) -> Result<ChannelSpec, Vec<String>> {
    let problems = Problems::default();
    let table = Table::parse("channel.toml", text, &problems);
    let spec = {
        let file = Section::new(&table, "", &problems);
        let written = file
            .section("reply")
            .and_then(|reply| ReplyConfig::read(&reply));
        written.and_then(|written| ChannelSpec::compile(&written, &problems))
    };
    let list = problems.into_sorted();
    match spec {
        Some(spec) if list.is_empty() => Ok(spec),
        _ => Err(list.iter().map(ToString::to_string).collect()),
    }
}

pub(crate) fn spec(text: &str) -> ChannelSpec {
    compile(text).unwrap_or_else(|problems| panic!("{}", problems.join("\n")))
}

/// A channel with this address and nothing else of interest.
pub(crate) fn rule(to: &str) -> ChannelSpec {
    spec(&format!(
        "[reply]\napi = 'https://api.example.com'\nlimit = 100\n{to}\n[[reply.send]]\ntarget = '/send'\nbody = {{ text = '{{text}}' }}\n"
    ))
}

/// The channel of a provider file.
pub(crate) fn provider(name: &str) -> ChannelSpec {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join(format!("config/providers/{name}.toml"));
    let text = std::fs::read_to_string(file).expect("the file of the provider");
    let begin = text.find("\n[reply]").expect("a section [reply]");
    spec(&text[begin..])
}

pub(crate) fn telegram() -> ChannelSpec {
    provider("telegram")
}

/// The key of every call in these tests.
const KEY: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

/// A section `[reply]` and an event.
type TextAndEvent = (&'static str, Value);

/// A channel and the address of an answer to one event.
struct Chat {
    spec: ChannelSpec,
    address: ReplyAddress,
    without: BTreeSet<String>,
}

impl Chat {
    fn of_json(provider_name: &str, event: Value) -> Self {
        Self::of(provider_name, &event, &[])
    }

    fn of_form(provider_name: &str, form: &[(&str, &str)]) -> Self {
        Self::of(provider_name, &Value::Null, form)
    }

    fn described((text, event): TextAndEvent) -> Self {
        Self::of_spec(spec(text), &event, &[])
    }

    fn of(provider_name: &str, json: &Value, form: &[(&str, &str)]) -> Self {
        Self::of_spec(provider(provider_name), json, form)
    }

    fn of_spec(spec: ChannelSpec, json: &Value, form: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let form: Vec<_> = form.iter().map(owned).collect();
        let event = EventFields {
            json,
            form: &form,
            query: &[],
            headers: &HeaderMap::new(),
        };
        Self {
            address: spec.address(&event).expect("an address"),
            spec,
            without: BTreeSet::new(),
        }
    }

    /// The same channel at a host of the operator.
    fn at(mut self, api: &str) -> Self {
        self.spec = self.spec.at(&api.parse().expect("an address"));
        self
    }

    fn call(&self, of: CallOf) -> Result<ChannelCall, CallError> {
        let values = [("bot_name".to_owned(), "Gate".to_owned())];
        let context = CallContext {
            address: &self.address,
            without: &self.without,
            values: &values,
            secrets: ChannelSecrets {
                token: Some("T0KEN"),
                basic: Some(("user", "T0KEN")),
                signing_key: Some(b"key"),
            },
            event_id: "e1",
            status: "completed",
            now: Timestamp::from_seconds(1_700_000_000),
        };
        let part = OutgoingPart {
            text: "*hello*".into(),
            markup: Some("*hello*".into()),
            plain: "hello".into(),
            ..OutgoingPart::default()
        };
        let id = json!("m7");
        let message = CallMessage {
            parts: &[part],
            total: 1,
            key: Some(KEY),
            sent: Some(&id),
            quotes: true,
            since: Some(Timestamp::from_seconds(1_699_999_000)),
            ..CallMessage::default()
        };
        self.spec.call(of, &context, message)
    }

    /// Asserts the method and address, and the body.
    fn calls(&self, of: CallOf, line: &str, body: &str) {
        let call = self.call(of).expect("a call");
        assert_eq!(format!("{} {}", call.method, call.url), line);
        assert_eq!(String::from_utf8_lossy(&call.body), body);
        let printed = format!("{call:?}");
        assert!(!printed.contains("T0KEN"), "{printed}");
    }

    fn header(&self, of: CallOf, name: &str) -> String {
        let call = self.call(of).expect("a call");
        let value = call.headers.get(name).expect("the header");
        value.to_str().expect("text").to_owned()
    }

    fn judged(&self, status: u16, body: &str) -> Judgement {
        let answer = ChannelAnswer {
            status,
            headers: &HeaderMap::new(),
            body: body.as_bytes(),
        };
        self.spec
            .judge(&answer, Timestamp::from_seconds(1_700_000_000))
    }

    fn verdict(&self, status: u16, body: &str) -> ChannelVerdict {
        self.judged(status, body).verdict
    }

    /// Asserts the word of the verdict on each answer.
    fn verdicts(&self, cases: &[(u16, &str, &str)]) {
        for (status, body, expected) in cases {
            let found = format!("{:?}", self.verdict(*status, body));
            assert!(found.starts_with(expected), "{status} {body}: {found}");
        }
    }
}

/// A channel with most of what a section may say.
pub(crate) const TELEGRAM: &str = r#"
[reply]
api    = "https://api.telegram.org"
to.chat  = "json:*.chat.id"
to.topic = "json?:*.message_thread_id"
format = "telegram"
limit  = 4096
unit   = "utf16"
over   = "text"

[[reply.send]]
target = "/bot{token}/sendMessage"
body   = { chat_id = "{chat}", message_thread_id = "{topic?}", text = "{text}", entities = "{entities?}" }
"#;

#[test]
fn every_section_of_a_provider_file_compiles() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/providers");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root).expect("the folder") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a file");
        if text.contains("\n[reply]") {
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let doc = provider(&name).doc();
            assert!(!doc.once.is_empty(), "{name}");
            chat(&name, &text);
            names.push(name);
        }
    }
    assert!(names.len() >= 13, "saw {names:?}");
}

/// Reads the section `[chat]` of a provider file, which must be without mistakes.
fn chat(name: &str, text: &str) {
    let problems = Problems::default();
    let begin = text.find("\n[chat]").unwrap_or(text.len());
    let table = Table::parse(name, &text[begin..], &problems);
    for (key, _, node) in &table.entries {
        if let (true, crate::config::Value::Table(table)) = (key == "chat", &node.value) {
            let section = Section::new(table, "chat", &problems);
            let chat = ChatConfig::read(&section);
            assert!(!chat.thread.is_empty() && chat.chat.is_some(), "{name}");
        }
    }
    let found = problems.into_sorted();
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
