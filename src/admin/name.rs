//! Names in the requests of an operator: beginnings of ids, sources, destinations. A name that does not exist is an
//! error with the most similar name, never an empty answer.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::AdminState;
use super::error::AdminError;
use crate::config::section::nearest;
use crate::inbox::{EventFilter, Pause};
use crate::model::{AttachmentId, DeliveryId, Destination, EventId};

/// Largest number of ids in the message that a beginning is ambiguous.
const TOLD: usize = 5;

/// Shortest beginning of a destination's id.
const MIN_BEGINNING: usize = 4;

/// Id in a path. A text that is no id of this kind is answered with 404.
pub(super) struct PathId<T>(pub(super) T);

impl<T: FromStr + IdKind> FromRequestParts<Arc<AdminState>> for PathId<T> {
    type Rejection = AdminError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<AdminState>,
    ) -> Result<Self, AdminError> {
        let missing = AdminError::NotFound(T::WORD);
        let Ok(Path(text)) = Path::<String>::from_request_parts(parts, state).await else {
            return Err(missing);
        };
        match text.parse().ok() {
            Some(id) => Ok(Self(id)),
            None => T::begins(&text, state).await?.map(Self).ok_or(missing),
        }
    }
}

/// The number of a replay in bulk.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobId(pub(super) i64);

impl FromStr for JobId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Kind of an id, which knows its noun and how to find an id by its beginning.
pub(super) trait IdKind: Send + Sized {
    /// Noun of the kind for messages.
    const WORD: &'static str;

    /// Finds the only id that begins with a text, if the kind permits it.
    fn begins(
        _text: &str,
        _state: &AdminState,
    ) -> impl Future<Output = Result<Option<Self>, AdminError>> + Send {
        async { Ok(None) }
    }
}

impl IdKind for EventId {
    const WORD: &'static str = "event";

    async fn begins(text: &str, state: &AdminState) -> Result<Option<Self>, AdminError> {
        match EventId::beginning(text) {
            Some(span) => only(state, text, span).await,
            None => Ok(None),
        }
    }
}

impl IdKind for DeliveryId {
    const WORD: &'static str = "delivery";

    async fn begins(text: &str, state: &AdminState) -> Result<Option<Self>, AdminError> {
        let Some((span, number)) = DeliveryId::beginning(text) else {
            return Ok(None);
        };
        let Some(event) = only(state, text, span).await? else {
            return Ok(None);
        };
        if let Some(number) = number {
            return Ok(Some(Self { event, number }));
        }
        let deliveries = state
            .inbox
            .event(event)
            .await?
            .map(|event| event.deliveries)
            .unwrap_or_default();
        match deliveries.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.id)),
            several => Err(ambiguous(
                text,
                several.iter().map(|delivery| delivery.id.to_string()),
            )),
        }
    }
}

impl IdKind for JobId {
    const WORD: &'static str = "replay";
}

impl IdKind for AttachmentId {
    const WORD: &'static str = "attachment";
}

/// Finds the only event in a range of ids.
async fn only(
    state: &AdminState,
    text: &str,
    (from, to): (EventId, EventId),
) -> Result<Option<EventId>, AdminError> {
    let found = state
        .in_time(state.inbox.between(from, to, TOLD + 1))
        .await?;
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        several => Err(ambiguous(text, several.iter().map(ToString::to_string))),
    }
}

fn ambiguous(text: &str, ids: impl ExactSizeIterator<Item = String>) -> AdminError {
    let more = if ids.len() > TOLD { " and more" } else { "" };
    let ids: Vec<String> = ids.take(TOLD).collect();
    AdminError::Conflict(
        "ambiguous",
        format!(
            "Several begin with {text}: {}{more}. Write more of the one that is meant.",
            ids.join(", ")
        ),
    )
}

impl AdminState {
    /// Refuses the name of a source that is not configured and that no event came by.
    pub(super) async fn check_source(&self, name: Option<&str>) -> Result<(), AdminError> {
        let Some(name) = name.filter(|name| self.source(name).is_none()) else {
            return Ok(());
        };
        let filter = EventFilter {
            source: Some(name.to_owned()),
            limit: 1,
            ..EventFilter::default()
        };
        let known = self
            .inbox
            .counts()
            .await?
            .iter()
            .any(|count| count.source == name)
            || self
                .inbox
                .pauses()
                .await?
                .iter()
                .any(|(hold, _)| matches!(hold, Pause::Source(held) if held == name))
            || !self
                .in_time(self.inbox.events(&filter))
                .await?
                .items
                .is_empty();
        if known {
            return Ok(());
        }
        let names = self
            .sources
            .iter()
            .map(|source| source.config.name.as_str());
        let hint = match nearest(name, names) {
            Some(near) => format!("; did you mean {near}?"),
            None => ". GET /api/v1/sources and `sluicegate source list` name them.".to_owned(),
        };
        Err(AdminError::Unknown(format!(
            "There is no source {name}{hint}"
        )))
    }

    /// Finds a known destination by its name, or by a beginning that only one has. Callers with keys of their own
    /// name agents that no source does, so `force` accepts any name.
    pub(super) async fn destination(
        &self,
        named: Destination,
        force: bool,
    ) -> Result<Destination, AdminError> {
        let mut known: BTreeSet<Destination> = self
            .sources
            .iter()
            .filter_map(|source| source.config.destination.clone())
            .collect();
        if force || known.contains(&named) {
            return Ok(named);
        }
        known.extend(
            self.dispatcher
                .iter()
                .flat_map(|sends| sends.destinations())
                .map(|fare| fare.destination),
        );
        known.extend(
            self.inbox
                .pauses()
                .await?
                .into_iter()
                .filter_map(|(hold, _)| match hold {
                    Pause::Destination(destination) => Some(destination),
                    Pause::All | Pause::Source(_) => None,
                }),
        );
        known.extend(self.inbox.destinations().await?);
        if known.contains(&named) {
            return Ok(named);
        }
        let start = named.id.trim_end_matches(['.', '…']);
        let fits = |one: &&Destination| one.kind == named.kind && one.id.starts_with(start);
        if start.len() >= MIN_BEGINNING {
            let fitting: Vec<&Destination> = known.iter().filter(fits).collect();
            match fitting.as_slice() {
                [] => {}
                [one] => return Ok((*one).clone()),
                several => {
                    return Err(ambiguous(
                        &named.to_string(),
                        several.iter().map(ToString::to_string),
                    ));
                }
            }
        }
        let names: Vec<String> = known.iter().map(ToString::to_string).collect();
        let hint = match nearest(&named.to_string(), names.iter().map(String::as_str)) {
            Some(near) => format!("; did you mean {near}?"),
            None => ".".to_owned(),
        };
        Err(AdminError::Unknown(format!(
            "No source sends to {named}, and nothing was sent there{hint} To name it all the same, add --force \
             (?force=true)."
        )))
    }
}
