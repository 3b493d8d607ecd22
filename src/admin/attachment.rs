//! Files that came with events: list, delete. Their content is not shown here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::AdminState;
use super::error::AdminError;
use super::name::PathId;
use super::page::StrictQuery;
use crate::api::attachment::{AttachmentQuery, KeptFileView, RemovedFileView};
use crate::api::page::PageView;
use crate::model::AttachmentId;

/// `GET /attachments`: lists files, the newest first.
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    StrictQuery(query): StrictQuery<AttachmentQuery>,
) -> Result<Json<PageView<KeptFileView>>, AdminError> {
    let (cursor, limit) = query.page()?;
    let page = state.inbox.attachments(cursor, limit).await?;
    Ok(Json(PageView::of(page, KeptFileView::from)))
}

/// `DELETE /attachments/{id}`: deletes the content and the entry. Links to the file no longer work, and deliveries
/// that have not ended are sent without it.
pub(super) async fn remove(
    State(state): State<Arc<AdminState>>,
    PathId(id): PathId<AttachmentId>,
) -> Result<Json<RemovedFileView>, AdminError> {
    let kept = state
        .inbox
        .attachment(id)
        .await?
        .ok_or(AdminError::NotFound("attachment"))?;
    let files = state.files.as_ref().ok_or_else(|| {
        AdminError::Conflict(
            "no_store",
            "There is no attachment store to delete it from; configure it again.".into(),
        )
    })?;
    files.store().remove(&kept.attachment.key).await?;
    state.inbox.forget_attachments(vec![id]).await?;
    let event = kept.event.map(|event| event.to_string());
    tracing::info!(attachment = %id, event, "deleted by an operator");
    Ok(Json(RemovedFileView { id, deleted: true }))
}
