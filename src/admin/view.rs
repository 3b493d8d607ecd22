//! The JSON shapes of the admin API. They are made from the model and never derived on it, so that neither can change
//! the other. Whatever a third party sent is text in here, bounded, and no secret has a place.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::ConfiguredSource;
use super::health::open;
use super::replay::RESENT_FROM;
use super::waiting::WaitView;
use crate::config::Located;
use crate::inbox::{
    Answer, Count, DeliveryDetail, EventDetail, EventSummary, KeptAttachment, Pause, SourceFare,
};
use crate::mapping::PathMiss;
use crate::model::{
    Attachment, AttachmentId, Attempt, DeliveryId, DeliveryState, EventId, Origin, Param, Strength,
    Timestamp,
};
use crate::source::Source;

/// The most that is shown of a body or of one parameter.
const SHOWN: usize = 256 * 1024;

/// An event in a list.
#[derive(Debug, Serialize)]
pub(super) struct EventView {
    id: EventId,
    source: String,
    event_type: Option<String>,
    dedup: Option<String>,
    thread: Option<String>,
    received_at: Timestamp,
    filtered: Option<String>,
    states: Vec<&'static str>,
    /// In a list, the last try of the last delivery where that is dead or unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<AttemptView>,
    /// What its last pending delivery waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<WaitView>,
}

impl EventView {
    /// An event in a list.
    pub(super) fn new(
        event: EventSummary,
        reason: Option<Attempt>,
        waits_for: Option<WaitView>,
    ) -> Self {
        Self {
            reason: reason.map(AttemptView::from),
            waits_for,
            ..event.into()
        }
    }
}

/// An event with everything known of it.
#[derive(Debug, Serialize)]
pub(super) struct EventPage {
    #[serde(flatten)]
    event: EventView,
    verification: VerificationView,
    /// The event that an operator made this one of.
    resent_from: Option<String>,
    request_line: String,
    params: Vec<ParamView>,
    /// On whose word its type and its id stand, as the source is configured now.
    #[serde(skip_serializing_if = "Option::is_none")]
    backing: Option<HeadBackings>,
    /// What has to be said of how its text was read.
    notes: Vec<String>,
    /// Configured paths that found nothing in this event, as the source is configured now.
    misses: Vec<MissView>,
    headers: Vec<(String, String)>,
    /// How many requests came again with the proof of this one, and when the last did.
    replays: u64,
    replayed_at: Option<Timestamp>,
    body: Option<String>,
    body_base64: Option<String>,
    body_bytes: usize,
    body_cut: bool,
    attachments: Vec<FileView>,
    deliveries: Vec<DeliveryView>,
}

/// A file that came along.
#[derive(Debug, Serialize)]
struct FileView {
    id: AttachmentId,
    name: String,
    content_type: String,
    bytes: u64,
    sha256: String,
    /// What its channel calls it, where it was fetched from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// How long it stays at least, once nothing refers to it.
    expires_at: Timestamp,
}

/// A file in a list.
#[derive(Debug, Serialize)]
pub(super) struct KeptFileView {
    #[serde(flatten)]
    file: FileView,
    source: String,
    event: Option<EventId>,
}

impl From<Attachment> for FileView {
    fn from(file: Attachment) -> Self {
        Self {
            id: file.id,
            name: file.name,
            content_type: file.content_type,
            bytes: file.size,
            sha256: hex::encode(file.sha256),
            origin: file.origin,
            expires_at: file.expires_at,
        }
    }
}

impl From<KeptAttachment> for KeptFileView {
    fn from(kept: KeptAttachment) -> Self {
        Self {
            file: kept.attachment.into(),
            source: kept.source,
            event: kept.event,
        }
    }
}

/// On whose word an event's type and id stand; none where its provider names no place for them.
#[derive(Debug, Serialize)]
struct HeadBackings {
    event_type: Option<&'static str>,
    dedup: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct VerificationView {
    strength: String,
    secret: Option<String>,
}

#[derive(Debug, Serialize)]
struct ParamView {
    name: &'static str,
    value: String,
    value_cut: bool,
    /// On whose word it stands: proved, unproved or operator, by what the source's proof covers as configured now.
    #[serde(skip_serializing_if = "Option::is_none")]
    backing: Option<&'static str>,
    origin: OriginView,
    over: Vec<OriginView>,
}

#[derive(Debug, Serialize)]
struct MissView {
    of: &'static str,
    path: String,
    why: &'static str,
}

impl EventPage {
    /// The page of an event whose source reads it with `notes` and whose pending deliveries wait for `waits`.
    pub(super) fn new(
        event: EventDetail,
        notes: &[PathMiss],
        source: Option<&Source>,
        mut waits: HashMap<DeliveryId, WaitView>,
    ) -> Self {
        let miss = |note: &PathMiss| MissView {
            of: note.of,
            path: note.path.clone(),
            why: note.miss.as_str(),
        };
        let backings = source.map(|source| {
            let backing = |param: &Param| source.backing(&event.strength, &param.origin).as_str();
            let of = |places: &[Located<String>]| {
                let all = places
                    .iter()
                    .map(|place| source.backing_of(&event.strength, place));
                all.min().map(crate::model::Backing::as_str)
            };
            let heads = HeadBackings {
                event_type: of(&source.scheme.event_type),
                dedup: of(&source.scheme.event_id),
            };
            (event.params.iter().map(backing).collect::<Vec<_>>(), heads)
        });
        let mut page = Self {
            misses: notes.iter().map(miss).collect(),
            ..event.into()
        };
        if let Some((params, heads)) = backings {
            page.params
                .iter_mut()
                .zip(params)
                .for_each(|(param, backing)| param.backing = Some(backing));
            page.backing = Some(heads);
        }
        for delivery in &mut page.deliveries {
            delivery.waits_for = waits.remove(&delivery.id);
        }
        page.event.waits_for = page
            .deliveries
            .iter()
            .rev()
            .find_map(|delivery| delivery.waits_for.clone());
        page
    }
}

#[derive(Debug, Serialize)]
struct OriginView {
    from: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

#[derive(Debug, Serialize)]
struct DeliveryView {
    id: DeliveryId,
    destination: String,
    /// On whose behalf it is sent.
    account: String,
    /// How urgent it is.
    class: &'static str,
    state: &'static str,
    upstream_id: String,
    tried: u32,
    due: Option<Timestamp>,
    /// What it waits for, while it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<WaitView>,
    doubt: Option<Timestamp>,
    answer: Option<AnswerView>,
    attempts: Vec<AttemptView>,
}

#[derive(Debug, Serialize)]
struct AnswerView {
    status: String,
    result: Option<String>,
    finished_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct AttemptView {
    number: u32,
    started_at: Timestamp,
    ended_at: Timestamp,
    result: String,
    status: Option<u16>,
    detail: String,
}

/// A source and how its deliveries fare.
#[derive(Debug, Serialize)]
pub(super) struct SourceView {
    name: String,
    /// False for one that events are kept of but that the configuration no longer names.
    configured: bool,
    path: Option<String>,
    provider: Option<String>,
    provider_title: Option<String>,
    destination: Option<String>,
    /// What the secrets go by, never what they are.
    secrets: Vec<String>,
    /// Since when what it has waiting is held by an operator.
    paused_since: Option<Timestamp>,
    /// What everything of it waits for, where something is closed.
    waits_for: Option<WaitView>,
    /// When its last event came, and the oldest that has a pending delivery.
    last_event_at: Option<Timestamp>,
    oldest_pending_at: Option<Timestamp>,
    /// How many of its events need an operator, by the state of their last delivery.
    open: BTreeMap<&'static str, u64>,
    counts: BTreeMap<&'static str, u64>,
}

impl From<EventSummary> for EventView {
    fn from(event: EventSummary) -> Self {
        Self {
            id: event.id,
            source: event.source,
            event_type: event.event_type,
            dedup: event.dedup,
            thread: event.thread,
            received_at: event.received_at,
            filtered: event.filtered,
            states: event
                .states
                .into_iter()
                .map(DeliveryState::as_str)
                .collect(),
            reason: None,
            waits_for: None,
        }
    }
}

impl From<EventDetail> for EventPage {
    fn from(event: EventDetail) -> Self {
        let (body, body_base64) = match std::str::from_utf8(&event.body) {
            Ok(text) => (Some(cut(text).to_owned()), None),
            Err(_) => (
                None,
                Some(STANDARD.encode(&event.body[..event.body.len().min(SHOWN)])),
            ),
        };
        // Anybody may send the header; only an operator's own is true.
        let by_hand = event.strength == Strength::Operator.as_str();
        let from = event
            .headers
            .iter()
            .find(|(name, _)| by_hand && name == RESENT_FROM);
        Self {
            resent_from: from.map(|(_, id)| id.clone()),
            event: event.summary.into(),
            verification: VerificationView {
                strength: event.strength,
                secret: event.secret,
            },
            request_line: event.request_line,
            params: event.params.iter().map(ParamView::from).collect(),
            backing: None,
            notes: event.params.notes().sentences(),
            misses: Vec::new(),
            headers: event.headers,
            replays: event.replays,
            replayed_at: event.replayed_at,
            body,
            body_base64,
            body_bytes: event.body.len(),
            body_cut: event.body.len() > SHOWN,
            attachments: event.attachments.into_iter().map(FileView::from).collect(),
            deliveries: event
                .deliveries
                .into_iter()
                .map(DeliveryView::from)
                .collect(),
        }
    }
}

impl From<&Param> for ParamView {
    fn from(param: &Param) -> Self {
        Self {
            name: param.name.as_str(),
            value: cut(&param.value).to_owned(),
            value_cut: param.value.len() > SHOWN,
            backing: None,
            origin: (&param.origin).into(),
            over: param.over.iter().map(OriginView::from).collect(),
        }
    }
}

impl From<&Origin> for OriginView {
    fn from(origin: &Origin) -> Self {
        let (from, path) = match origin {
            Origin::Mapping(path) => ("mapping", Some(path.clone())),
            Origin::Template => ("template", None),
            Origin::Fixed => ("fixed", None),
            Origin::Query => ("query", None),
            Origin::Body => ("body", None),
            Origin::Default => ("default", None),
            Origin::Event => ("event", None),
        };
        Self { from, path }
    }
}

impl From<DeliveryDetail> for DeliveryView {
    fn from(delivery: DeliveryDetail) -> Self {
        Self {
            id: delivery.id,
            destination: delivery.destination.to_string(),
            account: delivery.account.to_string(),
            class: delivery.class.as_str(),
            state: delivery.state.as_str(),
            upstream_id: delivery.upstream_id,
            tried: delivery.attempts,
            due: delivery.due,
            waits_for: None,
            doubt: delivery.doubt,
            answer: delivery.answer.map(AnswerView::from),
            attempts: delivery.tries.into_iter().map(AttemptView::from).collect(),
        }
    }
}

impl From<Answer> for AnswerView {
    fn from(answer: Answer) -> Self {
        Self {
            status: answer.status,
            result: answer.result,
            finished_at: answer.finished_at,
        }
    }
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        Self {
            number: attempt.number,
            started_at: attempt.started_at,
            ended_at: attempt.ended_at,
            result: attempt.result,
            status: attempt.status,
            detail: attempt.detail,
        }
    }
}

impl SourceView {
    /// The configured sources in their order, then those that only the inbox still knows.
    pub(super) fn list(
        sources: &[ConfiguredSource],
        counts: &[Count],
        holds: &[(Pause, Timestamp)],
        fares: &[SourceFare],
        waits: impl Fn(&str) -> Option<WaitView>,
    ) -> Vec<Self> {
        let paused = |name: &str| {
            holds
                .iter()
                .find(|(hold, _)| matches!(hold, Pause::Source(held) if held == name))
                .map(|(_, since)| *since)
        };
        let of = |name: &str| {
            let mut states: BTreeMap<_, _> = DeliveryState::ALL
                .into_iter()
                .map(|state| (state.as_str(), 0))
                .collect();
            for count in counts.iter().filter(|count| count.source == name) {
                states.insert(count.state.as_str(), count.count);
            }
            states
        };
        let mut views: Vec<Self> = sources
            .iter()
            .map(|source| Self {
                name: source.config.name.clone(),
                configured: true,
                path: Some(format!("/hooks/{}", source.config.name)),
                provider: Some(source.config.provider.value.clone()),
                provider_title: source.provider_title.clone(),
                destination: source.config.destination.as_ref().map(ToString::to_string),
                secrets: source
                    .config
                    .secrets
                    .iter()
                    .map(|secret| secret.name().to_owned())
                    .collect(),
                paused_since: paused(&source.config.name),
                waits_for: None,
                last_event_at: None,
                oldest_pending_at: None,
                open: BTreeMap::new(),
                counts: of(&source.config.name),
            })
            .collect();
        let held = holds.iter().filter_map(|(hold, _)| match hold {
            Pause::Source(name) => Some(name),
            Pause::All | Pause::Destination(_) => None,
        });
        let known = counts
            .iter()
            .map(|count| &count.source)
            .chain(fares.iter().map(|fare| &fare.source));
        for name in known.chain(held) {
            if !views.iter().any(|view| view.name == *name) {
                views.push(Self {
                    name: name.clone(),
                    configured: false,
                    path: None,
                    provider: None,
                    provider_title: None,
                    destination: None,
                    secrets: Vec::new(),
                    paused_since: paused(name),
                    waits_for: None,
                    last_event_at: None,
                    oldest_pending_at: None,
                    open: BTreeMap::new(),
                    counts: of(name),
                });
            }
        }
        let none = SourceFare::default();
        for view in &mut views {
            let fare = fares
                .iter()
                .find(|fare| fare.source == view.name)
                .unwrap_or(&none);
            view.waits_for = waits(&view.name);
            (view.last_event_at, view.oldest_pending_at) = (fare.last_event, fare.oldest_pending);
            view.open = open(fare).into();
        }
        views
    }
}

/// As much of a text as is shown, whole characters.
fn cut(text: &str) -> &str {
    let end = (0..=SHOWN.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = format!("{}é", "a".repeat(SHOWN - 1));
        assert_eq!(cut(&text).len(), SHOWN - 1);
        assert_eq!(cut("é"), "é");
    }
}
