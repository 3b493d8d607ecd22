//! What is too old. Finished events are kept for a while and then removed; what is still owed never is.

use std::time::Duration;

use super::{Inbox, InboxError, Keep, KeepTimes};
use crate::config::{Config, KeepConfig};
use crate::model::Timestamp;

/// How many events one step removes; between two steps others have the inbox.
const STEP: usize = 1000;

impl Keep {
    /// How long a configuration keeps finished events.
    pub fn new(config: &Config) -> Self {
        let usual = times(&config.inbox.keep, &KeepConfig::default());
        let own = config.sources.iter().filter(|source| source.keep != KeepConfig::default());
        Self {
            usual,
            sources: own.map(|source| (source.name.clone(), times(&source.keep, &config.inbox.keep))).collect(),
        }
    }
}

impl Keep {
    /// How long everything of a source is known at least.
    pub fn shortest(&self, source: &str) -> Duration {
        let KeepTimes { delivered, dead, filtered } = self.sources.get(source).unwrap_or(&self.usual);
        *delivered.min(dead).min(filtered)
    }
}

/// What is not said of a kind of events is as it is said of all of them; a source goes before the whole.
fn times(own: &KeepConfig, whole: &KeepConfig) -> KeepTimes {
    let all = own.all.or(whole.all).unwrap_or(Duration::MAX);
    KeepTimes {
        delivered: all,
        dead: own.dead.or(own.all).or(whole.dead).unwrap_or(all),
        filtered: own.filtered.or(own.all).or(whole.filtered).unwrap_or(all),
    }
}

/// Removes everything that is finished and kept long enough. Returns how many events went.
pub async fn sweep(inbox: &dyn Inbox, keep: &Keep, now: Timestamp) -> Result<usize, InboxError> {
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
