//! Files that come along: the store of a configuration, and the sweep of what nothing refers to.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::attachment::{DRAWERS, Files, Folder, Links, Remote, Store};
use crate::config::{Config, LinkKind, StorePlace};
use crate::inbox::Inbox;
use crate::inbox::seal::Sealer;
use crate::inbox::sweep::{sweep_drawer, sweep_files};
use crate::model::Timestamp;
use crate::net::Client;

/// How much older than an upload may take a file must be to be taken for one that nothing refers to.
const LEEWAY: Duration = Duration::from_secs(3600);

/// Largest lead of a file system's clock over ours.
const LATER: Duration = Duration::from_secs(24 * 3600);

/// Where files are kept, and how they are handed out; none where nobody takes any. A folder that nobody asked for and
/// that cannot be used is no reason not to start.
pub(super) fn open(config: &Config, sealer: &Sealer) -> anyhow::Result<Option<Files>> {
    let attachments = &config.attachments;
    let store: Arc<dyn Store> = match &attachments.store.value {
        StorePlace::None => return Ok(None),
        StorePlace::Folder(folder) => match Folder::open(folder) {
            Ok(store) => Arc::new(store),
            Err(error) if config.sources.iter().all(|source| source.files.is_none()) => {
                tracing::warn!(folder = %folder.display(), %error, "the attachment store cannot be used; files are refused");
                return Ok(None);
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("cannot use the attachment store {}", folder.display())
                });
            }
        },
        StorePlace::Bucket(url) => {
            let client = Client::new(
                config.upstream.connect_timeout,
                attachments.ca_file.as_deref(),
            )?;
            let settings: Vec<(String, String)> = attachments
                .settings
                .iter()
                .map(|(key, value)| {
                    (
                        key.clone(),
                        String::from_utf8_lossy(value.expose()).into_owned(),
                    )
                })
                .collect();
            Arc::new(
                Remote::open(url, &settings, client)
                    .context("the attachment store cannot be used")?,
            )
        }
    };
    Ok(Some(Files::new(
        store,
        links(config, sealer),
        presigned(config),
        attachments.link_lifetime,
    )))
}

/// The same files, handed out as another configuration says.
pub(super) fn handed_out(files: &Files, config: &Config, sealer: &Sealer) -> Files {
    files.handed_out(
        links(config, sealer),
        presigned(config),
        config.attachments.link_lifetime,
    )
}

/// The gateway's own links; none where nobody could follow them.
fn links(config: &Config, sealer: &Sealer) -> Option<Links> {
    let (attachments, public_url) = (&config.attachments, &config.server.public_url);
    (attachments.links != LinkKind::Store && !public_url.is_empty())
        .then(|| Links::new(public_url, sealer.file_keys()))
}

/// True if a bucket's own links are used where it has them.
fn presigned(config: &Config) -> bool {
    let attachments = &config.attachments;
    attachments.links != LinkKind::Gateway
        && matches!(attachments.store.value, StorePlace::Bucket(_))
}

/// Removes what a crash left in a store that is ours alone: nobody else could be at it.
pub(super) async fn sweep_left(inbox: &dyn Inbox, files: &Files, now: Timestamp) {
    if !files.store().is_ours_alone() {
        return;
    }
    let mut gone = 0;
    for drawer in 0..DRAWERS {
        match sweep_drawer(inbox, files, drawer, now + LATER).await {
            Ok(removed) => gone += removed,
            Err(error) => return tracing::error!(%error, "cannot look for files that a crash left"),
        }
    }
    if gone > 0 {
        tracing::info!(files = gone, "files removed that a crash left");
    }
}

/// The sweep of a store: one drawer a time for what nothing refers to, and all whose time is over.
pub(super) struct FilesSweep {
    files: Arc<Files>,
    drawer: u16,
}

impl FilesSweep {
    /// One that begins at the first drawer.
    pub(super) const fn new(files: Arc<Files>) -> Self {
        Self { files, drawer: 0 }
    }

    /// The next step. `upload` is the longest an upload may take.
    pub(super) async fn step(&mut self, inbox: &dyn Inbox, upload: Duration, now: Timestamp) {
        // One that is being kept just now must not go.
        let before = now - upload - LEEWAY;
        match sweep_drawer(inbox, &self.files, self.drawer, before).await {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "files removed that nothing refers to"),
            Err(error) => tracing::error!(%error, "cannot look for files that nothing refers to"),
        }
        self.drawer = (self.drawer + 1) % DRAWERS;
        match sweep_files(inbox, &self.files, now).await {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "old files removed"),
            Err(error) => tracing::error!(%error, "cannot remove old files"),
        }
    }
}
