//! Errors of the operator's listener, and one match from them to statuses. The caller's text and the log's text are
//! two strings: the engine's own words are in the log only.

use std::time::Duration;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::api::error::ErrorView;
use crate::attachment::StoreError;
use crate::inbox::InboxError;
use crate::ingress::{refusal_of, status_and_sentence};
use crate::model::Refusal;
use crate::net::HeadFault;

/// Reason why an admin request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum AdminError {
    /// The head of the request is invalid.
    #[error("what came is no request: {0:?}")]
    InvalidHead(HeadFault),
    /// The `Host` header is missing, occurs twice, or has a name that is not of this listener.
    #[error("the Host header is not one of this listener's names")]
    Host,
    /// The browser says that another site's page sent the request.
    #[error("the request comes from another site's page")]
    CrossSite,
    /// The token is missing or wrong.
    #[error("the token is missing or wrong")]
    Token,
    /// The address has sent too many requests without the right token.
    #[error("too many requests without the token")]
    Guesses(Duration),
    /// No route has this path.
    #[error("nothing answers at this path")]
    NoSuchPath,
    /// The process does not have the admin role.
    #[error("this process does not have the admin role")]
    NoAdminRole,
    /// The route does not have this method.
    #[error("this path does not answer to this method")]
    Method,
    /// The query is invalid: a sentence.
    #[error("the query cannot be read: {0}")]
    Query(String),
    /// The body is invalid: a sentence.
    #[error("the body cannot be read: {0}")]
    Body(String),
    /// The body is larger than this number of bytes.
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    /// The source cannot map the event that an operator sends.
    #[error("the source cannot read it: {0}")]
    Unmappable(String),
    /// The time limit of a request is over.
    #[error("the request took too long")]
    TimedOut,
    /// The search in the inbox took too long.
    #[error("the inbox took too long to look")]
    Slow,
    /// The thing of this kind does not exist.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The name is not known: a sentence.
    #[error("{0}")]
    Unknown(String),
    /// The state of things does not permit it: a code and a sentence.
    #[error("{1}")]
    Conflict(&'static str, String),
    /// There were too many replays in the last minute.
    #[error("too many replays")]
    Replays(Duration),
    /// The attachment store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The handler or a layer panicked.
    #[error("the handler panicked")]
    Panic,
    /// The inbox failed or refused.
    #[error(transparent)]
    Inbox(#[from] InboxError),
}

impl AdminError {
    /// Gives the status, the code and the sentence of each error.
    fn parts(&self) -> (StatusCode, &'static str, String) {
        let (status, code, sentence) = match self {
            Self::InvalidHead(fault) => {
                let refusal = head_refusal(*fault);
                let (status, sentence) = status_and_sentence(&refusal);
                (status, refusal.code(), sentence)
            }
            Self::Host => (
                StatusCode::FORBIDDEN,
                "bad_host",
                "This listener does not go by that host name.",
            ),
            Self::CrossSite => (
                StatusCode::FORBIDDEN,
                "cross_site",
                "Requests from other sites' pages are refused.",
            ),
            Self::Token => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "Send the admin token as Authorization: Bearer TOKEN.",
            ),
            Self::Guesses(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_guesses",
                "Too many requests without the admin token. Try again later.",
            ),
            Self::NoSuchPath => (
                StatusCode::NOT_FOUND,
                "no_such_path",
                "Nothing answers at this path.",
            ),
            Self::NoAdminRole => (
                StatusCode::NOT_FOUND,
                "no_admin_role",
                "This process answers health and metrics only. Ask one that has the admin role.",
            ),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "This path does not answer to this method.",
            ),
            Self::Query(why) => return (StatusCode::BAD_REQUEST, "bad_query", why.clone()),
            Self::Body(why) => {
                return (
                    StatusCode::BAD_REQUEST,
                    "bad_body",
                    format!("The body cannot be read: {why}"),
                );
            }
            Self::TooLarge(most) => {
                let sentence = format!("The body is larger than {most} bytes.");
                return (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", sentence);
            }
            Self::Unmappable(why) => {
                let sentence = format!("Its source cannot read it: {why}.");
                return (StatusCode::UNPROCESSABLE_ENTITY, "unmappable", sentence);
            }
            Self::TimedOut => (
                StatusCode::SERVICE_UNAVAILABLE,
                "timed_out",
                "The request took too long.",
            ),
            Self::Slow => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too_slow",
                "Looking takes too long. Name a source, a state or a time to look at less.",
            ),
            Self::NotFound(what) => {
                return (
                    StatusCode::NOT_FOUND,
                    "not_found",
                    format!("There is no such {what}."),
                );
            }
            Self::Unknown(why) => return (StatusCode::NOT_FOUND, "not_found", why.clone()),
            Self::Conflict(code, why) => return (StatusCode::CONFLICT, code, why.clone()),
            Self::Replays(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_replays",
                "Too many replays at once. Try again later.",
            ),
            Self::Panic => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something went wrong on our side; the log says why.",
            ),
            Self::Store(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "store_failed",
                "The attachment store failed; the log says why.",
            ),
            Self::Inbox(InboxError::Full(_)) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "The inbox is busy. Try again later.",
            ),
            Self::Inbox(InboxError::NoSpace) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no_space",
                "The inbox has no space left.",
            ),
            Self::Inbox(InboxError::Closed) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "closed",
                "The inbox is closed.",
            ),
            Self::Inbox(InboxError::Record(_)) => (
                StatusCode::CONFLICT,
                "record_refused",
                "The inbox cannot keep this; the log says why.",
            ),
            Self::Inbox(InboxError::Engine { .. }) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "inbox_failed",
                "The inbox failed; the log says why.",
            ),
        };
        (status, code, sentence.to_owned())
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let (status, code, detail) = self.parts();
        match &self {
            Self::Panic => tracing::error!(error = %self, "an admin request failed"),
            Self::Store(error) => tracing::error!(%error, "an admin request failed"),
            Self::Inbox(error) => tracing::error!(%error, "an admin request failed"),
            refused => {
                tracing::debug!(status = status.as_u16(), cause = %refused, "an admin request was refused")
            }
        }
        let mut answer = (
            status,
            Json(ErrorView {
                detail,
                code: code.to_owned(),
            }),
        )
            .into_response();
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

/// Maps a fault to the refusal with its words. This listener has one code for everything that is malformed.
fn head_refusal(fault: HeadFault) -> Refusal {
    match refusal_of(fault) {
        Refusal::BadFraming(why) | Refusal::BadTarget(why) => Refusal::BadHead(why),
        refusal => refusal,
    }
}

/// Rounds up to whole seconds, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_words_do_not_reach_the_caller() {
        let error = AdminError::Inbox(InboxError::Engine {
            doing: "list",
            cause: "/var/lib/inbox.db is odd".into(),
        });
        let (status, code, detail) = error.parts();
        assert_eq!((status.as_u16(), code), (500, "inbox_failed"));
        assert!(!detail.contains("inbox.db"));
    }

    #[test]
    fn an_invalid_head_has_the_code_of_its_refusal_and_what_is_malformed_has_one_code() {
        for (fault, expected) in [
            (HeadFault::Head("x"), (400, "bad_head")),
            (HeadFault::Framing("x"), (400, "bad_head")),
            (HeadFault::Target("x"), (400, "bad_head")),
            (HeadFault::TargetTooLong, (414, "target_too_long")),
            (HeadFault::TooLarge, (431, "head_too_large")),
            (HeadFault::Version, (505, "unsupported_version")),
            (HeadFault::Slow, (408, "slow_head")),
        ] {
            let (status, code, sentence) = AdminError::InvalidHead(fault).parts();
            assert_eq!((status.as_u16(), code), expected, "{fault:?}");
            assert!(sentence.ends_with('.') && sentence != "x", "{sentence}");
        }
    }

    #[test]
    fn waits_are_whole_seconds_and_never_none() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(59_001)), 60);
    }
}
