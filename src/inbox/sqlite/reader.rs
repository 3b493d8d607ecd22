//! Connections that only read, a few, each used by one question at a time.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::schema;
use crate::inbox::InboxError;

/// Questions that are answered at once.
const READERS: usize = 4;

/// The readers.
#[derive(Debug)]
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    free: Arc<Semaphore>,
}

impl Readers {
    /// Opens the connections.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let idle = (0..READERS)
            .map(|_| schema::reader(path))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            free: Arc::new(Semaphore::new(idle.len())),
            idle: Arc::new(Mutex::new(idle)),
        })
    }

    /// Asks a question where blocking is allowed. It runs to its end even when nobody waits for it any more.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        doing: &'static str,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, InboxError> {
        let permit = Arc::clone(&self.free)
            .acquire_owned()
            .await
            .map_err(|_| InboxError::Closed)?;
        let conn = self.idle.lock().pop().ok_or(InboxError::Closed)?;
        let mut seat = ReaderSlot {
            conn: Some(conn),
            idle: Arc::clone(&self.idle),
            _permit: permit,
        };
        let asked =
            tokio::task::spawn_blocking(move || seat.conn.as_mut().map(|conn| question(conn)));
        match asked.await {
            Ok(Some(Ok(answer))) => Ok(answer),
            Ok(Some(Err(error))) => Err(InboxError::Engine {
                doing,
                cause: error.to_string(),
            }),
            Ok(None) => Err(InboxError::Closed),
            Err(error) => Err(InboxError::Engine {
                doing,
                cause: error.to_string(),
            }),
        }
    }

    /// Lets no further question in, waits for those that run, and closes.
    pub(super) async fn close(&self) {
        let all = u32::try_from(READERS).unwrap_or(u32::MAX);
        if let Ok(permits) = self.free.acquire_many(all).await {
            permits.forget();
        }
        self.free.close();
        self.idle.lock().clear();
    }
}

/// A connection in use; goes back whatever happens, a panic too.
struct ReaderSlot {
    conn: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
    /// Given back after the connection: whoever has it finds one.
    _permit: OwnedSemaphorePermit,
}

impl Drop for ReaderSlot {
    fn drop(&mut self) {
        self.idle.lock().extend(self.conn.take());
    }
}
