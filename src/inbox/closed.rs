//! Closed forms of events, answers and payloads, as they stand in the tables.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bounds::cut;
use super::seal::{SealError, SealedPart, Sealer};
use super::{Answer, DeliveryDetail};
use crate::model::{DeliveryId, DeliveryState, EventId, NewEvent, Params};

/// Name of the only header of a closed event. No request can have a header of this name.
const CLOSED: &str = ":closed";

/// Prefix of a closed text of an answer.
const CLOSED_TEXT: &str = "closed:";

/// Text in place of an answer that cannot be opened.
const UNREADABLE_ANSWER: &str = "(this answer does not open: it was changed, or the key that it was sealed with is not listed in \
                        inbox.old_keys)";

/// Bytes of the reason why an event could not be mapped, so that it is within the engines' bound when it is closed.
const MAX_REASON: usize = 2 << 10;

/// Bytes of an answer's text, so that it is within the engines' bound when it is closed.
const MAX_CLOSED_RESULT: usize = 190 << 10;

/// The texts of an event that are closed together. Its body is closed by itself.
#[derive(Debug, Serialize, Deserialize)]
struct ClosedTexts {
    line: String,
    params: Params,
    headers: Vec<(String, String)>,
}

/// The fields of a kept event that may be closed.
pub(super) struct ClosedFields<'a> {
    /// The request line, where it was read.
    pub(super) line: Option<&'a mut String>,
    /// The parameters.
    pub(super) params: &'a mut Params,
    /// The headers.
    pub(super) headers: &'a mut Vec<(String, String)>,
    /// The body.
    pub(super) body: &'a mut Bytes,
}

/// Closes a new event.
pub(super) fn close_event(sealer: &Sealer, event: &mut NewEvent) -> Result<(), SealError> {
    close_texts(
        sealer,
        event.id,
        &mut event.request_line,
        &mut event.params,
        &mut event.headers,
    )?;
    if let Some(reason) = &mut event.unmappable {
        // The reason may repeat what the body says.
        let first = DeliveryId {
            event: event.id,
            number: 0,
        };
        *reason = close_text(sealer, first, cut(reason, MAX_REASON))?;
    }
    event.body = sealer.seal(&event.body, SealedPart::Body(event.id))?;
    Ok(())
}

/// Closes the texts of an event, which then stand in its only header.
pub(super) fn close_texts(
    sealer: &Sealer,
    id: EventId,
    line: &mut String,
    params: &mut Params,
    headers: &mut Vec<(String, String)>,
) -> Result<(), SealError> {
    let texts = ClosedTexts {
        line: std::mem::take(line),
        params: std::mem::take(params),
        headers: std::mem::take(headers),
    };
    let texts = serde_json::to_vec(&texts).map_err(|_| SealError::Damaged)?;
    let closed = sealer.seal(&texts, SealedPart::Said(id))?;
    headers.push((CLOSED.to_owned(), STANDARD.encode(closed)));
    Ok(())
}

/// Closes the answer of a delivery.
pub(super) fn close_answer(
    sealer: &Sealer,
    id: DeliveryId,
    answer: &mut Answer,
) -> Result<(), SealError> {
    if let Some(text) = &mut answer.result {
        *text = close_text(sealer, id, cut(text, MAX_CLOSED_RESULT))?;
    }
    if let Some(task) = &mut answer.task {
        *task = sealer.seal(task, SealedPart::Task(id))?;
    }
    Ok(())
}

fn close_text(sealer: &Sealer, id: DeliveryId, text: &str) -> Result<String, SealError> {
    let closed = sealer.seal(text.as_bytes(), SealedPart::Answer(id))?;
    Ok(format!("{CLOSED_TEXT}{}", STANDARD.encode(closed)))
}

/// Opens an event that is closed.
pub(super) fn open_event(
    sealer: &Sealer,
    id: EventId,
    fields: ClosedFields<'_>,
) -> Result<(), SealError> {
    let [(_, closed)] = fields.headers.as_slice() else {
        return Ok(());
    };
    if !is_closed(fields.headers) {
        return Ok(());
    }
    let closed = STANDARD.decode(closed).map_err(|_| SealError::Damaged)?;
    let texts = sealer.open(&closed, SealedPart::Said(id))?;
    let texts: ClosedTexts = serde_json::from_slice(&texts).map_err(|_| SealError::Damaged)?;
    *fields.body = sealer.open(fields.body, SealedPart::Body(id))?.into();
    *fields.params = texts.params;
    *fields.headers = texts.headers;
    if let Some(line) = fields.line {
        *line = texts.line;
    }
    Ok(())
}

/// Opens a delivery with its tries.
pub(super) fn open_delivery(sealer: &Sealer, delivery: &mut DeliveryDetail) {
    for attempt in delivery
        .tries
        .iter_mut()
        .filter(|attempt| attempt.result == DeliveryState::Unmappable.as_str())
    {
        open_text(sealer, delivery.id, &mut attempt.detail);
    }
    if let Some(answer) = &mut delivery.answer {
        open_answer(sealer, delivery.id, answer);
    }
}

/// Opens an answer. Only a text in the form of a sealed one is taken for closed, as an agent may say anything; one that
/// has the form and does not open is not shown.
pub(super) fn open_answer(sealer: &Sealer, id: DeliveryId, answer: &mut Answer) {
    if let Some(text) = &mut answer.result {
        open_text(sealer, id, text);
    }
    if let Some(task) = answer.task.take_if(|task| Sealer::has_form(task)) {
        answer.task = sealer
            .open(&task, SealedPart::Task(id))
            .ok()
            .map(Bytes::from);
    }
}

/// Opens a payload. One without the form of a sealed text was kept in clear.
pub(super) fn open_payload(
    sealer: &Sealer,
    id: DeliveryId,
    payload: &mut Bytes,
) -> Result<(), SealError> {
    if Sealer::has_form(payload) {
        *payload = sealer.open(payload, SealedPart::Payload(id))?.into();
    }
    Ok(())
}

fn open_text(sealer: &Sealer, id: DeliveryId, text: &mut String) {
    let closed = text
        .strip_prefix(CLOSED_TEXT)
        .and_then(|closed| STANDARD.decode(closed).ok());
    if let Some(closed) = closed.filter(|closed| Sealer::has_form(closed)) {
        let opened = sealer.open(&closed, SealedPart::Answer(id)).ok();
        *text = opened
            .and_then(|text| String::from_utf8(text).ok())
            .unwrap_or_else(|| UNREADABLE_ANSWER.to_owned());
    }
}

/// True if the headers of an event stand for all its closed texts.
pub(super) fn is_closed(headers: &[(String, String)]) -> bool {
    matches!(headers, [(name, _)] if name == CLOSED)
}
