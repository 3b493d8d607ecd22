//! Files of a request, from the end of its body until an event or a call refers to them.
//!
//! Promises: nothing is at its place before the whole body was read and its origin proved; a caller that goes away, or
//! is refused, leaves nothing behind.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::Ingress;
use super::items::NewEvents;
use super::upload_limit::UploadPermit;
use crate::attachment::{Files, StagedFile};
use crate::model::{Attachment, Refusal};
use crate::run::store_refusal;

/// Files of a proved request, whole and at no place yet.
pub(super) struct Uploaded {
    pub(super) files: Vec<StagedFile>,
    /// The upload's place among those taken in at once.
    pub(super) _permit: UploadPermit,
}

impl Uploaded {
    pub(super) const fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// Puts the files at their places, with the first event that goes further. An event that is filtered needs none.
    pub(super) async fn place(self, ingress: &Ingress, new: &mut NewEvents) -> Result<(), Refusal> {
        if let Some(event) = new.events.iter_mut().find(|event| event.filtered.is_none()) {
            event.attachments = place(ingress, self.files).await?.into_files();
        }
        Ok(())
    }
}

/// Puts files at their places.
pub(super) async fn place(
    ingress: &Ingress,
    files: Vec<StagedFile>,
) -> Result<PlacedFiles, Refusal> {
    let mut placed = PlacedFiles {
        files: Vec::with_capacity(files.len()),
        store: ingress.intake.files.clone(),
    };
    for staged in files {
        placed
            .files
            .push(staged.place().await.map_err(store_refusal)?);
    }
    Ok(placed)
}

/// Files at their places that nothing refers to yet. They are removed when this is dropped.
pub(super) struct PlacedFiles {
    files: Vec<Attachment>,
    store: Option<Arc<Files>>,
}

impl PlacedFiles {
    pub(super) const fn none() -> Self {
        Self {
            files: Vec::new(),
            store: None,
        }
    }

    /// The size of all of them together.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The files, to be referred to at once. The sweep removes those that are not.
    pub(super) fn into_files(mut self) -> Vec<Attachment> {
        std::mem::take(&mut self.files)
    }
}

impl Drop for PlacedFiles {
    fn drop(&mut self) {
        let files = std::mem::take(&mut self.files);
        if let (false, Some(store), Ok(runtime)) = (
            files.is_empty(),
            self.store.take(),
            tokio::runtime::Handle::try_current(),
        ) {
            runtime.spawn(async move { store.remove(&files).await }.boxed());
        }
    }
}
