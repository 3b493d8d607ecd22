//! Refusal: the reason why a request is not accepted.
//!
//! A refusal has a code the caller may see, a finer reason for the operator's counters, and a sentence for the log.
//! The statuses are chosen in `ingress/refuse.rs`, nowhere else.

use std::time::Duration;

/// Reason why a request is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing answers at this path.
    NotFound,
    /// The path answers, but not to this method; the methods it answers to.
    Method(&'static str),
    /// The caller is over its own limit.
    Limited(Duration),
    /// We are full.
    Overloaded(Duration),
    /// Too much of its source waits.
    Behind(Duration),
    /// The `Host` header is missing, doubled or no host.
    BadHost,
    /// We sent it ourselves.
    Loop,
    /// The head is invalid, and why.
    BadHead(&'static str),
    /// The target is neither a path nor an address, and why: a sentence that the caller gets as it is.
    BadTarget(&'static str),
    /// A version of HTTP that is not spoken here.
    BadVersion,
    /// The head is longer than it may be, or has more headers.
    HeadTooLarge,
    /// The head came too slowly.
    SlowHead,
    /// The framing of the body is ambiguous, and why.
    BadFraming(&'static str),
    /// The source is not to be called from this address.
    AddressNotAllowed,
    /// The source asks for a client certificate, and the caller showed none or another; why.
    Certificate(String),
    /// The source takes parameters in the query only as its operator sealed them.
    BadSeal,
    /// The request target is longer than anybody needs.
    TargetTooLong,
    /// The body is larger than this many bytes.
    TooLarge(u64),
    /// The body brings more items than are taken at once, and why.
    TooManyItems(String),
    /// The body came too slowly.
    SlowBody,
    /// The caller went away before the body was whole.
    Aborted,
    /// The caller went away after the body was whole, while it waited for the answer.
    Left,
    /// The origin is not proved.
    Origin(OriginFault, String),
    /// A challenge was answered wrongly.
    Challenge(String),
    /// The body is not what its type or the source says.
    Malformed(String),
    /// A file is larger than this many bytes.
    FileTooLarge(u64),
    /// A file is of a kind that is not taken.
    FileKind(String),
    /// Files cannot be kept now.
    Store(String),
    /// The body is of a kind this source does not take.
    Unsupported(String),
    /// The request is well formed but cannot be made into a call.
    Unmappable(String),
    /// The inbox could not keep the event.
    Inbox(String),
    /// Its conversation has a turn that waits or runs, and it was not to wait behind it.
    Busy,
    /// The upstream, called at once, takes nothing now.
    UpstreamBusy(Duration),
    /// An operator has stopped all runs, and it was to be run at once.
    Stopped,
    /// A budget of runs is spent for today (its name), and it was to be run at once; how long today lasts.
    Spent(String, Duration),
    /// There is no room left to keep it.
    NoSpace,
    /// No key came along.
    NoKey,
    /// The key is not good for this.
    KeyRefused(String),
    /// The path would lead out of what is open to callers.
    BadPath,
    /// The call names no agent.
    NoAgent,
    /// Parameters have values that they cannot have: a JSON list of what is wrong where.
    Invalid(String),
    /// Another call was made under the same `Idempotency-Key`.
    OtherCall,
    /// Something that is not taken yet.
    NotYet(&'static str),
    /// The upstream refused the call.
    Upstream {
        /// With this status.
        status: u16,
        /// Its explanation, as JSON that may be shown.
        detail: String,
        /// Time after which it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The upstream failed, or could not be reached.
    UpstreamFailed(String),
    /// The upstream did not answer in time.
    UpstreamSilent(String),
    /// A fault of our own.
    Internal(String),
    /// One of these, answered with a status that the provider or the source says.
    Answered(Box<Refusal>, u16),
}

/// Reason why an origin is not proved. Only the operator sees it: every caller gets the same text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OriginFault {
    /// No signature, or an empty one.
    MissingSignature,
    /// A signature that does not have the form the provider's have.
    MalformedSignature,
    /// A well-formed signature that no secret makes: the secret is another, or the body was changed. From one
    /// signature nobody can tell which.
    WrongSignature,
    /// A token or password that does not belong to the source, or a certificate that the source does not accept.
    WrongSecret,
    /// The signature is right, and the body is not the one whose digest it covers.
    BodyChanged,
    /// The key that the request names is unknown, or cannot be fetched.
    UnknownKey,
    /// The time stamp is missing or no time.
    BadTimestamp,
    /// The time stamp is too old.
    Stale,
    /// The time stamp lies ahead.
    Future,
    /// Something the signature covers is missing from the request.
    MissingPart,
    /// A value that has to equal another does not.
    ClaimMismatch,
    /// The body is of another kind than the provider's events are.
    WrongBodyKind,
    /// A handshake could have signed this text because a stranger asked for it.
    SignedForStranger,
    /// The source has no secret to check against.
    NotAttempted,
}

impl OriginFault {
    /// A stable word for counters and the admin view.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingSignature => "missing_signature",
            Self::MalformedSignature => "malformed_signature",
            Self::WrongSignature => "wrong_signature",
            Self::WrongSecret => "wrong_secret",
            Self::BodyChanged => "body_changed",
            Self::UnknownKey => "unknown_key",
            Self::BadTimestamp => "bad_timestamp",
            Self::Stale => "stale",
            Self::Future => "future",
            Self::MissingPart => "missing_part",
            Self::ClaimMismatch => "claim_mismatch",
            Self::WrongBodyKind => "wrong_body_kind",
            Self::SignedForStranger => "signed_for_stranger",
            Self::NotAttempted => "not_attempted",
        }
    }
}

impl OriginFault {
    /// The same word, for a request that was let in nevertheless.
    pub const fn observed(self) -> &'static str {
        match self {
            Self::MissingSignature => "observed:missing_signature",
            Self::MalformedSignature => "observed:malformed_signature",
            Self::WrongSignature => "observed:wrong_signature",
            Self::WrongSecret => "observed:wrong_secret",
            Self::BodyChanged => "observed:body_changed",
            Self::UnknownKey => "observed:unknown_key",
            Self::BadTimestamp => "observed:bad_timestamp",
            Self::Stale => "observed:stale",
            Self::Future => "observed:future",
            Self::MissingPart => "observed:missing_part",
            Self::ClaimMismatch => "observed:claim_mismatch",
            Self::WrongBodyKind => "observed:wrong_body_kind",
            Self::SignedForStranger => "observed:signed_for_stranger",
            Self::NotAttempted => "observed:not_attempted",
        }
    }
}

impl Refusal {
    /// The same, answered with this status.
    pub fn answered(self, status: u16) -> Self {
        match self {
            Self::Answered(refusal, _) => Self::Answered(refusal, status),
            other => Self::Answered(Box::new(other), status),
        }
    }

    /// The refusal itself, whatever status it is answered with.
    pub fn plain(&self) -> &Self {
        match self {
            Self::Answered(refusal, _) => refusal,
            other => other,
        }
    }

    /// The code that the caller sees. Stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Method(_) => "method_not_allowed",
            Self::Limited(_) => "rate_limited",
            Self::Overloaded(_) => "overloaded",
            Self::Behind(_) => "backlog",
            Self::BadHost => "bad_host",
            Self::Loop => "loop_detected",
            Self::BadHead(_) => "bad_head",
            Self::BadTarget(_) => "bad_target",
            Self::BadVersion => "unsupported_version",
            Self::HeadTooLarge => "head_too_large",
            Self::SlowHead => "slow_head",
            Self::BadFraming(_) => "bad_framing",
            Self::AddressNotAllowed => "address_not_allowed",
            Self::Certificate(_) => "client_certificate",
            Self::BadSeal => "bad_seal",
            Self::TargetTooLong => "target_too_long",
            Self::TooLarge(_) => "too_large",
            Self::TooManyItems(_) => "too_many_items",
            Self::FileTooLarge(_) => "file_too_large",
            Self::FileKind(_) => "file_not_taken",
            Self::Store(_) => "files_unavailable",
            Self::SlowBody => "slow_body",
            Self::Aborted | Self::Left => "aborted",
            Self::Origin(..) => "bad_signature",
            Self::Challenge(_) => "bad_challenge",
            Self::Malformed(_) => "malformed_body",
            Self::Unsupported(_) => "unsupported_body",
            Self::Unmappable(_) => "unmappable",
            Self::Inbox(_) => "inbox_unavailable",
            Self::Busy => "busy",
            Self::UpstreamBusy(_) => "upstream_busy",
            Self::Stopped => "stopped",
            Self::Spent(..) => "budget_spent",
            Self::NoSpace => "no_space",
            Self::NoKey => "no_key",
            Self::KeyRefused(_) => "key_refused",
            Self::BadPath => "bad_path",
            Self::NoAgent => "no_agent",
            Self::Invalid(_) => "invalid_parameter",
            Self::OtherCall => "idempotency_key_reused",
            Self::NotYet(_) => "not_taken_yet",
            Self::Upstream { .. } => "upstream_refused",
            Self::UpstreamFailed(_) => "upstream_failed",
            Self::UpstreamSilent(_) => "upstream_silent",
            Self::Internal(_) => "internal",
            Self::Answered(refusal, _) => refusal.code(),
        }
    }

    /// The finer word for counters and the admin view. Stable, and never part of an answer.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Origin(fault, _) => fault.as_str(),
            Self::Answered(refusal, _) => refusal.reason(),
            other => other.code(),
        }
    }

    /// Sentence for the operator, where there is more to say than the code.
    pub fn cause(&self) -> String {
        match self {
            Self::NotFound => "no source at this path".into(),
            Self::Method(allowed) => format!("this path answers {allowed}"),
            Self::Limited(wait) => format!("over its limit for {} ms more", wait.as_millis()),
            Self::Overloaded(_) => {
                "server.max_requests are in work, or the inbox writer's queue or the connection table is full".into()
            }
            Self::BadHost => "the Host header is missing, doubled or no host".into(),
            Self::Loop => {
                "we sent it ourselves: an address that we call (upstream.base_url, or of a proxy) leads back here"
                    .into()
            }
            Self::BadHead(what) | Self::BadTarget(what) | Self::BadFraming(what) => (*what).into(),
            Self::BadVersion => "a version of HTTP that is not spoken here".into(),
            Self::HeadTooLarge => "the head is longer than server.max_head, or has more than 100 headers".into(),
            Self::SlowHead => "the head was not whole within server.head_timeout".into(),
            Self::BadSeal => {
                "the parameters in the query are not those that `sluicegate source url` sealed for this source".into()
            }
            Self::AddressNotAllowed => "the source's allow list does not have the caller's address".into(),
            Self::TargetTooLong => "the request target is too long".into(),
            Self::Behind(_) => "more of its source waits than max_waiting allows, or for longer than max_lag".into(),
            Self::Busy => "a delivery of its conversation waits or is in flight".into(),
            Self::UpstreamBusy(wait) => format!("the upstream takes nothing for {} ms", wait.as_millis()),
            Self::Stopped => "an operator has stopped all runs: `sluicegate resume` lets them go on".into(),
            Self::Spent(budget, _) => format!("the budget {budget} of runs per day is spent"),
            Self::NoSpace => "the disk of the inbox or of the attachment store is full".into(),
            Self::TooLarge(limit) => format!("the body is larger than {limit} bytes"),
            Self::FileTooLarge(limit) => format!("a file is larger than {limit} bytes"),
            Self::SlowBody => "the body came too slowly".into(),
            Self::Aborted => "the caller went away before the body was whole".into(),
            Self::Left => {
                "the caller, or a proxy in between, went away before it was answered; does it wait as long as a run \
                           takes?"
                    .into()
            }
            Self::NoKey => "x-api-key is neither among the headers nor in the query".into(),
            Self::NoAgent => "agent_id is neither in the path nor in the query nor in the body".into(),
            Self::OtherCall => "the caller's event of this Idempotency-Key is another call".into(),
            Self::NotYet(what) => (*what).into(),
            Self::Upstream { status, .. } => format!("the upstream answered {status}"),
            Self::BadPath => "the path has a \"..\" in it".into(),
            Self::KeyRefused(cause)
            | Self::Certificate(cause)
            | Self::Invalid(cause)
            | Self::UpstreamFailed(cause)
            | Self::UpstreamSilent(cause)
            | Self::Origin(_, cause)
            | Self::Challenge(cause)
            | Self::Malformed(cause)
            | Self::Unsupported(cause)
            | Self::Unmappable(cause)
            | Self::TooManyItems(cause)
            | Self::FileKind(cause)
            | Self::Store(cause)
            | Self::Inbox(cause)
            | Self::Internal(cause) => cause.clone(),
            Self::Answered(refusal, _) => refusal.cause(),
        }
    }
}
