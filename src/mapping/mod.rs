//! Mapping of a verified request to params: compiled when the configuration is read, applied once for each event.
//!
//! An event's body is read once. The pieces at the dotted paths of a mapping are found in that pass; a tree is made only if
//! a template, a condition or a JSONPath needs one. Promises: the same event is always mapped to the same params; ids are
//! compared as bytes and numbers keep their digits; each value knows its origin and the origins it was preferred to; for
//! any body, mapping ends after bounded work with a value or a refusal.

mod apply;
mod calls;
mod compile;
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
mod label;
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

use bytes::Bytes;
use http::header::CONTENT_TYPE;

use crate::config::{Ack, QueryUse};
use crate::model::{Marks, Name, Params, Received, Refusal, Verified};

use document::ParsedRequest;
use each::ItemLists;
use filter::{SenderFilter, TypeFilter};
use kind::Kinds;
use path::{Path, Paths};
use template::{Reach, Template};
use thread::{KeySources, Thread};

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
}
