//! The sweep of old events and files, now and then.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::files::FilesSweep;
use crate::config::Config;
use crate::inbox::sweep::sweep;
use crate::inbox::{Inbox, Keep};
use crate::model::Clock;

/// Interval between two sweeps of old events and files.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Times for which finished events are kept.
#[derive(Debug)]
pub(super) struct Swept {
    keep: Keep,
    /// The longest an upload may take.
    upload: Duration,
}

impl Swept {
    /// The times of a configuration.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            keep: Keep::new(config),
            upload: config.attachments.upload_timeout,
        }
    }
}

/// Sweeps as long as it is polled.
pub(super) async fn sweep_often(
    inbox: Arc<dyn Inbox>,
    swept: Arc<ArcSwap<Swept>>,
    mut files: Option<FilesSweep>,
    clock: Clock,
) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let swept = swept.load_full();
        match sweep(&*inbox, &swept.keep, clock.now()).await {
            Ok(0) => {}
            Ok(events) => tracing::info!(events, "old events removed"),
            Err(error) => tracing::error!(%error, "cannot remove old events"),
        }
        if let Some(files) = &mut files {
            files.step(&*inbox, swept.upload, clock.now()).await;
        }
    }
}
