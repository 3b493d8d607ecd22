//! The configured sources and how they fare, and what was refused at their doors.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;

use super::AdminState;
use super::error::AdminError;
use super::page::{Asked, ConfirmQuery, EnrolQuery, PageView, RefusedQuery};
use super::view::SourceView;
use crate::inbox::Hold;
use crate::model::{ENROL, Timestamp};
use crate::source::{Brought, Source};
use crate::telemetry::RefusedSample;

/// `GET /sources`
pub(super) async fn list(State(state): State<Arc<AdminState>>) -> Result<Json<PageView<SourceView>>, AdminError> {
    let counts = state.inbox.counts().await?;
    let holds = state.inbox.holds().await?;
    Ok(Json(PageView::whole(SourceView::list(&state.sources, &counts, &holds))))
}

/// `GET /refused`: the last refused requests, newest first.
pub(super) async fn refused(
    State(state): State<Arc<AdminState>>,
    Asked(query): Asked<RefusedQuery>,
) -> Result<Json<PageView<RefusedSample>>, AdminError> {
    Ok(Json(PageView::whole(state.samples.list(query.source()?.as_deref()))))
}

/// A window that was opened, and the address that the provider is given.
#[derive(Debug, Serialize)]
pub(super) struct Opened {
    source: String,
    until: Timestamp,
    /// The address; only its path where nobody said how the public listener is reached.
    address: String,
}

/// What a handshake brought.
#[derive(Debug, Serialize)]
pub(super) struct BroughtView {
    source: String,
    /// None: nothing waits to be confirmed.
    brought: Option<BroughtSecret>,
}

/// A secret that waits to be confirmed.
#[derive(Debug, Serialize)]
struct BroughtSecret {
    fingerprint: String,
    peer: IpAddr,
    at: Timestamp,
}

/// A secret that counts now.
#[derive(Debug, Serialize)]
pub(super) struct Confirmed {
    source: String,
    fingerprint: String,
}

/// `POST /sources/{name}/enrol?for=10min`: lets the source's provider bring its secret by a handshake, once, at an address
/// that nobody else knows.
pub(super) async fn enrol(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
    Asked(query): Asked<EnrolQuery>,
) -> Result<(StatusCode, Json<Opened>), AdminError> {
    let until = state.clock.now() + query.span()?;
    let source = enrolling(&state, &name)?;
    let word = match source.open_window(until) {
        Some(Ok(word)) => word,
        Some(Err(what)) => {
            return Err(AdminError::Conflict("no_window", format!("No window could be opened: {what}.")));
        }
        None => return Err(no_enrolment(&name)),
    };
    tracing::info!(audit = "source.enrol", source = name, %until, "an operator lets a handshake bring a secret");
    let address = format!("{}/hooks/{name}?{ENROL}={word}", state.public_url.trim_end_matches('/'));
    Ok((StatusCode::ACCEPTED, Json(Opened { source: name, until, address })))
}

/// `GET /sources/{name}/enrol`: what a handshake brought and nobody has confirmed yet.
pub(super) async fn brought(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
) -> Result<Json<BroughtView>, AdminError> {
    let brought = enrolling(&state, &name)?.brought();
    let brought = brought.map(|Brought { fingerprint, peer, at }| BroughtSecret { fingerprint, peer, at });
    Ok(Json(BroughtView { source: name, brought }))
}

/// `POST /sources/{name}/enrol/confirm?fingerprint=…`: has the secret count that a handshake brought.
pub(super) async fn confirm(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
    Asked(query): Asked<ConfirmQuery>,
) -> Result<Json<Confirmed>, AdminError> {
    let fingerprint = query.fingerprint()?;
    match enrolling(&state, &name)?.confirm_secret(&fingerprint, state.clock.now()) {
        Some(Ok(())) => {}
        Some(Err(what)) => {
            return Err(AdminError::Conflict("not_confirmed", format!("The secret does not count: {what}.")));
        }
        None => {
            let why = format!("No secret with the fingerprint {fingerprint} waits at {name}.");
            return Err(AdminError::Conflict("no_such_secret", why));
        }
    }
    tracing::info!(audit = "source.confirm", source = name, fingerprint, "an operator has a brought secret count");
    Ok(Json(Confirmed { source: name, fingerprint }))
}

/// A source whose requests this process takes.
fn enrolling<'s>(state: &'s AdminState, name: &str) -> Result<&'s Arc<Source>, AdminError> {
    let source = state.compiled.get(name).ok_or(AdminError::NotFound("source"))?;
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

/// `POST /sources/{name}/pause`: what the source has waiting is held. What comes in is still kept.
pub(super) async fn pause(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
) -> Result<Json<HeldView>, AdminError> {
    if state.source(&name).is_none() {
        return Err(AdminError::NotFound("source"));
    }
    hold(&state, Hold::Source(name), true).await.map(Json)
}

/// `POST /sources/{name}/resume`
pub(super) async fn resume(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
) -> Result<Json<HeldView>, AdminError> {
    // One that is not configured any more may still be held.
    let held = Hold::Source(name.clone());
    if state.source(&name).is_none() && !state.inbox.holds().await?.iter().any(|(hold, _)| *hold == held) {
        return Err(AdminError::NotFound("source"));
    }
    hold(&state, held, false).await.map(Json)
}

/// `POST /pause`: no run is begun any more, wherever it would go and whoever asks for it. What comes in is still kept.
pub(super) async fn pause_all(State(state): State<Arc<AdminState>>) -> Result<Json<HeldView>, AdminError> {
    hold(&state, Hold::All, true).await.map(Json)
}

/// `POST /resume`
pub(super) async fn resume_all(State(state): State<Arc<AdminState>>) -> Result<Json<HeldView>, AdminError> {
    hold(&state, Hold::All, false).await.map(Json)
}

/// What an operator held or let go.
#[derive(Debug, Serialize)]
pub(super) struct HeldView {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    paused: bool,
    /// Every run is held or let go, not those of one source or destination.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    all: bool,
    /// False: it was so already.
    changed: bool,
}

/// Holds something or lets it go.
pub(super) async fn hold(state: &AdminState, what: Hold, on: bool) -> Result<HeldView, AdminError> {
    let changed = state.inbox.hold(&what, on, state.clock.now()).await?;
    let all = what == Hold::All;
    let (source, destination) = match what {
        Hold::All => (None, None),
        Hold::Source(name) => (Some(name), None),
        Hold::Destination(destination) => (None, Some(destination.to_string())),
    };
    if changed {
        let audit = if on { "pause" } else { "resume" };
        tracing::info!(audit, all, source, destination, "an operator holds this or lets it go");
    }
    Ok(HeldView { source, destination, paused: on, all, changed })
}
