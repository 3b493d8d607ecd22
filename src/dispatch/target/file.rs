//! The files of a delivery: those that only their channel keeps are fetched first, and each attempt gets links of its own.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::attachment::{Allowed, Fetcher, FileFetchError, Files, NamedFile};
use crate::config::{Config, FileRules, SourceConfig};
use crate::inbox::{Claimed, Inbox};
use crate::model::{Attachment, Clock, EventId, attachment::cleaned_type};
use crate::net::Client;
use crate::telemetry::Metrics;
use crate::upstream::MissingFile;

/// The store, the client and the rules by which files get to the upstream.
#[derive(Debug)]
pub(in crate::dispatch) struct FileDelivery {
    pub(in crate::dispatch) store: Option<Arc<Files>>,
    pub(in crate::dispatch) client: Option<Client>,
    inbox: Arc<dyn Inbox>,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// By source: how the files are fetched that its payloads only name, and which of them are accepted.
    fetchers: HashMap<String, (Fetcher, FileRules)>,
    /// The time for which a fetched file is kept while nothing refers to it.
    keep: Duration,
    /// The longest time for fetching one file.
    timeout: Duration,
}

/// A file that cannot be had, by its number among the files of a delivery.
struct Unavailable {
    number: usize,
    kind: &'static str,
    reason: String,
    name: String,
}

impl FileDelivery {
    /// The rules of a configuration, without a store and without a client.
    pub(in crate::dispatch) fn new(
        config: &Config,
        inbox: Arc<dyn Inbox>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        let fetcher = |source: &SourceConfig| {
            let fetcher = Fetcher::of(source, config.providers.get(&source.provider.value)?)?;
            let intake = config.attachments.intake.of(source.files.as_ref()?);
            Some((source.name.clone(), (fetcher, intake)))
        };
        Self {
            store: None,
            client: None,
            inbox,
            metrics,
            clock,
            fetchers: config.sources.iter().filter_map(fetcher).collect(),
            keep: config.attachments.keep,
            timeout: config.attachments.upload_timeout,
        }
    }

    /// The same delivery with the files that its channel keeps, and a sentence about each file that can never be had. A
    /// file that cannot be had now is an error; the files before it stay fetched for the next attempt.
    pub(super) async fn fetched<'c>(
        &self,
        claimed: &'c Claimed,
    ) -> Result<(Cow<'c, Claimed>, Vec<MissingFile>), String> {
        let Some((fetcher, intake)) = self
            .fetchers
            .get(&claimed.source)
            .filter(|_| claimed.sealed.is_none())
        else {
            return Ok((Cow::Borrowed(claimed), Vec::new()));
        };
        let mut delivery = claimed.clone();
        let mut unavailable = Vec::new();
        let mut count = 0;
        let own = (delivery.id.event, &delivery.body, &mut delivery.attachments);
        let merged = delivery
            .merged
            .iter_mut()
            .map(|merged| (merged.id.event, &merged.body, &mut merged.attachments));
        for (event, body, attachments) in std::iter::once(own).chain(merged) {
            // A process that lost its lease while it fetched may have kept a file that another one kept as well.
            let mut seen = HashSet::new();
            attachments.retain(|file| {
                file.origin
                    .as_ref()
                    .is_none_or(|origin| seen.insert(origin.clone()))
            });
            for file in fetcher.named(body, intake.max_files) {
                count += 1;
                let is_known = |known: &Attachment| known.origin.as_ref() == Some(&file.id);
                if attachments.iter().any(is_known) {
                    continue;
                }
                match self
                    .fetch((fetcher, intake), &claimed.source, event, &file)
                    .await
                {
                    Ok(fetched) => attachments.push(fetched),
                    Err(FileFetchError::NotNow(why)) => return Err(why),
                    Err(FileFetchError::Never(reason)) => unavailable.push(Unavailable {
                        number: count,
                        kind: kind(file.kind()),
                        reason,
                        name: file.shown(),
                    }),
                }
            }
        }
        let missing = unavailable
            .into_iter()
            .map(|file| {
                let Unavailable {
                    number,
                    kind,
                    reason,
                    name,
                } = file;
                let sentence =
                    format!("File {number} of {count}{kind} {reason}: it is not attached.");
                MissingFile {
                    number,
                    sentence,
                    name,
                }
            })
            .collect();
        Ok((Cow::Owned(delivery), missing))
    }

    /// Fetches a file into the store and lets its event refer to it.
    async fn fetch(
        &self,
        (fetcher, intake): (&Fetcher, &FileRules),
        source: &str,
        event: EventId,
        file: &NamedFile,
    ) -> Result<Attachment, FileFetchError> {
        let not_now = |why: &str| FileFetchError::NotNow(why.to_owned());
        let store = self.store().map_err(not_now)?;
        let client = self
            .client
            .as_ref()
            .ok_or_else(|| not_now("there is no client to fetch files with"))?;
        let allowed = Allowed {
            intake,
            time: self.timeout,
            until: self.clock.now() + self.keep,
        };
        let fetched = fetcher.fetch(client, store, file, allowed).await?;
        let one = vec![fetched.clone()];
        match self.inbox.add_attachments(event, one.clone()).await {
            Ok(true) => {
                self.metrics.files(source, &one);
                Ok(fetched)
            }
            Ok(false) => {
                store.remove(&one).await;
                Err(not_now("its event is gone"))
            }
            // The file may be kept all the same; then the sweep finds it.
            Err(error) => Err(FileFetchError::NotNow(error.to_string())),
        }
    }

    /// Links to the files of a delivery, and of those that were merged into it, in the order in which they came. The
    /// links are good from now on, and the files stay at least as long.
    pub(super) async fn links(&self, claimed: &Claimed) -> Result<Vec<String>, String> {
        let mut links = Vec::new();
        for (event, files) in files_by_event(claimed) {
            let (store, now) = (self.store()?, self.clock.now());
            let made = store.links(files, now).await;
            links.append(&mut made.map_err(|error| error.to_string())?);
            self.inbox
                .extend_attachments(event, now + store.lifetime())
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok(links)
    }

    fn store(&self) -> Result<&Files, &'static str> {
        self.store
            .as_deref()
            .ok_or("there is no attachment store that can be used")
    }
}

/// The kind of a file, in words of the gateway.
fn kind(given: Option<&str>) -> &'static str {
    let essence = cleaned_type(given);
    match essence.split_once('/') {
        Some(("application", "pdf")) => ", a PDF,",
        Some(("application", "zip" | "gzip" | "x-tar" | "x-7z-compressed")) => ", an archive,",
        Some(("image", _)) => ", an image,",
        Some(("audio", _)) => ", a sound,",
        Some(("video", _)) => ", a video,",
        Some(("text", _)) => ", a text,",
        _ => "",
    }
}

/// The events of a delivery that brought files, with these files.
fn files_by_event(claimed: &Claimed) -> impl Iterator<Item = (EventId, &[Attachment])> {
    let merged = claimed
        .merged
        .iter()
        .map(|merged| (merged.id.event, merged.attachments.as_slice()));
    std::iter::once((claimed.id.event, claimed.attachments.as_slice()))
        .chain(merged)
        .filter(|(_, files)| !files.is_empty())
}
