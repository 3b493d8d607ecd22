//! Encryption of what an event says, as a codec that an engine is given when it is opened: bodies, headers, parameters,
//! request lines and answers go into the tables closed and come out of them open. Without a key it changes nothing.
//!
//! What is looked for or ordered by stays readable: sources, types, dedup keys, conversations, destinations, states,
//! times, and the digests by which a proof is known again. An event is bound to its id and an answer to its delivery's,
//! so that no other event's text can be put in its place. Rows that were written in clear are read as they are, and so
//! are closed rows after encryption has been switched off.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::closed::{
    ClosedFields, close_answer, close_event, close_texts, is_closed, open_answer, open_delivery,
    open_event, open_payload,
};
use super::seal::{SealError, SealedPart, Sealer};
use super::{
    Anew, Browse, Claimed, DeliveryDetail, EventDetail, EventFilter, InboxError, Merged, Next,
    Settlement, Turn,
};
use crate::model::{DeliveryId, EventId, NewEvent};

/// Result of the attempt that ends a delivery whose event cannot be opened.
const CANNOT_OPEN: &str = "cannot_open";

/// Operation that fails when a closed event cannot be opened.
const OPENING: &str = "open an event";

/// Closes events and answers on their way into the tables, and opens them on their way out. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Codec(Option<CodecKey>);

#[derive(Clone, Debug)]
struct CodecKey {
    sealer: Arc<Sealer>,
    /// True if new rows are closed. Closed rows are opened in any case.
    closes: bool,
}

/// A record that was kept and cannot be read again: the lease on it ends with these words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// The result of the attempt, a stable word.
    pub(super) result: &'static str,
    /// The cause, in a sentence.
    pub(super) cause: String,
}

impl Unreadable {
    /// A record that is damaged, whatever it says.
    pub(super) fn damaged(cause: impl Into<String>) -> Self {
        Self {
            result: "unreadable",
            cause: cause.into(),
        }
    }

    fn closed(error: &SealError) -> Self {
        Self {
            result: CANNOT_OPEN,
            cause: format!(
                "the event cannot be opened: {error}; list the key that it was sealed with in inbox.old_keys, and \
                 replay it"
            ),
        }
    }
}

/// Checks that the oldest and the newest event of an inbox open with its key. An operator who has mislaid a key is told
/// so before anything is taken in or sent.
pub async fn check(inbox: &dyn Browse) -> Result<(), InboxError> {
    for oldest_first in [true, false] {
        let filter = EventFilter {
            limit: 1,
            oldest_first,
            ..EventFilter::default()
        };
        let page = inbox.events(&filter).await?;
        let Some(event) = page.items.first() else {
            break;
        };
        // A record that cannot be read for another reason does not keep the gateway from starting.
        if let Err(error) = inbox.event(event.id).await
            && matches!(error, InboxError::Engine { doing: OPENING, .. })
        {
            return Err(error);
        }
    }
    Ok(())
}

impl Codec {
    /// A codec that changes nothing: without a key, rows stay as they are.
    pub const fn plain() -> Self {
        Self(None)
    }

    /// A codec with a key. `closes`: new rows are closed with it.
    pub const fn new(sealer: Arc<Sealer>, closes: bool) -> Self {
        Self(Some(CodecKey { sealer, closes }))
    }

    fn closing(&self) -> Option<&Sealer> {
        self.0
            .as_ref()
            .filter(|key| key.closes)
            .map(|key| &*key.sealer)
    }

    fn opening(&self) -> Option<&Sealer> {
        self.0.as_ref().map(|key| &*key.sealer)
    }

    /// Closes new events.
    pub(super) fn close_events(&self, events: &mut [NewEvent]) -> Result<(), InboxError> {
        let Some(sealer) = self.closing() else {
            return Ok(());
        };
        events
            .iter_mut()
            .try_for_each(|event| close_event(sealer, event))
            .map_err(|error| not_closed(&error))
    }

    /// Closes the texts that are made anew of an event which was closed when it came, whatever holds for new events by
    /// now: its body stays closed, and opens with the rest. `kept` are the headers as they are in the table.
    pub(super) fn close_anew<'a>(
        &self,
        id: EventId,
        anew: &'a Anew,
        kept: &[(String, String)],
    ) -> Result<Cow<'a, Anew>, SealError> {
        let Some(sealer) = self.opening().filter(|_| is_closed(kept)) else {
            return Ok(Cow::Borrowed(anew));
        };
        let mut anew = anew.clone();
        close_texts(
            sealer,
            id,
            &mut anew.request_line,
            &mut anew.params,
            &mut anew.headers,
        )?;
        Ok(Cow::Owned(anew))
    }

    /// Closes the answer of a settlement.
    pub(super) fn close_settlement(&self, settlement: &mut Settlement) -> Result<(), InboxError> {
        let Some(sealer) = self.closing() else {
            return Ok(());
        };
        if let Next::Delivered(answer) | Next::Dead(Some(answer)) = &mut settlement.next {
            let id = settlement
                .id
                .ok_or_else(|| not_closed(&SealError::Damaged))?;
            close_answer(sealer, id, answer).map_err(|error| not_closed(&error))?;
        }
        Ok(())
    }

    /// Closes the payload of a delivery that answers another one.
    pub(super) fn close_payload<'a>(
        &self,
        id: DeliveryId,
        payload: &'a Bytes,
    ) -> Result<Cow<'a, [u8]>, SealError> {
        match self.closing() {
            None => Ok(Cow::Borrowed(payload)),
            Some(sealer) => {
                let closed = sealer.seal(payload, SealedPart::Payload(id))?;
                Ok(Cow::Owned(closed.into()))
            }
        }
    }

    /// Opens a delivery under lease, and what goes with it.
    pub(super) fn open_claimed(&self, claimed: &mut Claimed) -> Result<(), Unreadable> {
        let Some(sealer) = self.opening() else {
            return Ok(());
        };
        let Claimed {
            id,
            params,
            headers,
            body,
            merged,
            answers,
            ..
        } = claimed;
        let id = *id;
        let fields = |params, headers, body| ClosedFields {
            line: None,
            params,
            headers,
            body,
        };
        open_event(sealer, id.event, fields(params, headers, body))
            .and_then(|()| {
                merged.iter_mut().try_for_each(|merged| {
                    let Merged {
                        id,
                        params,
                        headers,
                        body,
                        ..
                    } = merged;
                    open_event(sealer, id.event, fields(params, headers, body))
                })
            })
            .and_then(|()| match answers {
                Some(answers) => open_payload(sealer, id, &mut answers.payload),
                None => Ok(()),
            })
            .map_err(|error| Unreadable::closed(&error))
    }

    /// Opens an earlier turn of a conversation.
    pub(super) fn open_turn(&self, turn: &mut Turn) -> Result<(), InboxError> {
        let Some(sealer) = self.opening() else {
            return Ok(());
        };
        let fields = ClosedFields {
            line: None,
            params: &mut turn.params,
            headers: &mut turn.headers,
            body: &mut turn.body,
        };
        open_event(sealer, turn.id.event, fields).map_err(|error| not_opened(&error))?;
        if let Some(answer) = &mut turn.answer {
            open_answer(sealer, turn.id, answer);
        }
        Ok(())
    }

    /// Opens an event with its deliveries.
    pub(super) fn open_detail(&self, detail: &mut EventDetail) -> Result<(), InboxError> {
        let Some(sealer) = self.opening() else {
            return Ok(());
        };
        let fields = ClosedFields {
            line: Some(&mut detail.request_line),
            params: &mut detail.params,
            headers: &mut detail.headers,
            body: &mut detail.body,
        };
        open_event(sealer, detail.summary.id, fields).map_err(|error| not_opened(&error))?;
        for delivery in &mut detail.deliveries {
            open_delivery(sealer, delivery);
        }
        Ok(())
    }

    /// Opens a delivery.
    pub(super) fn open_delivery(&self, delivery: &mut DeliveryDetail) {
        if let Some(sealer) = self.opening() {
            open_delivery(sealer, delivery);
        }
    }
}

fn not_closed(error: &SealError) -> InboxError {
    InboxError::Engine {
        doing: "close an event",
        cause: error.to_string(),
    }
}

fn not_opened(error: &SealError) -> InboxError {
    InboxError::Engine {
        doing: OPENING,
        cause: format!("{error}; list the key it was sealed with in inbox.old_keys"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::inbox::{Answer, EventSummary, SealedCall};
    use crate::model::{Account, Class, DeliveryState, Params, Timestamp};

    /// A row as the gateway wrote it before encryption was a codec: its event's id, headers and body, and the answer of
    /// its delivery.
    const ID: &str = "01a22ff678d6735288f9438913cec8f2";
    const HEADERS: &str = include_str!("../../tests/data/closed_headers.json");
    const BODY: &str = "023c1ade776799bb68971cdc8d639d6ff7c7f11dd81258f65604dab534b9270465eda1fbd9b64bbf9a753097b05637d\
                        dbecc5f3fe80c9c35704f54d549b662e561ef8e0f807502c8d4ead04414e2278c87d10de924ae30d5de";
    const ANSWER: &str = include_str!("../../tests/data/closed_answer.txt");

    fn codec(key: &str) -> Codec {
        let sealer = Sealer::new(&Secret::new("a test's key", key)).unwrap();
        Codec::new(Arc::new(sealer), false)
    }

    fn former_row() -> EventDetail {
        let id: [u8; 16] = hex::decode(ID).unwrap().try_into().unwrap();
        let id = EventId::from_bytes(id);
        EventDetail {
            summary: EventSummary {
                id,
                source: "open".into(),
                event_type: None,
                dedup: Some("7".into()),
                thread: Some("c".into()),
                received_at: Timestamp::default(),
                filtered: None,
                states: vec![DeliveryState::Delivered],
            },
            strength: "none".into(),
            secret: None,
            request_line: String::new(),
            params: Params::default(),
            headers: serde_json::from_str(HEADERS).unwrap(),
            body: hex::decode(BODY).unwrap().into(),
            replays: 0,
            replayed_at: None,
            attachments: vec![],
            deliveries: vec![DeliveryDetail {
                id: DeliveryId {
                    event: id,
                    number: 0,
                },
                destination: "agent/a".parse().unwrap(),
                account: Account::Operator,
                class: Class::Normal,
                state: DeliveryState::Delivered,
                upstream_id: "u".into(),
                attempts: 1,
                due: None,
                doubt: None,
                answer: Some(Answer {
                    status: "completed".into(),
                    result: Some(ANSWER.trim_end().to_owned()),
                    finished_at: None,
                    task: None,
                }),
                answers: None,
                sealed: SealedCall::None,
                tries: vec![],
            }],
        }
    }

    #[test]
    fn a_row_that_the_former_code_closed_opens() {
        let mut detail = former_row();
        codec("0123456789abcdef0123456789abcdef")
            .open_detail(&mut detail)
            .unwrap();
        assert_eq!(
            detail.body,
            r#"{"id":"7","chat":"c","prompt":"written by the former code"}"#
        );
        assert_eq!(detail.request_line, "POST /hooks/open?note=old");
        assert!(!detail.headers.is_empty() && !is_closed(&detail.headers));
        let answer = detail.deliveries[0].answer.as_ref().unwrap();
        let result = answer.result.as_deref().unwrap();
        assert!(result.contains("written by the former code"), "{result}");
    }

    #[test]
    fn a_row_of_another_key_is_refused_and_stays_closed_without_any() {
        let mut detail = former_row();
        let refused = codec("another key that is long enough to be one").open_detail(&mut detail);
        assert!(
            matches!(refused, Err(InboxError::Engine { doing: OPENING, .. })),
            "{refused:?}"
        );
        Codec::plain().open_detail(&mut detail).unwrap();
        assert!(is_closed(&detail.headers));
    }
}
