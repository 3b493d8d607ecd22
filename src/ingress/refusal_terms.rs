//! Terms of every refusal: status, words, fate of the connection, hint. One exhaustive table, so that a new refusal has to
//! answer each of these questions.

use std::time::Duration;

use http::StatusCode;

use crate::model::Refusal;

/// Facts of the answer to a refusal.
pub(super) struct RefusalTerms<'r> {
    pub(super) status: StatusCode,
    /// The words for the caller of a source.
    pub(super) sentence: &'static str,
    pub(super) connection: Connection,
    pub(super) hint: Hint,
    /// The words for the caller of the drop-in.
    pub(super) hosted: Detail<'r>,
}

/// The fate of the connection that a refused request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    /// The request was read to its end.
    Keep,
    /// Bytes of the request's body may still be on the wire.
    CloseUnlessDrained,
    /// It is in doubt where the request ends, or what its sender takes the connection for.
    Close,
}

/// Header that tells the caller how to go on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hint {
    None,
    /// `Retry-After` with this time, spread so that callers do not come back all at once.
    RetrySpread(Duration),
    /// `Retry-After` with this many seconds.
    RetryAfter(u64),
    /// `Allow` with these methods.
    Allow(&'static str),
}

/// Words of the hosted webhook's answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Detail<'r> {
    /// The sentence for all callers.
    Sentence,
    /// A cause that speaks of the caller's own request.
    Text(&'r str),
    /// JSON that may be shown.
    Json(&'r str),
}

/// Pause after which a caller should try again when nothing was wrong with its request.
const SHORT_PAUSE: Duration = Duration::from_secs(5);

impl<'r> RefusalTerms<'r> {
    const fn new(status: StatusCode, sentence: &'static str, connection: Connection) -> Self {
        Self {
            status,
            sentence,
            connection,
            hint: Hint::None,
            hosted: Detail::Sentence,
        }
    }

    const fn hint(self, hint: Hint) -> Self {
        Self { hint, ..self }
    }

    const fn hosted(self, hosted: Detail<'r>) -> Self {
        Self { hosted, ..self }
    }
}

/// Status and words of a refusal, for a listener whose answers have another form.
pub(crate) fn status_and_sentence(refusal: &Refusal) -> (StatusCode, &'static str) {
    let terms = terms(refusal);
    (terms.status, terms.sentence)
}

/// The table of refusals. A refusal with a status of 4xx will never be accepted, one with 429 or 503 will be later.
pub(super) fn terms(refusal: &Refusal) -> RefusalTerms<'_> {
    use Connection::{Close, CloseUnlessDrained, Keep};
    use StatusCode as S;
    let new = RefusalTerms::new;
    match refusal {
        // Word for word the hosted webhook's answer: its callers may be at the wrong path of this gateway.
        Refusal::NotFound => new(S::NOT_FOUND, "Not Found", CloseUnlessDrained),
        Refusal::Method(allowed) => new(
            S::METHOD_NOT_ALLOWED,
            "This path does not answer to this method.",
            Close,
        )
        .hint(Hint::Allow(allowed))
        .hosted(Detail::Text("Method Not Allowed")),
        Refusal::Limited(wait) => new(
            S::TOO_MANY_REQUESTS,
            "Too many requests. Try again later.",
            CloseUnlessDrained,
        )
        .hint(Hint::RetrySpread(*wait)),
        Refusal::Overloaded(wait) => new(
            S::SERVICE_UNAVAILABLE,
            "The gateway is busy. Try again later.",
            CloseUnlessDrained,
        )
        .hint(Hint::RetrySpread(*wait)),
        Refusal::Behind(wait) => new(
            S::SERVICE_UNAVAILABLE,
            "Too much waits here already. Try again later.",
            Keep,
        )
        .hint(Hint::RetrySpread(*wait)),
        Refusal::BadHost => new(
            S::BAD_REQUEST,
            "The Host header is missing or wrong.",
            Close,
        ),
        Refusal::Loop => new(
            S::LOOP_DETECTED,
            "The gateway was sent its own request.",
            Close,
        ),
        Refusal::BadHead(_) => new(S::BAD_REQUEST, "The request is malformed.", Close),
        Refusal::BadTarget(what) => new(S::BAD_REQUEST, what, Close),
        Refusal::BadVersion => new(
            S::HTTP_VERSION_NOT_SUPPORTED,
            "This version of HTTP is not spoken here.",
            Close,
        ),
        Refusal::HeadTooLarge => new(
            S::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "The head of the request is too large.",
            Close,
        ),
        Refusal::SlowHead => new(
            S::REQUEST_TIMEOUT,
            "The head of the request came too slowly.",
            Close,
        ),
        Refusal::BadFraming(_) => new(S::BAD_REQUEST, "The body is badly framed.", Close),
        Refusal::BadSeal => new(
            S::FORBIDDEN,
            "The parameters in this address are not sealed.",
            Keep,
        ),
        Refusal::AddressNotAllowed => new(
            S::FORBIDDEN,
            "This address may not call here.",
            CloseUnlessDrained,
        ),
        Refusal::Certificate(_) => new(
            S::FORBIDDEN,
            "This client certificate may not call here.",
            CloseUnlessDrained,
        ),
        Refusal::TargetTooLong => new(S::URI_TOO_LONG, "The request target is too long.", Close),
        Refusal::TooLarge(_) => new(
            S::PAYLOAD_TOO_LARGE,
            "The body is too large.",
            CloseUnlessDrained,
        ),
        Refusal::TooManyItems(_) => new(
            S::PAYLOAD_TOO_LARGE,
            "The body brings more items than are taken at once.",
            Keep,
        ),
        Refusal::FileTooLarge(_) => new(
            S::PAYLOAD_TOO_LARGE,
            "A file is larger than is taken here.",
            CloseUnlessDrained,
        ),
        Refusal::FileKind(_) => new(
            S::UNSUPPORTED_MEDIA_TYPE,
            "This kind of file is not taken here.",
            CloseUnlessDrained,
        ),
        Refusal::Store(_) => new(
            S::SERVICE_UNAVAILABLE,
            "Files cannot be kept now. Try again later.",
            CloseUnlessDrained,
        )
        .hint(Hint::RetrySpread(SHORT_PAUSE)),
        Refusal::SlowBody => new(
            S::REQUEST_TIMEOUT,
            "The body came too slowly.",
            CloseUnlessDrained,
        ),
        Refusal::Aborted => new(S::BAD_REQUEST, "The body is not whole.", CloseUnlessDrained),
        // Nobody is there to read it.
        Refusal::Left => new(S::BAD_REQUEST, "The caller went away.", CloseUnlessDrained),
        Refusal::Origin(..) => new(S::UNAUTHORIZED, "The signature does not match.", Keep),
        Refusal::Challenge(_) => new(S::FORBIDDEN, "The challenge is not answered.", Keep),
        Refusal::Malformed(cause) => {
            new(S::BAD_REQUEST, "The body is malformed.", CloseUnlessDrained)
                .hosted(Detail::Text(cause))
        }
        Refusal::Unsupported(cause) => new(
            S::UNSUPPORTED_MEDIA_TYPE,
            "This kind of body is not taken here.",
            CloseUnlessDrained,
        )
        .hosted(Detail::Text(cause)),
        Refusal::Unmappable(cause) => new(
            S::UNPROCESSABLE_ENTITY,
            "The event lacks a value that this source needs.",
            Keep,
        )
        .hosted(Detail::Text(cause)),
        Refusal::Inbox(_) => new(
            S::SERVICE_UNAVAILABLE,
            "The event cannot be kept now. Try again later.",
            Keep,
        )
        .hint(Hint::RetrySpread(SHORT_PAUSE)),
        Refusal::NoSpace => new(
            S::SERVICE_UNAVAILABLE,
            "The event cannot be kept now. Try again later.",
            CloseUnlessDrained,
        )
        .hint(Hint::RetrySpread(SHORT_PAUSE)),
        Refusal::Stopped => new(
            S::SERVICE_UNAVAILABLE,
            "No agent is run now. Try again later.",
            Keep,
        )
        .hint(Hint::RetryAfter(fastrand::u64(30..=60))),
        // A quarter of so long a wait would be hours.
        Refusal::Spent(_, wait) => new(
            S::TOO_MANY_REQUESTS,
            "No more runs are begun today. Try again tomorrow.",
            Keep,
        )
        .hint(Hint::RetryAfter(wait.as_secs() + fastrand::u64(1..=300))),
        Refusal::Busy => new(
            S::CONFLICT,
            "This conversation has a turn that has not ended.",
            Keep,
        ),
        Refusal::UpstreamBusy(wait) => new(
            S::SERVICE_UNAVAILABLE,
            "The agent is busy. Try again later.",
            Keep,
        )
        .hint(Hint::RetrySpread(*wait)),
        Refusal::NoKey => new(S::UNAUTHORIZED, "API key not specified", CloseUnlessDrained),
        Refusal::KeyRefused(_) => new(S::FORBIDDEN, "Invalid API key", CloseUnlessDrained),
        Refusal::BadPath => new(
            S::BAD_REQUEST,
            "The path is not one that is passed on.",
            Close,
        ),
        Refusal::NoAgent => new(S::BAD_REQUEST, "agent_id is required", Keep),
        Refusal::OtherCall => new(
            S::UNPROCESSABLE_ENTITY,
            "This Idempotency-Key was used for another call. Use a new one.",
            Keep,
        ),
        Refusal::Invalid(list) => new(
            S::UNPROCESSABLE_ENTITY,
            "A parameter has a value that it cannot have.",
            Keep,
        )
        .hosted(Detail::Json(list)),
        Refusal::NotYet(what) => new(
            S::NOT_IMPLEMENTED,
            "This gateway cannot take files now.",
            Keep,
        )
        .hosted(Detail::Text(what)),
        // The upstream's own hint, which its callers would have had from it.
        Refusal::Upstream {
            status,
            detail,
            retry_after,
        } => new(
            S::from_u16(*status).unwrap_or(S::BAD_GATEWAY),
            "The agent platform refused the call.",
            Keep,
        )
        .hint(match retry_after {
            Some(wait) => Hint::RetryAfter(wait.as_secs().max(1)),
            None => Hint::None,
        })
        .hosted(Detail::Json(detail)),
        Refusal::UpstreamFailed(_) => {
            new(S::BAD_GATEWAY, "The agent platform failed to answer.", Keep)
        }
        Refusal::UpstreamSilent(_) => new(
            S::GATEWAY_TIMEOUT,
            "The agent platform did not answer in time.",
            Keep,
        ),
        Refusal::Answered(inner, status) => answered(inner, *status),
        Refusal::Internal(_) => new(
            S::INTERNAL_SERVER_ERROR,
            "Something went wrong on our side.",
            CloseUnlessDrained,
        ),
    }
}

/// The terms of a refusal whose status the provider or the source says.
fn answered(refusal: &Refusal, status: u16) -> RefusalTerms<'_> {
    let usual = terms(refusal);
    let status = StatusCode::from_u16(status).unwrap_or(usual.status);
    let is_undecided = matches!(refusal, Refusal::Origin(..) | Refusal::Challenge(_))
        && status == StatusCode::SERVICE_UNAVAILABLE;
    RefusalTerms {
        status,
        sentence: match refusal {
            Refusal::Origin(..) if is_undecided => {
                "This request cannot be judged now. Try again later."
            }
            _ => usual.sentence,
        },
        // Nothing was found wrong with the request; it could not be judged now.
        hint: if is_undecided {
            Hint::RetrySpread(SHORT_PAUSE)
        } else {
            usual.hint
        },
        ..usual
    }
}
