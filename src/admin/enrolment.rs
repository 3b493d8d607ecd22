//! Enrolment: a provider hands over the secret of a source, and an operator confirms it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::AdminState;
use super::error::AdminError;
use super::page::StrictQuery;
use crate::api::source::{
    BroughtSecret, BroughtView, ConfirmQuery, ConfirmedView, EnrolQuery, EnrolmentWindow,
};
use crate::model::ENROL;
use crate::source::{PendingSecret, Source};

/// `POST /sources/{name}/enrol?for=10min`: opens a window in which the provider can hand over its secret by a
/// handshake, once, at an address that nobody else knows.
pub(super) async fn open(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
    StrictQuery(query): StrictQuery<EnrolQuery>,
) -> Result<(StatusCode, Json<EnrolmentWindow>), AdminError> {
    let until = state.clock.now() + query.span()?;
    let source = enrolling(&state, &name)?;
    let word = match source.open_window(until) {
        Some(Ok(word)) => word,
        Some(Err(what)) => {
            return Err(AdminError::Conflict(
                "no_window",
                format!("No window could be opened: {what}."),
            ));
        }
        None => return Err(no_enrolment(&name)),
    };
    tracing::info!(audit = "source.enrol", source = name, %until, "an operator lets a handshake bring a secret");
    let address = format!(
        "{}/hooks/{name}?{ENROL}={word}",
        state.public_url.trim_end_matches('/')
    );
    Ok((
        StatusCode::ACCEPTED,
        Json(EnrolmentWindow {
            source: name,
            until,
            address,
        }),
    ))
}

/// `GET /sources/{name}/enrol`: shows a secret that a handshake brought and that waits for confirmation.
pub(super) async fn show(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
) -> Result<Json<BroughtView>, AdminError> {
    let brought = enrolling(&state, &name)?.brought();
    let brought = brought.map(
        |PendingSecret {
             fingerprint,
             peer,
             at,
         }| BroughtSecret {
            fingerprint,
            peer,
            at,
        },
    );
    Ok(Json(BroughtView {
        source: name,
        brought,
    }))
}

/// `POST /sources/{name}/enrol/confirm?fingerprint=…`: makes the secret of a handshake valid.
pub(super) async fn confirm(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
    StrictQuery(query): StrictQuery<ConfirmQuery>,
) -> Result<Json<ConfirmedView>, AdminError> {
    let fingerprint = query.fingerprint()?;
    match enrolling(&state, &name)?.confirm_secret(&fingerprint, state.clock.now()) {
        Some(Ok(())) => {}
        Some(Err(what)) => {
            return Err(AdminError::Conflict(
                "not_confirmed",
                format!("The secret does not count: {what}."),
            ));
        }
        None => {
            let why = format!("No secret with the fingerprint {fingerprint} waits at {name}.");
            return Err(AdminError::Conflict("no_such_secret", why));
        }
    }
    tracing::info!(
        audit = "source.confirm",
        source = name,
        fingerprint,
        "an operator has a brought secret count"
    );
    Ok(Json(ConfirmedView {
        source: name,
        fingerprint,
    }))
}

/// Finds a source whose requests this process accepts.
fn enrolling<'s>(state: &'s AdminState, name: &str) -> Result<&'s Arc<Source>, AdminError> {
    let source = state
        .compiled
        .get(name)
        .ok_or(AdminError::NotFound("source"))?;
    if state.roles.ingress {
        return Ok(source);
    }
    let why = "This process takes no requests. Ask one that has the ingress role as well as the admin role.";
    Err(AdminError::Conflict("no_ingress_role", why.into()))
}

fn no_enrolment(name: &str) -> AdminError {
    let why = format!(
        "The provider of {name} brings no secret by a handshake, or the source has no enrol_file to keep it in."
    );
    AdminError::Conflict("no_enrolment", why)
}
