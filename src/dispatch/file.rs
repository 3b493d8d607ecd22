//! The files of a delivery: those that only a channel has are fetched first, and each attempt gets links of its own.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::Dispatcher;
use crate::attachment::{Allowed, FetchError, Fetcher, Files};
use crate::config::{Config, FileRules};
use crate::inbox::Claimed;
use crate::model::{Attachment, EventId, attachment::cleaned_type};
use crate::net::Client;
use crate::upstream::{Call, MissingFile};

/// What files are handed on with.
#[derive(Debug)]
pub(super) struct FileDelivery {
    pub(super) store: Option<Arc<Files>>,
    pub(super) client: Option<Client>,
    /// By source: the channel that keeps the files it only names, and which of them are taken.
    channels: HashMap<String, (Fetcher, FileRules)>,
    keep: Duration,
    time: Duration,
}

impl FileDelivery {
    /// That of a configuration, without a store and without a client.
    pub(super) fn new(config: &Config) -> Self {
        let channel = |source: &crate::config::SourceConfig| {
            let channel = Fetcher::of(source, config.providers.get(&source.provider.value)?)?;
            let intake = config.attachments.intake.of(source.files.as_ref()?);
            Some((source.name.clone(), (channel, intake)))
        };
        Self {
            store: None,
            client: None,
            channels: config.sources.iter().filter_map(channel).collect(),
            keep: config.attachments.keep,
            time: config.attachments.upload_timeout,
        }
    }
}

/// The same turn with the files that its channel keeps, and a word on each that can never be had. One that cannot
/// be had now is an error, and what was fetched before it need not be fetched again.
pub(super) async fn fetch<'c>(
    dispatcher: &Dispatcher,
    claimed: &'c Claimed,
) -> Result<(Cow<'c, Claimed>, Vec<MissingFile>), String> {
    let handing = &dispatcher.files;
    let Some((channel, intake)) = handing
        .channels
        .get(&claimed.source)
        .filter(|_| claimed.sealed.is_none())
    else {
        return Ok((Cow::Borrowed(claimed), Vec::new()));
    };
    let mut turn = claimed.clone();
    let mut missing = Vec::new();
    let mut count = 0;
    let own = (turn.id.event, &turn.body, &mut turn.attachments);
    let merged = turn
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
        for file in channel.named(body, intake.max_files) {
            count += 1;
            if attachments
                .iter()
                .any(|known| known.origin.as_ref() == Some(&file.id))
            {
                continue;
            }
            let store = handing
                .store
                .as_ref()
                .ok_or("there is no attachment store that can be used")?;
            let client = handing
                .client
                .as_ref()
                .ok_or("there is no client to fetch files with")?;
            let until = dispatcher.clock.now() + handing.keep;
            let allowed = Allowed {
                intake,
                time: handing.time,
                until,
            };
            match channel.fetch(client, store, &file, allowed).await {
                Ok(fetched) => {
                    keep(dispatcher, store, &claimed.source, event, &fetched).await?;
                    attachments.push(fetched);
                }
                Err(FetchError::NotNow(why)) => return Err(why),
                Err(FetchError::Never(why)) => {
                    missing.push((count, kind(file.kind()), why, file.shown()));
                }
            }
        }
    }
    let missing = missing
        .into_iter()
        .map(|(number, kind, why, name)| MissingFile {
            number,
            sentence: format!("File {number} of {count}{kind} {why}: it is not attached."),
            name,
        });
    let missing = missing.collect();
    Ok((Cow::Owned(turn), missing))
}

/// What a file is, in words of ours.
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

/// Has the event refer to a file that was fetched for it.
async fn keep(
    dispatcher: &Dispatcher,
    store: &Files,
    source: &str,
    event: EventId,
    file: &Attachment,
) -> Result<(), String> {
    let one = vec![file.clone()];
    match dispatcher.inbox.add_attachments(event, one.clone()).await {
        Ok(true) => {
            dispatcher.metrics.files(source, &one);
            Ok(())
        }
        Ok(false) => {
            store.remove(&one).await;
            Err("its event is gone".into())
        }
        // It may be kept all the same; the sweep will know.
        Err(error) => Err(error.to_string()),
    }
}

/// The call with links to the files of its event, and of those that go with it, in the order they came. The links are
/// good from now on, and the files stay at least as long.
pub(super) async fn attach(
    dispatcher: &Dispatcher,
    claimed: &Claimed,
    call: Call,
) -> Result<Call, String> {
    let mut links = Vec::new();
    for (event, files) in of_turn(claimed) {
        let store = dispatcher
            .files
            .store
            .as_ref()
            .ok_or("there is no attachment store that can be used")?;
        let now = dispatcher.clock.now();
        links.append(
            &mut store
                .links(files, now)
                .await
                .map_err(|error| error.to_string())?,
        );
        let until = now + store.lifetime();
        dispatcher
            .inbox
            .extend_attachments(event, until)
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(call.with_files(&links))
}

/// The events of a turn that brought files.
fn of_turn(claimed: &Claimed) -> impl Iterator<Item = (EventId, &[Attachment])> {
    let merged = claimed
        .merged
        .iter()
        .map(|merged| (merged.id.event, merged.attachments.as_slice()));
    std::iter::once((claimed.id.event, claimed.attachments.as_slice()))
        .chain(merged)
        .filter(|(_, files)| !files.is_empty())
}
