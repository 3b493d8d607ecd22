//! A file that is being received: counted, digested, and put at its place when its request was found good. Dropped before
//! that, it leaves nothing behind.

use bytes::Bytes;

use super::{FileLabel, Sink, Store, StoreError};
use crate::model::attachment::{cleaned_name, cleaned_type};
use crate::model::{Attachment, AttachmentId, Timestamp};

/// A file whose bytes are still coming.
pub struct Incoming {
    sink: Box<dyn Sink>,
    file: Attachment,
}

/// A file that is complete and durable, but not yet at its place.
pub struct StagedFile {
    sink: Box<dyn Sink>,
    file: Attachment,
}

impl Incoming {
    pub(super) async fn begin(
        store: &dyn Store,
        name: &str,
        content_type: Option<&str>,
    ) -> Result<Self, StoreError> {
        let id = AttachmentId::new();
        let name = cleaned_name(name);
        let content_type = cleaned_type(content_type);
        let key = id.key(&name);
        let sink = store
            .begin(
                &key,
                &FileLabel {
                    name: &name,
                    content_type: &content_type,
                },
            )
            .await?;
        let file = Attachment {
            id,
            name,
            content_type,
            size: 0,
            sha256: [0; 32],
            key,
            origin: None,
            expires_at: Timestamp::default(),
        };
        Ok(Self { sink, file })
    }

    /// The number of bytes that have come.
    pub const fn size(&self) -> u64 {
        self.file.size
    }

    /// Takes the next bytes.
    pub async fn take(&mut self, piece: Bytes) -> Result<(), StoreError> {
        self.file.size += piece.len() as u64;
        self.sink.write(piece).await
    }

    /// Ends the file. It is kept until `expires_at` even if nothing refers to it.
    pub async fn end(mut self, expires_at: Timestamp) -> Result<StagedFile, StoreError> {
        let sha256 = self.sink.finish().await?;
        Ok(StagedFile {
            sink: self.sink,
            file: Attachment {
                sha256,
                expires_at,
                ..self.file
            },
        })
    }
}

impl StagedFile {
    /// The name, the size and the digest.
    pub const fn file(&self) -> &Attachment {
        &self.file
    }

    /// Puts it at its place. From then on the caller has to refer to it or to remove it.
    pub async fn place(self) -> Result<Attachment, StoreError> {
        self.sink.place().await?;
        Ok(self.file)
    }
}
