//! What is too old. Finished events are kept for a while and then removed; what is still owed never is.

use std::time::Duration;

use super::{Inbox, InboxError};
use crate::model::Timestamp;

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
