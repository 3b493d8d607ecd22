//! Errors of the writer, and what follows from each.

use rusqlite::{ErrorCode, ffi};

use crate::inbox::InboxError;

/// Errors of a group of records, or of one.
#[derive(Debug, PartialEq)]
pub(super) enum WriteError {
    NoSpace,
    Record(String),
    Engine(String),
    /// Nothing can be trusted any more.
    Fatal(String),
}

impl WriteError {
    /// The error behind an engine's one.
    pub(super) fn of(error: &rusqlite::Error, committing: bool) -> Self {
        let cause = error.to_string();
        let rusqlite::Error::SqliteFailure(code, _) = error else {
            return match error {
                rusqlite::Error::ToSqlConversionFailure(_) | rusqlite::Error::NulError(_) => {
                    Self::Record(cause)
                }
                _ => Self::Engine(cause),
            };
        };
        match (code.code, code.extended_code) {
            // The shared index of the log lives on the same disk.
            (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => Self::NoSpace,
            (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => Self::Fatal(cause),
            (
                ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase,
                _,
            ) if committing => Self::Fatal(cause),
            (ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch, _) => {
                Self::Record(cause)
            }
            _ => Self::Engine(cause),
        }
    }

    /// The error as the caller of the inbox gets it.
    pub(super) fn told(&self, doing: &'static str) -> InboxError {
        match self {
            Self::NoSpace => InboxError::NoSpace,
            Self::Record(cause) => InboxError::Record(cause.clone()),
            Self::Engine(cause) => InboxError::Engine {
                doing,
                cause: cause.clone(),
            },
            Self::Fatal(_) => InboxError::Closed,
        }
    }

    /// The same error for each of a group that failed as one; none of them is to blame, so no `Record` among them.
    pub(super) fn for_all(&self) -> Self {
        match self {
            Self::NoSpace => Self::NoSpace,
            Self::Record(cause) | Self::Engine(cause) => Self::Engine(cause.clone()),
            Self::Fatal(cause) => Self::Fatal(cause.clone()),
        }
    }
}
