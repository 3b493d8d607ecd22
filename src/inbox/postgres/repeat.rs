//! Work on a connection, done again where that does no harm.
//!
//! A piece of work is all in one transaction. It is done again when others stood in its way; a question is asked once
//! more when its connection was lost, most likely while nobody looked.

use std::time::Duration;

use super::error::DatabaseError;

/// Times that a piece of work is done when others stand in its way.
const TRIES: u32 = 8;

/// The kind of work, by its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// A question.
    Read,
    /// A change.
    Write,
}

/// Count of the times that a piece of work was done.
#[derive(Debug)]
pub(super) struct Repeats {
    tries: u32,
    may_ask_again: bool,
}

impl Repeats {
    /// Work that was not done yet.
    pub(super) fn new(access: Access) -> Self {
        Self {
            tries: 0,
            may_ask_again: access == Access::Read,
        }
    }

    /// True if the work is to be done again after this end. Waits a little first where others stood in its way.
    pub(super) async fn again<T>(&mut self, end: &Result<T, DatabaseError>) -> bool {
        self.tries += 1;
        match end {
            Err(DatabaseError::Again(_)) if self.tries < TRIES => {
                pause(self.tries).await;
                true
            }
            end => self.ask_again(end),
        }
    }

    /// True if a question is to be asked once more, on another connection.
    pub(super) fn ask_again<T>(&mut self, end: &Result<T, DatabaseError>) -> bool {
        matches!(end, Err(DatabaseError::Lost(_))) && std::mem::take(&mut self.may_ask_again)
    }
}

/// Waits a little before something is tried again, not as long as the others who also wait.
pub(super) async fn pause(tries: u32) {
    tokio::time::sleep(Duration::from_millis(
        fastrand::u64(1..20) * u64::from(tries),
    ))
    .await;
}

/// Does work on a connection of the database, and does it again where that does no harm.
macro_rules! repeat {
    ($database:expr, $access:ident, |$conn:ident| $work:expr) => {{
        let access = $crate::inbox::postgres::repeat::Access::$access;
        let mut repeats = $crate::inbox::postgres::repeat::Repeats::new(access);
        loop {
            match $database.connection(access).await {
                Ok(mut client) => {
                    let $conn = &mut client;
                    let end = $crate::inbox::postgres::database::within($work).await;
                    $crate::inbox::postgres::database::give_back(client, &end);
                    if !repeats.again(&end).await {
                        break end;
                    }
                }
                Err(error) => {
                    let end = Err(error);
                    if !repeats.ask_again(&end) {
                        break end;
                    }
                }
            }
        }
    }};
}

/// Asks the database of an inbox.
macro_rules! reading {
    ($inbox:ident, $doing:literal, |$conn:ident| $work:expr) => {
        repeat!($inbox.database, Read, |$conn| $work)
            .map_err(|error| $inbox.database.told(error, $doing))
    };
}

/// Changes the database of an inbox, unless it is closed.
macro_rules! writing {
    ($inbox:ident, $doing:literal, |$conn:ident| $work:expr) => {
        match $inbox.is_open() {
            Ok(()) => {
                repeat!($inbox.database, Write, |$conn| $work).map_err(|error| error.told($doing))
            }
            Err(closed) => Err(closed),
        }
    };
}
