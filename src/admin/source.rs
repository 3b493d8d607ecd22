//! The configured sources and how they fare, and what was refused at their doors.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::AdminState;
use super::error::AdminError;
use super::page::StrictQuery;
use crate::api::page::PageView;
use crate::api::refused::{RefusedPage, RefusedQuery, RefusedView, WholeView};
use crate::api::source::{
    BroughtSecret, BroughtView, ConfirmQuery, ConfirmedView, EnrolQuery, EnrolmentWindow, HeldView,
    SourceView,
};
use crate::inbox::Pause;
use crate::model::ENROL;
use crate::source::{PendingSecret, Source};
use crate::telemetry::{RefusedSample, WholeRequest};

/// `GET /sources`
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<PageView<SourceView>>, AdminError> {
    let counts = state.inbox.counts().await?;
    let holds = state.inbox.pauses().await?;
    let fares = state.in_time(state.inbox.source_fares()).await?;
    let spent = state
        .in_time(state.inbox.spent(state.clock.now().day()))
        .await?;
    let waits = |name: &str| state.source_waits(name, &spent, &holds);
    let views = SourceView::list(&state.sources, &counts, &holds, &fares, waits);
    Ok(Json(PageView::whole(views).with_paused(&holds)))
}

/// `GET /refused`: the last refused requests, newest first.
pub(super) async fn refused(
    State(state): State<Arc<AdminState>>,
    StrictQuery(query): StrictQuery<RefusedQuery>,
) -> Result<Json<PageView<RefusedView>>, AdminError> {
    let (source, since, limit) = (query.source()?, query.since()?, query.limit()?);
    state.check_source(source.as_deref()).await?;
    let list = state.samples.list(source.as_deref()).into_iter();
    let list = list
        .take_while(|sample| since.is_none_or(|since| sample.at >= since))
        .take(limit)
        .map(RefusedView::from);
    Ok(Json(PageView::whole(list.collect())))
}

impl From<RefusedSample> for RefusedView {
    fn from(sample: RefusedSample) -> Self {
        Self {
            at: sample.at,
            request_id: sample.request_id,
            source: sample.source,
            method: sample.method,
            path: sample.path,
            peer: sample.peer,
            headers: sample.headers,
            body_bytes: sample.body_bytes,
            code: sample.code.to_owned(),
            reason: sample.reason.to_owned(),
            cause: sample.cause,
            whole: sample.whole,
        }
    }
}

impl From<WholeRequest> for WholeView {
    fn from(whole: WholeRequest) -> Self {
        let (method, target) = whole
            .request_line
            .split_once(' ')
            .unwrap_or(("POST", whole.request_line.as_str()));
        let (body, body_base64) = match std::str::from_utf8(&whole.body) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(&whole.body))),
        };
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: whole.headers,
            body,
            body_base64,
        }
    }
}

/// `GET /refused/{id}`
pub(super) async fn refused_one(
    State(state): State<Arc<AdminState>>,
    Path(id): Path<String>,
) -> Result<Json<RefusedPage>, AdminError> {
    let start = id.trim_end_matches(['.', '…']);
    let mut found = if start.starts_with("req_") {
        state.samples.beginning(start)
    } else {
        Vec::new()
    };
    match (found.pop(), found.len()) {
        (Some((sample, whole)), 0) => Ok(Json(RefusedPage {
            sample: sample.into(),
            request: whole.map(WholeView::from),
        })),
        (Some(_), more) => {
            let why = format!(
                "{} refused requests begin with {start}. Write more of the id.",
                more + 1
            );
            Err(AdminError::Conflict("ambiguous", why))
        }
        (None, _) => Err(AdminError::NotFound("refused request")),
    }
}

/// `POST /sources/{name}/enrol?for=10min`: lets the source's provider bring its secret by a handshake, once, at an address
/// that nobody else knows.
pub(super) async fn enrol(
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

/// `GET /sources/{name}/enrol`: what a handshake brought and nobody has confirmed yet.
pub(super) async fn brought(
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

/// `POST /sources/{name}/enrol/confirm?fingerprint=…`: has the secret count that a handshake brought.
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

/// A source whose requests this process takes.
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

/// `POST /sources/{name}/pause`: what the source has waiting is held. What comes in is still kept.
pub(super) async fn pause(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
) -> Result<Json<HeldView>, AdminError> {
    if state.source(&name).is_none() {
        state.check_source(Some(&name)).await?;
        return Err(AdminError::NotFound("configured source"));
    }
    hold(&state, Pause::Source(name), true).await.map(Json)
}

/// `POST /sources/{name}/resume`
pub(super) async fn resume(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
) -> Result<Json<HeldView>, AdminError> {
    // One that is not configured any more may still be held.
    let held = Pause::Source(name.clone());
    if state.source(&name).is_none()
        && !state
            .inbox
            .pauses()
            .await?
            .iter()
            .any(|(hold, _)| *hold == held)
    {
        state.check_source(Some(&name)).await?;
        return Err(AdminError::NotFound("configured source"));
    }
    hold(&state, held, false).await.map(Json)
}

/// `POST /pause`: no run is begun any more, wherever it would go and whoever asks for it. What comes in is still kept.
pub(super) async fn pause_all(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<HeldView>, AdminError> {
    hold(&state, Pause::All, true).await.map(Json)
}

/// `POST /resume`
pub(super) async fn resume_all(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<HeldView>, AdminError> {
    hold(&state, Pause::All, false).await.map(Json)
}

/// Holds something or lets it go.
pub(super) async fn hold(
    state: &AdminState,
    what: Pause,
    on: bool,
) -> Result<HeldView, AdminError> {
    let changed = state.inbox.set_paused(&what, on, state.clock.now()).await?;
    // Before the answer: no run that this is about begins in this process after it.
    if what == Pause::All {
        state.stopper.order(on);
    }
    if let Some(dispatcher) = &state.dispatcher {
        dispatcher.pause(&what, on).await;
    }
    let all = what == Pause::All;
    let (source, destination) = match what {
        Pause::All => (None, None),
        Pause::Source(name) => (Some(name), None),
        Pause::Destination(destination) => (None, Some(destination.to_string())),
    };
    if changed {
        let audit = if on { "pause" } else { "resume" };
        let done = if on {
            "paused by an operator"
        } else {
            "resumed by an operator"
        };
        tracing::info!(audit, all, source, destination, "{done}");
    }
    Ok(HeldView {
        source,
        destination,
        paused: on,
        all,
        changed,
    })
}
