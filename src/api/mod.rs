//! Requests and answers of the admin API as types: the JSON of `/api/v1`, one file for each noun.
//!
//! The admin listener writes these types and the command line reads them, so a renamed field is a compile error. Each type
//! stands apart from the model: a change of the model cannot change the JSON. Order, names and omission of fields are
//! part of the API. A reader ignores fields that it does not know in an answer; a request with an unknown field is refused.
//!
//! No type here has a place for a secret. Text of third parties is plain text.

pub mod attachment;
pub mod budget;
pub mod delivery;
pub mod destination;
pub mod error;
pub mod event;
pub mod gateway;
pub mod job;
pub mod key;
pub mod page;
pub mod reconcile;
pub mod refused;
pub mod replay;
#[cfg(test)]
mod schema;
pub mod secret;
pub mod source;
pub mod status;
#[cfg(test)]
mod tests;
