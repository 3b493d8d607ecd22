//! Accounts of what proves requests and what does not: limits, uses of secrets, causes of refusals.

use std::time::Duration;

use super::Ingress;
use super::request_log::{Answered, RequestLog};
use super::staged::Uploaded;
use crate::model::{Received, Refusal, Strength, Timestamp, Verified};
use crate::source::Source;

/// Time before a secret's end from which on its use is reported.
const ENDS_SOON: Duration = Duration::from_secs(3 * 24 * 3600);

/// Counts a request against the limits of the source and of the whole gateway. A request that passes although nothing is
/// proved of it counts against its own caller.
pub(super) fn count(
    ingress: &Ingress,
    source: &Source,
    verified: &Verified,
    log: &mut RequestLog,
) -> Result<(), Refusal> {
    if matches!(verified.proof().strength, Strength::Observed(_)) {
        ingress.limits.whole(false)?;
        return count_unproved(ingress, source, log);
    }
    note_use(ingress, source, verified, log.at);
    ingress.limits.whole(true)?;
    ingress.limits.source(&source.config.name, &mut log.limits)
}

/// Counts a request that is not proved. A caller that brings too many is slowed down.
pub(super) fn count_unproved(
    ingress: &Ingress,
    source: &Source,
    log: &mut RequestLog,
) -> Result<(), Refusal> {
    ingress
        .limits
        .failed(&source.config.name, log.peer.0, &mut log.limits)
}

/// Notes the secret that has proved a request. A secret that ends soon is reported once a day: its sender needs the next
/// one.
fn note_use(ingress: &Ingress, source: &Source, verified: &Verified, now: Timestamp) {
    let Some(secret) = verified.proof().secret.as_deref() else {
        return;
    };
    let name = &source.config.name;
    if !ingress.uses.secret(name, secret, now) {
        return;
    }
    if let Some(until) = source
        .ends(secret)
        .filter(|until| until.since(now) < ENDS_SOON)
    {
        tracing::warn!(source = name, secret, %until, "a secret that ends soon still proves requests: give its sender the next one");
    }
}

/// Adds the probable mistake to the cause of a refusal, for the operator.
pub(super) fn explain(
    source: &Source,
    (received, mut refusal): (Received, Refusal),
    now: Timestamp,
) -> Refusal {
    let inner = match &mut refusal {
        Refusal::Answered(inner, _) => &mut **inner,
        plain => plain,
    };
    if let Refusal::Origin(_, cause) = inner
        && let Some(hint) = source.hint(&received, now)
    {
        cause.push_str("; probably ");
        cause.push_str(&hint);
    }
    refusal
}

/// Origin of a request, once it is known.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once, and a box would be an allocation for each request"
)]
pub(super) enum RequestOrigin {
    /// From its source's sender.
    Proved(Proved),
    /// From a provider that tests the address; answered, and no event.
    Challenge(Answered),
}

/// A request whose origin is proved.
pub(super) struct Proved {
    pub(super) verified: Verified,
    /// The files that came with it, where it may bring some.
    pub(super) upload: Option<Uploaded>,
}
