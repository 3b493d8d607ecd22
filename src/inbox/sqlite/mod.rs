//! The inbox on SQLite: one writer thread that commits in groups, readers beside it.

use std::path::Path;

use super::InboxError;

/// An inbox in one SQLite file.
#[derive(Debug)]
pub struct SqliteInbox {}

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub struct SqliteOptions {
    /// How many records share a commit at most.
    pub batch: usize,
    /// How many may wait for the writer.
    pub queue: usize,
}

impl SqliteInbox {
    /// Opens the file, makes it where it is missing, brings its schema up to date, frees leases that a crash left.
    pub async fn open(_path: &Path, _options: SqliteOptions) -> Result<Self, InboxError> {
        unimplemented!()
    }
}
