//! Queries and pages. Everything in a query is read strictly and bounded; an error says what cannot be read, so that
//! a misspelt filter does not show everything.

use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;

use super::error::AdminError;
use super::waiting::paused_list;
use crate::api::attachment::AttachmentQuery;
use crate::api::destination::ForceQuery;
use crate::api::event::EventQuery;
use crate::api::page::PageView;
use crate::api::refused::RefusedQuery;
use crate::api::replay::DryRunQuery;
use crate::api::source::{ConfirmQuery, EnrolQuery};
use crate::config::unit;
use crate::inbox::{EventFilter, Page, Pause};
use crate::model::FilterWords;
use crate::model::Timestamp;

/// Entries of a page: the default and the limit.
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

/// Largest number of refused requests in a list: all that are kept.
const MAX_REFUSED: usize = 1024;

/// Longest name of a source.
const MAX_NAME: usize = 64;

/// Longest error message about a query, in characters.
const MAX_COMPLAINT: usize = 300;

/// A query that was read into `T`.
pub(super) struct StrictQuery<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for StrictQuery<T> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AdminError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => Err(AdminError::Query(complaint(&error.body_text()))),
        }
    }
}

/// Words an error of the query reader plainly.
fn complaint(text: &str) -> String {
    let text = text
        .strip_prefix("Failed to deserialize query string: ")
        .unwrap_or(text);
    // The reader puts the key in front of its sentence.
    let text = text
        .split_once(": ")
        .filter(|(key, _)| !key.contains(' '))
        .map_or(text, |(_, rest)| rest);
    let quoted = |start: &str| text.strip_prefix(start)?.split_once('`');
    let sentence = if let Some((key, known)) = quoted("unknown field `") {
        let known = known
            .trim_start_matches(", ")
            .trim_start_matches("expected ")
            .trim_start_matches("one of ");
        format!(
            "There is no {key} in this query; there are: {}.",
            known.replace('`', "").replace(" or ", ", ")
        )
    } else if let Some((key, _)) = quoted("duplicate field `") {
        format!("{key} stands twice in the query.")
    } else {
        format!("The query cannot be read: {text}.")
    };
    sentence.chars().take(MAX_COMPLAINT).collect()
}

impl DryRunQuery {
    /// Reads the flag; false if it is missing.
    pub(super) fn dry_run(&self) -> Result<bool, AdminError> {
        Ok(truth("dry_run", self.dry_run.as_deref())?.unwrap_or(false))
    }
}

impl ForceQuery {
    /// Reads the flag; false if it is missing.
    pub(super) fn force(&self) -> Result<bool, AdminError> {
        Ok(truth("force", self.force.as_deref())?.unwrap_or(false))
    }
}

impl AttachmentQuery {
    /// Reads the cursor and the limit of a page.
    pub(super) fn page(&self) -> Result<(Option<i64>, usize), AdminError> {
        let EventFilter { cursor, limit, .. } = EventQuery {
            cursor: self.cursor.clone(),
            limit: self.limit.clone(),
            ..EventQuery::default()
        }
        .filter()?;
        Ok((cursor, limit))
    }
}

impl ConfirmQuery {
    /// Reads the fingerprint, which is required.
    pub(super) fn fingerprint(self) -> Result<String, AdminError> {
        let is_one =
            |text: &String| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let complaint = "fingerprint must be the 16 digits that the window shows.";
        self.fingerprint
            .filter(is_one)
            .ok_or_else(|| AdminError::Query(complaint.into()))
    }
}

/// Duration of an enrolment window: the default and the limit.
const DEFAULT_WINDOW: Duration = Duration::from_secs(600);
const MAX_WINDOW: Duration = Duration::from_secs(24 * 3600);

impl EnrolQuery {
    /// Reads the duration of the window.
    pub(super) fn span(&self) -> Result<Duration, AdminError> {
        let span =
            |text: &str| unit::duration(text).filter(|span| !span.is_zero() && *span <= MAX_WINDOW);
        let complaint = || "for must be a time like 10min, at most 24h.".into();
        Ok(read(self.r#for.as_deref(), span, complaint)?.unwrap_or(DEFAULT_WINDOW))
    }
}

impl EventQuery {
    /// Reads the query as a filter of the inbox.
    pub(super) fn filter(self) -> Result<EventFilter, AdminError> {
        let limit = limit(self.limit.as_deref(), MAX_LIMIT)?;
        let order = |text: &str| match text {
            "newest" => Some(false),
            "oldest" => Some(true),
            _ => None,
        };
        let oldest_first = read(self.order.as_deref(), order, || {
            "order must be newest or oldest.".into()
        })?;
        let cursor = read(self.cursor.as_deref(), read_cursor, || {
            "cursor must be a next_cursor of this list.".into()
        })?;
        let words = FilterWords {
            source: self.source,
            state: self.state,
            event_type: self.r#type,
            thread: self.thread,
            dedup: self.dedup,
            destination: self.destination,
            text: self.text,
            since: self.since,
            until: self.until,
            filtered: truth("filtered", self.filtered.as_deref())?,
            open: truth("open", self.open.as_deref())?,
        };
        Ok(EventFilter {
            cursor,
            oldest_first: oldest_first.unwrap_or(false),
            limit: limit.unwrap_or(DEFAULT_LIMIT),
            ..words.filter().map_err(AdminError::Query)?
        })
    }
}

impl RefusedQuery {
    /// Reads the name of the source.
    pub(super) fn source(&self) -> Result<Option<String>, AdminError> {
        source(self.source.as_deref())
    }

    /// Reads the begin of the time span.
    pub(super) fn since(&self) -> Result<Option<Timestamp>, AdminError> {
        read(self.since.as_deref(), Timestamp::parse, || {
            "since must be a time like 2026-01-31T12:00:00Z (in an address, write + as %2B).".into()
        })
    }

    /// Reads the limit of the list.
    pub(super) fn limit(&self) -> Result<usize, AdminError> {
        Ok(limit(self.limit.as_deref(), MAX_REFUSED)?.unwrap_or(MAX_REFUSED))
    }
}

fn limit(text: Option<&str>, most: usize) -> Result<Option<usize>, AdminError> {
    let good = |text: &str| text.parse().ok().filter(|limit| (1..=most).contains(limit));
    read(text, good, || {
        format!("limit must be a number from 1 to {most}.")
    })
}

fn truth(key: &str, text: Option<&str>) -> Result<Option<bool>, AdminError> {
    read(
        text,
        |text| text.parse().ok(),
        || format!("{key} must be true or false."),
    )
}

fn source(text: Option<&str>) -> Result<Option<String>, AdminError> {
    let name = |text: &str| (!text.is_empty() && text.len() <= MAX_NAME).then(|| text.to_owned());
    read(text, name, || "source must be the name of a source.".into())
}

fn read<T>(
    text: Option<&str>,
    parse: impl FnOnce(&str) -> Option<T>,
    complaint: impl FnOnce() -> String,
) -> Result<Option<T>, AdminError> {
    match text {
        None => Ok(None),
        Some(text) => parse(text)
            .map(Some)
            .ok_or_else(|| AdminError::Query(complaint())),
    }
}

impl<T> PageView<T> {
    /// Makes a page of views from a page of the inbox.
    pub(super) fn of<U>(page: Page<U>, view: impl FnMut(U) -> T) -> Self {
        Self {
            items: page.items.into_iter().map(view).collect(),
            next_cursor: page.next.map(write_cursor),
            paused: Vec::new(),
        }
    }

    /// Adds the holds of an operator.
    pub(super) fn with_paused(self, holds: &[(Pause, Timestamp)]) -> Self {
        Self {
            paused: paused_list(holds),
            ..self
        }
    }
}

/// Writes a cursor. It is opaque to callers, and its first byte is the version of its form.
fn write_cursor(next: i64) -> String {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&next.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_cursor(text: &str) -> Option<i64> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (1, next) = bytes.split_first().map(|(form, next)| (*form, next))? else {
        return None;
    };
    next.try_into().ok().map(i64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_and_nothing_else_does() {
        for next in [0, 1, 987_654_321, i64::MAX, i64::MIN] {
            assert_eq!(read_cursor(&write_cursor(next)), Some(next));
        }
        let too_long = "A".repeat(10_000);
        for wrong in [
            "",
            "1",
            "AA",
            "%%%",
            "AQAAAAAAAAAAAA",
            "AgAAAAAAAAAB",
            &too_long,
        ] {
            assert_eq!(read_cursor(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_no_query_has_is_said_in_plain_words() {
        let wrong = |query: &str| {
            let uri = format!("/x?{query}").parse().expect("an address");
            Query::<RefusedQuery>::try_from_uri(&uri)
                .map(drop)
                .map_err(|error| complaint(&error.body_text()))
        };
        let said = wrong("limt=2").expect_err("no such word");
        assert_eq!(
            said,
            "There is no limt in this query; there are: source, since, limit."
        );
        assert_eq!(
            wrong("limit=2&limit=3").expect_err("twice"),
            "limit stands twice in the query."
        );
        assert_eq!(wrong("limit=2"), Ok(()));
    }

    #[test]
    fn t102_what_a_query_says_wrongly_is_said() {
        let wrong = [
            EventQuery {
                state: Some("accepted".into()),
                ..EventQuery::default()
            },
            EventQuery {
                filtered: Some("1".into()),
                ..EventQuery::default()
            },
            EventQuery {
                since: Some("yesterday".into()),
                ..EventQuery::default()
            },
            EventQuery {
                cursor: Some("' OR 1=1".into()),
                ..EventQuery::default()
            },
            EventQuery {
                limit: Some("0".into()),
                ..EventQuery::default()
            },
            EventQuery {
                limit: Some("201".into()),
                ..EventQuery::default()
            },
            EventQuery {
                source: Some("a".repeat(65)),
                ..EventQuery::default()
            },
            EventQuery {
                order: Some("best".into()),
                ..EventQuery::default()
            },
            EventQuery {
                text: Some("'--".into()),
                ..EventQuery::default()
            },
            EventQuery {
                destination: Some("a1".into()),
                ..EventQuery::default()
            },
        ];
        for query in wrong {
            let asked = format!("{query:?}");
            assert!(
                matches!(query.filter(), Err(AdminError::Query(_))),
                "{asked}"
            );
        }
        assert_eq!(
            EventQuery::default().filter().expect("a filter").limit,
            DEFAULT_LIMIT
        );
    }
}
