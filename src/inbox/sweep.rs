//! Removal of what is too old. Finished events are kept for a while and then removed; what is still owed never is.
//! Files go when nothing refers to them any more, and those that nothing ever came to refer to, because the program
//! ended in between.

use std::collections::HashSet;
use std::time::Duration;

use super::{InboxError, Keep, KeepFiles, KeepTimes, Upkeep};
use crate::attachment::{Files, StoreError};
use crate::config::{Config, KeepConfig};
use crate::model::{AttachmentId, Timestamp};

/// Events one step removes; between two steps others that have the inbox.
const STEP: usize = 1000;

impl Keep {
    /// Times that a configuration keeps finished events.
    pub fn new(config: &Config) -> Self {
        let usual = times(&config.inbox.keep, &KeepConfig::default());
        let own = config
            .sources
            .iter()
            .filter(|source| source.keep != KeepConfig::default());
        Self {
            usual,
            sources: own
                .map(|source| (source.name.clone(), times(&source.keep, &config.inbox.keep)))
                .collect(),
        }
    }
}

impl Keep {
    /// Shortest time that everything of a source is known.
    pub fn shortest(&self, source: &str) -> Duration {
        let KeepTimes {
            delivered,
            dead,
            filtered,
        } = self.sources.get(source).unwrap_or(&self.usual);
        *delivered.min(dead).min(filtered)
    }
}

/// Times of a source: what it does not say for a kind of events holds as said for all kinds, and the source goes
/// before the whole.
fn times(own: &KeepConfig, whole: &KeepConfig) -> KeepTimes {
    let all = own.all.or(whole.all).unwrap_or(Duration::MAX);
    KeepTimes {
        delivered: all,
        dead: own.dead.or(own.all).or(whole.dead).unwrap_or(all),
        filtered: own.filtered.or(own.all).or(whole.filtered).unwrap_or(all),
    }
}

/// Removes everything that is finished and kept long enough. Returns how many events went.
pub async fn sweep(inbox: &dyn Upkeep, keep: &Keep, now: Timestamp) -> Result<usize, InboxError> {
    let mut gone = 0_usize;
    loop {
        let step = inbox.sweep(keep, now, STEP).await?;
        gone = gone.saturating_add(step);
        if step < STEP {
            return Ok(gone);
        }
        tokio::task::yield_now().await;
    }
}

/// Errors of looking after files.
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
pub async fn sweep_files(
    inbox: &dyn KeepFiles,
    files: &Files,
    now: Timestamp,
) -> Result<usize, FileSweepError> {
    let mut gone = 0_usize;
    loop {
        let old = inbox.attachments_gone(now, STEP).await?;
        for file in &old {
            files.store().remove(&file.key).await?;
        }
        gone = gone.saturating_add(
            inbox
                .forget_attachments(old.iter().map(|file| file.id).collect())
                .await?,
        );
        if old.len() < STEP {
            return Ok(gone);
        }
    }
}

/// Removes files of one drawer that were put there before a time and that the inbox knows nothing of. Returns how many
/// went.
pub async fn sweep_drawer(
    inbox: &dyn KeepFiles,
    files: &Files,
    drawer: u16,
    before: Timestamp,
) -> Result<usize, FileSweepError> {
    let keys = files.store().look(drawer, before).await?;
    let mut gone = 0;
    for keys in keys.chunks(STEP) {
        let found: Vec<(AttachmentId, &String)> = keys
            .iter()
            .filter_map(|key| AttachmentId::of_key(key).map(|id| (id, key)))
            .collect();
        let known = inbox
            .attachments_known(found.iter().map(|(id, _)| *id).collect())
            .await?;
        let known: HashSet<AttachmentId> = known.into_iter().collect();
        for (_, key) in found.iter().filter(|(id, _)| !known.contains(id)) {
            files.store().remove(key).await?;
            gone += 1;
        }
    }
    Ok(gone)
}
