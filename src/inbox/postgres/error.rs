//! Errors between the gateway and the database, and what follows from each.

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

use crate::inbox::InboxError;

/// Errors of work on the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DatabaseError {
    /// There is no connection, or it broke. Whether a commit that was under way has been made is not known.
    Lost(String),
    /// It was surely not done, and may be if tried again: somebody stood in the way, or it took too long.
    Again(String),
    /// The server's disk is full.
    NoSpace,
    /// This one record cannot be kept.
    Record(String),
    /// The server refuses it.
    Engine(String),
}

impl DatabaseError {
    /// The error as the caller of the inbox gets it.
    pub(super) fn told(self, doing: &'static str) -> InboxError {
        match self {
            Self::NoSpace => InboxError::NoSpace,
            Self::Record(cause) => InboxError::Record(cause),
            Self::Lost(cause) | Self::Again(cause) | Self::Engine(cause) => {
                InboxError::Engine { doing, cause }
            }
        }
    }

    /// True if the database itself cannot be had.
    pub(super) const fn is_outage(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            // What cannot be written into a parameter or read out of a row is no trouble of the connection.
            let cause = sentence(&error);
            let of_a_value = [
                "serializing parameter",
                "deserializing column",
                "invalid column",
                "expected ",
            ];
            return if of_a_value.iter().any(|words| cause.contains(words)) {
                Self::Engine(cause)
            } else {
                Self::Lost(cause)
            };
        };
        let code = said.code();
        // Without the detail: it may quote what callers sent.
        let cause = format!("{} (SQLSTATE {})", said.message(), code.code());
        match *code {
            SqlState::DISK_FULL => Self::NoSpace,
            SqlState::T_R_SERIALIZATION_FAILURE
            | SqlState::T_R_DEADLOCK_DETECTED
            | SqlState::LOCK_NOT_AVAILABLE
            | SqlState::QUERY_CANCELED => Self::Again(cause),
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::TOO_MANY_CONNECTIONS
            | SqlState::READ_ONLY_SQL_TRANSACTION
            | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => Self::Lost(cause),
            _ => match code.code().get(..2) {
                Some("08") => Self::Lost(cause),
                Some("22" | "23" | "54") => Self::Record(cause),
                _ => Self::Engine(cause),
            },
        }
    }
}

impl From<PoolError> for DatabaseError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => match Self::from(error) {
                // Refused at the door: nothing was done, and it may pass.
                Self::Engine(cause) | Self::Again(cause) | Self::Record(cause) => Self::Lost(cause),
                other => other,
            },
            PoolError::Timeout(_) => {
                Self::Again("every connection to the database is in use".into())
            }
            PoolError::PostCreateHook(error) => Self::Lost(error.to_string()),
            error => Self::Lost(error.to_string()),
        }
    }
}

/// An error with its causes; the driver's own text leaves them out.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
