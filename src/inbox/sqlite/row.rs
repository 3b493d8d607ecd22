//! Columns of rows as values of the model.

use bytes::Bytes;
use rusqlite::Row;
use rusqlite::types::Type;

use crate::inbox::Answer;
use crate::model::{Account, Class, DeliveryState, Destination, Route, Timestamp};

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row
        .get::<_, Option<i64>>(column)?
        .map(Timestamp::from_millis))
}

/// An answer from three columns: status, end, result; the task object, where it was asked for, from one of its own.
pub(super) fn answer(
    row: &Row<'_>,
    column: usize,
    task: Option<usize>,
) -> rusqlite::Result<Option<Answer>> {
    let Some(status) = row.get(column)? else {
        return Ok(None);
    };
    let task = match task {
        Some(task) => row.get::<_, Option<Vec<u8>>>(task)?.map(Bytes::from),
        None => None,
    };
    Ok(Some(Answer {
        status,
        finished_at: row.get(column + 1)?,
        result: row.get(column + 2)?,
        task,
    }))
}

pub(super) fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<DeliveryState> {
    let word: String = row.get(column)?;
    DeliveryState::parse(&word).ok_or_else(|| strange(column, format!("{word:?} is no state")))
}

pub(super) fn destination(row: &Row<'_>, column: usize) -> rusqlite::Result<Destination> {
    row.get::<_, String>(column)?
        .parse()
        .map_err(|error| strange(column, format!("{error}")))
}

/// A route from four columns: source, destination, account, class. None: there is no such route.
pub(super) fn route(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Route>> {
    let (Some(source), Some(destination)) = (
        row.get::<_, Option<String>>(column)?,
        row.get::<_, Option<String>>(column + 1)?,
    ) else {
        return Ok(None);
    };
    let Ok(destination) = destination.parse() else {
        return Ok(None);
    };
    Ok(Some(Route {
        source,
        destination,
        account: account(row, column + 2)?,
        class: class(row, column + 3)?,
    }))
}

/// An account. What ended before there were routes is the operator's.
pub(super) fn account(row: &Row<'_>, column: usize) -> rusqlite::Result<Account> {
    match row
        .get_ref(column)?
        .as_str_or_null()
        .map_err(|error| strange(column, error.to_string()))?
    {
        None | Some("operator") => Ok(Account::Operator),
        Some(word) => word
            .parse()
            .map_err(|error| strange(column, format!("{error}"))),
    }
}

/// A class. What ended before there were routes is of the usual one.
pub(super) fn class(row: &Row<'_>, column: usize) -> rusqlite::Result<Class> {
    match row
        .get_ref(column)?
        .as_str_or_null()
        .map_err(|error| strange(column, error.to_string()))?
    {
        None => Ok(Class::Normal),
        Some(word) => {
            Class::parse(word).ok_or_else(|| strange(column, format!("{word:?} is no class")))
        }
    }
}

pub(super) fn json<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    serde_json::from_str(&row.get::<_, String>(column)?)
        .map_err(|error| strange(column, error.to_string()))
}

fn strange(column: usize, cause: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, cause.into())
}
