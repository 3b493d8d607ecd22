//! Claims of a token: those that must hold, and its times.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Jwt;
use crate::model::{OriginFault, Timestamp};
use crate::verify::keys::mac::same;
use crate::verify::proof_error::{ProofError, malformed, missing};
use crate::verify::request::document::Json;
use crate::verify::request::field::steps;
use crate::verify::template::render::Context;

/// Largest lead of a sender's clock over ours.
const AHEAD: Duration = Duration::from_secs(60);

impl Jwt {
    /// Checks the claims of a token whose signature is good.
    pub(super) fn hold(
        &self,
        claims: &Json,
        context: &Context<'_, '_>,
        now: Timestamp,
    ) -> Result<(), ProofError> {
        let Json::Object(entries) = claims else {
            return Err(malformed("the token's claims are not an object"));
        };
        for name in &self.required {
            if at(claims, name).is_none_or(|claim| *claim == Json::Null) {
                return Err(missing(format!("the token has no claim {name}")));
            }
        }
        for (name, template) in &self.claims {
            let expected = template.bytes(context).map_err(missing)?;
            let is = |claim: &Json| {
                claim
                    .as_text()
                    .is_some_and(|claim| same(&expected, claim.as_bytes()))
            };
            let good = match at(claims, name) {
                Some(Json::List(any)) => any.iter().any(is),
                Some(one) => is(one),
                None => {
                    return Err(missing(format!("the token has no claim {name}")));
                }
            };
            if !good {
                return Err(if template.holds_body() {
                    (
                        OriginFault::BodyChanged,
                        format!("the body is not the one that the claim {name} is about"),
                    )
                } else {
                    (
                        OriginFault::ClaimMismatch,
                        format!("the claim {name} is not what it has to be"),
                    )
                });
            }
        }
        self.hold_times(entries, now)
    }

    fn hold_times(
        &self,
        entries: &BTreeMap<String, Json>,
        now: Timestamp,
    ) -> Result<(), ProofError> {
        let time = |name: &str| match entries.get(name) {
            None => Ok(None),
            Some(claim) => seconds(claim).map(Some).ok_or_else(|| {
                (
                    OriginFault::BadTimestamp,
                    format!("the claim {name} is not a time"),
                )
            }),
        };
        if let Some(until) = time("exp")?
            && until <= now
        {
            return Err((
                OriginFault::Stale,
                format!("the token ran out {} s ago", now.since(until).as_secs()),
            ));
        }
        for name in ["nbf", "iat"] {
            if let Some(at) = time(name)?
                && at.since(now) > AHEAD
            {
                let lead = at.since(now).as_secs();
                return Err((
                    OriginFault::Future,
                    format!("the claim {name} lies {lead} s ahead of our clock"),
                ));
            }
        }
        if let Some(most) = self.max_age {
            let made = time("iat")?.ok_or_else(|| {
                (
                    OriginFault::BadTimestamp,
                    "the token has no claim iat".into(),
                )
            })?;
            if now.since(made) > most {
                let age = now.since(made).as_secs();
                return Err((
                    OriginFault::Stale,
                    format!("made {age} s ago, {} s are allowed", most.as_secs()),
                ));
            }
        }
        Ok(())
    }
}

/// A claim by its name, which may have dots in it, or by a dotted path.
fn at<'c>(claims: &'c Json, name: &str) -> Option<&'c Json> {
    claims
        .at(&[name.to_owned()])
        .or_else(|| claims.at(&steps(name)))
}

/// A NumericDate, which may have a fraction.
fn seconds(claim: &Json) -> Option<Timestamp> {
    let Json::Number(digits) = claim else {
        return None;
    };
    let seconds: f64 = digits.parse().ok()?;
    let millis = seconds * 1000.0;
    // Within what a whole number of 64 bits holds without loss.
    (millis.is_finite() && millis.abs() < 9.0e15).then_some(Timestamp::from_millis(millis as i64))
}
