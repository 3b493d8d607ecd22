//! What is too old. Finished events are kept for a while and then removed; what is still owed never is. Files go when
//! nothing refers to them any more, and those that nothing ever came to refer to, because the program ended in between.

use std::collections::HashSet;
use std::time::Duration;

use super::{Inbox, InboxError};
use crate::attachment::{Files, StoreError};
use crate::model::{AttachmentId, Timestamp};

/// How many events one step removes; between two steps others have the inbox.
const STEP: usize = 1000;

/// Removes everything that is finished and was received longer ago than `keep`. Returns how many events went.
pub async fn sweep(inbox: &dyn Inbox, keep: Duration, now: Timestamp) -> Result<usize, InboxError> {
    let mut gone = 0_usize;
    loop {
        let step = inbox.sweep(now - keep, STEP).await?;
        gone = gone.saturating_add(step);
        if step < STEP {
            return Ok(gone);
        }
        tokio::task::yield_now().await;
    }
}

/// Why files could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum FileSweepError {
    /// The inbox could not say which are known.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// The store could not list or remove them.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes files that no event refers to and whose time is over. Returns how many went. The bytes go first: what is
/// left in between is found again.
pub async fn sweep_files(inbox: &dyn Inbox, files: &Files, now: Timestamp) -> Result<usize, FileSweepError> {
    let mut gone = 0_usize;
    loop {
        let old = inbox.attachments_gone(now, STEP).await?;
        for file in &old {
            files.store().remove(&file.key).await?;
        }
        gone = gone.saturating_add(inbox.forget_attachments(old.iter().map(|file| file.id).collect()).await?);
        if old.len() < STEP {
            return Ok(gone);
        }
    }
}

/// Removes files of one drawer that were put there before a time and that the inbox knows nothing of. Returns how many
/// went.
pub async fn sweep_drawer(
    inbox: &dyn Inbox,
    files: &Files,
    drawer: u16,
    before: Timestamp,
) -> Result<usize, FileSweepError> {
    let keys = files.store().look(drawer, before).await?;
    let mut gone = 0;
    for keys in keys.chunks(STEP) {
        let found: Vec<(AttachmentId, &String)> =
            keys.iter().filter_map(|key| AttachmentId::of_key(key).map(|id| (id, key))).collect();
        let known = inbox.attachments_known(found.iter().map(|(id, _)| *id).collect()).await?;
        let known: HashSet<AttachmentId> = known.into_iter().collect();
        for (_, key) in found.iter().filter(|(id, _)| !known.contains(id)) {
            files.store().remove(key).await?;
            gone += 1;
        }
    }
    Ok(gone)
}
