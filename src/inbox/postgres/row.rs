//! Columns of rows as values of the model.

use bytes::Bytes;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::DatabaseError;
use crate::inbox::Answer;
use crate::model::{DeliveryId, EventId, Timestamp};

/// A caller's text, kept as bytes.
pub(super) fn text(row: &Row, column: usize) -> Result<Option<String>, DatabaseError> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

/// A delivery's name from two columns.
pub(super) fn delivery_id(
    row: &Row,
    event: usize,
    number: usize,
) -> Result<DeliveryId, DatabaseError> {
    let (event, number): (Uuid, i32) = (row.try_get(event)?, row.try_get(number)?);
    Ok(DeliveryId {
        event: EventId::from_bytes(event.into_bytes()),
        number: u32::try_from(number).unwrap_or_default(),
    })
}

pub(super) fn time(row: &Row, column: usize) -> Result<Option<Timestamp>, DatabaseError> {
    Ok(row
        .try_get::<_, Option<i64>>(column)?
        .map(Timestamp::from_millis))
}

/// An answer from three columns: status, end, result; the task object, where it was asked for, from one of its own.
pub(super) fn answer(
    row: &Row,
    column: usize,
    task: Option<usize>,
) -> Result<Option<Answer>, DatabaseError> {
    let Some(status) = text(row, column)? else {
        return Ok(None);
    };
    let task = match task {
        Some(task) => row.try_get::<_, Option<Vec<u8>>>(task)?.map(Bytes::from),
        None => None,
    };
    Ok(Some(Answer {
        status,
        finished_at: text(row, column + 1)?,
        result: text(row, column + 2)?,
        task,
    }))
}

pub(super) fn json<T: serde::de::DeserializeOwned>(
    row: &Row,
    column: usize,
) -> Result<T, DatabaseError> {
    serde_json::from_slice(row.try_get(column)?)
        .map_err(|error| DatabaseError::Engine(error.to_string()))
}
