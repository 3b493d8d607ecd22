//! `input.text` of a call: the prompt, the event, or both.
//!
//! The text depends on nothing but the event and the source's configuration, so that a retry says the same and an earlier
//! message of a conversation can be recognised.

use super::event_json::event_text;
use super::fence::{self, EVENT};
use crate::config::{EventJson, SourceConfig};
use crate::inbox::Turn;
use crate::model::{Marks, Name, Origin, Params};
use bytes::Bytes;

/// The parts of an event that a text is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventParts<'a> {
    pub(super) params: &'a Params,
    pub(super) headers: &'a [(String, String)],
    pub(super) body: &'a Bytes,
}

impl EventParts<'_> {
    /// `input.text` of an event: its prompt, with its JSON below where the source wants it there. Without a prompt it is
    /// the event's JSON alone and without a fence: a text that is JSON from end to end reaches the agent as machine
    /// input. Of the headers only `content-type` counts, and only for bodies that are forms. `mark` is that of the
    /// fence.
    pub(super) fn text(&self, source: &SourceConfig, mark: &str) -> String {
        let Some((prompt, origin)) = prompt(self.params) else {
            return event_text(self.body, self.headers);
        };
        let wants_event = match source.event_json {
            // A prompt from a mapping or a template was made from the event; a prompt of these origins was not.
            EventJson::Auto => matches!(
                origin,
                Origin::Fixed | Origin::Query | Origin::Body | Origin::Default
            ),
            EventJson::Text => true,
            EventJson::Context | EventJson::None => false,
        };
        let event = if wants_event {
            event_text(self.body, self.headers)
        } else {
            String::new()
        };
        if event.is_empty() {
            prompt.to_owned()
        } else {
            fence::with_event(prompt, &event, mark)
        }
    }

    /// The part of an event that goes into `additional_context`, if its source wants it there.
    pub(super) fn context(&self, source: &SourceConfig) -> Option<String> {
        let is_wanted = source.event_json == EventJson::Context && prompt(self.params).is_some();
        is_wanted
            .then(|| event_text(self.body, self.headers))
            .filter(|event| !event.is_empty())
    }
}

/// The prompt and its origin; `None` where the event itself is the text.
pub(super) fn prompt(params: &Params) -> Option<(&str, &Origin)> {
    params
        .iter()
        .find(|param| {
            param.name == Name::Prompt && param.origin != Origin::Event && !param.value.is_empty()
        })
        .map(|param| (param.value.as_str(), &param.origin))
}

/// The text of the call that an earlier delivery of a conversation made, without names.
pub fn text_of_turn(turn: &Turn, source: &SourceConfig, marks: &Marks) -> String {
    let parts = EventParts {
        params: &turn.params,
        headers: &turn.headers,
        body: &turn.body,
    };
    parts.text(source, &marks.of_event(turn.id.event, EVENT))
}
