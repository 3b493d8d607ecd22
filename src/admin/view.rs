//! Views of events, deliveries and files, made from the model. Long text of third parties is cut here.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::resend::RESENT_FROM;
use crate::api::attachment::{FileView, KeptFileView};
use crate::api::delivery::{AnswerView, AttemptView, DeliveryView, WaitView};
use crate::api::event::{
    EventPage, EventView, HeadBackings, MissView, OriginView, ParamView, VerificationView,
};
use crate::config::Located;
use crate::inbox::{Answer, DeliveryDetail, EventDetail, EventSummary, KeptAttachment};
use crate::mapping::PathMiss;
use crate::model::{Attachment, Attempt, DeliveryId, Origin, Param, Strength};
use crate::source::Source;

/// Largest part of a body or of a param in an answer, in bytes.
const SHOWN: usize = 256 * 1024;

impl EventView {
    /// Makes the view of an event in a list.
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

impl EventPage {
    /// Makes the page of an event. `notes` are the paths that find nothing in it, `waits` the reasons of its pending
    /// deliveries.
    pub(super) fn new(
        event: EventDetail,
        notes: &[PathMiss],
        source: Option<&Source>,
        mut waits: HashMap<DeliveryId, WaitView>,
    ) -> Self {
        let miss = |note: &PathMiss| MissView {
            of: note.of.to_owned(),
            path: note.path.clone(),
            why: note.miss.as_str().to_owned(),
        };
        let backings = source.map(|source| {
            let backing = |param: &Param| {
                let backing = source.backing(&event.strength, &param.origin);
                backing.as_str().to_owned()
            };
            let of = |places: &[Located<String>]| {
                let all = places
                    .iter()
                    .map(|place| source.backing_of(&event.strength, place));
                all.min().map(|backing| backing.as_str().to_owned())
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
                .map(|state| state.as_str().to_owned())
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
        // Any sender can set the header; it is true only on an operator's own event.
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
            name: param.name.as_str().to_owned(),
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
        Self {
            from: from.to_owned(),
            path,
        }
    }
}

impl From<DeliveryDetail> for DeliveryView {
    fn from(delivery: DeliveryDetail) -> Self {
        Self {
            id: delivery.id,
            destination: delivery.destination.to_string(),
            account: delivery.account.to_string(),
            class: delivery.class.as_str().to_owned(),
            state: delivery.state.as_str().to_owned(),
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

/// Cuts a text to the part that is shown, between characters.
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
