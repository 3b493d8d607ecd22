//! Links to the files of a call that is passed on at once.

use super::{Ingress, form};
use crate::model::{Attachment, Refusal};

/// Keeps files of a call that is passed on at once, and gives links to them.
pub(super) async fn make(
    ingress: &Ingress,
    source: &str,
    files: &[Attachment],
) -> Result<Vec<String>, Refusal> {
    let Some(store) = ingress.intake.files.as_ref().filter(|_| !files.is_empty()) else {
        return Ok(Vec::new());
    };
    let now = ingress.intake.clock.now();
    let until = now + store.lifetime();
    let kept = files
        .iter()
        .map(|file| Attachment {
            expires_at: file.expires_at.max(until),
            ..file.clone()
        })
        .collect();
    let ready = match store.links(files, now).await {
        Ok(links) => match ingress.intake.inbox.keep_attachments(source, kept).await {
            Ok(()) => Ok(links),
            Err(error) => Err(Refusal::Inbox(error.to_string())),
        },
        Err(error) => Err(form::store_refusal(error)),
    };
    match &ready {
        Ok(_) => ingress.intake.metrics.files(source, files),
        Err(_) => store.remove(files).await,
    }
    ready
}

/// Takes back the files of a call that certainly reached nobody.
pub(super) async fn take_back(ingress: &Ingress, files: &[Attachment]) {
    let Some(store) = ingress.intake.files.as_ref().filter(|_| !files.is_empty()) else {
        return;
    };
    store.remove(files).await;
    let ids = files.iter().map(|file| file.id).collect();
    if let Err(error) = ingress.intake.inbox.forget_attachments(ids).await {
        tracing::warn!(%error, "files that nobody was told of are still listed; they go when their time is over");
    }
}
