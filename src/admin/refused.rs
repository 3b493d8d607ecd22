//! Refused requests: a list, and one of them with all its parts if it is kept whole.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::AdminState;
use super::error::AdminError;
use super::page::StrictQuery;
use crate::api::page::PageView;
use crate::api::refused::{RefusedPage, RefusedQuery, RefusedView, WholeView};
use crate::telemetry::{RefusedSample, WholeRequest};

/// `GET /refused`: lists the last refused requests, the newest first.
pub(super) async fn list(
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

/// `GET /refused/{id}`: shows a refused request.
pub(super) async fn show(
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
