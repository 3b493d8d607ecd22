//! Files that came along: their bytes, under a place of ours, and the links by which others fetch them.
//!
//! What is promised: a file is at its place only when all its bytes are durable, and it is put there only when its
//! request was found good; until then it is nobody's, and gone when whoever takes it in lets go of it. No name that a
//! sender chose stands in a path. Memory for a file does not grow with the file. What refers to a file is the inbox's
//! to know, and when a file can go is said there.

mod fetch;
mod folder;
mod intake;
mod link;
mod remote;

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

pub use self::fetch::{Allowed, FetchError, Fetcher, NamedFile};
pub use self::folder::Folder;
pub use self::intake::{Incoming, StagedFile};
pub use self::link::{Linked, Links};
pub use self::remote::{Remote, RemoteError};
use crate::model::{Attachment, Timestamp};

/// How many drawers a store has: files are spread over them, and looked through one drawer at a time.
pub const DRAWERS: u16 = 256;

/// The bytes of a file, piece by piece.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// A place where bytes lie.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Begins a file that will lie at `key`.
    async fn begin(&self, key: &str, file: &FileLabel<'_>) -> Result<Box<dyn Sink>, StoreError>;

    /// The bytes of a file in a range that lies within it.
    async fn open(&self, key: &str, range: Range<u64>) -> Result<Pieces, StoreError>;

    /// Removes a file; one that is not there is removed.
    async fn remove(&self, key: &str) -> Result<(), StoreError>;

    /// The keys in a drawer that were put there before a time. What was begun before it and never came to a place is
    /// removed on the way.
    async fn look(&self, drawer: u16, before: Timestamp) -> Result<Vec<String>, StoreError>;

    /// The store's own link to a file; none where it gives none.
    async fn link(&self, key: &str, lifetime: Duration) -> Result<Option<String>, StoreError>;

    /// Whether nobody else uses it, so that whatever is unknown here is nobody's.
    fn is_ours_alone(&self) -> bool;
}

/// A file on its way into a store. Dropped before it is placed, it leaves nothing behind.
#[async_trait]
pub trait Sink: Send {
    /// Takes the next bytes.
    async fn write(&mut self, piece: Bytes) -> Result<(), StoreError>;

    /// Makes what was taken durable, as far as that can be without its being visible, and gives its SHA-256.
    async fn finish(&mut self) -> Result<[u8; 32], StoreError>;

    /// Puts it at its place; then it is there for good.
    async fn place(self: Box<Self>) -> Result<(), StoreError>;
}

/// What a store may tell others of a file.
#[derive(Clone, Copy, Debug)]
pub struct FileLabel<'a> {
    /// Its cleaned name.
    pub name: &'a str,
    /// What its sender says it is.
    pub content_type: &'a str,
}

/// Why a store could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no room left.
    #[error("the attachment store has no space left")]
    NoSpace,
    /// There is no such file.
    #[error("the file is not in the attachment store")]
    Missing,
    /// It failed.
    #[error("the attachment store failed to {doing}: {cause}")]
    Failed {
        /// The operation.
        doing: &'static str,
        /// What the system or the server says.
        cause: String,
    },
}

/// How files are taken in and handed out.
#[derive(Debug)]
pub struct Files {
    store: Arc<dyn Store>,
    links: Option<Links>,
    presigned: bool,
    lifetime: Duration,
}

impl Files {
    /// Files in a store. `links` makes the gateway's own links; with `presigned` the store's are given where it has
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

    /// Whether anybody could fetch what is taken in.
    pub const fn has_links(&self) -> bool {
        self.presigned || self.links.is_some()
    }

    /// Begins to take a file in, which is called `name` by its sender.
    pub async fn begin(
        &self,
        name: &str,
        content_type: Option<&str>,
    ) -> Result<Incoming, StoreError> {
        Incoming::begin(&*self.store, name, content_type).await
    }

    /// How long a link is good.
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A link for each file, good from `now` on.
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

    /// The file that a path below `/files/` with a good token leads to.
    pub fn linked(&self, token: &str, now: Timestamp) -> Option<Linked> {
        self.links.as_ref()?.judge(token, now)
    }

    /// The bytes of a file in a range that lies within it.
    pub async fn open(&self, key: &str, range: Range<u64>) -> Result<Pieces, StoreError> {
        self.store.open(key, range).await
    }

    /// Removes files; what cannot be removed is logged and left to the sweep.
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

/// The drawer of a key: it stands in the key's own random part, so that drawers fill alike.
fn drawer(key: &str) -> Option<&str> {
    key.get(30..32)
}
