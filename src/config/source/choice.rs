//! Choices of a source that are made by a word: each with its words and its reader.

use crate::config::section::Section;

/// Rule for parameters of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryUse {
    /// All.
    Allow,
    /// Those that the operator sealed.
    Sealed,
    /// None.
    Ignore,
}

pub(super) fn query(section: &Section<'_>) -> QueryUse {
    let words = [
        ("allow", QueryUse::Allow),
        ("sealed", QueryUse::Sealed),
        ("ignore", QueryUse::Ignore),
    ];
    section
        .one_of("query", &words)
        .map_or(QueryUse::Allow, |query| query.value)
}

/// Place for the event's JSON beside a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventJson {
    /// Below a prompt that says nothing of the event (from the query, the body's own field or a default), fenced.
    Auto,
    /// Below every prompt, fenced.
    Text,
    /// Into `additional_context`, which weighs as much as the operator's own words.
    Context,
    /// Nowhere.
    None,
}

pub(super) fn event_json(section: &Section<'_>) -> EventJson {
    let words = [
        ("auto", EventJson::Auto),
        ("text", EventJson::Text),
        ("context", EventJson::Context),
        ("none", EventJson::None),
    ];
    section
        .one_of("event_json", &words)
        .map_or(EventJson::Auto, |place| place.value)
}

/// Rule for the id of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskIdForm {
    /// A UUIDv5 over source, destination and conversation.
    Uuid,
    /// As it was given.
    AsGiven,
}

pub(super) fn task_id_form(section: &Section<'_>) -> TaskIdForm {
    let words = [
        ("uuid", TaskIdForm::Uuid),
        ("as-given", TaskIdForm::AsGiven),
    ];
    section
        .one_of("task_id_form", &words)
        .map_or(TaskIdForm::Uuid, |form| form.value)
}

/// Way to start a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunMode {
    /// One request that ends when the run does.
    #[default]
    Call,
    /// Started, then asked for at growing intervals.
    Async,
    /// One request whose answer tells of the run as it goes.
    Stream,
}

pub(super) fn run_mode(section: &Section<'_>) -> RunMode {
    let words = [
        ("call", RunMode::Call),
        ("async", RunMode::Async),
        ("stream", RunMode::Stream),
    ];
    section
        .one_of("run", &words)
        .map_or(RunMode::Call, |mode| mode.value)
}

/// Rule for a delivery with an unknown end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnknown {
    /// Keep it for an operator.
    Hold,
    /// Run it again.
    Retry,
}

pub(super) fn on_unknown(section: &Section<'_>) -> OnUnknown {
    let words = [("hold", OnUnknown::Hold), ("retry", OnUnknown::Retry)];
    section
        .one_of("on_unknown", &words)
        .map_or(OnUnknown::Hold, |rule| rule.value)
}

/// Rule for a proved event that cannot be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnmappable {
    /// It is acknowledged and kept, for an operator who mends the mapping and replays it.
    Keep,
    /// Its sender is told, and nothing is kept.
    Refuse,
}

pub(super) fn on_unmappable(section: &Section<'_>) -> OnUnmappable {
    let words = [
        ("keep", OnUnmappable::Keep),
        ("refuse", OnUnmappable::Refuse),
    ];
    section
        .one_of("on_unmappable", &words)
        .map_or(OnUnmappable::Keep, |rule| rule.value)
}

/// Answer to a caller of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Respond {
    /// An acknowledgement, once the event is kept.
    Ack,
    /// The run's end, if it comes in time; the event is kept before the wait begins.
    Wait,
    /// The upstream's answer; nothing is kept.
    Proxy,
    /// The upstream's stream; nothing is kept.
    Stream,
}

pub(super) fn respond(section: &Section<'_>) -> Respond {
    let words = [
        ("ack", Respond::Ack),
        ("wait", Respond::Wait),
        ("proxy", Respond::Proxy),
        ("stream", Respond::Stream),
    ];
    let Some(respond) = section.one_of("respond", &words) else {
        return Respond::Ack;
    };
    if matches!(respond.value, Respond::Proxy | Respond::Stream) {
        section.problems().warn(
            &respond.place,
            format!(
                "{} keeps no events: an event that is sent anew runs again, and none is tried again",
                section.name()
            ),
            "respond = \"wait\" keeps each event and still answers with the run's end",
        );
    }
    respond.value
}
