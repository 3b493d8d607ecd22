//! Handshakes: what a provider asks before it sends events, answered at the edge and never passed on.
//!
//! An answer reflects what a stranger sent, so it is small, plain text or JSON, and marked as not to be guessed at.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Map, Value as Answered};

use super::content::{ContentTemplate, Context, TemplateSetup};
use super::field::{DocumentPlace, Field, RequestView};
use super::keys::certificate::PinnedUrl;
use super::keys::mac::{Key, same};
use super::scheme::{Scheme, SchemeInputs};
use super::signing_oracle::SigningOracle;
use crate::config::{Located, Node, Section, Table, Value as Toml};
use crate::model::{Proof, Received, Refusal, Strength, Timestamp};

/// The largest answer.
const MOST_BYTES: usize = 1024;

/// An answer given at the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChallengeResponse {
    /// The status.
    pub status: u16,
    /// The type of the body.
    pub content_type: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// One handshake, compiled.
#[derive(Debug)]
pub(crate) struct Challenge {
    pub(crate) method: Option<Method>,
    when: Vec<(Field, FieldCondition)>,
    signed: bool,
    require: Vec<(Field, ContentTemplate)>,
    /// Where the secret stands that it brings.
    store: Option<Field>,
    /// The status for one that is not as required.
    otherwise: Option<u16>,
    /// What it has signed for whoever asks.
    asked: Option<SigningOracle>,
    reply: Reply,
}

/// What a challenge was answered with, and what it brought.
#[derive(Debug)]
pub(crate) struct ChallengeOutcome {
    pub(crate) answer: ChallengeResponse,
    /// The secret that it brings, which is not kept yet.
    pub(crate) secret: Option<Vec<u8>>,
    /// How much is known of who asked.
    pub(crate) proof: Proof,
}

/// An address that has to be asked for before a provider sends events, named by a request that is proved.
#[derive(Debug)]
pub(crate) struct Confirmation {
    pinned: PinnedUrl,
    when: Vec<(Field, FieldCondition)>,
}

impl Confirmation {
    /// Reads `confirm`: `from`, `host`, `path` and `when`.
    pub(crate) fn read(section: &Section<'_>) -> Option<Self> {
        let (pinned, when) = (PinnedUrl::read(section), wants(section));
        Some(Self {
            pinned: pinned?,
            when: when?,
        })
    }

    /// The address that this request asks to be fetched. None: it is no such request.
    pub(crate) fn address(
        &self,
        received: &Received,
        document: &DocumentPlace,
    ) -> Result<Option<String>, Refusal> {
        let request = RequestView::new(received, document);
        if !self
            .when
            .iter()
            .all(|(field, want)| want.met(field, &request))
        {
            return Ok(None);
        }
        let context = Context {
            request: &request,
            item: None,
            fields: &[],
            ts: None,
            key: None,
        };
        self.pinned
            .address(&context)
            .map(Some)
            .map_err(|(_, cause)| Refusal::Challenge(cause))
    }
}

/// Reads `when`.
pub(crate) fn wants(section: &Section<'_>) -> Option<Vec<(Field, FieldCondition)>> {
    let mut all = Some(Vec::new());
    for (field, text) in section.text_table("when").unwrap_or_default() {
        let want = match text.value.as_str() {
            "*" => FieldCondition::Present,
            "!" => FieldCondition::Absent,
            _ => FieldCondition::Is(text.value),
        };
        all = all
            .zip(Field::parse(&field, section.problems()))
            .map(|(mut all, field)| {
                all.push((field, want));
                all
            });
    }
    all
}

/// What has to stand at a place.
#[derive(Debug)]
pub(crate) enum FieldCondition {
    Present,
    Absent,
    Is(String),
}

#[derive(Debug)]
struct Reply {
    status: u16,
    content_type: &'static str,
    body: ReplyBody,
    headers: Vec<(HeaderName, ContentTemplate)>,
}

#[derive(Debug)]
enum ReplyBody {
    Empty,
    Text(ContentTemplate),
    Json(JsonTemplate),
}

/// A JSON value whose texts are templates.
#[derive(Debug)]
enum JsonTemplate {
    Text(ContentTemplate),
    Other(Answered),
    List(Vec<JsonTemplate>),
    Object(Vec<(String, JsonTemplate)>),
}

const PLAIN: &str = "text/plain; charset=utf-8";

impl Challenge {
    /// Compiles a `[[challenge]]` table. `declared` is the section whose `config` names the operator's values.
    pub(crate) fn compile(
        table: &Table,
        name: &str,
        setup: &TemplateSetup<'_>,
        given: &SchemeInputs<'_>,
    ) -> Option<Self> {
        let problems = given.problems;
        let section = Section::new(table, name, problems);
        let mut whole = true;
        let store = match section.text("store_secret") {
            Some(text) => {
                let field = Field::parse(&text, problems);
                whole &= field.is_some();
                field
            }
            None => None,
        };
        let otherwise = section.integer("otherwise").and_then(|status| {
            let good = u16::try_from(status.value)
                .ok()
                .filter(|code| (400..500).contains(code));
            if good.is_none() {
                problems.error(
                    &status.place,
                    format!("{} must be from 400 to 499", section.path("otherwise")),
                );
                whole = false;
            }
            good
        });
        let method = match section.text("method") {
            None => None,
            Some(word) => {
                let known = [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST];
                let method = known
                    .into_iter()
                    .find(|method| method.as_str() == word.value);
                if method.is_none() {
                    let what = format!(
                        "{} must be GET, HEAD, OPTIONS or POST",
                        section.path("method")
                    );
                    problems.error(&word.place, what);
                }
                whole &= method.is_some();
                method
            }
        };
        let when = wants(&section);
        whole &= when.is_some();
        let when = when.unwrap_or_default();
        if whole && when.is_empty() && method.as_ref().is_none_or(|method| method == Method::POST) {
            let what = format!("{} would answer every request", section.name());
            problems.error_hint(
                section.place(),
                what,
                "say which with when = { … } or a method",
            );
            whole = false;
        }
        let mut require = Vec::new();
        for (field, text) in section.text_table("require").unwrap_or_default() {
            match (
                Field::parse(&field, problems),
                ContentTemplate::compile(&text, setup),
            ) {
                (Some(field), Some(template)) => require.push((field, template)),
                _ => whole = false,
            }
        }
        let signed = section.bool("signed").is_some_and(|yes| yes.value);
        let reply = match section.section("reply") {
            Some(reply) => Reply::read(&reply, setup),
            None => {
                problems.error(
                    section.place(),
                    format!("{} is missing", section.path("reply")),
                );
                None
            }
        };
        let reply = reply?;
        let asked = SigningOracle::read(&section, &reply.templates())?;
        whole.then_some(Self {
            method,
            when,
            signed,
            require,
            store,
            otherwise,
            asked,
            reply,
        })
    }

    /// Whether it brings the secret.
    pub(crate) const fn brings_secret(&self) -> bool {
        self.store.is_some()
    }

    /// What it has signed for a stranger. One that has to be signed itself signs for nobody but the provider.
    pub(crate) const fn signs_for_strangers(&self) -> Option<&SigningOracle> {
        match &self.asked {
            Some(asked) if !self.signed => Some(asked),
            _ => None,
        }
    }

    /// Answers a request that is this challenge. None: it is another, or none.
    pub(crate) fn answer(
        &self,
        received: &Received,
        scheme: &Scheme,
        now: Timestamp,
    ) -> Option<Result<ChallengeOutcome, Refusal>> {
        if self
            .method
            .as_ref()
            .is_some_and(|method| *method != received.method)
        {
            return None;
        }
        let request = RequestView::new(received, &scheme.document);
        self.when
            .iter()
            .all(|(field, want)| want.met(field, &request))
            .then(|| {
                let mut key = scheme.keys().first();
                let mut proof = Proof {
                    strength: Strength::None,
                    secret: None,
                    marks: Vec::new(),
                };
                if self.signed {
                    proof = crate::model::Verify::judge(scheme, received, now)?;
                    key = scheme
                        .keys()
                        .iter()
                        .find(|key| Some(key.name()) == proof.secret.as_deref())
                        .or(key);
                } else if !self.require.is_empty() {
                    proof.strength = Strength::Token;
                }
                let answer = self.reply(&request, key)?;
                let secret = match &self.store {
                    Some(field) => request
                        .text(field, None)
                        .map_err(Refusal::Challenge)?
                        .map(Cow::into_owned),
                    None => None,
                };
                if self.store.is_some() && !secret.as_deref().is_some_and(is_secret) {
                    return Err(
                        self.otherwise(Refusal::Challenge("what it brings is no secret".into()))
                    );
                }
                Ok(ChallengeOutcome {
                    answer,
                    secret,
                    proof,
                })
            })
    }

    fn reply(
        &self,
        request: &RequestView<'_>,
        key: Option<&Key>,
    ) -> Result<ChallengeResponse, Refusal> {
        let context = Context {
            request,
            item: None,
            fields: &[],
            ts: None,
            key,
        };
        let refuse = |cause| self.otherwise(Refusal::Challenge(cause));
        for (field, template) in &self.require {
            let given = context.text(field).map_err(refuse)?.unwrap_or_default();
            let expected = template.bytes(&context).map_err(refuse)?;
            if !same(&expected, &given) {
                return Err(refuse(format!(
                    "{field} is not what the configuration says"
                )));
            }
        }
        for field in self
            .reply
            .templates()
            .into_iter()
            .flat_map(ContentTemplate::keyed_fields)
        {
            let text = context.text(field).map_err(refuse)?.unwrap_or_default();
            if !self.asked.as_ref().is_some_and(|asked| asked.allows(&text)) {
                return Err(refuse(format!(
                    "{field} is not what this provider has signed; nothing else is"
                )));
            }
        }
        let answer = self.reply.render(&context).map_err(refuse)?;
        if !self.signed
            && answer.content_type == PLAIN
            && answer.body.iter().any(|byte| matches!(byte, b'<' | b'>'))
        {
            return Err(refuse("the answer to the challenge would be markup".into()));
        }
        Ok(answer)
    }

    fn otherwise(&self, refusal: Refusal) -> Refusal {
        match self.otherwise {
            Some(status) => refusal.answered(status),
            None => refusal,
        }
    }
}

/// Whether what a handshake brought can be a secret: visible, and long enough not to be guessed.
fn is_secret(brought: &[u8]) -> bool {
    (16..=512).contains(&brought.len()) && brought.iter().all(u8::is_ascii_graphic)
}

impl FieldCondition {
    fn met(&self, field: &Field, request: &RequestView<'_>) -> bool {
        if let (Self::Is(text), Field::Json(_)) = (self, field)
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
            && !contains(&request.received.body, text)
        {
            // No sender writes such letters escaped, so a body without them is another request: most are, and need
            // not be read as JSON before their signature is checked.
            return false;
        }
        // A document that cannot be read is no challenge; what it is will be said when it is verified.
        self.holds(field, request)
            .unwrap_or(matches!(self, Self::Absent))
    }

    /// The same, where a document that cannot be read is an error.
    pub(crate) fn holds(&self, field: &Field, request: &RequestView<'_>) -> Result<bool, String> {
        let found = request.text(field, None)?;
        Ok(match self {
            Self::Present => found.is_some(),
            Self::Absent => found.is_none(),
            Self::Is(text) => found.is_some_and(|found| &*found == text.as_bytes()),
        })
    }
}

fn contains(body: &[u8], text: &str) -> bool {
    std::str::from_utf8(body).is_ok_and(|body| body.contains(text))
}

impl Reply {
    fn read(section: &Section<'_>, setup: &TemplateSetup<'_>) -> Option<Self> {
        let problems = section.problems();
        let status = section.integer("status").map_or(Some(200), |status| {
            let good = u16::try_from(status.value)
                .ok()
                .filter(|code| (200..300).contains(code));
            if good.is_none() {
                problems.error(
                    &status.place,
                    format!("{} must be from 200 to 299", section.path("status")),
                );
            }
            good
        });
        let text = section.text("text");
        let json = section.node("json");
        let kind = section.one_of(
            "type",
            &[
                ("text/plain", PLAIN),
                ("application/json", "application/json"),
            ],
        );
        let body = match (&text, json) {
            (Some(_), Some(node)) => {
                problems.error(
                    &node.place,
                    format!("{} has both text and json", section.name()),
                );
                None
            }
            (Some(text), None) => ContentTemplate::compile(text, setup).map(ReplyBody::Text),
            (None, Some(node)) => JsonTemplate::read(node, setup).map(ReplyBody::Json),
            (None, None) => Some(ReplyBody::Empty),
        };
        let mut headers = Some(Vec::new());
        for (name, value) in section.text_table("headers").unwrap_or_default() {
            let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
            if parsed.is_none() {
                problems.error(&name.place, "this is no name of a header");
            }
            headers = headers
                .zip(parsed.zip(ContentTemplate::compile(&value, setup)))
                .map(|(mut all, header)| {
                    all.push(header);
                    all
                });
        }
        let default = if json.is_some() {
            "application/json"
        } else {
            PLAIN
        };
        Some(Self {
            status: status?,
            content_type: kind.map_or(default, |kind| kind.value),
            body: body?,
            headers: headers?,
        })
    }

    /// All its templates.
    fn templates(&self) -> Vec<&ContentTemplate> {
        let mut all: Vec<&ContentTemplate> =
            self.headers.iter().map(|(_, template)| template).collect();
        match &self.body {
            ReplyBody::Empty => {}
            ReplyBody::Text(template) => all.push(template),
            ReplyBody::Json(shape) => shape.collect(&mut all),
        }
        all
    }

    fn render(&self, context: &Context<'_, '_>) -> Result<ChallengeResponse, String> {
        let body = match &self.body {
            ReplyBody::Empty => Vec::new(),
            ReplyBody::Text(template) => template.bytes(context)?,
            ReplyBody::Json(shape) => shape.render(context)?.to_string().into_bytes(),
        };
        if body.len() > MOST_BYTES {
            return Err(format!(
                "the answer to the challenge would be larger than {MOST_BYTES} bytes"
            ));
        }
        let mut headers = vec![("x-content-type-options".to_owned(), "nosniff".to_owned())];
        for (name, template) in &self.headers {
            let value = template.bytes(context)?;
            let value = HeaderValue::from_bytes(&value)
                .ok()
                .filter(|value| value.len() <= MOST_BYTES);
            match value.as_ref().and_then(|value| value.to_str().ok()) {
                Some(value) => headers.push((name.as_str().to_owned(), value.to_owned())),
                None => {
                    return Err(format!(
                        "the challenge cannot be answered in the header {name}"
                    ));
                }
            }
        }
        Ok(ChallengeResponse {
            status: self.status,
            content_type: self.content_type.to_owned(),
            headers,
            body: Bytes::from(body),
        })
    }
}

impl JsonTemplate {
    fn read(node: &Node, setup: &TemplateSetup<'_>) -> Option<Self> {
        Some(match &node.value {
            Toml::Text(text) => Self::Text(ContentTemplate::compile(
                &Located {
                    value: text.clone(),
                    place: node.place.clone(),
                },
                setup,
            )?),
            Toml::Integer(number) => Self::Other((*number).into()),
            Toml::Float(number) => Self::Other((*number).into()),
            Toml::Bool(yes) => Self::Other((*yes).into()),
            Toml::Time(text) => Self::Other(text.clone().into()),
            Toml::List(items) => Self::List(
                items
                    .iter()
                    .map(|item| Self::read(item, setup))
                    .collect::<Option<_>>()?,
            ),
            Toml::Table(table) => Self::Object(
                table
                    .entries
                    .iter()
                    .map(|(key, _, node)| Some((key.clone(), Self::read(node, setup)?)))
                    .collect::<Option<_>>()?,
            ),
        })
    }

    fn collect<'s>(&'s self, into: &mut Vec<&'s ContentTemplate>) {
        match self {
            Self::Text(template) => into.push(template),
            Self::Other(_) => {}
            Self::List(items) => items.iter().for_each(|item| item.collect(into)),
            Self::Object(entries) => entries.iter().for_each(|(_, item)| item.collect(into)),
        }
    }

    fn render(&self, context: &Context<'_, '_>) -> Result<Answered, String> {
        Ok(match self {
            Self::Text(template) => {
                let text = String::from_utf8(template.bytes(context)?);
                Answered::String(text.map_err(|_| "the challenge is no text".to_owned())?)
            }
            Self::Other(value) => value.clone(),
            Self::List(items) => Answered::Array(
                items
                    .iter()
                    .map(|item| item.render(context))
                    .collect::<Result<_, _>>()?,
            ),
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

/// The `Allow` header of a source with these challenges.
pub(crate) fn allowed_methods(challenges: &[Challenge]) -> &'static str {
    let has = |method: Method| {
        challenges
            .iter()
            .any(|challenge| challenge.method.as_ref() == Some(&method))
    };
    match (has(Method::GET), has(Method::HEAD), has(Method::OPTIONS)) {
        (false, false, false) => "POST",
        (true, false, false) => "GET, POST",
        (false, true, false) => "HEAD, POST",
        (true, true, false) => "GET, HEAD, POST",
        (false, false, true) => "OPTIONS, POST",
        (true, false, true) => "GET, OPTIONS, POST",
        (false, true, true) => "HEAD, OPTIONS, POST",
        (true, true, true) => "GET, HEAD, OPTIONS, POST",
    }
}
