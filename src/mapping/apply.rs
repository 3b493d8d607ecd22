//! Application of a mapping to one request.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::document::ParsedRequest;
use super::explain::{MissCause, PathMiss};
use super::template::{Reach, Scope, Template};
use super::thread::{self, Thread};
use super::value::{self, Text, says_something};
use super::{Mapped, MappedPath, Mapping, Rule};
use crate::model::{Marks, Name, Origin, Param, Params, Received, Refusal, TakenForm};

impl Mapping {
    /// Maps a request. `notes` collects the paths that found no value.
    pub(super) fn follow(
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
        let scope = LazyScope {
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

    /// Rule that filters an event out.
    fn filtered(
        &self,
        scope: &LazyScope<'_, '_>,
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

    /// Takes the strongest value of a parameter, and the origins of the values it was preferred to.
    fn param(
        &self,
        rule: &Rule,
        scope: &LazyScope<'_, '_>,
        others: &[Param],
        notes: &mut Option<Vec<PathMiss>>,
    ) -> Result<Option<Param>, Refusal> {
        let view = scope.view;
        let mut strongest = Strongest::default();
        if let Some(text) = &rule.fixed {
            strongest.offer(Origin::Fixed, ParamCandidate::Text(text));
        }
        let mut shipped = None;
        if let Some(mapped) = &rule.mapped {
            let origin = || Origin::Mapping(mapped.written.clone());
            match mapped_piece(mapped, rule.name, view, notes)? {
                Some(raw) if !mapped.shipped => {
                    strongest.offer(origin(), ParamCandidate::Json(raw));
                }
                Some(raw) if !matches!(value::text(&raw), Text::Many) => {
                    shipped = Some((origin(), raw));
                }
                _ => {}
            }
        }
        if let Some(template) = self.prompt.as_ref().filter(|_| rule.name == Name::Prompt) {
            strongest.offer(Origin::Template, ParamCandidate::Template(template));
        }
        if let Some(text) = view
            .in_counted_query(rule.name.as_str())
            .filter(|text| !text.is_empty())
        {
            strongest.offer(Origin::Query, ParamCandidate::Text(text));
        }
        let own = rule.own.and_then(|path| view.piece(path));
        if let Some(raw) = own.filter(|raw| says_something(raw)) {
            strongest.offer(Origin::Body, ParamCandidate::Json(Cow::Borrowed(raw)));
        }
        if let Some(text) = &rule.default {
            strongest.offer(Origin::Default, ParamCandidate::Text(text));
        }
        // Every setting of the operator goes before the provider's own path.
        if let Some((origin, raw)) = shipped {
            strongest.offer(origin, ParamCandidate::Json(raw));
        }
        let Some((origin, candidate)) = strongest.found else {
            return Ok(self.usual_prompt(rule.name, scope, others));
        };
        let Some(value) = candidate.into_text(rule.name, scope, others)? else {
            return Ok(None);
        };
        Ok(Some(Param {
            name: rule.name,
            value: view.cleared(value),
            origin,
            over: strongest.over,
        }))
    }

    /// The prompt that the provider's file makes of an event. Where it makes nothing of one, the event itself is the
    /// prompt.
    fn usual_prompt(
        &self,
        name: Name,
        scope: &LazyScope<'_, '_>,
        others: &[Param],
    ) -> Option<Param> {
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
        scope: &LazyScope<'_, '_>,
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
        scope: &LazyScope<'_, '_>,
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

/// A value that a parameter may get, before it is made into text.
enum ParamCandidate<'c> {
    Json(Cow<'c, str>),
    Text(&'c str),
    Template(&'c Template),
}

/// The strongest candidate, which is the first, and the origins of the others.
#[derive(Default)]
struct Strongest<'c> {
    found: Option<(Origin, ParamCandidate<'c>)>,
    over: Vec<Origin>,
}

impl<'c> Strongest<'c> {
    fn offer(&mut self, origin: Origin, candidate: ParamCandidate<'c>) {
        match self.found {
            None => self.found = Some((origin, candidate)),
            Some(_) => self.over.push(origin),
        }
    }
}

impl ParamCandidate<'_> {
    fn into_text(
        self,
        name: Name,
        scope: &LazyScope<'_, '_>,
        others: &[Param],
    ) -> Result<Option<String>, Refusal> {
        Ok(match self {
            Self::Text(text) => Some(text.to_owned()),
            Self::Template(template) => Some(template.render(&scope.get()?.with(others))?),
            Self::Json(raw) => match value::text(&raw) {
                Text::One(text) => Some(text.into_owned()),
                Text::Many if name == Name::Prompt => Some(value::compact(&raw)?),
                Text::Many => {
                    return Err(Refusal::Unmappable(format!(
                        "{} is a list or an object",
                        name.as_str()
                    )));
                }
                Text::Absent => None,
            },
        })
    }
}

/// Piece at the path that `params_mapping` names for a parameter, unless it is null or empty.
fn mapped_piece<'v>(
    mapped: &MappedPath,
    name: Name,
    view: &'v ParsedRequest<'_>,
    notes: &mut Option<Vec<PathMiss>>,
) -> Result<Option<Cow<'v, str>>, Refusal> {
    let found = view.find(&mapped.path)?;
    if let Some(notes) = notes
        && let Some(miss) = MissCause::of(found.as_deref(), name)
    {
        notes.push(PathMiss {
            of: name.as_str(),
            path: mapped.written.clone(),
            miss,
            near: None,
        });
    }
    Ok(found.filter(|raw| says_something(raw)))
}

fn empty() -> Refusal {
    Refusal::Unmappable("the prompt is empty".into())
}

/// Scope for templates, made when the first template needs it.
struct LazyScope<'l, 'v> {
    view: &'l ParsedRequest<'v>,
    event_type: Option<&'l str>,
    reach: &'l Reach,
    marks: &'l Marks,
    scope: OnceCell<Scope>,
}

impl LazyScope<'_, '_> {
    fn get(&self) -> Result<&Scope, Refusal> {
        if let Some(scope) = self.scope.get() {
            return Ok(scope);
        }
        let scope = Scope::new(self.view, self.event_type, self.reach, self.marks)?;
        Ok(self.scope.get_or_init(|| scope))
    }
}
