//! Files of events: their bytes, under a key of the gateway's own, and the links by which others fetch them.
//!
//! Promises: a file is at its place only when all its bytes are durable, and it is put there only when its request was
//! found good; dropped before that, it is gone. No name that a sender chose stands in a path. Memory for a file does not
//! grow with the file. The inbox knows what refers to a file, and decides when a file can be removed.

mod fetch;
mod folder;
mod intake;
mod link;
mod named;
mod named_file;
mod remote;

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

pub use self::fetch::{Allowed, Fetcher, FileFetchError};
pub use self::folder::Folder;
pub use self::intake::{Incoming, StagedFile};
pub use self::link::{Linked, Links};
pub use self::named_file::NamedFile;
pub use self::remote::{Remote, RemoteError};
use crate::model::{Attachment, Timestamp};

/// The number of drawers of a store: files are spread over them, and searched one drawer at a time.
pub const DRAWERS: u16 = 256;

/// The bytes of a file, piece by piece.
pub type FileBytes = Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// A store of files.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Begins a file with this key.
    async fn begin(&self, key: &str, file: &FileLabel<'_>) -> Result<Box<dyn Sink>, StoreError>;

    /// The bytes of a file in a range that lies within it.
    async fn open(&self, key: &str, range: Range<u64>) -> Result<FileBytes, StoreError>;

    /// Removes a file. A file that is not there counts as removed.
    async fn remove(&self, key: &str) -> Result<(), StoreError>;

    /// The keys in a drawer that were put there before a time. Files that were begun before it and never completed are
    /// removed on the way.
    async fn look(&self, drawer: u16, before: Timestamp) -> Result<Vec<String>, StoreError>;

    /// The store's own link to a file, if it makes links.
    async fn link(&self, key: &str, lifetime: Duration) -> Result<Option<String>, StoreError>;

    /// True if no other gateway uses the store, so that a file that is unknown here belongs to nobody.
    fn is_ours_alone(&self) -> bool;
}

/// A file that is being written into a store. Dropped before it is placed, it leaves nothing behind.
#[async_trait]
pub trait Sink: Send {
    /// Takes the next bytes.
    async fn write(&mut self, piece: Bytes) -> Result<(), StoreError>;

    /// Makes the bytes durable, as far as that is possible before the file is visible, and returns its SHA-256.
    async fn finish(&mut self) -> Result<[u8; 32], StoreError>;

    /// Puts it at its place, where it stays.
    async fn place(self: Box<Self>) -> Result<(), StoreError>;
}

/// The description of a file that a store may show to others.
#[derive(Clone, Copy, Debug)]
pub struct FileLabel<'a> {
    /// Its cleaned name.
    pub name: &'a str,
    /// The type that its sender gave it.
    pub content_type: &'a str,
}

/// The reason why an operation of a store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store has no space left.
    #[error("the attachment store has no space left")]
    NoSpace,
    /// The file does not exist.
    #[error("the file is not in the attachment store")]
    Missing,
    /// The operation failed.
    #[error("the attachment store failed to {doing}: {cause}")]
    Failed {
        /// The operation.
        doing: &'static str,
        /// The message of the system or of the server.
        cause: String,
    },
}

/// Receives files into a store, and makes links to them.
#[derive(Debug)]
pub struct Files {
    store: Arc<dyn Store>,
    links: Option<Links>,
    presigned: bool,
    lifetime: Duration,
}

impl Files {
    /// Files in a store. `links` makes the gateway's own links; with `presigned` the store's own are used where it makes
    /// some.
    pub fn new(
        store: Arc<dyn Store>,
        links: Option<Links>,
        presigned: bool,
        lifetime: Duration,
    ) -> Self {
        Self {
            store,
            links,
            presigned,
            lifetime,
        }
    }

    /// The same store, with other links.
    #[must_use]
    pub fn handed_out(&self, links: Option<Links>, presigned: bool, lifetime: Duration) -> Self {
        Self {
            store: self.store.clone(),
            links,
            presigned,
            lifetime,
        }
    }

    /// True if there are links by which files can be fetched.
    pub const fn has_links(&self) -> bool {
        self.presigned || self.links.is_some()
    }

    /// Begins to receive a file that its sender calls `name`.
    pub async fn begin(
        &self,
        name: &str,
        content_type: Option<&str>,
    ) -> Result<Incoming, StoreError> {
        Incoming::begin(&*self.store, name, content_type).await
    }

    /// The time for which a link is valid.
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A link to each file, valid from `now` on.
    pub async fn links(
        &self,
        files: &[Attachment],
        now: Timestamp,
    ) -> Result<Vec<String>, StoreError> {
        let mut links = Vec::with_capacity(files.len());
        for file in files {
            let own = || {
                self.links
                    .as_ref()
                    .map(|links| links.make(file, now + self.lifetime))
            };
            let link = match self.presigned {
                true => self
                    .store
                    .link(&file.key, self.lifetime)
                    .await?
                    .or_else(own),
                false => own(),
            };
            links.push(link.ok_or_else(|| StoreError::Failed {
                doing: "link to a file",
                cause: "server.public_url is empty, and the store has no links of its own".into(),
            })?);
        }
        Ok(links)
    }

    /// The file that a path below `/files/` leads to, if its token is valid.
    pub fn linked(&self, token: &str, now: Timestamp) -> Option<Linked> {
        self.links.as_ref()?.judge(token, now)
    }

    /// The bytes of a file in a range that lies within it.
    pub async fn open(&self, key: &str, range: Range<u64>) -> Result<FileBytes, StoreError> {
        self.store.open(key, range).await
    }

    /// Removes files; one that cannot be removed is logged and left to the sweep.
    pub async fn remove(&self, files: &[Attachment]) {
        for file in files {
            if let Err(error) = self.store.remove(&file.key).await {
                tracing::warn!(attachment = %file.id, %error, "cannot remove a file, the sweep will");
            }
        }
    }

    /// The store itself.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }
}

/// The drawer of a key: two digits of the key's random part, so that drawers fill evenly.
fn drawer(key: &str) -> Option<&str> {
    key.get(30..32)
}
