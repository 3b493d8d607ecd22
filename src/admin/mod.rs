//! The operator's listener: events, their deliveries, and the operator's actions on them, as JSON under `/api/v1`.
//!
//! Promises: without the token, only health answers; no answer has a secret, a header that proved a caller, or the engine's
//! own words; a GET changes nothing; every list is bounded. A replay makes new deliveries and leaves the old ones as they
//! are. Each change by an operator is one line of the log, with the field `audit`.

mod attachment;
mod attention;
mod auth;
mod budget;
mod delivery;
mod destination;
mod enrolment;
mod error;
mod event;
mod guess;
mod health;
mod hold;
mod job;
mod json;
mod key;
mod layers;
mod loaded;
mod name;
#[cfg(test)]
mod openapi;
mod page;
mod reconcile;
mod refused;
mod replay;
mod resend;
mod routes;
mod secret;
mod source;
mod state;
mod status;
mod stopper;
#[cfg(test)]
mod tests;
mod view;
mod waiting;

pub use self::loaded::{Loaded, ReloadAnswer, ReloadOrder};
pub use self::routes::{probes, router};
pub use self::state::{AdminParts, AdminState, ConfiguredSource};
pub use self::stopper::Stopper;
