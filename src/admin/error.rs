//! What may go wrong at the operator's listener, and one match from there to a status. What the caller sees and what
//! the log gets are two strings: the engine's own words go to the log only.

use std::time::Duration;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::attachment::StoreError;
use crate::inbox::InboxError;

/// Why an admin request was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum AdminError {
    /// `Host` is missing, doubled, or a name that nobody gave this listener.
    #[error("the Host header is not one of this listener's names")]
    Host,
    /// A browser says that another site's page sent it.
    #[error("the request comes from another site's page")]
    CrossSite,
    /// No token, or a wrong one.
    #[error("the token is missing or wrong")]
    Token,
    /// Too many of those.
    #[error("too many requests without the token")]
    Guesses(Duration),
    /// Nothing is routed there.
    #[error("nothing answers at this path")]
    NoSuchPath,
    /// Not this method.
    #[error("this path does not answer to this method")]
    Method,
    /// The query cannot be read.
    #[error("the query cannot be read: {0}")]
    Query(String),
    /// No event or delivery of this id.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// It cannot be done as things stand: a code and a sentence.
    #[error("{1}")]
    Conflict(&'static str, String),
    /// Too many replays.
    #[error("too many replays")]
    Replays(Duration),
    /// The attachment store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The inbox could not do it.
    #[error(transparent)]
    Inbox(#[from] InboxError),
}

impl AdminError {
    /// One match: which status, which code, which sentence.
    fn parts(&self) -> (StatusCode, &'static str, String) {
        let (status, code, sentence) = match self {
            Self::Host => (StatusCode::FORBIDDEN, "bad_host", "This listener does not go by that host name."),
            Self::CrossSite => (StatusCode::FORBIDDEN, "cross_site", "Requests from other sites' pages are refused."),
            Self::Token => {
                (StatusCode::UNAUTHORIZED, "unauthorized", "Send the admin token as Authorization: Bearer TOKEN.")
            }
            Self::Guesses(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_guesses",
                "Too many requests without the admin token. Try again later.",
            ),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no_such_path", "Nothing answers at this path."),
            Self::Method => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This path does not answer to this method.")
            }
            Self::Query(why) => return (StatusCode::BAD_REQUEST, "bad_query", why.clone()),
            Self::NotFound(what) => return (StatusCode::NOT_FOUND, "not_found", format!("There is no such {what}.")),
            Self::Conflict(code, why) => return (StatusCode::CONFLICT, code, why.clone()),
            Self::Replays(_) => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_replays", "Too many replays at once. Try again later.")
            }
            Self::Store(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "store_failed", "The attachment store failed; the log says why.")
            }
            Self::Inbox(InboxError::Full(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "The inbox is busy. Try again later.")
            }
            Self::Inbox(InboxError::NoSpace) => {
                (StatusCode::SERVICE_UNAVAILABLE, "no_space", "The inbox has no space left.")
            }
            Self::Inbox(InboxError::Closed) => (StatusCode::SERVICE_UNAVAILABLE, "closed", "The inbox is closed."),
            Self::Inbox(InboxError::Record(_)) => {
                (StatusCode::CONFLICT, "record_refused", "The inbox cannot keep this; the log says why.")
            }
            Self::Inbox(InboxError::Engine { .. }) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "inbox_failed", "The inbox failed; the log says why.")
            }
        };
        (status, code, sentence.to_owned())
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let (status, code, detail) = self.parts();
        match &self {
            Self::Store(error) => tracing::error!(%error, "an admin request failed"),
            Self::Inbox(error) => tracing::error!(%error, "an admin request failed"),
            refused => tracing::debug!(status = status.as_u16(), cause = %refused, "an admin request was refused"),
        }
        let mut answer = (status, Json(json!({ "detail": detail, "code": code }))).into_response();
        let headers = answer.headers_mut();
        match &self {
            Self::Guesses(wait) | Self::Replays(wait) | Self::Inbox(InboxError::Full(wait)) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(*wait)));
            }
            Self::Token => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        answer
    }
}

/// Rounded up, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_words_do_not_reach_the_caller() {
        let error = AdminError::Inbox(InboxError::Engine { doing: "list", cause: "/var/lib/inbox.db is odd".into() });
        let (status, code, detail) = error.parts();
        assert_eq!((status.as_u16(), code), (500, "inbox_failed"));
        assert!(!detail.contains("inbox.db"));
    }

    #[test]
    fn waits_are_whole_seconds_and_never_none() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(59_001)), 60);
    }
}
