//! Links to the files of a run that begins at once.

use super::RunContext;
use crate::attachment::StoreError;
use crate::model::{Attachment, Refusal};

/// Keeps the files of a run, and makes links to them. Files of a run that is refused are taken back with it.
pub(super) async fn make(
    runs: &RunContext,
    source: &str,
    files: &[Attachment],
) -> Result<Vec<String>, Refusal> {
    let Some(store) = runs.files.as_ref().filter(|_| !files.is_empty()) else {
        return Ok(Vec::new());
    };
    let now = runs.clock.now();
    let until = now + store.lifetime();
    let kept = files
        .iter()
        .map(|file| Attachment {
            expires_at: file.expires_at.max(until),
            ..file.clone()
        })
        .collect();
    let links = store.links(files, now).await.map_err(store_refusal)?;
    runs.inbox
        .keep_attachments(source, kept)
        .await
        .map_err(|error| Refusal::Inbox(error.to_string()))?;
    runs.metrics.files(source, files);
    Ok(links)
}

/// Takes back the files of a run that did not begin.
pub(super) async fn take_back(runs: &RunContext, files: &[Attachment]) {
    let Some(store) = runs.files.as_ref().filter(|_| !files.is_empty()) else {
        return;
    };
    store.remove(files).await;
    let ids = files.iter().map(|file| file.id).collect();
    if let Err(error) = runs.inbox.forget_attachments(ids).await {
        tracing::warn!(%error, "files that nobody was told of are still listed; they go when their time is over");
    }
}

/// Refusal of a request whose file could not be kept.
pub fn store_refusal(error: StoreError) -> Refusal {
    match error {
        StoreError::NoSpace => Refusal::NoSpace,
        error => Refusal::Store(error.to_string()),
    }
}
