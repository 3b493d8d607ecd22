//! Mapping of a verified request to params: compiled when the configuration is read, applied once for each event.
//!
//! An event's body is read once. The pieces at the dotted paths of a mapping are found in that pass; a tree is made only if
//! a template, a condition or a JSONPath needs one. Promises: the same event is always mapped to the same params; ids are
//! compared as bytes and numbers keep their digits; each value knows its origin and the origins it was preferred to; for
//! any body, mapping ends after bounded work with a value or a refusal.

mod calls;
#[cfg(test)]
mod corpus;
mod document;
mod each;
mod explain;
mod fence;
mod filter;
pub mod getter;
pub mod hosted;
mod jsonpath;
mod kind;
mod near;
mod notation;
mod number;
mod path;
mod syntax;
mod template;
#[cfg(test)]
mod tests;
mod thread;
mod types;
#[cfg(test)]
mod usual;
mod value;

pub use explain::{Explained, MissCause, PathMiss};
pub use notation::better;

use std::borrow::Cow;
use std::cell::OnceCell;

use bytes::Bytes;
use http::header::CONTENT_TYPE;

use crate::config::{Ack, Located, Problems, Provider, QueryUse, SourceConfig};
use crate::json::Dotted;
use crate::model::{Marks, Name, Origin, Param, Params, Received, Refusal, TakenForm, Verified};

use document::ParsedRequest;
use each::ItemLists;
use filter::{SenderFilter, TypeFilter};
use kind::Kinds;
use path::{Path, Paths};
use template::{Reach, Scope, Template, TemplateUse};
use thread::{KeySources, Thread};
use value::{Text, says_something};

/// A source's mapping, compiled.
#[derive(Debug)]
pub struct Mapping {
    paths: Paths,
    /// Rule for parameters of the query.
    query: QueryUse,
    params: Vec<Rule>,
    prompt: Option<Template>,
    /// The provider's prompt, for a source without a prompt of its own.
    usual: Option<Template>,
    thread: Vec<Thread>,
    /// True if the provider's file names the thread. An event with another kind of value there has no thread, and is not
    /// refused.
    usual_thread: bool,
    event_id: KeySources,
    event_type: KeySources,
    /// Lists whose items become events.
    each: ItemLists,
    events: TypeFilter,
    senders: SenderFilter,
    kinds: Kinds,
    when: Option<Template>,
    /// Parts of a request that the templates use.
    reach: Reach,
    /// Makes the marks around values in prompts.
    marks: Marks,
}

/// Sources of one parameter, beside the query.
#[derive(Debug)]
struct Rule {
    name: Name,
    /// `params_mapping`, as written and compiled.
    mapped: Option<MappedPath>,
    /// The document's own key of this name, by its path's number, where that counts.
    own: Option<usize>,
    fixed: Option<String>,
    default: Option<String>,
}

/// A path that `params_mapping` names.
#[derive(Debug)]
struct MappedPath {
    written: String,
    path: Path,
    /// True if the provider's file names the path. Such a path is for every kind of events: an event with another kind of
    /// value there has no such parameter, and is not refused.
    shipped: bool,
}

/// Result of a mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// The provider's own name for the event.
    pub dedup: Option<String>,
    /// The provider's word for what happened.
    pub event_type: Option<String>,
    /// The conversation at the source.
    pub thread: Option<String>,
    /// Rule that filters the event out.
    pub filtered: Option<String>,
    /// Reason why the event could not be mapped, for an event that is kept all the same.
    pub unmappable: Option<String>,
    /// The named values.
    pub params: Params,
    /// The answer to the sender of an event of this kind, where it is not that of all events.
    pub ack: Option<Ack>,
}

impl Mapping {
    /// Compiles a source's mapping over its provider's. `event_id` and `event_type` are the sources named by the
    /// `[verify]` section. What cannot be compiled is a problem.
    pub fn compile(
        source: &SourceConfig,
        provider: Option<&Provider>,
        event_id: &[Located<String>],
        event_type: &[Located<String>],
        problems: &Problems,
    ) -> Option<Self> {
        let below = provider.map(|provider| &provider.map);
        let strict = source.strict_template;
        let implicit = source
            .implicit
            .unwrap_or_else(|| provider.is_none_or(|provider| provider.implicit));
        let mut sound = true;
        let mut paths = Paths::default();
        let mut params: Vec<Rule> = Name::ALL
            .into_iter()
            .map(|name| {
                let own = implicit.then(|| paths.add(Dotted::of_key(name.as_str())));
                Rule {
                    name,
                    mapped: None,
                    own,
                    fixed: None,
                    default: None,
                }
            })
            .collect();

        // The provider's first: the source's are laid over them.
        let provided = below.map_or(&[][..], |map| &map.params_mapping);
        let provided = provided.iter().map(|pair| (pair, true));
        let own = source.map.params_mapping.iter().map(|pair| (pair, false));
        for ((target, path), shipped) in provided.chain(own) {
            let rule = rule(&mut params, target, "params_mapping", problems);
            let compiled = Path::compile(path, &mut paths, problems);
            sound &= rule.is_some() && compiled.is_some();
            if let (Some(rule), Some(compiled)) = (rule, compiled) {
                rule.mapped = Some(MappedPath {
                    written: path.value.clone(),
                    path: compiled,
                    shipped,
                });
            }
        }
        for (target, value) in &source.fixed {
            let own = source
                .map
                .params_mapping
                .iter()
                .chain(&source.defaults)
                .any(|(name, _)| name.value == target.value);
            if own || (target.value == Name::Prompt.as_str() && source.map.prompt.is_some()) {
                problems.warn(
                    &target.place,
                    format!(
                        "{} is fixed, so what else the source says of it counts for nothing",
                        target.value
                    ),
                    "remove it from fixed, or from params_mapping, prompt and defaults",
                );
            }
            match rule(&mut params, target, "fixed", problems) {
                Some(rule) => {
                    rule.fixed = Some(value.value.clone()).filter(|value| !value.is_empty())
                }
                None => sound = false,
            }
        }
        for (target, value) in &source.defaults {
            match rule(&mut params, target, "defaults", problems) {
                Some(rule) => {
                    rule.default = Some(value.value.clone()).filter(|value| !value.is_empty())
                }
                None => sound = false,
            }
        }
        if let Some(template) = &source.map.prompt {
            let own = source
                .map
                .params_mapping
                .iter()
                .any(|(target, _)| target.value == Name::Prompt.as_str());
            if own {
                problems.warn(
                    &template.place,
                    "params_mapping maps prompt as well, and goes before this template",
                    "remove one of the two unless the template is meant for events without the mapped value",
                );
            } else if let Some(rule) = params.iter_mut().find(|rule| rule.name == Name::Prompt) {
                // An operator's template takes the place of whatever the provider says of the prompt.
                rule.mapped = None;
            }
        }

        let own = source.map.prompt.as_ref();
        let prompt =
            own.map(|written| Template::compile(TemplateUse::Prompt, written, strict, problems));
        // What a provider's file says is for every kind of its events, so what an event lacks prints nothing.
        let usual = below
            .and_then(|map| map.prompt.as_ref())
            .filter(|_| own.is_none());
        let usual =
            usual.map(|written| Template::compile(TemplateUse::Prompt, written, false, problems));
        let usual_thread = source.map.thread.is_empty();
        let threads = match below {
            Some(below) if usual_thread => &below.thread,
            _ => &source.map.thread,
        };
        // Of several, one that prints a value which is not there leaves it to the next.
        let strict_thread = strict && !usual_thread || threads.len() > 1;
        let compiled = threads
            .iter()
            .map(|written| Thread::compile(written, strict_thread, &mut paths, problems));
        let thread: Vec<Option<Thread>> = compiled.collect();
        let senders = match provider {
            Some(provider) if source.sender.is_empty() => &provider.sender,
            _ => &source.sender,
        };
        let senders = SenderFilter::compile(&source.not_senders, senders, &mut paths, problems);
        let when = source
            .when
            .as_ref()
            .map(|written| Template::compile(TemplateUse::When, written, strict, problems));
        let each = source
            .map
            .each
            .as_ref()
            .or(below.and_then(|map| map.each.as_ref()));
        let each = ItemLists::compile(each.map_or(&[][..], Vec::as_slice), problems);
        let kinds = Kinds::compile(provider, source.humans_only, &mut paths, problems);
        let mut mapping = Self {
            query: source.query,
            each: each?,
            kinds: kinds?,
            reach: Reach::NOTHING,
            marks: Marks::default(),
            params,
            event_id: KeySources::compile(event_id, &mut paths, problems),
            event_type: KeySources::compile(event_type, &mut paths, problems),
            events: TypeFilter::compile(&source.events, &source.not_events, problems),
            senders,
            paths,
            // A part that was written but not compiled is a problem already; there is no mapping without it.
            prompt: prompt.map_or(Some(None), |compiled| compiled.map(Some))?,
            usual: usual.map_or(Some(None), |compiled| compiled.map(Some))?,
            usual_thread,
            thread: thread.into_iter().collect::<Option<_>>()?,
            when: when.map_or(Some(None), |compiled| compiled.map(Some))?,
        };
        types::doubt(source, provider, event_type, problems);
        let threads = mapping.thread.iter().filter_map(Thread::template);
        let others = [
            mapping.prompt.as_ref(),
            mapping.usual.as_ref(),
            mapping.when.as_ref(),
        ];
        for template in threads.chain(others.into_iter().flatten()) {
            template.reach(&mut mapping.reach);
        }
        mapping.reach.find(&mut mapping.paths);
        sound.then_some(mapping)
    }

    /// Makes the marks around values with the gateway's key. Without it, marks change with each start of the process.
    pub fn mark_with(&mut self, marks: Marks) {
        self.marks = marks;
    }

    /// Splits a request into its items, each as a request of its own. Most requests have one item.
    pub fn items(&self, verified: Verified) -> Result<Vec<Verified>, Refusal> {
        if self.each.is_empty() {
            return Ok(vec![verified]);
        }
        match self.each.of(&verified) {
            Ok(Some(items)) => Ok(items),
            // An unreadable request is one event, and its mapping gives the reason.
            Ok(None)
            | Err(Refusal::Malformed(_) | Refusal::Unmappable(_) | Refusal::Unsupported(_)) => {
                Ok(vec![verified])
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// First item of a request with several items, and the number of items. For authors of a mapping.
    pub fn first_item(&self, request: &Received) -> Result<Option<(Received, usize)>, Refusal> {
        if self.each.is_empty() {
            Ok(None)
        } else {
            self.each.first(request)
        }
    }

    /// Dedup key of an item. If the provider names the request and not its items, the item's number is added.
    pub fn key_of_item(&self, dedup: Option<String>, place: usize) -> Option<String> {
        match dedup {
            Some(key) if place > 0 && self.event_id.are_of_request() => {
                Some(thread::bounded(format!("{key}/{place}")))
            }
            dedup => dedup,
        }
    }

    /// Maps an event. With files, an event may have an empty prompt.
    pub fn apply(&self, verified: &Verified, has_files: bool) -> Result<Mapped, Refusal> {
        let claims = verified.claims().map(|claims| &claims[..]);
        self.follow(
            verified.request(),
            (claims, verified.form()),
            has_files,
            &mut None,
        )
    }

    /// Describes an event that cannot be mapped: its type and its key, where they are readable, and the filter on its type.
    /// If the body is unreadable, the headers alone are used.
    pub fn unmapped(&self, verified: &Verified, why: String) -> Mapped {
        let request = verified.request();
        let mut bare = Received {
            body: Bytes::new(),
            ..request.clone()
        };
        bare.headers.remove(CONTENT_TYPE);
        let paths = self.paths.list();
        let whole = ParsedRequest::read(request, paths, verified.form())
            .or_else(|_| ParsedRequest::read(&bare, paths, None));
        let Ok(mut view) = whole else {
            return Mapped {
                unmappable: Some(why),
                ..Mapped::default()
            };
        };
        view.claims = verified.claims().map(|claims| &claims[..]);
        let event_type = self
            .event_type
            .joined(&view, '.')
            .ok()
            .flatten()
            .map(thread::cut);
        let dedup = self
            .event_id
            .joined(&view, '/')
            .ok()
            .flatten()
            .map(thread::bounded);
        let unwanted = event_type
            .as_deref()
            .and_then(|name| self.events.unwanted(Some(name)));
        let unmappable = unwanted.is_none().then_some(why);
        Mapped {
            dedup,
            event_type,
            filtered: unwanted,
            unmappable,
            ..Mapped::default()
        }
    }

    /// The provider's own name for an event, and nothing else of it.
    pub fn dedup(&self, request: &Received) -> Result<Option<String>, Refusal> {
        let view = ParsedRequest::read(request, self.paths.list(), None)?;
        Ok(self.event_id.joined(&view, '/')?.map(thread::bounded))
    }

    /// True if `events` keeps an event of this type.
    pub fn wants(&self, event_type: &str) -> bool {
        self.events.unwanted(Some(event_type)).is_none()
    }

    /// The parts of a request that the prompt's template speaks of.
    pub fn places_of_prompt(&self) -> Vec<&'static str> {
        self.prompt
            .as_ref()
            .or(self.usual.as_ref())
            .map(Template::places)
            .unwrap_or_default()
    }

    /// The parts of a request that decide whether an event goes further, and in which conversation.
    pub fn deciding(&self) -> Vec<(&'static str, Vec<&'static str>)> {
        let thread = self
            .thread
            .iter()
            .filter_map(Thread::template)
            .flat_map(Template::places)
            .collect();
        vec![
            (
                "when",
                self.when.as_ref().map(Template::places).unwrap_or_default(),
            ),
            ("thread", thread),
        ]
    }

    /// True if the dedup key is made of headers alone, so that it needs no body.
    pub fn is_named_by_headers(&self) -> bool {
        self.event_id.are_headers()
    }

    /// Maps a request and explains each path that found no value. For authors of a mapping: the request is not verified, so
    /// the result must not become an event.
    pub fn explain(&self, request: &Received) -> Explained {
        let mut notes = Some(Vec::new());
        let mapped = self.follow(request, (None, None), false, &mut notes);
        let mut notes = notes.unwrap_or_default();
        if let Ok(document) = serde_json::from_slice(&request.body) {
            explain::look_around(&mut notes, &document);
        }
        Explained { mapped, notes }
    }

    fn follow(
        &self,
        request: &Received,
        (claims, form): (Option<&[u8]>, Option<&TakenForm>),
        has_files: bool,
        notes: &mut Option<Vec<PathMiss>>,
    ) -> Result<Mapped, Refusal> {
        let mut view = ParsedRequest::read(request, self.paths.list(), form)?;
        view.claims = claims;
        view.counts = self.query;
        let event_type = self.event_type.joined(&view, '.')?.map(thread::cut);
        let dedup = self.event_id.joined(&view, '/')?.map(thread::bounded);
        let scope = Lazy {
            view: &view,
            event_type: event_type.as_deref(),
            reach: &self.reach,
            marks: &self.marks,
            scope: OnceCell::new(),
        };

        let kind = self.kinds.of(&view)?;
        if let Some(rule) = self.filtered(&scope, kind.filtered)? {
            let params = Params::default().noted(view.notes());
            let ack = kind.ack;
            return Ok(Mapped {
                dedup,
                event_type,
                filtered: Some(rule),
                params,
                ack,
                ..Mapped::default()
            });
        }
        let mut others = Vec::new();
        for rule in self.params.iter().filter(|rule| rule.name != Name::Prompt) {
            others.extend(self.param(rule, &scope, &[], notes)?);
        }
        let prompt = match self.params.iter().find(|rule| rule.name == Name::Prompt) {
            Some(rule) => self.param(rule, &scope, &others, notes)?,
            None => None,
        };
        let prompt = match prompt {
            Some(prompt) if prompt.value.trim().is_empty() => return Err(empty()),
            Some(prompt) => prompt,
            None if view.is_blank() && !has_files => return Err(empty()),
            None => Param {
                name: Name::Prompt,
                value: String::new(),
                origin: Origin::Event,
                over: Vec::new(),
            },
        };
        let thread = match self.thread(&scope, notes)? {
            Some(thread) => Some(thread),
            None => others
                .iter()
                .find(|param| param.name == Name::TaskId)
                .map(|param| thread::distinct(param.value.clone(), None, &view)),
        };
        let thread = thread.map(thread::bounded);

        let params =
            Params::new(std::iter::once(prompt).chain(others).collect()).noted(view.notes());
        drop(scope);
        Ok(Mapped {
            dedup,
            event_type,
            thread,
            filtered: None,
            unmappable: None,
            params,
            ack: kind.ack,
        })
    }

    /// The rule that keeps an event from going further.
    fn filtered(
        &self,
        scope: &Lazy<'_, '_>,
        kind: Option<String>,
    ) -> Result<Option<String>, Refusal> {
        if let Some(reason) = self.events.unwanted(scope.event_type).or(kind) {
            return Ok(Some(reason));
        }
        if let Some(reason) = self.senders.unwanted(scope.view)? {
            return Ok(Some(reason));
        }
        let Some(when) = &self.when else {
            return Ok(None);
        };
        Ok(match when.holds(scope.get()?) {
            Ok(true) => None,
            Ok(false) => Some("when".into()),
            Err(reason) => Some(format!("when: {reason}")),
        })
    }

    /// The strongest value of a parameter, and the origins of those it was preferred to.
    fn param(
        &self,
        rule: &Rule,
        scope: &Lazy<'_, '_>,
        others: &[Param],
        notes: &mut Option<Vec<PathMiss>>,
    ) -> Result<Option<Param>, Refusal> {
        enum Candidate<'c> {
            Json(Cow<'c, str>),
            Text(&'c str),
            Template(&'c Template),
        }
        let view = scope.view;
        let mut strongest: Option<(Origin, Candidate<'_>)> = None;
        let mut over = Vec::new();
        let mut offer = |origin: Origin, candidate| match strongest {
            None => strongest = Some((origin, candidate)),
            Some(_) => over.push(origin),
        };
        if let Some(text) = &rule.fixed {
            offer(Origin::Fixed, Candidate::Text(text));
        }
        let mut shipped = None;
        if let Some(mapped) = &rule.mapped {
            let found = view.find(&mapped.path)?;
            if let Some(notes) = notes
                && let Some(miss) = MissCause::of(found.as_deref(), rule.name)
            {
                notes.push(PathMiss {
                    of: rule.name.as_str(),
                    path: mapped.written.clone(),
                    miss,
                    near: None,
                });
            }
            let found = found.filter(|raw| says_something(raw));
            let origin = Origin::Mapping(mapped.written.clone());
            match found {
                Some(raw) if !mapped.shipped => offer(origin, Candidate::Json(raw)),
                Some(raw) if !matches!(value::text(&raw), Text::Many) => {
                    shipped = Some((origin, raw))
                }
                _ => {}
            }
        }
        if let Some(template) = self.prompt.as_ref().filter(|_| rule.name == Name::Prompt) {
            offer(Origin::Template, Candidate::Template(template));
        }
        if let Some(text) = view
            .in_counted_query(rule.name.as_str())
            .filter(|text| !text.is_empty())
        {
            offer(Origin::Query, Candidate::Text(text));
        }
        let own = rule.own.and_then(|path| view.piece(path));
        if let Some(raw) = own.filter(|raw| says_something(raw)) {
            offer(Origin::Body, Candidate::Json(Cow::Borrowed(raw)));
        }
        if let Some(text) = &rule.default {
            offer(Origin::Default, Candidate::Text(text));
        }
        // Whatever the operator says goes before what is usual at the provider.
        if let Some((origin, raw)) = shipped {
            offer(origin, Candidate::Json(raw));
        }
        let Some((origin, candidate)) = strongest else {
            return Ok(self.usual_prompt(rule.name, scope, others));
        };
        let value = match candidate {
            Candidate::Text(text) => text.to_owned(),
            Candidate::Template(template) => template.render(&scope.get()?.with(others))?,
            Candidate::Json(raw) => match value::text(&raw) {
                Text::One(text) => text.into_owned(),
                Text::Many if rule.name == Name::Prompt => value::compact(&raw)?,
                Text::Many => {
                    return Err(Refusal::Unmappable(format!(
                        "{} is a list or an object",
                        rule.name.as_str()
                    )));
                }
                Text::Absent => return Ok(None),
            },
        };
        let value = view.cleared(value);
        Ok(Some(Param {
            name: rule.name,
            value,
            origin,
            over,
        }))
    }

    /// The prompt that the provider's file makes of an event. Where it makes nothing of one, the event itself is the
    /// prompt.
    fn usual_prompt(&self, name: Name, scope: &Lazy<'_, '_>, others: &[Param]) -> Option<Param> {
        let template = self.usual.as_ref().filter(|_| name == Name::Prompt)?;
        let text = template.render(&scope.get().ok()?.with(others)).ok()?;
        let value = scope.view.cleared(text.trim().to_owned());
        (!value.is_empty()).then_some(Param {
            name,
            value,
            origin: Origin::Template,
            over: Vec::new(),
        })
    }

    /// The conversation, where the configuration says where it stands: by the first that says something.
    fn thread(
        &self,
        scope: &Lazy<'_, '_>,
        notes: &mut Option<Vec<PathMiss>>,
    ) -> Result<Option<String>, Refusal> {
        for thread in &self.thread {
            match Self::thread_at(thread, scope, notes) {
                Ok(None) => {}
                Err(_) if self.thread.len() > 1 || self.usual_thread => {}
                found => return found,
            }
        }
        Ok(None)
    }

    fn thread_at(
        thread: &Thread,
        scope: &Lazy<'_, '_>,
        notes: &mut Option<Vec<PathMiss>>,
    ) -> Result<Option<String>, Refusal> {
        Ok(match thread {
            Thread::Template(template) => {
                let text =
                    Some(template.render(scope.get()?)?).filter(|text| !text.trim().is_empty());
                text.map(|text| thread::distinct(text, None, scope.view))
            }
            Thread::Path(written, path) => {
                let raw = scope.view.find(path)?;
                if let Some(notes) = notes
                    && let Some(miss) = MissCause::of(raw.as_deref(), Name::TaskId)
                {
                    notes.push(PathMiss {
                        of: "thread",
                        path: written.clone(),
                        miss,
                        near: None,
                    });
                }
                match raw.as_deref().map(value::text) {
                    Some(Text::One(text)) => Some(thread::distinct(
                        text.into_owned(),
                        raw.as_deref(),
                        scope.view,
                    )),
                    Some(Text::Many) => {
                        return Err(Refusal::Unmappable(
                            "the thread is a list or an object".into(),
                        ));
                    }
                    Some(Text::Absent) | None => None,
                }
            }
        })
    }
}

/// Finds the rule of a parameter by its name. An unknown name is reported to `problems`.
fn rule<'r>(
    params: &'r mut [Rule],
    target: &Located<String>,
    table: &str,
    problems: &Problems,
) -> Option<&'r mut Rule> {
    let found = params
        .iter_mut()
        .find(|rule| rule.name.as_str() == target.value);
    if found.is_none() {
        problems.error_hint(
            &target.place,
            format!("{table}: there is no parameter {:?}", target.value),
            format!(
                "the parameters are {}",
                Name::ALL.map(Name::as_str).join(", ")
            ),
        );
    }
    found
}

fn empty() -> Refusal {
    Refusal::Unmappable("the prompt is empty".into())
}

/// Scope for templates, made when the first template needs it.
struct Lazy<'l, 'v> {
    view: &'l ParsedRequest<'v>,
    event_type: Option<&'l str>,
    reach: &'l Reach,
    marks: &'l Marks,
    scope: OnceCell<Scope>,
}

impl Lazy<'_, '_> {
    fn get(&self) -> Result<&Scope, Refusal> {
        if let Some(scope) = self.scope.get() {
            return Ok(scope);
        }
        let scope = Scope::new(self.view, self.event_type, self.reach, self.marks)?;
        Ok(self.scope.get_or_init(|| scope))
    }
}
