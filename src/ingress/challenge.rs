//! A provider's challenges and confirmations: requests that make no event.

use axum::body::Body;
use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::Ingress;
use super::request_log::Answered;
use crate::model::{Outcome, Refusal};
use crate::verify::ChallengeResponse;

/// Answers a challenge.
pub(super) fn answer(given: &ChallengeResponse) -> Answered {
    let mut answer = Response::new(Body::from(given.body.clone()));
    *answer.status_mut() = StatusCode::from_u16(given.status).unwrap_or(StatusCode::OK);
    let headers = answer.headers_mut();
    let named = given
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let own = [
        ("content-type", given.content_type.as_str()),
        ("x-content-type-options", "nosniff"),
    ];
    for (name, value) in named.chain(own) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    challenged(answer)
}

/// Confirms a subscription, as a proved request asks, by a request to the address that it names.
pub(super) async fn confirm(ingress: &Ingress, address: &str) -> Result<Answered, Refusal> {
    // The query is a key: it allows its holder to confirm the subscription, or to end it.
    let plain = address.split_once('?').map_or(address, |(plain, _)| plain);
    match ingress.fetch.get(address).await {
        Ok(_) => {
            tracing::info!(address = plain, "confirmed a subscription");
            Ok(challenged(Response::new(Body::empty())))
        }
        // The sender tries again.
        Err(what) => {
            Err(Refusal::Challenge(format!("cannot confirm at {plain}: {what}")).answered(503))
        }
    }
}

const fn challenged(answer: Response<Body>) -> Answered {
    Answered {
        outcome: Outcome::Challenged,
        event: None,
        answer,
    }
}
