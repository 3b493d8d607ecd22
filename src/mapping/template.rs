//! Text with values of the event in it, and conditions over them (minijinja).
//!
//! A template is the operator's word, the values in it are a stranger's. So in a prompt every value is fenced unless
//! the template says `| safe` (see [`super::fence`]). The same event makes the same prompt.
//!
//! Promises: a template is compiled once; rendering it ends (fuel) and stays small; it reads no file and no other
//! template. Headers that prove who somebody is by being known are not in its reach.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};

use super::document::ParsedRequest;
use super::fence::{CUT, EXPLAINED, Fence};
use super::number;
use super::path::Paths;
use super::value::head;
use crate::config::{Located, Problems};
use crate::json::{Dotted, Projection};
use crate::model::{Marks, Param, Refusal};

/// Fuel of one rendering; an instruction or 64 bytes of text take about one unit.
const FUEL: u64 = 200_000;

/// The longest prompt, in bytes, without the sentence on its marks.
const LONGEST: usize = 64 * 1024 - EXPLAINED;

/// Purpose of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TemplateUse {
    /// The prompt: values are fenced.
    Prompt,
    /// The thread: values are data.
    Thread,
    /// The condition `when`: nothing is printed, what is missing counts as false.
    When,
}

impl TemplateUse {
    const fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Thread => "thread",
            Self::When => "when",
        }
    }

    const fn variables(self) -> &'static [&'static str] {
        match self {
            Self::Prompt => &["body", "query", "headers", "event_type", "params"],
            Self::Thread | Self::When => &["body", "query", "headers", "event_type"],
        }
    }
}

/// A template, compiled.
#[derive(Debug)]
pub(super) struct Template {
    kind: TemplateUse,
    environment: Environment<'static>,
}

impl Template {
    /// Compiles what the operator wrote; what is wrong with it is a problem.
    pub(super) fn compile(
        kind: TemplateUse,
        written: &Located<String>,
        strict: bool,
        problems: &Problems,
    ) -> Option<Self> {
        let mut environment = Environment::new();
        environment.set_debug(true);
        environment.set_fuel(Some(FUEL));
        environment.set_undefined_behavior(match kind {
            TemplateUse::When => UndefinedBehavior::Chainable,
            _ if strict => UndefinedBehavior::SemiStrict,
            _ => UndefinedBehavior::Chainable,
        });
        environment.set_auto_escape_callback(|name| {
            if name == TemplateUse::Prompt.name() {
                AutoEscape::Custom("fence".into())
            } else {
                AutoEscape::None
            }
        });
        environment.set_formatter(format);
        environment.add_filter("tojson", tojson);
        number::add_filter(&mut environment);
        environment.remove_global("debug");

        let compiled = if kind == TemplateUse::When {
            // The engine keeps templates but not expressions, so the expression, once it is known to be one, becomes
            // a template.
            environment
                .compile_expression(&written.value)
                .map(|_| format!("{{% if ({}) %}}+{{% endif %}}", written.value))
        } else {
            Ok(written.value.clone())
        };
        let compiled = compiled.and_then(|text| {
            environment.add_template_owned(kind.name(), number::calculating(text))
        });
        if let Err(error) = compiled {
            problems.error_hint(
                &written.place,
                format!("{}: {}", kind.name(), said(&error)),
                if kind == TemplateUse::When {
                    "write an expression, for example body.action == \"opened\""
                } else {
                    "values stand in {{ }}, for example {{ body.issue.title }}"
                },
            );
            return None;
        }
        let template = Self { kind, environment };
        template.check_variables(written, problems);
        template.check_calls(written, problems);
        template.check_sense(written, problems);
        Some(template)
    }

    fn check_variables(&self, written: &Located<String>, problems: &Problems) {
        let Ok(compiled) = self.environment.get_template(self.kind.name()) else {
            return;
        };
        let mut unknown: Vec<String> = compiled.undeclared_variables(false).into_iter().collect();
        unknown.retain(|name| {
            !self.kind.variables().contains(&name.as_str())
                && !self.environment.globals().any(|(global, _)| global == name)
        });
        unknown.sort();
        for name in unknown {
            problems.error_hint(
                &written.place,
                format!("{}: there is no {name}", self.kind.name()),
                format!("there are {}", self.kind.variables().join(", ")),
            );
        }
    }

    fn check_calls(&self, written: &Located<String>, problems: &Problems) {
        let source = if self.kind == TemplateUse::When {
            format!("{{{{ ({}) }}}}", written.value)
        } else {
            written.value.clone()
        };
        // The rest of the gateway starts all the same: an event that needs the name is kept as unmappable.
        for (what, hint) in super::calls::unknown(&self.environment, &source) {
            problems.warn(
                &written.place,
                format!("{}: {what}", self.kind.name()),
                hint,
            );
        }
    }

    /// Notes what is a template and does nothing that anybody can want.
    fn check_sense(&self, written: &Located<String>, problems: &Problems) {
        let Ok(compiled) = self.environment.get_template(self.kind.name()) else {
            return;
        };
        let place = &written.place;
        match self.kind {
            TemplateUse::When => {
                let speaks = !compiled.undeclared_variables(false).is_empty();
                let holds = || compiled.render(Value::from_pairs(Vec::<(&str, Value)>::new()));
                if !speaks && holds().is_ok_and(|text| text.is_empty()) {
                    let hint =
                        "write a condition over body, query, headers or event_type, or remove it";
                    problems.warn(place, "when never holds: no event goes further", hint);
                }
            }
            TemplateUse::Prompt if written.value.trim().is_empty() => {
                let hint = "write what the agent is told, or remove the line";
                problems.warn(place, "prompt is empty: no event goes further", hint);
            }
            TemplateUse::Prompt | TemplateUse::Thread => {
                let words = self.kind.variables().iter();
                let single = words.map(|word| format!("{{{word}.")).find(|start| {
                    written
                        .value
                        .match_indices(start.as_str())
                        .any(|(at, _)| !written.value[..at].ends_with(['{', '$']))
                });
                if let Some(start) = single {
                    let what = format!("{}: {start}…}} stands there as it is", self.kind.name());
                    problems.warn(
                        place,
                        what,
                        "values stand in two braces: {{ body.issue.title }}",
                    );
                }
            }
        }
    }

    /// Adds the parts of a request that this template uses.
    pub(super) fn reach(&self, reach: &mut Reach) {
        let names = self
            .environment
            .get_template(self.kind.name())
            .ok()
            .map(|template| {
                // Where a name is given anew, the engine's list does not tell the old from the new.
                let renames = template.source().split("{%").skip(1).any(|tag| {
                    let word = tag.trim_start_matches(['-', '+']).trim_start();
                    ["set", "with", "macro", "call", "import", "from"]
                        .iter()
                        .any(|name| word.starts_with(name))
                });
                if renames {
                    None
                } else {
                    Some(template.undeclared_variables(true))
                }
            });
        let Some(Some(names)) = names else {
            return *reach = Reach::ALL;
        };
        for name in names {
            let mut keys = name.split('.');
            match keys.next() {
                Some("body") => reach.body.add(keys),
                Some("headers") => reach.headers = true,
                Some("query") => reach.query = true,
                _ => {}
            }
        }
    }

    /// Names of the parts of a request that this template uses.
    pub(super) fn places(&self) -> Vec<&'static str> {
        let mut reach = Reach::NOTHING;
        self.reach(&mut reach);
        let names = self
            .environment
            .get_template(self.kind.name())
            .map(|template| template.undeclared_variables(false));
        let says = |name: &str| names.as_ref().is_ok_and(|names| names.contains(name));
        let mut places = Vec::new();
        for (place, spoken) in [
            ("body", says("body") || says("params")),
            ("event_type", says("event_type")),
            ("headers", reach.headers),
            ("query", reach.query),
        ] {
            if spoken {
                places.push(place);
            }
        }
        places
    }

    /// Renders the template with the values of a scope.
    pub(super) fn render(&self, scope: &Scope) -> Result<String, Refusal> {
        let mut text = Bounded::default();
        let rendered = self
            .environment
            .get_template(self.kind.name())
            .and_then(|template| {
                template
                    .render_captured_to(scope.value(), &mut text)
                    .map(|_| ())
            });
        match rendered {
            Ok(()) => {}
            // The text is as long as it may get, and rendering ended there.
            Err(_) if text.full => {}
            Err(error) => {
                return Err(Refusal::Unmappable(format!(
                    "{}: {}",
                    self.kind.name(),
                    said(&error)
                )));
            }
        }
        if self.kind == TemplateUse::Prompt {
            text.text
                .push_str(&scope.fence().map(Fence::explained).unwrap_or_default());
        }
        Ok(text.text)
    }

    /// True if the condition holds. The error says why the condition has no answer.
    pub(super) fn holds(&self, scope: &Scope) -> Result<bool, String> {
        self.environment
            .get_template(self.kind.name())
            .and_then(|template| template.render(scope.value()))
            .map(|text| !text.is_empty())
            .map_err(|error| said(&error))
    }
}

/// An error in one line, without the name we gave the template.
fn said(error: &Error) -> String {
    let mut said = error.kind().to_string();
    if let Some(detail) = error.detail() {
        let _ = write!(
            said,
            ": {}",
            detail
                .chars()
                .take(200)
                .filter(|c| !c.is_control())
                .collect::<String>()
        );
    }
    if let Some(line) = error.line().filter(|line| *line > 1) {
        let _ = write!(said, " (line {line})");
    }
    said
}

/// Parts of a request that the templates of a mapping use; no other part is prepared for them.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    body: Projection,
    /// The paths of what the body's first members are, as far as they are spoken of.
    members: Vec<usize>,
    headers: bool,
    query: bool,
}

impl Reach {
    /// Nothing.
    pub(super) const NOTHING: Self = Self {
        body: Projection::NOTHING,
        members: Vec::new(),
        headers: false,
        query: false,
    };
    /// Everything.
    const ALL: Self = Self {
        body: Projection::All,
        members: Vec::new(),
        headers: true,
        query: true,
    };

    /// Has them found on the way through the body.
    pub(super) fn find(&mut self, paths: &mut Paths) {
        if let Projection::Members(members) = &self.body {
            self.members = members
                .iter()
                .map(|(name, _)| paths.add(Dotted::of_key(name)))
                .collect();
        }
    }
}

/// Values that a template can use.
#[derive(Clone, Debug)]
pub(super) struct Scope(Vec<(&'static str, Value)>);

impl Scope {
    /// The scope of a request, as far as it is in reach.
    pub(super) fn new(
        view: &ParsedRequest<'_>,
        event_type: Option<&str>,
        reach: &Reach,
        marks: &Marks,
    ) -> Result<Self, Refusal> {
        let mut scope = vec![(
            "body",
            value(view.part(&reach.body, &reach.members)?.as_ref()),
        )];
        if reach.query {
            scope.push(("query", Value::from_pairs(view.counted_query())));
        }
        if reach.headers {
            scope.push(("headers", headers(view)));
        }
        scope.extend(event_type.map(|name| ("event_type", Value::from(name))));
        let fence = Fence::new(
            marks.clone(),
            &view.request.target,
            view.request.body.clone(),
        );
        scope.push((Fence::NAME, fence.into_value()));
        Ok(Self(scope))
    }

    /// This scope with the other parameters added.
    pub(super) fn with(&self, params: &[Param]) -> Self {
        let params = Value::from_pairs(
            params
                .iter()
                .map(|param| (param.name.as_str(), param.value.as_str())),
        );
        let mut scope = self.0.clone();
        scope.push(("params", params));
        Self(scope)
    }

    /// Fence that marks the values in a prompt.
    fn fence(&self) -> Option<&Fence> {
        self.0
            .iter()
            .find(|(name, _)| *name == Fence::NAME)?
            .1
            .downcast_object_ref()
    }

    fn value(&self) -> Value {
        Value::from_pairs(self.0.iter().cloned())
    }
}

/// Headers by lower-case name, repeated ones joined in one line. Headers that carry secrets are left out.
fn headers(view: &ParsedRequest<'_>) -> Value {
    const SECRET: [&str; 7] = [
        "authorization",
        "cookie",
        "token",
        "secret",
        "api-key",
        "signature",
        "password",
    ];
    let mut list: Vec<(&str, Cow<'_, str>)> = Vec::new();
    for (name, value) in &view.request.headers {
        let name = name.as_str();
        let value = crate::text::header(value.as_bytes());
        if SECRET.iter().any(|secret| name.contains(secret)) {
            continue;
        }
        match list.iter_mut().find(|(known, _)| *known == name) {
            Some((_, line)) => *line = Cow::Owned(format!("{line}, {value}")),
            None => list.push((name, value)),
        }
    }
    Value::from_pairs(list)
}

/// A value of the document for the engine. Numbers print with the digits that they came with.
fn value(of: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match of {
        Json::Null => Value::from(()),
        Json::Bool(yes) => Value::from(*yes),
        Json::String(text) => Value::from(text),
        Json::Array(list) => Value::from(list.iter().map(value).collect::<Vec<_>>()),
        Json::Object(map) => {
            Value::from_pairs(map.iter().map(|(key, of)| (key.as_str(), value(of))))
        }
        Json::Number(number) => number::number(number.as_str()),
    }
}

/// Prints a value into a template.
fn format(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let text = match value.as_str() {
        Some(text) => Cow::Borrowed(text),
        None => Cow::Owned(spelled(state, value)?),
    };
    if value.is_safe() || matches!(state.auto_escape(), AutoEscape::None) {
        return Ok(out.write_str(&text)?);
    }
    state.consume_fuel(u64::try_from(text.len() / 64).unwrap_or(u64::MAX))?;
    let scope = state.lookup(Fence::NAME);
    let fence = scope.as_ref().and_then(Value::downcast_object_ref::<Fence>);
    let fence = fence
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "a value cannot be marked here"))?;
    Ok(out.write_str(&fence.around(&text))?)
}

/// A value as text: as JSON says it, but nothing for null and strings without quotes.
fn spelled(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => {}
        _ => json(state, value, &mut text, 0)?,
    }
    Ok(text)
}

/// Writes a value as compact JSON, up to what a block can show.
fn json(state: &State<'_, '_>, value: &Value, out: &mut String, depth: u32) -> Result<(), Error> {
    state.consume_fuel(1)?;
    if depth > crate::json::DEPTH {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "the value nests too deep",
        ));
    }
    if let Some(digits) = number::digits(value) {
        out.push_str(digits);
        return Ok(());
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            let _ = write!(out, "{value}");
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (position, item) in value.try_iter()?.enumerate() {
                if position > 0 {
                    out.push(',');
                }
                json(state, &item, out, depth + 1)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (position, key) in value.try_iter()?.enumerate() {
                if position > 0 {
                    out.push(',');
                }
                out.push_str(&quoted(&key.to_string()));
                out.push(':');
                json(state, &value.get_item(&key)?, out, depth + 1)?;
            }
            out.push('}');
        }
        _ => {
            let text = value.to_string();
            state.consume_fuel(u64::try_from(text.len() / 64).unwrap_or(u64::MAX))?;
            out.push_str(&quoted(&text));
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The filter `tojson`. Unlike the engine's own, what it makes is still a stranger's word.
fn tojson(state: &State<'_, '_>, value: &Value, rest: Kwargs) -> Result<Value, Error> {
    rest.assert_all_used()?;
    let mut text = String::new();
    json(state, value, &mut text, 0)?;
    Ok(Value::from(text))
}

/// Text that takes no more than [`LONGEST`] bytes, and then says that it was cut. A value that does not fit is cut
/// inside its fence.
#[derive(Debug, Default)]
struct Bounded {
    text: String,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        let room = LONGEST.saturating_sub(self.text.len());
        if piece.len() <= room {
            self.text.push_str(piece);
            return Ok(bytes.len());
        }
        self.full = true;
        let end = Fence::end_of(piece);
        self.text
            .push_str(head(piece, room.min(end.unwrap_or(room))));
        self.text.push_str(CUT);
        if let Some(end) = end {
            self.text.push_str(&piece[end..]);
        }
        Err(io::Error::other("the text is full"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
