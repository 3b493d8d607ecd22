//! Handshakes: what a provider asks before it sends events, answered at the edge and never passed on.
//!
//! An answer reflects what a stranger sent, so it is small, plain text or JSON, and marked as not to be guessed at.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Map, Value as Answered};

use super::Answer;
use super::content::{Context, Setup, Template};
use super::field::{Field, Request};
use super::mac::{Key, same};
use super::scheme::{Given, Scheme};
use crate::config::{Located, Node, Section, Table, Value as Toml};
use crate::model::{Received, Refusal, Timestamp};

/// The largest answer.
const MOST_BYTES: usize = 1024;

/// One handshake, compiled.
#[derive(Debug)]
pub(super) struct Challenge {
    pub(super) method: Option<Method>,
    when: Vec<(Field, Want)>,
    signed: bool,
    require: Vec<(Field, Template)>,
    reply: Reply,
}

#[derive(Debug)]
enum Want {
    Present,
    Absent,
    Is(String),
}

#[derive(Debug)]
struct Reply {
    status: u16,
    content_type: &'static str,
    body: Body,
    headers: Vec<(HeaderName, Template)>,
}

#[derive(Debug)]
enum Body {
    Empty,
    Text(Template),
    Json(Shape),
}

/// A JSON value whose texts are templates.
#[derive(Debug)]
enum Shape {
    Text(Template),
    Other(Answered),
    List(Vec<Shape>),
    Object(Vec<(String, Shape)>),
}

const PLAIN: &str = "text/plain; charset=utf-8";

impl Challenge {
    /// Compiles a `[[challenge]]` table. `declared` is the section whose `config` names the operator's values.
    pub(super) fn compile(table: &Table, name: &str, setup: &Setup<'_>, given: &Given<'_>) -> Option<Self> {
        let problems = given.problems;
        let section = Section::new(table, name, problems);
        let mut whole = true;
        if let Some(node) = section.node("store_secret") {
            whole = false;
            problems.error_hint(
                &node.place,
                "a handshake that delivers the secret is not supported yet by this version",
                "give the secret as configuration",
            );
        }
        if let Some(status) = section.integer("otherwise")
            && status.value != 403
        {
            problems.error(&status.place, format!("{} can only be 403 in this version", section.path("otherwise")));
        }
        let method = match section.text("method") {
            None => None,
            Some(word) => {
                let known = [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST];
                let method = known.into_iter().find(|method| method.as_str() == word.value);
                if method.is_none() {
                    let what = format!("{} must be GET, HEAD, OPTIONS or POST", section.path("method"));
                    problems.error(&word.place, what);
                }
                whole &= method.is_some();
                method
            }
        };
        let mut when = Vec::new();
        for (field, text) in section.text_table("when").unwrap_or_default() {
            let want = match text.value.as_str() {
                "*" => Want::Present,
                "!" => Want::Absent,
                _ => Want::Is(text.value),
            };
            match Field::parse(&field, problems) {
                Some(field) => when.push((field, want)),
                None => whole = false,
            }
        }
        if whole && when.is_empty() && method.as_ref().is_none_or(|method| method == Method::POST) {
            let what = format!("{} would answer every request", section.name());
            problems.error_hint(section.place(), what, "say which with when = { … } or a method");
            whole = false;
        }
        let mut require = Vec::new();
        for (field, text) in section.text_table("require").unwrap_or_default() {
            match (Field::parse(&field, problems), Template::compile(&text, setup)) {
                (Some(field), Some(template)) => require.push((field, template)),
                _ => whole = false,
            }
        }
        let signed = section.bool("signed").is_some_and(|yes| yes.value);
        let reply = match section.section("reply") {
            Some(reply) => Reply::read(&reply, setup),
            None => {
                problems.error(section.place(), format!("{} is missing", section.path("reply")));
                None
            }
        };
        whole.then_some(Self { method, when, signed, require, reply: reply? })
    }

    /// Answers a request that is this challenge. None: it is another, or none.
    pub(super) fn answer(
        &self,
        received: &Received,
        scheme: &Scheme,
        now: Timestamp,
    ) -> Option<Result<Answer, Refusal>> {
        if self.method.as_ref().is_some_and(|method| *method != received.method) {
            return None;
        }
        let request = Request::new(received, &scheme.document);
        self.when.iter().all(|(field, want)| want.met(field, &request)).then(|| {
            let mut key = scheme.keys().first();
            if self.signed {
                let proof = crate::model::Verify::judge(scheme, received, now)?;
                key = scheme.keys().iter().find(|key| Some(key.name()) == proof.secret.as_deref()).or(key);
            }
            self.reply(&request, key)
        })
    }

    fn reply(&self, request: &Request<'_>, key: Option<&Key>) -> Result<Answer, Refusal> {
        let context = Context { request, item: None, fields: &[], ts: None, key };
        for (field, template) in &self.require {
            let given = context.text(field).map_err(Refusal::Challenge)?.unwrap_or_default();
            let expected = template.bytes(&context).map_err(Refusal::Challenge)?;
            if !same(&expected, &given) {
                return Err(Refusal::Challenge(format!("{field} is not what the configuration says")));
            }
        }
        self.reply.render(&context).map_err(Refusal::Challenge)
    }
}

impl Want {
    fn met(&self, field: &Field, request: &Request<'_>) -> bool {
        if let (Self::Is(text), Field::Json(_)) = (self, field)
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
            && !contains(&request.received.body, text)
        {
            // No sender writes such letters escaped, so a body without them is another request: most are, and need
            // not be read as JSON before their signature is checked.
            return false;
        }
        // A document that cannot be read is no challenge; what it is will be said when it is verified.
        let found = request.text(field, None).unwrap_or_default();
        match self {
            Self::Present => found.is_some(),
            Self::Absent => found.is_none(),
            Self::Is(text) => found.is_some_and(|found| &*found == text.as_bytes()),
        }
    }
}

fn contains(body: &[u8], text: &str) -> bool {
    std::str::from_utf8(body).is_ok_and(|body| body.contains(text))
}

impl Reply {
    fn read(section: &Section<'_>, setup: &Setup<'_>) -> Option<Self> {
        let problems = section.problems();
        let status = section.integer("status").map_or(Some(200), |status| {
            let good = u16::try_from(status.value).ok().filter(|code| (200..300).contains(code));
            if good.is_none() {
                problems.error(&status.place, format!("{} must be from 200 to 299", section.path("status")));
            }
            good
        });
        let text = section.text("text");
        let json = section.node("json");
        let kind = section.one_of("type", &[("text/plain", PLAIN), ("application/json", "application/json")]);
        let body = match (&text, json) {
            (Some(_), Some(node)) => {
                problems.error(&node.place, format!("{} has both text and json", section.name()));
                None
            }
            (Some(text), None) => Template::compile(text, setup).map(Body::Text),
            (None, Some(node)) => Shape::read(node, setup).map(Body::Json),
            (None, None) => Some(Body::Empty),
        };
        let mut headers = Some(Vec::new());
        for (name, value) in section.text_table("headers").unwrap_or_default() {
            let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
            if parsed.is_none() {
                problems.error(&name.place, "this is no name of a header");
            }
            headers = headers.zip(parsed.zip(Template::compile(&value, setup))).map(|(mut all, header)| {
                all.push(header);
                all
            });
        }
        let default = if json.is_some() { "application/json" } else { PLAIN };
        Some(Self {
            status: status?,
            content_type: kind.map_or(default, |kind| kind.value),
            body: body?,
            headers: headers?,
        })
    }

    fn render(&self, context: &Context<'_, '_>) -> Result<Answer, String> {
        let body = match &self.body {
            Body::Empty => Vec::new(),
            Body::Text(template) => template.bytes(context)?,
            Body::Json(shape) => shape.render(context)?.to_string().into_bytes(),
        };
        if body.len() > MOST_BYTES {
            return Err(format!("the answer to the challenge would be larger than {MOST_BYTES} bytes"));
        }
        let mut headers = vec![("x-content-type-options".to_owned(), "nosniff".to_owned())];
        for (name, template) in &self.headers {
            let value = template.bytes(context)?;
            let value = HeaderValue::from_bytes(&value).ok().filter(|value| value.len() <= MOST_BYTES);
            match value.as_ref().and_then(|value| value.to_str().ok()) {
                Some(value) => headers.push((name.as_str().to_owned(), value.to_owned())),
                None => return Err(format!("the challenge cannot be answered in the header {name}")),
            }
        }
        Ok(Answer { status: self.status, content_type: self.content_type.to_owned(), headers, body: Bytes::from(body) })
    }
}

impl Shape {
    fn read(node: &Node, setup: &Setup<'_>) -> Option<Self> {
        Some(match &node.value {
            Toml::Text(text) => {
                Self::Text(Template::compile(&Located { value: text.clone(), place: node.place.clone() }, setup)?)
            }
            Toml::Integer(number) => Self::Other((*number).into()),
            Toml::Float(number) => Self::Other((*number).into()),
            Toml::Bool(yes) => Self::Other((*yes).into()),
            Toml::Time(text) => Self::Other(text.clone().into()),
            Toml::List(items) => Self::List(items.iter().map(|item| Self::read(item, setup)).collect::<Option<_>>()?),
            Toml::Table(table) => Self::Object(
                table
                    .entries
                    .iter()
                    .map(|(key, _, node)| Some((key.clone(), Self::read(node, setup)?)))
                    .collect::<Option<_>>()?,
            ),
        })
    }

    fn render(&self, context: &Context<'_, '_>) -> Result<Answered, String> {
        Ok(match self {
            Self::Text(template) => {
                let text = String::from_utf8(template.bytes(context)?);
                Answered::String(text.map_err(|_| "the challenge is no text".to_owned())?)
            }
            Self::Other(value) => value.clone(),
            Self::List(items) => {
                Answered::Array(items.iter().map(|item| item.render(context)).collect::<Result<_, _>>()?)
            }
            Self::Object(entries) => {
                let mut object = Map::new();
                for (key, shape) in entries {
                    object.insert(key.clone(), shape.render(context)?);
                }
                Answered::Object(object)
            }
        })
    }
}
